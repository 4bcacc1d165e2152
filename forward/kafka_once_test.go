package forward

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// What is sent is in Kafka, once, where Java's partitioner puts it and in order of each key.
func TestProducerPublishes(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 4)
		s := newMemState()
		p := b.start(t, s, nil, nil)
		msgs := events(topic, 0, 3000)
		p.send(msgs...)
		acks := p.waitAcked(3000)
		all := b.wantOnce(t, topic, 4, 0, 3000)
		where := map[string]readRecord{}
		last := map[string]int64{}
		for _, r := range all {
			where[r.headers[headerID]] = r
			if at, ok := last[r.key]; ok && r.offset <= at {
				t.Fatalf("key %s is out of order", r.key)
			}
			last[r.key] = r.offset
		}
		for _, a := range acks {
			r := where[string(a.Message.Headers[0].Value)]
			if r.offset != a.Offset || r.partition != int(a.Partition) || r.value != string(a.Message.Value) || r.key != string(a.Message.Key) {
				t.Fatalf("ack of delivery %d says %d/%d, kafka has %+v", a.Message.Delivery, a.Partition, a.Offset, r)
			}
		}
		if s.intents() == 0 {
			t.Error("no intent is kept although no outcome is synced")
		}
		if err := p.Done(acks); err != nil {
			t.Fatal(err)
		}
		eventually(t, "intents go when outcomes are synced", func() bool { return s.intents() == 0 })
		if err := p.shut(5 * time.Second); err != nil {
			t.Fatal(err)
		}
	})
}

// A swallowed answer: the batch is in Kafka and we do not know it. It is found there.
func TestProducerLostAck(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil)
		p.send(event(topic, 0))
		p.waitAcked(1)
		var swallowed atomic.Int32
		px.set(nil, func(key int16, _ []byte) proxyDo {
			if key == keyProduce && swallowed.Add(1) <= 3 {
				return cut
			}
			return pass
		})
		p.send(events(topic, 1, 200)...)
		acks := p.waitAcked(199)
		if swallowed.Load() == 0 {
			t.Fatalf("no answer was swallowed, the fault did not happen")
		}
		if acks[0].Offset != 1 {
			t.Errorf("first offset after the lost ack is %d, want 1", acks[0].Offset)
		}
		b.wantOnce(t, topic, 1, 0, 200)
	})
}

// A crash after the intent is kept. before: the request never left; after: Kafka has it
// and the answer was lost; other: as before, but the bytes come out different.
func TestProducerCrash(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		for _, c := range []struct {
			name           string
			reached, other bool
		}{{"before append", false, false}, {"after append", true, false}, {"after append, other config", true, true},
			{"before append, other config", false, true}} {
			t.Run(c.name, func(t *testing.T) { testCrash(t, b, c.reached, c.other) })
		}
	})
}

