package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestRestart: what fires goes on firing and is told once; what was counted is counted on;
// what waited is sent; nothing of the past is told.
func TestRestart(t *testing.T) {
	r := newRig(t, refusals(), Rule{Name: "paid", When: WhenEvent, Types: []string{"payment.*"}, Group: time.Minute})
	r.refuse("shop", "policy", 20)
	r.after(time.Second)
	r.after(time.Minute)
	r.see(Event{Outcome: "published", Source: "shop", Type: "payment.captured"})
	r.stop()
	r.restart()
	r.after(10 * time.Second)
	first := r.one(StateFiring, "shop: 20") // it waited when the process ended
	if first.ID == "" {
		t.Error("a message without an id")
	}
	r.after(time.Minute)
	r.one(StateEvent, "payment.captured") // its group was open
	r.after(time.Minute)
	r.none()
	r.stop()
	r.restart()
	r.after(time.Minute)
	r.none()
	r.after(5 * time.Minute)
	r.one(StateRecovered, "shop")
}

// TestCrash: a crash within the seconds before something is kept sends the same again
// and loses nothing.
func TestCrash(t *testing.T) {
	r := newRig(t, Rule{Name: "paid", When: WhenEvent, Types: []string{"payment.*"}})
	r.after(time.Minute) // kept
	r.see(Event{Outcome: "published", Source: "shop", Type: "payment.captured"})
	r.after(time.Second) // told, and not kept
	r.one(StateEvent, "payment.captured")
	r.restart()
	r.see(Event{Outcome: "published", Source: "shop", Type: "payment.failed"})
	var once sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	once.Go(func() { r.e.follow(ctx, Want{Fields: true}) })
	for r.position() < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	once.Wait()
	r.after(time.Second)
	r.one(StateEvent, "payment.failed")
}

func (r *rig) position() uint64 {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	return r.e.position
}

// TestPosition: the very first life tells nothing of what was there, and learns from it; the
// next one begins where the last one ended.
func TestPosition(t *testing.T) {
	r := newRig(t, Rule{Name: "paid", When: WhenEvent, Types: []string{"payment.*"}}, Rule{Name: "silent", When: WhenSilence, Floor: time.Hour, Factor: 2})
	for i := range 100 {
		r.log.add(Event{Source: "shop", At: noon.Add(time.Duration(i-100) * time.Hour)})
		r.log.add(Event{Outcome: "published", Source: "shop", Type: "payment.captured"})
	}
	life := func(upto uint64) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.e.follow(ctx, Want{Fields: true}) })
		for r.position() < upto {
			time.Sleep(time.Millisecond)
		}
		cancel()
		wg.Wait()
		r.after(time.Second)
		r.stop()
	}
	life(200)
	r.none()
	if c := r.e.cadence["shop"]; c == nil || c.Seen != 100 {
		t.Fatalf("learned %+v", c)
	}
	for range 3 {
		r.log.add(Event{Outcome: "published", Source: "shop", Type: "payment.captured"})
	}
	life(203)
	if m := r.one(StateEvent, "payment.captured"); m.Count != 3 {
		t.Errorf("%+v", m)
	}
	r.stop()
	r.restart()
	r.log.add(Event{Outcome: "published", Source: "shop", Type: "payment.failed"})
	life(204)
	if m := r.one(StateEvent, "payment.failed"); m.Count != 1 {
		t.Errorf("%+v", m)
	}
	if want := fmt.Sprint([]uint64{0, 200, 203}); fmt.Sprint(r.log.asked) != want {
		t.Errorf("followed from %v, want %s", r.log.asked, want)
	}
	if r.e.cadence["shop"].Seen != 100 {
		t.Errorf("learned %+v", r.e.cadence["shop"])
	}
	// An archive that was thrown away has fewer records than were read.
	r.stop()
	r.log.events = r.log.events[:5]
	r.restart()
	r.log.add(Event{Outcome: "published", Source: "shop", Type: "payment.failed"})
	life(6)
	r.none()
}

// TestKept: what was kept and cannot be read is as if it were not there, and what cannot be
// kept is tried again.
func TestKept(t *testing.T) {
	r := newRig(t, refusals())
	r.store.kept[keyState], r.store.kept[keyCadence] = []byte("{"), []byte("null")
	r.restart()
	r.store.fail = true
	r.refuse("shop", "policy", 20)
	r.after(time.Second)
	r.after(time.Minute)
	r.one(StateFiring)
	r.store.fail = false
	r.after(time.Minute)
	var k kept
	if err := json.Unmarshal(r.store.kept[keyState], &k); err != nil || len(k.Rules["bad"].Alerts) != 1 {
		t.Errorf("kept %s: %v", r.store.kept[keyState], err)
	}
}
