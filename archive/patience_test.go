package archive

import (
	"testing"
	"time"
)

// TestOutcomePatience: a batch of outcomes alone waits for company, a delivery or a
// marker in it, or its size, ends the wait at once.
func TestOutcomePatience(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	f := func(name string, j *journal, b *batch, waits bool) {
		t.Helper()
		if got := j.patience(b); (got > 0) != waits || got > j.o.Linger+outcomePatience {
			t.Errorf("%s: waits another %s", name, got)
		}
	}
	now := time.Now()
	f("outcomes", a.log, &batch{born: now}, true)
	f("outcomes, old", a.log, &batch{born: now.Add(-outcomePatience)}, false)
	f("outcomes, many", a.log, &batch{born: now, position: position{size: outcomePatienceBytes}}, false)
	f("a delivery", a.log, &batch{born: now, urgent: true}, false)
	f("quarantine", a.quarantine.log, &batch{born: now, urgent: true}, true) // nobody waits for it

	j := a.log
	place := func(want bool, put func() (*batch, error)) {
		t.Helper()
		b, err := put()
		if err != nil || b.urgent != want {
			t.Fatalf("batch is urgent: %v, %v, want %v", b.urgent, err, want)
		}
		j.wake()
		if err := j.wait(b); err != nil {
			t.Fatal(err)
		}
	}
	o := func() []Outcome { return []Outcome{{Delivery: 1, Items: 1, Kind: Held, At: now}} }
	place(false, func() (*batch, error) { return j.placeAll(o(), nil) })
	place(true, func() (*batch, error) { return j.placeDelivery(testDelivery(1), false) })
	place(true, func() (*batch, error) { return j.placeAll(o(), &Marker{Kind: JobMarker, At: now}) })
}
