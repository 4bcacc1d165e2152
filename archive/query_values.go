package archive

import (
	"bytes"
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// values finds the rows that have all wanted values: one iterator per value, each in row
// order, leaping to the furthest of the others until all stand on the same row. The
// rarest value sets the pace, so no statistics are needed.
func (s *scan) values(ctx context.Context, vs []fieldValue, lower, upper []byte) (err error) {
	its, err := s.open(ctx, vs, lower, upper)
	defer func() {
		for _, it := range its {
			err = errors.Join(err, it.Close())
		}
	}()
	if err != nil {
		return err
	}
	for _, it := range its {
		if !it.First() {
			return it.Error()
		}
	}
	target := orderOf(its[0])
	for {
		met := true
		for _, it := range its {
			o, ok := leap(it, target)
			if !ok {
				return it.Error()
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
		if !its[0].Next() {
			return its[0].Error()
		}
		target = orderOf(its[0])
	}
}

// open gives an iterator per value, all over the same state of the database.
func (s *scan) open(ctx context.Context, vs []fieldValue, lower, upper []byte) ([]*pebble.Iterator, error) {
	its := make([]*pebble.Iterator, 0, len(vs))
	for _, v := range vs {
		prefix := valueKey{v.field, s.x.codec.hash(v.field, v.value)}.prefix(nil)
		o := &pebble.IterOptions{LowerBound: append(bytes.Clone(prefix), lower...), UpperBound: append(prefix, upper...)}
		var it *pebble.Iterator
		var err error
		if len(its) == 0 {
			it, err = s.x.db.NewIterWithContext(ctx, o)
		} else {
			it, err = its[0].CloneWithContext(ctx, pebble.CloneOptions{IterOptions: o})
		}
		if err != nil {
			return its, err
		}
		its = append(its, it)
	}
	return its, nil
}

func orderOf(it *pebble.Iterator) order { return order(it.Key()[valuePrefixSize:]) }

// leapSteps is how many neighbours are tried before a seek: a seek costs about as much
// as ten of them.
const leapSteps = 8

// leap moves the iterator to target or, where it has none, to what follows.
func leap(it *pebble.Iterator, target order) (order, bool) {
	for range leapSteps {
		o := orderOf(it)
		if bytes.Compare(o[:], target[:]) >= 0 {
			return o, true
		}
		if !it.Next() {
			return order{}, false
		}
	}
	o := orderOf(it)
	if bytes.Compare(o[:], target[:]) >= 0 {
		return o, true
	}
	key := append(bytes.Clone(it.Key()[:valuePrefixSize]), target[:]...)
	if !it.SeekGE(key) {
		return order{}, false
	}
	return orderOf(it), true
}

// fetch reads the row that all values point to. Rows may have changed or gone since the
// iterators were opened; then it does not fit and is passed over.
func (s *scan) fetch(o order) (full bool, err error) {
	e, err := s.x.readRow(o)
	if err != nil || e == nil {
		return false, err
	}
	return s.take(e, o), nil
}
