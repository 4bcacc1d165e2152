package forward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"penstock/archive"
)

// testBroker is a cluster under test: kfake, or a real Apache Kafka.
type testBroker struct {
	addrs []string
	fake  *kfake.Cluster // nil for the real one
}

// eachBroker runs the test against kfake and, when PENSTOCK_KAFKA names it, the real broker.
func eachBroker(t *testing.T, f func(t *testing.T, b *testBroker)) {
	t.Helper()
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *testBroker{
		"kfake": func(t *testing.T) *testBroker { return fakeBroker(t) }, "kafka": realBroker,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open(t))
		})
	}
}

func fakeBroker(t *testing.T, opts ...kfake.Opt) *testBroker {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &testBroker{addrs: c.ListenAddrs(), fake: c}
}

func realBroker(t *testing.T) *testBroker {
	t.Helper()
	addr := os.Getenv("PENSTOCK_KAFKA")
	if addr == "" {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") != "" {
			t.Fatal("PENSTOCK_REQUIRE_REAL is set and PENSTOCK_KAFKA is not: test/services.sh up")
		}
		t.Skip("no real broker: set PENSTOCK_KAFKA (test/services.sh up; . test/.run/env)")
	}
	return &testBroker{addrs: []string{addr}}
}

func (b *testBroker) client(t *testing.T) *kafka.Client {
	tr := &kafka.Transport{ClientID: "test"}
	t.Cleanup(tr.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(b.addrs...), Transport: tr, Timeout: 10 * time.Second}
}

// topicName is one that no other run has used.
func topicName(t *testing.T) string {
	return fmt.Sprintf("t-%s-%d", strings.NewReplacer("/", "-", "#", "-", ",", "", "=", "-").Replace(t.Name()), time.Now().UnixNano())
}

func (b *testBroker) create(t *testing.T, topic string, partitions int, config ...kafka.ConfigEntry) {
	t.Helper()
	res, err := b.client(t).CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: config}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Errors[topic]; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.remove(t, topic) })
}

func (b *testBroker) remove(t *testing.T, topic string) {
	_, err := b.client(t).DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil && b.fake == nil {
		t.Logf("delete topic %s: %v", topic, err)
	}
}

type readRecord struct {
	partition  int
	offset     int64
	key, value string
	headers    map[string]string
}

// read returns everything that stands in the topic, by a client that is not ours.
func (b *testBroker) read(t *testing.T, topic string, partitions int) []readRecord {
	t.Helper()
	var all []readRecord
	for p := range partitions {
		conn, err := kafka.DialLeader(context.Background(), "tcp", b.addrs[0], topic, p)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		first, last, err := conn.ReadOffsets()
		if err != nil {
			t.Fatal(err)
		}
		for at := first; at < last; {
			if _, err := conn.Seek(at, kafka.SeekAbsolute); err != nil {
				t.Fatal(err)
			}
			batch := conn.ReadBatch(1, 8<<20)
			for {
				m, err := batch.ReadMessage()
				if err != nil {
					break
				}
				r := readRecord{p, m.Offset, string(m.Key), string(m.Value), map[string]string{}}
				for _, h := range m.Headers {
					r.headers[h.Key] = string(h.Value)
				}
				all = append(all, r)
				at = m.Offset + 1
			}
			_ = batch.Close()
		}
		_ = conn.Close()
	}
	return all
}

// end is the partition's next offset.
func (b *testBroker) end(t *testing.T, topic string, partition int) int64 {
	t.Helper()
	conn, err := kafka.DialLeader(context.Background(), "tcp", b.addrs[0], topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	last, err := conn.ReadLastOffset()
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// memState is a State that can die: after crash nothing more is kept.
type memState struct {
	mu      sync.Mutex
	kv      map[string][]byte
	dead    bool
	commits int
	fail    error
	onPut   func(key string) // called after an intent was kept
}

func newMemState() *memState { return &memState{kv: map[string][]byte{}} }

func (s *memState) Get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.kv[key]
	return v, ok
}

func (s *memState) Range(prefix string, f func(key string, value []byte) bool) {
	s.mu.Lock()
	kv := maps.Clone(s.kv)
	s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(kv)) {
		if strings.HasPrefix(k, prefix) && !f(k, kv[k]) {
			return
		}
	}
}

func (s *memState) Commit(changes ...archive.Change) error {
	s.mu.Lock()
	if s.fail != nil {
		defer s.mu.Unlock()
		return s.fail
	}
	if s.dead {
		s.mu.Unlock()
		return errors.New("the process is dead")
	}
	s.commits++
	var put []string
	for _, c := range changes {
		if c.Value == nil {
			delete(s.kv, c.Key)
			continue
		}
		s.kv[c.Key] = slices.Clone(c.Value)
		put = append(put, c.Key)
	}
	hook := s.onPut
	s.mu.Unlock()
	if hook != nil {
		for _, k := range put {
			if strings.HasPrefix(k, intentPrefix) {
				hook(k)
			}
		}
	}
	return nil
}

// after is the state as the next life finds it.
func (s *memState) after() *memState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	return &memState{kv: maps.Clone(s.kv)}
}

func (s *memState) intents() int {
	n := 0
	s.Range(intentPrefix, func(string, []byte) bool { n++; return true })
	return n
}

// testProducer is a producer with everything that a pump would remember of it.
type testProducer struct {
	*producer
	t     *testing.T
	state *memState
	got   chan Ack
	early []Ack // of Recover
	pump  sync.WaitGroup
}

type tweak func(*KafkaOptions)

