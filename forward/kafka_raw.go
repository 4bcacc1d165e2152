package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go/protocol"
)

// Two requests in versions that kafka-go v0.4.51 does not have: metadata with topic
// ids (it ends at version 8, ids came with 10), and the leader's own log end (it
// lacks OffsetForLeaderEpoch). Both are RawExchangers, so protocol.Conn lets them
// write and read themselves. Source: kafka.apache.org/protocol, the message
// definitions of Kafka 4.1.

const (
	// maxAnswer bounds an answer that we read whole.
	maxAnswer = 64 << 20
	// rawCorrelation is the correlation id of these requests: a connection carries
	// one request at a time, so any value does as long as the answer repeats it.
	rawCorrelation = 0x70656e73
	// apiOffsetForLeaderEpoch is the key of that request.
	apiOffsetForLeaderEpoch = protocol.ApiKey(23)
)

var errShortAnswer = errors.New("answer of the kafka broker ends too early")

// topicID is Kafka's id of a topic: another one means that the topic was deleted and
// made again. Zero where the broker is older than ids.
type topicID [16]byte

// clusterView is a metadata answer.
type clusterView struct {
	clusterID string
	brokers   map[int32]string // id -> host:port
	topics    []topicView
}

type topicView struct {
	name       string
	code       int16
	id         topicID
	partitions []partitionView
}

type partitionView struct {
	index       int32
	leader      int32
	leaderEpoch int32
}

func (*clusterView) ApiKey() protocol.ApiKey { return protocol.Metadata }

// metadataRequest asks for the named topics, without creating any.
type metadataRequest struct {
	topics  []string
	version int16
}

func (*metadataRequest) ApiKey() protocol.ApiKey { return protocol.Metadata }

// negotiate picks the version: 10 to 12 have topic ids and one layout.
func (m *metadataRequest) negotiate(newest int16) { m.version = min(newest, 12) }

// Required tells protocol.Conn that this message exchanges itself.
func (m *metadataRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange writes the request and reads the answer.
func (m *metadataRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if m.version < 10 {
		return nil, fmt.Errorf("kafka broker speaks metadata up to version %d: it is older than 2.8", m.version)
	}
	b := rawHeader(protocol.Metadata, m.version)
	b = append(b, 0) // no tagged fields in the header
	b = binary.AppendUvarint(b, uint64(len(m.topics)+1))
	for _, t := range m.topics {
		b = append(b, make([]byte, 16)...) // by name, so no id
		b = binary.AppendUvarint(b, uint64(len(t)+1))
		b = append(b, t...)
		b = append(b, 0)
	}
	b = append(b, 0) // do not create topics
	if m.version <= 10 {
		b = append(b, 0)
	}
	b = append(b, 0, 0) // no authorized operations, no tagged fields
	r, err := rawAsk(rw, b)
	if err != nil {
		return nil, err
	}
	r.tags()
	v := readClusterView(r, m.version)
	return v, r.err
}

func readClusterView(r *rawReader, version int16) *clusterView {
	v := &clusterView{brokers: map[int32]string{}}
	r.int32() // throttle time
	for range r.count() {
		id := r.int32()
		host := r.compactString()
		port := r.int32()
		r.compactString() // rack
		r.tags()
		v.brokers[id] = hostPort(host, port)
	}
	v.clusterID = r.compactString()
	r.int32() // controller
	for range r.count() {
		t := topicView{code: r.int16(), name: r.compactString()}
		copy(t.id[:], r.take(16))
		r.take(1) // internal
		for range r.count() {
			r.int16() // the leader says the rest
			p := partitionView{index: r.int32(), leader: r.int32(), leaderEpoch: r.int32()}
			for range 3 { // replicas, in sync, offline
				r.take(4 * r.count())
			}
			r.tags()
			t.partitions = append(t.partitions, p)
		}
		r.int32() // authorized operations
		r.tags()
		v.topics = append(v.topics, t)
	}
	if version <= 10 {
		r.int32() // cluster authorized operations
	}
	return v
}

// leaderEndRequest asks a partition's leader where its log ends, replicated or not.
// A fetch shows only what is replicated; a batch that waits for its replicas is
// behind that, and "not there" would be wrong.
type leaderEndRequest struct {
	topic     string
	partition int32
	epoch     int32 // the leader's epoch
	version   int16
}

type leaderEndResponse struct {
	code int16
	end  int64
}

func (*leaderEndRequest) ApiKey() protocol.ApiKey  { return apiOffsetForLeaderEpoch }
func (*leaderEndResponse) ApiKey() protocol.ApiKey { return apiOffsetForLeaderEpoch }

func (m *leaderEndRequest) negotiate(newest int16) { m.version = min(newest, 3) }

// Required tells protocol.Conn that this message exchanges itself.
func (m *leaderEndRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange writes the request and reads the answer.
func (m *leaderEndRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if m.version < 3 {
		return nil, fmt.Errorf("kafka broker speaks OffsetForLeaderEpoch up to version %d, 3 is needed", m.version)
	}
	b := rawHeader(apiOffsetForLeaderEpoch, m.version)
	b = binary.BigEndian.AppendUint32(b, 0xffffffff) // a consumer, not a replica
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.topic)))
	b = append(b, m.topic...)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(m.partition))
	b = binary.BigEndian.AppendUint32(b, uint32(m.epoch))
	b = binary.BigEndian.AppendUint32(b, uint32(m.epoch))
	r, err := rawAsk(rw, b)
	if err != nil {
		return nil, err
	}
	r.int32() // throttle time
	if n := r.int32(); n != 1 {
		return nil, fmt.Errorf("answer to OffsetForLeaderEpoch has %d topics, asked for 1", n)
	}
	r.take(int(r.int16())) // topic
	if n := r.int32(); n != 1 {
		return nil, fmt.Errorf("answer to OffsetForLeaderEpoch has %d partitions, asked for 1", n)
	}
	res := &leaderEndResponse{code: r.int16()}
	r.int32() // partition
	r.int32() // leader epoch
	res.end = r.int64()
	return res, r.err
}

