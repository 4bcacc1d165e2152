package forward

import (
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// behindKey queues the event when an earlier one of its key waits.
func (c *core) behindKey(ev *parcel) bool {
	if len(c.keys) == 0 || ev.replay != nil {
		return false
	}
	q := c.keys[ev.keyHash]
	if q == nil || q.first == ev || ev.order < q.first.order {
		return false // it may be the very twin that the first one waits for
	}
	c.bytes -= ev.unload()
	q.rest = append(q.rest, ev)
	if ev.holding {
		// The first of the key may come to want that state, and would wait for one that
		// waits for it. What waits for its key holds no state.
		ev.holding, ev.stated = false, false
		c.p.o.Dedupe.Release([]Claim{ev.stateClaim()})
		c.wake(ev.state)
	}
	return true
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
		c.p.o.Dedupe.Claim(c.askCtx, c.claims, out)
	}
	for i, q := range c.claimed {
		var state *Answer
		if q.state >= 0 {
			state = &out[q.state]
		}
		switch {
		case q.event >= 0 && !c.answered(q.ev, &out[q.event]):
			if state != nil && state.Verdict != claimDuplicate && state.Verdict != claimWait && state.Verdict != claimPark {
				c.p.o.Dedupe.Release([]Claim{q.ev.stateClaim()})
				c.wake(q.ev.state)
			}
		case state != nil && !c.stateAnswered(q.ev, state):
		case c.behindKey(q.ev):
		default:
			c.dispatch(q.ev)
		}
		c.claimed[i] = question{}
	}
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
		ev.claimed = true
		if a.Verdict == claimConflict && ev.conflict == "" {
			c.conflict(ev, a)
		}
		return true
	}
	return false
}

// conflict marks an event whose id was delivered with other content.
func (c *core) conflict(ev *parcel, a *Answer) {
	ev.claim.ID, ev.conflict = a.ID, a.Of
	ev.source.conflicts.Inc()
	c.p.log.Error("same event id with other content", zap.String("source", ev.source.name),
		zap.String("delivery", ev.delivery), zap.String("first", a.Of))
	if ev.msg != nil {
		ev.msg.Headers = append(ev.msg.Headers, Header{Key: "ce_conflict", Value: []byte(a.Of)})
	}
}

// hang makes an event the one that its key waits for.
func (c *core) hang(ev *parcel) {
	c.bytes -= ev.unload()
	if ev.replay == nil && c.keys[ev.keyHash] == nil {
		c.keys[ev.keyHash] = &keyQueue{first: ev}
	}
}

// freeKey lets the events behind ev go on, if they waited for it. They come before
// everything that is ready, as they are older.
func (c *core) freeKey(ev *parcel) {
	q := c.keys[ev.keyHash]
	if q == nil || q.first != ev {
		return
	}
	delete(c.keys, ev.keyHash)
	if len(q.rest) > 0 {
		c.ready = append(q.rest, c.ready[c.head:]...)
		c.head = 0
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
			c.p.log.Warn("parked too long, published", zap.String("delivery", ev.delivery))
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
		ev.claimed = true
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
