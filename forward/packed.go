package forward

import (
	"encoding/binary"
	"slices"
)

// A message that the pump renders has its key, value and headers as they stand in a record
// of a batch, one behind the other: the batch takes them by one copy, and the collector
// finds one piece of memory without a pointer in it where it found fifteen headers.

// headerPacker appends headers as they stand in a record.
type headerPacker struct {
	b []byte
	n int
}

// put appends a header, if it has a value; the value may come in pieces.
func (h *headerPacker) put(key string, value ...string) {
	size := 0
	for _, v := range value {
		size += len(v)
	}
	if size == 0 {
		return
	}
	h.begin(key, size)
	for _, v := range value {
		h.b = append(h.b, v...)
	}
}

// bytes is put of a value that is at hand as bytes.
func (h *headerPacker) bytes(key string, value []byte) {
	if len(value) > 0 {
		h.begin(key, len(value))
		h.b = append(h.b, value...)
	}
}

func (h *headerPacker) begin(key string, size int) {
	h.n++
	h.b = binary.AppendVarint(h.b, int64(len(key)))
	h.b = append(h.b, key...)
	h.b = binary.AppendVarint(h.b, int64(size))
}

// pack gives the message its key, value and n packed headers, in memory of its own.
func (m *Message) pack(key string, value, headers []byte, n int) {
	size := varintLen(int64(len(key))) + len(key) + varintLen(int64(len(value))) + len(value) + varintLen(int64(n)) + len(headers)
	b := binary.AppendVarint(slices.Grow([]byte(nil), size), int64(len(key)))
	from := len(b)
	b = append(b, key...)
	m.Key = b[from:len(b):len(b)]
	b = binary.AppendVarint(b, int64(len(value)))
	from = len(b)
	b = append(b, value...)
	m.Value = b[from:len(b):len(b)]
	m.headersAt = len(b)
	b = binary.AppendVarint(b, int64(n))
	m.packed = append(b, headers...)
}

// addHeader appends a header. Of a packed message only the number in front of them changes.
func (m *Message) addHeader(key, value string) {
	if m.packed == nil {
		m.Headers = append(m.Headers, Header{Key: key, Value: []byte(value)})
		return
	}
	n, size := binary.Varint(m.packed[m.headersAt:])
	h := headerPacker{b: slices.Clone(m.packed[m.headersAt+size:]), n: int(n)}
	h.put(key, value)
	m.pack(string(m.Key), m.Value, h.b, h.n)
}

// headers are the message's headers, taken apart where they are packed.
func (m *Message) headers() []Header {
	if m.packed == nil {
		return m.Headers
	}
	b := m.packed[m.headersAt:]
	n := unpackInt(&b)
	hs := make([]Header, 0, n)
	for range n {
		key := string(unpackBytes(&b))
		hs = append(hs, Header{Key: key, Value: unpackBytes(&b)})
	}
	return hs
}

func unpackInt(b *[]byte) int {
	v, n := binary.Varint(*b)
	*b = (*b)[n:]
	return int(v)
}

func unpackBytes(b *[]byte) []byte {
	n := unpackInt(b)
	out := (*b)[:n:n]
	*b = (*b)[n:]
	return out
}
