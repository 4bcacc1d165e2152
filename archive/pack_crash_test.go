package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sabotage is a disk that lets the packer down, as a build would that left a step out.
type sabotage struct {
	*crashFS
	noSync    bool // the packed file is not synced before it gets its name
	dropFirst bool // the old file is removed before the packed one gets its name
	noSyncDir bool // the old file is used again before the new name is on the disk

	enc *Encryption // of the archive

	renamed *atomic.Bool // the last operation gave a packed file its name
}

type unsynced struct{ File }

func (unsynced) Sync() error { return nil }

func isPack(name string) bool { return strings.HasPrefix(filepath.Base(name), packPrefix) }

func (s *sabotage) Create(name string) (File, error) {
	f, err := s.crashFS.Create(name)
	if err == nil && s.noSync && isPack(name) {
		return unsynced{f}, nil
	}
	return f, err
}

func (s *sabotage) Rename(from, to string) error {
	if s.dropFirst && isPack(from) {
		if err := s.crashFS.Remove(to); err != nil {
			return err
		}
	}
	s.renamed.Store(isPack(from))
	return s.crashFS.Rename(from, to)
}

func (s *sabotage) SyncDir(dir string) error {
	if s.renamed.Swap(false) && s.noSyncDir {
		return nil
	}
	return s.crashFS.SyncDir(dir)
}

// packCrash lets one life pack what an earlier one left, and write over the spares that
// come of it, until the n-th operation ends it; then it says what is wrong with what the
// next life finds. Done: the life had no n-th operation.
func packCrash(base *crashFS, acked map[string]*Delivery, n int, seed uint64, spoil sabotage, fault error) (done bool, err error) {
	acked = clone(acked)
	disk := base.kill()
	disk.rng = rand.New(rand.NewPCG(seed, uint64(n)))
	disk.fail = func(_, _ string, k int) error {
		if k < n || errors.Is(fault, errInjected) && k > n {
			return nil
		}
		return fault
	}
	spoil.crashFS, spoil.renamed = disk, new(atomic.Bool)
	o := Options{FS: &spoil, NoIndex: true, SegmentBytes: minSegmentBytes, Encryption: spoil.enc}
	off := func() bool {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		return disk.dead
	}
	a, err := Open(worldDir, o)
	if err == nil {
		for deadline := time.Now().Add(10 * time.Second); !off() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if a.Stats().Compressed > 2 || errors.Is(fault, errInjected) {
				break
			}
		}
		for i := range 40 {
			d := testDelivery(1_000_000 + i)
			d.Body = append(d.Body, make([]byte, 1000)...)
			if a.Append(d) == nil {
				acked[d.ID] = d
			}
			if off() {
				break
			}
		}
		_ = a.Close()
	} else if !errors.Is(err, errCrashed) && !errors.Is(err, errInjected) {
		return false, err
	}
	done = disk.ops < n
	disk.fail = nil
	if seed%3 == 0 {
		disk = disk.kill()
	} else {
		disk = disk.powerCut()
	}
	a, err = Open(worldDir, Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes, NoPack: true, Encryption: spoil.enc})
	if err != nil {
		return done, err
	}
	defer a.Close()
	if d := a.Damage(); len(d) > 0 {
		return done, fmt.Errorf("damage: %q", d)
	}
	r := a.NewReader(0)
	defer r.Close()
	seen := 0
	for {
		rec, ok, err := r.TryNext()
		if err != nil || rec.Corrupt != nil {
			return done, errors.Join(err, rec.Corrupt)
		}
		if !ok {
			break
		}
		if want := acked[rec.Delivery.ID]; want != nil {
			if seen++; !reflect.DeepEqual(rec.Delivery, want) {
				return done, fmt.Errorf("seq=%d is altered", rec.Seq)
			}
		}
	}
	if seen != len(acked) {
		return done, fmt.Errorf("%d of %d acknowledged deliveries are there", seen, len(acked))
	}
	return done, nil
}

func clone(m map[string]*Delivery) map[string]*Delivery {
	c := make(map[string]*Delivery, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// packBase is a disk with several sealed segments.
func packBase(t *testing.T, enc *Encryption) (*crashFS, map[string]*Delivery) {
	t.Helper()
	disk := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes, NoPack: true, Encryption: enc})
	acked := make(map[string]*Delivery)
	for n := range 60 {
		d := testDelivery(n)
		d.Body = append(d.Body, make([]byte, 1000)...)
		mustAppend(t, a, d)
		acked[d.ID] = d
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return disk.powerCut(), acked
}

// TestPackCrashes: wherever a crash or a fault of the disk meets the packing of a segment,
// everything that was acknowledged is there afterwards.
func TestPackCrashes(t *testing.T) { packCrashes(t, nil, 1) }

// TestPackSealedCrashes is TestPackCrashes over an encrypted archive.
func TestPackSealedCrashes(t *testing.T) { packCrashes(t, &Encryption{Key: testKey(1)}, 4) }

func packCrashes(t *testing.T, enc *Encryption, step int) {
	t.Helper()
	base, acked := packBase(t, enc)
	first, all := firstSeed(t), crashes(t, 150/step)
	for seed, total := first, all; total > 0; seed++ {
		for n := 1; ; n += step {
			total--
			done, err := packCrash(base, acked, n, seed, sabotage{enc: enc}, errCrashed)
			if err != nil {
				t.Fatalf("seed %d, crash at operation %d (%d of the run): %v", seed, n, all-total, err)
			}
			if done {
				if n < 40 {
					t.Fatalf("a life has %d operations: nothing was packed", n)
				}
				break
			}
		}
	}
	for n := 1; ; n += step {
		done, err := packCrash(base, acked, n, first, sabotage{enc: enc}, errInjected)
		if err != nil {
			t.Fatalf("operation %d fails: %v", n, err)
		}
		if done {
			break
		}
	}
}

// TestPackSabotageIsCaught: TestPackCrashes would not pass without the sync of the packed
// file, with the old file removed too early, or used again too early.
func TestPackSabotageIsCaught(t *testing.T) {
	base, acked := packBase(t, nil)
	for name, spoil := range map[string]sabotage{
		"no sync before the rename":           {noSync: true},
		"old file removed before the rename":  {dropFirst: true},
		"old file used before the name is on": {noSyncDir: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed < 30; seed++ {
				for n := 20; seed%3 != 0; n++ { // a kill loses nothing
					done, err := packCrash(base, acked, n, seed, spoil, errCrashed)
					if err != nil {
						t.Logf("caught with seed %d at operation %d: %v", seed, n, err)
						return
					}
					if done {
						break
					}
				}
			}
			t.Fatal("not caught")
		})
	}
}
