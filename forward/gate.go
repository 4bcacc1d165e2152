package forward

import (
	"sort"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"penstock/archive"
)

type gateKind uint8

const (
	gateSource gateKind = 1 // paused, or without a definition
	gateTopic  gateKind = 2 // a topic or a partition of it that takes nothing
)

// gateKey names what may be closed: a source, a topic (partition -1) or one partition.
type gateKey struct {
	kind      gateKind
	name      string
	partition int32
}

// gate holds back, in order, what may not be published now. What waits briefly stays
// in pend and pins the cursor; what waits long gets the outcome held and goes to the
// list. While anything is in either, later events of the gate go behind it.
type gate struct {
	key    gateKey
	closed bool
	since  time.Time // nothing got through since
	next   time.Time // when it is tried again
	tries  int
	pend   []*parcel     // by order; no outcome in the log, or one that says held (redriven)
	list   seqList       // held, outcome in the log or on its way
	pace   *rate.Limiter // of a source; nil: as fast as they are taken
	flying int           // events taken out of it that are on their way: not acked, back, or waiting
}

func (g *gate) empty() bool { return len(g.pend) == 0 && g.list.n == 0 }

// insert puts an event where its order says: what the producer gives back is older
// than what came to the gate meanwhile.
func (g *gate) insert(ev *parcel) {
	i := len(g.pend)
	for i > 0 && g.pend[i-1].order > ev.order {
		i--
	}
	g.pend = append(g.pend, nil)
	copy(g.pend[i+1:], g.pend[i:])
	g.pend[i] = ev
}

func (c *core) gate(k gateKey) *gate {
	g := c.gates[k]
	if g == nil {
		g = &gate{key: k}
		if r := c.p.o.DrainRate; r > 0 && k.kind == gateSource {
			g.pace = rate.NewLimiter(rate.Limit(r), max(1, int(r/5))) // it is looked at every 50 ms
		}
		c.gates[k] = g
		if k.kind == gateTopic {
			c.topicGates[k.name]++
		}
	}
	return g
}

// dropGate forgets a gate that is open and empty.
func (c *core) dropGate(g *gate) {
	if g.closed || !g.empty() || g.flying > 0 || c.gates[g.key] != g {
		return
	}
	delete(c.gates, g.key)
	if g.key.kind == gateTopic {
		if c.topicGates[g.key.name]--; c.topicGates[g.key.name] == 0 {
			delete(c.topicGates, g.key.name)
		}
	}
}

// gateOf returns the gate that holds the event back; nil when it may go on.
func (c *core) gateOf(ev *parcel) *gate {
	if ev.replay != nil {
		return c.topicGate(ev)
	}
	if g := c.gates[gateKey{gateSource, ev.source.name, -1}]; g != nil && !ev.freed && g.stops(ev) {
		return g
	}
	return c.topicGate(ev)
}

// stops says whether the event has to wait here: the gate is shut, or an older event waits
// in it. That may have come back while this one, let out already, waited for its twin or
// for Redis; so having been let out is no reason to overtake it.
func (g *gate) stops(ev *parcel) bool {
	if g.closed && ev.pass != g {
		return true
	}
	first, ok := g.oldest()
	return ok && first < ev.order
}

// oldest is the order of what is let out next.
func (g *gate) oldest() (order uint64, ok bool) {
	if r, held := g.list.peek(); held {
		order, ok = place(r.seq, r.item), true
	}
	if len(g.pend) > 0 && (!ok || g.pend[0].order < order) {
		order, ok = g.pend[0].order, true
	}
	return order, ok
}

func (c *core) topicGate(ev *parcel) *gate {
	if c.topicGates[ev.topic] == 0 || ev.topic == "" {
		return nil
	}
	if g := c.gates[gateKey{gateTopic, ev.topic, -1}]; g != nil && g.stops(ev) {
		return g
	}
	part := c.p.sink.PartitionOf(ev.topic, ev.key)
	if part < 0 {
		return nil
	}
	if g := c.gates[gateKey{gateTopic, ev.topic, part}]; g != nil && g.stops(ev) {
		return g
	}
	return nil
}

