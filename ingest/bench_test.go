package ingest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"penstock/archive"
)

// nullArchive keeps nothing and allocates nothing.
type nullArchive struct{}

func (nullArchive) NoteStored(uint64, time.Duration, time.Duration) {}
func (nullArchive) NoteAcked(uint64, time.Duration)                 {}
func (nullArchive) Append(d *archive.Delivery) error                { d.ID = "01J00000000000000000000000"; return nil }
func (nullArchive) Reject(d *archive.Delivery) (bool, error) {
	d.ID = "01J0000000000000000000000R"
	return true, nil
}

// loop is a connection that sends one request again and again and throws answers away.
type loop struct {
	net.Conn
	raw  []byte
	at   int
	left int
}

func (l *loop) Read(p []byte) (int, error) {
	if l.at == len(l.raw) {
		if l.left--; l.left <= 0 {
			return 0, io.EOF
		}
		l.at = 0
	}
	n := copy(p, l.raw[l.at:])
	l.at += n
	return n, nil
}
func (l *loop) Write(p []byte) (int, error)        { return len(p), nil }
func (l *loop) Close() error                       { return nil }
func (l *loop) RemoteAddr() net.Addr               { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }
func (l *loop) LocalAddr() net.Addr                { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 2} }
func (l *loop) SetDeadline(time.Time) error        { return nil }
func (l *loop) SetReadDeadline(t time.Time) error  { return nil }
func (l *loop) SetWriteDeadline(t time.Time) error { return nil }

// signedRequest is a 1 KiB delivery as a proxy hands it on.
func signedRequest(key string, headers string) []byte {
	body := make([]byte, 1024)
	for i := range body {
		body[i] = 'a' + byte(i%26)
	}
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write(body)
	return fmt.Appendf(nil, "POST /in/s HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"+
		"Content-Type: application/json; charset=utf-8\r\nAccept: */*\r\nX-Sig: %s\r\n%sContent-Length: %d\r\n\r\n%s",
		hex.EncodeToString(mac.Sum(nil)), headers, len(body), body)
}

func newBenchServer(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := New(o, nullArchive{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.SetSources([]Source{{Name: "s", Provider: "test", Verifier: newHMAC("key"), PublicURL: "https://hooks.example.com", Rate: 1e9}}); err != nil {
		tb.Fatal(err)
	}
	return s
}

// serveLoop serves n requests on one connection, as fasthttp does it.
func serveLoop(tb testing.TB, s *Server, raw []byte, n int) {
	tb.Helper()
	l := &loop{raw: raw, left: n}
	c, err := s.wrap(l)
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.http.ServeConn(c); err != nil {
		tb.Fatal(err)
	}
}

// TestNoAllocations: the way of an accepted delivery through the edge costs nothing
// that the collector would have to clean up, behind a trusted proxy too.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	f := func(name string, o Options, headers string) {
		t.Helper()
		s := newBenchServer(t, o)
		raw := signedRequest("key", headers)
		const n = 2000
		// A connection costs something; a request must not. Two lengths tell them apart.
		perConn := testing.AllocsPerRun(5, func() { serveLoop(t, s, raw, 1) })
		many := testing.AllocsPerRun(5, func() { serveLoop(t, s, raw, n) })
		if per := (many - perConn) / (n - 1); per >= 0.05 {
			t.Errorf("%s: %.2f allocations per request", name, per)
		}
		if got := valueOf(t, s.metrics.source("s").accepted); got < n {
			t.Errorf("%s: %v accepted, want more than %d: the path measured is not the accepted one", name, got, n)
		}
	}
	f("direct", Options{}, "")
	f("behind a proxy", Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "X-Forwarded-For: 203.0.113.9, 10.3.3.3\r\n")
}

// BenchmarkAccepted is one delivery from its bytes to its answer's bytes, without
// sockets and disk; BenchmarkBareFasthttp is what fasthttp alone takes of that.
func BenchmarkAccepted(b *testing.B) {
	s := newBenchServer(b, Options{})
	b.ReportAllocs()
	serveLoop(b, s, signedRequest("key", ""), b.N+1)
}

func BenchmarkAcceptedBehindProxy(b *testing.B) {
	s := newBenchServer(b, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	b.ReportAllocs()
	serveLoop(b, s, signedRequest("key", "X-Forwarded-For: 203.0.113.9, 10.3.3.3\r\n"), b.N+1)
}

func BenchmarkRejected(b *testing.B) {
	s := newBenchServer(b, Options{})
	b.ReportAllocs()
	serveLoop(b, s, signedRequest("another key", ""), b.N+1)
}

func BenchmarkBareFasthttp(b *testing.B) {
	srv := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {}, NoDefaultServerHeader: true}
	b.ReportAllocs()
	if err := srv.ServeConn(&loop{raw: signedRequest("key", ""), left: b.N + 1}); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkHMACAlone(b *testing.B) {
	v := newHMAC("key")
	body := make([]byte, 1024)
	st := v.pool.Get().(*hmacState)
	b.ReportAllocs()
	for b.Loop() {
		st.mac.Reset()
		_, _ = st.mac.Write(body)
		st.mac.Sum(st.sum[:0])
	}
}
