package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerAt finds the error code in a produce answer (version 8, one partition): size,
// correlation id, topics, name, partitions, index, code, base offset.
func answerAt(answer []byte) (code, base []byte) {
	name := int(binary.BigEndian.Uint16(answer[12:]))
	at := 14 + name + 4 + 4
	return answer[at : at+2], answer[at+2 : at+10]
}

// An error that comes although the batch was appended: whatever the broker says, there
// is one copy in the end.
func TestProducerErrorAfterAppend(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		for _, code := range []kafka.Error{kafka.RequestTimedOut, kafka.NotEnoughReplicasAfterAppend, kafka.NotLeaderForPartition,
			kafka.Unknown, kafka.OutOfOrderSequenceNumber, kafka.UnknownProducerId, kafka.InvalidProducerEpoch, kafka.ProducerFenced,
			kafka.DuplicateSequenceNumber, kafka.Error(999)} {
			t.Run(strings.ReplaceAll(code.Title(), " ", ""), func(t *testing.T) {
				t.Parallel()
				topic := topicName(t)
				b.create(t, topic, 1)
				px := newProxy(t)
				p := b.start(t, newMemState(), px, nil)
				p.send(events(topic, 0, 5)...)
				p.waitAcked(5)
				var hit atomic.Int32
				px.set(nil, func(key int16, answer []byte) proxyDo {
					if key == keyProduce && hit.Add(1) == 1 {
						c, base := answerAt(answer)
						binary.BigEndian.PutUint16(c, uint16(code))
						binary.BigEndian.PutUint64(base, ^uint64(0))
					}
					return pass
				})
				p.send(events(topic, 5, 40)...)
				p.waitAcked(35)
				b.wantOnce(t, topic, 1, 0, 40)
			})
		}
	})
}

// Another producer has taken our id with a newer epoch: we are fenced, take a new id,
// and nothing is lost or doubled. And the same for a gap in our sequence.
func TestProducerFencedAndGap(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		p := b.start(t, newMemState(), nil, nil)
		p.send(events(topic, 0, 10)...)
		p.waitAcked(10)
		pt := p.topics[topic].parts[0]
		first := pt.session
		// The epoch of our own id is raised behind our back.
		if code, _ := rawSend(t, p.producer, events(topic, 10, 11), stampOf{first.pid, first.epoch + 1, 0}); code != 0 {
			t.Fatalf("raising the epoch: %v", kafka.Error(code))
		}
		p.send(events(topic, 11, 20)...)
		p.waitAcked(9)
		second := pt.session
		if second.pid == first.pid {
			t.Fatal("a fenced producer id is still in use")
		}
		pt.seq += 3 // a gap
		p.send(events(topic, 20, 30)...)
		p.waitAcked(10)
		if pt.session.pid == second.pid {
			t.Fatal("a producer id with a gap is still in use")
		}
		b.wantOnce(t, topic, 1, 0, 30)
	})
}

// rawSend sends the events to partition 0 as one batch under the stamp, past the producer.
func rawSend(t *testing.T, p *producer, msgs []*Message, st stampOf) (code int16, base int64) {
	t.Helper()
	buf, err := p.encoder.encode(msgs, st)
	if err != nil {
		t.Fatal(err)
	}
	tp, err := p.topic(msgs[0].Topic)
	if err != nil {
		t.Fatal(err)
	}
	if !tp.gate(context.Background()) {
		t.Fatal("topic does not open")
	}
	f := flight{pt: newPartition(tp, 0), it: newIntent(msgs, st, 0, 0), buf: buf}
	res, err := f.attempt(context.Background())
	var e kafka.Error
	if errors.As(err, &e) {
		return int16(e), -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, res.base
}

// What the design builds on, shown by the broker itself.
func TestKafkaKeepsItsSequences(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		p := b.start(t, newMemState(), nil, nil).producer
		ctx := context.Background()
		st, err := p.layout.newProducerID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		send := func(what string, from, to int, seq int32, wantCode kafka.Error, wantBase int64) {
			t.Helper()
			code, base := rawSend(t, p, events(topic, from, to), stampOf{st.pid, st.epoch, seq})
			if kafka.Error(code) != wantCode || wantCode == 0 && base != wantBase {
				t.Errorf("%s: code %d base %d, want %d and %d", what, code, base, wantCode, wantBase)
			}
		}
		send("first", 0, 3, 0, 0, 0)
		send("repeated", 0, 3, 0, 0, 0)
		send("other bytes under the same sequence", 100, 103, 0, 0, 0)
		if end := b.end(t, topic, 0); end != 3 {
			t.Errorf("log ends at %d after repeats, want 3", end)
		}
		send("gap", 3, 4, 7, kafka.OutOfOrderSequenceNumber, 0)
		for i := range 6 {
			send("next", 3+i, 4+i, int32(3+i), 0, int64(3+i))
		}
		send("the fifth last", 4, 5, 4, 0, 4)
		send("the sixth last", 3, 4, 3, kafka.OutOfOrderSequenceNumber, 0)
		code, _ := rawSend(t, p, events(topic, 4, 6), stampOf{st.pid, st.epoch, 4})
		t.Logf("the same records cut differently: code %d", code)
		if code == 0 && b.end(t, topic, 0) != 9 {
			t.Error("records cut differently were appended again")
		}
		// A producer that the broker does not know may begin anywhere (KIP-360).
		other, err := p.layout.newProducerID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if code, base := rawSend(t, p, events(topic, 50, 51), stampOf{other.pid, 0, 1000}); code != 0 || base != 9 {
			t.Errorf("an unknown producer beginning at 1000: code %d base %d", code, base)
		}
		if b.fake != nil {
			return // kfake does not let a sequence wrap
		}
		wrap, err := p.layout.newProducerID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		st = wrap
		send("before the wrap", 60, 62, 0x7ffffffd, 0, 10)
		send("over the wrap", 62, 65, 0x7fffffff, 0, 12)
		send("after the wrap", 65, 66, 2, 0, 15)
	})
}

