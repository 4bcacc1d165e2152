package forward

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// fakeKafka is a broker that outlives the processes that talk to it: what is appended
// stays, and so do the intents of a producer that was killed.
type fakeKafka struct {
	mu      sync.Mutex
	parts   int
	topics  map[string][][]fakeRecord
	intents map[*fakeIntent]bool
	blocked map[string]string // topic: reason
	away    bool
	max     int // bytes of a value; 0 = any
	poison  string
	changed chan struct{}
}

type fakeRecord struct {
	key, value string
	headers    map[string]string
}

type fakeIntent struct {
	item     ItemRef
	topic    string
	part     int32
	off      int64
	appended bool
}

func newFakeKafka() *fakeKafka {
	return &fakeKafka{parts: 3, topics: map[string][][]fakeRecord{}, intents: map[*fakeIntent]bool{},
		blocked: map[string]string{}, changed: make(chan struct{}, 1)}
}

func (k *fakeKafka) partition(key []byte) int32 {
	h := fnv.New32a()
	h.Write(key)
	return int32(h.Sum32() % uint32(k.parts))
}

func (k *fakeKafka) set(f func()) {
	k.mu.Lock()
	f()
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// records lists what a topic holds, partition after partition.
func (k *fakeKafka) records(topic string) []fakeRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []fakeRecord
	for _, p := range k.topics[topic] {
		out = append(out, p...)
	}
	return out
}

func (k *fakeKafka) all() []fakeRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []fakeRecord
	for _, t := range k.topics {
		for _, p := range t {
			out = append(out, p...)
		}
	}
	return out
}

// fakeSink is one life of a producer. Partitions append and ack on their own, so acks
// of different partitions come in any order.
type fakeSink struct {
	k     *fakeKafka
	acks  chan []Ack
	queue []chan *Message
	dead  atomic.Bool
	stop  chan struct{}
	wg    sync.WaitGroup
	slow  time.Duration // at most, before an append
	mu    sync.Mutex
	open  map[*Message]*fakeIntent
}

func newFakeSink(k *fakeKafka) *fakeSink {
	s := &fakeSink{k: k, acks: make(chan []Ack, 16), stop: make(chan struct{}), open: map[*Message]*fakeIntent{}}
	for range k.parts {
		ch := make(chan *Message, 1000)
		s.queue = append(s.queue, ch)
		s.wg.Go(func() { s.partition(ch) })
	}
	return s
}

