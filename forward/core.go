package forward

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// claimBatch is how many claims go to Redis at once (libraries.md 4).
const claimBatch = 256

// core is the pump's one thread of decisions: every event passes through it, in order,
// and nothing in it is shared. It never waits for Kafka or the disk: lanes send,
// the committer writes, and both answer by channels.
type core struct {
	p      *Pump
	ctx    context.Context
	askCtx context.Context // not ended by a stop: a claim that is cut off would count as unknown

	ready []*parcel // staged, to be claimed, in order
	head  int       // of ready
	mixed bool      // ready is not in order
	bytes int64     // of loaded events
	works int       // events known and not done

	window   []*tracker // records read and not done, in order
	read     uint64     // last seq read
	redriven map[*parcel]struct{}
	freed    map[ref]bool    // let out of a paused source by hand, and in its list still
	whole    map[uint64]bool // deliveries held unread, for want of a definition
	shown    map[string]bool // topics that the gauge of blocked ones shows
	changes  uint64          // of pauses and reloads, as last seen

	gates      map[gateKey]*gate
	topicGates map[string]int // how many gates a topic has
	paused     map[string]bool
	keys       map[uint64]*keyQueue
	waiters    map[archive.Identity][]*parcel
	parked     []*parcel

	lanes    map[string]*lane
	loaded   []*lane        // those that send has something for
	inflight map[string]int // sent and not acked, per topic
	bounced  chan *lane
	sent     map[*Message]*parcel

	outbox    []settled
	outboxAt  time.Time   // when the first of them came
	ripe      *time.Timer // fires when they have waited enough
	flight    int         // outcomes that the committer has
	committed chan []settled
	commits   chan commit

	saved     cursor
	savedAt   time.Time
	lastSave  cursor
	claims    []Claim
	answers   []Answer
	claimed   []question
	back      []Claim // granted and not used, to be released with the batch
	lastNoise time.Time
}

func newCore(ctx context.Context, p *Pump) *core {
	return &core{
		p: p, ctx: ctx, askCtx: context.WithoutCancel(ctx), whole: map[uint64]bool{}, freed: map[ref]bool{}, shown: map[string]bool{}, redriven: map[*parcel]struct{}{}, gates: map[gateKey]*gate{}, topicGates: map[string]int{},
		paused: map[string]bool{}, keys: map[uint64]*keyQueue{}, waiters: map[archive.Identity][]*parcel{},
		lanes: map[string]*lane{}, inflight: map[string]int{}, bounced: make(chan *lane, 64), sent: map[*Message]*parcel{},
		committed: make(chan []settled, 1), commits: make(chan commit), ripe: time.NewTimer(linger),
	}
}

// room says whether more bytes may come into memory.
func (c *core) room() bool { return c.bytes < c.p.o.MaxBytes }

// run is the loop. It ends when ctx does and what was on its way has had a moment.
func (c *core) run(reads <-chan readBatch) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	defer c.ripe.Stop()
	var grace <-chan time.Time
	done := c.ctx.Done()
	for {
		in := reads
		if grace != nil || !c.room() || c.works >= c.p.o.MaxEvents || len(c.ready)-c.head > 4*claimBatch {
			in = nil
		}
		out, next := c.commits, c.nextCommit()
		if next == nil {
			out = nil
		}
		var send commit
		if next != nil {
			send = *next
		}
		select {
		case b := <-in:
			c.take(b)
		case acks := <-c.p.sink.Acks():
			c.acked(acks)
		case l := <-c.bounced:
			c.bounce(l)
		case out <- send:
			c.handedOver(send)
		case ss := <-c.committed:
			c.finish(ss)
		case f := <-c.p.control:
			f(c)
		case <-c.p.sink.Changed():
			c.liftFences()
			c.retryGates()
			c.tendGates(c.p.o.Now())
		case <-tick.C:
			c.tend()
		case <-c.ripe.C: // nextCommit has something now
		case <-done:
			done, grace = nil, time.After(c.p.o.grace)
			c.ready, c.head = nil, 0
		case <-grace:
			return
		}
		if grace == nil {
			c.followChanges()
			c.work()
		}
		c.pushLanes()
		if grace != nil && len(c.sent) == 0 && len(c.outbox) == 0 && c.settledAll() {
			return
		}
	}
}