func testCrash(t *testing.T, b *testBroker, reached, other bool) {
	topic := topicName(t)
	b.create(t, topic, 2)
	px := newProxy(t)
	s := newMemState()
	p := b.start(t, s, px, nil)
	p.send(events(topic, 0, 50)...)
	acked := p.waitAcked(50)
	if err := p.Done(acked[:20]); err != nil { // the outcomes of the rest are not synced
		t.Fatal(err)
	}
	var hit atomic.Int32
	onRequest := func(key int16, _ []byte) proxyDo {
		if key == keyProduce && !reached {
			hit.Add(1)
			return stall
		}
		return pass
	}
	onAnswer := func(key int16, _ []byte) proxyDo {
		if key == keyProduce {
			hit.Add(1)
			return stall
		}
		return pass
	}
	px.set(onRequest, onAnswer)
	p.send(events(topic, 50, 100)...)
	eventually(t, "both partitions' batches are under way", func() bool { return hit.Load() >= 2 })
	s2 := s.after()
	p.kill()
	var produced atomic.Int32
	px.set(func(key int16, _ []byte) proxyDo {
		if key == keyProduce {
			produced.Add(1)
		}
		return pass
	}, nil)

	rebuild := rebuildFrom(topic)
	if other {
		rebuild = func(r ItemRef) (*Message, error) {
			m, _ := rebuildFrom(topic)(r)
			m.Value = append(m.Value, "changed"...)
			return m, nil
		}
	}
	q := b.start(t, s2, px, rebuild)
	// A broker that has forgotten the producer takes a repeat for new: what is there is
	// found by reading, and not sent again.
	if n := produced.Load(); reached && n != 0 {
		t.Errorf("%d batches that are in Kafka were sent again", n)
	}
	again := map[int]bool{}
	known := map[uint64]bool{}
	for _, a := range acked[:20] {
		known[a.Message.Delivery] = true
	}
	for _, a := range q.early {
		switch {
		case a.Err == nil:
			known[a.Message.Delivery] = true
		case errors.Is(a.Err, ErrNotSent):
			again[int(a.Message.Delivery)] = true
		default:
			t.Fatal(a.Err)
		}
	}
	if err := q.Done(q.early); err != nil {
		t.Fatal(err)
	}
	if wantAgain := other && !reached; wantAgain != (len(again) > 0) {
		t.Errorf("%d events were given back, want some: %v", len(again), wantAgain)
	}
	for n := range 100 { // what a pump does: everything without an outcome goes anew
		if !known[uint64(n)] {
			q.send(event(topic, n))
			q.waitAcked(1)
		}
	}
	if !c100(known, again) && !other {
		t.Log("events were cut into a batch that had not been begun: they went anew")
	}
	b.wantOnce(t, topic, 2, 0, 100)
	eventually(t, "old intents go", func() bool {
		return !slices.ContainsFunc(kept(s2), func(it *intent) bool { return it.stamp.pid == p.session.pid })
	})
	_ = q.shut(5 * time.Second)
}

func c100(known map[uint64]bool, again map[int]bool) bool { return len(known)+len(again) == 100 }

func kept(s *memState) []*intent {
	var all []*intent
	s.Range(intentPrefix, func(_ string, v []byte) bool {
		if it, err := decodeIntent(0, v); err == nil {
			all = append(all, it)
		}
		return true
	})
	return all
}

// No intent synced, nothing sent.
func TestProducerSendsNothingWithoutIntent(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 1)
	s := newMemState()
	p := b.start(t, s, nil, nil)
	p.send(event(topic, 0))
	p.waitAcked(1)
	s.mu.Lock()
	s.fail = errors.New("disk is full")
	s.mu.Unlock()
	p.send(event(topic, 1))
	time.Sleep(300 * time.Millisecond)
	if end := b.end(t, topic, 0); end != 1 {
		t.Fatalf("partition ends at %d: a batch was sent whose intent could not be kept", end)
	}
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	p.waitAcked(1)
	b.wantOnce(t, topic, 1, 0, 2)
}

// Close is bounded and leaves the unresolved batch to the next life.
func TestProducerCloseBounded(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 1)
	px := newProxy(t)
	s := newMemState()
	p := b.start(t, s, px, nil)
	px.set(func(key int16, _ []byte) proxyDo {
		if key == keyProduce {
			return stall
		}
		return pass
	}, nil)
	p.send(event(topic, 0))
	eventually(t, "the batch is under way", func() bool { return s.intents() == 1 })
	done := make(chan error, 1)
	go func() { done <- p.shut(200 * time.Millisecond) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close says %v, want a deadline", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("close hangs")
	}
	if err := p.Send(context.Background(), event(topic, 1)); !errors.Is(err, ErrProducerClosed) {
		t.Errorf("send after close says %v", err)
	}
	q := b.start(t, s.after(), nil, rebuildFrom(topic))
	if len(q.early) != 1 || q.early[0].Err != nil {
		t.Fatalf("recover gives %+v, want the one event acked", q.early)
	}
	b.wantOnce(t, topic, 1, 0, 1)
}
