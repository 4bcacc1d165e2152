package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// reseal computes the checksum of a header block again.
func reseal(block []byte) {
	binary.LittleEndian.PutUint32(block[headerSize-4:], crc32.Checksum(block[:headerSize-4], castagnoli))
	copy(block[headerCopy:], block[:headerSize])
}

// clock is a time that the test moves.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(1_790_000_000_000_000_000)
	return c
}

func (c *clock) now() time.Time        { return time.Unix(0, c.ns.Load()) }
func (c *clock) add(d time.Duration)   { c.ns.Add(int64(d)) }
func kb(d *Delivery, n int) *Delivery  { d.Body = bytes.Repeat([]byte("k"), n<<10); return d }
func rejected(n int) *Delivery         { d := testDelivery(n); d.Reason = "signature_mismatch"; return d }
func files(t *testing.T, d string) int { return len(segmentFiles(t, d, segmentsDir)) }

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	var keep atomic.Uint64
	keep.Store(1)
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Hour}, Keep: keep.Load})
	var ds []*Delivery
	for n := range 40 {
		d := kb(testDelivery(n), 2)
		mustAppend(t, a, d)
		ds = append(ds, d)
		c.add(time.Minute)
	}
	before := files(t, dir)
	a.retain()
	if files(t, dir) != before {
		t.Fatal("young segments were removed")
	}
	c.add(time.Hour)
	a.retain()
	if files(t, dir) != before {
		t.Fatal("segments that are still needed were removed")
	}
	r := a.NewReader(0) // stands in the oldest segment
	defer r.Close()
	if _, ok, err := r.TryNext(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	keep.Store(ds[20].Seq)
	a.retain()
	first := a.First()
	if files(t, dir) >= before || first > ds[20].Seq || first <= ds[0].Seq {
		t.Fatalf("%d of %d segments, first is %d, needed is %d", files(t, dir), before, first, ds[20].Seq)
	}
	for _, d := range ds {
		got, err := a.Get(d.ID)
		if d.Seq < first {
			if !errors.Is(err, ErrNotFound) {
				t.Fatalf("removed seq=%d: %v", d.Seq, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("kept seq=%d: %v", d.Seq, err)
		}
		sameDelivery(t, got, d)
	}
	// The reader has its segment to the end, and then what is kept; it reports no damage.
	for {
		rec, ok, err := r.TryNext()
		if err != nil || rec.Corrupt != nil {
			t.Fatal(err, rec.Corrupt)
		}
		if !ok {
			break
		}
		sameDelivery(t, rec.Delivery, ds[(rec.Seq-ds[0].Seq)-skipped(ds, rec.Seq)])
	}
	_ = a.Close()
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("after retention: %v %q", err, res.Damage)
	}
	a = mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes})
	if len(a.Damage()) > 0 || a.First() != first {
		t.Fatalf("after a restart: first %d, want %d; %q", a.First(), first, a.Damage())
	}
}

// skipped counts the seqs below seq that no record has.
func skipped(ds []*Delivery, seq uint64) uint64 {
	for i, d := range ds {
		if d.Seq == seq {
			return seq - ds[0].Seq - uint64(i)
		}
	}
	return 0
}

// TestRecycling: the files of removed segments are used again, packed or not, and nothing of
// their former life is ever read.
func TestRecycling(t *testing.T) {
	for _, noPack := range []bool{true, false} {
		t.Run(fmt.Sprintf("noPack=%t", noPack), func(t *testing.T) { testRecycling(t, noPack) })
	}
}

func testRecycling(t *testing.T, noPack bool) {
	dir := t.TempDir()
	acked := make(map[string]*Delivery)
	for life := range 4 {
		a := mustOpen(t, dir, Options{NoIndex: true, NoPack: noPack, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 64 << 10}})
		// A removed file is no spare where new ones were prepared before it, or while its
		// footer is being written: that is a matter of moments, so it goes on until it was.
		recycled := func() bool {
			a.log.segMu.RLock()
			defer a.log.segMu.RUnlock()
			return slices.ContainsFunc(a.log.segs, func(s *segment) bool { return s.head.recycled })
		}
		again := false
		for n := 0; n < 100 || !again; n++ {
			if n == 5000 {
				t.Fatal("no file was used again")
			}
			d := kb(testDelivery(life*10_000+n), 1)
			mustAppend(t, a, d)
			acked[d.ID] = d
			if n%5 == 0 {
				a.retain()
			}
			again = again || recycled()
		}
		verifyAcked(t, a, acked, a.First(), fmt.Sprintf("life %d", life))
		_ = a.Close()
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("life %d: %v %q", life, err, res.Damage)
		}
		if torn, _ := filepath.Glob(filepath.Join(dir, segmentsDir, "*"+tornSuffix)); len(torn) > 0 {
			t.Fatalf("life %d: a former life is taken for a torn write: %q", life, torn)
		}
	}
}

