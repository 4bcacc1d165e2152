package forward

import (
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// TestDeliveredOnBroker: with the broker cut off nobody is told that it has the delivery;
// when it is back it is published once, and its repeat is told so. And the broker is asked
// what its acks are worth.
func TestDeliveredOnBroker(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 2)
		px := newProxy(t)
		r := newRig(t, func(o *Options) {
			o.Kafka = KafkaOptions{Brokers: b.addrs, Compression: CompressionZstd}
			o.Topic, o.DeadLetterTopic = topic, ""
			s, err := newKafkaSink(*o, func(Regression) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			s.(kafkaSink).wire.dial = px.dial
			o.sink = s
		})
		r.infos = func(source string) *SourceInfo {
			return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}}
		}
		r.start()
		r.p.Await([]string{topic, topic + "-absent", "x.{tenant}"})
		if !r.told(r.put("s", body{ID: "a", Key: "k"})) {
			t.Fatal("published, and told that it is not")
		}
		r.until("the broker says min.insync.replicas", func() bool { return r.p.Stats().MinInsync[topic] == 1 })
		if n := len(r.p.Stats().MinInsync); n != 1 {
			t.Errorf("%d topics have one, want only the one that is there", n)
		}
		px.set(func(int16, []byte) proxyDo { return cut }, nil)
		away := r.put("s", body{ID: "b", Key: "k"})
		if _, ok := r.p.Delivered(away.Seq, time.Now().Add(50*time.Millisecond), nil); ok {
			t.Fatal("the broker is cut off, and it is told that it has the delivery")
		}
		px.set(nil, nil)
		if !r.told(r.put("s", body{ID: "b", Key: "k"})) {
			t.Error("the repeat is told as not delivered")
		}
		r.drained()
		seen := map[string]int{}
		for _, rec := range b.read(t, topic, 2) {
			seen[rec.headers["ce_id"]]++
		}
		if len(seen) != 2 || seen["a"] != 1 || seen["b"] != 1 {
			t.Errorf("in kafka: %v, want a and b once each", seen)
		}
		r.stop()
	})
}

// TestMinInsync: what a topic says of itself is found.
func TestMinInsync(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1, kafka.ConfigEntry{ConfigName: insyncKey, ConfigValue: "2"})
		p := b.start(t, newMemState(), nil, nil)
		eventually(t, "the broker says min.insync.replicas", func() bool {
			got, err := kafkaSink{p.producer}.minInsync(t.Context(), []string{topic})
			return err == nil && got[topic] == 2
		})
	})
}
