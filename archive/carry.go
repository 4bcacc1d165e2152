package archive

import (
	"bytes"
	"errors"
	"io"
)

// tailScan is what the newest segment holds.
type tailScan struct {
	end     int64 // of the last frame that verifies
	synced  int64 // it proves that everything below was synced
	bad     []region
	seal    *frame
	last    uint64 // highest seq
	err     error
	markers func(*Marker)
}

// scanTail reads a segment from its first frame to its last.
func scanTail(f File, seg *segment, markers func(*Marker)) tailScan {
	t := tailScan{end: segmentHead, synced: max(segmentHead, seg.head.syncedTo), markers: markers}
	sc := &scanner{src: f, tag: seg.head.tag, off: segmentHead, end: seg.size.Load(), chunk: 1 << 20}
	var dec payloadReader
	for t.seal == nil {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !sc.salvage {
			t.err, sc.salvage = err, true // what can be read is read
			continue
		}
		if err != nil {
			break
		}
		if !it.isFrame() {
			t.bad = append(t.bad, it.region)
			continue
		}
		t.frame(it.frame, &dec)
	}
	return t
}

func (t *tailScan) frame(f frame, dec *payloadReader) {
	t.synced = max(t.synced, f.base)
	switch f.typ {
	case typeSync:
		// It names the last record, which may be damaged.
		t.last = max(t.last, f.seq)
		return
	case typeSeal:
		f.payload = bytes.Clone(f.payload)
		t.seal = &f
		return
	}
	t.end = f.off + f.size
	t.last = max(t.last, f.seq)
	if f.typ == typeMarker && t.markers != nil {
		if rec, err := dec.record(f); err == nil {
			t.markers(rec.Marker)
		}
	}
}

// tail recovers the newest segment.
func (r *recovery) tail(seg *segment) error {
	f, err := seg.acquire()
	if err != nil {
		r.damage(seg.name, "cannot be opened: %v", err)
		return nil
	}
	defer seg.release()
	docs := make(map[uint64]carried)
	t := scanTail(f, seg, r.marker(docs))
	if t.err != nil {
		r.damage(seg.name, "has parts that cannot be read: %v", t.err)
	}
	seg.closed.Store(true)
	r.lastSeq = max(r.lastSeq, t.last, seg.head.first)
	if t.seal != nil && t.seal.off >= t.end {
		seg.end.Store(t.seal.off)
		if err := seg.readFooter(t.seal.payload); err == nil {
			r.lastSeq = max(r.lastSeq, seg.tally.last)
			r.nameCuts(seg)
			return nil
		}
	}
	seg.end.Store(t.synced)
	r.judge(seg, &t)
	r.carryOver(seg, f, &t, docs)
	if t.synced == segmentHead && len(r.carry) == 0 {
		r.empty(seg)
		return nil
	}
	if err := seg.rebuild(f); err != nil {
		r.note(seg.name, "stays without footer: %v", err)
		return nil
	}
	seg.tally.digest = digestOf(f, seg)
	if t.synced >= t.end {
		seg.tally.last = max(seg.tally.last, t.last)
	}
	if seg.stored.Load() == 0 { // a packed one has a footer, if a damaged one, and is not written
		r.unsealed, seg.ours = seg, true
	}
	return nil
}

// judge tells damage from torn writes.
func (r *recovery) judge(seg *segment, t *tailScan) {
	for _, bad := range t.bad {
		if bad.off >= t.synced {
			r.keepTorn(seg, bad)
			continue
		}
		bad.size = min(bad.size, t.synced-bad.off)
		r.damage(seg.name, "%d bytes at offset %d are damaged: %s", bad.size, bad.off, bad.why)
		seg.cuts = append(seg.cuts, bad)
	}
}

// carried is a record that the next segment begins with.
type carried struct {
	typ     frameType
	flags   uint8
	seq     uint64
	payload []byte
}

// carryOver collects the records above the last synced point, and behind them the
// epochs that they need: each segment explains itself.
func (r *recovery) carryOver(seg *segment, f File, t *tailScan, docs map[uint64]carried) {
	sc := &scanner{src: f, tag: seg.head.tag, off: t.synced, end: t.end, salvage: true}
	dec := payloadReader{skimDeliveries: true, skimOutcomes: true} // needs no key
	need := make(map[uint64]bool)
	for {
		it, err := sc.next()
		if err != nil {
			break
		}
		if !it.isFrame() || !it.frame.typ.record() {
			continue
		}
		r.carry = append(r.carry, carried{it.frame.typ, it.frame.flags, it.frame.seq, bytes.Clone(it.frame.payload)})
		rec, err := dec.record(it.frame)
		switch {
		case err != nil:
		case rec.Delivery != nil:
			need[rec.Delivery.Epoch] = true
		case rec.Marker != nil && rec.Marker.Kind == EpochMarker:
			delete(docs, rec.Marker.ID) // it is carried itself
		}
	}
	for id := range need {
		if doc, ok := docs[id]; ok {
			r.lastSeq++
			r.carry = append(r.carry, carried{typeMarker, 0, r.lastSeq, doc.payload})
		}
	}
	if n := len(r.carry); n > 0 {
		r.note(seg.name, "%d records were written and not known to be synced; they are carried over", n)
	}
}

// marker collects what the markers of the newest segment say.
func (r *recovery) marker(docs map[uint64]carried) func(*Marker) {
	return func(m *Marker) {
		if m.Kind == EpochMarker {
			docs[m.ID] = carried{payload: putMarker(nil, m)}
		}
		if r.markers != nil {
			r.markers(m)
		}
	}
}

// nameCuts repeats what an earlier recovery found in a segment, for the log.
func (r *recovery) nameCuts(seg *segment) {
	for _, c := range seg.cuts {
		r.damage(seg.name, "%d bytes at offset %d are damaged", c.size, c.off)
	}
}

// empty deals with a newest segment that has no records: usually one that never got
// any, and goes.
func (r *recovery) empty(seg *segment) {
	if r.head.number >= seg.head.tag.number {
		r.damage(seg.name, "holds no records any more, and there were some")
		r.skipped(seg.head.first)
		return
	}
	if seg.head.pred.poisoned {
		return // it alone says where its predecessor ends
	}
	if err := r.remove(seg.path); err != nil {
		r.note(seg.name, "is empty and cannot be removed: %v", err)
		return
	}
	r.segs = r.segs[:len(r.segs)-1]
}
