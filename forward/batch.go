package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"
)

// A record batch of format 2 (magic 2), as it stands on the wire and in the broker's
// log, with the int32 size in front of it that a produce request wants. All
// integers are big-endian. Source: Kafka documentation, "Record Batch"; org.apache.
// kafka.common.record.DefaultRecordBatch.
//
//	at  size
//	 0  4    size of the record set: everything behind this field
//	 4  8    base offset (0: the broker sets it)
//	12  4    batch length: everything behind this field
//	16  4    partition leader epoch (-1: the broker sets it)
//	20  1    magic, 2
//	21  4    CRC32C of everything behind this field
//	25  2    attributes: bits 0-2 compression, bit 3 timestamp type, bit 4 transactional
//	27  4    last offset delta
//	31  8    base timestamp, ms
//	39  8    max timestamp, ms
//	47  8    producer id
//	55  2    producer epoch
//	57  4    base sequence
//	61  4    number of records
//	65  ...  records, compressed as a whole
//
// The sequence fields stand outside of the compressed part, so a batch goes under
// another producer id without being encoded again (stamp).
const (
	atBatchLength  = 12
	atLeaderEpoch  = 16
	atMagic        = 20
	atCRC          = 21
	atAttributes   = 25
	atLastDelta    = 27
	atBaseTime     = 31
	atMaxTime      = 39
	atProducerID   = 47
	atEpoch        = 55
	atSequence     = 57
	atCount        = 61
	batchHeader    = 65
	recordSetSize  = 4
	recordOverhead = 40 // varints of one record without its headers, generously
	headerOverhead = 10 // two varints of one header, generously
	// keepBuffer is the largest buffer that goes back to a pool: one giant event
	// must not pin its memory for ever.
	keepBuffer = 4 << 20
)

var errNoMessages = errors.New("a batch needs at least one message")

// castagnoli is immutable after init; MakeTable returns the shared table.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batchEncoder turns messages into record batches. It is safe for concurrent use.
type batchEncoder struct {
	codec   codec
	records sync.Pool // *[]byte: records before compression
	batches sync.Pool // *[]byte: finished record sets
}

func newBatchEncoder(c Compression) (*batchEncoder, error) {
	k, err := newCodec(c)
	if err != nil {
		return nil, err
	}
	return &batchEncoder{codec: k}, nil
}

// stampOf is what makes a batch idempotent: who sends it and its place in their order.
type stampOf struct {
	pid   int64
	epoch int16
	seq   int32 // of the first record
}

// encode makes the record set of the messages, in order. The bytes are a function
// of the messages, the compression and the stamp, and of nothing else: a batch that
// is encoded again after a restart has the same CRC. The result belongs to the
// caller, who may give it back with release.
func (e *batchEncoder) encode(msgs []*Message, st stampOf) ([]byte, error) {
	if len(msgs) == 0 {
		return nil, errNoMessages
	}
	raw := getBuffer(&e.records)
	base := millis(msgs[0].Time)
	last := base
	for i, m := range msgs {
		at := millis(m.Time)
		last = max(last, at)
		raw = appendRecord(raw, m, at-base, i)
	}
	out := getBuffer(&e.batches)
	out = append(out, make([]byte, batchHeader)...)
	out, err := e.codec.compress(out, raw)
	putBuffer(&e.records, raw)
	if err != nil {
		putBuffer(&e.batches, out)
		return nil, fmt.Errorf("compress batch of %d records with %s: %w", len(msgs), e.codec.kind, err)
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-recordSetSize))
	binary.BigEndian.PutUint32(out[atBatchLength:], uint32(len(out)-atLeaderEpoch))
	binary.BigEndian.PutUint32(out[atLeaderEpoch:], 0xffffffff)
	out[atMagic] = 2
	binary.BigEndian.PutUint16(out[atAttributes:], uint16(e.codec.kind))
	binary.BigEndian.PutUint32(out[atLastDelta:], uint32(len(msgs)-1))
	binary.BigEndian.PutUint64(out[atBaseTime:], uint64(base))
	binary.BigEndian.PutUint64(out[atMaxTime:], uint64(last))
	binary.BigEndian.PutUint32(out[atCount:], uint32(len(msgs)))
	stamp(out, st)
	return out, nil
}

// release takes back what encode returned; nobody may use it any more.
func (e *batchEncoder) release(b []byte) { putBuffer(&e.batches, b) }

// stamp writes producer id, epoch and first sequence into an encoded batch, and its
// new CRC.
func stamp(b []byte, st stampOf) {
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(st.pid))
	binary.BigEndian.PutUint16(b[atEpoch:], uint16(st.epoch))
	binary.BigEndian.PutUint32(b[atSequence:], uint32(st.seq))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
}

// batchCRC is the CRC32C that stands in an encoded batch.
func batchCRC(b []byte) uint32 { return binary.BigEndian.Uint32(b[atCRC:]) }

// appendRecord appends one record: length, attributes, deltas, key, value, headers.
func appendRecord(dst []byte, m *Message, timeDelta int64, offsetDelta int) []byte {
	if m.packed != nil {
		n := 1 + varintLen(timeDelta) + varintLen(int64(offsetDelta)) + len(m.packed)
		dst = binary.AppendVarint(dst, int64(n))
		dst = append(dst, 0)
		dst = binary.AppendVarint(dst, timeDelta)
		dst = binary.AppendVarint(dst, int64(offsetDelta))
		return append(dst, m.packed...)
	}
	n := 1 + varintLen(timeDelta) + varintLen(int64(offsetDelta)) + bytesLen(m.Key) + bytesLen(m.Value) +
		varintLen(int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		n += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	dst = binary.AppendVarint(dst, int64(n))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, timeDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	dst = appendBytes(dst, m.Key)
	dst = appendBytes(dst, m.Value)
	dst = binary.AppendVarint(dst, int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

// appendBytes appends a nullable byte string; nil is null (length -1).
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

func bytesLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

// varintLen is the length of v as a zigzag varint.
func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

// millis is a record timestamp. A message without a time gets 0, not the clock's: a
// batch that is encoded again must come out the same.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// size is how many bytes the message takes in a batch before compression, rounded up.
func (m *Message) size() int {
	if m.packed != nil {
		return recordOverhead + len(m.packed)
	}
	n := recordOverhead + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += headerOverhead + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

func getBuffer(p *sync.Pool) []byte {
	if b, ok := p.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 64<<10)
}

func putBuffer(p *sync.Pool, b []byte) {
	if cap(b) <= keepBuffer {
		p.Put(&b)
	}
}

// addSequence is seq + n in Kafka's order of sequences: int32, 0 follows 2^31-1.
func addSequence(seq int32, n int) int32 { return int32((int64(seq) + int64(n)) & 0x7fffffff) }

// partitionOf is Java's default partitioner: the same key goes to the same partition
// whichever client sends it.
func partitionOf(key []byte, partitions int32) int32 {
	return (int32(murmur2(key)) & 0x7fffffff) % partitions
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(data []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		h = h*m ^ (k^k>>r)*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
