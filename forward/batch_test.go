package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

var allCompressions = []Compression{CompressionNone, CompressionGzip, CompressionSnappy, CompressionLZ4, CompressionZstd}

func encoderFor(tb testing.TB, c Compression) *batchEncoder {
	tb.Helper()
	e, err := newBatchEncoder(c)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// decode reads a record set by kafka-go's protocol package, which shares nothing with
// our encoder.
func decode(tb testing.TB, set []byte) (*protocol.RecordBatch, []protocol.Record, [][2][]byte) {
	tb.Helper()
	var rs protocol.RecordSet
	n, err := rs.ReadFrom(bytes.NewReader(set))
	if err != nil {
		tb.Fatalf("kafka-go cannot read the record set: %v", err)
	}
	if int(n) != len(set) || int(binary.BigEndian.Uint32(set)) != len(set)-4 {
		tb.Fatalf("kafka-go read %d of %d bytes, size field is %d", n, len(set), binary.BigEndian.Uint32(set))
	}
	batch := rs.Records.(*protocol.RecordStream).Records[0].(*protocol.RecordBatch)
	var records []protocol.Record
	var bodies [][2][]byte
	for {
		r, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return batch, records, bodies
		}
		if err != nil {
			tb.Fatal(err)
		}
		key, err := protocol.ReadAll(r.Key)
		if err != nil {
			tb.Fatal(err)
		}
		value, err := protocol.ReadAll(r.Value)
		if err != nil {
			tb.Fatal(err)
		}
		records = append(records, *r)
		bodies = append(bodies, [2][]byte{key, value})
	}
}

func checkBatch(tb testing.TB, c Compression, msgs []*Message, st stampOf) {
	tb.Helper()
	e := encoderFor(tb, c)
	set, err := e.encode(msgs, st)
	if err != nil {
		tb.Fatal(err)
	}
	batch, records, bodies := decode(tb, set)
	if batch.ProducerID != st.pid || batch.ProducerEpoch != st.epoch || batch.BaseSequence != st.seq {
		tb.Errorf("batch has producer %d epoch %d sequence %d, want %+v", batch.ProducerID, batch.ProducerEpoch, batch.BaseSequence, st)
	}
	if batch.Attributes != protocol.Attributes(c) {
		tb.Errorf("attributes are %v, want %v", batch.Attributes, c)
	}
	if len(records) != len(msgs) {
		tb.Fatalf("%d records, want %d", len(records), len(msgs))
	}
	for i, m := range msgs {
		r := records[i]
		if !same(bodies[i][0], m.Key) || !same(bodies[i][1], m.Value) {
			tb.Fatalf("record %d is %q=%q, want %q=%q", i, bodies[i][0], bodies[i][1], m.Key, m.Value)
		}
		if r.Time.UnixMilli() != millis(m.Time) || r.Offset != int64(i) {
			tb.Fatalf("record %d has time %d and offset %d, want %d and %d", i, r.Time.UnixMilli(), r.Offset, millis(m.Time), i)
		}
		if len(r.Headers) != len(m.headers()) {
			tb.Fatalf("record %d has %d headers, want %d", i, len(r.Headers), len(m.headers()))
		}
		for j, h := range m.Headers {
			if r.Headers[j].Key != h.Key || !same(r.Headers[j].Value, h.Value) {
				tb.Fatalf("record %d has header %+v, want %+v", i, r.Headers[j], h)
			}
		}
	}
	if crc := crc32.Checksum(set[atAttributes:], crc32.MakeTable(crc32.Castagnoli)); crc != batchCRC(set) {
		tb.Errorf("crc in the batch is %08x, want %08x", batchCRC(set), crc)
	}
	kept := append([]byte(nil), set...)
	e.release(set)
	again, err := e.encode(msgs, st)
	if err != nil || !bytes.Equal(again, kept) {
		tb.Fatalf("the same messages gave other bytes (error %v)", err)
	}
	// Another stamp on the same bytes is what encoding under it gives.
	other := stampOf{st.pid + 1, 3, 7}
	stamp(again, other)
	fresh, err := e.encode(msgs, other)
	if err != nil || !bytes.Equal(again, fresh) {
		tb.Fatalf("a batch that is stamped anew differs from one that is encoded anew (error %v)", err)
	}
}

// same also tells null from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestBatchDecodesEqual(t *testing.T) {
	at := time.UnixMilli(1_790_000_000_123)
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // above every block size
	noise := make([]byte, 100_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	sets := map[string][]*Message{
		"one":        {{Key: []byte("k"), Value: []byte("v"), Time: at}},
		"nulls":      {{Time: at}, {Key: []byte{}, Value: []byte{}, Time: at, Headers: []Header{{"a", nil}, {"", []byte{}}}}},
		"big":        {{Key: []byte("k"), Value: big, Time: at}, {Value: noise, Time: at.Add(time.Second)}},
		"time":       {{Value: []byte("a"), Time: at}, {Value: []byte("b"), Time: at.Add(-time.Hour)}, {Value: []byte("c")}},
		"many":       events("t", 0, 2000),
		"headers 64": {{Value: []byte("v"), Time: at, Headers: make([]Header, 64)}},
	}
	for name, msgs := range sets {
		for _, c := range allCompressions {
			t.Run(fmt.Sprintf("%s/%s", name, c), func(t *testing.T) { checkBatch(t, c, msgs, stampOf{1234567890123, 5, 0x7ffffff0}) })
		}
	}
}

