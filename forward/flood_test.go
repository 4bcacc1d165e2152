package forward

import (
	"strconv"
	"testing"
	"time"
)

// TestResumeIntoABlockedTopic: a paused source has held more than may be in memory and is
// resumed while its topic takes nothing: the others go on.
func TestResumeIntoABlockedTopic(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxEvents = 2 * drainAtOnce })
	if err := r.startPaused("s"); err != nil {
		t.Fatal(err)
	}
	const n = 6 * drainAtOnce
	for i := range n {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.until("held", func() bool { return r.p.Stats().Held == n })
	r.k.set(func() { r.k.blocked["webhooks.s"] = "topic_missing" })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the drain has gone as far as it goes
	for i := range 150 {
		r.put("other", body{ID: "x" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.until("the other source's events", func() bool { return len(r.k.records("webhooks.other")) == 150 })
	r.k.set(func() { delete(r.k.blocked, "webhooks.s") })
	r.drained()
	if got := len(r.k.records("webhooks.s")); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
	checkOrder(t, r.k.records("webhooks.s"))
	r.stop()
}
