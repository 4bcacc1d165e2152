package forward

import (
	"iter"
	"maps"
	"math/bits"
	"slices"
)

// seqSet is a set of seqs: a bit each where they are dense, so that a job over ten
// million deliveries knows them by some megabytes.
type seqSet struct {
	chunks map[uint64]*[64]uint64 // by seq >> 12
	n      int
}

func (s *seqSet) add(seq uint64) {
	c := s.chunks[seq>>12]
	if c == nil {
		if s.chunks == nil {
			s.chunks = map[uint64]*[64]uint64{}
		}
		c = new([64]uint64)
		s.chunks[seq>>12] = c
	}
	word, bit := seq>>6&63, uint64(1)<<(seq&63)
	if c[word]&bit == 0 {
		c[word] |= bit
		s.n++
	}
}

// ascending gives them in their order.
func (s *seqSet) ascending() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, key := range slices.Sorted(maps.Keys(s.chunks)) {
			for i, word := range s.chunks[key] {
				for ; word != 0; word &= word - 1 {
					if !yield(key<<12 | uint64(i)<<6 | uint64(bits.TrailingZeros64(word))) {
						return
					}
				}
			}
		}
	}
}
