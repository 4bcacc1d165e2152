package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
)

// CorruptError says which records cannot be read any more, and why. It is an
// ErrCorrupt. The records around them are not touched by it.
type CorruptError struct {
	Segment   string // file name
	Offset    int64  // where in it the damage begins
	Size      int64  // bytes that hold no readable record
	FirstSeq  uint64 // lowest seq that may have been there
	LastSeq   uint64 // highest
	Reason    string
	SegmentNo uint64
}

// Error names the place, the seqs and the reason.
func (e *CorruptError) Error() string {
	if e.FirstSeq == e.LastSeq {
		return fmt.Sprintf("record seq=%d at offset %d of segment %s is damaged: %s", e.LastSeq, e.Offset, e.Segment, e.Reason)
	}
	return fmt.Sprintf("%d bytes at offset %d of segment %s are damaged (seqs %d to %d were there, or were never given): %s",
		e.Size, e.Offset, e.Segment, e.FirstSeq, e.LastSeq, e.Reason)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Reader reads a log in order, from a seq on, up to the synced mark and never beyond.
// It belongs to one goroutine.
type Reader struct {
	j        *journal
	from     uint64 // lowest seq that is wanted
	seg      *segment
	sc       *scanner // over seg's file, which is acquired while sc is not nil
	dec      payloadReader
	wake     chan struct{}
	closed   bool
	failures int     // reads that failed in a row
	last     uint64  // highest seq given or passed
	limit    uint64  // highest seq that can be in what is read now
	ready    *Record // given before anything else is read
}

// Skim tells the reader what its owner only wants to count. A skimmed delivery has no
// more than Seq, ReceivedAt, Source, Epoch and Verdict, a skimmed outcome lacks its twin,
// identity, content and fields. Both stand in memory that the next call uses again.
func (r *Reader) Skim(deliveries, outcomes bool) {
	r.dec.skimDeliveries, r.dec.skimOutcomes = deliveries, outcomes
}

// Lend spares the reader a copy of every delivery: Target, Header and Body of what it gives
// stand in its own memory until the next call.
func (r *Reader) Lend() { r.dec.lend = true }

// readAttempts is how often a read error is reported before the place counts as
// damaged: a controller that resets must not cost records, a dead sector must not hold
// up the rest for ever.
const readAttempts = 5

func (j *journal) newReader(from uint64) *Reader {
	r := &Reader{j: j, from: max(from, 1), wake: make(chan struct{}, 1), dec: payloadReader{keys: j.o.Keys}}
	j.segMu.Lock()
	j.readers[r] = struct{}{}
	j.segMu.Unlock()
	return r
}

// notify tells readers that there is more to read, or that the journal has closed.
func (j *journal) notify() {
	j.segMu.RLock()
	for r := range j.readers {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	j.segMu.RUnlock()
}

// Close ends the reader. Call it from the goroutine that reads.
func (r *Reader) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.j.segMu.Lock()
	delete(r.j.readers, r)
	r.j.segMu.Unlock()
	r.leave()
}

// Next gives the next record and blocks at the synced mark until there is one. It
// returns ctx's error, or ErrClosed when the archive is closed and all of it is read.
// Any other error is one of reading; it may pass, so call again.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Record{}, err
		}
		ended := r.j.ended()
		rec, ok, err := r.TryNext()
		if ok {
			return rec, nil
		}
		if err != nil {
			if r.pause(ctx) {
				continue
			}
			return Record{}, err
		}
		if ended {
			return Record{}, ErrClosed
		}
		select {
		case <-r.wake:
		case <-r.j.stopped:
		case <-ctx.Done():
			return Record{}, ctx.Err()
		}
	}
}