func TestPendingSinkHoldsEverything(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 1},
		PendingSink: func() bool { return true }})
	for n := range 20 {
		mustAppend(t, a, kb(testDelivery(n), 2))
	}
	a.retain()
	if a.First() > 2 {
		t.Fatalf("removed before the sink said what it has: first is %d", a.First())
	}
}

func TestQuarantineBudget(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true, Quarantine: Quarantine{Size: 256 << 10}})
	q := a.quarantine.log
	for n := range 200 {
		d := kb(rejected(n), 4)
		d.Source = fmt.Sprintf("source-%d", n) // each has a share of its own
		if _, err := a.Reject(d); err != nil {
			t.Fatal(err)
		}
		seq := d.Seq &^ QuarantineBit
		q.mu.Lock()
		q.cur.born = time.Time{} // due now
		q.mu.Unlock()
		q.wake()
		eventually(t, "synced", func() bool { return q.synced.Load() >= seq })
	}
	a.retain()
	if got := q.bytes.Load(); got > 256<<10 {
		t.Fatalf("quarantine has %d bytes", got)
	}
	if recs := readAll(t, a.NewRejectedReader(0)); len(recs) < 10 || recs[len(recs)-1].Delivery.Source != "source-199" {
		t.Fatalf("%d are left, the newest must be", len(recs))
	}
}

// TestStorm: of a storm a sample is kept and the rest is counted exactly, over restarts;
// below ten a second everything is kept.
func TestStorm(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	a := mustOpen(t, dir, Options{NoIndex: true, Now: c.now})
	for n := range 10 {
		if kept, err := a.Reject(rejected(3 * n)); !kept || err != nil {
			t.Fatalf("the %d. of a second: %t %v", n, kept, err)
		}
	}
	const storm = 20_000
	kept := 0
	var sampled *Delivery
	for range storm {
		d := rejected(1)
		if ok, err := a.Reject(d); err != nil {
			t.Fatal(err)
		} else if ok {
			kept++
		} else {
			sampled = d
		}
	}
	if kept < 10 || kept > 400 { // 10 + 10 ln(2000) = 86 are expected
		t.Fatalf("%d of %d are kept", kept, storm)
	}
	if _, err := a.Get(sampled.ID); !errors.Is(err, ErrNotFound) || sampled.ID == "" {
		t.Fatalf("sampled away %q: %v", sampled.ID, err)
	}
	want := uint64(storm - kept)
	for life := range 3 {
		got := a.SampledAway()
		if len(got) != 1 || got[0].Count != want || got[0].Source != "source-1" || got[0].Reason != "signature_mismatch" {
			t.Fatalf("life %d: %+v, want %d", life, got, want)
		}
		_ = a.Close()
		a = mustOpen(t, dir, Options{NoIndex: true, Now: c.now})
	}
	c.add(time.Second)
	if kept, err := a.Reject(rejected(1)); !kept || err != nil {
		t.Fatalf("after the storm: %t %v", kept, err)
	}
}

// TestStormHasAShare: one source cannot fill the quarantine.
func TestStormHasAShare(t *testing.T) {
	c := newClock()
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, Now: c.now, Quarantine: Quarantine{Size: 1 << 20}})
	bytes := 0
	for n := range 2000 {
		d := kb(rejected(1), 4)
		if ok, err := a.Reject(d); err != nil {
			t.Fatal(err)
		} else if ok {
			bytes += len(d.Body)
		}
		if n%10 == 9 {
			c.add(time.Second)
		}
	}
	if bytes > 300<<10 {
		t.Fatalf("one source wrote %d bytes of 1 MiB", bytes)
	}
	d := rejected(2)
	if ok, err := a.Reject(d); !ok || err != nil {
		t.Fatalf("another source: %t %v", ok, err)
	}
}

