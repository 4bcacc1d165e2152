package main

import (
	"slices"
	"testing"
)

// What waits in one of two sinks is not for retention to remove, whatever the other has.
func TestWaitingInAny(t *testing.T) {
	lists := func(ok bool, seqs ...uint64) func(from, to uint64) ([]uint64, bool) {
		return func(from, to uint64) ([]uint64, bool) {
			if from != 1 || to != 9 {
				t.Errorf("asked for %d..%d", from, to)
			}
			return seqs, ok
		}
	}
	type fs = []func(from, to uint64) ([]uint64, bool)
	if got, ok := inAny(fs{lists(true, 1, 5), lists(true, 3, 5, 9)}, 1, 9); !ok || !slices.Equal(got, []uint64{1, 3, 5, 9}) {
		t.Errorf("%v %v", got, ok)
	}
	for _, two := range []fs{{lists(true, 1), lists(false)}, {lists(false), lists(true, 1)}} {
		if _, ok := inAny(two, 1, 9); ok {
			t.Error("one of them cannot tell, and all was taken for told")
		}
	}
}
