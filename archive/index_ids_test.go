package archive

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestBucket(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 1))
	for n := range 100 {
		g := &ids{most: 1000}
		want := map[uint64][]order{}
		var places []uint32
		for range n {
			k := valueKey{field: byOrderID, kind: unique, hash: uint64(rng.IntN(20))}
			o := makeOrder(fakeEpoch.Add(time.Duration(rng.Int64N(1<<50)-1<<49)), makeRef(rng.IntN(2), rng.Uint64()>>(17+rng.IntN(40))))
			if !g.post(k, o) {
				t.Fatal("an id was not taken")
			}
			want[k.idMix()] = append(want[k.idMix()], o)
			places = append(places, uint32(len(places))) //nolint:gosec // at most 100
		}
		half := len(places) / 2
		b := g.appendIDs(g.appendIDs(nil, places[:half]), places[half:])
		for mix, orders := range want {
			got, err := readIDs(nil, mix, b)
			if err != nil || !slices.Equal(got, orders) {
				t.Fatalf("%d places came back as %d, %v", len(orders), len(got), err)
			}
			if _, err := readIDs(nil, mix, b[:len(b)-1]); err == nil {
				t.Fatal("a bucket that is cut short was read")
			}
		}
		if got, err := readIDs(nil, 1<<63, b); err != nil || len(got) > 0 {
			t.Fatalf("an unknown id has %d places, %v", len(got), err)
		}
	}
	for _, b := range [][]byte{{0x80}, {1}, {1, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 0x80}, {1, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 1, 0}, {1, 0, 0, 0, 0, 0, 0, 1}} {
		if _, err := readIDs(nil, 0, b); err == nil {
			t.Errorf("% x was read", b)
		}
	}
}

// What is called an id and stands in half of the deliveries goes to blocks, before and after
// a restart, and is found in both.
func TestCommonIDs(t *testing.T) {
	g := newFakeLogs(23)
	g.run(3000)
	for _, most := range []uint16{1, 3, 40} {
		fs := vfs.NewMem()
		o := indexOptions{fs: fs, batchChanges: 40, shelfIDs: 300, shelfSame: most}
		x := testIndex(t, "index", o)
		g.feed(t, x, 0.5)
		if err := x.close(); err != nil {
			t.Fatal(err)
		}
		x = testIndex(t, "index", o)
		g.feed(t, x, 1)
		for n := range 40 {
			f := Filter{OrderID: fmt.Sprintf("Order:%d", n)}
			compareRows(t, f, all(t, x, f), expect(buildModel(g), &f))
			f.Source, f.From, f.To = "stripe", fakeEpoch.Add(5*time.Minute), fakeEpoch.Add(30*time.Minute)
			compareRows(t, f, all(t, x, f), expect(buildModel(g), &f))
		}
	}
}

func shelvesOf(t *testing.T, x *index) (all []shelf) {
	t.Helper()
	it, err := x.db.NewIter(shelfBounds())
	if err != nil {
		t.Fatal(err)
	}
	if err := eachShelf(it, func(s shelf) bool { all = append(all, s); return true }); err != nil {
		t.Fatal(err)
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// Shelves of whose times no row is left go with their buckets; one row keeps no more than
// its own.
func TestShelvesAreForgotten(t *testing.T) {
	g := newFakeLogs(29)
	g.run(4000)
	x := testIndex(t, "index", indexOptions{fs: vfs.NewMem(), batchChanges: 50, shelfIDs: 200})
	g.feed(t, x, 1)
	before := shelvesOf(t, x)
	x.forget(0, g.seq[0]*3/4)
	x.forget(1, g.seq[1]*3/4)
	left := func() []shelf {
		return slices.DeleteFunc(slices.Clone(before), func(s shelf) bool {
			any, err := hasRows(x.db, s.newest, s.oldest)
			return err == nil && !any
		})
	}
	waitFor(t, "old shelves to be deleted", func() bool {
		o, found, err := oldestRow(x.db)
		return err == nil && found && !x.forgotten(o.ref()) && len(shelvesOf(t, x)) == len(left())
	})
	if n := len(left()); n == 0 || n > len(before)/2 {
		t.Fatalf("%d shelves of %d are left", n, len(before))
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyBucket}, UpperBound: []byte{keyBucket + 1}})
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for ok := it.First(); ok; ok = it.Next() {
		kept[string(it.Key()[1:5])] = true
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	if len(kept) != len(left()) {
		t.Fatalf("buckets of %d shelves are left, want %d", len(kept), len(left()))
	}
	f := Filter{OrderID: "Order:7"}
	compareRows(t, f, all(t, x, f), slices.DeleteFunc(expect(buildModel(g), &f), func(r Row) bool { return x.forgotten(makeRef(0, r.Seq)) }))
}
