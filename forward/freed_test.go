package forward

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"penstock/archive"
)

// held puts n deliveries into a paused source and waits until they are held.
func (r *rig) held(n, items int) (ds []*archive.Delivery) {
	r.t.Helper()
	if err := r.p.Pause("s"); err != nil {
		r.t.Fatal(err)
	}
	for i := range n {
		ds = append(ds, r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3), Items: items}))
	}
	r.until("all are held", func() bool {
		for _, d := range ds {
			if !r.p.counted().holds(d.Seq) {
				return false
			}
		}
		return true
	})
	return ds
}

// TestReleaseHeld: one delivery is let out of a paused source, once however often it is
// asked; the rest stays until the source resumes, in order.
func TestReleaseHeld(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	ds := r.held(6, 2)
	for range 3 {
		if err := r.p.ReleaseHeld(ds[4].ID, "ops"); err != nil && !errors.Is(err, ErrNotHeld) {
			t.Fatal(err)
		}
	}
	r.until("the one is published", func() bool { return len(r.k.all()) == 2 })
	r.until("it is told to be", func() bool { return !r.p.counted().holds(ds[4].Seq) })
	if err := r.p.ReleaseHeld(ds[4].ID, "ops"); !errors.Is(err, ErrNotHeld) {
		t.Errorf("it is published already: %v", err)
	}
	if err := r.p.ReleaseHeld("01M80Q18QC0449Z8R000000004", "ops"); !errors.Is(err, archive.ErrNotFound) {
		t.Errorf("there is none: %v", err)
	}
	r.until("the others are held", func() bool { return r.p.Unpublished() == 5 })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	for id, n := range ids(r.k.all()) {
		if n != 1 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	if len(r.k.all()) != 12 {
		t.Errorf("%d events, want 12", len(r.k.all()))
	}
	if err := r.p.ReleaseHeld(ds[0].ID, "ops"); !errors.Is(err, ErrNotHeld) {
		t.Errorf("the source is not paused: %v", err)
	}
	r.stop()
}

// TestReleaseHeldKilled: releases, kills and resumes in every order; each event once.
func TestReleaseHeldKilled(t *testing.T) {
	r := newRig(t, nil)
	r.slow = 2 * time.Millisecond
	r.start()
	ds := r.held(40, 1)
	for life := range 6 {
		for i := life * 5; i < life*5+5; i++ {
			if err := r.p.ReleaseHeld(ds[i].ID, "ops"); err != nil {
				t.Fatal(err)
			}
		}
		if life%2 == 0 {
			r.until("some of them are out", func() bool { return len(r.k.all()) > life*5 })
		}
		r.crash()
		r.start()
		r.until("it is live", func() bool { return r.p.Stats().State == "live" })
	}
	r.until("what was released is published, and no more", func() bool { return len(r.k.all()) == 30 && r.p.Unpublished() == 10 })
	for i := range 5 { // in flight while the source resumes
		if err := r.p.ReleaseHeld(ds[30+i].ID, "ops"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	got := ids(r.k.all())
	for i := range ds {
		if id := "e" + strconv.Itoa(i); got[id] != 1 {
			t.Errorf("%s is in kafka %d times", id, got[id])
		}
	}
	r.stop()
}

// TestReleaseHeldBlocked: what is let out waits for its blocked topic without its source.
func TestReleaseHeldBlocked(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	ds := r.held(3, 1)
	r.k.set(func() { r.k.blocked["webhooks.s"] = "missing" })
	if err := r.p.ReleaseHeld(ds[1].ID, "ops"); err != nil {
		t.Fatal(err)
	}
	r.until("it waits for its topic", func() bool { return r.metric("penstock_topic_blocked") == 1 })
	r.k.set(func() { delete(r.k.blocked, "webhooks.s") })
	r.until("it is published", func() bool { return r.p.Unpublished() == 2 })
	if got := ids(r.k.all()); len(got) != 1 || got["e1"] != 1 {
		t.Errorf("%v", got)
	}
	// The source resumes while what was let out waits: it is not let out twice.
	r.k.set(func() { r.k.blocked["webhooks.s"] = "missing" })
	if err := r.p.ReleaseHeld(ds[2].ID, "ops"); err != nil {
		t.Fatal(err)
	}
	r.until("it waits too", func() bool { return r.metric("penstock_topic_blocked") == 1 })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.until("the core has seen that", func() bool {
		seen := make(chan bool)
		r.p.control <- func(c *core) { g := c.gates[gateKey{gateSource, "s", -1}]; seen <- g == nil || g.list.n == 0 }
		return <-seen
	})
	r.k.set(func() { delete(r.k.blocked, "webhooks.s") })
	r.drained()
	for id, n := range ids(r.k.all()) {
		if n != 1 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	r.wantSays(ds[2], "0/1 held webhooks.s (paused)", "0/1 published webhooks.s ()")
	r.stop()
}

// TestReleaseHeldAgain: asked twice before the first is published, it goes out once and
// has one outcome more, not a second that calls it a duplicate of itself.
func TestReleaseHeldAgain(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	ds := r.held(3, 1)
	r.k.set(func() { r.k.blocked["webhooks.s"] = "missing" })
	for range 3 {
		if err := r.p.ReleaseHeld(ds[1].ID, "ops"); err != nil {
			t.Fatal(err)
		}
	}
	r.until("the core has read all three", func() bool {
		seen := make(chan uint64)
		r.p.control <- func(c *core) { seen <- c.read }
		return <-seen >= r.a.Synced()
	})
	r.k.set(func() { delete(r.k.blocked, "webhooks.s") })
	r.until("it is published", func() bool { return r.p.Unpublished() == 2 })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	r.until("nothing is on its way", func() bool {
		idle := make(chan bool)
		r.p.control <- func(c *core) { idle <- c.works == 0 && c.flight == 0 && len(c.outbox) == 0 }
		return <-idle
	})
	for id, n := range ids(r.k.all()) {
		if n != 1 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	r.wantSays(ds[1], "0/1 held webhooks.s (paused)", "0/1 published webhooks.s ()")
	r.stop()
}
