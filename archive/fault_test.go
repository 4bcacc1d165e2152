package archive

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if os.Getenv(childIndexes) != "" {
			childRebuild(dir)
		}
		childMain(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func seeded(t testing.TB) *rand.Rand {
	seed := firstSeed(t)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// eventually calls f until it is true: for what the background does.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// within receives from c, and ends the test where nothing comes: a build without the
// sync that a test waits for must fail, not hang.
func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not within 20 s", what)
	}
	return v
}

func TestFailedSyncPoisonsTheSegment(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	good := testDelivery(1)
	mustAppend(t, a, good)
	var once atomic.Bool
	var poisoned atomic.Value
	poisoned.Store("")
	disk.mu.Lock()
	disk.fail = func(op, name string, _ int) error {
		if strings.HasPrefix(op, "write") && name == poisoned.Load() {
			t.Errorf("%s is written after its sync failed", name)
		}
		if op == "sync" && strings.Contains(name, segmentsDir+"/0") && once.CompareAndSwap(false, true) {
			poisoned.Store(name)
			return errInjected
		}
		return nil
	}
	disk.mu.Unlock()
	bad := testDelivery(2)
	if err := a.Append(bad); !errors.Is(err, ErrUnavailable) || bad.Seq != 0 || bad.ID == "" {
		t.Fatalf("append with a failing sync: %v, seq=%d, id=%q", err, bad.Seq, bad.ID)
	}
	if _, err := a.Get(bad.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("what was refused is served: %v", err)
	}
	next := testDelivery(3)
	eventually(t, "serving again", func() bool { return a.Append(next) == nil })
	for life := range 3 {
		var got []string
		for _, rec := range readAll(t, a.NewReader(0)) {
			got = append(got, rec.Delivery.ID)
		}
		if len(got) != 2 || got[0] != good.ID || got[1] != next.ID {
			t.Fatalf("life %d: read %q, want %q and %q", life, got, good.ID, next.ID)
		}
		_ = a.Close()
		disk.fail = nil
		disk = disk.kill() // the page cache still has what was refused
		a = mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	}
}

// TestFailureFailsAllBehind: what was placed behind a batch whose sync fails, in the
// same segment or planned for the next, is refused with it and never served.
func TestFailureFailsAllBehind(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes, MaxWait: time.Hour})
	entered, let := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(let) })
	t.Cleanup(free) // before Close, which waits for what is blocked
	var once sync.Once
	var failed atomic.Bool
	disk.mu.Lock()
	disk.block = func(op, name string) {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) {
			once.Do(func() {
				close(entered)
				<-let
			})
		}
	}
	disk.fail = func(op, name string, _ int) error {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) && failed.CompareAndSwap(false, true) {
			return errInjected
		}
		return nil
	}
	disk.mu.Unlock()
	const behind = 30
	errs := make(chan error, behind+1)
	add := func(n int) { errs <- a.Append(kb(testDelivery(n), 2)) }
	go add(0)
	within(t, "the sync", entered)
	for n := range behind { // several segments full
		go add(n + 1)
	}
	eventually(t, "all are placed", func() bool { return a.log.placed() == behind+1 })
	free()
	for range behind + 1 {
		if err := within(t, "an answer", errs); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("append: %v", err)
		}
	}
	d := testDelivery(1000)
	eventually(t, "serving again", func() bool { return a.Append(d) == nil })
	if recs := readAll(t, a.NewReader(0)); len(recs) != 1 || recs[0].Delivery.ID != d.ID {
		t.Fatalf("%d records are served, 1 was acknowledged", len(recs))
	}
	if n := a.Stats().InFlightBytes; n != 0 {
		t.Fatalf("%d bytes are still on the books", n)
	}
}

