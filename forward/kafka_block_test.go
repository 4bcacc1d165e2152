package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// A missing topic blocks only itself, and opens when it is made.
func TestProducerMissingTopic(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		there, missing := topicName(t)+"-a", topicName(t)+"-b"
		b.create(t, there, 1)
		p := b.start(t, newMemState(), nil, nil)
		ctx := context.Background()
		var blocked *BlockedError
		if err := p.Send(ctx, event(missing, 0)); !errors.As(err, &blocked) || blocked.Reason != ReasonMissing || !errors.Is(err, ErrTopicBlocked) {
			t.Fatalf("send to a missing topic says %v", err)
		}
		p.send(events(there, 0, 10)...)
		p.waitAcked(10)
		if is, why := p.TopicState(missing); !is || why != ReasonMissing || p.BlockedTopics()[missing] != ReasonMissing {
			t.Errorf("state of the missing topic is %v %q", is, why)
		}
		for len(p.Changed()) > 0 {
			<-p.Changed()
		}
		b.create(t, missing, 2)
		<-p.Changed()
		p.send(events(missing, 0, 10)...)
		p.waitAcked(10)
		if is, why := p.TopicState(missing); is {
			t.Errorf("the topic is there and still blocked: %s", why)
		}
		b.wantOnce(t, missing, 2, 0, 10)
	})
}

func TestProducerCreatesTopic(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		t.Cleanup(func() { b.remove(t, topic) })
		p := b.start(t, newMemState(), nil, nil,
			func(o *KafkaOptions) { o.CreateTopics = &CreateTopics{Partitions: 5, Replication: 1} })
		p.send(events(topic, 0, 50)...)
		p.waitAcked(50)
		b.wantOnce(t, topic, 5, 0, 50)
		if b.fake != nil {
			return // kfake makes topics of any name
		}
		if err := p.Send(context.Background(), event("not a topic name!", 0)); !errors.Is(err, ErrTopicBlocked) {
			t.Errorf("send to a topic that cannot be made says %v", err)
		}
	})
}

// A topic that may not be written blocks itself with a reason and opens by itself.
func TestProducerForbidden(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil)
		var forbidden atomic.Bool
		forbidden.Store(true)
		px.set(nil, func(key int16, answer []byte) proxyDo {
			if key == keyProduce && forbidden.Load() {
				c, base := answerAt(answer)
				binary.BigEndian.PutUint16(c, uint16(kafka.TopicAuthorizationFailed))
				binary.BigEndian.PutUint64(base, ^uint64(0))
			}
			return pass
		})
		p.send(event(topic, 0))
		eventually(t, "the topic is blocked", func() bool {
			_, why := p.TopicState(topic)
			return why == ReasonForbidden
		})
		if err := p.Send(context.Background(), event(topic, 1)); !errors.Is(err, ErrTopicBlocked) {
			t.Errorf("send to a forbidden topic says %v", err)
		}
		forbidden.Store(false)
		p.waitAcked(1)
		eventually(t, "the topic is open", func() bool { is, _ := p.TopicState(topic); return !is })
		p.send(event(topic, 1))
		p.waitAcked(1)
		b.wantOnce(t, topic, 1, 0, 2)
	})
}

