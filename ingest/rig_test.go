package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"penstock/archive"
	"penstock/provider"
	"penstock/verify"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Both are fasthttp's and have no stop: one keeps the Date header, the other looks
		// at its stop every ten seconds.
		goleak.IgnoreTopFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// memArchive is an archive in memory that can be made to fail, wait and panic.
type memArchive struct {
	mu       sync.Mutex
	stored   []archive.Delivery
	rejected []archive.Delivery
	err      error         // of Append
	rejErr   error         // of Reject
	hold     chan struct{} // Append waits for it
	entered  chan struct{} // Append says that it waits
	seq      int
	panics   bool
	noted    map[uint64]archive.Steps // by seq
}

func (a *memArchive) Append(d *archive.Delivery) error {
	if a.hold != nil {
		a.entered <- struct{}{}
		<-a.hold
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.panics {
		panic("secret of the body")
	}
	if a.err != nil {
		return a.err
	}
	a.seq++
	d.ID, d.Seq = fmt.Sprintf("D%d", a.seq), uint64(a.seq)
	a.stored = append(a.stored, copyOf(d))
	return nil
}

func (a *memArchive) Reject(d *archive.Delivery) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	d.ID = fmt.Sprintf("R%d", a.seq)
	a.rejected = append(a.rejected, copyOf(d))
	return true, a.rejErr
}

func (a *memArchive) note(seq uint64, f func(*archive.Steps)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.noted == nil {
		a.noted = map[uint64]archive.Steps{}
	}
	s := a.noted[seq]
	f(&s)
	a.noted[seq] = s
}

func (a *memArchive) NoteStored(seq uint64, verified, archived time.Duration) {
	a.note(seq, func(s *archive.Steps) { s.Verified, s.Archived = verified, archived })
}

func (a *memArchive) NoteAcked(seq uint64, acked time.Duration) {
	a.note(seq, func(s *archive.Steps) { s.Acked = acked })
}

func (a *memArchive) all() (stored, rejected []archive.Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]archive.Delivery(nil), a.stored...), append([]archive.Delivery(nil), a.rejected...)
}

func (a *memArchive) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func copyOf(d *archive.Delivery) archive.Delivery {
	c := *d
	c.Target, c.Header, c.Body = bytes.Clone(d.Target), bytes.Clone(d.Header), bytes.Clone(d.Body)
	c.Method = strings.Clone(d.Method)
	return c
}

// wordVerifier does what the header X-Test says: "ok", "challenge", "panic", or a reason.
type wordVerifier struct {
	ack   verify.Reply
	reply *verify.Reply // of refusals
	seen  func(r *provider.Request)
}

func (v *wordVerifier) Verify(r *provider.Request, _ time.Time) verify.Result {
	if v.seen != nil {
		v.seen(r)
	}
	word, _ := r.Header.Get("x-test")
	switch string(word) {
	case "ok":
		return verify.Result{Verdict: verify.Verdict(archive.Accepted), VerifiedBy: "test:1", Tenant: "t1"}
	case "challenge":
		return verify.Result{Verdict: verify.Verdict(archive.Challenge),
			Reply: &verify.Reply{Status: 200, ContentType: "text/plain", Body: r.Body}}
	case "panic":
		panic(errors.New("body: " + string(r.Body)))
	case "":
		return verify.Result{Verdict: verify.Verdict(archive.Rejected), Reason: "signature_missing", Reply: v.reply}
	}
	return verify.Result{Verdict: verify.Verdict(archive.Rejected), Reason: string(word), Reply: v.reply}
}

func (v *wordVerifier) Ack(*provider.Request, time.Time) verify.Reply { return v.ack }

// hmacVerifier is a scheme as most are, without the engine around it.
type hmacVerifier struct{ pool sync.Pool }

func newHMAC(key string) *hmacVerifier {
	v := &hmacVerifier{}
	v.pool.New = func() any { return &hmacState{mac: hmac.New(sha256.New, []byte(key))} }
	return v
}

