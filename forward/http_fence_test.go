package forward

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// soleTarget is a sink with one target and no pump: the test is the core.
func soleTarget(t *testing.T, h *httpTarget, change func(*courier)) (*httpSink, *target) {
	t.Helper()
	s, err := newHTTPSink(Options{Logger: zap.NewNop(), Registerer: prometheus.NewRegistry(),
		HTTP: &HTTPOptions{Targets: map[string]HTTPTarget{"all": targetOf(h.URL)}}}, func() bool { return false }, func(*Message, *Reply) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	tg := s.target("all")
	change(tg.courier)
	return s, tg
}

func messageOf(n uint64, key string) *Message {
	return &Message{Topic: "all", Key: []byte(key), Value: []byte("x"), Delivery: n, Time: time.Now(), request: &httpRequest{method: http.MethodPost, target: []byte("/in/s")}}
}

// TestHTTPLineIsFenced: a line that gave messages back takes no newer one before the core
// has put those behind their gate, however short its pause was.
func TestHTTPLineIsFenced(t *testing.T) {
	h := newTargetServer(t)
	h.set(answering(http.StatusBadRequest))
	s, tg := soleTarget(t, h, func(c *courier) { c.first, c.MaxPause = 1, 1 })
	id := lineOf([]byte("k"))
	if err := s.Send(t.Context(), messageOf(1, "k")); err != nil {
		t.Fatal(err)
	}
	if acks := <-s.Acks(); len(acks) != 1 || !errors.Is(acks[0].Err, ErrTopicBlocked) {
		t.Fatalf("acks %+v, want the message given back", acks)
	}
	for open := false; !open; time.Sleep(time.Millisecond) { // its pause, a nanosecond, is over
		tg.mu.Lock()
		open = tg.lines[id] == nil || time.Now().After(tg.lines[id].until)
		tg.mu.Unlock()
	}
	if err := s.Send(t.Context(), messageOf(2, "k")); !errors.Is(err, ErrTopicBlocked) {
		t.Errorf("a newer message of the line: %v, want ErrTopicBlocked until the fence is lifted", err)
	}
	fenced := []int32{}
	s.Fenced(func(_ string, line int32) { fenced = append(fenced, line) })
	if len(fenced) != 1 || fenced[0] != id {
		t.Errorf("fenced lines %v, want %d", fenced, id)
	}
	h.set(nil)
	s.Lift("all", id)
	if err := s.Send(t.Context(), messageOf(1, "k")); err != nil {
		t.Errorf("after the fence is lifted: %v", err)
	}
	if acks := <-s.Acks(); len(acks) != 1 || acks[0].Err != nil {
		t.Errorf("acks %+v, want it delivered", acks)
	}
}

// TestHTTPOwnPause: what is refused comes again later than anything else of its target,
// whether it is the delivery or the target that is blamed.
func TestHTTPOwnPause(t *testing.T) {
	for name, after := range map[string]string{"its own fault": "", "the target's": "3600"} {
		t.Run(name, func(t *testing.T) {
			h := newTargetServer(t)
			h.set(func(_ int, _ got, w http.ResponseWriter) {
				if after != "" {
					w.Header().Set("Retry-After", after)
				}
				w.WriteHeader(http.StatusTooManyRequests)
			})
			// Any length up to this: that it is over before this test is one in millions.
			s, tg := soleTarget(t, h, func(c *courier) { c.first, c.MaxPause = 1<<62, 1<<62 })
			id := lineOf([]byte("k"))
			if err := s.Send(t.Context(), messageOf(1, "k")); err != nil {
				t.Fatal(err)
			}
			<-s.Acks()
			s.Lift("all", id)
			if blocked, _ := s.Blocked("all", id); !blocked {
				t.Error("the refused delivery's line is open again at once")
			}
			tg.mu.Lock()
			defer tg.mu.Unlock()
			l := tg.lines[id]
			if l == nil || !l.until.After(tg.until) || !l.until.After(time.Now()) {
				t.Errorf("line %+v is tried again no later than its target, %v", l, tg.until)
			}
		})
	}
}
