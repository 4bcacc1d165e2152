package ingest

import (
	"sync/atomic"
	"time"
)

// deadlines of one connection. fasthttp sets three for each request, and each costs the
// runtime's timers 0.2 to 0.3 us; but a request that came in one piece is read no further,
// and the idle time and that of an answer need not be exact. So a deadline for reading is
// put in force by the Read that waits for it, and one that is in force already and ends
// a little later than it should (deadlineSlack) is left as it is: two deadlines a second for
// a busy connection, and none for each of its requests.
type deadlines struct {
	wanted    time.Time   // for reading, as fasthttp said last
	read      time.Time   // what the socket has; zero = not known
	write     time.Time   // the same for writing
	disturbed atomic.Bool // somebody else has set one for reading
}

// deadlineSlack is which part of an idle time or a write timeout it may be late: two seconds
// of a minute.
const deadlineSlack = 32

// SetReadDeadline is fasthttp's. It holds from the next Read on.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.waitsLong() && c.phase.Load() == idle {
		t = time.Now().Add(c.srv.opts.IdleTimeout)
	}
	c.deadlines.wanted = t
	return nil
}

// armRead puts the deadline for reading in force; while draining no read may last beyond the
// drain's own. The time of a request is exact, only the wait for the next one has slack.
func (c *conn) armRead() error {
	d := &c.deadlines
	t, slack := d.wanted, time.Duration(0)
	if c.kept.Load() && c.phase.Load() == idle {
		slack = c.srv.opts.IdleTimeout / deadlineSlack
	}
	if by := c.srv.readBy.Load(); by != 0 {
		if cut := time.Unix(0, by); t.IsZero() || cut.Before(t) {
			t, slack = cut, 0
		}
	}
	if late := d.read.Sub(t); !d.disturbed.Swap(false) && !d.read.IsZero() && !t.IsZero() && late >= 0 && late <= slack {
		return nil
	}
	if !t.IsZero() {
		t = t.Add(slack)
	}
	d.read = t
	return c.Conn.SetReadDeadline(t)
}

// cutRead ends a Read, from another goroutine than the connection's own.
func (c *conn) cutRead(at time.Time) {
	_ = c.sock.SetReadDeadline(at)
	c.deadlines.disturbed.Store(true)
}

// SetWriteDeadline is fasthttp's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	d, slack := &c.deadlines, c.srv.opts.WriteTimeout/deadlineSlack
	if late := d.write.Sub(t); !t.IsZero() && late >= 0 && late <= slack {
		return nil
	}
	if d.write = t; !t.IsZero() {
		d.write = t.Add(slack)
	}
	return c.Conn.SetWriteDeadline(d.write)
}

// SetDeadline sets both.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}
