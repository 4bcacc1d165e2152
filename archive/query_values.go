package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// postings walk the places of the rows that may have a value, newest first.
type postings interface {
	// leap moves to target or, where there is no such place, to what follows; false at the
	// end. It never moves back.
	leap(target order) (order, bool)
	error() error
	Close() error
}

// values finds the rows that have all wanted values: postings of each, leaping to the
// furthest of the others until all stand on the same row. The rarest value sets the pace,
// so no statistics are needed.
func (s *scan) values(ctx context.Context, vs []fieldValue, lower, upper []byte) (err error) {
	lists, err := s.open(ctx, vs, lower, upper)
	defer func() {
		for _, l := range lists {
			err = errors.Join(err, l.Close())
		}
	}()
	if err != nil {
		return err
	}
	target := order(lower[:orderSize])
	for {
		met := true
		for _, l := range lists {
			o, ok := l.leap(target)
			if !ok {
				return l.error()
			}
			if o != target {
				target, met = o, false
			}
		}
		stop, err := s.step(ctx, target)
		if stop || err != nil {
			return err
		}
		if !met {
			continue
		}
		full, err := s.fetch(target)
		if full || err != nil {
			return err
		}
		if !target.increase() {
			return nil
		}
	}
}

// increase makes o the next possible place; false when there is none.
func (o *order) increase() bool {
	for i := len(o) - 1; i >= 0; i-- {
		if o[i]++; o[i] != 0 {
			return true
		}
	}
	return false
}

// open gives the postings of each value, all over the same state of the database.
func (s *scan) open(ctx context.Context, vs []fieldValue, lower, upper []byte) ([]postings, error) {
	var first *pebble.Iterator
	iterate := func(o *pebble.IterOptions) (it *pebble.Iterator, err error) {
		if first == nil {
			it, err = s.x.db.NewIterWithContext(ctx, o)
			first = it
			return it, err
		}
		return first.CloneWithContext(ctx, pebble.CloneOptions{IterOptions: o})
	}
	lists := make([]postings, 0, len(vs))
	for _, v := range vs {
		k := s.x.codec.valueKey(v.field, v.value)
		if k.kind == single {
			prefix := k.prefix(nil)
			it, err := iterate(&pebble.IterOptions{LowerBound: append(bytes.Clone(prefix), lower...), UpperBound: append(prefix, upper...)})
			if err != nil {
				return lists, err
			}
			lists = append(lists, &keyPostings{it: it})
			continue
		}
		blocks := &eitherPostings{}
		for i, ws := range [...]windows{narrow, wide} {
			end := ws.after(k)
			if last := ws.of(upper); last < 1<<(64-ws.bits)-1 {
				end = ws.key(nil, k, last+1)
			}
			it, err := iterate(&pebble.IterOptions{LowerBound: ws.key(nil, k, ws.of(lower)), UpperBound: end})
			if err != nil {
				return append(lists, blocks), err
			}
			blocks.lists[i] = &blockPostings{it: it, ws: ws, k: k, lower: lower, upper: upper}
		}
		if k.kind != unique {
			lists = append(lists, blocks)
			continue
		}
		buckets, err := s.buckets(iterate, k, lower, upper)
		if err != nil {
			return append(lists, blocks), err
		}
		lists = append(lists, &eitherPostings{lists: [2]postings{buckets, blocks}})
	}
	return lists, nil
}

// buckets gives what the buckets have for an id; of a value that is no such, blocks have the rest.
func (s *scan) buckets(iterate func(*pebble.IterOptions) (*pebble.Iterator, error), k valueKey, lower, upper []byte) (postings, error) {
	shelves, err := iterate(shelfBounds())
	if err != nil {
		return nil, err
	}
	it, err := iterate(&pebble.IterOptions{LowerBound: []byte{keyBucket}, UpperBound: []byte{keyBucket + 1}})
	if err != nil {
		return nil, errors.Join(err, shelves.Close())
	}
	p, err := openBuckets(shelves, it, k, lower, upper)
	if err = errors.Join(err, shelves.Close()); err != nil {
		return nil, errors.Join(err, it.Close())
	}
	return p, nil
}

