package archive

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// A delivery's public id is a ULID: 48 bits of time (ms, from ReceivedAt), 32 bits of
// node (random, of this archive), one bit that says quarantine, 47 bits of seq. So a
// record is found by its id without an index, and ids of one node sort by time.
const (
	// QuarantineBit is set in the Seq of a delivery that lies in the quarantine, and in
	// Outcome.Delivery where a released one is meant: a seq alone says in which log.
	QuarantineBit uint64 = 1 << 47

	maxSeq = QuarantineBit - 1
)

func makeID(at time.Time, node uint32, seq uint64) (id ulid.ULID) {
	ms := min(uint64(max(at.UnixMilli(), 0)), ulid.MaxTime())
	// SetTime only refuses what the line above cut off.
	_ = id.SetTime(ms)
	binary.BigEndian.PutUint32(id[6:], node)
	seq &= QuarantineBit | maxSeq
	binary.BigEndian.PutUint16(id[10:], uint16(seq>>32))
	binary.BigEndian.PutUint32(id[12:], uint32(seq&math.MaxUint32))
	return id
}

// parseID gives node and seq (with the quarantine bit) of an id.
func parseID(s string) (id ulid.ULID, node uint32, seq uint64, ok bool) {
	id, err := ulid.ParseStrict(s)
	if err != nil {
		return id, 0, 0, false
	}
	node = binary.BigEndian.Uint32(id[6:])
	seq = uint64(binary.BigEndian.Uint16(id[10:]))<<32 | uint64(binary.BigEndian.Uint32(id[12:]))
	return id, node, seq, true
}

// SeqOf gives the seq that stands in a delivery's id, with QuarantineBit for a refused
// one; false for what is no id.
func SeqOf(id string) (seq uint64, ok bool) {
	_, _, seq, ok = parseID(id)
	return seq, ok
}

// idText hands out the text of ids without an allocation for each: the texts share the
// memory of a builder, which is left behind when it is full.
type idText struct{ b strings.Builder }

// idChunk is how many ids share memory. A kept id keeps its chunk (1.6 KiB) alive.
const idChunk = 64

func (t *idText) text(id ulid.ULID) string {
	var txt [ulid.EncodedSize]byte
	if err := id.MarshalTextTo(txt[:]); err != nil {
		panic("BUG: id buffer is too small: " + err.Error())
	}
	if t.b.Cap()-t.b.Len() < len(txt) {
		t.b = strings.Builder{}
		t.b.Grow(idChunk * len(txt))
	}
	n := t.b.Len()
	t.b.Write(txt[:])
	return t.b.String()[n:]
}