// take brings a batch of the log in.
func (c *core) take(b readBatch) {
	c.window = append(c.window, b.trackers...)
	c.read = b.upto
	for _, ev := range b.events {
		if ev.freed && !c.free(ev) {
			ev.tr.left--
			continue
		}
		c.works++
		c.bytes += ev.size
		c.stage(ev)
	}
}

// stage begins (or begins again) with an event: what must not go on now goes behind its
// gate, the rest is asked for.
func (c *core) stage(ev *parcel) {
	if ev.order == 0 {
		ev.order = place(c.read, maxItem) // a replay comes behind what is read
		if ev.tr != nil {
			ev.order = place(ev.tr.mark, ev.ref.item)
		}
	}
	if n := len(c.ready); n > c.head && c.ready[n-1].order > ev.order {
		c.mixed = true
	}
	c.ready = append(c.ready, ev)
}

// work claims and dispatches everything that is ready.
func (c *core) work() {
	for c.head < len(c.ready) {
		c.claims, c.claimed = c.claims[:0], c.claimed[:0]
		for c.head < len(c.ready) && len(c.claims) < claimBatch-1 { // one event may ask twice
			c.sortReady()
			ev := c.ready[c.head]
			c.ready[c.head] = nil
			c.head++
			if c.admit(ev) {
				c.question(ev)
			}
		}
		c.ask()
	}
	c.ready, c.head = c.ready[:0], 0
}

// sortReady puts in order what came from several places at once: out of gates, woken and
// read. An event taken out of a gate must not come behind a later one of its key.
func (c *core) sortReady() {
	if c.mixed {
		slices.SortStableFunc(c.ready[c.head:], byOrder)
		c.mixed = false
	}
}

// admit decides what happens to an event before it is claimed; true: claim it, or only
// send it, in its turn, where nothing is to be asked.
func (c *core) admit(ev *parcel) bool {
	if ev.missing {
		g := c.gate(gateKey{gateSource, ev.source.name, -1})
		if !g.closed {
			c.close(g)
			g.next = c.p.o.Now().Add(missingRetry)
		}
		c.stop(g, ev)
		c.freeKey(ev)
		return false
	}
	if g := c.gateOf(ev); g != nil {
		c.stop(g, ev)
		c.freeKey(ev)
		return false
	}
	switch {
	case ev.filtered != "":
		o := c.outcome(ev, archive.Filtered)
		o.Reason = ev.filtered
		c.tellOf(ev, o, 0)
		c.settle(settled{ev: ev, o: o})
		return false
	case ev.dead != "" && ev.topic == "":
		c.buried(ev, Ack{Partition: -1, Offset: -1}, false)
		return false
	}
	return !c.behindKey(ev)
}

// dispatch sends the event on its lane. Later events of its key may follow it: a lane
// keeps the order.
func (c *core) dispatch(ev *parcel) {
	if g := c.gateOf(ev); g != nil {
		c.stop(g, ev)
		c.freeKey(ev)
		return
	}
	if ev.msg == nil {
		topic := ev.topic
		if err := c.p.load(ev); err != nil || ev.missing {
			c.later(ev, err)
			return
		}
		c.bytes += ev.size
		if ev.dead != "" && ev.msg == nil {
			c.buried(ev, Ack{Partition: -1, Offset: -1}, false)
			c.freeKey(ev)
			return
		}
		if ev.topic != topic { // routed elsewhere since: its gates are others
			if g := c.gateOf(ev); g != nil {
				c.stop(g, ev)
				c.freeKey(ev)
				return
			}
		}
	}
	ev.pass = nil
	c.sent[ev.msg] = ev
	c.inflight[ev.topic]++
	c.send(ev.msg)
	c.freeKey(ev)
}

