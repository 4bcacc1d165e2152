package ingest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestSlow: a request that does not come in time is cut, wherever it stops.
func TestSlow(t *testing.T) {
	r := newRig(t, Options{ReadTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond})
	f := func(name, raw string, drip time.Duration, want ...int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			go func() {
				for i := range len(raw) {
					if _, err := io.WriteString(c, raw[i:i+1]); err != nil {
						return
					}
					time.Sleep(drip)
				}
			}()
			answer, err := io.ReadAll(c)
			if isTimeout(err) {
				t.Fatal("not cut")
			}
			wantStatus(t, string(answer), want...)
		})
	}
	head := "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\n"
	f("dripping header", head+strings.Repeat("X-A: b\r\n", 1000), 5*time.Millisecond, 408)
	f("dripping body", head+"Content-Length: 5000\r\n\r\n"+strings.Repeat("x", 4000), 3*time.Millisecond, 408)
	f("body stops", head+"Content-Length: 10\r\n\r\nxyz", 0, 408)
	f("chunk stops", head+"Transfer-Encoding: chunked\r\n\r\n5\r\nxy", 0, 408)
	f("endless chunk extension", head+"Transfer-Encoding: chunked\r\n\r\n5;"+strings.Repeat("x", 4000), 3*time.Millisecond, 408)
	f("idle", head+"Content-Length: 0\r\n\r\n", 0, 200)
	if used := r.srv.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes still reserved", used)
	}
	stored, _ := r.arch.all()
	if len(stored) != 1 {
		t.Errorf("%d stored, want only the idle one's", len(stored))
	}
}

