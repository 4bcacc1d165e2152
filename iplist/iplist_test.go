package iplist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"penstock/provider"
)

const shipped = "52.15.183.38, 54.88.130.119, 54.88.130.237, 54.187.174.169"

func definition(t testing.TB, date, ranges string) *provider.Definition {
	t.Helper()
	d, err := provider.Parse("x.yaml", fmt.Appendf(nil, `name: x
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: X, encoding: hex}
ip_ranges: {date: %q, ranges: [%s], refresh: [{url: "https://x.example/ips", format: text}]}
`, date, ranges))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// page is a provider's published document.
type page struct {
	mu   sync.Mutex
	text string
	err  error
	n    int
}

func (p *page) Fetch(_ context.Context, url string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	if url != "https://x.example/ips" {
		return nil, fmt.Errorf("asked for %s", url)
	}
	return []byte(p.text), p.err
}

type rig struct {
	*Keeper
	page *page
	logs *observer.ObservedLogs
	l    *List
}

func newRig(t testing.TB, dir string, def *provider.Definition) *rig {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	p := &page{}
	k := New(Options{Dir: dir, Interval: time.Hour, Fetcher: p, Logger: zap.New(core), Registerer: prometheus.NewRegistry(),
		Now: func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) }})
	return &rig{k, p, logs, k.List(def)}
}

func (r *rig) allows(ip string) bool { return r.l.Contains(netip.MustParseAddr(ip)) }

func (r *rig) refreshed(t *testing.T, result string) float64 {
	t.Helper()
	return value(t, r.metrics.refreshes.WithLabelValues("x", result))
}

func value(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// TestRefresh: the shipped list is in force from the start, the fetched one after it, kept
// over a restart, logged and measured.
func TestRefresh(t *testing.T) {
	dir, def := t.TempDir(), definition(t, "2026-01-03", shipped)
	r := newRig(t, dir, def)
	if !r.allows("52.15.183.38") || r.allows("3.69.109.8") {
		t.Fatal("the shipped list is not in force")
	}
	r.page.text = "54.88.130.119\n54.88.130.237\n54.187.174.169\n3.69.109.8\n3.69.109.8\n"
	if err := r.Refresh(t.Context(), r.l); err != nil {
		t.Fatal(err)
	}
	if r.allows("52.15.183.38") || !r.allows("3.69.109.8") || !r.allows("::ffff:54.88.130.119") {
		t.Error("the fetched list is not in force")
	}
	list, day := r.l.Prefixes()
	if len(list) != 4 || day != "2026-11-22" {
		t.Errorf("%v of %s", list, day)
	}
	log := r.logs.FilterMessage("the provider's published addresses changed").All()
	if len(log) != 1 || fmt.Sprint(log[0].ContextMap()["added"]) != "[3.69.109.8/32]" || fmt.Sprint(log[0].ContextMap()["removed"]) != "[52.15.183.38/32]" {
		t.Errorf("logged %+v", log)
	}
	if r.refreshed(t, "changed") != 1 || value(t, r.metrics.drift.WithLabelValues("x", "added")) != 1 || value(t, r.metrics.drift.WithLabelValues("x", "removed")) != 1 || value(t, r.metrics.size.WithLabelValues("x")) != 4 {
		t.Error("not measured")
	}
	if err := r.Refresh(t.Context(), r.l); err != nil || r.refreshed(t, "unchanged") != 1 {
		t.Errorf("again: %v", err)
	}
	// A restart, with the provider away.
	if again := newRig(t, dir, def); again.allows("52.15.183.38") || !again.allows("3.69.109.8") {
		t.Error("what was kept is not in force after a restart")
	}
	// A release that brings a newer list than the kept one.
	if newer := newRig(t, dir, definition(t, "2026-12-24", shipped)); !newer.allows("52.15.183.38") || newer.allows("3.69.109.8") {
		t.Error("a newer shipped list lost against the kept one")
	}
}

// TestRefused: what cannot be right changes nothing, and is told.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":        {"\n", "is empty"},
		"everybody":    {shippedLines + "0.0.0.0/0", "too wide"},
		"everybody v6": {shippedLines + "::/0", "too wide"},
		"half of all":  {shippedLines + "128.0.0.0/1", "too wide"},
		"private":      {shippedLines + "10.1.2.3", "no public address"},
		"loopback":     {shippedLines + "127.0.0.1", "no public address"},
		"mapped":       {shippedLines + "::ffff:10.0.0.1", "no public address"},
		"inside":       {shippedLines + "fd00::1", "no public address"},
		"link-local":   {shippedLines + "169.254.169.254", "no public address"},
		"others":       {"3.69.109.8\n3.120.168.93\n35.157.207.129\n52.15.183.38", "3 of the 4 networks in force are not in it"},
		"a page":       {"<html>it moved</html>", "is no address"},
		"too many":     {strings.Repeat("8.8.8.8\n", 1) + many(6000), "at most 5000"},
		"far more":     {shippedLines + many(400), "404 networks where 4 are in force"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := newRig(t, dir, definition(t, "2026-01-03", shipped))
			r.page.text = c.text
			err := r.Refresh(t.Context(), r.l)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !r.allows("52.15.183.38") || r.allows("10.1.2.3") || r.allows("3.69.109.8") || r.allows("8.8.8.8") {
				t.Error("the list in force was changed")
			}
			if r.refreshed(t, "refused") != 1 || r.logs.FilterLevelExact(zap.ErrorLevel).Len() != 1 {
				t.Error("not told")
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 0 {
				t.Errorf("kept %v", files)
			}
		})
	}
}