// stop puts an event behind a gate.
func (c *core) stop(g *gate, ev *parcel) {
	c.bytes -= ev.unload()
	ev.pass = nil
	ev.arrived(false)
	if c.listed(ev) {
		g.list.push(ev.ref)
		delete(c.redriven, ev)
		c.works--
		return
	}
	if ev.pinned() {
		g.insert(ev)
		return
	}
	if g.list.n > 0 || (g.closed && g.key.kind == gateSource) {
		c.hold(g, ev)
		return
	}
	g.insert(ev)
}

// listed says that an event came out of a list and needs no more than to go into another: its
// outcome held is in the log, and nothing is known of it that is not there. A source that is
// resumed while its topic takes nothing would else fill the memory for events, and with that
// full nothing is read any more, for no topic.
func (c *core) listed(ev *parcel) bool {
	return ev.redriven && ev.tr == nil && !ev.again && ev.replay == nil && ev.released == nil && ev.lost == nil &&
		!ev.claimed && !ev.holding && !ev.stated && c.p.led.Load().state(ev.ref) == stateHeld
}

// hold writes the outcome held and keeps no more of the event than its place.
func (c *core) hold(g *gate, ev *parcel) {
	reason := reasonBlocked
	topic := g.key.name
	if g.key.kind == gateSource {
		reason, topic = reasonPaused, ev.topic
		if ev.missing {
			reason = reasonDefinition
			c.whole[ev.ref.seq] = true
		}
	}
	g.list.push(ev.ref)
	o := c.outcome(ev, archive.Held)
	o.Reason, o.Topic, o.Partition = reason, topic, g.key.partition
	c.tellOf(ev, o, g.key.kind)
	c.settle(settled{ev: ev, o: o})
}

// close shuts a gate because its topic takes nothing.
func (c *core) close(g *gate) {
	now := c.p.o.Now()
	g.closed = true
	if g.since.IsZero() {
		g.since = now
	}
	g.tries++
	g.next = now.Add(min(time.Duration(g.tries)*250*time.Millisecond, 5*time.Second))
}

// tendGates opens what may be tried again, drains what is open and holds what has
// waited too long.
func (c *core) tendGates(now time.Time) {
	for _, g := range c.sortedGates() {
		if g.closed && !now.Before(g.next) {
			c.tryGate(g)
		}
		switch {
		case !g.closed:
			c.drain(g)
		case g.key.kind == gateTopic && now.Sub(g.since) >= c.p.o.HoldAfter:
			c.holdPending(g)
		}
		c.dropGate(g)
	}
}

// tryGate opens a gate if what closed it is over.
func (c *core) tryGate(g *gate) {
	if g.key.kind == gateSource {
		g.closed = c.paused[g.key.name]
		return
	}
	if blocked, _ := c.p.sink.Blocked(g.key.name, g.key.partition); blocked {
		c.close(g)
		return
	}
	g.closed = false
}

// pinned events get no outcome held: a replay belongs to its job, a released delivery is
// known by its marker only, a redriven event has that outcome already.
func (ev *parcel) pinned() bool {
	return ev.redriven || ev.again || ev.replay != nil || ev.released != nil
}

// sortedGates: whole topics before their partitions, so that a drain keeps the order.
func (c *core) sortedGates() []*gate {
	gs := make([]*gate, 0, len(c.gates))
	for _, g := range c.gates {
		gs = append(gs, g)
	}
	sort.Slice(gs, func(i, j int) bool {
		a, b := gs[i].key, gs[j].key
		if a.kind != b.kind {
			return a.kind < b.kind
		}
		if a.name != b.name {
			return a.name < b.name
		}
		return a.partition < b.partition
	})
	return gs
}

// holdPending turns a short wait into a held outcome, so that a blocked topic does not
// pin the cursor. With all of Kafka away nothing is held: the backlog is the archive's.
func (c *core) holdPending(g *gate) {
	if c.p.sink.Away() || g.list.n > 0 {
		return
	}
	rest := g.pend[:0]
	for _, ev := range g.pend {
		if ev.pinned() {
			rest = append(rest, ev)
			continue
		}
		c.hold(g, ev)
	}
	clear(g.pend[len(rest):])
	g.pend = rest
}

