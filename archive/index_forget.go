package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// forget says that retention removed every record of the log below seq. Queries stop
// showing those deliveries at once; their keys are deleted between batches.
func (x *index) forget(log int, below uint64) {
	below &^= QuarantineBit
	for {
		old := x.floor[log].Load()
		if below <= old || x.floor[log].CompareAndSwap(old, below) {
			return
		}
	}
}

// sweep deletes a bounded number of forgotten rows into an empty batch. It runs in
// the writer, so that no entry is changed and deleted at the same time.
func (w *writer) sweep() error {
	if err := w.sweepThinned(); err != nil {
		return fmt.Errorf("delete rows that retention left out: %w", err)
	}
	for log := range w.swept {
		floor := w.x.floor[log].Load()
		if floor == 0 || w.cleared[log] == floor {
			continue
		}
		if err := w.sweepLog(log, floor); err != nil {
			return fmt.Errorf("delete rows of log %d below seq=%d: %w", log, floor, err)
		}
	}
	// Blocks are looked at when all rows are gone, and committed as gone.
	if !w.batch.Empty() {
		return nil
	}
	if err := w.sweepBlocks(); err != nil {
		return fmt.Errorf("delete postings of rows that are gone: %w", err)
	}
	return nil
}

func (w *writer) sweepLog(log int, floor uint64) error {
	first, end := makeRef(log, 0), makeRef(log, floor)
	if w.swept[log] == 0 {
		w.swept[log] = first
		if err := w.batch.Set(floorKey(log), uintValue(floor), nil); err != nil {
			return err
		}
	}
	refs, err := refsFrom(w.x.db, w.swept[log], end, sweepStep)
	if err != nil {
		return err
	}
	for _, r := range refs {
		if err := w.erase(r); err != nil {
			return err
		}
		w.swept[log] = r + 1
	}
	if len(refs) == sweepStep {
		return nil
	}
	// All rows are gone; the ranges take outcomes of deliveries that never had a row too.
	w.cleared[log], w.swept[log] = floor, 0
	w.posted.due = true
	return errors.Join(w.batch.DeleteRange(seqKey(nil, first), seqKey(nil, end), nil),
		w.batch.DeleteRange(outcomeKey(nil, first, 0), outcomeKey(nil, end, 0), nil))
}

// erase deletes all keys of one delivery but its place in the ranges above.
func (w *writer) erase(r ref) error {
	l, err := w.find(r)
	if err != nil || l == nil {
		return err
	}
	w.tally(&l.e.row, -1)
	w.waiting.drop(r)
	o := makeOrder(l.e.row.ReceivedAt, r)
	for _, k := range l.keys {
		if k.kind != single {
			continue // in blocks and buckets, which go when all their rows have
		}
		if err := w.batch.Delete(k.key(nil, o), nil); err != nil {
			return err
		}
	}
	if err := w.batch.Delete(rowKey(nil, o), nil); err != nil {
		return err
	}
	var ids []Identity
	if err := w.x.eachOutcome(r, func(o *Outcome) {
		if proves(o) {
			_ = o.proofs(func(id, _ Identity) error { ids = append(ids, id); return nil })
		}
	}); err != nil {
		return err
	}
	for _, id := range ids {
		ev, found, err := w.x.readEvidence(id)
		if err != nil {
			return err
		}
		if found && ev.ref == r {
			if err := w.batch.Delete(evidenceKey(nil, w.x.codec.identity(id)), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// postSweep deletes the posting blocks of times from which no row is left.
type postSweep struct {
	due    bool   // rows were deleted since it began
	active bool   //
	keep   uint64 // the oldest narrow window that has rows, or gets one while this goes on
	wide   bool   // it is at the wide ones, which come after the narrow ones
	next   []byte // where it goes on
}

// blockSweepStep is how many values are looked at between two batches, blockSweepKeys how
// many blocks of one of them are deleted singly: a deleted range weighs on every look-up.
const (
	blockSweepStep = 512
	blockSweepKeys = 32
)

// sweepBlocks looks at a bounded number of values. Blocks of a time from which a single
// row was kept stay: they cost some bytes, and readers pass over what is gone.
func (w *writer) sweepBlocks() error {
	p := &w.posted
	if !p.active {
		if !p.due {
			return nil
		}
		oldest, found, err := oldestRow(w.x.db)
		if err != nil || !found {
			return err
		}
		if err := w.sweepShelves(); err != nil {
			return err
		}
		*p = postSweep{active: true, keep: narrow.of(oldest[:]), next: []byte{keyBlock}}
	}
	ws, keep := narrow, p.keep
	if p.wide {
		ws, keep = wide, p.keep>>(wide.bits-narrow.bits)
	}
	it, err := w.x.db.NewIter(&pebble.IterOptions{LowerBound: p.next, UpperBound: []byte{ws.kind + 1}})
	if err != nil {
		return err
	}
	ok := it.First()
	for n := 0; ok && n < blockSweepStep && err == nil; n++ {
		key := it.Key()
		if len(key) != valuePrefixSize+16 {
			return errors.Join(errPosting, it.Close())
		}
		k := valueKey{field: key[1], hash: binary.BigEndian.Uint64(key[2:])}
		end := ws.after(k)
		p.next = end
		var old [][]byte
		first := ws.key(nil, k, keep+1)
		for ok = it.SeekGE(first); ok && bytes.Compare(it.Key(), end) < 0 && len(old) <= blockSweepKeys; ok = it.Next() {
			old = append(old, bytes.Clone(it.Key()))
		}
		if len(old) > blockSweepKeys {
			err = w.batch.DeleteRange(first, end, nil)
			old = nil
		}
		for _, key := range old {
			err = errors.Join(err, w.batch.Delete(key, nil))
		}
		ok = it.SeekGE(end)
	}
	switch {
	case ok:
	case p.wide:
		p.active = false
	default:
		p.wide, p.next = true, []byte{keyWide}
	}
	return errors.Join(err, it.Close())
}

func oldestRow(db pebble.Reader) (o order, found bool, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyRow}, UpperBound: []byte{keyRow + 1}})
	if err != nil {
		return o, false, err
	}
	if found = it.Last(); found {
		o = order(it.Key()[1:])
	}
	return o, found, it.Close()
}