// TestOldMeasure: a list shipped more than a year ago does not refuse one that has changed
// by half; what cannot be right at all is refused still.
func TestOldMeasure(t *testing.T) {
	r := newRig(t, t.TempDir(), definition(t, "2025-11-20", shipped))
	r.page.text = "0.0.0.0/0"
	if err := r.Refresh(t.Context(), r.l); err == nil || !r.allows("52.15.183.38") || r.allows("8.8.8.8") {
		t.Errorf("everybody: %v", err)
	}
	r.page.text = "3.69.109.8\n3.120.168.93\n"
	if err := r.Refresh(t.Context(), r.l); err != nil || !r.allows("3.69.109.8") || r.allows("52.15.183.38") {
		t.Errorf("all of it changed in a year: %v", err)
	}
	r.page.text = shippedLines // against the list of today
	if err := r.Refresh(t.Context(), r.l); err == nil || !r.allows("3.69.109.8") {
		t.Errorf("all of it changed in a day: %v", err)
	}
}

var shippedLines = strings.ReplaceAll(shipped, ", ", "\n") + "\n"

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "20.%d.%d.1\n", i/250, i%250)
	}
	return b.String()
}

// TestAway: a provider that cannot be reached, and a kept file that cannot be read or was
// tampered with, leave the list in force.
func TestAway(t *testing.T) {
	r := newRig(t, t.TempDir(), definition(t, "2026-01-03", shipped))
	r.page.err = errors.New("away")
	if err := r.Refresh(t.Context(), r.l); err == nil || !r.allows("52.15.183.38") || r.refreshed(t, "failed") != 1 {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"{", `{"date":"2026-11-20","ranges":["0.0.0.0/0"]}`, `{"date":"2026-11-20","ranges":[]}`, `{"date":"2026-11-20","ranges":["x"]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, dir, definition(t, "2026-01-03", shipped))
		if !r.allows("52.15.183.38") || r.allows("8.8.8.8") || r.logs.FilterMessageSnippet("passed over").Len() != 1 {
			t.Errorf("%s is in force", text)
		}
	}
}

// TestRun: what is asked for later is looked up too, and readers never wait.
func TestRun(t *testing.T) {
	r := newRig(t, "", definition(t, "2026-01-03", shipped))
	r.page.text = shippedLines + "3.69.109.8\n"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for end := time.Now().Add(10 * time.Second); !r.allows("3.69.109.8"); {
		if time.Now().After(end) {
			t.Fatal("never refreshed")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestHTTP: https, one host, bounded.
func TestHTTP(t *testing.T) {
	var to http.HandlerFunc
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { to(w, r) }))
	defer srv.Close()
	h := NewHTTP(srv.Client().Transport)
	f := func(url, want string, answer http.HandlerFunc) {
		t.Helper()
		to = answer
		b, err := h.Fetch(t.Context(), url)
		got := string(b)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.80q, want %q", got, want)
		}
	}
	f(srv.URL, "1.2.3.4", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "1.2.3.4") })
	f("http://x.example/", "only https", nil)
	f(srv.URL, "status 404", http.NotFound)
	f(srv.URL, "redirects to x.example", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://x.example/", http.StatusFound)
	})
	f(srv.URL, "redirects to", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/", http.StatusFound)
	})
	f(srv.URL+"/a", "moved here", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/b" {
			fmt.Fprint(w, "moved here")
			return
		}
		http.Redirect(w, r, "/b", http.StatusFound)
	})
	f(srv.URL, "above", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("1"), maxDocument+2)) })
}

// TestContainsAllocates nothing: it stands on the way of every delivery.
func TestContainsAllocates(t *testing.T) {
	r := newRig(t, "", definition(t, "2026-01-03", shipped))
	ip := netip.MustParseAddr("52.15.183.38")
	if n := testing.AllocsPerRun(100, func() { r.l.Contains(ip) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzKept: a kept list is in force only where it can be right.
func FuzzKept(f *testing.F) {
	for _, s := range []string{`{"date":"2026-11-20","ranges":["52.15.183.38/32","54.88.130.119/32","54.88.130.237/32"]}`, `{"date":"9","ranges":["0.0.0.0/0"]}`, `{"ranges":null}`, "[]", ""} {
		f.Add([]byte(s))
	}
	dir, def := f.TempDir(), definition(f, "2026-01-03", shipped)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, "x.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		k := New(Options{Dir: dir})
		list, _ := k.List(def).Prefixes()
		if len(list) == 0 || len(list) > maxPrefixes {
			t.Fatalf("%q: %d networks are in force", text, len(list))
		}
		for _, p := range list {
			if !p.IsValid() || p.Bits() < widest4 {
				t.Fatalf("%q: %s is in force", text, p)
			}
		}
	})
}