func TestEpochs(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes})
	doc1, doc2 := []byte(`{"definition":1}`), []byte(`{"definition":2}`)
	e1, e2 := a.RegisterEpoch("stripe", doc1), a.RegisterEpoch("stripe", doc2)
	if e1 == e2 || e1 != a.RegisterEpoch("stripe", doc1) || e1 == a.RegisterEpoch("other", doc1) {
		t.Fatal("epoch ids do not tell epochs apart")
	}
	var ds []*Delivery
	for n := range 60 {
		d := kb(testDelivery(n), 1)
		d.Epoch = e1
		if n >= 30 {
			d.Epoch = e2
		}
		mustAppend(t, a, d)
		ds = append(ds, d)
	}
	_ = a.Close()
	// Another life, which registers nothing, and has lost all but the newest segments.
	a = mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 1},
		Keep: func() uint64 { return ds[25].Seq }})
	a.retain()
	if a.First() <= ds[0].Seq {
		t.Fatal("nothing was removed")
	}
	known := make(map[uint64]bool)
	seg := uint64(0)
	for _, rec := range readAll(t, a.NewReader(0)) {
		if s := a.log.holding(rec.Seq).head.tag.number; s != seg {
			seg, known = s, make(map[uint64]bool)
		}
		if rec.Marker != nil {
			known[rec.Marker.ID] = true
			continue
		}
		if !known[rec.Delivery.Epoch] {
			t.Fatalf("seq=%d comes before its epoch in segment %d", rec.Seq, seg)
		}
		want := doc1
		if rec.Delivery.Epoch == e2 {
			want = doc2
		}
		a.oldEpochs = epochCache{}
		if doc, err := a.Epoch(rec.Delivery.Epoch, rec.Seq); err != nil || !bytes.Equal(doc, want) {
			t.Fatalf("epoch of seq=%d: %q, %v", rec.Seq, doc, err)
		}
	}
	if _, err := a.Epoch(12345, ds[40].Seq); !errors.Is(err, ErrNotFound) {
		t.Fatalf("unknown epoch: %v", err)
	}
}

// TestAppendAllocatesNothing pins what the way of a delivery costs the collector.
func TestAppendAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	d := testDelivery(1)
	d.Epoch = a.RegisterEpoch("stripe", []byte("{}"))
	for range 200 {
		mustAppend(t, a, d)
	}
	if n := testing.AllocsPerRun(500, func() {
		if err := a.Append(d); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Fatalf("append allocates %.1f times", n)
	}
}

// TestCheckBesideTheGateway: under load, with rolls and retention, a check finds
// nothing, again and again.
func TestCheckBesideTheGateway(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 32 << 10, Retention: Retention{Size: 256 << 10}, MaxWait: time.Hour})
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
				if err := a.Append(kb(testDelivery(n), 1)); err != nil {
					t.Error(err)
					return
				}
				if n%40 == 0 {
					if err := a.State().Commit(Change{"n", fmt.Append(nil, n)}); err != nil {
						t.Error(err)
					}
				}
				if w == 0 && n%100 == 0 {
					a.retain()
				}
			}
		})
	}
	for range 12 {
		res, err := Check(dir, io.Discard)
		if err != nil || !res.Sound() {
			t.Errorf("check beside the gateway: %v %q", err, res.Damage)
		}
	}
	close(stop)
	wg.Wait()
}

func TestWalkAndStat(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 100)
	i := 0
	err := Walk(dir, false, func(rec Record) error {
		sameDelivery(t, rec.Delivery, ds[i])
		i++
		return nil
	})
	if err != nil || i != len(ds) {
		t.Fatalf("walked %d of %d: %v", i, len(ds), err)
	}
	st, err := ReadStat(dir)
	if err != nil || st.Deliveries != 100 || st.FirstSeq != ds[0].Seq || st.LastSeq != ds[99].Seq || !st.Newest.Equal(ds[99].ReceivedAt) {
		t.Fatalf("stat: %+v %v", st, err)
	}
	if _, err := Check(filepath.Join(dir, "nothing"), io.Discard); err == nil {
		t.Fatal("check of nothing found something")
	}
	if err := os.WriteFile(filepath.Join(dir, "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("a stray file: %v %q", err, res.Damage)
	}
}
