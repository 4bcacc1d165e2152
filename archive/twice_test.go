package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// What a killed process left is seen by the next start, and is not on the disk for that:
// these tests end one life by a kill, the next by a power cut.

// TestKillThenPowerCut: nothing that was acknowledged is lost, and nothing is taken for
// damage, whatever directory entries a power cut forgets that a kill had left unsynced.
func TestKillThenPowerCut(t *testing.T) {
	at := func(op string, nth int) func(string, int) error {
		return func(is string, _ int) error {
			if is == op {
				nth--
			}
			if nth <= 0 {
				return errCrashed
			}
			return nil
		}
	}
	all := crashes(t, 1920)
	for seed, total := firstSeed(t), all; total > 0; seed++ {
		for n := 1; n <= 4; n++ { // of the cursors, of the segments, of the quarantine, and one that comes later
			for m := 1; m <= 4; m++ {
				w := newWorld(t, seed<<8+uint64(n)<<4+uint64(m))
				w.sealed, w.before = seed%3 == 0, all-total
				w.lifeUntil(at("write", 8+w.rng.IntN(8)), true)
				w.lifeUntil(at("syncdir", n), true)
				w.lifeUntil(at("syncdir", m), false)
				w.last()
				total -= w.crashes
			}
		}
	}
}

// TestThinKillThenPowerCut is that for what retention removes, and what waits.
func TestThinKillThenPowerCut(t *testing.T) {
	disk := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	c, p := newClock(), new(pumped)
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now})
	held, _ := thinFill(t, a, p, c, 120)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	base := disk.powerCut()
	p.done(held[0].Seq, held[1].Seq, held[2].Seq, held[3].Seq) // the oldest segments go altogether
	held = held[4:]
	all := crashes(t, 600)
	for seed, total := firstSeed(t), all; total > 0; seed++ {
		for n, op := range thinOps(t, base, p, c) {
			if op != "syncdir" && op != "sync "+stateName { // what it would have synced is what can be lost
				continue
			}
			for m := 3; m <= 12; m++ {
				total -= 2
				if err := thinTwice(base, held, p, c, n+1, m, seed); err != nil {
					t.Fatalf("seed %d, killed at operation %d, power cut at %d (%d of the run): %v", seed, n+1, m, all-total, err)
				}
			}
		}
	}
}

// thinOps lists the operations of a life that thins.
func thinOps(t *testing.T, base *crashFS, p *pumped, c *clock) (ops []string) {
	t.Helper()
	disk := base.kill()
	var mu sync.Mutex
	disk.fail = func(op, name string, _ int) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "sync" {
			op += " " + filepath.Base(name)
		}
		ops = append(ops, op)
		return nil
	}
	a := mustOpen(t, worldDir, thinOptions(disk, p, c))
	a.retain()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return ops
}

func thinOptions(disk FS, p *pumped, c *clock) Options {
	return Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Minute}, Keep: p.keep, Waiting: p.waiting}
}

// thinTwice kills a life that thins at its n-th operation, and cuts the power at the m-th
// of the next.
func thinTwice(base *crashFS, held []*Delivery, p *pumped, c *clock, n, m int, seed uint64) error {
	disk := base.kill()
	disk.rng = rand.New(rand.NewPCG(seed, uint64(n)<<16+uint64(m)))
	for life, at := range []int{n, m} {
		disk.fail = func(_, _ string, k int) error {
			if k >= at {
				return errCrashed
			}
			return nil
		}
		a, err := Open(worldDir, thinOptions(disk, p, c))
		if err == nil {
			a.retain()
			_ = a.Close()
		} else if !errors.Is(err, errCrashed) {
			return err
		}
		disk.fail = nil
		if life == 0 {
			disk = disk.kill()
		} else {
			disk = disk.powerCut()
		}
	}
	if res, err := check(disk, worldDir, nil); err != nil || !res.Sound() {
		return fmt.Errorf("check: %w %q", err, res.Damage)
	}
	a, err := Open(worldDir, thinOptions(disk, p, c))
	if err != nil {
		return err
	}
	return errors.Join(heldThere(a, held), a.Close())
}

// TestPinAfterAKill: a pin whose name a killed process left unsynced is promised again only
// when it is on the disk.
func TestPinAfterAKill(t *testing.T) {
	for seed := range uint64(16) {
		disk := newCrashFS(rand.New(rand.NewPCG(seed, 5)))
		o := Options{NoIndex: true, SegmentBytes: minSegmentBytes}
		d, until := testDelivery(1), time.Now().Add(time.Hour)
		for life := range 2 {
			o.FS = disk
			if life == 0 {
				disk.fail = func(op, name string, _ int) error {
					if op == "syncdir" && filepath.Base(name) == pinsDir {
						return errCrashed
					}
					return nil
				}
			}
			a := mustOpen(t, worldDir, o)
			if life == 0 {
				mustAppend(t, a, d)
			}
			if err := a.Pin(d, until); (err == nil) != (life == 1) {
				t.Fatalf("life %d: pin: %v", life, err)
			}
			_ = a.Close()
			if disk.fail = nil; life == 0 {
				disk = disk.kill()
			}
		}
		disk = disk.powerCut()
		o.FS = disk
		a := mustOpen(t, worldDir, o)
		got, err := a.pins.get(d.ID)
		if err != nil {
			t.Fatalf("seed %d: it was promised: %v", seed, err)
		}
		sameDelivery(t, got, d)
		_ = a.Close()
	}
}