// keyPostings are keys of their own, one per row.
type keyPostings struct {
	it    *pebble.Iterator
	begun bool
}

func (p *keyPostings) error() error { return p.it.Error() }
func (p *keyPostings) Close() error { return p.it.Close() }

func (p *keyPostings) place() order { return order(p.it.Key()[valuePrefixSize:]) }

// leapSteps is how many neighbours are tried before a seek: a seek costs about as much
// as ten of them.
const leapSteps = 8

func (p *keyPostings) leap(target order) (order, bool) {
	if !p.begun {
		p.begun = true
		if !p.it.First() {
			return order{}, false
		}
	}
	if !p.it.Valid() {
		return order{}, false
	}
	for range leapSteps {
		o := p.place()
		if bytes.Compare(o[:], target[:]) >= 0 {
			return o, true
		}
		if !p.it.Next() {
			return order{}, false
		}
	}
	o := p.place()
	if bytes.Compare(o[:], target[:]) >= 0 {
		return o, true
	}
	if !p.it.SeekGE(append(bytes.Clone(p.it.Key()[:valuePrefixSize]), target[:]...)) {
		return order{}, false
	}
	return p.place(), true
}

// blockPostings are blocks: those of one window are read, sorted and walked in memory.
type blockPostings struct {
	it           *pebble.Iterator // on the first block behind the window that was read
	ws           windows
	k            valueKey
	lower, upper []byte
	begun        bool
	places       []order
	i            int
	err          error
}

func (p *blockPostings) error() error { return errors.Join(p.err, p.it.Error()) }
func (p *blockPostings) Close() error { return p.it.Close() }

func (p *blockPostings) leap(target order) (order, bool) {
	for p.err == nil {
		// The wanted place is most often near: the other lists are at about the same pace.
		for step := 0; p.i < len(p.places); step++ {
			if bytes.Compare(p.places[p.i][:], target[:]) >= 0 {
				return p.places[p.i], true
			}
			if step < leapSteps {
				p.i++
				continue
			}
			rest := p.places[p.i:]
			n, _ := slices.BinarySearchFunc(rest, target, func(a, b order) int { return bytes.Compare(a[:], b[:]) })
			p.i += n
		}
		if !p.window(p.ws.of(target[:])) {
			return order{}, false
		}
	}
	return order{}, false
}

// window reads the next window that is not before w; false at the end or on an error.
func (p *blockPostings) window(w uint64) bool {
	p.places, p.i = p.places[:0], 0
	ok := p.it.Valid()
	if !p.begun {
		p.begun = true
		ok = p.it.First()
	}
	if ok && p.at() < w {
		ok = p.it.SeekGE(p.ws.key(nil, p.k, w))
	}
	if !ok {
		return false
	}
	w = p.at()
	for ; ok && p.at() == w; ok = p.it.Next() {
		if p.places, p.err = p.ws.readPlaces(p.places, w, p.it.Value()); p.err != nil {
			return false
		}
	}
	slices.SortFunc(p.places, func(a, b order) int { return bytes.Compare(a[:], b[:]) })
	p.places = slices.DeleteFunc(slices.Compact(p.places), func(o order) bool {
		return bytes.Compare(o[:], p.lower) < 0 || bytes.Compare(o[:], p.upper) >= 0
	})
	return true
}

func (p *blockPostings) at() uint64 {
	return binary.BigEndian.Uint64(p.it.Key()[valuePrefixSize:])
}

// fetch reads the row that all values point to. Rows may have changed or gone since the
// postings were written; then it does not fit and is passed over.
func (s *scan) fetch(o order) (full bool, err error) {
	if s.x.forgotten(o.ref()) {
		return false, nil
	}
	e, err := s.x.readRow(o)
	if err != nil || e == nil {
		return false, err
	}
	return s.take(e, o), nil
}
