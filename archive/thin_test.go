package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// TestThin: what waits outlives its segment, with seq, id, body, time, epoch and outcome;
// what does not is gone, from the index too; and all of it again in the next life.
func TestThin(t *testing.T) {
	for _, noPack := range []bool{true, false} {
		t.Run(fmt.Sprintf("noPack=%t", noPack), func(t *testing.T) { testThin(t, noPack) })
	}
}

func testThin(t *testing.T, noPack bool) {
	dir, c, p := t.TempDir(), newClock(), new(pumped)
	o := Options{NoPack: noPack, SegmentBytes: minSegmentBytes, Now: c.now, Retention: Retention{Age: time.Hour}, Keep: p.keep, Waiting: p.waiting}
	a := mustOpen(t, dir, o)
	held, all := thinFill(t, a, p, c, 400)
	if !noPack {
		eventually(t, "packed", func() bool { n, done := packed(a); return n > 0 && done })
	}
	before := a.log.bytes.Load()
	p.see(false)
	a.retain()
	if a.log.bytes.Load() != before {
		t.Fatal("something was removed while nobody knew what waits")
	}
	p.see(true)
	for life := range 3 {
		eventually(t, "the index", func() bool { return a.Indexed() >= a.Synced() })
		a.retain()
		n := len(held)
		young := a.log.segs[len(a.log.segs)-1].head.first
		if got := a.log.count(); life == 0 && got > 24 {
			t.Fatalf("%d segments for %d deliveries that wait and the young", got, n)
		}
		ds, os := inLog(t, a)
		for _, d := range held {
			if ds[d.Seq] == nil || os[d.Seq] != Held {
				t.Fatalf("life %d: held seq=%d: %v, outcome %s", life, d.Seq, ds[d.Seq], os[d.Seq])
			}
			sameDelivery(t, ds[d.Seq], d)
			got, err := a.Get(d.ID)
			if err != nil {
				t.Fatalf("life %d: get seq=%d: %v", life, d.Seq, err)
			}
			sameDelivery(t, got, d)
			a.oldEpochs = epochCache{}
			a.log.epochs.docs.Store(nil)
			if doc, err := a.Epoch(d.Epoch, d.Seq); err != nil || string(doc) != `{"definition":1}` {
				t.Fatalf("life %d: epoch of seq=%d: %q %v", life, d.Seq, doc, err)
			}
		}
		gone := 0
		for _, d := range all {
			if ds[d.Seq] == nil {
				gone++
				if _, err := a.Get(d.ID); !errors.Is(err, ErrNotFound) {
					t.Fatalf("life %d: seq=%d is not in the log, and Get says %v", life, d.Seq, err)
				}
			}
		}
		if gone < 200 {
			t.Fatalf("life %d: only %d of %d are gone (young from %d)", life, gone, len(all), young)
		}
		eventually(t, "the index forgets", func() bool {
			page, err := a.Query(context.Background(), Filter{Limit: MaxLimit})
			if err != nil {
				t.Fatal(err)
			}
			return len(page.Rows) == len(ds)
		})
		for _, d := range held {
			page, err := a.Query(context.Background(), Filter{OrderID: fmt.Sprintf("order-%d", d.Seq)})
			if err != nil || len(page.Rows) != 1 || page.Rows[0].ID != d.ID || page.Rows[0].Outcome != "held" {
				t.Fatalf("life %d: by order: %+v %v", life, page.Rows, err)
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("life %d: %v %q", life, err, res.Damage)
		}
		// Half of what waits is published before the next life looks.
		a = mustOpen(t, dir, o)
		for _, d := range held[:n/2] {
			if err := a.AppendOutcomes(outcomeOf(d, Published)); err != nil {
				t.Fatal(err)
			}
			p.done(d.Seq)
		}
		held = held[n/2:]
		c.add(2 * thinRest)
	}
	if d := a.Damage(); len(d) > 0 {
		t.Fatal(d)
	}
}

// TestThinnedOutcomesStay: a delivery that stays in a thinned segment although it is done
// keeps its outcome, wherever that stood: without it a start would publish it again.
func TestThinnedOutcomesStay(t *testing.T) {
	c, p := newClock(), new(pumped)
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Hour}, Keep: p.keep, Waiting: p.waiting})
	var held []*Delivery
	small := func(n int, kind OutcomeKind) *Delivery {
		d := testDelivery(n)
		d.Body = make([]byte, 100)
		mustAppend(t, a, d)
		if kind == Held {
			p.add(d.Seq)
			held = append(held, d)
		}
		if err := a.AppendOutcomes(outcomeOf(d, kind)); err != nil {
			t.Fatal(err)
		}
		c.add(time.Second)
		return d
	}
	p.see(false)
	for n := range 400 {
		small(n, []OutcomeKind{Published, Held}[n%2])
	}
	p.see(true)
	c.add(2 * time.Hour)
	a.retain()
	// Of each file some are done, too few to make another. Their outcomes stand in segments
	// that go.
	done := map[uint64]bool{}
	for i := 5; i < len(held); i += 12 {
		if err := a.AppendOutcomes(outcomeOf(held[i], Published)); err != nil {
			t.Fatal(err)
		}
		p.done(held[i].Seq)
		done[held[i].Seq] = true
	}
	for n := range 200 {
		small(1000+n, Published)
	}
	stayed := 0
	for range 6 {
		c.add(2 * time.Hour)
		a.retain()
		ds, os := inLog(t, a)
		for _, d := range held {
			switch {
			case !done[d.Seq] && (ds[d.Seq] == nil || os[d.Seq] != Held):
				t.Fatalf("held seq=%d: outcome %q", d.Seq, os[d.Seq])
			case done[d.Seq] && ds[d.Seq] != nil:
				stayed++
				if os[d.Seq] != Published {
					t.Fatalf("seq=%d is still there, and its outcome is %q", d.Seq, os[d.Seq])
				}
			}
		}
	}
	if stayed == 0 {
		t.Fatal("nothing that is done stayed: this tests nothing")
	}
}

