package forward

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"penstock/archive"
)

// besides starts a pump to HTTP targets beside the rig's own to Kafka, over the same
// archive and evidence, and gives what stops it.
func (r *rig) besides(h *httpTarget) (p *Pump, stop func()) {
	r.t.Helper()
	o := Options{Archive: r.p.o.Archive, Dedupe: r.d, Source: r.p.o.Source, Registerer: r.reg, Beside: r.p, HoldAfter: r.p.o.HoldAfter, grace: r.p.o.grace,
		HTTP: &HTTPOptions{Targets: map[string]HTTPTarget{"all": targetOf(h.URL)}, Default: "all"}}
	p, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

// TestHTTPTwoPumps: what one sink has says nothing of the other, whichever is behind, over
// crashes too; and a source may be of one alone.
func TestHTTPTwoPumps(t *testing.T) {
	h := newTargetServer(t)
	r := newRig(t, func(o *Options) { o.Selective = true })
	r.infos = func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "webhooks.{source}", NoKafka: source == "web"}
	}
	h.set(answering(http.StatusInternalServerError))
	r.start()
	p, stop := r.besides(h)
	var last *archive.Delivery
	for i := range 20 {
		last = r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
		r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
	}
	r.drained()
	if got := ids(r.k.all()); len(got) != 20 || got["e7"] != 1 {
		t.Fatalf("in kafka: %v", got)
	}
	if n := p.Unpublished(); n != 40 {
		t.Errorf("%d are open at the target, want all 40", n)
	}
	if n := r.metric("penstock_unpublished_deliveries"); n != 40 {
		t.Errorf("penstock_unpublished_deliveries is %v, want 40", n)
	}
	stop()
	r.crash()
	r.start()
	p, stop = r.besides(h)
	r.k.set(func() { r.k.away = true })
	h.set(nil)
	for i := range 5 {
		r.put("web", body{ID: fmt.Sprintf("e%d", 20+i), Key: strconv.Itoa(i)})
	}
	r.until("the target has everything", func() bool {
		return p.Stats().State == "live" && p.led.Load().position() >= r.last && p.Unpublished() == 0
	})
	h.wantOnce(t, 25)
	r.k.set(func() { r.k.away = false })
	r.drained()
	if got := ids(r.k.all()); len(got) != 20 {
		t.Errorf("%d events in kafka, want 20: the source web is not meant to go there", len(got))
	}
	// A job belongs to one sink.
	var j Job
	var err error
	r.until("the index knows its outcomes", func() bool {
		j, err = p.Replay(t.Context(), ReplayRequest{IDs: []string{last.ID}})
		return err == nil
	})
	r.until("the replay is done", func() bool { j, err = p.ReplayJob(j.ID); return err == nil && j.State == JobDone })
	if _, err := r.p.ReplayJob(j.ID); err == nil {
		t.Error("the job of one pump is the other's too")
	}
	if n := h.events()["e19"]; n != 2 || j.Events != 1 {
		t.Errorf("e19 was taken %d times, and the job counts %d", n, j.Events)
	}
	if n := len(r.k.all()); n != 20 {
		t.Errorf("%d events in kafka after a replay to the target, want 20", n)
	}
	stop()
	r.crash()
	r.start()
	p, stop = r.besides(h)
	r.drained()
	r.until("nothing is open", func() bool { return p.Stats().State == "live" && p.Unpublished() == 0 })
	if n := len(h.events()); n != 25 || len(r.k.all()) != 20 {
		t.Errorf("after a restart: %d events at the target, %d in kafka", n, len(r.k.all()))
	}
	stop()
	r.stop()
}