// One partition that hangs blocks only itself: what waits for it comes back, the budget
// is free for the others, and nothing is lost or doubled when it answers again.
func TestProducerStuckPartition(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic, other := topicName(t)+"-stuck", topicName(t)+"-other"
		b.create(t, topic, 1)
		b.create(t, other, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil, func(o *KafkaOptions) { o.MaxInFlightBytes = 20_000 })
		p.send(event(topic, 0), event(other, 0))
		p.waitAcked(2)
		var stuck atomic.Bool
		stuck.Store(true)
		px.set(func(key int16, request []byte) proxyDo {
			if key == keyProduce && stuck.Load() && strings.Contains(string(request), topic) {
				return cut
			}
			return pass
		}, nil)
		p.send(event(topic, 1))
		eventually(t, "the batch is under way", func() bool { return p.state.intents() == 3 })
		p.send(events(topic, 2, 10)...)
		flow, end := context.WithCancel(context.Background()) // others flow
		defer end()
		others := 1
		var flowing sync.WaitGroup
		flowing.Go(func() {
			for ; flow.Err() == nil; others++ {
				p.send(event(other, others))
				time.Sleep(100 * time.Millisecond)
			}
		})
		var back []Ack
		for got := 0; len(back) < 8; got++ {
			if a := p.wait(1)[0]; a.Err != nil {
				back = append(back, a)
			}
		}
		end()
		flowing.Wait()
		eventually(t, "the others are acked", func() bool { return b.end(t, other, 0) == int64(others) })
		for len(p.got) > 0 {
			<-p.got
		}
		for _, a := range back {
			if !errors.Is(a.Err, ErrNotSent) || !errors.Is(a.Err, ErrTopicBlocked) {
				t.Errorf("delivery %d of the stuck partition: %v", a.Message.Delivery, a.Err)
			}
		}
		if err := p.Send(context.Background(), event(topic, 2)); !errors.Is(err, ErrTopicBlocked) {
			t.Errorf("send to the stuck partition says %v", err)
		}
		if used := p.budget.used; used != 0 {
			t.Errorf("the stuck partition holds %d bytes of the budget", used)
		}
		p.send(events(other, others, others+400)...) // more than the budget takes
		p.waitAcked(400)
		stuck.Store(false)
		p.waitAcked(1)
		eventually(t, "the partition is open", func() bool { is, _ := p.TopicState(topic); return !is })
		// What it gave back is not yet in order where it came from: newer ones must wait.
		if err := p.Send(context.Background(), event(topic, 10)); !errors.Is(err, ErrTopicBlocked) {
			t.Errorf("send past messages that were given back says %v", err)
		}
		p.Fenced(p.Lift)
		p.send(events(topic, 2, 10)...)
		p.waitAcked(8)
		b.wantOnce(t, topic, 1, 0, 10)
		b.wantOnce(t, other, 1, 0, others+400)
	})
}

// The partition of a key stays known while a broker that has just started knows no topic.
func TestPartitionOfIsSteady(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 7)
	p := b.start(t, newMemState(), nil, nil)
	p.send(event(topic, 0))
	p.waitAcked(1)
	k := kafkaSink{p.producer}
	key := []byte("some key")
	want := k.PartitionOf(topic, key)
	if want < 0 {
		t.Fatal("the partition of an open topic is not known")
	}
	p.layout.mu.Lock()
	p.layout.topics[topic] = &topicView{name: topic, code: int16(kafka.UnknownTopicOrPartition)}
	p.layout.mu.Unlock()
	if got := k.PartitionOf(topic, key); got != want {
		t.Errorf("partition %d after a restart of the broker, was %d", got, want)
	}
}

// Memory is bounded by the bytes in flight: Send waits.
func TestProducerBudget(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 16) // the queue of one partition has a bound of its own
	px := newProxy(t)
	p := b.start(t, newMemState(), px, nil, func(o *KafkaOptions) { o.MaxInFlightBytes = 10_000 })
	spread := func(n int) *Message {
		m := event(topic, n)
		m.Key = fmt.Appendf(nil, "key-%d", n)
		return m
	}
	p.send(spread(0))
	p.waitAcked(1)
	var down atomic.Bool
	down.Store(true)
	px.set(func(int16, []byte) proxyDo {
		if down.Load() {
			return cut // no broker answers anything
		}
		return pass
	}, nil)
	sent := make(chan int, 1000)
	go func() {
		for n := 1; n < 500; n++ {
			if p.Send(context.Background(), spread(n)) != nil {
				return
			}
			sent <- n
		}
	}()
	time.Sleep(time.Second)
	p.budget.mu.Lock()
	used := p.budget.used
	p.budget.mu.Unlock()
	if used > 10_000 || len(sent) > 120 {
		t.Errorf("%d bytes of %d messages are in flight, the bound is 10000", used, len(sent))
	}
	if is, why := p.TopicState(topic); is {
		t.Errorf("with the whole cluster away the topic is blocked: %s", why)
	}
	down.Store(false)
	p.waitAcked(499)
	b.wantOnce(t, topic, 16, 0, 500)
}
