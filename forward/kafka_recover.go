package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// recoverPatience is how long Recover waits for partitions that cannot be asked now.
// What is not resolved by then stays with its partition, which takes nothing until it
// is, and its acks come by Acks.
const recoverPatience = 10 * time.Second

// Recover resolves the intents that the last life left, after Open and before the
// first Send. Each is looked up in Kafka. What is there is returned as an ack. What is
// not there is made again by rebuild and, if the bytes are the same, sent under its old
// sequence and acked; else its acks have ErrNotSent and the pump sends it anew. The
// Messages of these acks have Topic, Partition, Delivery, Item, Replay and Repeats only.
//
// It also compares each partition's end with what was acked to us (see Regression).
// What could not be resolved within some seconds is named by Unresolved: the pump must
// not send it; its acks come by Acks.
func (p *producer) Recover(ctx context.Context,
	rebuild func(ItemRef) (*Message, error)) ([]Ack, error) {
	ctx, cancel := p.within(ctx)
	defer cancel()
	p.mu.Lock()
	p.rebuild, p.collecting = rebuild, true
	left := p.left
	p.left = nil
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.collecting = false
		p.mu.Unlock()
	}()
	var done sync.WaitGroup
	for _, pt := range p.partitionsOf(left) {
		done.Add(1)
		pt.settled = done.Done
		p.relabel(pt.t)
		if err := p.start(pt); err != nil {
			return nil, err
		}
	}
	if err := p.checkEnds(ctx, &done); err != nil {
		return nil, err
	}
	all := make(chan struct{})
	go func() {
		done.Wait()
		close(all)
	}()
	timer := time.NewTimer(recoverPatience)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
		p.log.Error("kafka batches of the last run cannot be looked up yet", zap.Int("events", len(p.Unresolved())))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collecting = false
	acks := p.collected
	p.collected = nil
	return acks, nil
}

// Unresolved are the events whose intents of the last life are not resolved yet.
func (p *producer) Unresolved() []ItemRef {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refs []ItemRef
	for it := range p.unresolved {
		for i := range it.items {
			refs = append(refs, it.items[i].ItemRef)
		}
	}
	return refs
}

// partitionsOf gives each intent to its partition, which is blocked until it has
// resolved them.
func (p *producer) partitionsOf(left []*intent) []*partition {
	var parts []*partition
	for _, it := range left {
		t, err := p.topic(it.topic)
		if err != nil {
			return nil
		}
		t.mu.Lock()
		pt := t.part(it.partition)
		t.mu.Unlock()
		pt.mu.Lock()
		pt.reason = ReasonUnresolved
		pt.mu.Unlock()
		pt.left = append(pt.left, it)
		if !slices.Contains(parts, pt) {
			parts = append(parts, pt)
		}
	}
	return parts
}

// checkEnds starts the partitions that we have marks of and whose topics are there:
// the first thing each does is to compare its end with the mark.
func (p *producer) checkEnds(ctx context.Context, done *sync.WaitGroup) error {
	type place struct {
		topic     string
		partition int32
	}
	var marks []place
	p.state.Range(ackedPrefix, func(key string, _ []byte) bool {
		name := strings.TrimPrefix(key, ackedPrefix)
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			if n, err := strconv.ParseInt(name[i+1:], 10, 32); err == nil {
				marks = append(marks, place{name[:i], int32(n)})
				p.layout.want(name[:i])
			}
		}
		return true
	})
	if len(marks) == 0 {
		return nil
	}
	if err := p.retry(ctx, "reach kafka", func() error { return p.layout.refresh(ctx, time.Now()) }); err != nil {
		return err
	}
	for _, m := range marks {
		// A topic that is gone is no alarm: it may be out of the configuration for years.
		if v := p.layout.topic(m.topic); v == nil || v.code != 0 || m.partition >= int32(len(v.partitions)) {
			continue
		}
		t, err := p.topic(m.topic)
		if err != nil {
			return err
		}
		t.mu.Lock()
		pt := t.part(m.partition)
		t.mu.Unlock()
		if pt.started.Load() {
			continue
		}
		done.Add(1)
		pt.settled = done.Done
		if err := p.start(pt); err != nil {
			return err
		}
	}
	return nil
}

