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
	if q == nil || q.first == ev {
		return false
	}
	c.bytes -= ev.unload()
	q.rest = append(q.rest, ev)
	return true
}

// ask claims the collected events and acts on the answers, in order.
func (c *core) ask() {
	if len(c.claims) == 0 {
		return
	}
	if cap(c.answers) < len(c.claims) {
		c.answers = make([]Answer, claimBatch)
	}
	out := c.answers[:len(c.claims)]
	clear(out)
	c.p.o.Dedupe.Claim(c.askCtx, c.claims, out)
	for i, ev := range c.claimed {
		c.answered(ev, &out[i])
		c.claimed[i] = nil
	}
}

func (c *core) answered(ev *parcel, a *Answer) {
	if (a.Verdict == claimWait || a.Verdict == claimPark) && c.behindKey(ev) {
		return // it is asked again when its key is free
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
		if c.behindKey(ev) {
			return
		}
		c.dispatch(ev)
	}
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
		case !ev.claimed && !ev.unasked && now.Sub(ev.parkedAt) >= c.p.o.ParkFor:
			c.p.log.Warn("parked too long, published", zap.String("delivery", ev.delivery))
			c.p.o.Dedupe.Force(ev.claim)
			ev.claimed = true
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
