package forward

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"penstock/archive"
)

// TestGateStops: what was let out of a gate waits again for an older one that came back
// meanwhile, and overtakes nothing else either.
func TestGateStops(t *testing.T) {
	at := func(seq uint64) *parcel { return &parcel{ref: ref{seq: seq}, order: place(seq, 0)} }
	g := &gate{}
	through := func(what string, ev *parcel, want bool) {
		t.Helper()
		if got := !g.stops(ev); got != want {
			t.Errorf("%s: passes %v, want %v", what, got, want)
		}
	}
	out := at(20)
	out.pass = g
	through("an open, empty gate", at(1), true)
	g.closed = true
	through("a shut gate", at(1), false)
	through("a shut gate, of which it was let out", out, true)
	g.closed = false
	g.insert(at(30))
	through("behind it only later ones", out, true)
	through("later than what waits", at(31), false)
	g.insert(at(10))
	through("an older one came back", out, false)
	g.pend = nil
	g.list.push(ref{seq: 11})
	through("an older one is held", out, false)
	g.list.pop()
	g.list.push(ref{seq: 40})
	through("a later one is held", out, true)
}

// TestGateLetsTheOldestOut: what waits briefly and what is held leave in one order, however
// they came.
func TestGateLetsTheOldestOut(t *testing.T) {
	c := newCore(context.Background(), &Pump{})
	l := newLedger(1)
	rng := rand.New(rand.NewPCG(7, 1))
	g := &gate{}
	for i := range 2000 {
		l.add(&archive.Record{Seq: uint64(i + 1), Delivery: &archive.Delivery{Seq: uint64(i + 1), Verdict: archive.Accepted}})
	}
	c.p.led.Store(l)
	for _, i := range rng.Perm(2000) {
		r := ref{seq: uint64(i + 1)}
		if rng.IntN(2) == 0 {
			g.list.push(r)
		} else {
			g.insert(&parcel{ref: r, order: place(r.seq, 0)})
		}
	}
	for want := uint64(1); !g.empty(); want++ {
		if ev := c.takeFrom(g); ev == nil || ev.ref.seq != want {
			t.Fatalf("%+v is let out, want seq %d", ev, want)
		}
	}
}

// TestWaitingTakesNoPlace: events out of a gate that wait for something else leave their
// places to those behind them, of which one may be what they wait for.
func TestWaitingTakesNoPlace(t *testing.T) {
	s := &scripted{parked: map[string]bool{}}
	r := newRig(t, func(o *Options) { o.Dedupe = s; o.ParkFor = time.Hour })
	r.k.blocked["webhooks.s"] = "topic_missing"
	r.start()
	const waiting, all = 4 * drainFirst, 8 * drainFirst
	var first []*archive.Delivery
	for i := range all {
		d := r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i)})
		if i < waiting {
			s.mu.Lock()
			s.parked[d.ID] = true
			s.mu.Unlock()
			first = append(first, d)
		}
	}
	r.until("held", func() bool { return r.p.Stats().Held == all })
	r.k.set(func() { delete(r.k.blocked, "webhooks.s") })
	r.until("those behind the waiting ones", func() bool { return len(r.k.all()) == all-waiting })
	s.mu.Lock()
	for _, d := range first {
		s.parked[d.ID] = false
	}
	s.mu.Unlock()
	r.drained()
	if n := len(r.k.all()); n != all {
		t.Errorf("%d events in kafka, want %d", n, all)
	}
	r.stop()
}
