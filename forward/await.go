package forward

import (
	"sync"
	"time"

	"penstock/archive"
)

// Reply is what an upstream said to a delivery.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

const (
	// earlySlots is how many fates are kept for those who have not begun to wait: the pump
	// reads a delivery as soon as it is synced, and may be through with it before the
	// goroutine that archived it runs again.
	earlySlots = 1 << 14
	// earlyBytes bounds the answers among them.
	earlyBytes = 8 << 20
)

// awaits tells those whose answer waits for a sink what became of their delivery. Nothing
// rests on it: who is told nothing answers 503, and the delivery goes its way all the same.
type awaits struct {
	mu      sync.Mutex // protects what follows
	waiting map[uint64]*wait
	early   []fate // by seq, the newest of each place
	bytes   int    // of the answers in early
}

// fate is how far the events of one delivery have come.
type fate struct {
	seq    uint64
	left   int // events that are not decided; -1: nobody knows how many there are
	bad    bool
	answer *Reply
}

type wait struct {
	fate
	done chan struct{}
}

// Await makes the pump tell what becomes of deliveries from now on, to Delivered. topics
// are those that their events go to, as far as they are known: of those the broker is asked
// how safe its ack is (see Stats).
func (p *Pump) Await(topics []string) {
	p.awaits.CompareAndSwap(nil, &awaits{waiting: map[uint64]*wait{}, early: make([]fate, earlySlots)})
	p.setAwaited(topics)
}

// Delivered waits until every event of the delivery is in the sink, or its twin is, and is
// false when that is not so: not by then, stop was closed, or it is known that it will not
// be (held, a dead letter, published as a pointer to this archive). answer is what an HTTP
// target said, whatever that was; nil where its twin was delivered.
func (p *Pump) Delivered(seq uint64, until time.Time, stop <-chan struct{}) (answer *Reply, ok bool) {
	a := p.awaits.Load()
	if a == nil {
		return nil, false
	}
	w := a.begin(seq)
	select {
	case <-w.done: // it was first
		return w.answer, !w.bad
	default:
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	case <-stop:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, seq)
	return w.answer, w.over() && !w.bad
}

// over says that nothing more will change what is known.
func (f *fate) over() bool { return f.bad || f.left == 0 || f.answer != nil }

func (a *awaits) begin(seq uint64) *wait {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &wait{fate: fate{seq: seq, left: -1}, done: make(chan struct{})}
	if e := &a.early[seq%earlySlots]; e.seq == seq {
		w.fate = *e
		a.drop(e)
	}
	if w.over() {
		close(w.done)
		return w
	}
	a.waiting[seq] = w
	return w
}

// drop empties a place of early.
func (a *awaits) drop(e *fate) {
	if e.answer != nil {
		a.bytes -= len(e.answer.Body)
	}
	*e = fate{}
}

// tell notes what became of one event of a delivery that has items of them.
func (a *awaits) tell(seq uint64, items int, good bool, answer *Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.waiting[seq]
	f := &a.early[seq%earlySlots]
	switch {
	case w != nil:
		f = &w.fate
	case f.seq != seq:
		a.drop(f)
		f.seq, f.left = seq, -1
	}
	if f.over() {
		return
	}
	if f.left < 0 {
		f.left = items
	}
	f.left--
	f.bad = f.bad || !good
	if w == nil && answer != nil {
		if a.bytes += len(answer.Body); a.bytes > earlyBytes {
			a.bytes -= len(answer.Body)
			answer, f.bad = nil, true
		}
	}
	f.answer = answer
	if w != nil && w.over() {
		delete(a.waiting, seq)
		close(w.done)
	}
}

// tell says what became of an event to whoever waits for its delivery.
func (c *core) tell(ev *parcel, good bool, answer *Reply) {
	a := c.p.awaits.Load()
	if a == nil || ev.replay != nil || ev.again || ev.ref.seq&archive.QuarantineBit != 0 {
		return
	}
	a.tell(ev.ref.seq, max(ev.items, 1), good, answer)
}

// tellOf says what an outcome means to whoever waits. Filtered means that there is nothing
// to lose. Held by its source it waits for an operator; behind a topic it may still be in
// time.
func (c *core) tellOf(ev *parcel, o *archive.Outcome, gate gateKind) {
	switch {
	case o.Kind == archive.Duplicate, o.Kind == archive.Filtered:
		c.tell(ev, !ev.pointer, nil)
	case o.Kind == archive.Dead, o.Kind == archive.Held && gate == gateSource:
		c.tell(ev, false, nil)
	}
}