func (s *fakeSink) Open(ctx context.Context) (string, error) {
	for s.Away() {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return "fake", nil
}

func (s *fakeSink) Recover(_ context.Context, rebuild func(ItemRef) (*Message, error)) ([]Ack, error) {
	s.k.mu.Lock()
	var left []*fakeIntent
	for it := range s.k.intents {
		left = append(left, it)
	}
	s.k.mu.Unlock() // they stay until Done: recovery may be killed too
	var out []Ack
	for _, it := range left {
		if !it.appended {
			continue
		}
		m, err := rebuild(it.item)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.open[m] = it
		s.mu.Unlock()
		out = append(out, Ack{Message: m, Partition: it.part, Offset: it.off})
	}
	return out, nil
}

func (s *fakeSink) Send(_ context.Context, m *Message) error {
	if s.dead.Load() {
		return ErrProducerClosed
	}
	part := s.k.partition(m.Key)
	s.k.mu.Lock()
	reason, whole := s.k.blocked[m.Topic]
	if !whole {
		reason = s.k.blocked[fmt.Sprintf("%s/%d", m.Topic, part)]
	}
	away := s.k.away
	tooLarge := s.k.max > 0 && len(m.Value) > s.k.max
	s.k.mu.Unlock()
	switch {
	case whole:
		return &BlockedError{Topic: m.Topic, Partition: -1, Reason: reason}
	case reason != "" || away:
		return &BlockedError{Topic: m.Topic, Partition: part, Reason: reason}
	case tooLarge:
		return ErrTooLarge
	}
	select {
	case s.queue[part] <- m:
		return nil
	case <-s.stop:
		return ErrProducerClosed
	}
}

// partition is the broker's side of one partition.
func (s *fakeSink) partition(in <-chan *Message) {
	for {
		var batch []*Message
		select {
		case m := <-in:
			batch = append(batch, m)
		case <-s.stop:
			return
		}
		for more := true; more && len(batch) < 100; {
			select {
			case m := <-in:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		s.produce(batch)
	}
}

func (s *fakeSink) produce(batch []*Message) {
	if !s.reach(batch) {
		return
	}
	acks := make([]Ack, 0, len(batch))
	for _, m := range batch {
		part := s.k.partition(m.Key)
		if reason, ok := s.k.blocked[m.Topic]; ok { // blocked after Send took it
			acks = append(acks, Ack{Message: m, Err: &BlockedError{Topic: m.Topic, Partition: -1, Reason: reason}})
			continue
		}
		if s.k.poison != "" && string(m.Key) == s.k.poison && !isDead(m) {
			acks = append(acks, Ack{Message: m, Err: ErrInvalidRecord})
			continue
		}
		it := &fakeIntent{item: ItemRef{m.Delivery, m.Item, m.Replay, m.Repeats}, topic: m.Topic, part: part}
		s.k.intents[it] = true
		t := s.k.topics[m.Topic]
		if t == nil {
			t = make([][]fakeRecord, s.k.parts)
			s.k.topics[m.Topic] = t
		}
		it.off, it.appended = int64(len(t[part])), true
		r := fakeRecord{key: string(m.Key), value: string(m.Value), headers: map[string]string{}}
		for _, h := range m.headers() {
			r.headers[h.Key] = string(h.Value)
		}
		t[part] = append(t[part], r)
		s.mu.Lock()
		s.open[m] = it
		s.mu.Unlock()
		acks = append(acks, Ack{Message: m, Partition: part, Offset: it.off})
	}
	s.k.mu.Unlock()
	if s.slow > 0 {
		time.Sleep(rand.N(s.slow))
	}
	if s.dead.Load() {
		return
	}
	select {
	case s.acks <- acks:
	case <-s.stop:
	}
}

// reach waits for the broker and leaves it locked; false when the batch was given back
// or the life is over.
func (s *fakeSink) reach(batch []*Message) bool {
	for {
		if s.slow > 0 {
			time.Sleep(rand.N(s.slow))
		}
		s.k.mu.Lock()
		if s.dead.Load() {
			s.k.mu.Unlock()
			return false
		}
		if !s.k.away {
			return true
		}
		s.k.mu.Unlock()
		if rand.N(4) == 0 { // some are given back, some wait inside
			acks := make([]Ack, len(batch))
			for i, m := range batch {
				acks[i] = Ack{Message: m, Err: &BlockedError{Topic: m.Topic, Partition: s.k.partition(m.Key), Reason: "partition_stuck"}}
			}
			select {
			case s.acks <- acks:
			case <-s.stop:
			}
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func isDead(m *Message) bool {
	for _, h := range m.headers() {
		if h.Key == "ce_deadreason" {
			return true
		}
	}
	return false
}

func (s *fakeSink) Acks() <-chan []Ack { return s.acks }

func (s *fakeSink) Done(acks []Ack) error {
	if s.dead.Load() {
		return ErrProducerClosed
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range acks {
		delete(s.k.intents, s.open[acks[i].Message])
		delete(s.open, acks[i].Message)
	}
	return nil
}

func (s *fakeSink) Blocked(topic string, part int32) (bool, string) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	r, ok := s.k.blocked[topic]
	return ok && part < 0, r
}

func (s *fakeSink) Fenced(func(string, int32)) {}
func (s *fakeSink) Lift(string, int32)         {}

func (s *fakeSink) PartitionOf(_ string, key []byte) int32 { return s.k.partition(key) }

func (s *fakeSink) Away() bool {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.k.away
}

func (s *fakeSink) Changed() <-chan struct{} { return s.k.changed }

func (s *fakeSink) Close(context.Context) error {
	s.kill()
	return nil
}

// kill ends the life at once: nothing is acked any more.
func (s *fakeSink) kill() {
	if s.dead.CompareAndSwap(false, true) {
		close(s.stop)
	}
	s.wg.Wait()
}
