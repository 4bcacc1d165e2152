package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const doc = "https://example.com/keys"

// publisher is a provider's site: what it answers can be changed, and it counts.
type publisher struct {
	*httptest.Server
	hits   atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func (p *publisher) says(h http.HandlerFunc) { p.answer.Store(&h) }

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(s)) }
}

func away(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusBadGateway) }

func newPublisher(t *testing.T, h http.HandlerFunc) *publisher {
	t.Helper()
	p := &publisher{}
	p.says(h)
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.hits.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// clock is a time that the test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1780000000, c.at.Load()) }
func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }

func newFetcher(t *testing.T, p *publisher, c *clock, o Options) *Fetcher {
	t.Helper()
	o.Now = c.now
	if p != nil {
		o.RootCAs = p.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Listener.Addr().String())
		}
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func want(t *testing.T, what string, got []byte, err error, text string) {
	t.Helper()
	if err != nil || string(got) != text {
		t.Errorf("%s: %q, %v; want %q", what, got, err, text)
	}
}

func wantError(t *testing.T, what string, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("%s: %v, want an error with %q", what, err, part)
	}
}

// A document is asked for once; while the provider is away the kept one serves, in this
// process and in the next, and a week later no more.
func TestSurvivesTheProviderBeingAway(t *testing.T) {
	p, c, dir := newPublisher(t, text("one")), &clock{}, t.TempDir()
	f := newFetcher(t, p, c, Options{Dir: dir})
	v := f.For("example.com")
	for range 3 {
		got, err := v.Fetch(doc)
		want(t, "fetched", got, err, "one")
	}
	if n := p.hits.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	p.says(away)
	c.pass(2 * time.Hour)
	got, err := v.Fetch(doc)
	want(t, "stale", got, err, "one")
	f.Close()

	f = newFetcher(t, p, c, Options{Dir: dir})
	got, err = f.For("example.com").Fetch(doc)
	want(t, "from disk", got, err, "one")
	if _, err := f.For("elsewhere.com").Fetch(doc); err == nil {
		t.Error("what is kept for one source was given to one that may not ask that host")
	}
	f.Close()
	c.pass(maxStale)
	f = newFetcher(t, p, c, Options{Dir: dir})
	_, err = f.For("example.com").Fetch(doc)
	wantError(t, "a week old", err, "502")
	f.Close()
	f = newFetcher(t, p, c, Options{})
	_, err = f.For("example.com").Fetch(doc)
	wantError(t, "nothing kept and nothing to be had", err, "502")
}

// What is due is renewed in the background: the caller gets the kept one at once.
func TestRenewsBeforeItExpires(t *testing.T) {
	p, c := newPublisher(t, text("one")), &clock{}
	f := newFetcher(t, p, c, Options{})
	v := f.For("example.com")
	if _, err := v.Fetch(doc); err != nil {
		t.Fatal(err)
	}
	p.says(text("two"))
	c.pass(defaultLife * 3 / 4)
	got, err := v.Fetch(doc)
	want(t, "due", got, err, "one")
	f.wg.Wait()
	got, err = v.Fetch(doc)
	want(t, "renewed", got, err, "two")
	p.says(text("three"))
	c.pass(defaultLife)
	f.renew()
	f.wg.Wait()
	got, err = v.Fetch(doc)
	want(t, "renewed unasked", got, err, "three")
}

// An unknown key asks for a newer set, but not more often than every half minute, and a
// failure says so.
func TestRefreshIsBounded(t *testing.T) {
	p, c := newPublisher(t, text("one")), &clock{}
	v := newFetcher(t, p, c, Options{}).For("example.com")
	for range 50 {
		got, err := v.Refresh(doc)
		want(t, "refresh", got, err, "one")
	}
	if n := p.hits.Load(); n != 1 {
		t.Errorf("50 unknown keys asked the provider %d times", n)
	}
	c.pass(minRefresh)
	p.says(text("two"))
	got, err := v.Refresh(doc)
	want(t, "half a minute later", got, err, "two")
	c.pass(minRefresh)
	p.says(away)
	for range 50 {
		if _, err := v.Refresh(doc); err == nil {
			t.Fatal("a refresh that failed gave the old set as a new one")
		}
	}
	if n := p.hits.Load(); n != 3 {
		t.Errorf("asked %d times, want 3: failures are not repeated at once", n)
	}
	got, err = v.Fetch(doc)
	want(t, "the kept one", got, err, "two")
}

