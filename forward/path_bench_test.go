package forward

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	kafka "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"penstock/archive"
	"penstock/dedupe"
	"penstock/provider"
)

// pathLog notes how long after its receipt each event was acked by Kafka.
type pathLog struct {
	Log
	mu    sync.Mutex // protects lags
	lags  []time.Duration
	syncs atomic.Int64 // commits of outcomes and of the state
	since map[uint64]time.Time
}

func (l *pathLog) AppendOutcomes(os []archive.Outcome) error {
	l.syncs.Add(1)
	l.mu.Lock()
	for i := range os {
		if at, ok := l.since[os[i].Delivery]; ok {
			delete(l.since, os[i].Delivery)
			l.lags = append(l.lags, os[i].At.Sub(at))
		}
	}
	l.mu.Unlock()
	return l.Log.AppendOutcomes(os)
}

func (l *pathLog) State() State { return pathState{l.Log.State(), &l.syncs} }

type pathState struct {
	State
	syncs *atomic.Int64
}

func (s pathState) Commit(ch ...archive.Change) error {
	s.syncs.Add(1)
	return s.State.Commit(ch...)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pathRig is the whole way behind the ack: archive on disk, Redis, Kafka. Both are the
// real ones where the environment names them; the in-memory ones run in this process
// and their CPU counts as ours. There is no index: it is the archive's to measure.
type pathRig struct {
	b    *testing.B
	a    *archive.Archive
	log  *pathLog
	def  *provider.Definition
	body []byte
	head []byte
	idAt int
	n    atomic.Int64
	p    *Pump
}

func newPathRig(b *testing.B) *pathRig {
	a, err := archive.Open(b.TempDir(), archive.Options{ReservePercent: -1, NoIndex: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Close() })
	r := &pathRig{b: b, a: a, log: &pathLog{Log: FromArchive(a), since: map[uint64]time.Time{}}}
	cat, err := provider.Builtin()
	if err != nil {
		b.Fatal(err)
	}
	r.def, _ = cat.Get("stripe")
	req, err := r.def.Sample("payment_intent.succeeded", provider.SampleParams{OrderID: "ORD-1", Now: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	r.body = req.Body
	r.head = []byte("Host: localhost\r\nContent-Type: application/json\r\nStripe-Signature: t=1,v1=00\r\n")
	evs, err := r.def.Events(req)
	if err != nil || len(evs) != 1 || len(evs[0].ID) < 10 {
		b.Fatal(evs, err)
	}
	if r.idAt = bytes.Index(r.body, []byte(evs[0].ID)); r.idAt < 0 {
		b.Fatal("no id in the sample")
	}
	r.idAt += len(evs[0].ID) - 10
	return r
}

// start sets the pump off.
func (r *pathRig) start() {
	b := r.b
	redis := os.Getenv("PENSTOCK_REDIS")
	if redis == "" {
		redis = miniredis.RunT(b).Addr()
	}
	brokers := []string{os.Getenv("PENSTOCK_KAFKA")}
	if brokers[0] == "" {
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		brokers = c.ListenAddrs()
	}
	topic := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	b.Cleanup(func() {
		tr := &kafka.Transport{ClientID: "bench"}
		_, _ = (&kafka.Client{Addr: kafka.TCP(brokers...), Transport: tr}).DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		tr.CloseIdleConnections()
	})
	d, err := dedupe.New(dedupe.Options{Node: "bench", Local: emptyIndex{}, Window: time.Minute,
		Redis: &dedupe.RedisOptions{Addresses: []string{redis}, Prefix: topic}})
	if err != nil {
		b.Fatal(err)
	}
	compression, err := ParseCompression(cmp.Or(os.Getenv("PENSTOCK_BENCH_COMPRESSION"), "zstd"))
	if err != nil {
		b.Fatal(err)
	}
	info := &SourceInfo{Name: "s", Provider: "stripe", Definition: r.def, Topic: topic}
	r.p, err = New(Options{Archive: r.log, Dedupe: d, Source: func(uint64, uint64) (*SourceInfo, error) { return info, nil },
		Kafka: KafkaOptions{Brokers: brokers, CreateTopics: &CreateTopics{Partitions: 3, Replication: 1}, Compression: compression}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	wg.Go(func() { _ = d.Run(ctx) })
	wg.Go(func() { _ = r.p.Run(ctx) })
}

func (r *pathRig) put() {
	id := r.n.Add(1)
	body := slices.Clone(r.body)
	copy(body[r.idAt:], fmt.Sprintf("%010d", id))
	d := &archive.Delivery{Source: "s", Provider: "stripe", Verdict: archive.Accepted, VerifiedBy: "stripe:0011223344556677",
		Method: "POST", Target: []byte("/in/s"), Header: r.head, Body: body, ReceivedAt: time.Now(), Epoch: 1}
	if err := r.a.Append(d); err != nil {
		r.b.Error(err)
		return
	}
	r.log.mu.Lock()
	r.log.since[d.Seq] = d.ReceivedAt
	r.log.mu.Unlock()
}

// puts stores n deliveries by so many writers, at most rate a second in all (0 = no
// bound).
func (r *pathRig) puts(n, writers, rate int) {
	var wg sync.WaitGroup
	begin := time.Now()
	var next atomic.Int64
	for range writers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if rate > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				}
				r.put()
			}
		})
	}
	wg.Wait()
}

func (r *pathRig) drained() {
	for r.p.Unpublished() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkPath is the CPU of this process per delivery on the way from the log to the
// synced outcome: of a backlog, of a stream of 4,000 a second, of the same stream
// without a pump (to subtract), of as much as 128 writers bring, and of one delivery
// at a time.
func BenchmarkPath(b *testing.B) {
	b.Run("backlog", func(b *testing.B) {
		r := newPathRig(b)
		r.puts(b.N, 256, 0)
		r.measure(func() {
			r.start()
			for r.a.Synced() < uint64(2*b.N) || r.p.Unpublished() > 0 {
				time.Sleep(time.Millisecond)
			}
		})
	})
	stream := func(b *testing.B, n, rate int) {
		r := newPathRig(b)
		r.start()
		r.put()
		time.Sleep(100 * time.Millisecond)
		r.drained()
		r.measure(func() {
			r.puts(n, 128, rate)
			r.drained()
		})
	}
	b.Run("stream", func(b *testing.B) { stream(b, b.N, 4000) })
	b.Run("pressed", func(b *testing.B) { stream(b, b.N, 0) })
	b.Run("slow", func(b *testing.B) { stream(b, b.N, 50) })
	b.Run("ack", func(b *testing.B) {
		r := newPathRig(b)
		r.measure(func() { r.puts(b.N, 128, 4000) })
	})
}

func (r *pathRig) measure(f func()) {
	b := r.b
	r.log.syncs.Store(0)
	r.log.mu.Lock()
	r.log.lags = nil
	r.log.mu.Unlock()
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	f()
	cpu = cpuTime() - cpu
	b.StopTimer()
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/max(float64(r.log.syncs.Load()), 1), "events/commit")
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if lags := r.log.lags; len(lags) > 0 {
		slices.Sort(lags)
		b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "lag-p50-ms")
		b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "lag-p99-ms")
	}
}
