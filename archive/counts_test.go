package archive

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// storedRefusals counts what the quarantine holds.
func storedRefusals(t *testing.T, a *Archive) (n uint64) {
	t.Helper()
	for _, rec := range readAll(t, a.NewRejectedReader(0)) {
		if rec.Delivery != nil {
			n++
		}
	}
	return n
}

func sampledAway(a *Archive) (n uint64) {
	for _, k := range a.SampledAway() {
		n += k.Count
	}
	return n
}

// TestLostRefusalsAreCounted: refusals that were to be kept and whose batch could not be
// written, at whichever operation, once or for a while, are counted; so at every moment when
// nothing is on its way, and in later lives, what is stored and what is counted make up
// exactly what was refused.
func TestLostRefusalsAreCounted(t *testing.T) {
	lost := 0
	for _, op := range []string{"write", "sync", "create", "rename", "syncdir"} {
		for n := int64(1); n <= 6; n++ {
			if lostRefusals(t, op, n) {
				lost++
			}
		}
	}
	if lost < 5 {
		t.Fatalf("only %d runs lost a batch: this tests little", lost)
	}
}

// hurry makes the quarantine write what it gets at once.
func (q *quarantine) hurry() {
	q.log.mu.Lock()
	defer q.log.mu.Unlock()
	q.log.o.LingerBytes = 1
}

// idle says whether the quarantine has nothing to write.
func (q *quarantine) idle() bool {
	q.log.mu.Lock()
	defer q.log.mu.Unlock()
	return q.idleLocked()
}

func (q *quarantine) idleLocked() bool {
	return q.log.broken == nil && q.log.committing == nil && len(q.log.queue) == 0 && (q.log.cur == nil || q.log.cur.size == 0)
}

// TestLostCountsAreSaidAgain: the marker of counts was in a batch that could not be written,
// and nothing else is refused: the next one says it.
func TestLostCountsAreSaidAgain(t *testing.T) {
	disk, c := newCrashFS(seeded(t)), newClock()
	o := Options{FS: disk, NoIndex: true, NoPack: true, Now: c.now}
	a := mustOpen(t, worldDir, o)
	a.quarantine.hurry()
	for a.Stats().SampledAway == 0 {
		if _, err := a.Reject(rejected(1)); err != nil {
			t.Fatal(err)
		}
	}
	said := func() bool { // all counts, and nothing is on its way
		a.quarantine.log.mu.Lock()
		defer a.quarantine.log.mu.Unlock()
		s := a.quarantine.sampler
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.list(false)) == 0 && a.quarantine.idleLocked()
	}
	eventually(t, "the first count", said)
	var failed atomic.Int64
	disk.mu.Lock()
	disk.fail = func(op, name string, _ int) error {
		if op == "sync" && filepath.Base(filepath.Dir(name)) == quarantineDir && failed.CompareAndSwap(0, 1) {
			return errInjected
		}
		return nil
	}
	disk.mu.Unlock()
	for want := a.Stats().SampledAway + 1; a.Stats().SampledAway < want; {
		// Between the failure and the next segment all are answered 503.
		if _, err := a.Reject(rejected(1)); err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	}
	eventually(t, "the failure, and the cure", func() bool { return failed.Load() > 0 && said() })
	want := sampledAway(a)
	o.FS = disk.powerCut()
	_ = a.Close()
	a = mustOpen(t, worldDir, o)
	if got := sampledAway(a); got != want {
		t.Fatalf("%d are counted after a power cut, it was %d", got, want)
	}
}

// lostRefusals is one run, in which the n-th and some more of those operations fail. It says
// whether a batch was lost.
func lostRefusals(t *testing.T, op string, n int64) bool {
	t.Helper()
	disk, c := newCrashFS(seeded(t)), newClock()
	var armed atomic.Bool
	var seen atomic.Int64
	disk.fail = func(o, name string, _ int) error {
		if !armed.Load() || o != op || filepath.Base(filepath.Dir(name)) != quarantineDir && filepath.Base(name) != quarantineDir {
			return nil
		}
		if k := seen.Add(1); k >= n && k < 2*n {
			return errInjected
		}
		return nil
	}
	o := Options{FS: disk, NoIndex: true, NoPack: true, Now: c.now, Quarantine: Quarantine{Size: quarantineSegments * minSegmentBytes}}
	a := mustOpen(t, worldDir, o)
	a.quarantine.hurry()
	armed.Store(true)
	refused, failed := uint64(0), uint64(0)
	for i := range 40 {
		d := kb(rejected(i), 1)
		if _, err := a.Reject(d); err != nil {
			if !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			failed++
		}
		refused++
		c.add(30 * time.Millisecond)
		if i%8 == 7 { // a batch of its own
			eventually(t, "idle", a.quarantine.idle)
		}
	}
	stored, counted := storedRefusals(t, a), sampledAway(a)
	if stored+counted != refused {
		t.Fatalf("%s %d: %d stored and %d counted of %d", op, n, stored, counted, refused)
	}
	armed.Store(false)
	for life := range 3 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		disk = disk.powerCut()
		o.FS = disk
		a = mustOpen(t, worldDir, o)
		if s, k := storedRefusals(t, a), sampledAway(a); s != stored || k != counted {
			t.Fatalf("%s %d, life %d: %d stored and %d counted, it was %d and %d", op, n, life, s, k, stored, counted)
		}
	}
	return counted > failed
}

// TestCountsRideWithWhatIsKept: after a kill at any moment the counts are not older than the
// newest refusal that is stored: they are written with its batch.
func TestCountsRideWithWhatIsKept(t *testing.T) {
	counts := 0
	for life := range 3 {
		disk, c := newCrashFS(seeded(t)), newClock()
		o := Options{FS: disk, NoIndex: true, NoPack: true, Now: c.now}
		a := mustOpen(t, worldDir, o)
		var history []uint64 // how many were counted when the k-th that is stored came
		counted := uint64(0)
		q := a.quarantine.log
		for n := 0; n < 200 || q.synced.Load() == 0; n++ {
			kept, err := a.Reject(rejected(life))
			if err != nil {
				t.Fatal(err)
			}
			if !kept {
				counted++
			} else {
				history = append(history, counted)
			}
			if n > 200 {
				c.add(50 * time.Millisecond)
				time.Sleep(time.Millisecond)
			}
		}
		killed := disk.kill()
		_ = a.Close()
		o.FS = killed
		a = mustOpen(t, worldDir, o)
		stored, got := storedRefusals(t, a), sampledAway(a)
		if stored == 0 || got < history[stored-1] || got > counted {
			t.Fatalf("%d are stored and %d counted; when the last of them came it was %d, at the kill %d", stored, got, history[max(stored, 1)-1], counted)
		}
		if history[stored-1] > 0 {
			counts++
		}
		_ = a.Close()
	}
	if counts == 0 {
		t.Fatal("nothing was sampled away: this tests nothing")
	}
}