// Failures are kept for a moment, and addresses that a stranger makes up are asked for a
// few times only.
func TestHammering(t *testing.T) {
	p, c := newPublisher(t, away), &clock{}
	v := newFetcher(t, p, c, Options{}).For("example.com")
	for range 20 {
		_, err := v.Fetch(doc)
		wantError(t, "away", err, "502")
	}
	if n := p.hits.Load(); n != 1 {
		t.Errorf("asked %d times for one document that does not come", n)
	}
	c.pass(3 * time.Second)
	_, err := v.Fetch(doc)
	wantError(t, "later", err, "502")
	if n := p.hits.Load(); n != 2 {
		t.Errorf("asked %d times after the pause, want 2", n)
	}
	for i := range 200 {
		v.Fetch(doc + "?" + strings.Repeat("x", i))
	}
	if n := p.hits.Load(); n > 2+newBurst+2 {
		t.Errorf("%d requests for addresses that were made up", n)
	}
	if n := len(v.f.entries); n > maxAsked {
		t.Errorf("%d entries", n)
	}
}

// Many deliveries at once cause one request.
func TestSingleFlight(t *testing.T) {
	gate := make(chan struct{})
	p, c := newPublisher(t, func(w http.ResponseWriter, _ *http.Request) { <-gate; w.Write([]byte("one")) }), &clock{}
	v := newFetcher(t, p, c, Options{}).For("example.com")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			got, err := v.Fetch(doc)
			want(t, "waited", got, err, "one")
		})
	}
	close(gate)
	wg.Wait()
	if n := p.hits.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A page of errors, an endless answer and a set that does not fit never replace good keys.
func TestOnlyDocumentsAreKept(t *testing.T) {
	p, c := newPublisher(t, text("good")), &clock{}
	reg := prometheus.NewRegistry()
	f := newFetcher(t, p, c, Options{Dir: t.TempDir(), Registerer: reg, Check: func(b []byte) error {
		if !strings.HasPrefix(string(b), "good") {
			return errors.New("bad")
		}
		return nil
	}})
	v := f.For("example.com")
	if _, err := v.Fetch(doc); err != nil {
		t.Fatal(err)
	}
	for _, h := range []http.HandlerFunc{text("<html>"), text("good" + strings.Repeat("x", maxDocument)), away} {
		p.says(h)
		c.pass(defaultLife)
		v.Fetch(doc)
		f.wg.Wait()
		got, err := v.Fetch(doc)
		want(t, "kept", got, err, "good")
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]float64{}
	for _, m := range families {
		for _, x := range m.Metric {
			for _, l := range x.Label {
				if l.GetName() == "result" {
					results[l.GetValue()] = x.Counter.GetValue()
				}
			}
		}
	}
	if results["ok"] != 1 || results["failed"] != 2 || results["bad_document"] != 1 {
		t.Errorf("counted %v", results)
	}
}

// Nothing leads away from the list: not the address, not a redirect.
func TestAllowlist(t *testing.T) {
	p, c := newPublisher(t, text("one")), &clock{}
	f := newFetcher(t, p, c, Options{})
	v := f.For("example.com", "sns.*.amazonaws.com")
	for _, bad := range []string{
		"http://example.com/keys", "https://example.com.evil.example/keys", "https://evil.example/keys", "https://user@example.com/keys",
		"https://example.com:8443/keys", "https://example.com/keys#x", "https://sns.a.b.amazonaws.com/x", "https://sns..amazonaws.com/x",
		"https://127.0.0.1/keys", "file:///etc/passwd", "https:example.com", "https://example.com\\@evil.example/", "",
	} {
		if _, err := v.Fetch(bad); err == nil {
			t.Errorf("%q was fetched", bad)
		}
		if err := v.Visit(bad); err == nil {
			t.Errorf("%q was visited", bad)
		}
	}
	if n := p.hits.Load(); n != 0 {
		t.Errorf("%d requests went out", n)
	}
	// The certificate is good for both of these: only the list keeps the fetcher away.
	for i, to := range []string{"https://127.0.0.1/keys", "https://example.com:8443/keys", "http://example.com/keys"} {
		c.pass(time.Hour)
		start := fmt.Sprintf("/start%d", i)
		p.says(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == start {
				http.Redirect(w, r, to, http.StatusFound)
				return
			}
			w.Write([]byte("there"))
		})
		if _, err := f.For("example.com").Fetch("https://example.com" + start); err == nil {
			t.Errorf("followed to %s", to)
		}
	}
	c.pass(time.Hour)
	p.says(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, doc, http.StatusFound)
			return
		}
		w.Write([]byte("there"))
	})
	got, err := v.Fetch("https://example.com/moved")
	want(t, "within the list", got, err, "there")
}

