package archive

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// getBuffers are what single records are looked for in.
var getBuffers = sync.Pool{New: func() any { return new([]byte) }}

// get reads the record of a seq.
func (j *journal) get(seq uint64) (Record, error) {
	if synced := j.synced.Load(); seq == 0 || seq > synced {
		if seq > synced && seq <= j.recovered && j.carrying.Load() {
			return Record{}, fmt.Errorf("%w: seq=%d is carried over from the last segment when it can", ErrUnavailable, seq)
		}
		return j.pending(seq)
	}
	seg, f, err := j.acquire(seq)
	if err != nil {
		return Record{}, fmt.Errorf("read seq=%d: %w", seq, err)
	}
	if seg == nil {
		return Record{}, ErrNotFound
	}
	defer seg.release()
	if err := seg.load(f); err != nil {
		return Record{}, fmt.Errorf("read seq=%d from segment %s: %w", seq, seg.name, err)
	}
	j.warm.keep(seg)
	sc := seg.scan(f, seg.enter(seq))
	buf := getBuffers.Get().(*[]byte)
	sc.buf = (*buf)[:0]
	sc.chunk = markEvery
	if seg.stored.Load() > 0 {
		sc.chunk = packedChunk
	}
	rec, err := j.find(seg, sc, seq)
	if err == nil && rec.Marker == nil && cap(sc.buf) <= 4*markEvery { // a marker's data is not copied
		*buf = sc.buf
		getBuffers.Put(buf)
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		// A bad sector beside the record must not keep it from being read.
		sc = seg.scan(f, seg.enter(seq))
		sc.salvage = true
		rec, err = j.find(seg, sc, seq)
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return Record{}, fmt.Errorf("read seq=%d from segment %s: %w", seq, seg.name, err)
	}
	return rec, err
}

// find reads forward to seq. It checks every record on its way, so that a damaged
// length cannot lead past the one that is wanted.
func (j *journal) find(seg *segment, sc *scanner, seq uint64) (Record, error) {
	var last uint64
	var bad *region // damage since the last good record
	for {
		it, err := sc.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return Record{}, err
		}
		if err == nil && !it.isFrame() {
			if bad == nil {
				r := it.region
				bad = &r
			}
			continue
		}
		if err == nil && !it.frame.typ.record() {
			continue
		}
		if err == nil && it.frame.seq < seq {
			last, bad = it.frame.seq, nil
			continue
		}
		if err == nil && it.frame.seq == seq {
			return j.decode(seg, it.frame)
		}
		if bad == nil {
			return Record{}, ErrNotFound
		}
		e := &CorruptError{Segment: seg.name, SegmentNo: seg.head.tag.number, Offset: bad.off, Size: bad.size,
			FirstSeq: max(last+1, seg.lowest()), LastSeq: j.lastSeq(seg), Reason: bad.why}
		if err == nil {
			e.LastSeq = it.frame.seq - 1
		}
		j.damaged(e)
		return Record{}, e
	}
}

func (j *journal) decode(seg *segment, f frame) (Record, error) {
	dec := payloadReader{keys: j.o.Keys}
	rec, err := dec.record(f)
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		return Record{}, j.markErased(erased)
	}
	if err != nil {
		e := &CorruptError{Segment: seg.name, SegmentNo: seg.head.tag.number, Offset: f.off, Size: f.size,
			FirstSeq: f.seq, LastSeq: f.seq, Reason: err.Error()}
		j.damaged(e)
		return Record{}, e
	}
	j.mark(&rec)
	return rec, nil
}

// acquire opens the segment that seq is in; nil when it is in none. The segment wants a
// release.
func (j *journal) acquire(seq uint64) (*segment, File, error) {
	for {
		seg := j.holding(seq)
		if seg == nil {
			return nil, nil, nil
		}
		f, err := seg.acquire()
		if errors.Is(err, errGone) {
			continue // removed or thinned meanwhile: another has its seqs, or none
		}
		if err != nil {
			return nil, nil, err
		}
		return seg, f, nil
	}
}

// holding gives the segment that seq is in, if it is anywhere.
func (j *journal) holding(seq uint64) *segment {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	if i := j.search(seq); i >= 0 {
		return j.segs[i]
	}
	return nil
}

// pending reads a record that is not synced yet. Only a journal whose appends do not
// wait has any that someone may ask for.
func (j *journal) pending(seq uint64) (Record, error) {
	if j.o.Linger == 0 {
		return Record{}, ErrNotFound
	}
	j.mu.Lock()
	b, tag := j.pendingFrame(seq)
	j.mu.Unlock()
	if b == nil {
		if seq > 0 && seq <= j.synced.Load() {
			return j.get(seq) // it was synced while we looked
		}
		return Record{}, ErrNotFound
	}
	f, why := decodeFrame(b, 0)
	if why != "" {
		return Record{}, fmt.Errorf("BUG: record seq=%d of segment number %d in memory: %s", seq, tag.number, why)
	}
	dec := payloadReader{keys: j.o.Keys}
	rec, err := dec.record(f)
	if err != nil {
		return Record{}, err
	}
	j.mark(&rec)
	return rec, nil
}

// pendingFrame copies the frame of seq out of the batches in memory. Caller holds mu.
func (j *journal) pendingFrame(seq uint64) ([]byte, tag) {
	for _, b := range append([]*batch{j.committing, j.cur}, j.queue...) {
		if b == nil || seq > b.last {
			continue
		}
		for at := 0; at < b.size; {
			size, why := frameSize(b.buf[at:], b.tag)
			if why != "" {
				break
			}
			fr := b.buf[at : at+int(size)]
			if s := frameSeq(fr); s == seq {
				return append([]byte(nil), fr...), b.tag
			} else if s > seq {
				break
			}
			at += int(size)
		}
	}
	return nil, tag{}
}
