package archive

import "testing"

// TestBacklog: it is nothing without a sink, all of the log when nothing was worked through,
// less the further the sink is, over segments too, and nothing at the end.
func TestBacklog(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{SegmentBytes: minSegmentBytes, NoPack: true})
	at := uint64(1)
	for i := range 200 {
		mustAppend(t, a, testDelivery(i))
	}
	if n := a.Backlog(); n != 0 {
		t.Errorf("%d bytes without a sink", n)
	}
	a.SetKeep(func() uint64 { return at })
	all, last := a.Backlog(), int64(1<<62)
	if a.log.count() < 3 || all < 20_000 {
		t.Fatalf("%d segments, %d bytes", a.log.count(), all)
	}
	for ; at <= a.Synced(); at += 10 {
		n := a.Backlog()
		if n > last || n <= 0 {
			t.Fatalf("%d bytes from seq %d, and %d before", n, at, last)
		}
		last = n
	}
	if last > all/4 {
		t.Errorf("%d bytes near the end of %d", last, all)
	}
	at = a.Synced() + 1
	if n := a.Backlog(); n != 0 {
		t.Errorf("%d bytes when all is done", n)
	}
}
