package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"
)

// world is what a run of lives knows: what was promised and what was tried.
type world struct {
	t     testing.TB
	seed  uint64
	rng   *rand.Rand
	fs    *crashFS
	tried map[string]*Delivery // by body: everything that was given to Append
	acked map[string]*Delivery // by body: what Append returned nil for
	n     int

	stateTried, stateAcked int // the value of the key "n"
	crashes, before        int // of this disk, of the run before it
	sealed                 bool
}

const worldDir = "/a"

func newWorld(t testing.TB, seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	return &world{t: t, seed: seed, rng: rng, fs: newCrashFS(rand.New(rand.NewPCG(seed, 9))), tried: map[string]*Delivery{}, acked: map[string]*Delivery{}}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, crash %d (%d of the run): %s", w.seed, w.crashes, w.before+w.crashes, fmt.Sprintf(format, args...))
}

func (w *world) options() Options {
	o := Options{FS: w.fs, NoIndex: true, SegmentBytes: minSegmentBytes}
	if w.sealed {
		o.Encryption = &Encryption{Key: testKey(1)}
	}
	return o
}

// randomCalls is how many calls of each operation nearly every life of TestCrashes has.
var randomCalls = map[string]int{"create": 2, "write": 9, "sync": 9, "truncate": 1, "rename": 4, "remove": 1, "syncdir": 4}

// life opens the archive, checks every promise, makes new ones, and ends in a crash, a
// kill or a close. Two of three lives aim at a cell of the table of faults, each at the
// next one.
func (w *world) life() {
	crashAt := 1 + w.rng.IntN(120)
	if w.rng.IntN(4) == 0 {
		crashAt = 1 + w.rng.IntN(16) // in the recovery itself
	}
	crash := []error{errCrashed, errCrashedAfter}[w.rng.IntN(2)]
	var aim cell
	at := 0 // the call of aim that is failed
	if w.rng.IntN(3) > 0 {
		all := everyCell(randomCalls)
		aim = all[(int(w.seed)*lives+w.crashes)%len(all)]
		at = cellBuckets[aim.bucket] + w.rng.IntN(cellBuckets[aim.bucket+1]-cellBuckets[aim.bucket])
		crashAt += 120
	}
	faults := w.rng.IntN(3) == 0
	rng, calls := rand.New(rand.NewPCG(w.seed, uint64(w.crashes))), 0
	w.lifeUntil(func(op string, n int) error {
		if op == aim.op {
			if calls++; calls == at {
				return aim.fault
			}
		}
		if n >= crashAt {
			return crash
		}
		if faults && rng.IntN(25) == 0 {
			if f := cellFaults[rng.IntN(3)]; !errors.Is(f, errShort) || op == "write" {
				return f
			}
		}
		return nil
	}, w.rng.IntN(3) == 0)
}

// lifeUntil is a life whose operations fail as fault says, and which ends in a kill or a
// power cut.
func (w *world) lifeUntil(fault func(op string, n int) error, kill bool) {
	w.crashes++
	var one sync.Mutex
	w.fs.fail = func(op, _ string, n int) error {
		one.Lock()
		defer one.Unlock()
		return fault(op, n)
	}
	a, err := Open(worldDir, w.options())
	if err == nil {
		w.check(a)
		w.work(a)
		if w.rng.IntN(4) == 0 {
			w.letPack(a)
		}
		_ = a.Close()
	} else if !isFault(err) {
		w.fatalf("open: %v", err)
	}
	w.fs.fail = nil
	if kill {
		w.fs = w.fs.kill()
	} else {
		w.fs = w.fs.powerCut()
	}
}

