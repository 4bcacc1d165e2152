package archive

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A frame is one entry of a segment (or of the cursors file). Integers are little
// endian. Format version 1:
//
//	offset size
//	0      4    CRC32C (Castagnoli) over everything that follows: header and payload
//	4      4    length of the payload
//	8      8    number of the segment: a record of a recycled file's former life has another
//	16     8    salt of the segment: random, so that no body can hold bytes that look like a frame
//	24     8    seq
//	32     4    base: offset in this segment up to which the file was synced when this frame
//	            was written, which is where the frame's own batch begins
//	36     1    type
//	37     1    flags: bit 0 = sealed (seal.go)
//	38     2    0
//	40     n    payload (codec.go)
//
// The CRC covers number and salt, so a frame verifies in the segment it was written
// to and nowhere else. A batch is written only after the one before it was synced;
// so a frame that verifies proves that everything below its base was synced, and what
// does not verify below it is damage, not a torn write.
const (
	frameHead = 40

	// maxPayload bounds what a length field can make us read. It is far above the
	// largest body any configuration can allow (100 MiB).
	maxPayload = 128 << 20

	tagOffset = 8 // of number and salt inside the frame
	tagSize   = 16
)

type frameType uint8

const (
	typeDelivery frameType = 1
	typeOutcome  frameType = 2
	typeMarker   frameType = 3
	typeSync     frameType = 4 // no record: everything below it is synced; the next batch overwrites it
	typeSeal     frameType = 5 // no record: the segment ends here; its payload is the footer (segment.go)
	typeState    frameType = 6 // one commit of the cursors file
	typeBlock    frameType = 7 // of a packed segment (pack.go): a compressed piece of what it was made of
	typeTable    frameType = 8 // of a packed segment: where its blocks are
	typeSealed   frameType = 9 // of a packed segment (pack_sealed.go): a block of sealed records
)

// record says whether frames of this type count as records of the log.
func (t frameType) record() bool { return t >= typeDelivery && t <= typeMarker }

// packed says whether frames of this type are blocks of a packed segment.
func (t frameType) packed() bool { return t == typeBlock || t == typeSealed }

// castagnoli is the polynomial that amd64 and arm64 compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tag is what ties a frame to its segment.
type tag struct {
	number uint64
	salt   uint64
}

func (t tag) bytes() (b [tagSize]byte) {
	binary.LittleEndian.PutUint64(b[0:], t.number)
	binary.LittleEndian.PutUint64(b[8:], t.salt)
	return b
}

// frame is a decoded frame; payload is borrowed from the buffer it was read into.
type frame struct {
	off     int64
	size    int64 // header and payload
	seq     uint64
	base    int64
	typ     frameType
	flags   uint8
	payload []byte
}

// beginFrame makes room for a header; endFrame fills it once the payload is behind it. The
// flags, 37, are left as they stand there.
func beginFrame(buf []byte) []byte {
	var zero [frameHead]byte
	return append(buf, zero[:]...)
}

func endFrame(buf []byte, start int, t tag, seq uint64, base int64, typ frameType) {
	h := buf[start:]
	binary.LittleEndian.PutUint32(h[4:], uint32(len(h)-frameHead))
	binary.LittleEndian.PutUint64(h[8:], t.number)
	binary.LittleEndian.PutUint64(h[16:], t.salt)
	binary.LittleEndian.PutUint64(h[24:], seq)
	binary.LittleEndian.PutUint32(h[32:], uint32(base))
	h[36] = byte(typ)
	h[38], h[39] = 0, 0
	binary.LittleEndian.PutUint32(h, crc32.Checksum(h[4:], castagnoli))
}

// What a frame can be damaged by; the words go into ErrCorrupt, logs and `archive check`.
const (
	badTag    = "its bytes are not a record of this segment"
	badLength = "its length is impossible"
	badSum    = "its checksum does not match"
)

// frameSize reads the length of the frame that starts with head, "" or why it cannot
// be one of segment t. It does not look at the checksum.
func frameSize(head []byte, t tag) (int64, string) {
	want := t.bytes()
	if !bytes.Equal(head[tagOffset:tagOffset+tagSize], want[:]) {
		return 0, badTag
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if n > maxPayload {
		return 0, badLength
	}
	return frameHead + int64(n), ""
}

// decodeFrame checks and decodes the frame that b holds exactly.
func decodeFrame(b []byte, off int64) (frame, string) {
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return frame{}, badSum
	}
	return frameOf(b, off), ""
}

// frameOf decodes the frame that b holds exactly.
func frameOf(b []byte, off int64) frame {
	return frame{
		off:     off,
		size:    int64(len(b)),
		seq:     binary.LittleEndian.Uint64(b[24:]),
		base:    int64(binary.LittleEndian.Uint32(b[32:])),
		typ:     frameType(b[36]),
		flags:   b[37],
		payload: b[frameHead:],
	}
}

// digestFrame adds a frame to the digest of its segment: a CRC32C over the headers,
// each of which has the CRC of its payload in it.
func digestFrame(digest uint32, head []byte) uint32 {
	return crc32.Update(digest, castagnoli, head[:frameHead])
}

// frameSeq reads the seq of an encoded frame.
func frameSeq(b []byte) uint64 { return binary.LittleEndian.Uint64(b[24:]) }
