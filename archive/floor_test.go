package archive

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
)

// fullOf fills the archive and then the disk under it, to the last byte: neither a segment nor
// the cursors can be written any more. It gives what was acknowledged.
func fullOf(t *testing.T, disk *crashFS, o Options, n int) (*Archive, map[string]*Delivery) {
	t.Helper()
	a := mustOpen(t, worldDir, o)
	acked := map[string]*Delivery{}
	for i := range n {
		d := kb(testDelivery(i), 1)
		mustAppend(t, a, d)
		acked[d.ID] = d
	}
	a.retain()
	done := make(chan struct{}) // footers and spares are written in the background
	if a.runLater(func() { close(done) }) {
		within(t, "the background", done)
	}
	disk.fill(0)
	for i := n; ; i++ {
		d := kb(testDelivery(i), 1)
		err := a.Append(d)
		if errors.Is(err, ErrUnavailable) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		acked[d.ID] = d
	}
	for i := 0; ; i++ {
		if err := a.State().Commit(Change{"pad", make([]byte, 1000)}); err != nil {
			if !diskFull(err) {
				t.Fatal(err)
			}
			return a, acked
		}
	}
}

// TestRetentionOnAFullDisk: on a disk that is full to the last byte, the cursors among what
// cannot be written, retention removes what is due, and everything goes on by itself; with a
// crash after every operation of it, on the disk as full as it is: nothing that is kept is
// lost, nothing that was removed is missed, and what a crash brings back goes.
func TestRetentionOnAFullDisk(t *testing.T) {
	var floor atomic.Uint64
	floor.Store(1)
	base := newCrashFS(seeded(t))
	o := Options{FS: base, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 6 * minSegmentBytes}, Keep: floor.Load}
	a, acked := fullOf(t, base, o, 200)
	keep := a.Synced() / 2
	spares := func(a *Archive) { // without them there is nothing to give away
		for _, j := range []*journal{a.log, a.quarantine.log} {
			for _, ok := j.spares.take(); ok; _, ok = j.spares.take() {
				t.Log("a spare was left")
			}
		}
	}
	spares(a)
	killed := base.kill()
	_ = a.Close()
	removed, crashed := 0, 0
	for n := 0; ; n++ { // 0: no crash
		for _, after := range []func(*crashFS) *crashFS{(*crashFS).kill, (*crashFS).powerCut} {
			disk := killed.clone()
			disk.rng = rand.New(rand.NewPCG(uint64(n), 3))
			floor.Store(1)
			o.FS = disk
			a := mustOpen(t, worldDir, o)
			if d := a.Damage(); len(d) > 0 {
				t.Fatalf("crash %d: before: %q", n, d)
			}
			before := a.First()
			floor.Store(keep)
			var ops atomic.Int64
			disk.mu.Lock()
			start := disk.ops
			disk.fail = func(_, _ string, k int) error {
				if ops.Store(int64(k - start)); n > 0 && k >= start+n {
					return errCrashed
				}
				return nil
			}
			disk.mu.Unlock()
			a.retain()
			if n == 0 {
				if a.First() <= before {
					t.Fatal("retention removes nothing on a full disk")
				}
				removed++
				d := kb(testDelivery(1_000_000), 1)
				eventually(t, "deliveries are taken again", func() bool { return a.Append(d) == nil })
				eventually(t, "the cursors are written again", func() bool { return a.State().Commit(Change{"k", []byte("v")}) == nil })
			}
			met := n > 0 && ops.Load() >= int64(n)
			if met {
				crashed++
			}
			if n == 0 {
				_ = a.Close()
			}
			disk.fail = nil
			next := after(disk)
			_ = a.Close()
			for life := range 2 {
				o.FS = next
				a := mustOpen(t, worldDir, o)
				when := fmt.Sprintf("crash at operation %d, life %d", n, life)
				if d := a.Damage(); len(d) > 0 {
					t.Fatalf("%s: %q", when, d)
				}
				a.retain()
				d := kb(testDelivery(2_000_000+life), 1)
				eventually(t, when+": deliveries are taken again", func() bool { return a.Append(d) == nil })
				verifyAcked(t, a, acked, keep, when) // what was carried over too: it was waiting for space
				_ = a.Close()
				next = next.powerCut()
			}
			if n > 0 && !met {
				if removed < 2 || crashed < 10 {
					t.Fatalf("%d times it was removed, %d crashes: this tests nothing", removed, crashed)
				}
				return
			}
		}
	}
}

// TestFloorOfFile: the note in a file's name counts for its archive alone, whatever else lies
// there, and no segment ever gets a number below it.
func TestFloorOfFile(t *testing.T) {
	const id = 0xab
	for want, found := range map[uint64][]string{
		0:              {"floor-", "floor-5", floorName(0xcd, 9), floorName(id, 7)[:30], floorName(id, 7) + "x", segmentName(3)},
		7:              {floorName(id, 7), floorName(0xcd, 9)},
		9:              {floorName(id, 9), floorName(id, 7), floorName(id, 0)},
		math.MaxUint64: {floorName(id, math.MaxUint64)},
	} {
		if got, name := floorOf(found, id); got != want || want > 0 && name != floorName(id, want) {
			t.Errorf("%q: %d %q, want %d", found, got, name, want)
		}
	}
	disk := newCrashFS(seeded(t))
	o := Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes}
	a := mustOpen(t, worldDir, o)
	if err := a.log.moveFloor(50); err != nil { // as if segments and cursors were thrown away later
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
		_ = a.Close()
	}
}