// letPack gives the packer a moment; a busy one would wait for long.
func (w *world) letPack(a *Archive) {
	for range 20 {
		if _, all := packed(a); all || w.off() {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// work appends from several goroutines until something fails or enough is done.
func (w *world) work(a *Archive) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 1 + w.rng.IntN(3) {
		lot := make([]*Delivery, 1+w.rng.IntN(30))
		for i := range lot {
			w.n++
			lot[i] = testDelivery(w.n)
			if w.rng.IntN(10) == 0 {
				lot[i].Body = append(lot[i].Body, make([]byte, w.rng.IntN(6000))...)
			}
			w.tried[string(lot[i].Body)] = lot[i]
		}
		wg.Go(func() {
			for _, d := range lot {
				err := a.Append(d)
				if err == nil {
					mu.Lock()
					w.acked[string(d.Body)] = d
					mu.Unlock()
				}
				if errors.Is(err, ErrUnavailable) && w.off() {
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			w.stateTried++
			if err := a.State().Commit(Change{"n", fmt.Append(nil, w.stateTried)}, Change{"m", fmt.Append(nil, w.stateTried)}); err == nil {
				w.stateAcked = w.stateTried
			}
		}
	})
	wg.Wait()
}

func (w *world) off() bool {
	w.fs.mu.Lock()
	defer w.fs.mu.Unlock()
	return w.fs.dead
}

// check holds the archive against what was promised. When the machine goes off in the
// middle of it, the next life checks again.
func (w *world) check(a *Archive) {
	w.t.Helper()
	// What recovery carries over is there when the disk takes it.
	for a.Writable() != nil && !w.off() {
		time.Sleep(time.Millisecond)
	}
	if d := a.Damage(); len(d) > 0 && !w.off() {
		w.fatalf("a crash is taken for damage: %q", d)
	}
	seen := map[string]bool{}
	r := a.NewReader(0)
	defer r.Close()
	var last uint64
	for {
		rec, ok, err := r.TryNext()
		if w.off() {
			return
		}
		if err != nil {
			w.fatalf("read: %v", err)
		}
		if !ok {
			break
		}
		if rec.Corrupt != nil {
			w.fatalf("corrupt: %v", rec.Corrupt)
		}
		if rec.Seq <= last {
			w.fatalf("seq %d after %d", rec.Seq, last)
		}
		last = rec.Seq
		body := string(rec.Delivery.Body)
		want := w.tried[body]
		if want == nil || seen[body] {
			w.fatalf("seq %d was never appended, or is there twice: %q", rec.Seq, body)
		}
		seen[body] = true
		if ack := w.acked[body]; ack != nil && !reflect.DeepEqual(rec.Delivery, ack) {
			w.fatalf("altered:\n got %+v\nwant %+v", rec.Delivery, ack)
		}
	}
	for body, d := range w.acked {
		if !seen[body] {
			w.fatalf("acknowledged delivery seq=%d is lost (synced %d)", d.Seq, a.Synced())
		}
	}
	for _, d := range w.acked { // any few
		got, err := a.Get(d.ID)
		if w.off() {
			return
		}
		if err != nil || !reflect.DeepEqual(got, d) {
			w.fatalf("get %s: %v", d.ID, err)
		}
		if w.rng.IntN(8) == 0 {
			break
		}
	}
	w.checkState(a.State())
}

func (w *world) checkState(s *State) {
	w.t.Helper()
	n, m := 0, 0
	if v, ok := s.Get("n"); ok {
		n, _ = strconv.Atoi(string(v))
	}
	if v, ok := s.Get("m"); ok {
		m, _ = strconv.Atoi(string(v))
	}
	if n != m {
		w.fatalf("half a commit: %d, %d", n, m)
	}
	if n < w.stateAcked || n > w.stateTried {
		w.fatalf("state is %d, acknowledged %d, tried %d", n, w.stateAcked, w.stateTried)
	}
}

// crashes gives how many crashes a test simulates: PENSTOCK_CRASHES, or few enough for
// every run.
func crashes(t testing.TB, def int) int {
	v := os.Getenv("PENSTOCK_CRASHES")
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("PENSTOCK_CRASHES=%q: %v", v, err)
	}
	return n
}

func firstSeed(t testing.TB) uint64 {
	v := os.Getenv("PENSTOCK_SEED")
	if v == "" {
		return 1
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("PENSTOCK_SEED=%q: %v", v, err)
	}
	return n
}

const (
	lives        = 8 // of one disk
	crashesOfRun = 1600
)

// TestCrashes: every acknowledged record is found once and intact after any crash, in
// recovery too, with and without failing disks; a crash is never taken for damage. The table
// that -v prints has no empty cell.
func TestCrashes(t *testing.T) {
	hits, all := newCells(), crashes(t, crashesOfRun)
	for seed, total := firstSeed(t), all; total > 0; seed++ {
		w := newWorld(t, seed)
		w.fs.cells, w.before = hits, all-total
		for range lives {
			w.life()
			total--
		}
		w.last()
	}
	if all >= crashesOfRun { // fewer do not get everywhere
		hits.require(t, randomCalls, "few lives have that call")
	}
}

// last is a life in which nothing fails.
func (w *world) last() {
	w.t.Helper()
	w.fs.fail = nil
	a, err := Open(worldDir, w.options())
	if err != nil {
		w.fatalf("last open: %v", err)
	}
	w.check(a)
	if err := a.Close(); err != nil {
		w.fatalf("close: %v", err)
	}
}
