package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The index is tested on records made up here: two logs, as the archive would give them.

var fakeEpoch = time.Date(2026, 5, 28, 20, 0, 0, 0, time.UTC)

// fakeBody carries what fakeExtract reads, one word per field.
func fakeBody(f Fields) []byte {
	live := ""
	if f.Livemode != nil {
		live = fmt.Sprint(*f.Livemode)
	}
	return []byte(strings.Join([]string{f.EventID, f.EventType, f.Type, f.OrderID, f.PaymentID, f.Status, live}, "|"))
}

func fakeExtract(d *Delivery) (Fields, bool) {
	w := strings.Split(string(d.Body), "|")
	if len(w) != 7 {
		return Fields{}, false
	}
	f := Fields{EventID: w[0], EventType: w[1], Type: w[2], OrderID: w[3], PaymentID: w[4], Status: w[5]}
	if w[6] != "" {
		live := w[6] == "true"
		f.Livemode = &live
	}
	return f, true
}

type fakeLogs struct {
	rng  *rand.Rand
	logs [2][]Record
	seq  [2]uint64
	at   time.Time
	ids  map[uint64]string // by Delivery.Seq
}

func newFakeLogs(seed uint64) *fakeLogs {
	return &fakeLogs{rng: rand.New(rand.NewPCG(seed, 1)), at: fakeEpoch, ids: map[uint64]string{}}
}

func pick[T any](rng *rand.Rand, s ...T) T { return s[rng.IntN(len(s))] }

func (g *fakeLogs) add(log int, r Record) uint64 {
	g.seq[log] += 1 + uint64(g.rng.IntN(2)) // gaps are legal
	r.Seq = g.seq[log]
	if log == 1 {
		r.Seq |= QuarantineBit
	}
	if r.Delivery != nil {
		r.Delivery.Seq = r.Seq
		r.Delivery.ID = makeID(r.Delivery.ReceivedAt, 7, r.Seq).String()
		g.ids[r.Seq] = r.Delivery.ID
	}
	if r.Outcome != nil {
		r.Outcome.Seq = r.Seq
	}
	g.logs[log] = append(g.logs[log], r)
	return r.Seq
}

func (g *fakeLogs) fields() Fields {
	n := g.rng.IntN(40)
	f := Fields{EventID: fmt.Sprintf("evt_%d", g.rng.IntN(200)), EventType: pick(g.rng, "pay", "refund.Created", ""),
		Type: pick(g.rng, "payment.captured", "refund.succeeded"), OrderID: fmt.Sprintf("Order:%d", n),
		PaymentID: fmt.Sprintf("pi_%d", n), Status: pick(g.rng, "success", "failure", "reversed")}
	if g.rng.IntN(3) > 0 {
		live := g.rng.IntN(4) > 0
		f.Livemode = &live
	}
	return f
}

func (g *fakeLogs) delivery() (seq uint64, f Fields) {
	f = g.fields()
	// Received-at may run backwards: it is the first byte's time, seq the last one's.
	g.at = g.at.Add(time.Duration(g.rng.IntN(2000)-300) * time.Millisecond)
	if g.rng.IntN(10) == 0 {
		g.at = g.at.Truncate(time.Second)
	}
	d := &Delivery{ReceivedAt: g.at, Source: pick(g.rng, "stripe", "stripe-eu", "liqpay"), Verdict: Accepted,
		Tenant: pick(g.rng, "", "", "m1", "m2"), RemoteIP: netip.MustParseAddr("::ffff:192.0.2.7"), Method: "POST",
		Target: []byte("/in/x?token=hush"), Body: fakeBody(f), VerifiedBy: "hmac:1"}
	d.Provider = strings.TrimSuffix(d.Source, "-eu")
	log := 0
	switch g.rng.IntN(10) {
	case 0:
		d.Verdict = Challenge
	case 1, 2:
		d.Verdict, log = Rejected, 1
		d.Reason = pick(g.rng, "signature_mismatch", "ip_not_allowed")
	}
	return g.add(log, Record{Delivery: d}), f
}

// outcome writes one for a delivery; a few are replays.
func (g *fakeLogs) outcome(delivery uint64, n, items int, f Fields) {
	kind := pick(g.rng, Published, Published, Published, Duplicate, Held, Dead, Filtered)
	o := &Outcome{Delivery: delivery, Item: n, Items: items, Kind: kind, At: g.at, Sink: "kafka:c1", Topic: "t",
		Partition: 3, Offset: int64(g.seq[0]), Fields: f, Content: Identity{2, byte(n)}}
	o.Identity = Identity{1, byte(g.rng.IntN(256)), byte(g.rng.IntN(4))}
	switch kind {
	case Duplicate:
		o.Of = fmt.Sprintf("twin-%d", g.rng.IntN(5))
	case Held:
		o.Reason = "source paused"
		if g.rng.IntN(2) == 0 {
			o.Fields = Fields{} // no definition: nothing is known of it
		}
	}
	if g.rng.IntN(12) == 0 {
		o.Replay = "job-1"
	}
	g.add(0, Record{Outcome: o})
}

// run appends n random steps: deliveries, their outcomes soon or late, markers.
func (g *fakeLogs) run(n int) {
	type open struct {
		seq   uint64
		f     Fields
		items int
	}
	var waiting []open
	for range n {
		switch k := g.rng.IntN(20); {
		case k < 9 || len(waiting) == 0:
			seq, f := g.delivery()
			waiting = append(waiting, open{seq, f, pick(g.rng, 1, 1, 1, 3)})
		case k < 19:
			w := waiting[g.rng.IntN(len(waiting))]
			item := g.rng.IntN(w.items)
			f := w.f
			if item > 0 {
				f = g.fields()
				f.Livemode = nil
			} else {
				f.RequestID, f.IdempotencyKey, f.CEID = "req_"+f.EventID, "idem-"+f.OrderID, "ce_"+f.EventID
				f.Currency = "EUR"
				minor := int64(9232)
				f.AmountMinor = &minor
			}
			g.outcome(w.seq, item, w.items, f)
		default:
			g.add(0, Record{Marker: &Marker{Kind: JobMarker, Key: "j"}})
		}
	}
	// The last record is a delivery, so that the position cannot be right by accident.
	g.delivery()
}

