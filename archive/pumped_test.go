package archive

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// pumped is what a pump knows: which deliveries have no final outcome.
type pumped struct {
	mu       sync.Mutex
	open     []uint64 // sorted
	released []uint64 // with the QuarantineBit
	blind    bool
}

func (p *pumped) keep() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blind {
		return 0
	}
	if len(p.open) == 0 {
		return maxSeq
	}
	return p.open[0]
}

func (p *pumped) waiting(from, to uint64) (list []uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range append(slices.Clone(p.open), p.released...) {
		if s >= from && s <= to {
			list = append(list, s)
		}
	}
	return list, !p.blind
}

// see says whether the pump knows what waits.
func (p *pumped) see(sees bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blind = !sees
}

func (p *pumped) add(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, seq)
}

func (p *pumped) done(seqs ...uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(s uint64) bool { return slices.Contains(seqs, s) })
	p.released = slices.DeleteFunc(p.released, func(s uint64) bool { return slices.Contains(seqs, s) })
}

func outcomeOf(d *Delivery, kind OutcomeKind) []Outcome {
	return []Outcome{{Delivery: d.Seq, Items: 1, Kind: kind, At: d.ReceivedAt, Sink: "kafka:test", Partition: -1, Offset: -1,
		Fields: Fields{OrderID: fmt.Sprintf("order-%d", d.Seq)}}}
}

// thinFill appends n deliveries with the outcomes that they have: every tenth is held.
func thinFill(t testing.TB, a *Archive, p *pumped, c *clock, n int) (held, all []*Delivery) {
	t.Helper()
	epoch := a.RegisterEpoch("source-0", []byte(`{"definition":1}`))
	for i := range n {
		d := kb(testDelivery(i), 1)
		d.Epoch = epoch
		mustAppend(t, a, d)
		kind := Published
		if i%10 == 3 {
			kind = Held
			held = append(held, d)
			p.add(d.Seq)
		}
		if err := a.AppendOutcomes(outcomeOf(d, kind)); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
		c.add(time.Minute)
	}
	return held, all
}

// inLog reads the log: deliveries, and the last outcome of each.
func inLog(t testing.TB, a *Archive) (map[uint64]*Delivery, map[uint64]OutcomeKind) {
	t.Helper()
	ds, os := map[uint64]*Delivery{}, map[uint64]OutcomeKind{}
	for _, rec := range readAll(t, a.NewReader(0)) {
		switch {
		case rec.Corrupt != nil:
			t.Fatal(rec.Corrupt)
		case rec.Delivery != nil:
			if ds[rec.Seq] != nil {
				t.Fatalf("seq=%d is there twice", rec.Seq)
			}
			ds[rec.Seq] = rec.Delivery
		case rec.Outcome != nil:
			os[rec.Outcome.Delivery] = rec.Outcome.Kind
		}
	}
	return ds, os
}
