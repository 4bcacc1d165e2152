package forward

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// keyQueue holds back the events of one Kafka key while earlier ones of them wait.
type keyQueue struct {
	hung []*parcel // ask again later, by order; never empty
	rest []*parcel // wait for the first of hung, in no order
}

// behindKey queues the event when an earlier one of its key waits.
func (c *core) behindKey(ev *parcel) bool {
	if len(c.keys) == 0 || ev.replay != nil {
		return false
	}
	q := c.keys[ev.keyHash]
	if q == nil || q.hung[0] == ev || ev.order < q.hung[0].order {
		return false // it may be the very twin that the first one waits for
	}
	if i := slices.Index(q.hung, ev); i > 0 {
		q.hung = slices.Delete(q.hung, i, i+1)
	}
	c.bytes -= ev.unload()
	ev.arrived(false)
	q.rest = append(q.rest, ev)
	c.letGo(ev)
	return true
}

// letGo gives back what an event was granted that has to wait for its key. The first of
// the key may be its twin or come to want its state, and would wait for one that waits
// for it.
func (c *core) letGo(ev *parcel) {
	if ev.claimed && !ev.unasked {
		ev.claimed = false
		c.back = append(c.back, ev.claim)
	}
	if ev.holding {
		ev.holding, ev.stated = false, false
		c.back = append(c.back, ev.stateClaim())
	}
}

// giveClaimsBack releases at once what was let go in a batch: it is a question to Redis.
func (c *core) giveClaimsBack() {
	if len(c.back) == 0 {
		return
	}
	c.p.o.Dedupe.Release(c.back)
	for i := range c.back {
		c.wake(c.back[i].ID)
	}
	c.back = c.back[:0]
}

// question is what an event has asked: places in the claims, -1 for what it has not.
type question struct {
	ev           *parcel
	event, state int
}

// question asks for the event, and for the state that it tells. Both at once: a source
// whose events tell states costs no round more than another. What has nothing to ask
// waits for the answers too: among them may be those of earlier events of its key.
func (c *core) question(ev *parcel) {
	q := question{ev, -1, -1}
	if !ev.unasked && !ev.claimed {
		q.event = len(c.claims)
		c.claims = append(c.claims, ev.claim)
	}
	if !ev.unasked && !ev.stateKnown() {
		q.state = len(c.claims)
		c.claims = append(c.claims, ev.stateClaim())
	}
	c.claimed = append(c.claimed, q)
}

// stateKnown says that nothing is to be asked about a state: it tells none, or it is
// known whether it was told before.
func (ev *parcel) stateKnown() bool { return ev.stated || ev.state == (archive.Identity{}) }

// stateClaim is the claim of the state: as far back as there is evidence, for a state
// said again is none of the provider's retries and comes when it likes.
func (ev *parcel) stateClaim() Claim {
	return Claim{ID: ev.state, Delivery: ev.claim.Delivery, Item: ev.claim.Item}
}

// ask claims the collected events and acts on the answers, in order.
func (c *core) ask() {
	if cap(c.answers) < len(c.claims) {
		c.answers = make([]Answer, claimBatch)
	}
	out := c.answers[:len(c.claims)]
	clear(out)
	if len(c.claims) > 0 {
		done := c.p.stage("forward.dedupe", len(c.claims))
		c.p.o.Dedupe.Claim(c.askCtx, c.claims, out)
		done(0, nil)
	}
	for i, q := range c.claimed {
		var state *Answer
		if q.state >= 0 {
			state = &out[q.state]
		}
		switch {
		case q.event >= 0 && !c.answered(q.ev, &out[q.event]):
			if state != nil && state.Verdict != claimDuplicate && state.Verdict != claimWait && state.Verdict != claimPark {
				c.back = append(c.back, q.ev.stateClaim())
			}
		case state != nil && !c.stateAnswered(q.ev, state):
		case c.behindKey(q.ev):
		default:
			c.dispatch(q.ev)
		}
		c.claimed[i] = question{}
	}
	c.pushLanes() // now: the next batch may wait for Redis
	c.giveClaimsBack()
}

// stateAnswered says whether the event may go on. It may when its state was told before:
// then it goes under the provider's own name.
func (c *core) stateAnswered(ev *parcel, a *Answer) bool {
	if (a.Verdict == claimWait || a.Verdict == claimPark) && c.behindKey(ev) {
		return false
	}
	switch a.Verdict {
	case claimDuplicate:
		ev.stated, ev.repeats = true, a.Of
		c.bytes -= ev.unload() // it is rendered again
		c.freeKey(ev)          // under its old key: a route may name the type
	case claimWait:
		c.hang(ev)
		c.waiters[a.ID] = append(c.waiters[a.ID], ev)
		ev.nextAsk = c.p.o.Now().Add(waitRecheck)
		return false
	case claimPark:
		c.hang(ev)
		c.park(ev, a)
		return false
	default:
		ev.stated, ev.holding = true, true
	}
	return true
}

