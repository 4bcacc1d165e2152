package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// Keys of the producer in State.
const (
	intentPrefix = "intent/"       // + 16 hex digits: an open batch
	ackedPrefix  = "kafka/acked/"  // + topic/partition: offset after the last record acked to us
	topicPrefix  = "kafka/topic/"  // + topic: its topic id
	clusterKey   = "kafka/cluster" // the cluster's id
	intentFormat = 2
)

// intent is what is known, on disk, of a batch before it is sent: enough to find it in
// Kafka, and to know the same bytes again when they are encoded again.
type intent struct {
	n         uint64 // its number, which is its key
	topic     string
	partition int32
	end       int64 // the batch stands at this offset or above
	stamp     stampOf
	crc       uint32 // CRC32C in the encoded batch
	items     []intentItem

	open atomic.Int32 // items whose outcome is not synced
}

// intentItem is one record of the batch.
type intentItem struct {
	ItemRef
	print uint64 // fingerprint of the headers that identify the event, to find it in Kafka
}

var errIntent = errors.New("kept kafka intent is damaged")

func intentKey(n uint64) string { return fmt.Sprintf("%s%016x", intentPrefix, n) }

// encode is the intent's value in State: a format byte, then varints and strings.
// Replays are a table, and so are the deliveries that are repeated: most batches have
// one or none.
func (it *intent) encode() []byte {
	b := make([]byte, 0, 64+len(it.topic)+13*len(it.items))
	b = append(b, intentFormat)
	b = appendString(b, it.topic)
	b = binary.AppendVarint(b, int64(it.partition))
	b = binary.AppendVarint(b, it.end)
	b = binary.AppendVarint(b, it.stamp.pid)
	b = binary.AppendVarint(b, int64(it.stamp.epoch))
	b = binary.AppendVarint(b, int64(it.stamp.seq))
	b = binary.BigEndian.AppendUint32(b, it.crc)
	words, index := []string{}, map[string]uint64{}
	for i := range it.items {
		for _, w := range [...]string{it.items[i].Replay, it.items[i].Repeats} {
			if _, ok := index[w]; !ok {
				index[w] = uint64(len(words))
				words = append(words, w)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(words)))
	for _, r := range words {
		b = appendString(b, r)
	}
	b = binary.AppendUvarint(b, uint64(len(it.items)))
	last := uint64(0)
	for i := range it.items {
		x := &it.items[i]
		b = binary.AppendVarint(b, int64(x.Delivery-last))
		last = x.Delivery
		b = binary.AppendUvarint(b, uint64(x.Item))
		b = binary.AppendUvarint(b, index[x.Replay])
		b = binary.AppendUvarint(b, index[x.Repeats])
		b = binary.BigEndian.AppendUint64(b, x.print)
	}
	return b
}

// decodeIntent reads what encode wrote. It never panics, whatever it is given.
func decodeIntent(n uint64, b []byte) (*intent, error) {
	// Format 1 knew of no repeats.
	if len(b) == 0 || b[0] != intentFormat && b[0] != 1 {
		return nil, fmt.Errorf("%w: %s has no known format", errIntent, intentKey(n))
	}
	r, repeats := &rawReader{b: b[1:]}, b[0] != 1
	it := &intent{n: n, topic: r.string()}
	it.partition = int32(r.varint())
	it.end = r.varint()
	it.stamp = stampOf{pid: r.varint(), epoch: int16(r.varint()), seq: int32(r.varint())}
	it.crc = uint32(r.int32())
	words := make([]string, 0, 1)
	for range r.length() {
		words = append(words, r.string())
	}
	word := func() string {
		i := r.uvarint()
		if i >= uint64(len(words)) {
			r.take(-1)
			return ""
		}
		return words[i]
	}
	last := uint64(0)
	for range r.length() {
		last += uint64(r.varint())
		x := intentItem{ItemRef: ItemRef{Delivery: last, Item: int(r.uvarint())}}
		if x.Replay = word(); repeats {
			x.Repeats = word()
		}
		x.print = uint64(r.int64())
		it.items = append(it.items, x)
	}
	if r.err != nil || len(r.b) != 0 || len(it.items) == 0 {
		return nil, fmt.Errorf("%w: %s ends early or late", errIntent, intentKey(n))
	}
	it.open.Store(int32(len(it.items)))
	return it, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// length is a count of things of at least a byte each.
func (r *rawReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.take(-1)
		return 0
	}
	return int(n)
}

func (r *rawReader) string() string { return string(r.take(r.length())) }

func (r *rawReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || r.err != nil {
		r.take(-1)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Headers that tell a record apart from every other: which delivery, which of its
// events, which replay.
const (
	headerDelivery = "ce_deliveryid"
	headerID       = "ce_id"
	headerReplay   = "ce_replay"
	headerConflict = "ce_conflict" // delivery with other content under the same id
)

// fingerprint is FNV-1a over the identifying headers. Within the few records of one
// partition that are compared by it, 64 bits do; the delivery id in it is ours.
func fingerprint(value func(key string) []byte) uint64 {
	return printOf(value(headerDelivery), value(headerID), value(headerReplay))
}

// printOf is the fingerprint of those headers.
func printOf[T string | []byte](delivery, id, replay T) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range [...]T{delivery, id, replay} {
		for i := range len(v) {
			h = (h ^ uint64(v[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211 // no UTF-8 has this byte: values cannot run together
	}
	return h
}

// fingerprint is 0 for a message without a delivery id: nothing in Kafka may pass for it
// but the very batch, known by producer id and sequence.
func (m *Message) fingerprint() uint64 {
	if m.packed != nil {
		return m.print
	}
	if !slices.ContainsFunc(m.Headers, func(h Header) bool { return h.Key == headerDelivery && len(h.Value) > 0 }) {
		return 0
	}
	return fingerprint(func(key string) []byte {
		for i := range m.Headers {
			if m.Headers[i].Key == key {
				return m.Headers[i].Value
			}
		}
		return nil
	})
}

// newIntent describes the batch that msgs were encoded to.
func newIntent(msgs []*Message, st stampOf, end int64, crc uint32) *intent {
	it := &intent{topic: msgs[0].Topic, partition: msgs[0].Partition, end: end, stamp: st, crc: crc}
	it.items = make([]intentItem, len(msgs))
	for i, m := range msgs {
		it.items[i] = intentItem{ItemRef{m.Delivery, m.Item, m.Replay, m.Repeats}, m.fingerprint()}
	}
	it.open.Store(int32(len(msgs)))
	return it
}
