package forward

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// readBatch is a piece of the log, parsed.
type readBatch struct {
	events   []*parcel
	trackers []*tracker
	upto     uint64
	began    time.Time // when its first record was there; where somebody traces
}

const (
	readRecords = 1024
	readBytes   = 4 << 20
	// linger is how long the first of a batch waits for others, where nothing else is
	// there to read or to write: of a stream, what comes in these milliseconds shares one
	// pipeline to Redis, one sync of its intents, one request to Kafka and one sync of its
	// outcomes. Without it 4,000 deliveries a second cost 170 us each, of a backlog 45.
	linger = 5 * time.Millisecond
)

// reader reads the log from seq from on and makes events of it, some batches ahead of
// the core. Up to scanEnd the ledger knows what is done.
func (p *Pump) reader(ctx context.Context, out chan<- readBatch, from, scanEnd uint64) {
	rd := p.o.Archive.Reader(from)
	defer rd.Close()
	skim(rd, false, true)
	if l, ok := rd.(interface{ Lend() }); ok && p.kind == KindKafka {
		l.Lend() // what is rendered holds nothing of its delivery; what goes to an HTTP target is the delivery
	}
	for ctx.Err() == nil {
		b, err := p.readBatch(ctx, rd, scanEnd)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, archive.ErrClosed) {
				return
			}
			p.log.Error("log cannot be read, will try again", zap.Error(err))
			sleepCtx(ctx, 100*time.Millisecond)
		}
		if b.upto == 0 {
			continue
		}
		if p.o.Trace != nil && len(b.events) > 0 {
			p.traceRead(&b)
		}
		select {
		case out <- b:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Pump) readBatch(ctx context.Context, rd Reader, scanEnd uint64) (b readBatch, err error) {
	size := int64(0)
	for n, waited := 0, false; n < readRecords && size < readBytes; {
		r, ok, err := rd.TryNext()
		if err == nil && !ok {
			if n > 0 && waited {
				return b, nil
			}
			if n > 0 {
				waited = true
				sleepCtx(ctx, linger)
				continue
			}
			r, err = rd.Next(ctx)
		}
		if err != nil {
			return b, err
		}
		if n == 0 && p.o.Trace != nil {
			b.began = time.Now()
		}
		size += p.readRecord(&b, &r, scanEnd)
		b.upto = r.Seq
		n++
	}
	return b, nil
}

// skim spares a reader the reading of what nobody will look at, where it can.
func skim(rd Reader, deliveries, outcomes bool) {
	if s, ok := rd.(interface {
		Skim(deliveries, outcomes bool)
	}); ok {
		s.Skim(deliveries, outcomes)
	}
}

// readRecord adds a record's events to the batch and returns their size.
func (p *Pump) readRecord(b *readBatch, r *archive.Record, scanEnd uint64) (size int64) {
	var evs []*parcel
	switch {
	case r.Delivery != nil && r.Delivery.Verdict == archive.Accepted:
		if r.Seq <= scanEnd && p.led.Load().closed(r.Seq) {
			return 0
		}
		if !p.mine(r.Delivery) {
			return 0
		}
		evs = p.read(r.Delivery, nil)
	case r.Corrupt != nil:
		evs = p.readErased(r, scanEnd)
	case r.Marker != nil && r.Marker.Kind == archive.ReleaseMarker:
		evs = p.readReleased(r.Marker)
	}
	if len(evs) > 0 && evs[0].freed {
		return p.readFreed(b, r.Seq, evs)
	}
	if len(evs) == 0 {
		return 0
	}
	tr := &tracker{mark: r.Seq}
	for _, ev := range evs {
		if r.Seq <= scanEnd && p.led.Load().state(ev.ref) != stateNone {
			continue // done, or held and known to its gate
		}
		ev.tr = tr
		tr.left++
		size += ev.size
		b.events = append(b.events, ev)
	}
	if tr.left > 0 {
		b.trackers = append(b.trackers, tr)
	}
	return size
}

// readErased: a delivery whose key was destroyed before it was published ends as a dead
// letter without a body, so that nobody waits for it.
func (p *Pump) readErased(r *archive.Record, scanEnd uint64) []*parcel {
	var erased *archive.ErasedError
	if !errors.As(r.Corrupt, &erased) || erased.Delivery == nil || erased.Delivery.Verdict != archive.Accepted {
		return nil
	}
	if r.Seq <= scanEnd && p.led.Load().closed(r.Seq) {
		return nil
	}
	ev := p.plain(erased.Delivery, nil)
	ev.dead = reasonErased
	return []*parcel{ev}
}

