package archive

import (
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
	it, err := w.x.db.NewIter(&pebble.IterOptions{LowerBound: seqKey(nil, w.swept[log]), UpperBound: seqKey(nil, end)})
	if err != nil {
		return err
	}
	refs := make([]ref, 0, sweepStep)
	for ok := it.First(); ok && len(refs) < sweepStep; ok = it.Next() {
		refs = append(refs, ref(binary.BigEndian.Uint64(it.Key()[1:])))
	}
	if err := it.Close(); err != nil {
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
	delete(w.young, r)
	delete(w.old, r)
	o := makeOrder(l.e.row.ReceivedAt, r)
	for _, k := range l.keys {
		if err := w.batch.Delete(k.key(nil, o), nil); err != nil {
			return err
		}
	}
	if err := w.batch.Delete(rowKey(nil, o), nil); err != nil {
		return err
	}
	if err := w.batch.Delete(seqKey(nil, r), nil); err != nil {
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
