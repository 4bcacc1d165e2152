package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// everyCalls is how many calls of each operation the life of TestEveryFault has at least.
var everyCalls = map[string]int{"create": 7, "write": 33, "sync": 33, "truncate": 3, "rename": 7, "link": 2, "remove": 2, "syncdir": 5, "mkdir": 3}

// everyFaults are the faults of TestEveryFault: with every, each n is tried, else one of
// each bucket.
var everyFaults = []struct {
	fault          error
	lasting, every bool
}{
	{errInjected, false, true},
	{errInjected, true, true},
	{errNoSpace, false, false},
	{errNoSpace, true, false},
	{errShort, false, false},
	{errCrashed, false, false},
	{errCrashedAfter, false, false},
}

// TestEveryFault fails the n-th operation of each kind, once or from then on, or ends the
// life before or after it, for every n of a scenario that rolls segments, removes some and
// packs the others. Whatever fails: no false success, service again after the cure without
// a restart, and everything that was acknowledged is there after a power cut.
func TestEveryFault(t *testing.T) {
	hits := newCells()
	for _, op := range cellOps {
		for _, f := range everyFaults {
			if errors.Is(f.fault, errShort) && op != "write" {
				continue
			}
			for n := 1; n > 0; n = nextCall(n, f.every) {
				e := &everyFault{t: t, op: op, n: n, fault: f.fault, lasting: f.lasting, acked: map[string]*Delivery{}}
				if !e.run(hits) {
					break
				}
			}
		}
	}
	hits.require(t, everyCalls, "the life has no such call")
}

// nextCall gives the call to fail after the n-th; 0: that is enough.
func nextCall(n int, every bool) int {
	switch last := cellBuckets[len(cellBuckets)-1]; {
	case every && n >= last:
		return n + 7 // later ones repeat
	case every:
		return n + 1
	case n >= last:
		return 0
	}
	return cellBuckets[bucketOf(n)+1]
}

// everyFault is one fault at one call of one operation.
type everyFault struct {
	t       *testing.T
	op      string
	n       int
	fault   error
	lasting bool

	seen  atomic.Int64 // calls
	cured atomic.Bool
	floor atomic.Uint64
	acked map[string]*Delivery
}

func (e *everyFault) fatalf(format string, args ...any) {
	e.t.Helper()
	e.t.Fatalf("%s %d, %s, lasting=%t: %s", e.op, e.n, cellNames[e.fault], e.lasting, fmt.Sprintf(format, args...))
}

// ends says whether the fault ends the life.
func (e *everyFault) ends() bool {
	return errors.Is(e.fault, errCrashed) || errors.Is(e.fault, errCrashedAfter)
}

func (e *everyFault) met() bool { return e.seen.Load() >= int64(e.n) }

// run says whether the n-th call was reached.
func (e *everyFault) run(hits *cells) bool {
	e.t.Helper()
	disk := newCrashFS(rand.New(rand.NewPCG(uint64(e.n), 7)))
	disk.cells = hits
	disk.fail = func(op, _ string, _ int) error {
		if op != e.op {
			return nil
		}
		if k := e.seen.Add(1); !e.cured.Load() && (k == int64(e.n) || e.lasting && k > int64(e.n)) {
			return e.fault
		}
		return nil
	}
	o := Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 1}, Keep: e.floor.Load}
	a, err := Open(worldDir, o)
	switch {
	case err == nil:
	case errors.Is(err, errCrashed) && e.ends():
	case !errors.Is(err, e.fault):
		e.fatalf("open: %v", err)
	default:
		e.cured.Store(true)
		if a, err = Open(worldDir, o); err != nil {
			e.fatalf("open after the cure: %v", err)
		}
	}
	if err == nil {
		e.life(a)
	}
	disk.fail = nil
	o.FS = disk.powerCut()
	a = mustOpen(e.t, worldDir, o)
	e.verify(a, "after a power cut")
	if d := a.Damage(); len(d) > 0 {
		e.fatalf("damage %q", d)
	}
	if v, _ := a.State().Get("k"); string(v) != "end" && !e.ends() {
		e.fatalf("state is %q", v)
	}
	_ = a.Close()
	return e.met()
}

func (e *everyFault) append(a *Archive, d *Delivery) bool {
	err := a.Append(d)
	if err != nil && !errors.Is(err, ErrUnavailable) {
		e.fatalf("append: %v", err)
	}
	if err == nil {
		e.acked[d.ID] = d
	}
	return err == nil
}

func (e *everyFault) life(a *Archive) {
	e.t.Helper()
	defer a.Close()
	for i := range 90 {
		d := testDelivery(i)
		d.Body = append(d.Body, make([]byte, 500)...)
		e.append(a, d)
		if i == 60 { // retention works in the middle of it
			e.floor.Store(a.Synced() / 2)
			a.retain()
		}
		if i%10 == 0 {
			_ = a.State().Commit(Change{"k", fmt.Append(nil, i)}) // fails or not
		}
		if e.ends() && e.met() {
			return
		}
	}
	done := make(chan struct{}) // footers and spares are written in the background
	if a.runLater(func() { close(done) }) {
		within(e.t, "the background", done)
	}
	if e.op == "link" { // only the packer's old files get a second name
		eventually(e.t, "packed", func() bool {
			n, all := packed(a)
			return all && n > 0 || e.met() && e.seen.Load() > 3 || e.met() && e.ends()
		})
	}
	if e.ends() {
		return
	}
	e.cured.Store(true)
	eventually(e.t, "serving after the cure", func() bool { return e.append(a, testDelivery(1000)) })
	if err := a.State().Commit(Change{"k", []byte("end")}); err != nil {
		e.fatalf("state after the cure: %v", err)
	}
	e.verify(a, "same life")
}

func (e *everyFault) verify(a *Archive, when string) {
	e.t.Helper()
	verifyAcked(e.t, a, e.acked, e.floor.Load(), fmt.Sprintf("%s %d, %s, lasting=%t, %s", e.op, e.n, cellNames[e.fault], e.lasting, when))
}

// verifyAcked: each acknowledged delivery at or above floor is read once and intact.
func verifyAcked(t *testing.T, a *Archive, acked map[string]*Delivery, floor uint64, when string) {
	t.Helper()
	seen := make(map[string]bool)
	for _, rec := range readAll(t, a.NewReader(0)) {
		if rec.Corrupt != nil {
			t.Fatalf("%s: %v", when, rec.Corrupt)
		}
		if rec.Delivery == nil {
			continue
		}
		if seen[rec.Delivery.ID] {
			t.Fatalf("%s: %s is there twice", when, rec.Delivery.ID)
		}
		seen[rec.Delivery.ID] = true
		if want := acked[rec.Delivery.ID]; want != nil {
			sameDelivery(t, rec.Delivery, want)
		}
	}
	for id, d := range acked {
		if d.Seq >= floor && !seen[id] {
			t.Fatalf("%s: acknowledged seq=%d is lost", when, d.Seq)
		}
	}
}
