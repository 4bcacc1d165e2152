package forward

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// stuckAfter is how long a batch may be in flight, while the cluster answers and
	// other partitions flow, before its partition is called blocked.
	stuckAfter = 5 * time.Second
	// sendLinger is how long a batch waits for more while none is in flight: what is sent
	// together comes message by message, and a batch costs a sync and a request.
	sendLinger = 2 * time.Millisecond
	// allStuckAfter is the same when no other flows: a broker that restarts alone leads
	// nothing for some seconds, and to wait is cheaper than to give everything back.
	allStuckAfter = 20 * time.Second
	watchEvery    = 500 * time.Millisecond
)

// partition is one partition that is published to. Its goroutine sends one batch at a
// time: whatever was queued when the last one was answered.
type partition struct {
	p       *producer
	t       *topic
	id      int32
	started atomic.Bool
	moved   atomic.Bool // the topic was replaced: what is known of its offsets is void
	wake    chan struct{}

	mu     sync.Mutex // guards what follows
	queue  []queued
	queued int64         // bytes in queue
	first  time.Time     // when the queue got its first message; zero: it waits for no more
	room   chan struct{} // closed and made anew when the queue has room; nil: nobody waits
	reason string        // why it is blocked
	fenced bool          // it gave messages back: newer ones are refused until Lift
	since  time.Time     // when the batch in flight was taken; zero: none
	flying int64         // bytes of it that the budget counts

	// What follows belongs to the partition's goroutine.
	session session // the producer id in use; number 0: none yet
	seq     int32   // next sequence under it
	next    int64   // offset after our last acked record, or the end when we came; -1: unknown
	limit   int     // batch bytes that the topic takes, learned from its refusals
	left    []*intent
	settled func() // tells Recover that the partition has settled what was left
}

type queued struct {
	m    *Message
	size int64
}

func newPartition(t *topic, id int32) *partition {
	return &partition{p: t.p, t: t, id: id, wake: make(chan struct{}, 1), next: -1, limit: t.p.o.MaxBatchBytes}
}

// push queues the message. A channel instead means: the queue is full, wait and
// bring the message again.
func (pt *partition) push(m *Message, size int64) (<-chan struct{}, error) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.reason != "" || pt.fenced {
		return nil, &BlockedError{Topic: pt.t.name, Partition: pt.id, Reason: cmp.Or(pt.reason, ReasonPartition)}
	}
	// One slow partition must leave room in the budget for the others.
	if pt.queued > 0 && pt.queued+size > pt.p.budget.max/4 {
		if pt.room == nil {
			pt.room = make(chan struct{})
		}
		return pt.room, nil
	}
	if len(pt.queue) == 0 {
		pt.first = time.Now()
	}
	pt.queue = append(pt.queue, queued{m, size})
	pt.queued += size
	select {
	case pt.wake <- struct{}{}:
	default:
	}
	return nil, nil
}

// take waits for messages and returns a batch of them; nil: the producer closes.
func (pt *partition) take(ctx context.Context) []*Message {
	for {
		select {
		case <-pt.p.closing:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		batch, wait := pt.cut()
		if batch != nil {
			return batch
		}
		if wait > 0 {
			sleep(ctx, wait)
			continue
		}
		select {
		case <-pt.wake:
		case <-pt.p.closing:
		case <-ctx.Done():
		}
	}
}

// cut takes a batch off the queue: up to limit bytes before compression, one message
// at least. Or it says how long the queue should still wait for more.
func (pt *partition) cut() (batch []*Message, wait time.Duration) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if len(pt.queue) == 0 {
		return nil, 0
	}
	if pt.queued < int64(pt.limit) && len(pt.queue) < batchRecords && !pt.first.IsZero() {
		if wait = sendLinger - time.Since(pt.first); wait > 0 {
			return nil, wait
		}
	}
	pt.first = time.Time{}
	n, bytes := 0, int64(0)
	for n < len(pt.queue) && n < batchRecords {
		if n > 0 && bytes+pt.queue[n].size > int64(pt.limit) {
			break
		}
		bytes += pt.queue[n].size
		n++
	}
	batch = make([]*Message, n)
	for i := range batch {
		batch[i] = pt.queue[i].m
	}
	rest := copy(pt.queue, pt.queue[n:])
	clear(pt.queue[rest:])
	pt.queue = pt.queue[:rest]
	pt.queued -= bytes
	pt.since, pt.flying = time.Now(), bytes
	pt.makeRoom()
	return batch, 0
}

// makeRoom wakes senders that found the queue full. The caller holds pt.mu.
func (pt *partition) makeRoom() {
	if pt.room != nil {
		close(pt.room)
		pt.room = nil
	}
}

