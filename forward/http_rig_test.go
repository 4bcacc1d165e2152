package forward

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// got is one request as a target saw it.
type got struct {
	method, uri string
	header      http.Header
	host        string
	body        string
}

// httpTarget is a real server that does what the test says and remembers what it took.
type httpTarget struct {
	*httptest.Server
	mu    sync.Mutex
	do    func(n int, g got, w http.ResponseWriter) // n: how many came before
	seen  []got
	taken []got // answered 2xx
}

func newTargetServer(t *testing.T) *httpTarget {
	h := &httpTarget{}
	h.Server = httptest.NewServer(h)
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	return h
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (h *httpTarget) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g := got{r.Method, r.RequestURI, r.Header.Clone(), r.Host, string(b)}
	h.mu.Lock()
	n, do := len(h.seen), h.do
	h.seen = append(h.seen, g)
	h.mu.Unlock()
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if do != nil {
		do(n, g, sw)
	}
	if sw.status/100 == 2 {
		h.mu.Lock()
		h.taken = append(h.taken, g)
		h.mu.Unlock()
	}
}

func (h *httpTarget) set(do func(n int, g got, w http.ResponseWriter)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do = do
}

func (h *httpTarget) all() (seen, taken []got) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]got(nil), h.seen...), append([]got(nil), h.taken...)
}

// events counts what was taken by event id.
func (h *httpTarget) events() map[string]int {
	_, taken := h.all()
	m := map[string]int{}
	for _, g := range taken {
		m[g.header.Get("Penstock-Event-Id")]++
	}
	return m
}

func answering(status int) func(int, got, http.ResponseWriter) {
	return func(_ int, _ got, w http.ResponseWriter) { w.WriteHeader(status) }
}

// targetOf is a target with short pauses.
func targetOf(url string) HTTPTarget {
	return HTTPTarget{URL: url, Dial: (&net.Dialer{}).DialContext, MaxPause: 20 * time.Millisecond}
}

// httpRig is a rig whose sink is HTTP; source "s" goes to target "s" and so on, others to
// the target "all" where there is one.
func httpRig(t *testing.T, targets map[string]HTTPTarget) *rig {
	r := newRig(t, nil)
	r.httpTo(targets)
	r.infos = func(source string) *SourceInfo {
		info := &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}}
		if _, ok := targets[source]; ok {
			info.Target = source
		}
		return info
	}
	return r
}

func (r *rig) httpTo(targets map[string]HTTPTarget) {
	r.change = func(o *Options) {
		o.sink, o.DeadLetterTopic = nil, ""
		o.HTTP = &HTTPOptions{Targets: targets}
		if _, ok := targets["all"]; ok {
			o.HTTP.Default = "all"
		}
	}
}

// wantOnce checks that every event e0..e(n-1) was taken once.
func (h *httpTarget) wantOnce(t *testing.T, n int) {
	t.Helper()
	events := h.events()
	for i := range n {
		if c := events[fmt.Sprintf("e%d", i)]; c != 1 {
			t.Errorf("e%d was taken %d times, want once", i, c)
		}
	}
	if len(events) != n {
		t.Errorf("%d events were taken, want %d", len(events), n)
	}
}

func counterOf(t *testing.T, reg *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range fams {
		for _, m := range fam.GetMetric() {
			match := fam.GetName() == name
			for i := 0; i+1 < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				match = match && found
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
