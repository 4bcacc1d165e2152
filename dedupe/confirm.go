package dedupe

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

const (
	// pipelineLen is how many commands go out in one exchange: libraries.md 4 measured
	// 64 / 256 / 1024 as 322k / 349k / 257k commands/s.
	pipelineLen = 256
	// maxRecent bounds the confirmed events remembered until the index shows them. The
	// index follows within a second, so this is far more than a second of traffic.
	maxRecent = 1 << 18
	// keepConfirms is how many confirms an empty queue keeps room for.
	keepConfirms = 8 * pipelineLen
	// closeFlush is how long a stop waits for the last confirms.
	closeFlush = time.Second
)

// confirmQueue holds the confirms that Redis has not taken yet, oldest first. Beyond
// max they are dropped from memory and read again from the log (their outcomes are
// synced), so none is lost and memory stays bounded.
type confirmQueue struct {
	mu   sync.Mutex
	q    []Claim
	room []Claim // the array that q began in: an empty q begins there again
	max  int
	miss uint64 // lowest outcome seq that was dropped from memory; 0 = none
	wake chan struct{}
}

func (c *confirmQueue) signal() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	return c.wake
}

func (c *confirmQueue) add(cs []Claim) {
	wake := c.signal()
	c.mu.Lock()
	empty := len(c.q) == 0
	if empty {
		c.q = c.room[:0]
	}
	for i := range cs {
		if len(c.q) >= c.max || c.miss != 0 {
			if c.miss == 0 || cs[i].Outcome < c.miss {
				c.miss = max(cs[i].Outcome, 1)
			}
			continue
		}
		c.q = append(c.q, cs[i])
	}
	if empty {
		c.room = c.q[:0]
	}
	c.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

// head returns up to n confirms without removing them, in room.
func (c *confirmQueue) head(room []Claim, n int) []Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(room, c.q[:min(n, len(c.q))]...)
}

// drop removes the first n and puts the failed ones back in front.
func (c *confirmQueue) drop(n int, failed []Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := n - len(failed)
	copy(c.q[k:n], failed)
	clear(c.q[:k])
	c.q = c.q[k:]
	if len(c.q) == 0 && cap(c.room) > keepConfirms {
		c.room = nil // gives the memory of an outage back
	}
}

func (c *confirmQueue) lowest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	low := c.miss
	for i := range c.q {
		if s := c.q[i].Outcome; s != 0 && (low == 0 || s < low) {
			low = s
		}
		if i >= pipelineLen {
			break // in order but for what failed and stands in front
		}
	}
	return low
}

// missed returns and keeps the seq from which confirms must be read out of the log.
func (c *confirmQueue) missed() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.q) > 0 {
		return 0
	}
	return c.miss
}

// caughtUp ends the reading from the log: everything up to upto was confirmed. What
// was dropped meanwhile is above it and keeps the mark.
func (c *confirmQueue) caughtUp(upto uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.miss <= upto {
		c.miss = 0
	}
}

func (c *confirmQueue) length() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.q)
}

// Run sends confirms, renews claims, closes the breaker again and forgets what the
// index shows, until ctx ends; then it gives the last confirms a second. It returns
// nil; nothing here is fatal to a gateway.
func (d *Deduper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.forget(ctx) })
	if d.redis != nil {
		wg.Go(func() { d.redis.watch(ctx, d.log) })
		wg.Go(func() { d.renew(ctx) })
		wg.Go(func() { d.flush(ctx) })
	}
	wg.Wait()
	if d.redis != nil {
		return d.redis.close()
	}
	return nil
}

// flush brings the confirms to Redis, however long that takes.
func (d *Deduper) flush(ctx context.Context) {
	wake := d.confirms.signal()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		d.met.waiting.Set(float64(d.confirms.length()))
		if d.confirms.length() == 0 && d.confirms.missed() == 0 {
			select {
			case <-wake:
			case <-ctx.Done():
			}
			continue
		}
		if d.flushOnce(ctx) {
			pause = 0
			continue
		}
		// Redis has its breaker; this only keeps the loop from spinning at a server
		// that answers errors.
		pause = min(max(2*pause, 50*time.Millisecond), 2*time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeFlush)
	defer cancel()
	for last.Err() == nil && d.confirms.length() > 0 && d.flushOnce(last) {
	}
}

func (d *Deduper) flushOnce(ctx context.Context) bool {
	cs := d.confirms.head(d.heads[:0], pipelineLen)
	d.heads = cs
	if len(cs) == 0 {
		return d.flushMissed(ctx)
	}
	failed := d.redis.confirm(ctx, cs, d.o.Window)
	d.confirms.drop(len(cs), failed)
	return len(failed) == 0
}

// flushMissed confirms from the log what did not fit into memory.
func (d *Deduper) flushMissed(ctx context.Context) bool {
	from := d.confirms.missed()
	if from == 0 || d.o.Outcomes == nil {
		return from == 0
	}
	ok, last := true, from
	batch := make([]Claim, 0, pipelineLen)
	send := func() bool {
		if len(batch) > 0 && len(d.redis.confirm(ctx, batch, d.o.Window)) > 0 {
			ok = false
		} else if len(batch) > 0 {
			last = max(last, batch[len(batch)-1].Outcome)
		}
		batch = batch[:0]
		return ok
	}
	err := d.o.Outcomes(ctx, from, func(c Claim) bool {
		batch = append(batch, c)
		return len(batch) < pipelineLen || send()
	})
	if !ok || !send() || err != nil {
		if err != nil && ctx.Err() == nil {
			d.log.Warn("read outcomes for confirms", zap.Uint64("from", from), zap.Error(err))
		}
		return false
	}
	d.confirms.caughtUp(last)
	return true
}

// renew keeps claims alive while they are unresolved, so that a Kafka outage does not
// let another node publish what waits here.
func (d *Deduper) renew(ctx context.Context) {
	t := time.NewTicker(d.o.Lease / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.mu.Lock()
		items := make([]item, 0, len(d.flying))
		for id, f := range d.flying {
			items = append(items, item{id: id, delivery: f.delivery})
		}
		d.mu.Unlock()
		d.met.inflight.Set(float64(len(items)))
		d.redis.renew(ctx, items)
	}
}

// forget drops from memory what the index shows by now.
func (d *Deduper) forget(ctx context.Context) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			for d.forgetSome(1024) {
			}
		}
	}
}

// forgetSome looks at the n oldest and says whether more is worth a look.
func (d *Deduper) forgetSome(n int) bool {
	for range n {
		d.mu.Lock()
		if len(d.ring) == 0 {
			d.mu.Unlock()
			return false
		}
		id, over := d.ring[0], len(d.ring) > maxRecent
		f := d.recent[id]
		d.mu.Unlock()
		if !over && !d.indexed(id, f) {
			return false
		}
		d.mu.Lock()
		d.ring = d.ring[1:]
		if d.recent[id] == f {
			delete(d.recent, id)
		} else {
			d.ring = append(d.ring, id) // confirmed again meanwhile
		}
		d.mu.Unlock()
	}
	return true
}

// indexed says that the index gives evidence of what was confirmed. By the outcome's place
// that costs nothing; looking each event up was 4 % of a busy gateway's CPU.
func (d *Deduper) indexed(id archive.Identity, f flight) bool {
	if f.outcome != 0 {
		return d.o.Local.Indexed() >= f.outcome
	}
	_, _, at, ok := d.o.Local.Evidence(id)
	// The index may keep coarser time than we do.
	return ok && !at.Before(f.at.Add(-time.Second))
}
