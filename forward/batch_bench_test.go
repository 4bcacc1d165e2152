package forward

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func benchEvents(n int) []*Message {
	msgs := make([]*Message, n)
	for i := range msgs {
		m := event("bench", i)
		m.Value = fmt.Appendf(nil, `{"provider":"stripe","source":"shop","type":"payment.captured","provider_type":"payment_intent.succeeded",`+
			`"livemode":true,"occurred_at":"2026-05-28T20:26:40Z","payment":{"id":"pi_%024d","order_id":"order:%d","status":"captured",`+
			`"amount":{"minor":%d,"currency":"EUR","exponent":2}},"payload":{"id":"evt_%024d","object":"event","created":%d,"data":{"object":`+
			`{"id":"pi_%024d","amount":%d,"customer":"cus_%014x","metadata":{"order_id":"order:%d","cart":"%x"}}}}}`,
			i*7919, i, i*37, i*104729, 1790000000+i, i*7919, i*37, i*2654435761, i, i*2246822519)
		msgs[i] = m
	}
	return msgs
}

func BenchmarkBatchEncode(b *testing.B) {
	msgs := benchEvents(500)
	total := 0
	for _, m := range msgs {
		total += m.size()
	}
	for _, c := range allCompressions {
		b.Run(c.String(), func(b *testing.B) {
			e := encoderFor(b, c)
			b.ReportAllocs()
			b.SetBytes(int64(total))
			size := 0
			for range b.N {
				set, err := e.encode(msgs, stampOf{1, 0, 0})
				if err != nil {
					b.Fatal(err)
				}
				size = len(set)
				e.release(set)
			}
			b.ReportMetric(float64(total)/float64(size), "ratio")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(msgs)), "ns/event")
		})
	}
}

func BenchmarkIntentEncode(b *testing.B) {
	it := newIntent(benchEvents(500), stampOf{1 << 40, 0, 1000}, 1<<40, 0xdeadbeef)
	b.ReportAllocs()
	b.SetBytes(int64(len(it.encode())))
	for range b.N {
		it.encode()
	}
}

// Steady encoding takes its buffers from pools.
func TestBatchEncodeAllocates(t *testing.T) {
	msgs := benchEvents(500)
	e := encoderFor(t, CompressionZstd)
	n := testing.AllocsPerRun(200, func() {
		set, err := e.encode(msgs, stampOf{1, 0, 0})
		if err != nil {
			t.Fatal(err)
		}
		e.release(set)
	})
	if n > 8 {
		t.Errorf("a batch of %d events costs %.0f allocations, want 8 at most", len(msgs), n)
	}
}

// End to end on kfake in the same process: encode, intent, produce, ack, done.
func BenchmarkProducer(b *testing.B) {
	for _, partitions := range []int{1, 8} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			broker := benchBroker(b)
			topic := fmt.Sprintf("bench-%d-%d", partitions, time.Now().UnixNano())
			p, err := newProducer(KafkaOptions{Brokers: broker, Compression: CompressionZstd,
				CreateTopics: &CreateTopics{Partitions: partitions, Replication: 1}}, newMemState())
			if err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			if _, err := p.Open(ctx); err != nil {
				b.Fatal(err)
			}
			msgs := benchEvents(b.N)
			for i, m := range msgs {
				m.Topic, m.Key = topic, fmt.Appendf(nil, "key-%d", i%64)
			}
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				for _, m := range msgs {
					if p.Send(ctx, m) != nil {
						return
					}
				}
			}()
			for got := 0; got < b.N; {
				acks := <-p.Acks()
				for _, a := range acks {
					if a.Err != nil {
						b.Error(a.Err)
					}
				}
				got += len(acks)
				_ = p.Done(acks)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			_ = p.Close(ctx)
		})
	}
}

func benchBroker(b *testing.B) []string {
	b.Helper()
	if addr := os.Getenv("PENSTOCK_KAFKA"); addr != "" {
		return []string{addr}
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c.ListenAddrs()
}
