package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"penstock/archive"
)

const (
	// probeEvery is how often a blocked topic or partition is tried.
	probeEvery = 3 * time.Second
	// lookEvery is how often an open topic is looked at, for partitions that were
	// added and for a topic that was deleted while nothing was sent.
	lookEvery = time.Minute
)

// topic is one topic that is published to. Its goroutine opens it, blocks it, and
// opens it again.
type topic struct {
	p     *producer
	name  string
	nudge chan struct{} // look at the topic now

	mu       sync.Mutex // guards what follows
	open     bool
	seen     bool   // it was open or blocked once: Send need not wait for the first look
	reason   string // why it is blocked; empty: open, or not yet known
	id       topicID
	accepted bool // AcceptHome
	count    int32
	parts    map[int32]*partition
	turned   chan struct{} // closed and made anew when open, reason or count change
}

func newTopic(p *producer, name string) *topic {
	p.metrics.regressed.WithLabelValues(name) // from the start, or an alert would miss the first
	return &topic{
		p: p, name: name, nudge: make(chan struct{}, 1), parts: map[int32]*partition{}, turned: make(chan struct{}),
	}
}

// run looks at the topic until the producer closes.
func (t *topic) run() {
	ctx, cancel := context.WithCancel(t.p.life)
	defer cancel()
	go func() {
		select {
		case <-t.p.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	for b := newBackoff(); ctx.Err() == nil; {
		next, err := t.look(ctx)
		if err != nil && ctx.Err() == nil {
			if b.loud() {
				t.p.log.Warn("cannot look at kafka topic", zap.String("topic", t.name), zap.Error(err))
			}
			b.wait(ctx)
			continue
		}
		b = newBackoff()
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-t.nudge:
			// A failing partition nudges with every attempt.
			sleep(ctx, metadataEvery)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// doubt makes the topic's goroutine look at once: something about it has failed.
func (t *topic) doubt() {
	select {
	case t.nudge <- struct{}{}:
	default:
	}
}

// look asks for the topic's metadata, acts on it, and says when to look again.
func (t *topic) look(ctx context.Context) (time.Duration, error) {
	if err := t.p.layout.refresh(ctx, time.Now()); err != nil {
		return 0, err
	}
	v := t.p.layout.topic(t.name)
	if v == nil {
		return 0, errors.New("metadata does not name the topic")
	}
	switch kafka.Error(v.code) {
	case 0:
		if len(v.partitions) == 0 {
			return 0, errors.New("metadata names no partition of the topic")
		}
		return t.found(ctx, v)
	case kafka.UnknownTopicOrPartition:
		return t.absent(ctx)
	case kafka.TopicAuthorizationFailed:
		t.block(ReasonForbidden)
	case kafka.InvalidTopic:
		t.block(ReasonInvalid)
	default:
		return 0, kafka.Error(v.code)
	}
	return probeEvery, nil
}

// found opens the topic, if it is the one that was published to before.
func (t *topic) found(ctx context.Context, v *topicView) (time.Duration, error) {
	if v.id != (topicID{}) {
		kept, ok := t.p.state.Get(topicPrefix + t.name)
		if !ok || string(kept) != string(v.id[:]) {
			if ok && !t.mayMove() {
				t.block(ReasonReplaced)
				return probeEvery, nil
			}
			if err := t.adopt(ctx, v.id, ok); err != nil {
				return 0, err
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.id = v.id
	if n := int32(len(v.partitions)); t.count != n || !t.open {
		if t.reason != "" {
			t.p.log.Info("kafka topic is open", zap.String("topic", t.name), zap.String("was", t.reason))
		}
		t.unlabel()
		t.open, t.seen, t.count = true, true, n
		t.turn()
	}
	return lookEvery, nil
}

func (t *topic) mayMove() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accepted || t.p.o.AcceptHome
}

// adopt keeps the topic's id. Of a topic that was replaced the old offsets mean
// nothing any more.
func (t *topic) adopt(ctx context.Context, id topicID, replaced bool) error {
	changes := []archive.Change{{Key: topicPrefix + t.name, Value: id[:]}}
	t.mu.Lock()
	t.accepted = false
	parts := make([]*partition, 0, len(t.parts))
	for _, pt := range t.parts {
		parts = append(parts, pt)
	}
	t.mu.Unlock()
	if replaced {
		t.p.log.Warn("kafka topic was replaced, the new one is accepted", zap.String("topic", t.name))
		t.p.state.Range(ackedPrefix+t.name+"/", func(key string, _ []byte) bool {
			changes = append(changes, archive.Change{Key: key})
			return true
		})
		for _, pt := range parts {
			pt.moved.Store(true)
		}
	}
	return t.p.journal.commit(ctx, changes...)
}

// absent makes the topic where that is wanted, else blocks it.
func (t *topic) absent(ctx context.Context) (time.Duration, error) {
	if t.p.o.CreateTopics == nil {
		t.block(ReasonMissing)
		return probeEvery, nil
	}
	err := t.p.layout.createTopic(ctx, t.name, *t.p.o.CreateTopics)
	var code kafka.Error
	switch {
	case err == nil:
		return metadataEvery, nil
	case !errors.As(err, &code):
		return 0, err
	case code == kafka.TopicAuthorizationFailed, code == kafka.ClusterAuthorizationFailed, code == kafka.PolicyViolation:
		t.block(ReasonForbidden)
	case code == kafka.InvalidTopic:
		t.block(ReasonInvalid)
	default:
		t.p.log.Error("cannot create kafka topic", zap.String("topic", t.name), zap.Error(err))
		t.block(ReasonMissing)
	}
	return probeEvery, nil
}

// block gives back what waits in all partitions and lets nothing more in.
func (t *topic) block(reason string) {
	t.mu.Lock()
	if t.reason == reason {
		t.mu.Unlock()
		return
	}
	t.unlabel()
	t.open, t.seen, t.reason = false, true, reason
	t.p.metrics.blocked.WithLabelValues(t.name, reason).Set(1)
	t.turn()
	parts := make([]*partition, 0, len(t.parts))
	for _, pt := range t.parts {
		parts = append(parts, pt)
	}
	t.mu.Unlock()
	t.p.log.Error("kafka topic is blocked", zap.String("topic", t.name), zap.String("reason", reason))
	for _, pt := range parts {
		pt.giveBack(&BlockedError{Topic: t.name, Partition: -1, Reason: reason})
	}
}

// unlabel ends the gauge of the present reason. The caller holds t.mu.
func (t *topic) unlabel() {
	if t.reason != "" {
		t.p.metrics.blocked.DeleteLabelValues(t.name, t.reason)
		t.reason = ""
	}
}

// turn wakes whoever waits for the topic. The caller holds t.mu.
func (t *topic) turn() {
	close(t.turned)
	t.turned = make(chan struct{})
	t.p.signal()
}

// blockedReason is why the topic or a partition of it takes nothing; "" when it does.
func (t *topic) blockedReason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reason != "" {
		return t.reason
	}
	for _, pt := range t.parts {
		if r := pt.blockedReason(); r != "" {
			return r
		}
	}
	return ""
}

// gate waits until the topic is open; false: the context ended.
func (t *topic) gate(ctx context.Context) bool {
	for {
		t.mu.Lock()
		open, wait := t.open, t.turned
		t.mu.Unlock()
		if open {
			return ctx.Err() == nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

// replaced says whether the layout shows another topic id than the one that is open.
func (t *topic) replaced() bool {
	v := t.p.layout.topic(t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	return v != nil && v.code == 0 && v.id != t.id
}

// partitions is how many the open topic has.
func (t *topic) partitions() int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// route picks the message's partition; it waits for the first look at the topic only.
func (t *topic) route(ctx context.Context, m *Message) (*partition, error) {
	for {
		t.mu.Lock()
		if t.open {
			id := int32(0)
			if m.Key != nil {
				id = partitionOf(m.Key, t.count)
			} else {
				id = rand.Int32N(t.count)
			}
			m.Partition = id
			pt := t.part(id)
			t.mu.Unlock()
			return pt, t.p.start(pt)
		}
		reason, wait := t.reason, t.turned
		t.mu.Unlock()
		if reason != "" {
			return nil, &BlockedError{Topic: t.name, Partition: -1, Reason: reason}
		}
		select {
		case <-wait:
		case <-t.p.closing:
			return nil, ErrProducerClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// part is the partition of that number. The caller holds t.mu.
func (t *topic) part(id int32) *partition {
	pt := t.parts[id]
	if pt == nil {
		pt = newPartition(t, id)
		t.parts[id] = pt
	}
	return pt
}

// start runs a partition's goroutine, once.
func (p *producer) start(pt *partition) error {
	if pt.started.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrProducerClosed
	}
	if pt.started.CompareAndSwap(false, true) {
		p.workers.Go(pt.run)
	}
	return nil
}