func TestBatchOfNothing(t *testing.T) {
	if _, err := encoderFor(t, CompressionNone).encode(nil, stampOf{}); err == nil {
		t.Fatal("a batch without messages was made")
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), "header", []byte("x"), int64(1_790_000_000_000), uint8(3), uint8(4))
	f.Add([]byte(nil), []byte(nil), "", []byte(nil), int64(-5), uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, key, value []byte, hk string, hv []byte, ms int64, n, c uint8) {
		if ms < 0 || ms > 1<<45 {
			ms = 1
		}
		var msgs []*Message
		for i := range int(n%8) + 1 {
			m := &Message{Key: key, Value: value, Time: time.UnixMilli(ms + int64(i*7))}
			for range i {
				m.Headers = append(m.Headers, Header{hk, hv})
			}
			if i%3 == 2 {
				m.Key = nil
			}
			msgs = append(msgs, m)
		}
		checkBatch(t, allCompressions[int(c)%len(allCompressions)], msgs, stampOf{ms, int16(n), int32(ms)})
	})
}

func TestPartitionIsJavas(t *testing.T) {
	// org.apache.kafka.common.utils.UtilsTest.testMurmur2.
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	balancer := kafka.Murmur2Balancer{}
	all := make([]int, 12)
	for i := range all {
		all[i] = i
	}
	for n := range 1000 {
		key := []byte(strings.Repeat("ключ", n%5) + fmt.Sprint(n))
		if got, want := partitionOf(key, 12), balancer.Balance(kafka.Message{Key: key}, all...); int(got) != want {
			t.Fatalf("partition of %q is %d, kafka-go says %d", key, got, want)
		}
	}
}

func TestSequenceWraps(t *testing.T) {
	for _, c := range []struct {
		seq  int32
		n    int
		want int32
	}{{0, 1, 1}, {0x7fffffff, 1, 0}, {0x7ffffffe, 1, 0x7fffffff}, {0x7ffffff0, 100, 84}, {5, 0, 5}} {
		if got := addSequence(c.seq, c.n); got != c.want {
			t.Errorf("%d + %d = %d, want %d", c.seq, c.n, got, c.want)
		}
	}
}

func TestSizeIsAnUpperBound(t *testing.T) {
	for n := range 300 {
		m := event("t", n)
		for i := range n % 9 {
			m.Headers = append(m.Headers, Header{strings.Repeat("h", i*50), make([]byte, i*300)})
		}
		m.Value = make([]byte, n*1000)
		if real := len(appendRecord(nil, m, int64(n)*1e9, n*1000)); real > m.size() {
			t.Fatalf("record of %d bytes is counted as %d", real, m.size())
		}
	}
}

func TestIntentKeepsEverything(t *testing.T) {
	f := func(it *intent) {
		t.Helper()
		got, err := decodeIntent(7, it.encode())
		if err != nil {
			t.Fatal(err)
		}
		if got.topic != it.topic || got.partition != it.partition || got.end != it.end || got.stamp != it.stamp || got.crc != it.crc {
			t.Fatalf("got %+v, want %+v", got, it)
		}
		if fmt.Sprint(got.items) != fmt.Sprint(it.items) || got.open.Load() != int32(len(it.items)) {
			t.Fatalf("got items %v, want %v", got.items, it.items)
		}
	}
	msgs := events("webhooks.stripe", 5, 40)
	msgs[3].Replay, msgs[4].Replay, msgs[5].Item = "job-1", "job-2", 9
	msgs[6].Delivery = 1 << 62 // falls back behind it
	f(newIntent(msgs, stampOf{1 << 40, 32767, 0x7fffffff}, 1<<50, 0xdeadbeef))
	f(newIntent(msgs[:1], stampOf{-1, 0, 0}, 0, 0))
}

func FuzzIntent(f *testing.F) {
	f.Add(newIntent(events("t", 0, 3), stampOf{1, 2, 3}, 4, 5).encode())
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		it, err := decodeIntent(1, b)
		if err != nil {
			return
		}
		if again, err := decodeIntent(1, it.encode()); err != nil || fmt.Sprint(again.items) != fmt.Sprint(it.items) {
			t.Fatalf("intent does not survive: %v", err)
		}
	})
}

func TestFingerprintTellsEventsApart(t *testing.T) {
	m := func(delivery, id, replay string) *Message {
		return &Message{Headers: []Header{{headerID, []byte(id)}, {headerDelivery, []byte(delivery)}, {headerReplay, []byte(replay)}}}
	}
	seen := map[uint64]string{}
	for _, x := range [][3]string{{"a", "b", ""}, {"ab", "", ""}, {"a", "", "b"}, {"a", "b", "r"}, {"a", "b#2", ""}} {
		p := m(x[0], x[1], x[2]).fingerprint()
		if was, ok := seen[p]; ok {
			t.Errorf("%v has the fingerprint of %s", x, was)
		}
		seen[p] = fmt.Sprint(x)
	}
	if p := (&Message{Headers: []Header{{headerID, []byte("x")}}}).fingerprint(); p != 0 {
		t.Errorf("a message without a delivery id has fingerprint %d, want none", p)
	}
}
