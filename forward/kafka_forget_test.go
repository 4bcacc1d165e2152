package forward

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// recordSetIn is the record set of a produce request (version 8 or older, one
// partition), from its size field to the end: size, header with a client id,
// transactional id (null), acks, timeout, topics, name, partitions, index.
func recordSetIn(request []byte) []byte {
	at := 4 + 2 + 2 + 4
	at += 2 + int(binary.BigEndian.Uint16(request[at:]))
	at += 2 + 2 + 4 + 4
	at += 2 + int(binary.BigEndian.Uint16(request[at:]))
	at += 4 + 4
	return request[at:]
}

// A broker that has forgotten the producer takes a repeated batch for new, whatever
// its sequence. Here it never knows the producer: each attempt reaches it under
// another id. With the answers lost, there is one copy all the same, in order.
func TestProducerForgotten(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil)
		strangers := make(chan stampOf, 100)
		for range cap(strangers) {
			st, err := p.layout.newProducerID(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			strangers <- st
		}
		var swallowed atomic.Int32
		px.set(func(key int16, request []byte) proxyDo {
			if key == keyProduce {
				set := recordSetIn(request)
				st := <-strangers
				st.seq = int32(binary.BigEndian.Uint32(set[atSequence:]))
				stamp(set, st)
			}
			return pass
		}, func(key int16, _ []byte) proxyDo {
			if key == keyProduce && swallowed.Add(1) <= 3 {
				return cut
			}
			return pass
		})
		for n := 0; n < 100; n += 10 {
			p.send(events(topic, n, n+10)...)
			for i, a := range p.waitAcked(10) {
				if a.Offset != int64(n+i) {
					t.Fatalf("event %d is acked at offset %d", n+i, a.Offset)
				}
			}
		}
		if swallowed.Load() < 3 {
			t.Fatalf("%d answers came, 3 were to be swallowed", swallowed.Load())
		}
		b.wantOnce(t, topic, 1, 0, 100)
	})
}

// A request that is still on its way when its batch is looked for: it is appended
// between the look and the next attempt. That is what the sequence is for.
func TestProducerLateRequest(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil)
		p.send(event(topic, 0))
		p.waitAcked(1)
		var late []byte // only the partition's own connection brings produce requests
		var requests atomic.Int32
		px.set(func(key int16, request []byte) proxyDo {
			if key != keyProduce {
				return pass
			}
			switch requests.Add(1) {
			case 1:
				late = slices.Clone(request)
				return cut
			case 2:
				if err := deliverLate(b.addrs[0], late); err != nil {
					t.Error(err)
				}
			}
			return pass
		}, nil)
		p.send(event(topic, 1))
		if a := p.waitAcked(1)[0]; a.Offset != 1 {
			t.Errorf("the event is acked at offset %d, want 1", a.Offset)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d produce requests, want 2", n)
		}
		p.send(event(topic, 2))
		p.waitAcked(1)
		b.wantOnce(t, topic, 1, 0, 3)
	})
}

func deliverLate(addr string, request []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(request); err != nil {
		return err
	}
	answer, err := readFrame(c)
	if err != nil {
		return err
	}
	if code, _ := answerAt(answer); binary.BigEndian.Uint16(code) != 0 {
		return fmt.Errorf("the late request is answered with code %d", binary.BigEndian.Uint16(code))
	}
	return nil
}

// A batch that may be there and cannot be looked for blocks its partition, with the
// reason, and is not sent on the chance.
func TestProducerMayNotRead(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := topicName(t)
	b.create(t, topic, 1)
	px := newProxy(t)
	p := b.start(t, newMemState(), px, nil)
	p.send(event(topic, 0))
	p.waitAcked(1)
	var forbidden atomic.Bool
	forbidden.Store(true)
	b.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.fake.KeepControl()
		if !forbidden.Load() {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.FetchResponse)
		for _, rt := range req.(*kmsg.FetchRequest).Topics {
			st := kmsg.NewFetchResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			sp := kmsg.NewFetchResponseTopicPartition()
			sp.Partition, sp.ErrorCode = rt.Partitions[0].Partition, int16(kafka.TopicAuthorizationFailed)
			st.Partitions = append(st.Partitions, sp)
			res.Topics = append(res.Topics, st)
		}
		return res, nil, true
	})
	var produced atomic.Int32
	px.set(nil, func(key int16, _ []byte) proxyDo {
		if key == keyProduce && produced.Add(1) == 1 {
			return cut
		}
		return pass
	})
	p.send(event(topic, 1))
	eventually(t, "the topic is blocked", func() bool { _, why := p.TopicState(topic); return why == ReasonForbidden })
	if n := produced.Load(); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
	forbidden.Store(false)
	p.waitAcked(1)
	eventually(t, "the topic is open", func() bool { is, _ := p.TopicState(topic); return !is })
	p.send(event(topic, 2))
	p.waitAcked(1)
	b.wantOnce(t, topic, 1, 0, 3)
}

// Apache Kafka forgets at its start the producers whose records are older than a day,
// however lately they came: the batch was appended, its answer lost, and the broker
// that it is sent to again would take it for new.
func TestKafkaForgetsOldRecords(t *testing.T) {
	b := startOwnBroker(t)
	px := newProxy(t)
	p := b.start(t, newMemState(), px, nil)
	for _, how := range []string{"kafka-kill", "kafka-stop"} {
		topic := topicName(t)
		b.create(t, topic, 1)
		happened := time.Now().Add(-48 * time.Hour)
		old := func(from, to int) []*Message {
			msgs := events(topic, from, to)
			for _, m := range msgs {
				m.Time = happened
			}
			return msgs
		}
		p.send(old(0, 5)...)
		p.waitAcked(5)
		var appended atomic.Bool
		px.set(func(int16, []byte) proxyDo {
			if appended.Load() {
				return cut // nothing more reaches this life of the broker
			}
			return pass
		}, func(key int16, _ []byte) proxyDo {
			if key == keyProduce {
				appended.Store(true)
			}
			if appended.Load() {
				return cut
			}
			return pass
		})
		p.send(old(5, 10)...)
		eventually(t, "the batch is appended and its answer lost", appended.Load)
		b.do(how)
		b.do("kafka-start")
		px.set(nil, nil)
		p.waitAcked(5)
		b.wantOnce(t, topic, 1, 0, 10)
	}
}