func (b *testBroker) start(t *testing.T, s *memState, px *proxy,
	rebuild func(ItemRef) (*Message, error), tweaks ...tweak) *testProducer {
	t.Helper()
	o := KafkaOptions{Brokers: b.addrs, Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)), Compression: CompressionZstd}
	for _, f := range tweaks {
		f(&o)
	}
	p, err := newProducer(o, s)
	if err != nil {
		t.Fatal(err)
	}
	if px != nil {
		p.wire.dial = px.dial
	}
	tp := &testProducer{producer: p, t: t, state: s, got: make(chan Ack, 100_000)}
	tp.pump.Go(func() {
		for acks := range p.Acks() {
			for _, a := range acks {
				tp.got <- a
			}
		}
	})
	t.Cleanup(tp.kill)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if _, err := p.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if rebuild == nil {
		rebuild = func(ItemRef) (*Message, error) { return nil, errors.New("nothing to rebuild from") }
	}
	if tp.early, err = p.Recover(ctx, rebuild); err != nil {
		t.Fatal(err)
	}
	return tp
}

// pumpAll sends the events from..to as the pump does: what is given back or refused is
// sent again, in order, when the topic is open.
func (p *testProducer) pumpAll(topic string, from, to int, pause func(n int)) {
	p.t.Helper()
	todo, out := []int{}, 0
	for n := from; n < to; n++ {
		todo = append(todo, n)
	}
	take := func(a Ack) {
		out--
		switch n := int(a.Message.Delivery); {
		case errors.Is(a.Err, ErrNotSent):
			todo = append(todo, n)
		case a.Err != nil:
			p.t.Errorf("event %d: %v", n, a.Err)
		}
	}
	for refused := false; len(todo) > 0 || out > 0; {
		for len(p.got) > 0 {
			take(<-p.got)
		}
		if is, _ := p.TopicState(topic); refused && (is || out > 0) || len(todo) == 0 {
			// What is in flight comes back or is acked before anything goes again.
			select {
			case a := <-p.got:
				take(a)
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if refused {
			p.Fenced(p.Lift) // all that was given back is here, and goes again in order
		}
		refused = false
		slices.Sort(todo)
		n := todo[0]
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		err := p.Send(ctx, event(topic, n))
		cancel()
		switch {
		case errors.Is(err, ErrTopicBlocked):
			refused = true
		case err != nil:
			p.t.Errorf("send %d: %v", n, err)
			return
		default:
			todo = todo[1:]
			out++
			pause(n)
		}
		if len(todo) > 0 && todo[0] != n && todo[0] < n {
			refused = true
		}
	}
}

// kill ends the producer as a crash would: nothing more reaches the state.
func (p *testProducer) kill() {
	p.state.mu.Lock()
	p.state.dead = true
	p.state.mu.Unlock()
	p.shut(0)
}

func (p *testProducer) shut(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	err := p.Close(ctx)
	p.pump.Wait()
	return err
}

func (p *testProducer) send(msgs ...*Message) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, m := range msgs {
		if err := p.Send(ctx, m); err != nil {
			p.t.Fatalf("send delivery %d: %v", m.Delivery, err)
		}
	}
}

// wait returns the next n acks.
func (p *testProducer) wait(n int) []Ack {
	p.t.Helper()
	acks := make([]Ack, 0, n)
	limit := time.After(60 * time.Second)
	for len(acks) < n {
		select {
		case a := <-p.got:
			acks = append(acks, a)
		case <-limit:
			p.t.Fatalf("%d of %d acks came", len(acks), n)
		}
	}
	return acks
}

// waitAcked is wait, and every ack must be one.
func (p *testProducer) waitAcked(n int) []Ack {
	p.t.Helper()
	acks := p.wait(n)
	for _, a := range acks {
		if a.Err != nil {
			p.t.Fatalf("delivery %d: %v", a.Message.Delivery, a.Err)
		}
	}
	return acks
}

// event is a message as the pump makes it; the same number gives the same message.
func event(topic string, n int) *Message {
	return &Message{
		Topic: topic, Key: fmt.Appendf(nil, "order-%d", n%7),
		Value: fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, n, strings.Repeat("x", n%97)),
		Headers: []Header{
			{headerID, fmt.Appendf(nil, "evt-%d", n)}, {headerDelivery, fmt.Appendf(nil, "01DELIVERY%08d", n)},
			{"content-type", []byte("application/json")},
		},
		Time: time.UnixMilli(1_790_000_000_000 + int64(n)), Delivery: uint64(n), Item: 0,
	}
}

func rebuildFrom(topic string) func(ItemRef) (*Message, error) {
	return func(r ItemRef) (*Message, error) { return event(topic, int(r.Delivery)), nil }
}

func events(topic string, from, to int) []*Message {
	var out []*Message
	for n := from; n < to; n++ {
		out = append(out, event(topic, n))
	}
	return out
}

// wantOnce checks that the events from..to stand in the topic exactly once each.
func (b *testBroker) wantOnce(t *testing.T, topic string, partitions, from, to int) []readRecord {
	t.Helper()
	all := b.read(t, topic, partitions)
	count := map[string]int{}
	for _, r := range all {
		count[r.headers[headerID]]++
	}
	for n := from; n < to; n++ {
		id := fmt.Sprintf("evt-%d", n)
		if count[id] != 1 {
			t.Errorf("event %s stands %d times in %s, want once", id, count[id], topic)
		}
		delete(count, id)
	}
	if len(count) != 0 {
		t.Errorf("topic %s has events that nobody sent: %v", topic, count)
	}
	return all
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("not within 30 s: %s", what)
}
