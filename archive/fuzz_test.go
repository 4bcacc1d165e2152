package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzFrame: whatever bytes stand in a segment, the scanner ends, gives only frames that
// verify, and covers every byte once.
func FuzzFrame(f *testing.F) {
	t0 := tag{number: 1, salt: 2}
	var good []byte
	for n := range 3 {
		d := testDelivery(n)
		start := len(good)
		good = putDelivery(beginFrame(good), d, makeID(d.ReceivedAt, 1, uint64(n)))
		endFrame(good[start:], 0, t0, uint64(n+1), 0, typeDelivery)
	}
	f.Add(good, uint16(0))
	f.Add(good[:len(good)-3], uint16(40))
	f.Add(append(bytes.Repeat([]byte{0}, 100), good...), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, chunk uint16) {
		sc := &scanner{src: bytes.NewReader(b), tag: t0, end: int64(len(b)), chunk: int(chunk)%512 + frameHead}
		at := int64(0)
		var dec payloadReader
		for {
			it, err := sc.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			off, size := it.region.off, it.region.size
			if it.isFrame() {
				off, size = it.frame.off, it.frame.size
				if _, why := decodeFrame(b[off:off+size], off); why != "" {
					t.Fatalf("frame at %d does not verify: %s", off, why)
				}
				if rec, err := dec.record(it.frame); err == nil && rec.Delivery != nil {
					again := putDelivery(nil, rec.Delivery, mustID(t, rec.Delivery.ID))
					if len(again) == len(it.frame.payload) && !bytes.Equal(again, it.frame.payload) {
						t.Fatal("a delivery is not encoded as it was decoded")
					}
				}
			}
			if off != at || size <= 0 {
				t.Fatalf("item at %d, want %d; size %d", off, at, size)
			}
			at += size
		}
		if at != int64(len(b)) {
			t.Fatalf("ended at %d of %d", at, len(b))
		}
	})
}

// FuzzPayload: no payload makes the decoder panic or allocate beyond its size.
func FuzzPayload(f *testing.F) {
	d := testDelivery(1)
	f.Add(putDelivery(nil, d, makeID(d.ReceivedAt, 1, 1)), byte(typeDelivery))
	f.Add(putOutcome(nil, &Outcome{Topic: "t"}), byte(typeOutcome))
	f.Add(putMarker(nil, &Marker{Key: "k"}), byte(typeMarker))
	f.Fuzz(func(t *testing.T, b []byte, typ byte) {
		var dec payloadReader
		_, _ = dec.record(frame{typ: frameType(typ), payload: b})
		_, _ = readChanges(b)
		var s segment
		_ = s.readFooter(b)
	})
}

// FuzzRecovery: a segment with any bytes behind its last synced point, or any byte of
// the file changed, opens; what is intact is read, and a second start finds the same.
func FuzzRecovery(f *testing.F) {
	f.Add([]byte("tail"), uint32(5000), byte(1))
	f.Add(bytes.Repeat([]byte{0xff}, 300), uint32(0), byte(0))
	f.Add([]byte{}, uint32(20), byte(0x80))
	f.Fuzz(func(t *testing.T, tail []byte, at uint32, bits byte) {
		disk := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		o := Options{FS: disk, NoIndex: true, SegmentBytes: minSegmentBytes}
		a := mustOpen(t, worldDir, o)
		for n := range 30 {
			mustAppend(t, a, testDelivery(n))
		}
		_ = a.Close()
		for name, node := range disk.live {
			if filepath.Ext(name) == segmentSuffix && filepath.Dir(name) == filepath.Join(worldDir, segmentsDir) {
				node.data = append(node.data, tail...)
				if int(at) < len(node.data) {
					node.data[at] ^= bits
				}
			}
		}
		var first int
		for life := range 2 {
			a, err := Open(worldDir, o)
			if errors.Is(err, ErrNewer) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			good := 0
			r := a.NewReader(0)
			for {
				rec, ok, err := r.TryNext()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if rec.Delivery != nil {
					good++
				}
			}
			r.Close()
			if good < 28 {
				t.Fatalf("life %d: one changed byte costs %d records; %q", life, 30-good, a.Damage())
			}
			if life == 1 && good != first {
				t.Fatalf("first start gave %d records, second %d", first, good)
			}
			first = good
			_ = a.Close()
		}
	})
}

