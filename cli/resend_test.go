package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// liveGateway is an admin API over deliveries that a test adds, with connections that it cuts.
type liveGateway struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	rows    []string             // JSON, oldest first
	open    map[chan string]bool // streams
	deny    int                  // answers everything with this status
	details map[string]string
	listed  []string // queries of lists
	bodies  []string // whose body was asked for alone
	hold    func(path string)
}

func newLiveGateway(t *testing.T) *liveGateway {
	g := &liveGateway{t: t, open: map[chan string]bool{}, details: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/deliveries", g.list)
	mux.HandleFunc("GET /api/v1/deliveries/{id}", func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		d, ok := g.details[r.PathValue("id")]
		g.mu.Unlock()
		if !ok {
			d = `{"id":"` + r.PathValue("id") + `","method":"POST","target":"/in/x","headers":[]}`
		}
		if r.URL.Query().Get("body") != "true" {
			g.t.Errorf("%s is asked for without its body: two looks", r.URL)
		}
		if d == "gone" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, d)
	})
	mux.HandleFunc("GET /api/v1/deliveries/{id}/body", func(w http.ResponseWriter, r *http.Request) {
		g.set(func() { g.bodies = append(g.bodies, r.PathValue("id")) })
		fmt.Fprintf(w, "\x00body of %s\r\n", r.PathValue("id"))
	})
	mux.HandleFunc("GET /api/v1/stream", g.stream)
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		deny, hold := g.deny, g.hold
		g.mu.Unlock()
		if deny > 0 {
			w.WriteHeader(deny)
			return
		}
		if hold != nil {
			hold(r.URL.Path)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { g.cut(); g.Close() })
	return g
}

// list answers in pages of two, so that paging is gone through.
func (g *liveGateway) list(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := r.URL.Query()
	g.listed = append(g.listed, q.Encode())
	from, _ := time.Parse(time.RFC3339Nano, q.Get("from"))
	var fit []string
	for _, raw := range slices.Backward(g.rows) {
		var head row
		if err := json.Unmarshal([]byte(raw), &head); err != nil {
			g.t.Error(err)
		}
		if !head.ReceivedAt.Before(from) {
			fit = append(fit, raw)
		}
	}
	at := 0
	_, _ = fmt.Sscan(q.Get("cursor"), &at)
	next, end := "", min(len(fit), at+2)
	if end < len(fit) {
		next = fmt.Sprint(end)
	}
	fmt.Fprintf(w, `{"deliveries":[%s],"next":%q}`, strings.Join(fit[min(at, end):end], ","), next)
}

func (g *liveGateway) stream(w http.ResponseWriter, r *http.Request) {
	ch := make(chan string, 10_000)
	g.mu.Lock()
	g.open[ch] = true
	g.mu.Unlock()
	fmt.Fprint(w, ": penstock\n\n")
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				return
			}
			fmt.Fprint(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// arrive is a delivery; quiet ones reach the lists alone.
func (g *liveGateway) arrive(id string, at time.Time, quiet bool) {
	raw := fmt.Sprintf(`{"id":%q,"received_at":%q,"source":"shop","verdict":"accepted"}`, id, at.UTC().Format(time.RFC3339Nano))
	g.mu.Lock()
	g.rows = append(g.rows, raw)
	g.mu.Unlock()
	if !quiet {
		g.send("event: delivery\nid: " + id + "\ndata: " + raw + "\n\n")
	}
}

func (g *liveGateway) send(event string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ch := range g.open {
		ch <- event
	}
}

func (g *liveGateway) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// cut ends all streams.
func (g *liveGateway) cut() {
	g.set(func() {
		for ch := range g.open {
			close(ch)
		}
		clear(g.open)
	})
	g.CloseClientConnections()
}

func (g *liveGateway) streams() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

// machine is the developer's program: it notes what it is sent.
type machine struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // ids, by the body
	all []*http.Request
}

