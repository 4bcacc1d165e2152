package archive

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestPostingBlock(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range 200 {
		var places []order
		at := fakeEpoch.Add(time.Duration(rng.IntN(1_000_000)) * time.Hour)
		first := makeOrder(at, 0)
		window := windowOf(first[:])
		for range n {
			o := makeOrder(at.Add(time.Duration(rng.IntN(1<<20))), makeRef(rng.IntN(2), rng.Uint64()>>(17+rng.IntN(40))))
			if windowOf(o[:]) == window {
				places = append(places, o)
			}
		}
		slices.SortFunc(places, func(a, b order) int { return slices.Compare(a[:], b[:]) })
		b := appendPlaces(nil, places)
		got, err := readPlaces(nil, window, b)
		if err != nil || !slices.Equal(got, places) {
			t.Fatalf("%d places came back as %d, %v", len(places), len(got), err)
		}
		if len(b) > 0 {
			if got, err := readPlaces(nil, window, b[:len(b)-1]); err == nil && len(got) >= len(places) {
				t.Fatal("a block that is cut short was read whole")
			}
		}
	}
	for _, b := range [][]byte{{0x80}, {1}, {1, 0x80}, {0, 1}} {
		if _, err := readPlaces(nil, 7, b); err == nil {
			t.Errorf("% x was read", b)
		}
	}
}

func TestTimeBlock(t *testing.T) {
	x := memIndex(t)
	want := map[ref]int64{}
	rng := rand.New(rand.NewPCG(2, 1))
	var next [2]uint64
	for range 20 {
		g := blocks{posts: map[valueKey][]order{}}
		for range 1 + rng.IntN(10) {
			log := rng.IntN(2)
			next[log] += 1 + uint64(rng.IntN(3))
			at := fakeEpoch.Add(time.Duration(rng.IntN(1000)-500) * time.Millisecond)
			g.time(makeRef(log, next[log]), at)
			want[makeRef(log, next[log])] = at.UnixNano()
		}
		batch := x.db.NewBatch()
		if err := g.put(batch, 1); err != nil {
			t.Fatal(err)
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	for log := range next {
		var all []ref
		for seq := range next[log] + 3 {
			r := makeRef(log, seq)
			at, found, err := receivedAt(x.db, r)
			if w, ok := want[r]; err != nil || found != ok || at != w {
				t.Fatalf("log %d seq %d: %d %v, %v, want %d %v", log, seq, at, found, err, w, ok)
			}
			if found {
				all = append(all, r)
			}
		}
		for _, step := range []int{1, 3, 1000} {
			var got []ref
			for first := makeRef(log, 0); ; {
				refs, err := refsFrom(x.db, first, makeRef(log, next[log]), step)
				if err != nil || len(refs) > step {
					t.Fatalf("%d refs, %v", len(refs), err)
				}
				got = append(got, refs...)
				if len(refs) < step {
					break
				}
				first = refs[len(refs)-1] + 1
			}
			if want := all[:len(all)-1]; !slices.Equal(got, want) { // the end is not included
				t.Fatalf("log %d by %d: %d deliveries, want %d", log, step, len(got), len(want))
			}
		}
	}
	if err := eachTime(5, []byte{9, 1}, func(ref, int64) bool { return true }); err == nil {
		t.Error("a block that reaches below zero was read")
	}
}

// Blocks of a time from which no row is left go, and no other.
func TestBlocksAreForgotten(t *testing.T) {
	g := newFakeLogs(19)
	g.run(4000)
	x := testIndex(t, "index", indexOptions{fs: vfs.NewMem(), batchChanges: 50})
	g.feed(t, x, 1)
	windows := func() (n int, oldest uint64) {
		it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyBlock}, UpperBound: []byte{keyBlock + 1}})
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			n++
			oldest = max(oldest, binary.BigEndian.Uint64(it.Key()[valuePrefixSize:]))
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		return n, oldest
	}
	before, _ := windows()
	x.forget(0, g.seq[0]*3/4)
	x.forget(1, g.seq[1]*3/4)
	waitFor(t, "old blocks to be deleted", func() bool {
		o, found, err := oldestRow(x.db)
		n, oldest := windows()
		return err == nil && found && !x.forgotten(o.ref()) && oldest <= windowOf(o[:]) && n < before/2
	})
	compareRows(t, Filter{Source: "stripe", Limit: 500}, all(t, x, Filter{Source: "stripe", Limit: 500}),
		slices.DeleteFunc(expect(buildModel(g), &Filter{Source: "stripe"}), func(r Row) bool { return x.forgotten(makeRef(0, r.Seq)) }))
}