// errEnd ends a follower when its records are used up.
var errEnd = errors.New("end of the records")

// feed follows both logs from the index's position to their end (or, with upTo > 0, to
// that many records) and returns once all is visible.
func (g *fakeLogs) feed(t testing.TB, x *index, share float64) {
	t.Helper()
	done := make(chan error, 2)
	var want [2]uint64
	for log := range g.logs {
		records := g.logs[log][:int(float64(len(g.logs[log]))*share)]
		if len(records) > 0 {
			want[log] = max(x.position(log), records[len(records)-1].Seq&^QuarantineBit)
		}
		from, i := x.position(log), 0
		go func() {
			done <- x.follow(t.Context(), func(context.Context) (Record, error) {
				for i < len(records) && records[i].Seq&^QuarantineBit <= from {
					i++
				}
				if i == len(records) {
					return Record{}, errEnd
				}
				i++
				r := records[i-1]
				if r.Delivery != nil { // the index owns what it gets
					d := *r.Delivery
					d.Body = bytes.Clone(d.Body)
					r.Delivery = &d
				}
				return r, nil
			})
		}()
	}
	for range g.logs {
		if err := <-done; !errors.Is(err, errEnd) {
			t.Fatalf("follow: %v", err)
		}
	}
	waitFor(t, "index to reach the end of the records", func() bool {
		return x.position(0) >= want[0] && x.position(1) >= want[1]
	})
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}

func testIndex(t testing.TB, dir string, o indexOptions) *index {
	t.Helper()
	if o.Extract == nil {
		o.Extract = fakeExtract
	}
	if o.batchDelay == 0 {
		o.batchDelay = time.Millisecond
	}
	if o.shelfIDs == 0 {
		o.shelfIDs = 500 // so that tests have many
	}
	if sealIndexes && o.Codec == nil {
		o.Codec = testCodec(t)
	}
	x, err := openIndex(dir, o)
	if err != nil {
		t.Fatalf("open index: %v", err)
	}
	t.Cleanup(func() {
		if !x.closed {
			if err := x.close(); err != nil {
				t.Errorf("close index: %v", err)
			}
		}
	})
	return x
}

func memIndex(t testing.TB) *index { return testIndex(t, "index", indexOptions{fs: vfs.NewMem()}) }

// dump renders every key and value: two indexes of the same log must be equal. Blocks
// and buckets depend on how the log was cut into batches, so what they say is rendered: every time, and
// of each posting whose row has the value a line. Postings of values that a row lost, or of
// rows that are gone, are legal and say nothing.
func dump(t testing.TB, x *index) string {
	t.Helper()
	it, err := x.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		switch key[0] {
		case keySeq:
			if err := eachTime(ref(binary.BigEndian.Uint64(key[1:])), it.Value(), func(r ref, at int64) bool {
				if e, err := x.readRow(makeOrder(time.Unix(0, at), r)); err != nil {
					t.Error(err)
				} else if e != nil {
					lines = append(lines, fmt.Sprintf("s%d=%d\n", r, at))
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
		case keyBlock, keyWide:
			ws := map[byte]windows{keyBlock: narrow, keyWide: wide}[key[0]]
			k := valueKey{field: key[1], hash: binary.BigEndian.Uint64(key[2:])}
			places, err := ws.readPlaces(nil, binary.BigEndian.Uint64(key[10:]), it.Value())
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range places {
				e, err := x.readRow(o)
				if err != nil {
					t.Fatal(err)
				}
				if e != nil && slices.ContainsFunc(x.codec.valueKeys(e), func(have valueKey) bool { return have.field == k.field && have.hash == k.hash }) {
					lines = append(lines, fmt.Sprintf("b%v %x\n", k, o))
				}
			}
		case keyShelf, keyBucket:
		default:
			v := it.Value()
			if key[0] == keyRow {
				lines = append(lines, dumpIDs(t, x, it, order(key[1:]))...)
			}
			if x.codec != nil && (key[0] == keyRow || key[0] == keyOutcome) {
				v = nil // sealed with random nonces
			}
			lines = append(lines, fmt.Sprintf("%q=%q\n", key, v))
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}

// dumpIDs renders the ids of a row that lead to it.
func dumpIDs(t testing.TB, x *index, it *pebble.Iterator, o order) (lines []string) {
	t.Helper()
	e, err := x.readRow(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range x.codec.valueKeys(e) {
		if k.kind != unique {
			continue
		}
		p, err := (&scan{x: x}).buckets(func(opts *pebble.IterOptions) (*pebble.Iterator, error) {
			return it.Clone(pebble.CloneOptions{IterOptions: opts})
		}, k, make([]byte, orderSize), bytes.Repeat([]byte{0xff}, orderSize+1))
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := p.leap(o); ok && at == o {
			lines = append(lines, fmt.Sprintf("h%v %x\n", k, o))
		} else {
			t.Errorf("no bucket has %v of the row %x", k, o)
		}
		if err := errors.Join(p.error(), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return lines
}

func diffLine(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("line %d of %d and %d:\n%s\n%s", i, len(x), len(y), x[i], y[min(i, len(y)-1)])
		}
	}
	return "the second is longer"
}
