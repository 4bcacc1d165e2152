package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestThinCrashes: wherever a crash or a fault meets the thinning, what waits is there once
// and intact, with its outcome, and nothing is taken for damage.
func TestThinCrashes(t *testing.T) {
	disk := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	c, p := newClock(), new(pumped)
	o := Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now}
	a := mustOpen(t, worldDir, o)
	held, _ := thinFill(t, a, p, c, 120)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	base := disk.powerCut()
	ops := map[string]int{}
	all := crashes(t, 500)
	for seed, total := firstSeed(t), all; total > 0; seed++ {
		for _, fault := range []error{errCrashed, errInjected} {
			for n := 1; ; n++ {
				total--
				done, hit, err := thinCrash(base, held, p, c, n, seed, fault, false)
				if err != nil {
					t.Fatalf("seed %d, operation %d (%s; %d of the run): %v: %v", seed, n, hit, all-total, fault, err)
				}
				if done {
					break
				}
				ops[hit]++
			}
		}
	}
	t.Log(ops)
	for _, op := range []string{"create thin", "write thin", "sync thin", "rename segment", "remove segment", "syncdir segments"} {
		if ops[op] == 0 {
			t.Errorf("no fault met %q: %v", op, ops)
		}
	}
}

// thinCrash lets one life thin what an earlier one left until its n-th operation fails.
func thinCrash(base *crashFS, held []*Delivery, p *pumped, c *clock, n int, seed uint64, fault error, spoil bool) (done bool, hit string, err error) {
	disk := base.kill()
	disk.rng = rand.New(rand.NewPCG(seed, uint64(n)))
	var mu sync.Mutex
	disk.fail = func(op, name string, k int) error {
		if k < n || errors.Is(fault, errInjected) && k > n {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if k == n {
			hit = op + " " + kindOfFile(name)
		}
		return fault
	}
	o := Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Minute}, Keep: p.keep, Waiting: p.waiting}
	if spoil {
		o.FS = &forgetful{crashFS: disk}
	}
	a, err := Open(worldDir, o)
	if err == nil {
		a.retain()
		a.retain()
		_ = a.Close()
	} else if !errors.Is(err, errCrashed) && !errors.Is(err, errInjected) {
		return false, hit, err
	}
	done = disk.ops < n
	disk.fail = nil
	if seed%3 == 0 {
		disk = disk.kill()
	} else {
		disk = disk.powerCut()
	}
	o.FS = disk
	for life := range 2 {
		if res, err := check(disk, worldDir, nil); err != nil || !res.Sound() {
			return done, hit, fmt.Errorf("check in life %d: %w %q", life, err, res.Damage)
		}
		a, err = Open(worldDir, o)
		if err != nil {
			return done, hit, err
		}
		if err := heldThere(a, held); err != nil {
			return done, hit, errors.Join(err, a.Close())
		}
		a.retain()
		err = heldThere(a, held)
		if err = errors.Join(err, a.Close()); err != nil {
			return done, hit, fmt.Errorf("thinned again: %w", err)
		}
	}
	return done, hit, nil
}

// forgetful does not sync the directory after a thinned segment got its name.
type forgetful struct {
	*crashFS
	renamed atomic.Bool
}

func (f *forgetful) Rename(from, to string) error {
	f.renamed.Store(kindOfFile(from) == "thin")
	return f.crashFS.Rename(from, to)
}

func (f *forgetful) SyncDir(dir string) error {
	if f.renamed.Swap(false) {
		return nil
	}
	return f.crashFS.SyncDir(dir)
}

// TestThinSabotageIsCaught: TestThinCrashes would not pass without the sync of the directory
// between the new name and the removal of what it replaces.
func TestThinSabotageIsCaught(t *testing.T) {
	disk := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	c, p := newClock(), new(pumped)
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now})
	held, _ := thinFill(t, a, p, c, 120)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	base := disk.powerCut()
	for seed := uint64(1); seed < 30; seed++ {
		for n := 1; seed%3 != 0; n++ { // a kill loses nothing
			done, hit, err := thinCrash(base, held, p, c, n, seed, errCrashed, true)
			if err != nil {
				t.Logf("caught with seed %d at operation %d (%s): %v", seed, n, hit, err)
				return
			}
			if done {
				break
			}
		}
	}
	t.Fatal("not caught")
}

func kindOfFile(name string) string {
	base := filepath.Base(name)
	switch {
	case len(base) > 5 && base[:5] == thinPrefix:
		return "thin"
	case filepath.Ext(base) == segmentSuffix:
		return "segment"
	}
	return base
}

func heldThere(a *Archive, held []*Delivery) error {
	if d := a.Damage(); len(d) > 0 {
		return fmt.Errorf("damage: %q", d)
	}
	ds, os := map[uint64]bool{}, map[uint64]OutcomeKind{}
	r := a.NewReader(0)
	defer r.Close()
	for {
		rec, ok, err := r.TryNext()
		if err != nil || rec.Corrupt != nil {
			return errors.Join(err, rec.Corrupt)
		}
		if !ok {
			break
		}
		if rec.Delivery != nil {
			if ds[rec.Seq] {
				return fmt.Errorf("seq=%d is there twice", rec.Seq)
			}
			ds[rec.Seq] = true
		}
		if rec.Outcome != nil {
			os[rec.Outcome.Delivery] = rec.Outcome.Kind
		}
	}
	for _, d := range held {
		got, err := a.Get(d.ID)
		if err != nil || string(got.Body) != string(d.Body) || got.Seq != d.Seq || !got.ReceivedAt.Equal(d.ReceivedAt) || !ds[d.Seq] || os[d.Seq] != Held {
			return fmt.Errorf("held seq=%d: %w, outcome %q", d.Seq, err, os[d.Seq])
		}
	}
	return nil
}