func newMachine(t *testing.T, status int) *machine {
	m := &machine{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.got = append(m.got, strings.TrimSuffix(strings.TrimPrefix(string(b), "\x00body of "), "\r\n"))
		m.all = append(m.all, r)
		w.WriteHeader(status)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *machine) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// until waits for a condition; the limit is for a machine that is very slow.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// forwarding runs tail --forward-to beside the test; done gives the exit code.
func forwarding(t *testing.T, w *world, g *liveGateway, args ...string) (done chan int, cancel func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done = make(chan int, 1)
	go func() { done <- w.run(ctx, append([]string{"deliveries", "tail", "--admin", g.URL}, args...)...) }()
	until(t, "the stream is open", func() bool { return g.streams() > 0 })
	return done, cancel
}

// TestForwardExactly: method, path, query, headers and bytes are the provider's.
func TestForwardExactly(t *testing.T) {
	g, m, w := newLiveGateway(t), newMachine(t, http.StatusTeapot), newWorld(t)
	g.arrive("old", time.Now(), true)
	g.details["new"] = `{"id":"new","method":"PATCH","target":"/in/shop?b=%20&a=1&a=2","headers":[["Host","hooks.example.com"],["Connection","close, X-Hop"],["X-Hop","1"],` +
		`["Content-Length","7"],["Transfer-Encoding","chunked"],["Stripe-Signature","t=1,v1=ab"],["x-lower-Case","1"],["X-Twice","b"],["X-Twice","a"],["Content-Encoding","gzip"],["User-Agent","Stripe/1.0"]],"body_base64":"` + base64.StdEncoding.EncodeToString([]byte("\x00body of new\r\n")) + `"}`
	done, cancel := forwarding(t, w, g, "--forward-to", m.URL+"/hooks/x?dev=1")
	g.arrive("new", time.Now(), false)
	g.arrive("next", time.Now(), false)
	until(t, "both arrived", func() bool { return len(m.ids()) == 2 })
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d: %s", code, w.err.String())
	}
	if got := m.ids(); !slices.Equal(got, []string{"new", "next"}) {
		t.Errorf("got %q", got)
	}
	r := m.all[0]
	if r.Method != "PATCH" || r.URL.RequestURI() != "/hooks/x?dev=1&b=%20&a=1&a=2" || r.ContentLength != int64(len("\x00body of new\r\n")) {
		t.Errorf("%s %s with %d bytes", r.Method, r.URL, r.ContentLength)
	}
	want := http.Header{"X-Forwarded-Host": {"hooks.example.com"}, "Stripe-Signature": {"t=1,v1=ab"}, "X-Lower-Case": {"1"}, "X-Twice": {"b", "a"},
		"Content-Encoding": {"gzip"}, "User-Agent": {"Stripe/1.0"}, "Content-Length": {"14"}}
	if fmt.Sprint(r.Header) != fmt.Sprint(want) {
		t.Errorf("headers\n%v, want\n%v", r.Header, want)
	}
	if len(m.all[1].Header) != 1 { // its length
		t.Errorf("headers were made up: %v", m.all[1].Header)
	}
	if !strings.Contains(w.out.String(), "418 I'm a teapot in ") {
		t.Errorf("printed %s", w.out.String())
	}
	// One look for each, but of a gateway of before, which does not give both at once.
	if !slices.Equal(g.bodies, []string{"next"}) {
		t.Errorf("bodies were asked for alone: %q", g.bodies)
	}
	for _, q := range g.listed {
		if !strings.Contains(q, "verdict=accepted") && q != "limit=1" {
			t.Errorf("listed %s", q)
		}
	}
}

