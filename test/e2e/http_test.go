package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// handler is the webhook handler that a team has: it takes what it is given and says so.
type handler struct {
	*httptest.Server
	mu    sync.Mutex
	fail  int // status; 0 = it takes everything
	taken map[string]int
	bad   int
}

func newHandler(t *testing.T) *handler {
	h := &handler{taken: map[string]int{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if strings.Contains(string(b), "tampered") || r.Header.Get("Penstock-Delivery-Id") == "" || r.Header.Get("Stripe-Signature") == "" {
			h.bad++
		}
		if h.fail != 0 {
			http.Error(w, "not now", h.fail)
			return
		}
		h.taken[r.Header.Get("Penstock-Event-Id")]++
		w.Header().Set("Content-Type", "text/x-own")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "own words for %d bytes", len(b))
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *handler) set(status int) {
	h.mu.Lock()
	h.fail = status
	h.mu.Unlock()
}

func (h *handler) count(event string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[event]
}

// upstreamConfig has stripe alone, in front of a handler and without any Kafka.
func upstreamConfig(url, ack string) string {
	s := stripeSender()
	return gatewayConfig + "sources:\n  - " + strings.TrimSuffix(s.conf, "}") + ", ack: {" + ack + "}, forward: {http: {url: \"" + url +
		"\", max_pause: 200ms, allow_addresses: [127.0.0.0/8]}}}\n"
}

// TestUpstream: the gateway stands before a handler that does not know of it. Its answer
// goes to the provider; what it does not take is tried again; kills lose nothing.
func TestUpstream(t *testing.T) {
	h := newHandler(t)
	s := stripeSender()
	g := newGateway(t, upstreamConfig(h.URL+"/stripe", "after: upstream, deadline: 30s"))
	g.start()
	client := &http.Client{Timeout: time.Minute}
	d := s.make(0, time.Now())
	status, body, id := post(client, g.ingest, d)
	if status != http.StatusAccepted || string(body) != fmt.Sprintf("own words for %d bytes", len(d.body)) || id == "" {
		t.Fatalf("answer %d %q, want the handler's own", status, body)
	}
	if status, _, _ = post(client, g.ingest, d); status != http.StatusOK || h.count(d.ceid) != 1 {
		t.Errorf("a repeat: answer %d, taken %d times", status, h.count(d.ceid))
	}
	forged := s.make(1, time.Now())
	forged.body = []byte(strings.Replace(string(forged.body), "eur", "tampered", 1))
	if status, _, _ = post(client, g.ingest, forged); status != http.StatusUnauthorized {
		t.Errorf("a forged one: answer %d", status)
	}
	h.set(http.StatusUnprocessableEntity)
	refused := s.make(2, time.Now())
	if status, body, _ = post(client, g.ingest, refused); status != http.StatusUnprocessableEntity || !strings.Contains(string(body), "not now") {
		t.Errorf("answer %d %q, want the handler's refusal", status, body)
	}
	h.set(0)
	eventually(t, 2*time.Minute, "what was refused is taken later", func() error {
		if n := h.count(refused.ceid); n != 1 {
			return fmt.Errorf("taken %d times", n)
		}
		return nil
	})
	g.drain(time.Minute)

	l := &loader{g: g, s: s, acked: map[string]delivery{}, sent: map[string]bool{}}
	l.next.Store(100)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { l.run(stop, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	more := 0
	acked := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	for range 5 {
		more = acked() + 20
		eventually(t, time.Minute, "some were acked", func() error {
			if n := acked(); n < more {
				return fmt.Errorf("%d of %d", n, more)
			}
			return nil
		})
		g.kill()
		g.start()
	}
	close(stop)
	wg.Wait()
	g.drain(2 * time.Minute)
	twice := 0
	for token, d := range l.acked {
		switch n := h.count(d.ceid); {
		case n == 0:
			t.Errorf("%s was acked and never taken", token)
		case n > 1:
			twice++
		}
	}
	t.Logf("%d acked, %d of them taken twice around 5 kills", len(l.acked), twice)
	if twice > 5*8*4 { // a kill catches what is on its way: eight requests and what was not written down
		t.Errorf("%d were taken twice", twice)
	}
	if h.bad != 0 {
		t.Errorf("%d requests were forged, or came without the headers", h.bad)
	}
	g.stop()
}

// TestUpstreamAway: the handler is not there, so the provider is told to come again, and
// when it is back it gets everything once, over a restart too.
func TestUpstreamAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "http://" + ln.Addr().String()
	ln.Close()
	s := stripeSender()
	g := newGateway(t, upstreamConfig(away, "after: upstream, deadline: 300ms"))
	g.start()
	resp := postRaw(t, g, s.make(0, time.Now()))
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("answer %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	for i := range 20 {
		if status, _, _ := post(http.DefaultClient, g.ingest, s.make(i, time.Now())); status != http.StatusServiceUnavailable {
			t.Errorf("answer %d", status)
		}
	}
	g.kill()
	h := newHandler(t)
	g.configure(upstreamConfig(h.URL, "after: upstream, deadline: 30s"))
	g.start()
	g.drain(2 * time.Minute)
	for i := range 20 {
		if n := h.count(s.make(i, time.Now()).ceid); n != 1 {
			t.Errorf("delivery %d was taken %d times", i, n)
		}
	}
	g.stop()
}

func postRaw(t *testing.T, g *gateway, d delivery) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+g.ingest+"/in/"+d.source, strings.NewReader(string(d.body)))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range d.header {
		req.Header.Set(h[0], h[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// TestAckPublished: 2xx only with the broker there; what was answered 503 is published too,
// once. And a handler beside Kafka that is not there costs Kafka nothing.
func TestAckPublished(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("ackp%d", time.Now().UnixNano())
	s := stripeSender()
	conf := func(kafka, http string) string {
		return gatewayConfig + forwardConfig(redis, kafka, prefix) + "  http: {url: \"" + http + "\", max_pause: 200ms, allow_addresses: [127.0.0.0/8]}\n" +
			"sources:\n  - " + strings.TrimSuffix(s.conf, "}") + ", ack: {after: published, deadline: %DEADLINE%}}\n"
	}
	g := newGateway(t, strings.Replace(conf(freeAddr(t), "http://"+freeAddr(t)), "%DEADLINE%", "300ms", 1))
	g.start()
	for i := range 5 {
		if resp := postRaw(t, g, s.make(i, time.Now())); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("the broker is away: answer %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	g.kill()
	g.configure(strings.Replace(conf(kafka, "http://"+freeAddr(t)), "%DEADLINE%", "60s", 1))
	g.start()
	client := &http.Client{Timeout: 2 * time.Minute}
	for i := range 20 { // the first five are repeats
		if status, body, _ := post(client, g.ingest, s.make(i, time.Now())); status != http.StatusOK {
			t.Errorf("delivery %d: answer %d %s", i, status, body)
		}
	}
	if got := eventsOf(consume(t, kafka, prefix+".stripe")); len(got) != 20 {
		t.Errorf("%d events in kafka at the moment of the last 2xx, want 20", len(got))
	}
	h := newHandler(t)
	g.configure(strings.Replace(conf(kafka, h.URL), "%DEADLINE%", "60s", 1))
	g.stop()
	g.start()
	g.drain(2 * time.Minute)
	for i := range 20 {
		if n := h.count(s.make(i, time.Now()).ceid); n != 1 {
			t.Errorf("delivery %d was taken %d times by the handler", i, n)
		}
	}
	for id, n := range eventsOf(consume(t, kafka, prefix+".stripe")) {
		if n != 1 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	g.stop()
}

func eventsOf(rs []record) map[string]int {
	m := map[string]int{}
	for _, r := range rs {
		m[r.header("ce_id")]++
	}
	return m
}
