package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// backUp copies an archive as docs/backup.md says: cursors, then both logs, again where
// files went away meanwhile, then the keyring. It says how often files did.
func backUp(t *testing.T, from, to string) (again int) {
	t.Helper()
	copyParts(t, from, to, stateName)
	for copyParts(t, from, to, segmentsDir, quarantineDir) {
		if again++; again > 1000 {
			t.Fatal("files go away faster than they are copied")
		}
		// What went away may have been written over while it was copied (rsync --delete).
		for _, part := range []string{segmentsDir, quarantineDir} {
			if err := os.RemoveAll(filepath.Join(to, part)); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyParts(t, from, to, keyringName, keyringCopy)
	return again
}

// copyParts copies over what was copied before; gone says that a file was listed and went
// away before it was read.
func copyParts(t *testing.T, from, to string, parts ...string) (gone bool) {
	t.Helper()
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(from, part), func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			target := filepath.Join(to, rel)
			if e.IsDir() {
				return os.MkdirAll(target, 0o700)
			}
			if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				gone = true
				return nil
			}
			if err != nil {
				return err
			}
			return os.WriteFile(target, b, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return gone
}

// TestBackupWhileItRuns: a copy that is taken file by file while deliveries come in,
// segments roll, are packed and new months get keys, is sound, opens, and has everything
// that was acknowledged before it began; so has the state that was committed before.
func TestBackupWhileItRuns(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%t", sealed), func(t *testing.T) { testBackup(t, sealed) })
	}
}

func testBackup(t *testing.T, sealed bool) {
	dir := t.TempDir()
	o := Options{NoIndex: true, SegmentBytes: 64 << 10, MaxWait: time.Hour}
	if sealed {
		o.Encryption = &Encryption{Key: testKey(1)}
	}
	a := mustOpen(t, dir, o)
	var mu sync.Mutex
	acked := map[string]*Delivery{}
	committed := 0
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := w; ; n += 4 {
				select {
				case <-stop:
					return
				default:
				}
				d := kb(testDelivery(n), 1)
				d.ReceivedAt = d.ReceivedAt.AddDate(0, n/50, 0)
				if err := a.Append(d); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[d.ID] = d
				mu.Unlock()
				if w == 0 {
					if err := a.State().Commit(Change{"intent", fmt.Append(nil, n)}); err != nil {
						t.Error(err)
					}
					mu.Lock()
					committed = n
					mu.Unlock()
				}
			}
		})
	}
	for round := range 4 {
		want := 100 * (round + 1)
		eventually(t, "deliveries", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) >= want })
		mu.Lock()
		before, state := clone(acked), committed
		mu.Unlock()
		copied := ""
		// A file that was written while it was copied is named as damaged, and copied again.
		eventually(t, "a sound copy", func() bool {
			copied = t.TempDir()
			backUp(t, dir, copied)
			res, err := Check(copied, io.Discard)
			if err != nil {
				t.Fatalf("round %d: the copy: %v", round, err)
			}
			return res.Sound()
		})
		b := mustOpen(t, copied, o)
		if d := b.Damage(); len(d) > 0 {
			t.Fatalf("round %d: %q", round, d)
		}
		verifyAcked(t, b, before, 0, fmt.Sprintf("round %d", round))
		v, _ := b.State().Get("intent")
		var n int
		if _, err := fmt.Sscan(string(v), &n); err != nil || n < state {
			t.Fatalf("round %d: state is %q (%v), %d was committed", round, v, err, state)
		}
		mustAppend(t, b, testDelivery(1_000_000))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// TestBackupWhileItRetains: a copy that is taken while retention removes segments and thins
// those in which something waits, while segments are packed or encrypted, opens and has
// every delivery that waits, once and intact.
func TestBackupWhileItRetains(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%t", sealed), func(t *testing.T) { testBackupRetains(t, sealed) })
	}
}

func testBackupRetains(t *testing.T, sealed bool) {
	dir := t.TempDir()
	waits := new(childWaits)
	waits.keep.Store(1)
	o := Options{NoIndex: true, SegmentBytes: 32 << 10, MaxWait: time.Hour, Retention: Retention{Size: 256 << 10},
		Keep: func() uint64 { return 1 }, Waiting: waits.list}
	if sealed {
		o.Encryption = &Encryption{Key: testKey(1)}
	}
	a := mustOpen(t, dir, o)
	var mu sync.Mutex
	acked := map[string]*Delivery{}
	held := map[string]bool{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	t.Cleanup(end) // before the archive is closed
	for w := range 4 {
		wg.Go(func() {
			for n := w; ; n += 4 {
				select {
				case <-stop:
					return
				default:
				}
				d := kb(testDelivery(n), 1)
				if err := a.Append(d); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[d.ID] = d
				if n%40 == 0 {
					held[d.ID] = true
				}
				mu.Unlock()
				if n%40 == 0 {
					waits.settle(d.Seq, 10)
				} else {
					waits.settle(d.Seq, 1)
				}
				if n%16 == w {
					a.retain()
				}
			}
		})
	}
	again, removed := 0, false
	for round := range 6 {
		mu.Lock()
		more := len(acked) + 300
		mu.Unlock()
		eventually(t, "deliveries", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) >= more })
		mu.Lock()
		before := clone(acked)
		mu.Unlock()
		there, copied := map[string]bool(nil), ""
		// A file that was written while it was copied is named as damaged, and copied again.
		eventually(t, "a copy without damage", func() bool {
			copied = t.TempDir()
			again += backUp(t, dir, copied)
			there = intact(t, copied, o, before)
			return there != nil
		})
		removed = removed || len(there) < len(before)
		b := mustOpen(t, copied, Options{NoIndex: true, SegmentBytes: 32 << 10, Encryption: o.Encryption})
		mu.Lock()
		for id, d := range before {
			if held[id] && !there[id] {
				t.Errorf("round %d: seq=%d waits and is not in the copy", round, d.Seq)
			}
		}
		mu.Unlock()
		mustAppend(t, b, testDelivery(1_000_000))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	end()
	if !removed {
		t.Fatal("retention removed nothing: this tests nothing")
	}
	t.Logf("%d deliveries; files went away %d times while they were copied", len(acked), again)
}

// intact lists what a copy has; nil where a record is damaged.
func intact(t *testing.T, dir string, o Options, acked map[string]*Delivery) map[string]bool {
	t.Helper()
	b := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 32 << 10, Encryption: o.Encryption})
	defer b.Close()
	there := map[string]bool{}
	for _, rec := range readAll(t, b.NewReader(0)) {
		if rec.Corrupt != nil {
			t.Logf("copied while it was written: %v", rec.Corrupt)
			return nil
		}
		if rec.Delivery == nil {
			continue
		}
		if there[rec.Delivery.ID] {
			t.Fatalf("seq=%d is there twice", rec.Seq)
		}
		there[rec.Delivery.ID] = true
		if want := acked[rec.Delivery.ID]; want != nil {
			sameDelivery(t, rec.Delivery, want)
		}
	}
	return there
}
