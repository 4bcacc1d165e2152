package forward

import (
	"encoding/binary"
	"slices"
)

// seqList is a list of events, packed: about two bytes an event, so that millions may
// wait for a topic or a paused source without their bodies. It gives them in the order of
// the log, whatever order they came in. It grows by chunks and gives them back as they are
// read.
type seqList struct {
	chunks [][]byte
	off    int    // read position in the first chunk
	last   ref    // last written to the chunks
	prev   uint64 // last seq read from them
	n      int
	early  []ref // came behind later ones, which events do that waited elsewhere; in order
}

const seqChunk = 32 << 10

func (r ref) before(other ref) bool {
	return r.seq < other.seq || r.seq == other.seq && r.item < other.item
}

func (l *seqList) push(r ref) {
	if l.n == 0 {
		*l = seqList{}
	}
	l.n++
	if len(l.chunks) > 0 && r.before(l.last) {
		i := len(l.early)
		for i > 0 && r.before(l.early[i-1]) {
			i--
		}
		l.early = slices.Insert(l.early, i, r)
		return
	}
	k := len(l.chunks) - 1
	if k < 0 || len(l.chunks[k])+2*binary.MaxVarintLen64 > seqChunk {
		l.chunks = append(l.chunks, make([]byte, 0, seqChunk))
		k++
	}
	if len(l.chunks) == 1 && len(l.chunks[k]) == 0 {
		l.last, l.prev = ref{}, 0
	}
	l.chunks[k] = binary.AppendUvarint(l.chunks[k], r.seq-l.last.seq)
	l.chunks[k] = binary.AppendUvarint(l.chunks[k], uint64(r.item))
	l.last = r
}

// pop returns the oldest; ok is false when there is none.
func (l *seqList) pop() (r ref, ok bool) {
	r, ok = l.peek()
	if !ok {
		return ref{}, false
	}
	l.n--
	if len(l.early) > 0 && r == l.early[0] {
		l.early = l.early[1:]
		return r, true
	}
	c := l.chunks[0]
	for range 2 {
		_, k := binary.Uvarint(c[l.off:])
		l.off += k
	}
	l.prev = r.seq
	if l.off == len(c) {
		l.chunks[0] = nil
		l.chunks, l.off = l.chunks[1:], 0
	}
	return r, true
}

// peek returns the oldest without taking it.
func (l *seqList) peek() (r ref, ok bool) {
	if l.n == 0 {
		return ref{}, false
	}
	if len(l.chunks) > 0 {
		c := l.chunks[0]
		delta, k := binary.Uvarint(c[l.off:])
		item, _ := binary.Uvarint(c[l.off+k:])
		r, ok = ref{l.prev + delta, int(item)}, true
	}
	if len(l.early) > 0 && (!ok || l.early[0].before(r)) {
		r = l.early[0]
	}
	return r, true
}

// has looks whether r is in the list, one by one: it is asked for what a person points at.
func (l *seqList) has(r ref) bool {
	at, seq := l.off, l.prev
	for _, c := range l.chunks {
		for at < len(c) {
			delta, k := binary.Uvarint(c[at:])
			at += k
			item, k := binary.Uvarint(c[at:])
			at += k
			if seq += delta; seq == r.seq && int(item) == r.item {
				return true
			}
		}
		at = 0
	}
	return slices.Contains(l.early, r)
}

// lowest returns a seq that nothing in the list is below; 0 when it is empty.
func (l *seqList) lowest() uint64 {
	r, _ := l.peek()
	return r.seq
}