// rawHeader starts a request: room for the size, key, version, correlation, no client id.
func rawHeader(key protocol.ApiKey, version int16) []byte {
	b := make([]byte, 4, 256)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, rawCorrelation)
	return binary.BigEndian.AppendUint16(b, 0xffff)
}

// rawAsk sends the request and reads the answer up to behind its correlation id.
func rawAsk(rw io.ReadWriter, b []byte) (*rawReader, error) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := rw.Write(b); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > maxAnswer {
		return nil, fmt.Errorf("answer of the kafka broker has %d bytes, at most %d are read", n, maxAnswer)
	}
	r := &rawReader{b: make([]byte, n)}
	if _, err := io.ReadFull(rw, r.b); err != nil {
		return nil, err
	}
	if id := r.int32(); id != rawCorrelation {
		return nil, fmt.Errorf("answer of the kafka broker has correlation id %d, want %d", id, rawCorrelation)
	}
	return r, nil
}

// rawReader reads an answer; after the first error it gives zeros.
type rawReader struct {
	b   []byte
	err error
}

func (r *rawReader) take(n int) []byte {
	if n < 0 || n > len(r.b) || r.err != nil {
		if r.err == nil {
			r.err = errShortAnswer
		}
		r.b = nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *rawReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *rawReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *rawReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *rawReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.err != nil {
		r.take(-1)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is the length of a compact array, 0 for null. No element is shorter than a
// byte, so a count above what is left is an error and not a long loop.
func (r *rawReader) count() int {
	n := r.uvarint()
	if n == 0 {
		return 0
	}
	if n-1 > uint64(len(r.b)) {
		r.take(-1)
		return 0
	}
	return int(n - 1)
}

// compactString is "" for null.
func (r *rawReader) compactString() string { return string(r.take(r.count())) }

// tags skips tagged fields.
func (r *rawReader) tags() {
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		r.uvarint()
		r.take(int(min(r.uvarint(), maxAnswer)))
	}
}