// later puts an event aside that cannot be read now.
func (c *core) later(ev *parcel, err error) {
	c.p.log.Warn("event cannot be read, will try again", ev.named(zap.Error(err))...)
	ev.missing, ev.msg, ev.size = false, nil, 0
	c.hang(ev)
	if ev.parkedAt.IsZero() {
		ev.parkedAt = c.p.o.Now()
	}
	ev.nextAsk = c.p.o.Now().Add(time.Second)
	c.parked = append(c.parked, ev)
}

// acked takes in what became of messages.
func (c *core) acked(acks []Ack) {
	for i := range acks {
		a := &acks[i]
		ev := c.sent[a.Message]
		if ev == nil {
			continue // not ours: of a former life, resolved by Recover
		}
		delete(c.sent, a.Message)
		c.inflight[ev.topic]--
		switch {
		case a.Err == nil && ev.dead != "":
			c.buried(ev, *a, true)
		case a.Err == nil:
			c.published(ev, a)
		case errors.Is(a.Err, ErrNotSent) || errors.Is(a.Err, ErrTopicBlocked):
			c.giveBack(*a)
			c.returned(ev, a.Err)
		case isPoison(a.Err):
			c.giveBack(*a)
			c.poison(ev, a.Err)
		default:
			c.giveBack(*a)
			c.p.log.Error("message came back", zap.String("topic", ev.topic), zap.Error(a.Err))
			c.returned(ev, ErrNotSent)
		}
	}
}

func (c *core) giveBack(a Ack) {
	if err := c.p.sink.Done([]Ack{a}); err != nil {
		c.p.log.Warn("intent of a message that was given back stays", zap.Error(err))
	}
}

// returned puts a message that was not sent where the next of its kind will look.
func (c *core) returned(ev *parcel, err error) {
	k := gateKey{gateTopic, ev.topic, -1}
	var be *BlockedError
	if errors.As(err, &be) && be.Partition >= 0 {
		k.partition = c.p.sink.PartitionOf(ev.topic, ev.key)
	}
	g := c.gate(k)
	if errors.Is(err, ErrTopicBlocked) && (be == nil || be.Partition == k.partition) {
		c.close(g)
	}
	c.stopSent(g, ev)
}

// stopSent is stop for what was on a lane: it is older than what is behind the gate.
func (c *core) stopSent(g *gate, ev *parcel) {
	c.bytes -= ev.unload()
	ev.pass = nil
	ev.arrived(false)
	g.insert(ev)
}

// poison goes by claim-check where that helps, else to the dead letters.
func (c *core) poison(ev *parcel, err error) {
	if errors.Is(err, ErrTooLarge) && !ev.big && ev.dead == "" && c.p.o.AdminURL != "" {
		c.bytes -= ev.unload()
		ev.big = true
		c.dispatch(ev)
		return
	}
	c.refused(ev, err)
}

// refused makes a dead letter of what Kafka will never take.
func (c *core) refused(ev *parcel, err error) {
	reason := reasonRefused
	if errors.Is(err, ErrTooLarge) {
		reason = reasonTooLarge
	}
	if re := (*refusedError)(nil); errors.As(err, &re) {
		reason = re.reason
	}
	if ev.dead != "" { // the dead letter itself: the outcome must do
		c.buried(ev, Ack{Partition: -1, Offset: -1}, false)
		return
	}
	c.p.log.Error("event becomes a dead letter", ev.named(zap.String("reason", reason), zap.Error(err))...)
	claim, had := ev.claim, ev.claimed
	c.bytes -= ev.unload()
	d, derr := c.p.delivery(ev)
	if derr == nil {
		if info := c.p.lookup(d); info != nil {
			c.p.deadLetter(ev, d, info, nil, reason)
		}
	}
	ev.dead, ev.unasked, ev.claim, ev.claimed = reason, true, claim, had
	if ev.msg == nil {
		if c.p.kind == KindKafka {
			ev.topic = ""
		}
		c.buried(ev, Ack{Partition: -1, Offset: -1}, false)
		return
	}
	c.bytes += ev.size
	c.stage(ev)
}