// answered takes in what is known of the event itself; true: it is granted.
func (c *core) answered(ev *parcel, a *Answer) bool {
	if (a.Verdict == claimWait || a.Verdict == claimPark) && c.behindKey(ev) {
		return false // it is asked again when its key is free
	}
	switch a.Verdict {
	case claimDuplicate:
		o := c.outcome(ev, archive.Duplicate)
		o.Of = a.Of
		ev.source.duplicates.Inc()
		c.tellOf(ev, o, 0)
		c.settle(settled{ev: ev, o: o})
		c.freeKey(ev)
	case claimWait:
		c.hang(ev)
		c.waiters[a.ID] = append(c.waiters[a.ID], ev)
		ev.nextAsk = c.p.o.Now().Add(waitRecheck)
	case claimPark:
		c.hang(ev)
		c.park(ev, a)
	default:
		ev.claimed, ev.granted = true, c.p.o.Now()
		if a.Verdict == claimConflict {
			c.conflict(ev, a)
		}
		return true
	}
	return false
}

// conflict marks an event whose id was delivered with other content.
func (c *core) conflict(ev *parcel, a *Answer) {
	ev.claim.ID = a.ID
	if ev.conflict != "" {
		return // it was known, and asked again
	}
	ev.conflict = a.Of
	ev.source.conflicts.Inc()
	c.p.log.Error("same event id with other content", ev.named(zap.String("first", a.Of))...)
	if ev.msg != nil {
		ev.msg.addHeader(headerConflict, a.Of)
	}
}

// hang makes an event one that its key waits for. It gives its place on the way out of a
// gate to another: what it waits for may stand behind that gate, and would wait for it.
func (c *core) hang(ev *parcel) {
	c.bytes -= ev.unload()
	ev.arrived(false)
	if ev.replay != nil {
		return
	}
	q := c.keys[ev.keyHash]
	if q == nil {
		q = &keyQueue{}
		c.keys[ev.keyHash] = q
	}
	if slices.Contains(q.hung, ev) {
		return
	}
	i := len(q.hung)
	for i > 0 && q.hung[i-1].order > ev.order {
		i-- // what waits already may be later: this one came out of a gate
	}
	q.hung = slices.Insert(q.hung, i, ev)
}

// freeKey lets the events behind ev go on, if they waited for it; those that are behind
// another one too come back.
func (c *core) freeKey(ev *parcel) {
	q := c.keys[ev.keyHash]
	if q == nil {
		return
	}
	i := slices.Index(q.hung, ev)
	if i < 0 {
		return
	}
	if q.hung = slices.Delete(q.hung, i, i+1); len(q.hung) == 0 {
		delete(c.keys, ev.keyHash)
	}
	if i == 0 && len(q.rest) > 0 {
		c.ready = append(c.ready, q.rest...)
		q.rest, c.mixed = nil, true
	}
}

func (c *core) park(ev *parcel, a *Answer) {
	now := c.p.o.Now()
	if ev.parkedAt.IsZero() {
		ev.parkedAt = now
	}
	if a.Unknown && now.Sub(c.lastNoise) > time.Minute {
		// The index is being rebuilt and Redis does not answer. An index that is broken
		// for good must not stop publishing for good: the same deadline holds.
		c.lastNoise = now
		c.p.log.Warn("publishing waits", zap.String("reason", a.Reason))
	}
	ev.nextAsk = now.Add(parkRecheck)
	c.parked = append(c.parked, ev)
}

// askAgain asks for parked events that are due, and for waiting ones as a safety net.
func (c *core) askAgain(now time.Time) {
	rest := c.parked[:0]
	due := []*parcel(nil)
	for _, ev := range c.parked {
		switch {
		case now.Before(ev.nextAsk):
			rest = append(rest, ev)
		case !ev.unasked && !(ev.claimed && ev.stateKnown()) && now.Sub(ev.parkedAt) >= c.p.o.ParkFor:
			c.p.log.Warn("parked too long, published", ev.named()...)
			c.force(ev)
			due = append(due, ev)
		default:
			due = append(due, ev)
		}
	}
	clear(c.parked[len(rest):])
	c.parked = rest
	for id, evs := range c.waiters {
		if len(evs) > 0 && !now.Before(evs[0].nextAsk) {
			delete(c.waiters, id)
			due = append(due, evs...)
		}
	}
	for _, ev := range due {
		c.stage(ev)
	}
}

// force takes what could not be had by asking.
func (c *core) force(ev *parcel) {
	if !ev.claimed {
		c.p.o.Dedupe.Force(ev.claim)
		ev.claimed, ev.granted = true, c.p.o.Now()
	}
	if !ev.stateKnown() {
		c.p.o.Dedupe.Force(ev.stateClaim())
		ev.stated, ev.holding = true, true
	}
}

// wake asks again for those that waited for a twin that is resolved now.
func (c *core) wake(id archive.Identity) {
	if len(c.waiters) == 0 {
		return
	}
	if evs := c.waiters[id]; evs != nil {
		delete(c.waiters, id)
		for _, ev := range evs {
			c.stage(ev)
		}
	}
}
