package forward

import (
	"errors"
	"math"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

const (
	// cursorEvery is how often the cursor is written: what it costs a restart to be
	// behind is reading so many records again, and their outcomes are known.
	cursorEvery = 250 * time.Millisecond
	// stopGrace is how long a stop waits for acks; the whole process has 10 s (CONTRACT).
	stopGrace = 3 * time.Second
	// parkRecheck and waitRecheck: the first is a question to Redis, the second only a
	// safety net, as a twin that is resolved wakes its waiters.
	parkRecheck = 250 * time.Millisecond
	waitRecheck = 2 * time.Second
	// outboxMax bounds the outcomes of one sync; with outboxFull they do not wait for more.
	outboxMax  = 8192
	outboxFull = 1024
)

// settled is an event whose fate is known, on its way to a synced outcome.
type settled struct {
	ev     *parcel
	o      *archive.Outcome
	ack    Ack
	hasAck bool
}

// commit is what the committer does at once: outcomes first, then what rests on them.
type commit struct {
	ss     []settled
	cursor *cursor
}

// outcome begins the outcome of an event.
func (c *core) outcome(ev *parcel, kind archive.OutcomeKind) *archive.Outcome {
	o := &archive.Outcome{Delivery: ev.ref.seq, Item: ev.ref.item, Items: max(ev.items, 1), Kind: kind, At: c.p.o.Now(),
		Source: ev.source.name, Sink: c.p.sinkOf(ev), Partition: -1, Offset: -1, Fields: ev.fields}
	if ev.replay != nil && !ev.redrive {
		o.Replay = ev.replay.ID
	}
	return o
}

func (c *core) settle(s settled) {
	if len(c.outbox) == 0 {
		c.outboxAt = time.Now()
		c.ripe.Reset(linger)
	}
	c.outbox = append(c.outbox, s)
}

// ripens says that the outcomes at hand may wait for more: nobody but a twin waits for
// them, and their sync costs the same for one as for a thousand.
func (c *core) ripens() bool {
	return len(c.outbox) < outboxFull && c.ctx.Err() == nil && time.Since(c.outboxAt) < linger
}

// published notes that Kafka has the event.
func (c *core) published(ev *parcel, a *Ack) {
	ev.arrived(true)
	c.tell(ev, !ev.pointer, a.reply)
	o := c.outcome(ev, archive.Published)
	o.Topic, o.Partition, o.Offset = ev.topic, a.Partition, a.Offset
	o.Of, o.Reason = ev.repeats, ev.to.word
	o.Deduplicated = ev.granted
	if ev.replay == nil || ev.redrive {
		o.Identity, o.Content = ev.claim.ID, ev.claim.Content
		if ev.repeats == "" {
			o.State = ev.state
		}
	}
	c.settle(settled{ev: ev, o: o, ack: *a, hasAck: true})
}

// buried notes that the event is a dead letter, or could not even be that.
func (c *core) buried(ev *parcel, a Ack, sent bool) {
	ev.arrived(true)
	o := c.outcome(ev, archive.Dead)
	o.Reason, o.Topic = ev.dead, ev.topic
	o.Partition, o.Offset = a.Partition, a.Offset
	c.tellOf(ev, o, 0)
	c.settle(settled{ev: ev, o: o, ack: a, hasAck: sent})
}

// nextCommit is what the committer should do next, or nil.
func (c *core) nextCommit() *commit {
	n := commit{ss: c.outbox}
	if len(n.ss) > 0 && c.ripens() {
		return nil
	}
	if len(n.ss) > outboxMax {
		n.ss = n.ss[:outboxMax]
	}
	if c.p.o.Now().Sub(c.savedAt) >= cursorEvery || c.ctx.Err() != nil {
		if cur := c.cursor(); cur != c.lastSave {
			n.cursor = &cur
		}
	}
	if len(n.ss) == 0 && n.cursor == nil {
		return nil
	}
	return &n
}

func (c *core) handedOver(n commit) {
	c.outbox = c.outbox[len(n.ss):]
	if len(c.outbox) == 0 {
		c.outbox = nil // the committer has that array now
	} else {
		c.outboxAt = time.Time{}
	}
	c.flight += len(n.ss)
	if n.cursor != nil {
		c.lastSave, c.savedAt = *n.cursor, c.p.o.Now()
	}
}

func (c *core) settledAll() bool { return c.flight == 0 && c.cursor() == c.lastSave }

// cursor is the low-water mark of now: everything at or below Seq has a synced
// outcome, and what is held is not below Held.
func (c *core) cursor() cursor {
	for len(c.window) > 0 && c.window[0].left == 0 {
		c.window[0] = nil
		c.window = c.window[1:]
	}
	cur := cursor{Seq: c.read}
	if len(c.window) > 0 {
		cur.Seq = c.window[0].mark - 1
	}
	low := uint64(math.MaxUint64)
	for _, g := range c.gates {
		if s := g.list.lowest(); s != 0 {
			low = min(low, s)
		}
	}
	for ev := range c.redriven {
		low = min(low, ev.ref.seq)
	}
	if low != math.MaxUint64 {
		cur.Held = low
	}
	return cur
}

// finish closes the books on events whose outcomes are synced.
func (c *core) finish(ss []settled) {
	c.flight -= len(ss)
	var release []Claim
	for i := range ss {
		s := &ss[i]
		ev := s.ev
		c.bytes -= ev.unload()
		c.works--
		ev.arrived(true)
		if ev.tr != nil {
			ev.tr.left--
			ev.tr = nil
		}
		delete(c.redriven, ev)
		if ev.claimed && s.o.Kind != archive.Published {
			release = append(release, ev.claim)
		}
		if ev.holding && s.o.Kind != archive.Published {
			release = append(release, ev.stateClaim())
		}
		c.count(s)
	}
	if len(release) > 0 {
		c.p.o.Dedupe.Release(release)
	}
	for i := range ss {
		if ev := ss[i].ev; ev.claimed {
			c.wake(ev.claim.ID)
		}
		if ev := ss[i].ev; ev.holding {
			c.wake(ev.state)
		}
		for _, j := range [...]*job{ss[i].ev.replay, ss[i].ev.lost} {
			if j != nil {
				j.done(ss[i].o)
			}
		}
	}
}

func (c *core) count(s *settled) {
	ev, m := s.ev, c.p.met
	switch s.o.Kind {
	case archive.Published:
		ev.source.published.Inc()
		if ev.replay != nil && !ev.redrive || ev.again || ev.to.also { // an event counts once, however many routes take it
			return
		}
		m.lag.Observe(max(s.o.At.Sub(ev.received).Seconds(), 0))
		if !ev.occurred.IsZero() {
			late := max(ev.received.Sub(ev.occurred).Seconds(), 0)
			m.providerLag.Observe(late)
			ev.source.lag.Observe(late)
		}
		ev.source.events(ev.fields.Type).Inc()
		if ev.failure != "" {
			ev.source.failures(ev.failure).Inc()
		}
	case archive.Dead:
		m.dead.WithLabelValues(s.o.Reason).Inc()
	case archive.Held:
		m.held.WithLabelValues(s.o.Reason).Inc()
	}
}

// committer writes outcomes in groups and then, and only then, lets go of what made
// them: confirms to dedupe, the producer's intents, the cursor.
func (p *Pump) committer(c *core, stop <-chan struct{}) {
	confirmed := c.saved.Confirmed
	var rooms committerRooms
	for {
		select {
		case n := <-c.commits:
			if !p.append(n.ss, &rooms, stop) {
				return
			}
			confirmed = p.rest(n.ss, &rooms, confirmed)
			if n.cursor != nil {
				cur := *n.cursor
				cur.Confirmed = confirmed
				if low := p.o.Dedupe.Unconfirmed(); low > 0 {
					cur.Confirmed = min(confirmed, low-1)
				}
				if err := saveCursor(p.o.Archive.State(), p.sinkName, cur); err != nil {
					// Nothing is lost: a restart reads more again than it had to.
					p.log.Warn("cursor is not saved", zap.Error(err))
				} else {
					p.keep.Store(cur.scanFrom())
				}
			}
			select {
			case c.committed <- n.ss:
			case <-stop:
				return
			}
		case <-stop:
			return
		}
	}
}

// committerRooms are the committer's lists, of one batch after the other: nobody keeps what
// he is given of them. A new list each time was 550 bytes for each delivery.
type committerRooms struct {
	outcomes []archive.Outcome
	claims   []Claim
	acks     []Ack
}

// emptied is a list for the next batch; one that a backlog made large is given up.
func emptied[T any](list []T) []T {
	if cap(list) > 2*outboxFull {
		return nil
	}
	clear(list)
	return list[:0]
}

// append syncs the outcomes, as often as it takes.
func (p *Pump) append(ss []settled, rooms *committerRooms, stop <-chan struct{}) bool {
	if len(ss) == 0 {
		return true
	}
	os := rooms.outcomes
	for i := range ss {
		os = append(os, *ss[i].o)
	}
	defer func() { rooms.outcomes = emptied(os) }()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		done := p.stage("forward.outcome", len(os))
		err := p.o.Archive.AppendOutcomes(os)
		done(0, err)
		if err == nil {
			for i := range ss {
				ss[i].o.Seq = os[i].Seq
			}
			return true
		}
		if errors.Is(err, archive.ErrClosed) {
			p.log.Warn("archive is closed, outcomes are not written", zap.Int("outcomes", len(os)))
			return false
		}
		p.log.Error("outcomes are not synced, will try again", zap.Int("outcomes", len(os)), zap.Error(err))
		select {
		case <-time.After(pause):
		case <-stop:
			return false
		}
	}
}

// rest tells dedupe and the producer what is synced now.
func (p *Pump) rest(ss []settled, rooms *committerRooms, confirmed uint64) uint64 {
	claims, acks := rooms.claims, rooms.acks
	for i := range ss {
		s := &ss[i]
		confirmed = max(confirmed, s.o.Seq)
		if s.hasAck {
			acks = append(acks, s.ack)
		}
		if s.o.Kind == archive.Published && s.o.Replay == "" && s.o.Identity != (archive.Identity{}) {
			c := s.ev.claim
			c.Outcome, c.At = s.o.Seq, s.o.At
			claims = append(claims, c)
			if s.o.State != (archive.Identity{}) {
				c.ID, c.Content = s.o.State, archive.Identity{}
				claims = append(claims, c)
			}
		}
	}
	if len(claims) > 0 {
		p.o.Dedupe.Confirm(claims)
	}
	if len(acks) > 0 {
		if err := p.sink.Done(acks); err != nil {
			p.log.Warn("intents stay; they are resolved at the next start", zap.Error(err))
		}
	}
	rooms.claims, rooms.acks = emptied(claims), emptied(acks)
	return confirmed
}
