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
	for n := range 400 {
		ws := [...]windows{narrow, wide}[n%2]
		var places []order
		at := fakeEpoch.Add(time.Duration(rng.IntN(1_000_000)) * time.Hour)
		first := makeOrder(at, 0)
		window := ws.of(first[:])
		for range n / 2 {
			o := makeOrder(at.Add(time.Duration(rng.Int64N(1<<(ws.bits-10)))), makeRef(rng.IntN(2), rng.Uint64()>>(17+rng.IntN(40))))
			if ws.of(o[:]) == window {
				places = append(places, o)
			}
		}
		slices.SortFunc(places, func(a, b order) int { return slices.Compare(a[:], b[:]) })
		b := ws.appendPlaces(nil, places)
		got, err := ws.readPlaces(nil, window, b)
		if err != nil || !slices.Equal(got, places) {
			t.Fatalf("%d places came back as %d, %v", len(places), len(got), err)
		}
		if len(b) > 0 {
			if got, err := ws.readPlaces(nil, window, b[:len(b)-1]); err == nil && len(got) >= len(places) {
				t.Fatal("a block that is cut short was read whole")
			}
		}
	}
	for _, b := range [][]byte{{0x80}, {1}, {1, 0x80}, {0, 1}} {
		if _, err := narrow.readPlaces(nil, 7, b); err == nil {
			t.Errorf("% x was read", b)
		}
	}
}

// Few rows of a long time share a wide window; what came within seconds, or is too much to be
// read for one row, does not.
func TestWidths(t *testing.T) {
	every := func(n int, apart time.Duration) (places []order) {
		for i := range n {
			places = append(places, makeOrder(fakeEpoch.Add(-time.Duration(i)*apart), ref(i)))
		}
		return places
	}
	for _, c := range []struct {
		places []order
		want   windows
	}{
		{every(1, 0), narrow},
		{every(2, time.Second), narrow},
		{every(5000, 400*time.Millisecond/5000), narrow}, // a batch of a busy gateway
		{every(2, time.Minute), wide},
		{every(200, time.Second), wide},
		{every(2000, 100*time.Millisecond), wide},
		{every(2000, 20*time.Millisecond), narrow}, // 55 in each second
	} {
		if got := widths(c.places); got != c.want {
			t.Errorf("%d places from %x to %x: %c, want %c", len(c.places), c.places[0], c.places[len(c.places)-1], got.kind, c.want.kind)
		}
	}
}

// A log that is read from its beginning needs few blocks for rows of a long time, and what is
// found is the same as with a batch for each.
func TestWideWindows(t *testing.T) {
	g := newFakeLogs(23)
	g.run(3000)
	blocks := func(batch int) (kinds map[byte]int, x *index) {
		x = testIndex(t, "index", indexOptions{fs: vfs.NewMem(), batchChanges: batch})
		g.feed(t, x, 1)
		kinds = map[byte]int{}
		it, err := x.db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			kinds[it.Key()[0]]++
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		return kinds, x
	}
	one, x1 := blocks(1)
	many, x := blocks(1000)
	if one[keyWide] > 0 || many[keyWide] == 0 || many[keyWide]+many[keyBlock] > one[keyBlock]/10 {
		t.Errorf("%d narrow and %d wide, one by one %d and %d", many[keyBlock], many[keyWide], one[keyBlock], one[keyWide])
	}
	for _, f := range []Filter{{Source: "stripe", Limit: 500}, {Source: "stripe", Status: "success", Limit: 500}, {Type: "payment.captured", Limit: 100}} {
		compareRows(t, f, all(t, x, f), all(t, x1, f))
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
	left := func(ws windows) (n int, oldest uint64) {
		it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{ws.kind}, UpperBound: []byte{ws.kind + 1}})
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
	before, _ := left(narrow)
	beforeWide, _ := left(wide)
	x.forget(0, g.seq[0]*3/4)
	x.forget(1, g.seq[1]*3/4)
	waitFor(t, "old blocks to be deleted", func() bool {
		o, found, err := oldestRow(x.db)
		n, oldest := left(narrow)
		m, oldestWide := left(wide)
		return err == nil && found && !x.forgotten(o.ref()) && oldest <= narrow.of(o[:]) && n < before/2 &&
			oldestWide <= wide.of(o[:]) && m < beforeWide/2
	})
	compareRows(t, Filter{Source: "stripe", Limit: 500}, all(t, x, Filter{Source: "stripe", Limit: 500}),
		slices.DeleteFunc(expect(buildModel(g), &Filter{Source: "stripe"}), func(r Row) bool { return x.forgotten(makeRef(0, r.Seq)) }))
}
