package archive

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// bucketPostings are the places that the shelves give for an id. Shelves overlap in time
// where deliveries were late: they are opened newest first, as far as they are needed for
// what is newest first to be certain.
type bucketPostings struct {
	it           *pebble.Iterator // over the buckets
	mix          uint64
	lower, upper []byte
	shelves      []shelf // that are not read yet, by the newest row
	places       []order // of those that are
	err          error
}

func openBuckets(shelves, buckets *pebble.Iterator, k valueKey, lower, upper []byte) (*bucketPostings, error) {
	p := &bucketPostings{it: buckets, mix: k.idMix(), lower: lower, upper: upper}
	err := eachShelf(shelves, func(s shelf) bool {
		if bytes.Compare(s.oldest[:], lower) >= 0 && bytes.Compare(s.newest[:], upper) < 0 {
			p.shelves = append(p.shelves, s)
		}
		return true
	})
	slices.SortStableFunc(p.shelves, func(a, b shelf) int { return bytes.Compare(a.newest[:], b.newest[:]) })
	return p, err
}

func (p *bucketPostings) error() error { return errors.Join(p.err, p.it.Error()) }
func (p *bucketPostings) Close() error { return p.it.Close() }

func (p *bucketPostings) leap(target order) (order, bool) {
	for p.err == nil {
		n, _ := slices.BinarySearchFunc(p.places, target, func(a, b order) int { return bytes.Compare(a[:], b[:]) })
		p.places = p.places[n:]
		if len(p.places) > 0 && (len(p.shelves) == 0 || bytes.Compare(p.places[0][:], p.shelves[0].newest[:]) <= 0) {
			return p.places[0], true
		}
		if len(p.shelves) == 0 {
			return order{}, false
		}
		s := p.shelves[0]
		if p.shelves = p.shelves[1:]; bytes.Compare(s.oldest[:], target[:]) >= 0 {
			p.read(s.no)
		}
	}
	return order{}, false
}

// read adds what one shelf has.
func (p *bucketPostings) read(no uint32) {
	key := bucketKey(nil, no, uint16(p.mix>>(64-bucketBits)))
	if !p.it.SeekGE(key) || !bytes.Equal(p.it.Key(), key) {
		return
	}
	before := len(p.places)
	if p.places, p.err = readIDs(p.places, p.mix, p.it.Value()); p.err != nil || len(p.places) == before {
		return
	}
	slices.SortFunc(p.places, func(a, b order) int { return bytes.Compare(a[:], b[:]) })
	p.places = slices.DeleteFunc(slices.Compact(p.places), func(o order) bool {
		return bytes.Compare(o[:], p.lower) < 0 || bytes.Compare(o[:], p.upper) >= 0
	})
}

// eitherPostings are what one of two gives.
type eitherPostings struct {
	lists [2]postings
	at    [2]order
	have  [2]bool
	begun bool
}

func (p *eitherPostings) error() error { return errors.Join(p.lists[0].error(), p.lists[1].error()) }

// Close closes those that were opened.
func (p *eitherPostings) Close() (err error) {
	for _, l := range p.lists {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

func (p *eitherPostings) leap(target order) (order, bool) {
	first := -1
	for i, l := range p.lists {
		if !p.begun || p.have[i] && bytes.Compare(p.at[i][:], target[:]) < 0 {
			p.at[i], p.have[i] = l.leap(target)
		}
		if p.have[i] && (first < 0 || bytes.Compare(p.at[i][:], p.at[first][:]) < 0) {
			first = i
		}
	}
	p.begun = true
	if first < 0 || p.error() != nil {
		return order{}, false
	}
	return p.at[first], true
}
