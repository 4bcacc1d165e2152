package archive

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// benchRows is how many deliveries the query benchmarks have; PENSTOCK_BENCH_ROWS sets
// another number (docs quote a million).
func benchRows(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("PENSTOCK_BENCH_ROWS"))
	if err != nil {
		n = 100_000
	}
	return n
}

// benchIndex fills an index as live traffic would: each delivery is followed by its
// outcome, every fiftieth is refused.
func benchIndex(b *testing.B, n int) *index {
	x := testIndex(b, b.TempDir(), indexOptions{batchDelay: 50 * time.Millisecond, shelfIDs: shelfIDs, Codec: benchCodec(b)})
	live, minor := true, int64(9232)
	i, outcome := 0, false
	seq := [2]uint64{}
	start := time.Now()
	var last Fields
	err := x.follow(b.Context(), func(context.Context) (Record, error) {
		if outcome {
			outcome = false
			seq[0]++
			return Record{Seq: seq[0], Outcome: &Outcome{Seq: seq[0], Delivery: seq[0] - 1, Items: 1, Kind: Published,
				At: fakeEpoch, Sink: "kafka:c1", Topic: "webhooks.stripe", Offset: int64(i), Fields: last,
				Identity: Identity{byte(i), byte(i >> 8), byte(i >> 16), 1}}}, nil
		}
		if i == n {
			return Record{}, errEnd
		}
		i++
		d := &Delivery{ReceivedAt: fakeEpoch.Add(time.Duration(i) * time.Millisecond), Source: "source-" + strconv.Itoa(i%20),
			Provider: "provider-" + strconv.Itoa(i%5), Verdict: Accepted, Method: "POST", Target: []byte("/in/source")}
		if i%50 == 0 {
			seq[1]++
			d.Verdict, d.Reason, d.Seq = Rejected, "signature_mismatch", seq[1]|QuarantineBit
			return Record{Seq: d.Seq, Delivery: d}, nil
		}
		seq[0]++
		outcome = true
		d.Seq = seq[0]
		d.ID = makeID(d.ReceivedAt, 7, d.Seq).String()
		last = Fields{EventID: fmt.Sprintf("evt_1Nv2Kx2eZvKYlo2C%08d", i), EventType: "charge.succeeded", Type: "payment.captured",
			CEID: fmt.Sprintf("evt_1Nv2Kx2eZvKYlo2C%08d", i), OrderID: fmt.Sprintf("order:%d", i/3),
			PaymentID: fmt.Sprintf("pi_3Nv2Kx2eZvKYlo2C%08d", i/3), Status: "succeeded",
			RequestID: fmt.Sprintf("req_%08d", i), Livemode: &live, AmountMinor: &minor, Currency: "EUR"}
		if i%10_000 == 1 {
			last.Status, last.EventType = "failed", "charge.failed"
		}
		return Record{Seq: d.Seq, Delivery: d}, nil
	})
	if err != errEnd { //nolint:errorlint // returned as it is
		b.Fatal(err)
	}
	waitFor(b, "the index to be filled", func() bool { return x.position(0) >= seq[0] })
	b.Logf("%d deliveries with outcomes in %s, %.1f MB on disk", n, time.Since(start).Round(time.Millisecond), x.diskBytes()/1e6)
	return x
}

// benchCodec encrypts the index of the benchmarks where PENSTOCK_BENCH_KEY is set.
func benchCodec(b *testing.B) *codec {
	if os.Getenv("PENSTOCK_BENCH_KEY") == "" {
		return nil
	}
	return testCodec(b)
}

// BenchmarkQuery shows what an admin waits for.
func BenchmarkQuery(b *testing.B) {
	n := benchRows(b)
	x := benchIndex(b, n)
	benchSettled(b, x)
	no := false
	mid := fakeEpoch.Add(time.Duration(n/2) * time.Millisecond)
	for _, q := range []struct {
		name string
		f    Filter
	}{
		{"first page", Filter{}},
		{"500 rows", Filter{Limit: 500}},
		{"source", Filter{Source: "source-3"}},
		{"order id", Filter{OrderID: "order:77"}},
		{"event id", Filter{EventID: "evt_1Nv2Kx2eZvKYlo2C00000077"}},
		{"event id, absent", Filter{EventID: "evt_x"}},
		{"rejected", Filter{Verdict: "rejected"}},
		{"published", Filter{Outcome: "published"}},
		{"rare status", Filter{Status: "failed"}},
		{"status and source", Filter{Status: "failed", Source: "source-1"}},
		{"two common, no hit", Filter{Source: "source-3", Provider: "provider-4"}},
		{"rejected and livemode, no hit", Filter{Verdict: "rejected", Livemode: &no}},
		{"published and source and type", Filter{Outcome: "published", Source: "source-7", Type: "payment.captured"}},
		{"middle hour", Filter{From: mid, To: mid.Add(time.Minute)}},
		{"free text, an id", Filter{Q: "evt_1Nv2Kx2eZvKYlo2C00000077"}},
		{"free text, no hit", Filter{Q: "no such thing"}},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			rows := 0
			cpu := cpuTime(b)
			for range b.N {
				p, err := x.query(b.Context(), &q.f)
				if err != nil {
					b.Fatal(err)
				}
				rows = len(p.Rows)
			}
			b.ReportMetric(float64(rows), "rows")
			b.ReportMetric(float64(cpuTime(b)-cpu)/1e3/float64(b.N), "cpu-us/op")
		})
	}
	b.Run("evidence, unknown", func(b *testing.B) {
		for i := range b.N {
			if _, ok := x.evidence(Identity{byte(i), byte(i >> 8), byte(i >> 16), 2}); ok {
				b.Fatal("evidence of what never was")
			}
		}
	})
	b.Run("evidence, known", func(b *testing.B) {
		for i := range b.N {
			j := i%n + 1
			if j%50 == 0 {
				j++
			}
			if _, ok := x.evidence(Identity{byte(j), byte(j >> 8), byte(j >> 16), 1}); !ok {
				b.Fatal("evidence is missing")
			}
		}
	})
}
