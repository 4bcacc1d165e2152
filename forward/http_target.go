package forward

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// breakAfter is how many attempts in a row fail, whatever they carry, until the target
	// is left alone for a while. One that fails for a single delivery does not get there:
	// others arrive between its attempts.
	breakAfter = 5
	// gonePause is how long a target that said 410 is left alone.
	gonePause = time.Hour
	// leastTries is how often a delivery is tried in this life before it may be given up:
	// one that had waited for days, for a pause or another reason of ours, gets its chance.
	leastTries = 3
	firstPause = time.Second
)

// target is one HTTP target with what of it is in memory.
type target struct {
	s    *httpSink
	name string
	out  prometheus.Gauge

	mu       sync.Mutex // protects what follows
	freed    *sync.Cond // an attempt ended, or settings changed
	courier  *courier   // nil: the target is not configured (any more)
	lines    map[int32]*line
	queued   int
	bytes    int64
	full     bool      // Send was refused for want of room
	flying   int       // attempts on their way
	failures int       // in a row, of a kind that says something about the target
	until    time.Time // nothing is tried before
	reason   string    // why
	proving  bool      // it failed: one attempt at a time until one arrives
	closed   bool
}

// line is the deliveries whose keys fall together. One is on its way at a time.
type line struct {
	queue   []*Message
	running bool // has a goroutine
	trying  bool // the first of queue is on its way
	fenced  bool // it gave messages back: newer ones are refused until Lift
	until   time.Time
	tries   int    // of head, without success
	head    uint64 // delivery that is tried
}

func newTarget(s *httpSink, name string) *target {
	t := &target{s: s, name: name, lines: map[int32]*line{}, out: s.metrics.waiting.WithLabelValues(KindHTTP + ":" + name)}
	t.freed = sync.NewCond(&t.mu)
	return t
}

// settle puts settings in force; nil: there is no such target any more. What failed is
// tried again at once.
func (t *target) settle(c *courier) {
	t.mu.Lock()
	old := t.courier
	t.courier, t.until, t.reason, t.failures = c, time.Time{}, "", 0
	for _, l := range t.lines {
		l.until = time.Time{}
	}
	var back []Ack
	if c == nil {
		back = t.giveAllBack(ReasonTargetAbsent)
	}
	t.freed.Broadcast()
	t.mu.Unlock()
	if old != nil {
		old.transport.CloseIdleConnections()
	}
	t.s.emit(back)
}

func (t *target) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.freed.Broadcast()
	if t.courier != nil {
		t.courier.transport.CloseIdleConnections()
	}
}

// send queues a message behind the others of its line.
func (t *target) send(m *Message) error {
	now := time.Now()
	id := lineOf(m.Key)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrProducerClosed
	}
	if t.courier == nil {
		return &BlockedError{Topic: t.name, Partition: -1, Reason: ReasonTargetAbsent}
	}
	if now.Before(t.until) {
		return &BlockedError{Topic: t.name, Partition: -1, Reason: t.reason}
	}
	size := int64(len(m.Value))
	if t.full = t.queued >= targetQueue || t.queued > 0 && t.bytes+size > targetBytes; t.full {
		return &BlockedError{Topic: t.name, Partition: -1, Reason: ReasonTargetBacklog}
	}
	l := t.lines[id]
	if l == nil {
		l = &line{}
		t.lines[id] = l
	}
	if l.fenced || now.Before(l.until) {
		return &BlockedError{Topic: t.name, Partition: id, Reason: reasonFailing}
	}
	m.Partition = id
	l.queue = append(l.queue, m)
	t.count(1, size)
	if !l.running {
		l.running = true
		t.s.start(func() { t.run(id, l) })
	}
	return nil
}

// count keeps the books of what is in memory; the caller holds mu.
func (t *target) count(n int, size int64) {
	t.queued += n
	t.bytes += size
	t.out.Set(float64(t.queued))
	if t.full && t.queued <= targetQueue/2 && t.bytes <= targetBytes/2 {
		t.full = false
		t.s.signal()
	}
}

