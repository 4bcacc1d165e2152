package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"
)

const (
	// maxRecall is how far behind the index may be and still keep no bodies.
	maxRecall = 1 << 16
	// maxHeldBodies bounds the bodies that wait for the end of a batch because their
	// outcome, which makes reading them superfluous, is usually in the same batch.
	maxHeldBodies = 16 << 20
	// quickChanges is how many changes are worth a batch as soon as its delay is over; a
	// busier index waits longer (busyDelay), so that most outcomes come in the batch of
	// their delivery: its body need not be read by the extractor, nor its row written twice.
	quickChanges = 64
	// keptBatch is how much memory of a batch is kept for the next one: one of 4,000 busy
	// deliveries has 3 MB, and it costs as much again to grow to that.
	keptBatch = 4 << 20
	// sweepStep is how many forgotten rows are deleted between two batches.
	sweepStep = 512
)

// reasonErased is the reason in the row of a delivery whose key was destroyed.
const reasonErased = "erased"

// change is one record on its way into the index, without what the index does not want.
type change struct {
	log     int
	seq     uint64
	entry   *entry    // of a delivery
	body    *Delivery // to be read by the extractor if no outcome comes
	recall  bool      // the same, without the body: index.recall
	outcome *Outcome
}

// follow applies records until ctx ends or next fails, and returns why. Two of them run
// at a time, one per log; deliveries with verdict rejected are of the quarantine.
func (x *index) follow(ctx context.Context, next func(ctx context.Context) (Record, error)) error {
	return x.steps(func() error {
		rec, err := next(ctx)
		if err != nil {
			return err
		}
		select {
		case x.in <- x.change(rec):
			return nil
		case <-x.brokenC:
			return fmt.Errorf("%w: %w", ErrIndex, *x.broken.Load())
		case <-x.done:
			return fmt.Errorf("%w: closed", ErrIndex)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

func (x *index) change(rec Record) change {
	c := change{seq: rec.Seq &^ QuarantineBit, outcome: rec.Outcome}
	if rec.Seq&QuarantineBit != 0 {
		c.log = 1
	}
	if rec.Outcome != nil && rec.Outcome.Seq == 0 {
		rec.Outcome.Seq = rec.Seq
	}
	d := rec.Delivery
	if erased := (*ErasedError)(nil); errors.As(rec.Corrupt, &erased) && erased.Delivery != nil {
		c.entry = newEntry(erased.Delivery)
		c.entry.row.Reason = reasonErased
		c.log, c.seq = c.entry.ref.log(), c.entry.ref.seq()
		return c
	}
	if d == nil {
		return c
	}
	if d.Seq == 0 {
		d.Seq = rec.Seq
	}
	c.entry = newEntry(d)
	c.log, c.seq = c.entry.ref.log(), c.entry.ref.seq()
	if d.Verdict == Challenge || x.o.Extract == nil {
		return c
	}
	if d.Verdict != Accepted || x.o.Known == nil {
		// No outcome is on its way that would say the same: nobody reads what was refused,
		// nor anything where there is no sink.
		x.guess(c.entry, d)
		return c
	}
	// Far behind, most outcomes are at hand, and reading one by one would take long.
	if c.recall = x.lag() < maxRecall; c.recall {
		return c
	}
	size := int64(len(d.Body) + len(d.Header) + len(d.Target))
	if x.held.Add(size) <= maxHeldBodies {
		c.body = d.clone()
		return c
	}
	x.held.Add(-size)
	x.guess(c.entry, d)
	return c
}

// recall finds out what the extractor would say of a delivery whose body was not kept. Where
// it is gone or damaged by now, the row has no fields until an outcome says them.
func (x *index) recall(e *entry) {
	if f, ok := x.o.Known(e.ref.seq()); ok {
		e.setItem(0, f, true)
		return
	}
	if d, err := x.o.Reread(e.ref.seq()); err == nil {
		x.guess(e, d)
	}
}

// clone gives the delivery memory of its own.
func (d *Delivery) clone() *Delivery {
	own := *d
	own.Target, own.Header, own.Body = bytes.Clone(d.Target), bytes.Clone(d.Header), bytes.Clone(d.Body)
	return &own
}

// guess lets the extractor read a delivery. Its panic must not end the process at each
// start anew: the delivery stays without fields.
func (x *index) guess(e *entry, d *Delivery) {
	defer func() {
		if p := recover(); p != nil {
			x.metrics.extractPanics.Inc()
			x.log.Error("BUG: extractor panicked", zap.String("delivery", d.ID), zap.Any("panic", p))
		}
	}()
	if f, ok := x.o.Extract(d); ok {
		e.setItem(0, f, true)
	}
}

// state is the newest outcome of one event at one sink.
type state struct {
	seq  uint64
	sink string
	item int
	kind OutcomeKind
	of   string
}

// live is an entry in memory: being changed, or kept for the outcome that will come.
type live struct {
	e      *entry
	keys   []valueKey // as they are in Pebble, or in blocks of this batch
	states []state
	events int // how many the delivery has, as outcomes say
	body   *Delivery
	recall bool
	dirty  bool
}

// writer is the one goroutine that changes the index.
type writer struct {
	x       *index
	batch   *pebble.Batch
	changes int
	began   time.Time // when the batch got its first change
	newest  time.Time // when the delivery that was taken last came
	applied [2]uint64
	waiting waiting
	dirty   []*live
	orphans map[ref][]*Outcome        // outcomes in this batch whose delivery is not there (yet)
	swept   [2]ref                    // rows below are deleted
	cleared [2]uint64                 // floors whose range is deleted
	unsaved bool                      // something since the last flush to disk
	buf     []byte                    // of keys
	value   []byte                    // of values
	counts  map[countMinute]*tallyRow // rows that come and go with this batch
	blocks  blocks
	ids     ids
	proofs  proofs
	lost    []valueAt // values that rows of this batch lost, and below those that came
	came    []valueAt // both of a kind that has keys of its own
	posted  postSweep
}

func (x *index) write() {
	defer close(x.done)
	w := &writer{x: x, batch: x.db.NewBatch(pebble.WithMaxRetainedSizeBytes(keptBatch)), orphans: map[ref][]*Outcome{}, counts: map[countMinute]*tallyRow{},
		blocks: blocks{posts: map[valueKey][]order{}}, ids: ids{full: x.o.shelfIDs, most: x.o.shelfSame}}
	w.applied = [2]uint64{x.position(0), x.position(1)}
	err := w.ids.load(x.db)
	if err == nil {
		err = w.run()
	}
	if err != nil {
		x.fail(err)
	}
}

func (w *writer) run() error {
	flush := time.NewTicker(indexFlushEvery)
	defer flush.Stop()
	due := time.NewTimer(w.x.o.batchDelay)
	defer due.Stop()
	err := w.x.steps(func() error {
		select {
		case c := <-w.x.in:
			if w.changes == 0 {
				w.began = time.Now()
				due.Reset(w.x.o.batchDelay)
			}
			if err := w.apply(c); err != nil {
				return err
			}
			if w.changes < w.x.o.batchChanges && w.x.held.Load() < maxHeldBodies/2 {
				return nil
			}
		case <-due.C:
			due.Reset(w.x.o.batchDelay)
			if w.changes > quickChanges && time.Since(w.began) < w.x.o.busyDelay {
				return nil
			}
		case <-flush.C:
			return w.save()
		case <-w.x.brokenC:
			return errWriterStops
		case <-w.x.stop:
			if err := w.drain(); err != nil {
				return err
			}
			return errWriterStops
		}
		// Sweeping begins with an empty batch, so that what it reads is all there is.
		return errors.Join(w.commit(), w.sweep(), w.commit())
	})
	if errors.Is(err, errWriterStops) {
		return nil
	}
	return err
}

// errWriterStops ends the writer; nothing is wrong.
var errWriterStops = errors.New("the index stops")

// drain applies what followers handed over before they ended.
func (w *writer) drain() error {
	for {
		select {
		case c := <-w.x.in:
			if err := w.apply(c); err != nil {
				return err
			}
		default:
			return w.commit()
		}
	}
}

// save writes memory to disk, so that a kill on a quiet system costs little.
func (w *writer) save() error {
	if !w.unsaved {
		return nil
	}
	w.unsaved = false
	if _, err := w.x.db.AsyncFlush(); err != nil {
		return fmt.Errorf("flush index: %w", err)
	}
	return nil
}

// apply takes one record into the batch. A record at or below the position was applied
// already (a follower that began again) and changes nothing.
func (w *writer) apply(c change) error {
	if c.seq <= w.applied[c.log] {
		w.release(c.body)
		return nil
	}
	w.applied[c.log] = c.seq
	w.changes++
	switch {
	case c.entry != nil:
		return w.delivery(c)
	case c.outcome != nil:
		return w.outcome(c.outcome)
	}
	return nil
}

func (w *writer) release(d *Delivery) {
	if d != nil {
		w.x.held.Add(-int64(len(d.Body) + len(d.Header) + len(d.Target)))
	}
}

func (w *writer) gone(r ref) bool { return r.seq() < w.x.floor[r.log()].Load() }

func (w *writer) delivery(c change) error {
	r := c.entry.ref
	if w.gone(r) {
		w.release(c.body)
		return nil
	}
	if r.log() == logMain {
		w.newest = c.entry.row.ReceivedAt
	}
	l := &live{e: c.entry, body: c.body, recall: c.recall}
	if r.log() == 1 {
		// The two logs are followed independently: outcomes of a released delivery may
		// have come before it.
		if err := w.load(l, r); err != nil {
			return err
		}
		for _, o := range w.orphans[r] {
			l.outcome(o)
		}
	}
	l.settle()
	w.waiting.put(l)
	w.touch(l)
	return nil
}

func (w *writer) touch(l *live) {
	if !l.dirty {
		l.dirty = true
		w.dirty = append(w.dirty, l)
	}
}

func (w *writer) outcome(o *Outcome) error {
	r := makeRef(0, o.Delivery)
	if w.gone(r) {
		return nil
	}
	w.x.metrics.outcomes.Inc()
	w.buf = outcomeKey(w.buf, r, o.Seq)
	w.value = w.x.codec.outcome(w.value, o, r)
	if err := w.batch.Set(w.buf, w.value, nil); err != nil {
		return fmt.Errorf("index outcome seq=%d: %w", o.Seq, err)
	}
	l, err := w.find(r)
	if err != nil {
		return err
	}
	id := ""
	if l != nil && r.log() == 0 {
		id = l.e.row.ID // of a released one it is looked up when asked: its row may come later
	}
	if proves(o) {
		if err := o.proofs(func(proved, content Identity) error {
			w.x.seen.add(proved)
			w.value = w.x.codec.evidence(w.value, r, o, content, id)
			w.proofs.add(w.x.codec.identity(proved), w.value)
			return nil
		}); err != nil {
			return fmt.Errorf("index evidence of outcome seq=%d: %w", o.Seq, err)
		}
	}
	if l == nil {
		w.orphans[r] = append(w.orphans[r], o)
		return nil
	}
	if l.outcome(o) {
		l.settle()
		w.touch(l)
	}
	return nil
}

// outcome takes over what an outcome says, and whether it says anything about the row:
// publishing again (a replay) does not.
func (l *live) outcome(o *Outcome) bool {
	if o.Replay != "" {
		return false
	}
	l.events = max(l.events, o.Items)
	l.set(state{seq: o.Seq, sink: o.Sink, item: o.Item, kind: o.Kind, of: o.Of})
	l.e.setItem(o.Item, o.Fields, false)
	return true
}

func (l *live) set(s state) {
	for i := range l.states {
		if l.states[i].item == s.item && l.states[i].sink == s.sink {
			if s.seq >= l.states[i].seq {
				l.states[i] = s
			}
			return
		}
	}
	l.states = append(l.states, s)
}

// settle derives from the states what the row shows.
func (l *live) settle() {
	l.e.kinds, l.e.row.DuplicateOf = 0, ""
	first := -1
	for i := range l.states {
		s := &l.states[i]
		l.e.kinds |= 1 << s.kind
		if s.kind == Duplicate && (first < 0 || s.item < l.states[first].item) {
			first = i
		}
	}
	if first >= 0 {
		l.e.row.DuplicateOf = l.states[first].of
	}
}

// find gives the entry of a delivery, nil when the index has none.
func (w *writer) find(r ref) (*live, error) {
	if l := w.waiting.get(r); l != nil {
		return l, nil
	}
	e, err := w.x.readEntry(r)
	if err != nil || e == nil {
		return nil, err
	}
	l := &live{e: e, keys: w.x.codec.valueKeys(e)}
	if err := w.load(l, r); err != nil {
		return nil, err
	}
	w.waiting.put(l)
	return l, nil
}

// load reads the states of a delivery out of the outcomes that are committed.
func (w *writer) load(l *live, r ref) error {
	return w.x.eachOutcome(r, func(o *Outcome) { l.outcome(o) })
}

// commit makes the batch visible: rows, the values that changed, and the position.
func (w *writer) commit() error {
	if w.changes == 0 && w.batch.Empty() {
		return nil
	}
	x := w.x
	for _, l := range w.dirty {
		if l.keys == nil {
			w.blocks.time(l.e.ref, l.e.row.ReceivedAt)
			w.tally(&l.e.row, 1)
		}
	}
	// The last row first: their keys ascend then, and those of one kind after another, which
	// halves what the memtable takes to find their places.
	for i := len(w.dirty) - 1; i >= 0; i-- {
		if err := w.put(w.dirty[i]); err != nil {
			return err
		}
	}
	if err := errors.Join(w.putSingles(), w.proofs.put(w.batch)); err != nil {
		return err
	}
	// Positions only grow with a change, and without one there is nothing to put.
	if err := errors.Join(w.ids.put(w.batch), w.blocks.put(w.batch, batchNo(w.applied[0]+w.applied[1])), w.putCounts()); err != nil {
		return err
	}
	for log, seq := range w.applied {
		if err := w.batch.Set(posKey(log), uintValue(seq), nil); err != nil {
			return fmt.Errorf("index position of log %d: %w", log, err)
		}
	}
	if err := w.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("commit index batch at seq=%d: %w", w.applied[0], err)
	}
	// After the commit: who subscribed before it may have looked before it, too, and would
	// else get these rows neither way.
	var rows []TailRow
	if x.subs.watched() {
		for _, l := range w.dirty {
			rows = append(rows, TailRow{Row: l.e.public(), kinds: l.e.kinds, items: append([]item(nil), l.e.items...)})
		}
	}
	x.pace(w.newest)
	x.metrics.batches.Inc()
	x.metrics.rows.Add(float64(len(w.dirty)))
	w.batch.Reset()
	w.waiting.committed(w.dirty)
	clear(w.dirty)
	w.changes, w.dirty, w.unsaved = 0, w.dirty[:0], true
	clear(w.orphans)
	x.subs.send(rows)
	// Last: who sees a position finds its rows, and the tail has had them.
	for log, seq := range w.applied {
		x.pos[log].Store(seq)
	}
	return nil
}

// put writes one row and what changed among its searchable values.
func (w *writer) put(l *live) error {
	if l.body != nil {
		if !l.e.knows() {
			w.x.guess(l.e, l.body)
		}
		w.release(l.body)
		l.body = nil
	}
	if l.recall && !l.e.knows() {
		w.x.recall(l.e)
	}
	l.dirty, l.recall = false, false
	e := w.x.codec.visible(l.e)
	o := makeOrder(e.row.ReceivedAt, e.ref)
	keys := w.x.codec.valueKeys(e)
	for _, k := range keys {
		switch {
		case hasKey(l.keys, k):
		case k.kind == unique && w.ids.post(k, o):
		case k.kind == single:
			w.came = append(w.came, valueAt{k, o})
		default:
			w.blocks.post(k, o)
			w.posted.keep = max(w.posted.keep, narrow.of(o[:]))
		}
	}
	for _, k := range l.keys {
		if k.kind == single && !hasKey(keys, k) {
			w.lost = append(w.lost, valueAt{k, o})
		}
	}
	l.keys = keys
	w.buf = rowKey(w.buf, o)
	w.value = w.x.codec.row(w.value, e)
	if err := w.batch.Set(w.buf, w.value, nil); err != nil {
		return fmt.Errorf("index delivery %s: %w", e.row.ID, err)
	}
	return nil
}

// valueAt is a value of a row.
type valueAt struct {
	k  valueKey
	at order
}

// putSingles writes the keys of values that have them for each row.
func (w *writer) putSingles() error {
	for _, v := range w.lost {
		w.buf = v.k.key(w.buf, v.at)
		if err := w.batch.Delete(w.buf, nil); err != nil {
			return fmt.Errorf("index delivery seq=%d: %w", v.at.ref().seq(), err)
		}
	}
	for _, v := range w.came {
		w.buf = v.k.key(w.buf, v.at)
		if err := w.batch.Set(w.buf, nil, nil); err != nil {
			return fmt.Errorf("index delivery seq=%d: %w", v.at.ref().seq(), err)
		}
	}
	w.lost, w.came = w.lost[:0], w.came[:0]
	return nil
}

func hasKey(keys []valueKey, k valueKey) bool {
	for _, have := range keys {
		if have == k {
			return true
		}
	}
	return false
}
