package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/archive"
	"penstock/verify"
)

// fates is a sink that decides when the test says so.
type fates struct {
	asked chan uint64
	mu    sync.Mutex
	reply *verify.Reply
	say   chan bool
}

func newFates() *fates { return &fates{asked: make(chan uint64, 64), say: make(chan bool, 64)} }

func (f *fates) delivered(seq uint64, until time.Time, stop <-chan struct{}) (*verify.Reply, bool) {
	f.asked <- seq
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case ok := <-f.say:
		return f.reply, ok
	case <-time.After(time.Until(until)):
	case <-stop:
	}
	return nil, false
}

func laterSource(f *fates, l *Later) Source {
	l.Delivered = f.delivered
	s := testSource("s")
	s.Verifier = &wordVerifier{ack: verify.Reply{Status: 202, ContentType: "text/x-own", Body: []byte("own words")}}
	s.Later = l
	return s
}

// TestLater: the provider's own words when the sink has it, 503 when it will not.
func TestLater(t *testing.T) {
	f := newFates()
	r := newRig(t, Options{}, laterSource(f, &Later{Deadline: time.Minute}))
	f.say <- true
	a := r.send(request("/in/s", "body", "X-Test: ok"))
	wantStatus(t, a, 202)
	if bodyOf(a) != "own words" || headerOf(a, "Content-Type") != "text/x-own" || headerOf(a, idHeader) == "" {
		t.Errorf("not the provider's own answer: %q", a)
	}
	f.say <- false
	a = r.send(request("/in/s", "body", "X-Test: ok"))
	wantStatus(t, a, 503)
	if headerOf(a, "Retry-After") == "" || headerOf(a, idHeader) == "" || !strings.Contains(bodyOf(a), "not_delivered_yet") {
		t.Errorf("a late answer says %q", a)
	}
	f.reply = &verify.Reply{Status: 418, ContentType: "text/plain", Body: []byte("upstream")}
	f.say <- true
	if a = r.send(request("/in/s", "body", "X-Test: ok")); bodyOf(a) != "upstream" {
		t.Errorf("not the upstream's answer: %q", a)
	}
	wantStatus(t, a, 418)
	if stored, _ := r.arch.all(); len(stored) != 3 || string(stored[1].Body) != "body" {
		t.Errorf("stored %d deliveries, want all 3, the one that was answered 503 too", len(stored))
	}
	for range 3 {
		<-f.asked
	}
	// What needs no sink waits for none.
	wantStatus(t, r.send(request("/in/s", "hello", "X-Test: challenge")), 200)
	wantStatus(t, r.send(request("/in/s", "hello")), 401)
	r.arch.set(func() { r.arch.err = archive.ErrUnavailable })
	wantStatus(t, r.send(request("/in/s", "body", "X-Test: ok")), 503)
	if len(f.asked) != 0 {
		t.Error("a challenge, a refusal or what was not stored waited for the sink")
	}
}

// TestLaterDeadline: the answer comes by itself, counted from the first byte.
func TestLaterDeadline(t *testing.T) {
	f := newFates()
	r := newRig(t, Options{}, laterSource(f, &Later{Deadline: 20 * time.Millisecond}))
	wantStatus(t, r.send(request("/in/s", "body", "X-Test: ok")), 503)
}

// TestLaterBounds: more than may wait is answered at once, and what waits holds no body.
func TestLaterBounds(t *testing.T) {
	f := newFates()
	r := newRig(t, Options{}, laterSource(f, &Later{Deadline: time.Minute, MaxWaiting: 2}), testSource("other"))
	answers := make(chan string, 2)
	for range 2 {
		go func() { answers <- r.send(request("/in/s", strings.Repeat("x", 5000), "X-Test: ok")) }()
	}
	<-f.asked
	for deadline := time.Now().Add(20 * time.Second); r.srv.waiting.Load() != 2 || r.srv.budget.used.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait and hold %d bytes, want 2 and 0", r.srv.waiting.Load(), r.srv.budget.used.Load())
		}
	}
	a := r.send(request("/in/s", "body", "X-Test: ok"))
	wantStatus(t, a, 503)
	if !strings.Contains(bodyOf(a), "too_many_waiting") {
		t.Errorf("the third is told %q", bodyOf(a))
	}
	wantStatus(t, r.send(request("/in/other", "body", "X-Test: ok")), 200)
	f.say <- true
	f.say <- true
	for range 2 {
		wantStatus(t, <-answers, 202)
	}
	if n := r.srv.waiting.Load(); n != 0 {
		t.Errorf("%d still count as waiting", n)
	}
	if stored, _ := r.arch.all(); len(stored) != 4 {
		t.Errorf("stored %d deliveries, want all 4", len(stored))
	}
}

// TestLaterKeepAlive: a connection serves on after an answer that waited, and the body
// that was let go is not the next one's.
func TestLaterKeepAlive(t *testing.T) {
	f := newFates()
	r := newRig(t, Options{}, laterSource(f, &Later{Deadline: time.Minute}))
	var raw strings.Builder
	for i := range 5 {
		f.say <- true
		body := fmt.Sprintf("body %d", i)
		raw.WriteString("POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body)
	}
	f.say <- true
	if a := r.send(raw.String() + request("/in/s", "last", "X-Test: ok")); strings.Count(a, "HTTP/1.1 202") != 6 {
		t.Fatalf("not six answers: %q", a)
	}
	stored, _ := r.arch.all()
	for i := range 5 {
		if want := fmt.Sprintf("body %d", i); string(stored[i].Body) != want {
			t.Errorf("stored %q, want %q", stored[i].Body, want)
		}
	}
}

// TestLaterDrain: a stop does not wait for the deadline.
func TestLaterDrain(t *testing.T) {
	f := newFates()
	r := newRig(t, Options{DrainTimeout: time.Minute}, laterSource(f, &Later{Deadline: time.Hour}))
	answer := make(chan string, 1)
	go func() { answer <- r.send(request("/in/s", "body", "X-Test: ok")) }()
	<-f.asked
	if !r.srv.beginDrain() {
		t.Fatal("it drains already")
	}
	<-f.asked // it has a moment more
	f.say <- true
	wantStatus(t, <-answer, 202)
	r.srv.closeListeners()
}
