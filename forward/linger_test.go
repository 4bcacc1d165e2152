package forward

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"penstock/archive"
)

// TestStreamSharesSyncs: what comes within some milliseconds has its outcomes in few
// syncs, not in one each.
func TestStreamSharesSyncs(t *testing.T) {
	const n = 200
	var syncs, outcomes atomic.Int64
	r := newRig(t, nil)
	r.fail = func(os []archive.Outcome) error {
		syncs.Add(1)
		outcomes.Add(int64(len(os)))
		return nil
	}
	r.start()
	for i := range n {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%7)})
	}
	r.drained()
	if outcomes.Load() != n || syncs.Load() > n/3 {
		t.Errorf("%d outcomes in %d commits, want %d in at most %d", outcomes.Load(), syncs.Load(), n, n/3)
	}
}

// TestLoneDeliveryDoesNotLinger: one delivery by itself is published at once, give or
// take the lingers; a machine that is busy gets a second.
func TestLoneDeliveryDoesNotLinger(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	r.put("s", body{ID: "first", Key: "k"})
	r.drained()
	best := time.Hour
	for i := range 5 {
		d := r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k"})
		r.drained()
		os := r.outcomes(d)
		if len(os) != 1 {
			t.Fatalf("%d outcomes of one event", len(os))
		}
		best = min(best, os[0].At.Sub(d.ReceivedAt))
	}
	if best > time.Second {
		t.Errorf("the quickest of five single deliveries was published after %v", best)
	}
}

// TestUnpublishedIsExact: the number counts from the ack (CONTRACT), although the ledger
// reads the log only now and then.
func TestUnpublishedIsExact(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	r.until("live", func() bool { return r.p.Stats().State == "live" })
	if err := r.p.Pause("s"); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k"})
		if n := r.p.Unpublished(); n != i+1 {
			t.Fatalf("%d deliveries are unpublished, want %d", n, i+1)
		}
	}
}

// TestPartitionsShareASync: messages that come together for several partitions go in one
// batch each, and the intents of these in one sync or two.
func TestPartitionsShareASync(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 4)
	s := newMemState()
	p := b.start(t, s, nil, nil)
	p.send(events(topic, 0, 40)...) // opens the topic and learns the ends
	p.waitAcked(40)
	best := 1000
	for round := range 5 { // on a busy machine a round may be torn apart
		s.mu.Lock()
		before := s.commits
		s.mu.Unlock()
		p.send(events(topic, 40*(round+1), 40*(round+2))...)
		p.waitAcked(40)
		s.mu.Lock()
		best = min(best, s.commits-before)
		s.mu.Unlock()
	}
	if best > 2 {
		t.Errorf("40 messages to 4 partitions took %d commits of the state at least, want 1 or 2", best)
	}
}