// The dialer refuses what a name may lead to inside, at the moment of the connection.
func TestNoAddressInside(t *testing.T) {
	for _, bad := range []string{"127.0.0.1:443", "10.1.2.3:443", "172.16.0.1:443", "192.168.1.1:443", "169.254.169.254:443", "100.64.0.1:443", "0.0.0.0:443",
		"224.0.0.1:443", "255.255.255.255:443", "198.18.0.1:443", "[::1]:443", "[::]:443", "[fe80::1]:443", "[fd00::1]:443", "[::ffff:127.0.0.1]:443", "[64:ff9b::7f00:1]:443", "[2002:7f00:1::]:443", "x"} {
		if guard("tcp", bad, nil) == nil {
			t.Errorf("%s may be dialled", bad)
		}
	}
	for _, good := range []string{"8.8.8.8:443", "[2606:4700::1111]:443"} {
		if err := guard("tcp", good, nil); err != nil {
			t.Error(err)
		}
	}
	p, c := newPublisher(t, text("one")), &clock{}
	f, err := New(Options{Now: c.now, RootCAs: p.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.For("localhost").Fetch("https://localhost/keys")
	wantError(t, "localhost by the real dialer", err, "public internet")
	if n := p.hits.Load(); n != 0 {
		t.Errorf("%d connections to a loopback address", n)
	}
}

// A POST is kept by what it carries, and what it carries is not on disk.
func TestPost(t *testing.T) {
	dir := t.TempDir()
	p, c := newPublisher(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 100)
		n, _ := r.Body.Read(b)
		w.Write([]byte(r.Method + " " + string(b[:n])))
	}), &clock{}
	v := newFetcher(t, p, c, Options{Dir: dir}).For("example.com")
	for _, body := range []string{`{"secret":"a1"}`, `{"secret":"b2"}`, `{"secret":"a1"}`} {
		got, err := v.Post(doc, []byte(body))
		want(t, body, got, err, "POST "+body)
	}
	if n := p.hits.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	p.says(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://example.com/other", http.StatusTemporaryRedirect)
	})
	if _, err := v.Post(doc, []byte(`{"secret":"c3"}`)); err == nil {
		t.Error("a POST followed a redirect")
	}
	kept, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// A kept file that is broken is passed over.
func TestBrokenFile(t *testing.T) {
	p, c, dir := newPublisher(t, text("one")), &clock{}, t.TempDir()
	f := newFetcher(t, p, c, Options{Dir: dir})
	if _, err := f.For("example.com").Fetch(doc); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.WriteFile(filepath.Join(dir, keyOf(doc, nil)+suffix), []byte(`{"url":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".writing-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f = newFetcher(t, p, c, Options{Dir: dir})
	got, err := f.For("example.com").Fetch(doc)
	want(t, "fetched again", got, err, "one")
	if n := p.hits.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".writing-*")); len(left) != 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestPrefetchAndRun(t *testing.T) {
	p, c := newPublisher(t, text("one")), &clock{}
	f := newFetcher(t, p, c, Options{})
	if err := f.For("example.com").Prefetch(doc); err != nil {
		t.Fatal(err)
	}
	f.wg.Wait()
	if n := p.hits.Load(); n != 1 {
		t.Errorf("prefetched %d times", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := f.For("example.com").Fetch("https://example.com/new"); err == nil {
		t.Error("fetched after the end")
	}
}

// A provider that does not answer costs one delivery the exchange's time, no more.
func TestSlowProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := New(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		began := time.Now()
		if _, err := f.For("example.com").Fetch(doc); err == nil {
			t.Error("fetched from nowhere")
		}
		if took := time.Since(began); took > exchangeTimeout {
			t.Errorf("took %s", took)
		}
	})
}

func TestLife(t *testing.T) {
	for header, life := range map[string]time.Duration{
		"": defaultLife, "max-age=600": 10 * time.Minute, "public, max-age=21000, must-revalidate": 21000 * time.Second, "max-age=1": minLife,
		"max-age=99999999": maxLife, "no-store": minLife, "max-age=x": defaultLife, "max-age=-5": minLife, "Max-Age=600": 10 * time.Minute,
	} {
		if got := lifeOf(header); got != life {
			t.Errorf("%q: %s, want %s", header, got, life)
		}
	}
}
