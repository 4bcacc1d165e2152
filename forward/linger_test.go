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