// landed ends the flight of a batch and opens the partition again.
func (pt *partition) landed() {
	pt.mu.Lock()
	pt.since = time.Time{}
	bytes := pt.flying
	pt.flying = 0
	was := pt.reason
	pt.reason = ""
	pt.mu.Unlock()
	pt.p.landed.Store(time.Now().UnixNano())
	pt.p.budget.give(bytes)
	if was != "" {
		pt.p.log.Info("kafka partition is open", zap.String("topic", pt.t.name), zap.Int32("partition", pt.id),
			zap.String("was", was))
		pt.p.relabel(pt.t)
	}
}

// block lets nothing more in and gives back what waits, until the batch in flight is
// resolved.
func (pt *partition) block(reason string) {
	pt.mu.Lock()
	if pt.reason == reason {
		pt.mu.Unlock()
		return
	}
	pt.reason = reason
	pt.mu.Unlock()
	pt.p.log.Error("kafka partition is blocked", zap.String("topic", pt.t.name), zap.Int32("partition", pt.id),
		zap.String("reason", reason))
	pt.p.relabel(pt.t)
	pt.giveBack(&BlockedError{Topic: pt.t.name, Partition: pt.id, Reason: reason})
}

// giveBack returns the queued messages to the pump. The batch in flight stays, and
// stays out of the budget: what a dead partition holds must not stop the others.
func (pt *partition) giveBack(why *BlockedError) {
	pt.mu.Lock()
	acks := make([]Ack, len(pt.queue))
	for i, q := range pt.queue {
		acks[i] = Ack{Message: q.m, Partition: pt.id, Err: why}
	}
	bytes := pt.queued + pt.flying
	pt.queue, pt.queued, pt.flying = nil, 0, 0
	pt.fenced = pt.fenced || len(acks) > 0
	pt.makeRoom()
	pt.mu.Unlock()
	pt.p.budget.give(bytes)
	if len(acks) > 0 {
		pt.p.deliver(acks)
	}
}

// Fenced calls f for each partition that would flow again but for what it gave back:
// until whoever sends has it in order, something newer of the same key could pass it.
func (p *producer) Fenced(f func(topic string, partition int32)) {
	for _, pt := range p.partitions() {
		pt.mu.Lock()
		up := pt.fenced && pt.reason == ""
		pt.mu.Unlock()
		if up {
			f(pt.t.name, pt.id)
		}
	}
}

// Lift says that everything the partition gave back has arrived, and that nothing newer
// of it is on its way here.
func (p *producer) Lift(topic string, partition int32) {
	p.mu.Lock()
	t := p.topics[topic]
	p.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	pt := t.parts[partition]
	t.mu.Unlock()
	if pt != nil {
		pt.mu.Lock()
		pt.fenced = false
		pt.mu.Unlock()
	}
}

func (pt *partition) blockedReason() string {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.reason
}

// stuck says whether a batch has been in flight for too long and nobody said so yet.
func (pt *partition) stuck(now time.Time) bool {
	limit := allStuckAfter
	if now.UnixNano()-pt.p.landed.Load() < int64(stuckAfter) {
		limit = stuckAfter
	}
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return pt.reason == "" && !pt.since.IsZero() && now.Sub(pt.since) > limit
}

// watch blocks partitions that are stuck while the cluster itself answers. When no
// broker answers nothing could flow past them, and Send just waits.
func (p *producer) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var stuck []*partition
		now := time.Now()
		for _, pt := range p.partitions() {
			if pt.stuck(now) {
				stuck = append(stuck, pt)
			}
		}
		if len(stuck) == 0 {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, dialTimeout)
		err := p.layout.refresh(ask, now.Add(-watchEvery))
		cancel()
		if err != nil {
			continue
		}
		for _, pt := range stuck {
			if pt.stuck(now) {
				pt.block(ReasonPartition)
			}
		}
	}
}

func (p *producer) partitions() []*partition {
	p.mu.Lock()
	topics := make([]*topic, 0, len(p.topics))
	for _, t := range p.topics {
		topics = append(topics, t)
	}
	p.mu.Unlock()
	var all []*partition
	for _, t := range topics {
		t.mu.Lock()
		for _, pt := range t.parts {
			all = append(all, pt)
		}
		t.mu.Unlock()
	}
	return all
}

// relabel sets the gauge of blocked topics after a partition changed, and says so.
func (p *producer) relabel(t *topic) {
	t.mu.Lock()
	if t.reason == "" {
		p.metrics.blocked.DeletePartialMatch(map[string]string{"topic": t.name})
		for _, pt := range t.parts {
			if r := pt.blockedReason(); r != "" {
				p.metrics.blocked.WithLabelValues(t.name, r).Set(1)
			}
		}
	}
	t.mu.Unlock()
	p.signal()
}
