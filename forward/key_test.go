package forward

import (
	"context"
	"slices"
	"testing"
)

// TestKeyKeepsPlaces: what comes out of a gate is earlier than what came meanwhile. It is
// admitted first, and where it has to wait its key waits for it, not only for a later
// event that waits already.
func TestKeyKeepsPlaces(t *testing.T) {
	c := newCore(context.Background(), &Pump{})
	at := func(seq uint64) *parcel {
		return &parcel{ref: ref{seq: seq}, order: place(seq, 0), source: &sourceState{name: "s"}, keyHash: 7}
	}
	first, second, third, fourth, fifth := at(1), at(2), at(3), at(4), at(5)
	c.hang(third)
	c.hang(first)
	for _, ev := range []*parcel{fifth, second, fourth} {
		c.stage(ev)
	}
	c.work()
	q := c.keys[7]
	if !slices.Equal(q.rest, []*parcel{second, fourth, fifth}) {
		t.Fatalf("%d events wait for their key, want all that are later than the first, in order", len(q.rest))
	}
	c.freeKey(third)
	if len(c.ready) != 0 {
		t.Fatal("events go on that are behind one that waits")
	}
	c.hang(third)
	c.freeKey(first)
	c.sortReady()
	if !slices.Equal(c.ready, []*parcel{second, fourth, fifth}) {
		t.Fatalf("%d events are free to be looked at", len(c.ready))
	}
	if c.behindKey(second) || !c.behindKey(fourth) || !c.behindKey(fifth) || c.behindKey(third) {
		t.Error("of those later than the second that waits some may go on, or an earlier one may not")
	}
	c.freeKey(third)
	if len(c.keys) != 0 || len(q.rest) != 0 {
		t.Error("a key that nothing waits for is kept")
	}
	if place(8, maxItem+9) >= place(9, 0) || place(8, 1) >= place(8, 2) {
		t.Error("places are not in order")
	}
}
