package forward

import (
	"strconv"
	"testing"
	"time"
)

// TestPumpOnBroker runs the pump with the real producer: against the in-memory broker,
// and against a real one where there is one. Restarts and repeats; every event once.
func TestPumpOnBroker(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		r := newRig(t, nil)
		r.change = func(o *Options) {
			o.sink = nil
			o.Kafka = KafkaOptions{Brokers: b.addrs, CreateTopics: &CreateTopics{Partitions: 3, Replication: 1}, Compression: CompressionZstd}
			o.Topic, o.DeadLetterTopic = topic, topic+".dead"
		}
		r.infos = func(source string) *SourceInfo {
			return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}}
		}
		n := 0
		for life := range 4 {
			r.start()
			for range 150 {
				i := n
				if n > 20 && n%4 == 0 {
					i = n - 17
				}
				r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%5)})
				n++
			}
			if life == 3 {
				break
			}
			time.Sleep(time.Duration(life) * 60 * time.Millisecond)
			r.crash()
		}
		r.drained()
		r.stop()
		seen := map[string]int{}
		for _, rec := range b.read(t, topic, 3) {
			seen[rec.headers["ce_id"]]++
		}
		want := 0
		for i := range n {
			if i > 20 && i%4 == 0 {
				continue
			}
			want++
			if c := seen["e"+strconv.Itoa(i)]; c != 1 {
				t.Errorf("e%d is in kafka %d times", i, c)
			}
		}
		if len(seen) != want {
			t.Errorf("%d events in kafka, want %d", len(seen), want)
		}
	})
}
