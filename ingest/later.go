package ingest

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"penstock/verify"
)

// DefaultAckDeadline is how long an answer waits for a sink. Most providers give up after
// ten seconds, some after five.
const DefaultAckDeadline = 4 * time.Second

// DefaultMaxWaiting is how many answers of one source wait at once.
const DefaultMaxWaiting = 1024

// Later makes the answers of a source wait until its deliveries are more than archived.
// What was archived is delivered whatever the answer says.
type Later struct {
	// Delivered waits until the delivery of that seq has arrived, and is false when it has
	// not: not by then, stop was closed, or it is known that it will not be in time. reply
	// is what the provider is told then; nil = as its definition says.
	Delivered  func(seq uint64, until time.Time, stop <-chan struct{}) (reply *verify.Reply, ok bool)
	Deadline   time.Duration // from the delivery's first byte; 0 = DefaultAckDeadline
	MaxWaiting int           // of this source; above it 503 at once; 0 = DefaultMaxWaiting

	waiting atomic.Int64
}

// later waits for the sink; false: the delivery was answered 503.
func (s *Server) later(ctx *fasthttp.RequestCtx, c *conn, reply *verify.Reply) bool {
	l := c.src.Later
	deadline, most := l.Deadline, int64(l.MaxWaiting)
	setDefault(&deadline, DefaultAckDeadline)
	setDefault(&most, DefaultMaxWaiting)
	defer s.waiting.Add(-1)
	defer l.waiting.Add(-1)
	// Half of the connections are kept for the sources that do not wait: with a sink away
	// each waiting answer holds one until the deadline.
	mine, all := l.waiting.Add(1), s.waiting.Add(1)
	if mine > most || all > int64(max(s.opts.MaxConns/2, 1)) {
		s.refuse(ctx, c, refusedWaiting)
		return false
	}
	// The archive has the body, and the answer is made: what waits holds no more than its
	// connection. So it takes nothing of what the others' bodies have.
	reply.Body = bytes.Clone(reply.Body)
	c.req.Body, c.del.Body = nil, nil
	ctx.Request.ResetBody()
	s.budget.keep(c, 0)
	until := c.del.ReceivedAt.Add(deadline)
	stop := s.drained
	if s.draining.Load() { // what came in so late still has a moment
		stop, until = nil, earlier(until, time.Now().Add(drainMoment))
	}
	own, ok := l.Delivered(c.del.Seq, until, stop)
	if !ok && stop != nil && s.draining.Load() {
		own, ok = l.Delivered(c.del.Seq, earlier(until, time.Now().Add(drainMoment)), nil)
	}
	if !ok {
		s.refuse(ctx, c, refusedLate)
		return false
	}
	if own != nil {
		*reply = *own
	}
	return true
}

// drainMoment is what a stop leaves to answers that wait: the sinks run on until the last
// one is given.
const drainMoment = time.Second

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