// pause waits after a failed read, longer each time; false when ctx has ended.
func (r *Reader) pause(ctx context.Context) bool {
	timer := time.NewTimer(time.Duration(r.failures) * 100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// TryNext gives the next record if there is one.
func (r *Reader) TryNext() (Record, bool, error) {
	if r.closed {
		return Record{}, false, ErrClosed
	}
	for {
		if r.sc == nil {
			more, err := r.open()
			if rec := r.ready; rec != nil {
				r.ready = nil
				return *rec, true, nil
			}
			if err != nil || !more {
				return Record{}, false, err
			}
			continue
		}
		r.limit = r.j.synced.Load()  // before end: then nothing below it lies beyond end
		final := r.seg.closed.Load() // before end: then end is final
		r.sc.end = r.seg.end.Load()
		it, err := r.sc.next()
		switch {
		case errors.Is(err, io.EOF) && final:
			r.leave()
			continue
		case errors.Is(err, io.EOF):
			return Record{}, false, nil
		case err != nil:
			r.readFailed(err)
			return Record{}, false, fmt.Errorf("read segment %s: %w", r.seg.name, err)
		}
		r.failures = 0
		if rec, ok := r.item(it); ok {
			return rec, true, nil
		}
	}
}

func (r *Reader) readFailed(err error) {
	r.failures++
	if r.failures >= readAttempts && !r.sc.salvage {
		r.j.log.Error("segment cannot be read; its unreadable pages count as damaged",
			zap.String("segment", r.seg.name), zap.Int64("offset", r.sc.off), zap.Error(err))
		r.sc.salvage = true
	}
}

// item turns what the scanner found into a record, if it is one that is wanted.
func (r *Reader) item(it scanItem) (Record, bool) {
	if !it.isFrame() {
		return r.corrupt(it.region)
	}
	f := it.frame
	if !f.typ.record() {
		return Record{}, false
	}
	if f.seq <= r.last {
		return Record{}, false // given before the segment was thinned into another
	}
	r.last = f.seq
	if f.seq < r.from {
		return Record{}, false
	}
	rec, err := r.dec.record(f)
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		return Record{Seq: f.seq, Corrupt: r.j.markErased(erased)}, true
	}
	if err != nil {
		return r.corruptAt(region{off: f.off, size: f.size, why: err.Error()}, f.seq, f.seq)
	}
	r.j.mark(&rec)
	return rec, true
}

// mark sets the bit that tells a quarantined delivery's seq from the log's.
func (j *journal) mark(rec *Record) {
	if rec.Delivery != nil {
		rec.Delivery.Seq |= j.seqBit()
	}
}

func (j *journal) markErased(e *ErasedError) *ErasedError {
	if e.Delivery != nil {
		e.Delivery.Seq |= j.seqBit()
	}
	return e
}

// corrupt reports a region. Which seqs were in it follows from its neighbours.
func (r *Reader) corrupt(bad region) (Record, bool) {
	last := r.limit
	if r.seg.closed.Load() && r.sc.end == r.seg.end.Load() {
		last = r.j.lastSeq(r.seg)
	}
	if f, why, err := r.sc.frameAt(r.sc.off); err == nil && why == "" && f.typ.record() {
		last = f.seq - 1
	}
	return r.corruptAt(bad, max(r.last+1, r.seg.lowest()), last)
}

func (r *Reader) corruptAt(bad region, first, last uint64) (Record, bool) {
	if last < first {
		return Record{}, false // a gap held nothing
	}
	e := &CorruptError{Segment: r.seg.name, SegmentNo: r.seg.head.tag.number, Offset: bad.off, Size: bad.size,
		FirstSeq: first, LastSeq: last, Reason: bad.why}
	r.j.damaged(e)
	r.last = last
	if last < r.from {
		return Record{}, false
	}
	e.FirstSeq = max(first, r.from)
	return Record{Seq: last, Corrupt: e}, true
}

// open goes to the segment that holds the next seq; false when there is none yet.
func (r *Reader) open() (bool, error) {
	seg, missing := r.j.after(r.seg, max(r.last+1, r.from))
	if seg == nil {
		return false, nil
	}
	f, err := seg.acquire()
	if errors.Is(err, errGone) {
		return true, nil // removed or thinned: it is not in the list any more
	}
	if err != nil {
		r.failures++
		if r.failures < readAttempts {
			return false, err
		}
		// It cannot be opened at all: what it held counts as damaged.
		r.failures, r.seg = 0, seg
		rec, ok := r.corruptAt(region{why: err.Error()}, max(r.last+1, seg.lowest()), r.j.lastSeq(seg))
		if ok {
			r.ready = &rec
		}
		return true, nil
	}
	r.failures = 0
	if missing != nil {
		r.ready = r.report(missing)
	}
	off := int64(segmentHead)
	if r.from > seg.head.first && r.last < r.from {
		if err := seg.load(f); err == nil {
			off = seg.enter(r.from)
		}
	}
	r.seg, r.sc = seg, seg.scan(f, off)
	r.last = max(r.last, seg.lowest()-1)
	return true, nil
}

// report gives the record that stands for missing segments, if anyone wants them.
func (r *Reader) report(e *CorruptError) *Record {
	e.FirstSeq = max(e.FirstSeq, r.from, r.last+1)
	if e.FirstSeq > e.LastSeq {
		return nil
	}
	r.j.damaged(e)
	r.last = e.LastSeq
	return &Record{Seq: e.LastSeq, Corrupt: e}
}

// leave gives the current segment back; r.seg stays, to know what comes after it.
func (r *Reader) leave() {
	if r.sc != nil {
		r.sc = nil
		r.seg.release()
	}
}

// after gives the segment to read when prev is finished: the next in order, or, with no
// prev, the one that holds seq from. Where the chain says that segments between are
// missing, it says so too.
func (j *journal) after(prev *segment, from uint64) (*segment, *CorruptError) {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	if prev == nil {
		i := j.search(from)
		if i < 0 {
			i = 0
		}
		if i >= len(j.segs) {
			return nil, nil
		}
		return j.segs[i], nil
	}
	for i, s := range j.segs {
		if s.head.tag.number <= prev.head.tag.number {
			continue
		}
		if i > 0 && s.head.pred.number > j.segs[i-1].head.tag.number {
			return s, j.missing(j.segs[i-1], s)
		}
		return s, nil
	}
	return nil, nil
}

// missing describes the hole between two neighbours of which the later does not name
// the earlier as its predecessor.
func (j *journal) missing(a, b *segment) *CorruptError {
	return &CorruptError{Segment: segmentName(b.head.pred.first), SegmentNo: b.head.pred.number,
		FirstSeq: a.head.first + 1, LastSeq: b.head.first - 1,
		Reason: fmt.Sprintf("the file is missing: segment %s names it as its predecessor", b.name)}
}

// search gives the index of the last segment whose first seq is not above seq, or -1.
// Caller holds segMu.
func (j *journal) search(seq uint64) int {
	lo, hi := 0, len(j.segs)
	for lo < hi {
		mid := (lo + hi) / 2
		if j.segs[mid].head.first <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// lastSeq is the highest seq that can be in a segment: below its successor's first, and
// synced.
func (j *journal) lastSeq(seg *segment) uint64 {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	for _, s := range j.segs {
		if s.head.tag.number > seg.head.tag.number {
			return s.head.first - 1
		}
	}
	return j.synced.Load()
}

// ended says whether nothing will be appended any more.
func (j *journal) ended() bool {
	select {
	case <-j.stopped:
		return true
	default:
		return false
	}
}
