package forward

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"
)

// lane sends the messages of one topic in order. Each has a goroutine of its own,
// because a Send may wait and no topic waits for another.
type lane struct {
	topic string
	next  []*Message // the core's alone: goes into the queue with the batch that it belongs to

	mu     sync.Mutex // protects queue, failed
	queue  []*Message
	failed error // what Send answered; nothing is sent before the core has taken it
	wake   chan struct{}
}

func (c *core) lane(topic string) *lane {
	l := c.lanes[topic]
	if l == nil {
		l = &lane{topic: topic, wake: make(chan struct{}, 1)}
		c.lanes[topic] = l
		c.p.wg.Go(func() { l.run(c.p.sendCtx, c) })
	}
	return l
}

// send puts a message on its lane; it sets off with pushLanes. One by one they woke the
// lane's goroutine several times for each batch.
func (c *core) send(m *Message) {
	l := c.lane(m.Topic)
	if len(l.next) == 0 {
		c.loaded = append(c.loaded, l)
	}
	l.next = append(l.next, m)
}

// pushLanes lets go what send has collected. Nothing is collected while the core waits.
func (c *core) pushLanes() {
	for i, l := range c.loaded {
		l.mu.Lock()
		l.queue = append(l.queue, l.next...)
		l.mu.Unlock()
		clear(l.next)
		l.next = l.next[:0]
		select {
		case l.wake <- struct{}{}:
		default:
		}
		c.loaded[i] = nil
	}
	c.loaded = c.loaded[:0]
}

// run sends until a message is refused; then it waits until the core has taken all of
// the queue back, so that nothing overtakes what was refused.
func (l *lane) run(ctx context.Context, c *core) {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for {
			l.mu.Lock()
			if l.failed != nil || len(l.queue) == 0 {
				l.mu.Unlock()
				break
			}
			batch := l.queue
			l.queue = nil
			l.mu.Unlock()
			if !l.send(ctx, c, batch) {
				break
			}
		}
	}
}

func (l *lane) send(ctx context.Context, c *core, batch []*Message) bool {
	for i, m := range batch {
		err := c.p.sink.Send(ctx, m)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return false
		}
		l.mu.Lock()
		l.queue = append(append([]*Message(nil), batch[i:]...), l.queue...)
		l.failed = err
		l.mu.Unlock()
		select {
		case c.bounced <- l:
		case <-ctx.Done():
		}
		return false
	}
	return true
}

// steal takes everything that was not sent, and why.
func (l *lane) steal() ([]*Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, err := l.queue, l.failed
	l.queue, l.failed = nil, nil
	return q, err
}

// bounce takes back what a lane could not send.
func (c *core) bounce(l *lane) {
	ms, err := l.steal()
	for i, m := range ms {
		ev := c.sent[m]
		if ev == nil {
			continue
		}
		delete(c.sent, m)
		c.inflight[ev.topic]--
		switch {
		case isBlocked(err):
			c.returned(ev, err)
		case i == 0 && isPoison(err):
			c.poison(ev, err)
		default:
			if i == 0 {
				c.p.log.Warn("message was not taken, will try again", zap.String("topic", l.topic), zap.Error(err))
			}
			c.returned(ev, ErrNotSent)
		}
	}
}

// isBlocked and isPoison sort what Send answers; anything else is tried again.
func isBlocked(err error) bool { return errors.Is(err, ErrTopicBlocked) }

func isPoison(err error) bool { return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalidRecord) }