func (p *Pump) readReleased(m *archive.Marker) []*parcel {
	d, err := p.o.Archive.Get(m.Key)
	if err != nil {
		p.log.Error("released delivery cannot be read", zap.String("delivery", m.Key), zap.Error(err))
		if seq, ok := archive.SeqOf(m.Key); ok {
			p.led.Load().withdraw(seq)
		}
		return nil
	}
	if !p.mine(d) {
		return nil
	}
	if d.Verdict == archive.Accepted {
		evs := p.read(d, nil)
		for _, ev := range evs {
			ev.freed = true
		}
		return evs
	}
	if d.Verdict != archive.Rejected {
		return nil
	}
	return p.read(d, parseRelease(m.Data))
}

// readFreed adds what an operator let out of a paused source; whether it is held there,
// the core knows.
func (p *Pump) readFreed(b *readBatch, mark uint64, evs []*parcel) (size int64) {
	tr := &tracker{mark: mark}
	for _, ev := range evs {
		if ev.missing || p.led.Load().state(ev.ref) == stateFinal {
			continue
		}
		ev.tr, ev.order = tr, place(ev.ref.seq, ev.ref.item)
		tr.left++
		size += ev.size
		b.events = append(b.events, ev)
	}
	if tr.left > 0 {
		b.trackers = append(b.trackers, tr)
	}
	return size
}

// free lets an event out that its paused source holds; false when it does not hold it, or
// it was let out before.
func (c *core) free(ev *parcel) bool {
	g := c.gates[gateKey{gateSource, ev.source.name, -1}]
	if c.freed[ev.ref] || g == nil || !g.closed || !g.list.has(ev.ref) {
		return false
	}
	c.freed[ev.ref] = true // its place in the list is passed over when the source resumes
	ev.redriven = true
	c.redriven[ev] = struct{}{}
	return true
}

// closed tells whether every event of a delivery is done.
func (l *ledger) closed(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq > l.pos {
		return false
	}
	c := l.chunk(seq, false)
	if c == nil {
		return true
	}
	w, b := bit(seq)
	return c.open[w]&b == 0
}

// restore puts the events that the log says are held behind their gates.
func (c *core) restore(held []heldRef) {
	c.changes = c.p.changes.Load()
	c.paused = c.p.pausedNow()
	for name := range c.paused {
		c.gate(gateKey{gateSource, name, -1}).closed = true
	}
	for _, h := range held {
		k := h.at.gate
		if k.kind == gateSource && k.name == "" {
			d, err := c.p.o.Archive.GetSeq(h.ref.seq)
			if err != nil {
				continue
			}
			k.name = d.Source
		}
		g := c.gate(k)
		if g.since.IsZero() {
			g.since = c.p.o.Now() // tried with a few first
		}
		g.list.push(h.ref)
		if h.at.whole {
			c.whole[h.ref.seq] = true
		}
	}
}

// followChanges takes pauses, resumes and reloads in.
func (c *core) followChanges() {
	n := c.p.changes.Load()
	if n == c.changes {
		return
	}
	c.changes = n
	c.paused = c.p.pausedNow()
	for name := range c.paused {
		c.gate(gateKey{gateSource, name, -1}).closed = true
	}
	for _, g := range c.gates {
		if g.key.kind == gateSource {
			g.closed, g.next = c.paused[g.key.name], time.Time{}
		}
	}
	c.tendGates(c.p.o.Now())
}

// tend does what time demands.
func (c *core) tend() {
	now := c.p.o.Now()
	c.askAgain(now)
	c.liftFences()
	c.tendGates(now)
	held := len(c.redriven)
	for _, g := range c.gates {
		held += g.list.n
	}
	c.showBlocked()
	c.p.met.heldNow.WithLabelValues(c.p.kind).Set(float64(held))
	c.p.met.parked.WithLabelValues(c.p.kind).Set(float64(len(c.parked)))
	c.p.met.inMemory.WithLabelValues(c.p.kind).Set(float64(c.bytes))
	c.p.stateMu.Lock()
	c.p.heldN, c.p.parkedN = held, len(c.parked)
	c.p.stateMu.Unlock()
}

// retryGates lets every closed topic gate be tried at once.
func (c *core) retryGates() {
	for _, g := range c.gates {
		if g.key.kind == gateTopic {
			g.next = time.Time{}
		}
	}
}

// showBlocked sets the gauge of every topic that has a gate of its own or had one.
func (c *core) showBlocked() {
	for topic := range c.shown {
		if c.topicGates[topic] == 0 {
			c.p.met.blocked.DeleteLabelValues(topic)
			delete(c.shown, topic)
		}
	}
	for topic := range c.topicGates {
		if !c.shown[topic] {
			c.shown[topic] = true
			c.p.met.blocked.WithLabelValues(topic).Set(1)
		}
	}
}