// pop takes the first n messages off a line; the caller holds mu.
func (t *target) pop(l *line, n int) []*Message {
	ms := l.queue[:n:n]
	l.queue = l.queue[n:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
	size := int64(0)
	for _, m := range ms {
		size += int64(len(m.Value))
	}
	t.count(-n, -size)
	return ms
}

// run sends what a line has, one after the other, and ends when it has nothing.
func (t *target) run(id int32, l *line) {
	for {
		t.mu.Lock()
		for !t.closed && len(l.queue) > 0 && t.flying >= t.limit() {
			t.freed.Wait()
		}
		if t.closed || len(l.queue) == 0 {
			l.running = false
			t.forget(id, l)
			t.mu.Unlock()
			return
		}
		m, c := l.queue[0], t.courier
		l.trying = true
		t.flying++
		t.mu.Unlock()

		began := time.Now()
		res := c.attempt(t.s.life, m, t.s.wanted())
		t.s.metrics.seconds.WithLabelValues(KindHTTP + ":" + t.name).Observe(time.Since(began).Seconds())
		if t.s.life.Err() != nil {
			return // nobody knows, and nobody asks any more: the next life sends it again
		}
		t.s.metrics.attempts.WithLabelValues(KindHTTP+":"+t.name, res.label).Inc()

		t.mu.Lock()
		l.trying = false
		t.flying--
		acks := t.judge(id, l, m, &res)
		t.freed.Broadcast()
		t.mu.Unlock()
		t.s.emit(acks)
	}
}

// limit is how many attempts may be on their way now; the caller holds mu.
func (t *target) limit() int {
	switch {
	case t.courier == nil:
		return 0
	case t.proving:
		return 1
	}
	return t.courier.Concurrency
}

// forget drops a line of which nothing is to be known; the caller holds mu.
func (t *target) forget(id int32, l *line) {
	if len(l.queue) == 0 && !l.fenced && l.tries == 0 && t.lines[id] == l {
		delete(t.lines, id)
	}
}

// judge draws the conclusions of an attempt and gives the acks that follow; the caller
// holds mu.
func (t *target) judge(id int32, l *line, m *Message, res *attemptResult) []Ack {
	now := time.Now()
	if res.delivered {
		if t.proving {
			t.s.log.Info("http target takes deliveries again", zap.String("target", t.name))
			t.proving = false
			t.s.signal()
		}
		t.failures, l.tries = 0, 0
		t.pop(l, 1)
		return []Ack{{Message: m, Partition: id, Offset: -1, reply: res.reply}}
	}
	if l.head != m.Delivery {
		l.head, l.tries = m.Delivery, 0
	}
	l.tries++
	t.s.refused(m, res.reply)
	c := t.courier
	if c == nil { // removed meanwhile
		return t.giveAllBack(ReasonTargetAbsent)
	}
	if l.tries >= leastTries && now.Sub(m.Time) > c.RetryFor {
		l.tries = 0
		t.pop(l, 1)
		return []Ack{{Message: m, Partition: id, Err: &refusedError{reasonGivenUp}}}
	}
	acks := t.giveBack(nil, id, l, &BlockedError{Topic: t.name, Partition: id, Reason: reasonFailing})
	// Whatever is said of the target, this one comes again later than the others: if it is
	// what the target cannot stand, they get through between its attempts.
	pause := c.pause(l.tries)
	defer func() { l.until = later(now, t.until).Add(pause) }()
	switch {
	case res.status == http.StatusGone:
		return append(acks, t.block(ReasonTargetGone, max(gonePause, res.after), now)...)
	case res.after > 0 && (res.status == http.StatusTooManyRequests || res.status == http.StatusServiceUnavailable):
		return append(acks, t.block(ReasonTargetBusy, res.after, now)...)
	case !res.down: // it answers; what it does not like is this delivery
		t.failures, t.proving = 0, false
		return acks
	}
	if t.failures++; t.failures >= breakAfter || t.proving {
		return append(acks, t.block(ReasonTargetDown, c.pause(t.failures-breakAfter+1), now)...)
	}
	return acks
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// block leaves the target alone for a while; the caller holds mu.
func (t *target) block(reason string, pause time.Duration, now time.Time) []Ack {
	if t.reason != reason || !t.proving {
		t.s.log.Error("http target takes nothing", zap.String("target", t.name), zap.String("reason", reason), zap.Duration("next_try_in", pause))
	}
	t.reason, t.proving = reason, true
	if until := now.Add(pause); until.After(t.until) {
		t.until = until
	}
	time.AfterFunc(time.Until(t.until), t.s.signal)
	return t.giveAllBack(reason)
}

// giveAllBack empties the queues, but for what is on its way; the caller holds mu.
func (t *target) giveAllBack(reason string) (acks []Ack) {
	err := &BlockedError{Topic: t.name, Partition: -1, Reason: reason}
	for id, l := range t.lines {
		acks = t.giveBack(acks, id, l, err)
	}
	return acks
}

// giveBack empties one line's queue, but for what is on its way; the caller holds mu.
func (t *target) giveBack(acks []Ack, id int32, l *line, err error) []Ack {
	keep := 0
	if l.trying {
		keep = 1
	}
	if len(l.queue) <= keep {
		return acks
	}
	first := l.queue[:keep:keep]
	l.queue = l.queue[keep:]
	for _, m := range t.pop(l, len(l.queue)) {
		acks = append(acks, Ack{Message: m, Partition: id, Err: err})
	}
	l.fenced = true
	if keep > 0 {
		l.queue = first
	}
	return acks
}

// blocked says whether the target, or that line of it, takes nothing now.
func (t *target) blocked(id int32, now time.Time) (bool, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id >= 0 {
		l := t.lines[id]
		return l != nil && (l.fenced || now.Before(l.until)), reasonFailing
	}
	switch {
	case t.courier == nil:
		return true, ReasonTargetAbsent
	case now.Before(t.until):
		return true, t.reason
	case t.full:
		return true, ReasonTargetBacklog
	}
	return false, ""
}

// fenced are the lines that would flow again but for what they gave back.
func (t *target) fenced(now time.Time) (ids []int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.courier == nil || now.Before(t.until) {
		return nil
	}
	for id, l := range t.lines {
		if l.fenced && !now.Before(l.until) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (t *target) lift(id int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lines[id]; l != nil {
		l.fenced = false
		if !l.running {
			t.forget(id, l)
		}
	}
}

// pause is how long to wait after so many failures: anything up to a bound that doubles,
// so that what failed together does not come back together.
func (c *courier) pause(tries int) time.Duration {
	most := c.first << min(max(tries-1, 0), 30)
	if most <= 0 || most > c.MaxPause {
		most = c.MaxPause
	}
	return rand.N(most) + 1
}
