package ingest

import (
	"sync"
	"time"
)

const (
	clockStep  = 30 * time.Second // wall against monotonic: more than this is a step, not drift
	clockDoubt = 10 * time.Minute // how long after a step the wall clock is not trusted
	clockBase  = time.Minute      // a base older than this is renewed, so that drift does not add up
)

// clock notices that the wall clock was set while we ran. A signature's timestamp is
// judged by the wall clock; while that is in doubt a stale timestamp is our fault as
// likely as the sender's, and the answer is 503, not 401.
type clock struct {
	now  func() time.Time     // wall
	mono func() time.Duration // monotonic, from an arbitrary zero

	mu      *sync.Mutex // protects what follows; asked only when a timestamp was refused
	wall    time.Time
	at      time.Duration
	suspect time.Duration // mono until which the wall clock is in doubt
}

func newClock() clock {
	start := time.Now()
	c := clock{
		now:  time.Now,
		mono: func() time.Duration { return time.Since(start) },
		mu:   new(sync.Mutex),
	}
	c.wall, c.at = start.Round(0), 0
	return c
}

// inDoubt says whether the wall clock stepped within the last minutes.
func (c *clock) inDoubt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, at := c.now().Round(0), c.mono()
	gap := wall.Sub(c.wall) - (at - c.at)
	if gap > clockStep || gap < -clockStep {
		c.suspect = at + clockDoubt
		c.wall, c.at = wall, at
	} else if at-c.at > clockBase {
		c.wall, c.at = wall, at
	}
	return at < c.suspect
}