// TestThinWhileReading: a reader that stands in a segment which is thinned goes on without
// a gap and without a repeat.
func TestThinWhileReading(t *testing.T) {
	c, p := newClock(), new(pumped)
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Minute}, Keep: p.keep, Waiting: p.waiting})
	p.see(false)
	held, _ := thinFill(t, a, p, c, 300)
	p.see(true)
	rng := seeded(t)
	for round := range 20 {
		r := a.NewReader(0)
		seen := map[uint64]bool{}
		var last uint64
		stop := rng.IntN(60)
		if round == 0 {
			stop = 35 // in the middle of what becomes one
		}
		for n := 0; ; n++ {
			if n == stop {
				c.add(2 * thinRest)
				p.done(held[0].Seq)
				held = held[1:]
				a.retain()
			}
			rec, ok, err := r.TryNext()
			if err != nil || rec.Corrupt != nil {
				t.Fatal(err, rec.Corrupt)
			}
			if !ok {
				break
			}
			if rec.Seq <= last {
				t.Fatalf("seq=%d after %d", rec.Seq, last)
			}
			last = rec.Seq
			seen[rec.Seq] = rec.Delivery != nil
		}
		r.Close()
		for _, d := range held {
			if !seen[d.Seq] {
				t.Fatalf("held seq=%d was passed over", d.Seq)
			}
		}
	}
}

// TestWalkBesideThinning: an export beside a gateway that thins gives what waits once.
func TestWalkBesideThinning(t *testing.T) {
	dir, c, p := t.TempDir(), newClock(), new(pumped)
	a := mustOpen(t, dir, Options{NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Now: c.now,
		Retention: Retention{Age: time.Minute}, Keep: p.keep, Waiting: p.waiting})
	p.see(false)
	held, _ := thinFill(t, a, p, c, 300)
	p.see(true)
	for n := 0; len(held) > 3; n++ {
		var last uint64
		seen := map[uint64]bool{}
		count := 0
		err := Walk(dir, false, func(rec Record) error {
			if rec.Corrupt != nil {
				return rec.Corrupt
			}
			if rec.Seq <= last {
				return fmt.Errorf("seq=%d after %d", rec.Seq, last)
			}
			last = rec.Seq
			if rec.Delivery != nil {
				seen[rec.Seq] = true
			}
			if count++; count == 5*n {
				c.add(2 * thinRest)
				p.done(held[0].Seq)
				held = held[1:]
				a.retain()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range held {
			if !seen[d.Seq] {
				t.Fatalf("round %d: held seq=%d was passed over", n, d.Seq)
			}
		}
		p.done(held[0].Seq)
		held = held[1:]
	}
}

// TestQuarantineKeepsReleases: the oldest refusals go first, and never one whose release
// was promised.
func TestQuarantineKeepsReleases(t *testing.T) {
	dir, p := t.TempDir(), new(pumped)
	a := mustOpen(t, dir, Options{NoIndex: true, Quarantine: Quarantine{Size: 256 << 10}, Keep: p.keep, Waiting: p.waiting})
	q := a.quarantine.log
	var wanted []*Delivery
	for n := range 200 {
		d := kb(rejected(n), 4)
		d.Source = fmt.Sprintf("source-%d", n)
		if _, err := a.Reject(d); err != nil {
			t.Fatal(err)
		}
		seq := d.Seq &^ QuarantineBit
		q.mu.Lock()
		q.cur.born = time.Time{} // due now
		q.mu.Unlock()
		q.wake()
		eventually(t, "synced", func() bool { return q.synced.Load() >= seq })
		if n == 3 || n == 70 {
			if err := a.AppendMarker(&Marker{Kind: ReleaseMarker, At: time.Now(), Key: d.ID, Data: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			p.released = append(p.released, d.Seq)
			p.mu.Unlock()
			wanted = append(wanted, d)
		}
		a.retain()
	}
	if got := q.bytes.Load(); got > 256<<10 {
		t.Fatalf("quarantine has %d bytes", got)
	}
	for _, d := range wanted {
		got, err := a.Get(d.ID)
		if err != nil {
			t.Fatalf("%s waits for its release: %v", d.Source, err)
		}
		sameDelivery(t, got, d)
	}
	first, err := a.Get(wanted[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	p.done(wanted[0].Seq, wanted[1].Seq)
	for n := range 80 {
		d := kb(rejected(n), 4)
		d.Source = fmt.Sprintf("later-%d", n)
		if _, err := a.Reject(d); err != nil {
			t.Fatal(err)
		}
		seq := d.Seq &^ QuarantineBit
		q.mu.Lock()
		q.cur.born = time.Time{}
		q.mu.Unlock()
		q.wake()
		eventually(t, "synced", func() bool { return q.synced.Load() >= seq })
		a.retain()
	}
	if _, err := a.Get(first.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("what was released and is done is still there: %v", err)
	}
	if err := a.AppendMarker(&Marker{Kind: ReleaseMarker, Key: first.ID}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("release of what is gone: %v", err)
	}
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("%v %q", err, res.Damage)
	}
}
