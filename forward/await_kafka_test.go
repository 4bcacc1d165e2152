package forward

import (
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
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

// TestTopicSettings: topics that the configuration names are asked for settings that lose
// events before there is an event, others when there was one. What is sound is not told.
func TestTopicSettings(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		with := func(name, value string) kafka.ConfigEntry {
			return kafka.ConfigEntry{ConfigName: name, ConfigValue: value}
		}
		bad, sound, later := topicName(t), topicName(t)+"-sound", topicName(t)+"-later"
		b.create(t, bad, 1, with(cleanupKey, "compact,delete"), with(uncleanKey, "true"), with(largestKey, "50000"))
		b.create(t, sound, 1, with(insyncKey, "1"), with(cleanupKey, "delete"))
		b.create(t, later, 1, with(cleanupKey, "compact"))
		core, logs := observer.New(zap.WarnLevel)
		r := newRig(t, func(o *Options) {
			o.Kafka = KafkaOptions{Brokers: b.addrs, Compression: CompressionZstd}
			o.Topic, o.DeadLetterTopic, o.Logger = later, "", zap.New(core)
			s, err := newKafkaSink(*o, func(Regression) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			o.sink = s
		})
		r.infos = func(source string) *SourceInfo {
			return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}}
		}
		r.start()
		r.p.Watch([]string{bad, sound, sound + "-absent", "x.{tenant}"})
		r.until("the topics that are named were looked at", func() bool { return len(r.p.Stats().Risks) > 0 })
		if got := r.p.Stats(); len(got.Risks) != 1 || len(got.Risks[bad]) != 3 || len(got.MinInsync) != 0 {
			t.Errorf("%+v; min.insync.replicas %v: want the three settings of %s alone", got.Risks, got.MinInsync, bad)
		}
		r.put("s", body{ID: "a", Key: "k"})
		r.drained()
		r.until("the other was looked at", func() bool { return len(r.p.Stats().Risks[later]) == 1 })
		if n := logs.FilterMessageSnippet("settings that lose events").Len(); n != 2 {
			t.Errorf("%d warnings, want one for each topic", n)
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
			got, err := kafkaSink{p.producer}.topicSettings(t.Context(), []string{topic, topic + "-absent"})
			return err == nil && len(got) == 1 && got[topic].insync == 2 && len(got[topic].risks(0)) == 0
		})
	})
}
