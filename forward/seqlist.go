package forward

import "encoding/binary"

// seqList is a FIFO of events, packed: about two bytes an event, so that millions may
// wait for a topic or a paused source without their bodies. It grows by chunks and
// gives them back as they are read.
type seqList struct {
	chunks [][]byte
	off    int    // read position in the first chunk
	last   uint64 // last seq written
	prev   uint64 // last seq read
	n      int
	min    uint64 // no seq in it is below; only grows while it is sorted
	sorted bool
}

const seqChunk = 32 << 10

func (l *seqList) push(r ref) {
	if l.n == 0 {
		*l = seqList{sorted: true, min: r.seq}
	}
	if r.seq < l.last {
		l.sorted = false
		l.min = min(l.min, r.seq)
	}
	k := len(l.chunks) - 1
	if k < 0 || len(l.chunks[k])+2*binary.MaxVarintLen64 > seqChunk {
		l.chunks = append(l.chunks, make([]byte, 0, seqChunk))
		k++
	}
	// Zig-zag: a redriven event may come back behind later ones.
	l.chunks[k] = binary.AppendVarint(l.chunks[k], int64(r.seq-l.last))
	l.chunks[k] = binary.AppendUvarint(l.chunks[k], uint64(r.item))
	l.last = r.seq
	l.n++
}

// pop returns the oldest; ok is false when there is none.
func (l *seqList) pop() (r ref, ok bool) {
	if l.n == 0 {
		return ref{}, false
	}
	c := l.chunks[0]
	delta, k := binary.Varint(c[l.off:])
	l.off += k
	item, k := binary.Uvarint(c[l.off:])
	l.off += k
	l.prev += uint64(delta)
	l.n--
	if l.off == len(c) {
		l.chunks[0] = nil
		l.chunks, l.off = l.chunks[1:], 0
	}
	return ref{l.prev, int(item)}, true
}

// peek returns the oldest without taking it.
func (l *seqList) peek() (ref, bool) {
	c := *l
	if c.n == 0 {
		return ref{}, false
	}
	delta, k := binary.Varint(c.chunks[0][c.off:])
	item, _ := binary.Uvarint(c.chunks[0][c.off+k:])
	return ref{c.prev + uint64(delta), int(item)}, true
}

// has looks whether r is in the list, one by one: it is asked for what a person points at.
func (l *seqList) has(r ref) bool {
	at, seq := l.off, l.prev
	for _, c := range l.chunks {
		for at < len(c) {
			delta, k := binary.Varint(c[at:])
			at += k
			item, k := binary.Uvarint(c[at:])
			at += k
			if seq += uint64(delta); seq == r.seq && int(item) == r.item {
				return true
			}
		}
		at = 0
	}
	return false
}

// lowest returns a seq that nothing in the list is below; 0 when it is empty.
func (l *seqList) lowest() uint64 {
	if l.n == 0 {
		return 0
	}
	if l.sorted {
		r, _ := l.peek()
		return r.seq
	}
	return l.min
}