func mustID(t testing.TB, s string) (id [16]byte) {
	u, _, _, ok := parseID(s)
	if !ok {
		t.Fatalf("id %q", s)
	}
	return u
}

var update = flag.Bool("update", false, "write golden files")

// TestGoldenSegment holds the format: the segment in testdata was written by version 1
// and must be read for ever; what is written today must be the same bytes.
func TestGoldenSegment(t *testing.T) {
	golden := filepath.Join("testdata", "v1.segment.hex")
	yes, sum := false, int64(9232)
	tg := tag{number: 7, salt: 0x1122334455667788}
	h := segmentHeader{log: logMain, recycled: true, tag: tg, archive: 0xa1a2a3a4a5a6a7a8, first: 100, created: 1_790_000_000_000_000_000,
		pred: predecessor{number: 6, first: 40, end: 5000, digest: 0xdeadbeef, poisoned: true}, syncedTo: segmentHead}
	d := testDelivery(1)
	d.Epoch = 42
	b := h.block()
	frames := []struct {
		typ     frameType
		payload []byte
	}{
		{typeMarker, putMarker(nil, &Marker{Kind: EpochMarker, At: time.Unix(1, 2), Key: "stripe", ID: 42, Data: []byte("{}")})},
		{typeDelivery, putDelivery(nil, d, makeID(d.ReceivedAt, 0xa5a6a7a8, 102))},
		{typeOutcome, putOutcome(nil, &Outcome{Delivery: 102, Item: 1, Items: 2, Kind: Published, At: time.Unix(3, 4), Reason: "r", Of: "of",
			Sink: "kafka:c", Topic: "webhooks.stripe", Partition: 3, Offset: 77, Replay: "job", Identity: Identity{1}, Content: Identity{2},
			Fields: Fields{EventID: "evt_1", EventType: "x", Type: "payment.captured", CEID: "ce", OrderID: "o", PaymentID: "p", Status: "s",
				RequestID: "rq", IdempotencyKey: "ik", Livemode: &yes, AmountMinor: &sum, Currency: "EUR"}})},
	}
	seg := &segment{head: h}
	for i, f := range frames {
		start := len(b)
		b = append(beginFrame(b), f.payload...)
		endFrame(b[start:], 0, tg, uint64(101+i), segmentHead, f.typ)
		seg.tally.digest = digestFrame(seg.tally.digest, b[start:])
		seg.tally.count++
		seg.tally.last = uint64(101 + i)
	}
	seg.marks = []mark{{seq: 101, off: segmentHead}}
	seg.cuts = []region{{off: 5, size: 6}}
	start := len(b)
	b = seg.footer(beginFrame(b))
	endFrame(b[start:], 0, tg, 103, int64(start), typeSeal)

	text := []byte(hex.Dump(b))
	if *update {
		if err := os.WriteFile(golden, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Fatalf("the format has changed: a new format needs a new version number, and this file must still be read")
	}
	got, err := parseHeader(b)
	if err != nil || got != h {
		t.Fatalf("header: %+v, %v", got, err)
	}
	again := &segment{head: h}
	again.size.Store(int64(len(b)))
	tail := scanTail(readOnlyFile{bytes.NewReader(b)}, again, nil)
	if len(tail.bad) > 0 || tail.seal == nil || tail.last != 103 {
		t.Fatalf("tail: %+v", tail)
	}
}

// readOnlyFile is a File over bytes.
type readOnlyFile struct{ *bytes.Reader }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, errLookOnly }
func (readOnlyFile) Sync() error                        { return errLookOnly }
func (readOnlyFile) Truncate(int64) error               { return errLookOnly }
func (readOnlyFile) Close() error                       { return nil }
func (f readOnlyFile) Size() (int64, error)             { return f.Reader.Size(), nil }
