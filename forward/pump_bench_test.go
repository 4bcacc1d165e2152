package forward

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"penstock/archive"
	"penstock/dedupe"
	"penstock/provider"
)

// memLog is a log of equal deliveries, made as they are read.
type memLog struct {
	Log
	n     uint64
	st    *memState
	fresh func(seq uint64) *archive.Delivery
	seq   atomic.Uint64
	done  atomic.Uint64
}

type memReader struct {
	l    *memLog
	next uint64
}

func (l *memLog) Reader(from uint64) Reader { return &memReader{l, max(from, 1)} }
func (l *memLog) First() uint64             { return 1 }
func (l *memLog) Synced() uint64            { return 0 }
func (l *memLog) State() State              { return l.st }
func (l *memLog) GetSeq(seq uint64) (*archive.Delivery, error) {
	return l.fresh(seq), nil
}
func (l *memLog) AppendOutcomes(os []archive.Outcome) error {
	for i := range os {
		os[i].Seq = l.n + l.seq.Add(1)
	}
	l.done.Add(uint64(len(os)))
	return nil
}

func (r *memReader) Close() {}
func (r *memReader) TryNext() (archive.Record, bool, error) {
	if r.next > r.l.n {
		return archive.Record{}, false, nil
	}
	d := r.l.fresh(r.next)
	r.next++
	return archive.Record{Seq: d.Seq, Delivery: d}, true, nil
}
func (r *memReader) Next(ctx context.Context) (archive.Record, error) {
	if rec, ok, _ := r.TryNext(); ok {
		return rec, nil
	}
	<-ctx.Done()
	return archive.Record{}, ctx.Err()
}

// instantSink acks what it is given.
type instantSink struct {
	fakeSink
	in chan *Message
}

func (s *instantSink) Send(_ context.Context, m *Message) error { s.in <- m; return nil }
func (s *instantSink) Done([]Ack) error                         { return nil }
func (s *instantSink) Close(context.Context) error              { return nil }
func (s *instantSink) run(stop <-chan struct{}) {
	for {
		var acks []Ack
		select {
		case m := <-s.in:
			acks = append(acks, Ack{Message: m})
		case <-stop:
			return
		}
		for len(s.in) > 0 && len(acks) < 500 {
			acks = append(acks, Ack{Message: <-s.in, Offset: 1})
		}
		select {
		case s.acks <- acks:
		case <-stop:
			return
		}
	}
}

type emptyIndex struct{}

func (emptyIndex) IndexReady() bool { return true }
func (emptyIndex) Indexed() uint64  { return 0 }
func (emptyIndex) Evidence(archive.Identity) (string, archive.Identity, time.Time, bool) {
	return "", archive.Identity{}, time.Time{}, false
}

type constDef struct{}

func (constDef) Events(r *provider.Request) ([]provider.Event, error) {
	id := string(r.Body[7:17])
	return []provider.Event{{ID: id, CEID: id, Type: "t", Canonical: "payment.captured", Subject: id[5:], Payload: r.Body, PayloadJSON: true}}, nil
}

// BenchmarkPump is the pump's own cost: reading, rendering, dedupe without Redis,
// dispatch and bookkeeping; disk and Kafka are free.
func BenchmarkPump(b *testing.B) {
	for _, size := range []int{300, 2000} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			pad := make([]byte, size)
			for i := range pad {
				pad[i] = 'x'
			}
			l := &memLog{n: uint64(b.N), st: newMemState()}
			l.fresh = func(seq uint64) *archive.Delivery {
				return &archive.Delivery{Seq: seq, ID: "01J00000000000000000000007", ReceivedAt: time.Unix(1, 0), Source: "s", Provider: "p",
					Verdict: archive.Accepted, VerifiedBy: "hmac", Method: "POST", Header: []byte("Content-Type: application/json\r\nUser-Agent: x\r\n"),
					Body: fmt.Appendf(nil, `{"id":"%010d","x":"%s"}`, seq, pad)}
			}
			d, err := dedupe.New(dedupe.Options{Local: emptyIndex{}})
			if err != nil {
				b.Fatal(err)
			}
			s := &instantSink{fakeSink: fakeSink{k: newFakeKafka(), acks: make(chan []Ack, 16)}, in: make(chan *Message, 5000)}
			info := &SourceInfo{Name: "s", Provider: "p", Definition: constDef{}}
			p, err := New(Options{Archive: l, Dedupe: d, sink: s, grace: time.Millisecond, Source: func(uint64, uint64) (*SourceInfo, error) { return info, nil }})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			b.ReportAllocs()
			b.ResetTimer()
			go s.run(ctx.Done())
			go func() {
				defer close(done)
				_ = p.Run(ctx)
			}()
			for l.done.Load() < uint64(b.N) {
				time.Sleep(100 * time.Microsecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			cancel()
			<-done
		})
	}
}
