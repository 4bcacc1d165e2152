package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// However the records were cut into batches, restarts and crashes: the index of a log is
// one and the same.
func TestIndexRebuildEqualsIncremental(t *testing.T) {
	for seed := range uint64(4) {
		g := newFakeLogs(seed)
		g.run(1500)
		whole := memIndex(t)
		g.feed(t, whole, 1)
		want := dump(t, whole)

		fs, rng := vfs.NewMem(), rand.New(rand.NewPCG(seed, 2))
		share := 0.0
		for share < 1 {
			share = min(1, share+rng.Float64()/5)
			x := testIndex(t, "index", indexOptions{fs: fs, batchChanges: 1 + rng.IntN(40)})
			g.feed(t, x, share)
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
		}
		x := testIndex(t, "index", indexOptions{fs: fs})
		if got := dump(t, x); got != want {
			t.Fatalf("seed %d: rebuilt and incremental index differ at %s", seed, diffLine(want, got))
		}
	}
}

func TestIndexCrashLosesATailAndCatchesUp(t *testing.T) {
	lost := 0
	for seed := range uint64(8) {
		g := newFakeLogs(100 + seed)
		g.run(1200)
		whole := memIndex(t)
		g.feed(t, whole, 1)
		want := dump(t, whole)

		rng := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		share := 0.0
		for share < 1 {
			share = min(1, share+0.1+rng.Float64()/3)
			x := testIndex(t, "index", indexOptions{fs: fs, batchChanges: 1 + rng.IntN(100)})
			g.feed(t, x, share*rng.Float64())
			if rng.IntN(2) == 0 {
				if err := x.db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			g.feed(t, x, share)
			before := x.position(0)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
			fs = crashed
			y := testIndex(t, "index", indexOptions{fs: fs})
			if y.position(0) > before {
				t.Fatalf("position %d after the crash is ahead of %d", y.position(0), before)
			}
			if y.position(0) < before {
				lost++
			}
			if err := y.close(); err != nil {
				t.Fatal(err)
			}
		}
		x := testIndex(t, "index", indexOptions{fs: fs})
		g.feed(t, x, 1)
		if got := dump(t, x); got != want {
			t.Fatalf("seed %d: after crashes the index differs at %s", seed, diffLine(want, got))
		}
	}
	if lost == 0 {
		t.Fatal("no crash lost anything: the test tests nothing")
	}
}

// A follower that begins too early brings records that are applied already.
func TestIndexIgnoresWhatItHas(t *testing.T) {
	g := newFakeLogs(5)
	g.run(300)
	x := memIndex(t)
	g.feed(t, x, 1)
	want := dump(t, x)
	for _, records := range g.logs {
		// Only the first half: a delivery that came again must not lose its later outcomes.
		records = records[:len(records)/2]
		i := 0
		err := x.follow(t.Context(), func(context.Context) (Record, error) {
			if i == len(records) {
				return Record{}, errEnd
			}
			i++
			return records[i-1], nil
		})
		if !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
	}
	mark := g.add(0, Record{Marker: &Marker{}})
	g.feed(t, x, 1)
	if x.position(0) != mark {
		t.Fatalf("position = %d, want that of the marker %d", x.position(0), mark)
	}
	pos := fmt.Sprintf("%q=%q\n", posKey(0), uintValue(mark))
	got := dump(t, x)
	if strings.Replace(got, pos, "", 1) == got || len(got) != len(strings.Replace(got, pos, "", 1))+len(pos) {
		t.Fatal("position is not in the dump once")
	}
	strip := func(s string) string {
		var b strings.Builder
		for _, l := range strings.SplitAfter(s, "\n") {
			if !strings.HasPrefix(l, `"mpos`) {
				b.WriteString(l)
			}
		}
		return b.String()
	}
	if strip(got) != strip(want) {
		t.Fatalf("records applied twice changed the index at %s", diffLine(strip(want), strip(got)))
	}
}

func TestIndexIsRebuiltWhenItCannotBeUsed(t *testing.T) {
	g := newFakeLogs(6)
	g.run(200)
	f := func(name string, o indexOptions, damage func(fs vfs.FS)) {
		t.Helper()
		fs := vfs.NewMem()
		x := testIndex(t, "index", indexOptions{fs: fs})
		g.feed(t, x, 1)
		want := dump(t, x)
		if err := x.close(); err != nil {
			t.Fatal(err)
		}
		damage(fs)
		o.fs = fs
		y := testIndex(t, "index", o)
		if y.position(0) != 0 || y.position(1) != 0 {
			t.Fatalf("%s: position %d/%d, want an empty index", name, y.position(0), y.position(1))
		}
		g.feed(t, y, 1)
		if got := dump(t, y); got != want {
			t.Fatalf("%s: rebuilt index differs at %s", name, diffLine(want, got))
		}
	}
	overwrite := func(fs vfs.FS, prefix string) {
		names, err := fs.List("index")
		if err != nil {
			t.Fatal(err)
		}
		hit := false
		for _, n := range names {
			if strings.HasPrefix(n, prefix) {
				file, err := fs.Create("index/"+n, vfs.WriteCategoryUnspecified)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := file.Write([]byte("garbage")); err != nil {
					t.Fatal(err)
				}
				if err := file.Close(); err != nil {
					t.Fatal(err)
				}
				hit = true
			}
		}
		if !hit {
			t.Fatalf("no file %s* in %v", prefix, names)
		}
	}
	f("damaged manifest", indexOptions{}, func(fs vfs.FS) { overwrite(fs, "MANIFEST") })
	f("ahead of its log", indexOptions{Last: [2]uint64{3, 0}}, func(vfs.FS) {})
	f("marked", indexOptions{}, func(fs vfs.FS) {
		file, err := fs.Create("index/"+rebuildName, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	})
	f("other format", indexOptions{}, func(fs vfs.FS) {
		db, err := pebble.Open("index", &pebble.Options{FS: fs, Merger: indexMerger, Logger: pebbleLogger{&index{log: testIndex(t, "other", indexOptions{fs: fs}).log}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set(metaKey("format"), uintValue(indexFormat+1), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A full disk holds the index up, not the process; cured, it goes on.
func TestIndexSurvivesAFullDisk(t *testing.T) {
	var full errorfs.Toggle
	full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		return errorfs.ErrInjected
	})
	g := newFakeLogs(7)
	g.run(300)
	x := testIndex(t, "index", indexOptions{fs: errorfs.Wrap(vfs.NewMem(), &full)})
	g.feed(t, x, 0.5)
	full.On()
	if _, err := x.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.query(t.Context(), &Filter{}); err != nil {
		t.Fatalf("query while the disk is full: %v", err)
	}
	full.Off()
	g.feed(t, x, 1)
	compareRows(t, Filter{}, all(t, x, Filter{}), expect(buildModel(g), &Filter{}))
}

// brokenChild marks the process in which Pebble is broken: it leaves goroutines behind.
const brokenChild = "PENSTOCK_TEST_BROKEN_INDEX"

// Pebble ends the process when its manifest cannot be written; ours must live, refuse to
// search, give no evidence, close, and mark the index for a rebuild.
func TestIndexOutlivesPebble(t *testing.T) {
	if os.Getenv(brokenChild) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestIndexOutlivesPebble$") //nolint:gosec // this test itself
		c.Env = append(os.Environ(), brokenChild+"=1")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "outlived") {
			t.Fatalf("child: %v\n%s", err, out)
		}
		return
	}
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !strings.Contains(op.Path, "MANIFEST") {
			return nil
		}
		return errorfs.ErrInjected
	})
	mem := vfs.NewMem()
	g := newFakeLogs(7)
	g.run(300)
	x := testIndex(t, "index", indexOptions{fs: errorfs.Wrap(mem, &broken)})
	g.feed(t, x, 0.5)
	broken.On()
	go func() { _, _ = x.db.AsyncFlush() }()
	waitFor(t, "the index to notice", func() bool { return x.broken.Load() != nil })
	if _, err := x.query(t.Context(), &Filter{}); !errors.Is(err, ErrIndex) {
		t.Fatalf("query on a broken index: %v, want ErrIndex", err)
	}
	if _, ok := x.evidence(Identity{1}); ok {
		t.Fatal("a broken index gave evidence")
	}
	if (&Archive{index: x}).IndexReady() {
		t.Fatal("a broken index says that it is ready")
	}
	if err := x.close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the mark for a rebuild", func() bool {
		_, err := mem.Stat("index/" + rebuildName)
		return err == nil
	})
	fmt.Println("outlived")
	os.Exit(0)
}

func TestIndexEvidence(t *testing.T) {
	g := newFakeLogs(8)
	deliver := func(v Verdict) uint64 {
		d := &Delivery{ReceivedAt: fakeEpoch, Source: "stripe", Provider: "stripe", Verdict: v}
		log := 0
		if v == Rejected {
			log = 1
		}
		return g.add(log, Record{Delivery: d})
	}
	n := byte(0)
	outcome := func(seq uint64, kind OutcomeKind, replay string, id Identity) Outcome {
		n++
		o := &Outcome{Delivery: seq, Items: 1, Kind: kind, Replay: replay, Identity: id, Content: Identity{9, n},
			At: fakeEpoch.Add(time.Duration(n) * time.Hour), Sink: "kafka:c1"}
		g.add(0, Record{Outcome: o})
		return *o
	}
	first, second, refused := deliver(Accepted), deliver(Accepted), deliver(Rejected)
	published := outcome(first, Published, "", Identity{1})
	outcome(second, Duplicate, "", Identity{2})
	outcome(second, Held, "", Identity{3})
	outcome(second, Dead, "", Identity{4})
	outcome(second, Filtered, "", Identity{5})
	outcome(second, Published, "job", Identity{6})
	outcome(first, Published, "", Identity{7})
	again := outcome(second, Published, "", Identity{7})
	replayed := outcome(first, Published, "", Identity{8})
	outcome(second, Published, "job", Identity{8})
	outcome(second, Published, "", Identity{}) // proves nothing: it says nothing
	released := outcome(refused, Published, "", Identity{10})
	told := &Outcome{Delivery: second, Items: 1, Kind: Published, Identity: Identity{11}, Content: Identity{9, 99}, State: Identity{12},
		At: fakeEpoch.Add(time.Minute), Sink: "kafka:c1"}
	g.add(0, Record{Outcome: told})
	x := memIndex(t)
	g.feed(t, x, 1)

	a := &Archive{index: x}
	f := func(name string, id Identity, ok bool, of uint64, o Outcome) {
		t.Helper()
		delivery, content, at, got := a.Evidence(id)
		if got != ok {
			t.Fatalf("%s: evidence = %v, want %v", name, got, ok)
		}
		if !ok {
			return
		}
		if delivery != g.ids[of] || content != o.Content || !at.Equal(o.At) {
			t.Fatalf("%s: %s %x %s, want %s %x %s", name, delivery, content, at, g.ids[of], o.Content, o.At)
		}
	}
	f("published", Identity{1}, true, first, published)
	f("duplicate", Identity{2}, false, 0, Outcome{})
	f("held", Identity{3}, false, 0, Outcome{})
	f("dead", Identity{4}, false, 0, Outcome{})
	f("filtered", Identity{5}, false, 0, Outcome{})
	f("replay", Identity{6}, false, 0, Outcome{})
	f("published again after the window", Identity{7}, true, second, again)
	f("replay changes no evidence", Identity{8}, true, first, replayed)
	f("no identity", Identity{}, false, 0, Outcome{})
	f("released", Identity{10}, true, refused, released)
	f("never seen", Identity{200}, false, 0, Outcome{})
	f("event that tells a state", Identity{11}, true, second, *told)
	f("state, whatever the content", Identity{12}, true, second, Outcome{At: told.At})

	os, err := a.OutcomesOf(g.ids[second])
	if err != nil || len(os) != 9 {
		t.Fatalf("outcomes = %d, %v, want 9", len(os), err)
	}
	if last := os[len(os)-1]; last.State != told.State || last.Kind != Published || last.Content != told.Content {
		t.Fatalf("outcome = %+v, want %+v", last, told)
	}
	os, err = a.Outcomes(first)
	if err != nil || len(os) != 3 {
		t.Fatalf("outcomes = %d, %v, want 3", len(os), err)
	}
	want := published
	want.Fields = os[0].Fields
	if os[0] != want {
		t.Fatalf("outcome = %+v, want %+v", os[0], want)
	}
}

func TestIndexForget(t *testing.T) {
	g := newFakeLogs(9)
	g.run(3000)
	fs := vfs.NewMem()
	x := testIndex(t, "index", indexOptions{fs: fs})
	g.feed(t, x, 1)
	a := &Archive{index: x}
	floors := [2]uint64{g.seq[0] * 2 / 3, g.seq[1] / 2}
	x.forget(0, floors[0])
	x.forget(1, QuarantineBit|floors[1])
	for _, row := range all(t, x, Filter{Limit: 500}) {
		if r := makeRef(0, row.Seq); r.seq() < floors[r.log()] {
			t.Fatalf("row seq=%d of log %d is still listed below %d", r.seq(), r.log(), floors[r.log()])
		}
	}
	// What is left must be what an index of the kept records alone holds.
	kept := &fakeLogs{rng: g.rng, seq: g.seq, ids: g.ids}
	late := map[uint64]bool{}
	for log, records := range g.logs {
		for _, r := range records {
			switch {
			case r.Delivery != nil && r.Seq&^QuarantineBit < floors[log]:
				late[r.Seq] = true
			case r.Outcome != nil && late[r.Outcome.Delivery], r.Outcome != nil && makeRef(0, r.Outcome.Delivery).seq() < floors[makeRef(0, r.Outcome.Delivery).log()]:
			default:
				kept.logs[log] = append(kept.logs[log], r)
			}
		}
	}
	y := memIndex(t)
	kept.feed(t, y, 1)
	rows := func(x *index) string {
		s := ""
		for _, l := range strings.SplitAfter(dump(t, x), "\n") {
			// Evidence of a kept delivery may have been overwritten by one that is gone now.
			if !strings.HasPrefix(l, `"m`) && !strings.HasPrefix(l, `"e`) {
				s += l
			}
		}
		return s
	}
	want := rows(y)
	waitFor(t, "forgotten rows to be deleted", func() bool { return len(rows(x)) <= len(want) })
	if got := rows(x); got != want {
		t.Fatalf("after forgetting the index differs at %s", diffLine(want, got))
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvidence}, UpperBound: []byte{keyEvidence + 1}})
	if err != nil {
		t.Fatal(err)
	}
	proofs := 0
	for ok := it.First(); ok; ok = it.Next() {
		id := x.codec.opened(Identity(it.Key()[1:]))
		ev, _, err := x.readEvidence(id)
		if err != nil || ev.ref.seq() < floors[ev.ref.log()] {
			t.Fatalf("evidence of a forgotten delivery seq=%d is left, %v", ev.ref.seq(), err)
		}
		if _, _, _, ok := a.Evidence(id); !ok {
			t.Fatalf("evidence of a kept delivery seq=%d is not given", ev.ref.seq())
		}
		proofs++
	}
	if err := it.Close(); err != nil || proofs == 0 {
		t.Fatalf("%d proofs, %v", proofs, err)
	}
	if err := x.close(); err != nil {
		t.Fatal(err)
	}
	z := testIndex(t, "index", indexOptions{fs: fs})
	if got := rows(z); got != want || z.floor[0].Load() != floors[0] {
		t.Fatalf("after a restart the floor is %d (want %d)", z.floor[0].Load(), floors[0])
	}
}

func TestRowRoundTrip(t *testing.T) {
	g := newFakeLogs(10)
	g.run(500)
	x := memIndex(t)
	g.feed(t, x, 1)
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyRow}, UpperBound: []byte{keyRow + 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		e, err := decodeEntry(it.Value())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(appendEntry(nil, e), it.Value()) {
			t.Fatalf("row %s changed on its way through decode and encode", e.row.ID)
		}
		for cut := range it.Value() {
			if _, err := decodeEntry(it.Value()[:cut]); err == nil {
				t.Fatalf("row cut to %d of %d bytes was read", cut, len(it.Value()))
			}
		}
		n++
	}
	if n == 0 {
		t.Fatal("no rows")
	}
}