// settleLeft resolves what the last life left for this partition, and learns its end.
// False: the producer's life ended.
func (pt *partition) settleLeft(ctx context.Context) bool {
	if pt.settled == nil {
		return true
	}
	defer pt.settled()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // a closing producer does not wait for a look-up
		select {
		case <-pt.p.closing:
			cancel()
		case <-stop:
		}
	}()
	for _, it := range pt.left {
		res := pt.resolve(ctx, it)
		if res.means == gone {
			return false
		}
		pt.p.mu.Lock()
		delete(pt.p.unresolved, it)
		pt.p.mu.Unlock()
		pt.settledAcks(it, res)
	}
	had := len(pt.left) > 0
	pt.left = nil
	pt.session, pt.seq = session{}, 0
	if pt.next < 0 {
		if err := pt.learnEnd(ctx); err != nil && ctx.Err() != nil {
			return false
		}
	}
	if had {
		pt.landed()
	}
	return true
}

// resolve finds out whether a batch of the last life is in Kafka, and finishes it
// under its old sequence if its bytes can be made again.
func (pt *partition) resolve(ctx context.Context, it *intent) result {
	if !pt.t.gate(ctx) {
		return result{means: gone}
	}
	if pt.p.rehomed.Load() || pt.moved.Load() || pt.id >= pt.t.partitions() {
		return result{means: notThere, cause: fmt.Errorf("%w: its partition is no more", ErrNotSent)}
	}
	if res, known := pt.seek(ctx, it, it.end, 1); known {
		return res
	}
	buf, err := pt.p.encodeAgain(it)
	if err != nil {
		pt.p.log.Warn("a kafka batch of the last run cannot be finished under its sequence",
			zap.String("topic", it.topic), zap.Int32("partition", it.partition), zap.Error(err))
		if res, known := pt.seek(ctx, it, it.end, 2); known {
			return res
		}
		return result{means: notThere, cause: fmt.Errorf("%w: %w", ErrNotSent, err)}
	}
	defer pt.p.encoder.release(buf)
	pt.next = it.end
	// What the last life sent of it may still be on its way.
	f := flight{pt: pt, it: it, buf: buf, ambiguous: true}
	res := f.fly(ctx)
	if res.means == tooLarge || res.means == invalid {
		res = result{means: notThere, cause: fmt.Errorf("%w: %w", ErrNotSent, res.cause)}
	}
	return res
}

// seek looks for the batch from the offset on. known: it is there, or the context ended.
func (pt *partition) seek(ctx context.Context, it *intent, from int64, looks int) (_ result, known bool) {
	offsets, err := pt.find(ctx, it, from, looks)
	switch {
	case err != nil:
		return result{means: gone, cause: err}, true
	case offsets != nil:
		pt.p.metrics.lookups.WithLabelValues("found").Inc()
		return result{means: acked, base: offsets[0], offsets: offsets}, true
	}
	pt.p.metrics.lookups.WithLabelValues("not_there").Inc()
	return result{}, false
}

var errOtherBytes = errors.New("its bytes are not those of the last run")

// encodeAgain makes the very bytes of the intent's batch; an error when that cannot be.
func (p *producer) encodeAgain(it *intent) ([]byte, error) {
	msgs, err := p.rebuildAll(it)
	if err != nil {
		return nil, err
	}
	buf, err := p.encoder.encode(msgs, it.stamp)
	if err != nil {
		return nil, err
	}
	if batchCRC(buf) != it.crc {
		p.encoder.release(buf)
		return nil, errOtherBytes
	}
	return buf, nil
}

func (p *producer) rebuildAll(it *intent) ([]*Message, error) {
	msgs := make([]*Message, len(it.items))
	for i := range it.items {
		x := &it.items[i]
		m, err := p.rebuild(x.ItemRef)
		if err != nil {
			return nil, fmt.Errorf("make event %d of delivery %d again: %w", x.Item, x.Delivery, err)
		}
		m.Partition = it.partition
		msgs[i] = m
	}
	return msgs, nil
}

// settledAcks hands over what became of a batch of the last life.
func (pt *partition) settledAcks(it *intent, res result) {
	msgs := make([]*Message, len(it.items))
	for i := range it.items {
		x := &it.items[i]
		msgs[i] = &Message{Topic: it.topic, Partition: it.partition, Delivery: x.Delivery, Item: x.Item, Replay: x.Replay, Repeats: x.Repeats}
	}
	if res.means == acked {
		pt.ack(it, msgs, res)
		return
	}
	// The intent goes before the pump sends the events anew, at the latest in the same
	// commit as their new intent.
	pt.p.journal.later(archive.Change{Key: intentKey(it.n)})
	pt.p.log.Warn("a kafka batch of the last run goes anew", zap.String("topic", it.topic),
		zap.Int32("partition", it.partition), zap.Int("records", len(msgs)), zap.Error(res.cause))
	pt.refuse(msgs, res.cause)
}
