package forward

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"penstock/archive"
)

// TestStages: each stage of the pump tells of its batches, and the one that goes to Kafka
// is linked to the traces of the deliveries in it; a traceparent that is none goes nowhere.
func TestStages(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	b := fakeBroker(t)
	topic := topicName(t)
	var mu sync.Mutex
	stages := map[string][]Stage{}
	r := newRig(t, nil)
	r.change = func(o *Options) {
		o.sink = nil
		o.Kafka = KafkaOptions{Brokers: b.addrs, CreateTopics: &CreateTopics{Partitions: 1, Replication: 1}}
		o.Topic = topic
		o.Trace = func(s Stage) {
			mu.Lock()
			defer mu.Unlock()
			stages[s.Name] = append(stages[s.Name], s)
		}
	}
	r.infos = func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}}
	}
	r.start()
	for id, tp := range map[string]string{"good": parent, "bad": "00-zz-01", "none": ""} {
		text, err := json.Marshal(body{ID: id, Key: id})
		if err != nil {
			t.Fatal(err)
		}
		d := &archive.Delivery{ReceivedAt: time.Now(), Source: "s", Provider: "prov", Verdict: archive.Accepted, Method: "POST", Target: []byte("/in/s"),
			Header: []byte("Content-Type: application/json\r\ntraceparent: " + tp + "\r\n"), Body: text, Epoch: r.epochOf("s")}
		if err := r.a.Append(d); err != nil {
			t.Fatal(err)
		}
		r.last = d.Seq
	}
	r.drained()
	r.stop()
	for _, rec := range b.read(t, topic, 1) {
		want := map[string]string{"good": parent}[rec.headers["ce_id"]]
		if got := rec.headers["traceparent"]; got != want {
			t.Errorf("%s went with %q, want %q", rec.headers["ce_id"], got, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"forward.normalize", "forward.dedupe", "forward.produce", "forward.outcome"} {
		n := 0
		var links []string
		for _, s := range stages[name] {
			n += s.Records
			links = append(links, s.Links...)
			if s.End.Before(s.Start) || s.Start.IsZero() || s.Err != nil || (name == "forward.produce") != (s.Topic == topic) {
				t.Errorf("%+v", s)
			}
		}
		if n != 3 {
			t.Errorf("%s told of %d events, want 3", name, n)
		}
		if want := map[bool][]string{true: {parent}}[name == "forward.produce"]; !slices.Equal(links, want) {
			t.Errorf("%s is linked to %v, want %v", name, links, want)
		}
	}
}

// TestNamed: a line about an event names source, delivery and order, and no more.
func TestNamed(t *testing.T) {
	ev := &parcel{source: &sourceState{name: "shop"}, delivery: "01ABC", fields: archive.Fields{OrderID: "672626", PaymentID: "p"}}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range ev.named(zap.String("reason", "x")) {
		f.AddTo(enc)
	}
	if got, want := fmt.Sprint(enc.Fields), "map[delivery:01ABC order_id:672626 reason:x source:shop]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestValidTrace(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	f := func(s string, want bool) {
		t.Helper()
		if got := validTrace(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	f(good, true)
	f("cc"+good[2:]+"-what-the-future-brings", true)
	f("cc"+good[2:]+".x", false)
	f("cc"+good[2:]+"-\r\n", false)
	f(good+"-00", false)
	f("ff"+good[2:], false)
	f(strings.ToUpper(good), false)
	f(good[:54], false)
	f(strings.Replace(good, "b7ad6b7169203331", "0000000000000000", 1), false)
	f(strings.Replace(good, "0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000", 1), false)
	f(strings.Replace(good, "-b7", "_b7", 1), false)
	f("cc"+good[2:]+"-"+strings.Repeat("a", 200), false)
	f("", false)
}