// drainAtOnce bounds how much of a gate is on its way at a time.
// As long as nothing got through, only a few try.
const (
	drainAtOnce = 1024
	drainFirst  = 16
)

// drain lets a gate's events go on, oldest first.
func (c *core) drain(g *gate) {
	most := drainAtOnce
	if !g.since.IsZero() {
		most = drainFirst
	}
	for g.flying < most && !g.closed && !g.empty() && c.room() && (len(g.pend) > 0 || c.works < c.p.o.MaxEvents) {
		if g.key.partition >= 0 && c.wholeTopicWaits(g.key.name) {
			return
		}
		if g.pace != nil && !g.pace.Allow() {
			return
		}
		ev := c.takeFrom(g)
		if ev == nil {
			continue
		}
		if err := c.p.load(ev); err != nil || ev.missing {
			if err != nil {
				c.p.log.Warn("held event cannot be read", zap.Error(err))
			}
			c.comeBack(g, ev)
			return
		}
		c.bytes += ev.size
		ev.pass, ev.origin = g, g
		g.flying++
		c.stage(ev)
		if c.whole[ev.ref.seq] {
			c.unfold(ev, g)
		}
	}
}

// unfold stages the other events of a delivery that was held unread, as one.
func (c *core) unfold(first *parcel, g *gate) {
	delete(c.whole, first.ref.seq)
	for i := 1; i < first.items; i++ {
		ev := &parcel{ref: ref{first.ref.seq, i}, redriven: true, order: place(first.ref.seq, i), delivery: first.delivery}
		c.redriven[ev] = struct{}{}
		c.works++
		if err := c.p.load(ev); err != nil {
			c.p.log.Warn("held event cannot be read", zap.Error(err))
			g.insert(ev)
			continue
		}
		c.bytes += ev.size
		ev.pass, ev.origin = g, g
		g.flying++
		c.stage(ev)
	}
}

// arrived notes that an event taken out of a gate is through or back.
func (ev *parcel) arrived(through bool) {
	g := ev.origin
	if g == nil {
		return
	}
	ev.origin = nil
	g.flying--
	if through {
		g.since, g.tries = time.Time{}, 0
	}
}

func (c *core) wholeTopicWaits(topic string) bool {
	g := c.gates[gateKey{gateTopic, topic, -1}]
	return g != nil && !g.empty()
}

// takeFrom takes the oldest out of a gate; nil when that is done already.
func (c *core) takeFrom(g *gate) *parcel {
	if first, _ := g.oldest(); len(g.pend) > 0 && g.pend[0].order == first {
		ev := g.pend[0]
		g.pend = g.pend[1:]
		return ev
	}
	r, ok := g.list.pop()
	if !ok || c.p.led.Load().state(r) == stateFinal {
		delete(c.freed, r)
		return nil
	}
	if c.freed[r] && g.key.kind == gateSource {
		delete(c.freed, r)
		return nil
	}
	ev := &parcel{ref: r, redriven: true, order: place(r.seq, r.item)}
	c.redriven[ev] = struct{}{}
	c.works++
	return ev
}

// comeBack puts an event that could not be read now back in front.
func (c *core) comeBack(g *gate, ev *parcel) {
	ev.missing, ev.msg, ev.size = false, nil, 0
	g.insert(ev)
	c.close(g)
	g.next = c.p.o.Now().Add(missingRetry)
}

// liftFences lets partitions flow again that gave messages back, once all of them are
// behind their gates. What a lane still holds of such a partition is newer, and comes
// back too as long as the fence is up.
func (c *core) liftFences() {
	c.p.sink.Fenced(func(topic string, partition int32) {
		for _, ev := range c.sent {
			if ev.topic != topic {
				continue
			}
			if at := c.p.sink.PartitionOf(topic, ev.key); at == partition || at < 0 {
				return
			}
		}
		c.p.sink.Lift(topic, partition)
	})
}
