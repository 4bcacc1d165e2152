package ingest

import (
	"sync/atomic"
	"time"
)

// smallBodyBytes separates the bodies of nearly all webhooks from those that a flood
// would use: small ones may fill the whole budget, the others three quarters of it.
const smallBodyBytes = 64 << 10

// chunkedWait is how long a chunked request waits for room. Its length is unknown, so
// it asks for all that its source allows until the body is there; a burst of small
// chunked bodies would otherwise be refused for want of a few milliseconds.
const chunkedWait = time.Second

// budget bounds the sum of the bodies that are being read or handled. fasthttp makes a
// buffer of the declared length before the first byte of a body arrives, so what counts
// is what was declared, not what came.
type budget struct {
	limit int64
	used  atomic.Int64
	large atomic.Int64 // the part of used that large and chunked bodies hold
}

// reserve takes n bytes for c, or says that there is no room. A peer that is no trusted
// proxy gets at most half, so that a few slow connections of one address cannot
// shut the others out.
func (b *budget) reserve(c *conn, n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	large := n > smallBodyBytes
	if large && b.large.Add(n) > max(b.limit/4*3, n) {
		b.large.Add(-n)
		b.used.Add(-n)
		return false
	}
	if c.ip != nil && c.ip.bytes.Add(n) > max(b.limit/2, n) {
		c.ip.bytes.Add(-n)
		if large {
			b.large.Add(-n)
		}
		b.used.Add(-n)
		return false
	}
	c.held, c.heldLarge = n, large
	return true
}

// reserveWait is reserve with patience, for chunked bodies.
func (b *budget) reserveWait(c *conn, n int64) bool {
	for start := time.Now(); ; {
		if b.reserve(c, n) {
			return true
		}
		if time.Since(start) >= chunkedWait || c.srv.draining.Load() {
			return false
		}
		time.Sleep(time.Millisecond)
	}
}

// keep gives back all but n bytes of what c holds: the body turned out to be n long.
func (b *budget) keep(c *conn, n int64) {
	back := c.held - n
	if back <= 0 {
		return
	}
	b.used.Add(-back)
	if c.ip != nil {
		c.ip.bytes.Add(-back)
	}
	if c.heldLarge {
		b.large.Add(-back)
	}
	c.held = n
}

func (b *budget) release(c *conn) {
	if c.held > 0 {
		b.keep(c, 0)
	}
}
