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

// backUp copies an archive as docs/backup.md says: cursors, then both logs, then the
// keyring. What goes away meanwhile was not needed any more.
func backUp(t *testing.T, from, to string) {
	t.Helper()
	for _, part := range []string{stateName, segmentsDir, quarantineDir, keyringName, keyringCopy} {
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
		copied := t.TempDir()
		backUp(t, dir, copied)
		if res, err := Check(copied, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("round %d: the copy: %v %q", round, err, res.Damage)
		}
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