// TestBudget: bodies beyond what may be in flight are 503, the small ones longest
// served, and all is given back on every way out.
func TestBudget(t *testing.T) {
	r := newRig(t, Options{ReadTimeout: time.Minute, InFlightBytes: 1 << 20, MaxBodyBytes: 400 << 10, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	open := func(length int) net.Conn {
		c := r.dial()
		before := r.srv.budget.used.Load()
		_, _ = fmt.Fprintf(c, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: %d\r\n\r\nx", length)
		waitFor(t, func() bool { return r.srv.budget.used.Load() == before+int64(length) })
		return c
	}
	a, b := open(400<<10), open(300<<10)
	large := strings.Repeat("x", 100<<10)
	got := r.send(request("/in/s", large, "X-Test: ok"))
	wantStatus(t, got, 503)
	if headerOf(got, "Retry-After") == "" || bodyOf(got) != `{"error":{"code":"busy"}}` {
		t.Errorf("answer %q", got)
	}
	wantStatus(t, r.send("POST /in/s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 102400\r\n\r\n"), 503)
	wantStatus(t, r.send("POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked("{}", 10)), 503)
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
	_ = a.Close()
	_ = b.Close()
	waitFor(t, func() bool { return r.srv.budget.used.Load() == 0 && r.srv.budget.large.Load() == 0 })
	wantStatus(t, r.send(request("/in/s", large, "X-Test: ok")), 200)
	wantStatus(t, r.send("POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(large, 1000)), 200)
	waitFor(t, func() bool { return r.srv.budget.used.Load() == 0 && r.srv.budget.large.Load() == 0 })
}

// TestBudgetOfSmallBodies: small bodies may fill the whole budget, and not more.
func TestBudgetOfSmallBodies(t *testing.T) {
	r := newRig(t, Options{ReadTimeout: time.Minute, InFlightBytes: 640 << 10, MaxBodyBytes: 400 << 10, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	for range 10 {
		_, _ = io.WriteString(r.dial(), "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 65536\r\n\r\nx")
	}
	waitFor(t, func() bool { return r.srv.budget.used.Load() == 640<<10 })
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 503)
	wantStatus(t, r.send(request("/in/s", "", "X-Test: ok")), 200)
}

// TestBudgetOfOneAddress: one address cannot take the whole budget.
func TestBudgetOfOneAddress(t *testing.T) {
	r := newRig(t, Options{InFlightBytes: 1 << 20, MaxBodyBytes: 400 << 10})
	c := r.dial()
	_, _ = io.WriteString(c, "POST /in/s HTTP/1.1\r\nHost: h\r\nContent-Length: 409600\r\n\r\nx")
	waitFor(t, func() bool { return r.srv.budget.used.Load() == 400<<10 })
	wantStatus(t, r.send(request("/in/s", strings.Repeat("x", 300<<10), "X-Test: ok")), 503)
	if n := r.srv.budget.used.Load(); n != 400<<10 {
		t.Errorf("%d bytes reserved after a refusal, want %d", n, 400<<10)
	}
}

// TestChunkedBurst: chunked requests ask for all that their source allows, yet a burst
// of small ones is served.
func TestChunkedBurst(t *testing.T) {
	r := newRig(t, Options{InFlightBytes: 1 << 20, MaxBodyBytes: 400 << 10})
	answers := make(chan string, 50)
	for range cap(answers) {
		c := r.dial()
		go func() {
			_, _ = io.WriteString(c, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked("{}", 10))
			answer, _ := io.ReadAll(c)
			answers <- string(answer)
		}()
	}
	for range cap(answers) {
		wantStatus(t, <-answers, 200)
	}
}

func TestConnectionLimits(t *testing.T) {
	f := func(o Options, free int, class refusal) {
		t.Helper()
		r := newRig(t, o)
		var open []net.Conn
		for range free {
			c := r.dial()
			open = append(open, c)
		}
		waitFor(t, func() bool { return r.srv.conns.len() == free })
		got := r.send("")
		wantStatus(t, got, 503)
		if headerOf(got, "Retry-After") == "" {
			t.Errorf("answer %q", got)
		}
		if n := valueOf(t, r.srv.metrics.refused[class]); n != 1 {
			t.Errorf("%v refused of class %s, want 1", n, refusalInfo[class].code)
		}
		_ = open[0].Close()
		waitFor(t, func() bool { return r.srv.conns.len() == free-1 })
		wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
		for _, c := range open {
			_ = c.Close()
		}
		waitFor(t, func() bool { return r.srv.conns.len() == 0 })
		r.srv.conns.mu.Lock()
		defer r.srv.conns.mu.Unlock()
		if len(r.srv.conns.peer) != 0 {
			t.Errorf("%d addresses still counted", len(r.srv.conns.peer))
		}
	}
	f(Options{MaxConns: 3}, 3, refusedConns)
	f(Options{MaxConnsPerIP: 3}, 3, refusedPeerConns)
	// A trusted proxy stands for many clients and is not counted as one.
	r := newRig(t, Options{MaxConnsPerIP: 1, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	r.dial()
	waitFor(t, func() bool { return r.srv.conns.len() == 1 })
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
	if a, b := networkOf(netip.MustParseAddr("2001:db8::1")), networkOf(netip.MustParseAddr("2001:db8::ffff:1")); a != b {
		t.Errorf("%s and %s are counted apart", a, b)
	}
}

type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

// TestAcceptErrors: without descriptors the server waits; fasthttp would stop for good.
func TestAcceptErrors(t *testing.T) {
	s, err := New(Options{}, &memArchive{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	wrapped := func(e error) error { return &net.OpError{Op: "accept", Err: e} }
	odd := errors.New("odd")
	l := &listener{srv: s, Listener: &failingListener{Listener: ln, errs: []error{wrapped(syscall.EMFILE), wrapped(syscall.ENFILE), wrapped(syscall.ECONNABORTED), wrapped(odd)}}}
	if _, err := l.Accept(); !errors.Is(err, odd) {
		t.Errorf("accept gave %v, want what does not pass", err)
	}
	if n := valueOf(t, s.metrics.refused[refusedAccept]); n != 3 {
		t.Errorf("%v counted, want 3", n)
	}
}

// TestAnswerSurvivesUnreadBody: a sender that goes on sending a body we refused still
// gets the answer, and not a reset.
func TestAnswerSurvivesUnreadBody(t *testing.T) {
	r := newRig(t, Options{MaxBodyBytes: 1000})
	for i := range 20 {
		c := r.dial()
		body := strings.Repeat("x", 200<<10)
		if i%10 == 9 { // more than the kernel's buffers take
			body = strings.Repeat("x", 11<<20)
		}
		if _, err := io.WriteString(c, request("/in/s", body)); err != nil {
			t.Fatalf("write: %v", err)
		}
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("read: %v after %q", err, answer)
		}
		wantStatus(t, string(answer), 413)
		_ = c.Close()
	}
}

// TestLargeBuffersGo: a connection does not keep the buffer of a large body; fasthttp
// would, for as long as the connection and its context live.
func TestLargeBuffersGo(t *testing.T) {
	s, err := New(Options{}, &memArchive{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetSources([]Source{testSource("s")}); err != nil {
		t.Fatal(err)
	}
	c, err := s.wrap(&loop{})
	if err != nil {
		t.Fatal(err)
	}
	f := func(size int, keeps bool) {
		t.Helper()
		c.src = s.table.Load().byName["s"]
		ctx := new(fasthttp.RequestCtx)
		ctx.Init2(c, nil, false)
		ctx.Request.SetBody(make([]byte, size))
		s.handle(ctx)
		if got := cap(ctx.Request.SwapBody(nil)) >= size; got != keeps {
			t.Errorf("buffer of %d bytes kept: %v, want %v", size, got, keeps)
		}
	}
	f(1000, true)
	f(5<<20, false)
}
