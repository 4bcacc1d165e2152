package archive

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// BenchmarkIndexWrite says what the index costs a delivery: CPU of the whole process (the
// collector, flushes and compactions among it) without what makes the records, memory, bytes
// written and kept. PENSTOCK_BENCH_ROWS is the number of deliveries; run it with -benchtime 1x.
// Outcomes that are late come behind so many other deliveries, as where the pump lags.
func BenchmarkIndexWrite(b *testing.B) {
	for _, c := range []struct {
		name     string
		outcomes bool
		late     int
	}{{"outcomes=false", false, 0}, {"outcomes=true", true, 0}, {"late=6000", true, 6000}, {"late=15000", true, 15000}} {
		b.Run(c.name, func(b *testing.B) {
			b.StopTimer()
			n := benchRows(b)
			made := cpuTime(b)
			if err := drainRecords(newBenchRecords(n, c.outcomes, c.late)); err != nil {
				b.Fatal(err)
			}
			made = cpuTime(b) - made
			for range b.N {
				benchWrite(b, n, c.outcomes, c.late, made)
			}
		})
	}
}

func benchWrite(b *testing.B, n int, outcomes bool, late int, made time.Duration) {
	o := indexOptions{batchDelay: 50 * time.Millisecond, shelfIDs: shelfIDs, Codec: benchCodec(b)}
	if !outcomes {
		o.Extract = func(d *Delivery) (Fields, bool) { return benchFields(d.Seq &^ QuarantineBit), true }
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime(b)
	b.StartTimer()
	x := testIndex(b, b.TempDir(), o)
	r := newBenchRecords(n, outcomes, late)
	if err := x.follow(b.Context(), r.next); err != errEnd { //nolint:errorlint // returned as it is
		b.Fatal(err)
	}
	waitFor(b, "the index to be filled", func() bool { return x.position(0) >= r.seq[0] && x.position(1) >= r.seq[1] })
	benchSettled(b, x)
	b.StopTimer()
	cpu = cpuTime(b) - cpu - made
	runtime.ReadMemStats(&after)
	m := x.db.Metrics()
	if os.Getenv("PENSTOCK_BENCH_METRICS") != "" {
		b.Log(m.String())
	}
	per := func(v float64, unit string) { b.ReportMetric(v/float64(n), unit) }
	per(float64(cpu)/1e3, "us/delivery")
	per(float64(after.Mallocs-before.Mallocs), "mallocs/delivery")
	per(float64(after.TotalAlloc-before.TotalAlloc), "B/delivery")
	total := m.Total()
	per(float64(total.TablesSize), "disk-B/delivery")
	per(float64(total.TableBytesFlushed+total.TableBytesCompacted+total.TableBytesIngested), "written-B/delivery")
	b.ReportMetric(float64(m.Levels[0].TablesCount), "L0-tables")
}

// benchSettled waits until everything is flushed and compactions have done what they must.
func benchSettled(b *testing.B, x *index) {
	flushed, err := x.db.AsyncFlush()
	if err != nil {
		b.Fatal(err)
	}
	<-flushed
	waitFor(b, "compactions", func() bool {
		m := x.db.Metrics()
		return m.Compact.NumInProgress == 0 && m.Levels[0].Sublevels < 4
	})
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchRecords are a gateway's: payments of twenty sources, each delivery followed by its
// outcome where there is a sink, at once or after so many others, every fiftieth refused.
type benchRecords struct {
	n, i     int
	outcomes bool
	late     int
	due      []uint64 // accepted deliveries without an outcome
	seq      [2]uint64
}

func newBenchRecords(n int, outcomes bool, late int) *benchRecords {
	return &benchRecords{n: n, outcomes: outcomes, late: late}
}

func drainRecords(r *benchRecords) error {
	for {
		rec, err := r.next(nil) //nolint:staticcheck // not used
		if err == errEnd {      //nolint:errorlint // returned as it is
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Delivery != nil && !r.outcomes {
			benchFields(rec.Delivery.Seq)
		}
	}
}

var benchSources, benchProviders = numbered("source-", 20), numbered("provider-", 5)

func numbered(name string, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = name + strconv.Itoa(i)
	}
	return s
}

var (
	benchLive  = true
	benchMinor = int64(9232)
)

// benchFields are those of a payment's event: three of them to an order.
func benchFields(seq uint64) Fields {
	event, order := scramble(seq), scramble(seq/6)
	return Fields{EventID: "evt_1Nv2Kx2eZvKYlo2C" + event, CEID: "evt_1Nv2Kx2eZvKYlo2C" + event, EventType: "charge.succeeded",
		Type: "payment.captured", OrderID: "order:" + order, PaymentID: "pi_3Nv2Kx2eZvKYlo2C" + order, Status: "succeeded",
		RequestID: "req_" + event, Livemode: &benchLive, AmountMinor: &benchMinor, Currency: "EUR"}
}

func scramble(n uint64) string { return strconv.FormatUint(n*0x9e3779b97f4a7c15, 36) }

func (r *benchRecords) next(context.Context) (Record, error) {
	if len(r.due) > r.late || r.i == r.n && len(r.due) > 0 {
		r.seq[0]++
		of := r.due[0]
		r.due = r.due[1:]
		o := &Outcome{Seq: r.seq[0], Delivery: of, Items: 1, Kind: Published, At: fakeEpoch, Sink: "kafka:c1",
			Topic: "webhooks.stripe", Offset: int64(r.i), Fields: benchFields(of)}
		for i, half := range []uint64{of * 0x9e3779b97f4a7c15, of * 0xc2b2ae3d27d4eb4f} {
			for j := range 8 {
				o.Identity[8*i+j] = byte(half >> (8 * j))
				o.Content[8*i+j] = byte(half >> (56 - 8*j))
			}
		}
		return Record{Seq: o.Seq, Outcome: o}, nil
	}
	if r.i == r.n {
		return Record{}, errEnd
	}
	r.i++
	d := &Delivery{ReceivedAt: fakeEpoch.Add(time.Duration(r.i) * 50 * time.Microsecond), Source: benchSources[r.i%20],
		Provider: benchProviders[r.i%5], Verdict: Accepted, Method: "POST", Target: []byte("/in/source")}
	if r.i%50 == 0 {
		r.seq[1]++
		d.Verdict, d.Reason, d.Seq = Rejected, "signature_mismatch", r.seq[1]|QuarantineBit
		return Record{Seq: d.Seq, Delivery: d}, nil
	}
	r.seq[0]++
	d.Seq = r.seq[0]
	d.ID = makeID(d.ReceivedAt, 7, d.Seq).String()
	if r.outcomes {
		r.due = append(r.due, d.Seq)
	}
	return Record{Seq: d.Seq, Delivery: d}, nil
}