// TestStateLeavesAFailedFile: after a failed sync the next commit writes a new file.
func TestStateLeavesAFailedFile(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	var fail atomic.Bool
	var created atomic.Int64
	disk.mu.Lock()
	disk.fail = func(op, name string, _ int) error {
		if op == "create" && filepath.Base(name) == stateNewName {
			created.Add(1)
		}
		if op == "sync" && filepath.Base(name) == stateName && fail.CompareAndSwap(true, false) {
			return errInjected
		}
		return nil
	}
	disk.mu.Unlock()
	fail.Store(true)
	if err := a.State().Commit(Change{"k", []byte("1")}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("commit with a failing sync: %v", err)
	}
	if _, ok := a.State().Get("k"); ok {
		t.Fatal("a failed commit is seen")
	}
	if err := a.State().Commit(Change{"k", []byte("2")}); err != nil || created.Load() != 1 {
		t.Fatalf("next commit: %v, %d new files", err, created.Load())
	}
}

// TestRefusedStaysRefused: the empty segment behind a poisoned one is all that says
// where that ended; starts that fail half-way must not bring back what was refused.
func TestRefusedStaysRefused(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	mustAppend(t, a, testDelivery(1))
	var once atomic.Bool
	disk.mu.Lock()
	disk.fail = func(op, name string, _ int) error {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) && once.CompareAndSwap(false, true) {
			return errInjected
		}
		return nil
	}
	disk.mu.Unlock()
	if err := a.Append(testDelivery(2)); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	eventually(t, "a new segment", func() bool { return a.Writable() == nil })
	for life := range 4 {
		_ = a.Close()
		disk.fail = nil
		disk = disk.kill()
		if life%2 == 0 {
			disk.fail = func(op, _ string, _ int) error {
				if op == "create" {
					return errInjected
				}
				return nil
			}
		}
		a = mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
		if recs := readAll(t, a.NewReader(0)); len(recs) != 1 {
			t.Fatalf("life %d: %d records, 1 was acknowledged", life, len(recs))
		}
	}
}

func TestNobodyReadsPastTheSyncedMark(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, MaxWait: time.Hour})
	mustAppend(t, a, testDelivery(1))
	synced := a.Synced()
	entered, let := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(let) })
	t.Cleanup(free) // before Close, which waits for what is blocked
	var once sync.Once
	disk.mu.Lock()
	disk.block = func(op, name string) {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) {
			once.Do(func() {
				close(entered)
				<-let
			})
		}
	}
	disk.mu.Unlock()
	d := testDelivery(2)
	done := make(chan error)
	go func() { done <- a.Append(d) }()
	within(t, "the sync", entered) // it is written, and in the page cache
	if recs := readAll(t, a.NewReader(0)); len(recs) != 1 {
		t.Errorf("%d records are read, 1 is synced", len(recs))
	}
	if a.Synced() != synced {
		t.Errorf("synced is %d before the sync returned", a.Synced())
	}
	if _, err := a.GetSeq(synced + 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("unsynced record is read: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("append returned before the sync: %v", err)
	default:
	}
	free()
	if err := within(t, "an answer", done); err != nil {
		t.Fatal(err)
	}
	if recs := readAll(t, a.NewReader(0)); len(recs) != 2 {
		t.Fatalf("%d records after the sync", len(recs))
	}
}

func TestHangingSyncAnswersInTime(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, MaxWait: 50 * time.Millisecond})
	let := make(chan struct{})
	free := sync.OnceFunc(func() { close(let) })
	t.Cleanup(free) // before Close, which waits for what is blocked
	var hang atomic.Bool
	disk.mu.Lock()
	disk.block = func(op, name string) {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) && hang.Load() {
			<-let
		}
	}
	disk.mu.Unlock()
	hang.Store(true)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := a.Append(testDelivery(n)); !errors.Is(err, ErrUnavailable) {
				t.Errorf("append while the sync hangs: %v", err)
			}
		})
	}
	wg.Wait() // returns at all: nobody waits for the sync
	if err := a.Writable(); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("writable while a sync hangs: %v", err)
	}
	hang.Store(false)
	free()
	d := testDelivery(99)
	eventually(t, "serving when the sync returned", func() bool { return a.Append(d) == nil })
	got, err := a.Get(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	sameDelivery(t, got, d)
}

// segmentFiles lists the segments of a log in a real directory.
func segmentFiles(t testing.TB, dir, log string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, log, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// placed counts the records that wait for their sync.
func (j *journal) placed() (n uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, b := range append([]*batch{j.committing, j.cur}, j.queue...) {
		if b != nil {
			n += b.count
		}
	}
	return n
}