// The sequence wraps in the producer too.
func TestProducerSequenceWrap(t *testing.T) {
	b := realBroker(t) // kfake does not let a sequence wrap
	topic := topicName(t)
	b.create(t, topic, 1)
	p := b.start(t, newMemState(), nil, nil)
	tp, err := p.topic(topic)
	if err != nil || !tp.gate(context.Background()) {
		t.Fatal(err)
	}
	tp.mu.Lock()
	pt := tp.part(0)
	tp.mu.Unlock()
	// It is not running yet: an id that the broker has never seen may begin here.
	if pt.session, err = p.newSession(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	pt.seq = 0x7fffffff - 10
	before := pt.session.pid
	for n := 0; n < 60; n += 4 {
		p.send(events(topic, n, n+4)...)
		p.waitAcked(4)
	}
	if pt.session.pid != before || pt.seq != addSequence(0x7fffffff-10, 60) {
		t.Errorf("after the wrap: producer %d sequence %d, want %d and %d", pt.session.pid, pt.seq, before, addSequence(0x7fffffff-10, 60))
	}
	b.wantOnce(t, topic, 1, 0, 60)
}

// Partitions move between brokers under load; order of keys and single copies hold.
func TestProducerLeaderMoves(t *testing.T) {
	b := fakeBroker(t, kfake.NumBrokers(3))
	topic := topicName(t)
	b.create(t, topic, 3)
	p := b.start(t, newMemState(), nil, nil)
	const n = 3000
	var wg sync.WaitGroup
	wg.Go(func() { p.send(events(topic, 0, n)...) })
	moves := 0
	wg.Go(func() {
		for i := range 20 {
			part := int32(i % 3)
			if err := b.fake.MoveTopicPartition(topic, part, (b.fake.LeaderFor(topic, part)+1)%3); err == nil {
				moves++
			}
			time.Sleep(20 * time.Millisecond)
			p.send(event(topic, n+i))
		}
	})
	p.waitAcked(n + 20)
	wg.Wait()
	if moves < 10 {
		t.Fatalf("%d moves, the fault did not happen", moves)
	}
	b.addrs = b.fake.ListenAddrs()
	b.wantOnce(t, topic, 3, 0, n+20)
}

// A partition without a leader for a while is waited for.
func TestProducerNoLeader(t *testing.T) {
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 1)
	p := b.start(t, newMemState(), nil, nil)
	p.send(event(topic, 0))
	p.waitAcked(1)
	until := time.Now().Add(1500 * time.Millisecond)
	var asked atomic.Int32
	b.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if time.Now().After(until) {
			return nil, nil, false
		}
		b.fake.KeepControl()
		asked.Add(1)
		pr := req.(*kmsg.ProduceRequest)
		res := pr.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range pr.Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			sp := kmsg.NewProduceResponseTopicPartition()
			sp.Partition, sp.ErrorCode, sp.BaseOffset = rt.Partitions[0].Partition, int16(kafka.LeaderNotAvailable), -1
			st.Partitions = append(st.Partitions, sp)
			res.Topics = append(res.Topics, st)
		}
		return res, nil, true
	})
	p.send(events(topic, 1, 30)...)
	p.waitAcked(29)
	if asked.Load() < 3 {
		t.Fatalf("%d answers without a leader, the fault did not happen", asked.Load())
	}
	b.wantOnce(t, topic, 1, 0, 30)
}

// A batch that is too large for the topic is split; a record that is, comes back.
func TestProducerTooLarge(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "4000"})
		p := b.start(t, newMemState(), nil, nil, func(o *KafkaOptions) { o.Compression = CompressionNone })
		msgs := events(topic, 0, 300)
		giant := event(topic, 1000)
		giant.Value = make([]byte, 8000)
		over := event(topic, 1001)
		over.Value = make([]byte, defaultBatchBytes+1)
		p.send(slices.Concat(msgs[:150], []*Message{giant, over}, msgs[150:])...)
		var large int
		for _, a := range p.wait(302) {
			switch {
			case a.Err == nil && a.Message.Delivery < 300:
			case errors.Is(a.Err, ErrTooLarge) && a.Message.Delivery >= 1000 && !errors.Is(a.Err, ErrNotSent):
				large++
			default:
				t.Errorf("delivery %d: %v", a.Message.Delivery, a.Err)
			}
		}
		if large != 2 {
			t.Errorf("%d records came back as too large, want 2", large)
		}
		b.wantOnce(t, topic, 1, 0, 300)
	})
}

// A record that the broker refuses for what it is comes back; its neighbours go.
func TestProducerInvalidRecord(t *testing.T) {
	b := realBroker(t) // kfake checks neither keys nor times
	topic := topicName(t)
	b.create(t, topic, 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"})
	p := b.start(t, newMemState(), nil, nil)
	msgs := events(topic, 0, 40)
	for _, m := range msgs {
		m.Key = slices.Clone(m.Headers[0].Value) // compaction must not take any
	}
	msgs[7].Key = nil
	p.send(msgs...)
	acks := p.wait(40)
	for _, a := range acks {
		if bad := a.Message == msgs[7]; bad != errors.Is(a.Err, ErrInvalidRecord) || !bad && a.Err != nil {
			t.Errorf("delivery %d: %v", a.Message.Delivery, a.Err)
		}
	}
	if n := len(b.read(t, topic, 1)); n != 39 {
		t.Errorf("%d records in the topic, want 39", n)
	}
}