type hmacState struct {
	mac interface {
		io.Writer
		Sum([]byte) []byte
		Reset()
	}
	sum, sig [32]byte
}

func (v *hmacVerifier) Verify(r *provider.Request, _ time.Time) verify.Result {
	st := v.pool.Get().(*hmacState)
	defer v.pool.Put(st)
	sig, n := r.Header.Get("x-sig")
	if n != 1 || len(sig) != 64 {
		return verify.Result{Verdict: verify.Verdict(archive.Rejected), Reason: "signature_malformed"}
	}
	st.mac.Reset()
	_, _ = st.mac.Write(r.Body)
	sum := st.mac.Sum(st.sum[:0])
	if _, err := hex.Decode(st.sig[:], sig); err != nil || !hmac.Equal(sum, st.sig[:]) {
		return verify.Result{Verdict: verify.Verdict(archive.Rejected), Reason: "signature_mismatch"}
	}
	return verify.Result{Verdict: verify.Verdict(archive.Accepted)}
}

func (v *hmacVerifier) Ack(*provider.Request, time.Time) verify.Reply { return verify.Reply{} }

type rig struct {
	t    *testing.T
	srv  *Server
	arch *memArchive
	addr string
}

// newRig starts a server with short timeouts and one source "s" unless others are given.
func newRig(t *testing.T, o Options, sources ...Source) *rig {
	t.Helper()
	setDefault(&o.ReadTimeout, 2*time.Second)
	setDefault(&o.IdleTimeout, 5*time.Second)
	r := &rig{t: t, arch: &memArchive{}}
	srv, err := New(o, r.arch)
	if err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	if len(sources) == 0 {
		sources = []Source{testSource("s")}
	}
	if err := srv.SetSources(sources); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Drain(ctx)
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

func testSource(name string) Source {
	return Source{Name: name, Provider: "test", Verifier: &wordVerifier{}}
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// send writes raw bytes and gives all that comes back until the server closes; the
// client's own side stays open.
func (r *rig) send(raw string) string {
	r.t.Helper()
	c := r.dial()
	go func() { _, _ = io.WriteString(c, raw) }()
	var all bytes.Buffer
	_, _ = io.Copy(&all, c) // a reset after the answer is no error of ours
	return all.String()
}

// request is a plain POST that asks for the connection to be closed.
func request(path, body string, headers ...string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + lines(headers) +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// statuses gives the status codes of the answers in a stream, in order.
func statuses(stream string) []int {
	var list []int
	br := bufio.NewReader(strings.NewReader(stream))
	for {
		line, err := br.ReadString('\n')
		var code int
		if n, _ := fmt.Sscanf(line, "HTTP/1.1 %d ", &code); n == 1 {
			list = append(list, code)
		}
		if err != nil {
			return list
		}
	}
}

func wantStatus(t *testing.T, answer string, want ...int) {
	t.Helper()
	if got := statuses(answer); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("statuses %v, want %v\n%q", got, want, answer)
	}
}

// header gives a header of the first answer in a stream.
func headerOf(answer, name string) string {
	head, _, _ := strings.Cut(answer, "\r\n\r\n")
	for line := range strings.SplitSeq(head, "\r\n") {
		if k, v, ok := strings.Cut(line, ": "); ok && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

func bodyOf(answer string) string {
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	return body
}

// gather gives the values of a collector's series: of a histogram, how often it observed.
func gather(t *testing.T, c prometheus.Collector) (values []float64) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case m.GetHistogram() != nil:
				values = append(values, float64(m.GetHistogram().GetSampleCount()))
			case m.GetGauge() != nil:
				values = append(values, m.GetGauge().GetValue())
			default:
				values = append(values, m.GetCounter().GetValue())
			}
		}
	}
	return values
}

func valueOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	v := gather(t, c)
	if len(v) != 1 {
		t.Fatalf("%d series, want 1", len(v))
	}
	return v[0]
}
