package archive

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fullPump says what waits: some, and all from a seq on.
type fullPump struct {
	mu    sync.Mutex
	open  []uint64 // sorted
	young uint64
}

func (p *fullPump) keep() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) > 0 {
		return min(p.open[0], p.young)
	}
	return p.young
}

func (p *fullPump) waiting(from, to uint64) (list []uint64, ok bool) {
	if from&QuarantineBit != 0 {
		return nil, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.open {
		if s >= from && s <= to {
			list = append(list, s)
		}
	}
	for s := max(from, p.young); s <= to; s++ {
		list = append(list, s)
	}
	return list, true
}

func (p *fullPump) set(open []uint64, young uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.young = open, young
}

// fullCase is an archive on a disk that is full to the last byte: neither a segment nor the
// cursors can be written any more. Half of it is due.
type fullCase struct {
	t      *testing.T
	copies bool // there is something to copy in each segment
	disk   *crashFS
	pump   fullPump
	o      Options
	must   map[string]*Delivery
	held   []*Delivery
	n      int
	ops    map[string]int
}

func newFullCase(t *testing.T, copies bool) *fullCase {
	f := &fullCase{t: t, copies: copies, must: map[string]*Delivery{}, disk: newCrashFS(seeded(t)), ops: map[string]int{}}
	f.pump.set(nil, 1)
	f.o = Options{FS: f.disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, MaxWait: time.Hour,
		Retention: Retention{Size: 6 * minSegmentBytes}, Keep: f.pump.keep, Waiting: f.pump.waiting}
	a := mustOpen(t, worldDir, f.o)
	var all []*Delivery
	for range 180 {
		all = append(all, f.one(a, true))
	}
	done := make(chan struct{}) // footers and spares are written in the background
	if a.runLater(func() { close(done) }) {
		within(t, "the background", done)
	}
	f.disk.fill(0)
	for spare := true; spare; {
		if d := f.one(a, false); d != nil {
			all = append(all, d)
			continue
		}
		a.log.spares.mu.Lock()
		spare = len(a.log.spares.names) > a.log.spares.held
		a.log.spares.mu.Unlock()
	}
	for full := false; !full; {
		if err := a.State().Commit(Change{"pad", make([]byte, 1000)}); err != nil {
			if full = diskFull(err); !full {
				t.Fatal(err)
			}
		}
	}
	if copies {
		var open []uint64
		for _, d := range f.held {
			open = append(open, d.Seq)
		}
		f.pump.set(open, math.MaxInt64)
	} else {
		f.pump.set(nil, a.Synced()/2)
		f.held = nil
	}
	for _, d := range all {
		if copies && slices.Contains(f.held, d) || !copies && d.Seq >= a.Synced()/2 {
			f.must[d.ID] = d
		}
	}
	if len(f.must) < 10 {
		t.Fatalf("%d deliveries wait: this tests nothing", len(f.must))
	}
	f.disk = f.disk.kill()
	_ = a.Close()
	return f
}

// one appends a delivery, of the filling ones each tenth held; nil: the disk did not take it.
func (f *fullCase) one(a *Archive, must bool) *Delivery {
	f.t.Helper()
	f.n++
	d := kb(testDelivery(f.n), 1)
	err := a.Append(d)
	switch {
	case err == nil:
	case !must && errors.Is(err, ErrUnavailable):
		return nil
	default:
		f.t.Fatal(err)
	}
	if f.copies {
		kind := Published
		if f.n%10 == 3 {
			kind = Held
		}
		if err := a.AppendOutcomes(outcomeOf(d, kind)); err == nil && kind == Held {
			f.held = append(f.held, d)
		} else if err != nil && must {
			f.t.Fatal(err)
		}
	}
	return d
}

// clone gives a case of its own that begins the same.
func (f *fullCase) clone(seed uint64) *fullCase {
	c := &fullCase{t: f.t, copies: f.copies, must: map[string]*Delivery{}, held: f.held, n: f.n, ops: f.ops, disk: f.disk.clone(), o: f.o}
	c.disk.rng = rand.New(rand.NewPCG(seed, 3))
	c.pump.set(f.pump.open, f.pump.young)
	c.o.Keep, c.o.Waiting = c.pump.keep, c.pump.waiting
	for id, d := range f.must {
		c.must[id] = d
	}
	return c
}

// life opens the archive, lets retention work until deliveries are taken again, and begins a
// few segments, in the place of what was removed. After so many operations the machine is off;
// with aim they count from the first time that a file gets such a name.
func (f *fullCase) life(when, aim string, crashAt int, crash error) {
	f.t.Helper()
	disk := f.disk
	var mu sync.Mutex
	off := false
	from := 0
	disk.fail = func(op, name string, k int) error {
		mu.Lock()
		defer mu.Unlock()
		if from == 0 && (aim == "" || op == "rename" && strings.Contains(name, aim)) {
			from = k
		}
		for _, kind := range []string{"floor-", thinPrefix, usedPrefix, segmentSuffix} {
			if strings.Contains(name, kind) {
				f.ops[op+" "+kind]++
				break
			}
		}
		if off = off || from > 0 && crashAt > 0 && k-from >= crashAt-1; off {
			return crash
		}
		return nil
	}
	dead := func() bool { mu.Lock(); defer mu.Unlock(); return off }
	f.o.FS = disk
	a, err := Open(worldDir, f.o)
	if err != nil {
		if !dead() {
			f.t.Fatalf("%s: open: %v", when, err)
		}
		return
	}
	defer a.Close()
	if d := a.Damage(); len(d) > 0 && !dead() {
		f.t.Fatalf("%s: %q", when, d)
	}
	var mine []*Delivery
	// So few that what waits for several lives leaves room: a disk full of it is rightly full.
	for round := range 16 {
		var d *Delivery
		eventually(f.t, when+": deliveries are taken again", func() bool {
			if round%5 == 0 || d == nil {
				a.retain()
			}
			d = f.young(a)
			return d != nil || dead()
		})
		if d != nil {
			mine = append(mine, d)
			f.must[d.ID] = d
		}
	}
	if dead() {
		return
	}
	eventually(f.t, when+": the cursors are written again", func() bool { return a.State().Commit(Change{"k", []byte("v")}) == nil || dead() })
	f.verify(a, when, dead)
	if dead() {
		return
	}
	// All that is young is done; the next life's is not.
	for _, d := range mine {
		delete(f.must, d.ID)
	}
	if !f.copies {
		clear(f.must)
		f.pump.set(nil, a.Synced()+1)
	}
}

// young appends a delivery that waits.
func (f *fullCase) young(a *Archive) *Delivery {
	f.n++
	d := kb(testDelivery(f.n), 1)
	f.pump.mu.Lock()
	f.pump.young = min(f.pump.young, a.Synced()+1)
	f.pump.mu.Unlock()
	if a.Append(d) != nil {
		return nil
	}
	return d
}

func (f *fullCase) verify(a *Archive, when string, dead func() bool) {
	f.t.Helper()
	if f.copies {
		if err := heldThere(a, f.held); err != nil && !dead() {
			f.t.Fatalf("%s: %v", when, err)
		}
	}
	there := map[string]bool{}
	r := a.NewReader(0)
	defer r.Close()
	for {
		rec, ok, err := r.TryNext()
		if dead() {
			return
		}
		if err != nil || rec.Corrupt != nil {
			f.t.Fatalf("%s: %v", when, errors.Join(err, rec.Corrupt))
		}
		if !ok {
			break
		}
		if rec.Delivery == nil {
			continue
		}
		if there[rec.Delivery.ID] {
			f.t.Fatalf("%s: seq=%d is there twice", when, rec.Seq)
		}
		there[rec.Delivery.ID] = true
		if want := f.must[rec.Delivery.ID]; want != nil {
			sameDelivery(f.t, rec.Delivery, want)
		}
	}
	for id, d := range f.must {
		if !there[id] {
			f.t.Fatalf("%s: seq=%d waits and is lost", when, d.Seq)
		}
	}
}

// TestFullDiskCrashes: on a disk that is full to the last byte, the cursors among what cannot
// be written, retention removes what is due, copies what waits into a spare, and everything
// goes on by itself; wherever a crash meets it, and the lives after it, on the disk as full as
// it is: nothing that waits is lost, nothing that was removed is missed, and what a crash
// brings back goes.
func TestFullDiskCrashes(t *testing.T) {
	bases := []*fullCase{newFullCase(t, false), newFullCase(t, true)}
	first, all := firstSeed(t), crashes(t, 160)
	for total, seed := 0, first; total < all; seed++ {
		rng := rand.New(rand.NewPCG(seed, 4))
		f := bases[seed%2].clone(seed)
		for life := range 3 {
			total++
			when := fmt.Sprintf("seed %d, copies %t, life %d (%d of the run)", seed, f.copies, life, total)
			aim, crashAt := "", 0
			switch at := rng.IntN(6); {
			case life == 2 || at == 0:
			case at < 4:
				crashAt = 1 + rng.IntN([]int{20, 60, 150}[rng.IntN(3)])
			default: // a spare becomes what was copied; a note is moved
				aim, crashAt = []string{"/floor-", "/" + thinPrefix}[seed%2], 1+rng.IntN(12)
			}
			f.life(when, aim, crashAt, []error{errCrashed, errCrashedAfter}[rng.IntN(2)])
			f.disk.fail = nil
			if rng.IntN(3) == 0 {
				f.disk = f.disk.kill()
			} else {
				f.disk = f.disk.powerCut()
			}
			if res, err := check(f.disk, worldDir, nil); err != nil || !res.Sound() {
				t.Fatalf("%s: check: %v %q", when, err, res.Damage)
			}
		}
		f.life(fmt.Sprintf("seed %d, copies %t, last life (%d of the run)", seed, f.copies, total), "", 0, nil)
	}
	t.Log(bases[0].ops, bases[1].ops)
	for i, ops := range [][]string{{"rename floor-", "remove .seg", "rename used-"}, {"rename thin-", "truncate thin-", "remove .seg"}} {
		for _, op := range ops {
			if bases[i].ops[op] == 0 {
				t.Errorf("copies=%t: no %s: this tests nothing", i == 1, op)
			}
		}
	}
}

// TestFloorFile: the note in a file's name counts for its archive alone, whatever else lies
// there, and no segment ever gets a number below it.
func TestFloorFile(t *testing.T) {
	const id = 0xab
	for want, found := range map[uint64][]string{
		0:              {"floor-", "floor-5", floorName(0xcd, 9), floorName(id, 7)[:30], floorName(id, 7) + "x", segmentName(3)},
		7:              {floorName(id, 7), floorName(0xcd, 9)},
		9:              {floorName(id, 9), floorName(id, 7), floorName(id, 0)},
		math.MaxUint64: {floorName(id, math.MaxUint64)},
	} {
		n := floorFile{archive: id}
		n.find(found)
		if n.number != want || want > 0 && n.name != floorName(id, want) {
			t.Errorf("%q: %d %q, want %d", found, n.number, n.name, want)
		}
	}
	disk := newCrashFS(seeded(t))
	o := Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes}
	a := mustOpen(t, worldDir, o)
	a.retaining.Lock()
	err := a.log.noted.move(50, &a.log.spares) // as if segments and cursors were thrown away later
	a.retaining.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	for name := range disk.content() {
		if strings.HasSuffix(name, segmentSuffix) {
			if err := disk.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	acked := map[string]*Delivery{}
	for range 3 {
		a = mustOpen(t, worldDir, o)
		for i := range 40 {
			d := kb(testDelivery(i), 1)
			mustAppend(t, a, d)
			acked[d.ID] = d
		}
		verifyAcked(t, a, acked, 0, "after the files were thrown away")
		a.retain() // the cursors take it over
		if n := a.log.noted.number; n != 0 {
			t.Fatalf("the file still notes %d", n)
		}
		_ = a.Close()
	}
}