// TestForwardAcrossBreaks: whenever the stream is cut and whatever arrives meanwhile, each
// delivery is sent once, in order.
func TestForwardAcrossBreaks(t *testing.T) {
	g, m, w := newLiveGateway(t), newMachine(t, http.StatusOK), newWorld(t)
	begin := time.Now()
	for i := range 5 {
		g.arrive(fmt.Sprint("before", i), begin.Add(-time.Duration(5-i)*time.Second), true)
	}
	done, cancel := forwarding(t, w, g, "--forward-to", m.URL)
	var want []string
	n := 0
	arrive := func(quiet bool) {
		id := fmt.Sprintf("d%04d", n)
		// A clock that leaps: hours pass between breaks.
		g.arrive(id, begin.Add(time.Duration(n)*10*time.Second), quiet)
		want = append(want, id)
		n++
	}
	all := func() bool { return len(m.ids()) >= len(want) }
	for round := range 12 {
		arrive(false)
		arrive(false)
		switch round % 4 {
		case 0:
			until(t, "they were sent", all)
			g.cut()
		case 1: // in the middle of it
			g.cut()
		case 2: // away for a while
			g.set(func() { g.deny = http.StatusServiceUnavailable })
			g.cut()
			arrive(false)
			arrive(false)
			g.set(func() { g.deny = 0 })
		case 3: // the stream could not wait
			until(t, "the stream is open", func() bool { return g.streams() > 0 })
			arrive(true)
			g.send("event: dropped\ndata: {\"dropped\":1}\n\n")
		}
		arrive(false) // perhaps in no stream at all
		until(t, "the stream is open", func() bool { return g.streams() > 0 })
		// Known ones again: their outcome has changed.
		g.mu.Lock()
		again := []string{g.rows[0], g.rows[len(g.rows)-1]}
		g.mu.Unlock()
		for _, raw := range again {
			g.send("event: delivery\ndata: " + raw + "\n\n")
		}
	}
	g.cut()
	until(t, "all were sent", all)
	arrive(false)
	until(t, "the last was sent", all)
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d", code)
	}
	if got := m.ids(); !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if !strings.Contains(w.err.String(), "the connection is lost") || !strings.Contains(w.err.String(), "connected again") {
		t.Errorf("breaks are not told of: %s", w.err.String())
	}
}

// TestForwardRefusals: what cannot work is said at once; what cannot be sent is passed by.
func TestForwardRefusals(t *testing.T) {
	g, m, w := newLiveGateway(t), newMachine(t, http.StatusOK), newWorld(t)
	w.want(exitUsage, "is no http or https URL", "deliveries", "tail", "--admin", g.URL, "--forward-to", "ftp://x")
	w.want(exitUsage, "--outcome does not go with --forward-to", "deliveries", "tail", "--admin", g.URL, "--forward-to", m.URL, "--outcome", "dead")
	w.want(exitFound, "connect", "deliveries", "tail", "--admin", "127.0.0.1:1", "--forward-to", m.URL)
	g.deny = http.StatusUnauthorized
	w.want(exitFound, "give --token", "deliveries", "tail", "--admin", g.URL, "--forward-to", m.URL)
	g.deny = 0

	g.details["gone"] = "gone"
	g.details["broken"] = `{"id":"broken","method":"POST","target":"/in/x","headers":[],"damaged":"checksum"}`
	g.details["masked"] = `{"id":"masked","method":"POST","target":"/in/x","headers":[["Authorization","[masked]"]],"masked":true}`
	done, _ := forwarding(t, w, g, "--forward-to", m.URL, "--count", "3", "--json")
	g.arrive("gone", time.Now(), false)
	g.arrive("broken", time.Now(), false)
	g.arrive("good", time.Now(), false)
	if code := <-done; code != exitOK || len(m.ids()) != 1 {
		t.Errorf("exit %d: %s", code, w.err.String())
	}
	var last struct {
		Answer   string
		Delivery row
	}
	lines := strings.Split(strings.TrimSpace(w.out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[2]), &last); err != nil || last.Answer != "200 OK" || last.Delivery.ID != "good" || !strings.Contains(lines[0], "not sent: ") || !strings.Contains(lines[1], "not sent: checksum") {
		t.Errorf("%v: printed %s", err, w.out.String())
	}

	// A program that is not there is told of, and the next is tried.
	m.Close()
	g.cut()
	done, _ = forwarding(t, w, g, "--forward-to", m.URL, "--count", "1")
	g.arrive("nobody", time.Now(), false)
	if code := <-done; code != exitOK || !strings.Contains(w.out.String(), "not answered: ") {
		t.Errorf("exit %d, printed %s", code, w.out.String())
	}

	g.cut()
	done, _ = forwarding(t, w, g, "--forward-to", m.URL)
	g.arrive("masked", time.Now(), false)
	if code := <-done; code != exitFound || !strings.Contains(w.err.String(), "wants an operator's") {
		t.Errorf("exit %d: %s", code, w.err.String())
	}
}
