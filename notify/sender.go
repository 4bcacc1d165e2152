package notify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Bounds of one channel's queue.
const (
	maxQueue     = 100
	maxAge       = 24 * time.Hour
	maxBackoff   = 5 * time.Minute
	sendTimeout  = 15 * time.Second
	longestAfter = 10 * time.Minute // of a server's Retry-After
)

// sender brings messages to one channel, one after the other, in order.
type sender struct {
	ch      Channel
	e       *Engine
	deliver func(ctx context.Context, m *Message) error
	limit   *rate.Limiter
	wake    chan struct{}

	mu    sync.Mutex // after Engine.mu
	queue []*Message // the first may be under way
	busy  bool       // it is
}

func newSender(ch Channel, e *Engine) *sender {
	s := &sender{ch: ch, e: e, wake: make(chan struct{}, 1)}
	per := max(ch.PerMinute, 1)
	s.limit = rate.NewLimiter(rate.Limit(float64(per)/60), per)
	s.deliver = newDelivery(ch, e.o)
	return s
}

// push takes a message. One that waits and is of the same rule and state takes it in:
// where a channel cannot keep up, a storm becomes one message with a count.
func (s *sender) push(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.queue) - 1; i >= 0; i-- {
		if q := s.queue[i]; q.Rule == m.Rule && (i > 0 || !s.busy) {
			if q.State != m.State {
				break // firing and recovered stay apart and in order
			}
			q.merge(&m)
			return
		}
	}
	if len(s.queue) >= maxQueue {
		drop := 0
		if s.busy {
			drop = 1
		}
		s.queue = append(s.queue[:drop], s.queue[drop+1:]...)
		s.e.met.sent.WithLabelValues(s.ch.Name, "dropped").Inc()
	}
	s.queue = append(s.queue, &m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (m *Message) merge(n *Message) {
	m.Count += n.Count
	m.More += n.More
	for _, l := range n.Lines {
		if len(m.Lines) < maxLines {
			m.Lines = append(m.Lines[:len(m.Lines):len(m.Lines)], l)
		} else {
			m.More++
		}
	}
}

// take hands the queue to the sender's successor.
func (s *sender) take() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue = nil
	return q
}

func (s *sender) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// copies gives what waits, to be kept.
func (s *sender) copies() (out []Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.queue {
		out = append(out, *m)
	}
	return out
}

func (s *sender) head() (m Message, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy = len(s.queue) > 0; s.busy {
		s.queue[0].Attempts++
		return *s.queue[0], true
	}
	return m, false
}

// done takes the head off, or leaves it for another attempt.
func (s *sender) done(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if off && len(s.queue) > 0 {
		s.queue = s.queue[1:]
	}
}

func (s *sender) run(ctx context.Context) {
	for {
		if s.waiting() == 0 {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if s.limit.Wait(ctx) != nil {
			return
		}
		m, ok := s.head()
		if !ok {
			continue
		}
		pause := s.attempt(ctx, &m)
		if pause == 0 {
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// attempt sends one message; what it gives is the pause before the next attempt.
func (s *sender) attempt(ctx context.Context, m *Message) (pause time.Duration) {
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	err := s.deliver(sending, m)
	cancel()
	var f *failure
	errors.As(err, &f)
	switch {
	case err == nil:
		s.done(true)
		s.count("sent")
		s.e.log.Info("notification sent", zap.String("rule", m.Rule), zap.String("state", m.State), zap.String("channel", s.ch.Name), zap.Int("count", m.Count))
	case ctx.Err() != nil:
		s.done(false) // stopping, or another configuration: it stays for later
	case f != nil && f.permanent, s.e.o.Now().Sub(m.At) > maxAge:
		s.done(true)
		s.count("failed")
		s.e.log.Error("notification given up", zap.String("rule", m.Rule), zap.String("channel", s.ch.Name), zap.Int("attempts", m.Attempts), zap.Error(err))
	default:
		s.done(false)
		s.count("retried")
		pause = s.pause(m.Attempts)
		if f != nil {
			pause = max(pause, min(f.after, longestAfter))
		}
		s.e.log.Warn("notification not sent, will try again", zap.String("rule", m.Rule), zap.String("channel", s.ch.Name), zap.Duration("in", pause), zap.Error(err))
	}
	return pause
}

func (s *sender) count(result string) {
	s.e.met.sent.WithLabelValues(s.ch.Name, result).Inc()
	s.e.touch()
}

// pause doubles with every attempt, and half of it is left to chance: many gateways must
// not come back at the same moment.
func (s *sender) pause(attempts int) time.Duration {
	d := maxBackoff
	if attempts < 12 {
		d = min(s.e.o.backoff<<(max(attempts, 1)-1), maxBackoff)
	}
	return d/2 + mathrand.N(d/2+1)
}

// failure is why a message was not taken.
type failure struct {
	err       error
	permanent bool
	after     time.Duration // the server asked for this pause
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// send gives a message to the rule's channels. The caller holds mu.
func (e *Engine) send(r *rule, m *Message, now time.Time) {
	m.ID, m.Rule, m.When, m.Template, m.Node, m.At = newID(), r.Name, r.When, r.Template, e.o.Node, now
	if m.More < 0 {
		m.More = 0
	}
	for i := range m.Lines {
		m.Lines[i] = clean(maskPANs(m.Lines[i]), 400)
	}
	if e.o.Link != "" {
		m.Link = e.o.Link + "/"
		if m.Delivery != "" {
			m.Link = e.o.Link + "/deliveries/" + m.Delivery
		}
	}
	for _, name := range e.channels(&r.Rule) {
		e.senders[name].push(*m)
	}
	e.dirty = true
}

// channels names where a rule's messages go.
func (e *Engine) channels(r *Rule) (out []string) {
	for _, name := range sortedKeys(e.senders) {
		if len(r.Channels) == 0 {
			out = append(out, name)
			continue
		}
		for _, c := range r.Channels {
			if c == name {
				out = append(out, name)
			}
		}
	}
	return out
}

// touch says that something changed which must be kept.
func (e *Engine) touch() {
	e.mu.Lock()
	e.dirty = true
	e.mu.Unlock()
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "msg_" + hex.EncodeToString(b[:])
}

// Result is what came of a test message to one channel.
type Result struct {
	Channel string
	Err     error
}

// Test sends a message to every channel, or to those of a rule, once and without a queue.
func Test(ctx context.Context, c Config, rule string, o Options) ([]Result, error) {
	if err := Check(c); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := Rule{Name: "every channel"}
	for i := range c.Rules {
		if c.Rules[i].Name == rule {
			r = c.Rules[i]
		}
	}
	if rule != "" && r.Name != rule {
		return nil, errors.New("there is no rule " + rule)
	}
	var out []Result
	for _, ch := range c.Channels {
		if len(r.Channels) > 0 && !slices.Contains(r.Channels, ch.Name) {
			continue
		}
		m := &Message{ID: newID(), Rule: r.Name, When: r.When, State: StateTest, Node: o.Node, At: o.Now(), Since: o.Now(), Count: 1, Template: r.Template,
			Lines: []string{"This is a test: what is really wrong would stand here."}, Link: o.Link}
		sending, cancel := context.WithTimeout(ctx, sendTimeout)
		out = append(out, Result{ch.Name, newDelivery(ch, o)(sending, m)})
		cancel()
	}
	return out, nil
}
