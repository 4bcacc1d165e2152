package ingest

import (
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"penstock/archive"
	"penstock/provider"
)

// Phases of a connection, for a drain.
const (
	idle     int32 = iota // no byte of a request yet
	woken                 // the same, and a drain has ended its waiting
	reading               // a request is coming in
	handling              // it is with the handler
	cut                   // a drain closed it, or left it to the next process, before a request began
)

// After a refusal that leaves a body unread, a close would make the kernel send RST and
// the sender lose our answer. So the write side is closed and what still comes is thrown
// away, within these bounds. The bytes are those of a body not much above the default
// limit, whole: many clients write all before they read. They cost reads and no memory.
const (
	lingerBytes = 16 << 20
	lingerTime  = 500 * time.Millisecond
)

// conn is a connection and all that belongs to the request on it. fasthttp serves a
// connection on one goroutine, one request after the other, so only what a drain reads
// is atomic, and nothing has to be pooled per request.
type conn struct {
	net.Conn               // what fasthttp reads: the socket, or PROXY protocol or TLS over it
	sock      net.Conn     // the socket
	tls       *tls.Conn    // nil = plain
	srv       *Server      //
	ip        *peerCount   // share of its address; nil = not counted (trusted proxy)
	peer      netip.Addr   // set with its first request: reading it may wait for a PROXY header
	phase     atomic.Int32 //
	since     atomic.Int64 // by the clock's mono: silent since then, while it is idle
	waking    sync.Mutex   // orders woken and its deadline before reading and its own
	kept      atomic.Bool  // it has had an answer and stays open for more
	moved     bool         // it comes from the process before
	closed    atomic.Bool  //
	linger    atomic.Bool  // it is closed with a body unread
	first     time.Time    // first byte of the request
	readErr   error        // what ended the reading of this connection
	deadlines deadlines    //
	acks      []acked      // requests whose 2xx stands in fasthttp's buffer
	certOf    *source      // the source whose client CA the certificate was checked against
	certOK    bool         //
	held      int64        // bytes reserved in the budget
	heldLarge bool         //
	refusal   refusal      // decided from the header: the body is not wanted
	src       *source      // nil = unknown
	chunked   bool         //
	saved     []byte       // target and header of a chunked request, which fasthttp forgets on errors
	savedAt   int          // where the header begins in saved
	req       provider.Request
	del       archive.Delivery
}

// tlsConn is a conn that fasthttp sees TLS in.
type tlsConn struct{ *conn }

func (c tlsConn) ConnectionState() tls.ConnectionState { return c.conn.tls.ConnectionState() }

func (c tlsConn) Handshake() error {
	if err := c.armRead(); err != nil {
		return err
	}
	return c.conn.tls.Handshake()
}

// connOf gives our connection back from what fasthttp was given.
func connOf(c net.Conn) *conn {
	switch c := c.(type) {
	case *conn:
		return c
	case tlsConn:
		return c.conn
	}
	panic("BUG: a connection that is not of ingest's listener")
}

// Read notes when a request's first byte came.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.armRead(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	for n == 0 && c.silent(err) {
		if c.leave() {
			return 0, io.EOF // as if the client had gone: nothing is answered
		}
		n, err = c.Conn.Read(p)
	}
	if err != nil {
		c.readErr = err
	}
	if n > 0 && c.first.IsZero() {
		if !c.phase.CompareAndSwap(idle, reading) && !c.begin() {
			// The drain was first. A request that nobody can answer must not be stored.
			return 0, net.ErrClosed
		}
		c.first = time.Now()
		if c.waitsLong() {
			c.moreTime()
		}
	}
	return n, err
}

// waitsLong says whether it is before the first request of a connection that the process
// before has left: fasthttp takes it for a fresh one, and gives it less time.
func (c *conn) waitsLong() bool { return c.moved && !c.kept.Load() }

// Write notes when answers went out.
func (c *conn) Write(p []byte) (int, error) {
	if c.phase.Load() == cut {
		return 0, net.ErrClosed // it may be another's by now
	}
	n, err := c.Conn.Write(p)
	if len(c.acks) > 0 {
		if err == nil {
			now := time.Now()
			for _, a := range c.acks {
				took := now.Sub(a.first)
				c.srv.archive.NoteAcked(a.seq, took)
				c.srv.metrics.ack.Observe(took.Seconds())
				a.source.Observe(took.Seconds())
			}
		}
		c.acks = c.acks[:0]
	}
	return n, err
}

func (c *conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	c.srv.conns.remove(c)
	if c.linger.Load() && c.phase.Load() != cut {
		c.lingerClose()
	}
	return c.Conn.Close()
}

func (c *conn) lingerClose() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		half, ok = c.sock.(interface{ CloseWrite() error })
	}
	if !ok || half.CloseWrite() != nil || c.sock.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	var sink [16 << 10]byte
	for left := lingerBytes; left > 0; {
		n, err := c.sock.Read(sink[:])
		if left -= n; err != nil {
			return
		}
	}
}

// connState is told by fasthttp what becomes of a connection. Between two requests and
// at its end the request's share of the budget is given back: this is the one place that
// every way out of a request passes.
func connState(nc net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateIdle, fasthttp.StateClosed:
		connOf(nc).endRequest()
	}
}

// endRequest forgets the request: an error that fasthttp meets in the next one before
// its header is whole must not be answered in this one's name.
func (c *conn) endRequest() {
	c.srv.budget.release(c)
	c.first = time.Time{}
	c.src, c.refusal, c.chunked, c.saved = nil, 0, false, c.saved[:0]
	c.del = archive.Delivery{}
	c.req = provider.Request{}
	if len(c.acks) > 0 {
		// Pipelined: the answer waits in fasthttp's buffer, because more has come already.
		c.phase.Store(reading)
		return
	}
	c.kept.Store(true)
	c.since.Store(int64(c.srv.clock.mono()))
	c.phase.Store(idle)
}

// peerCount is what one address holds.
type peerCount struct {
	conns int          // protected by connSet.mu
	bytes atomic.Int64 // of the budget
}

// connSet knows the open connections, in all and by address.
type connSet struct {
	maxAll, maxPeer int

	mu   sync.Mutex // protects what follows
	open map[*conn]netip.Addr
	peer map[netip.Addr]*peerCount
}

func (s *connSet) init(maxAll, maxPeer int) {
	s.maxAll, s.maxPeer = maxAll, maxPeer
	s.open = map[*conn]netip.Addr{}
	s.peer = map[netip.Addr]*peerCount{}
}

// add takes a connection in, or says which limit it met. The zero address is not counted.
func (s *connSet) add(c *conn, a netip.Addr) refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.maxAll {
		return refusedConns
	}
	if a.IsValid() {
		a = networkOf(a)
		p := s.peer[a]
		if p == nil {
			p = new(peerCount)
			s.peer[a] = p
		}
		if p.conns >= s.maxPeer {
			return refusedPeerConns
		}
		p.conns++
		c.ip = p
	}
	s.open[c] = a
	return 0
}

func (s *connSet) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.open[c]
	if !ok {
		return
	}
	delete(s.open, c)
	if c.ip == nil {
		return
	}
	if c.ip.conns--; c.ip.conns == 0 {
		delete(s.peer, a)
	}
}

func (s *connSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// endIdle makes the connections end on which no request has begun for the given time. Each
// is woken out of its Read, which alone knows whether one has begun meanwhile.
func (s *connSet) endIdle(silent time.Duration) {
	for _, c := range append(s.in(idle), s.in(woken)...) {
		if c.leaves() || c.srv.clock.mono()-time.Duration(c.since.Load()) >= silent {
			c.wake()
		}
	}
}

// closeIdle closes the connections on which no request has begun. Whether one has is
// decided once, between here and Read.
func (s *connSet) closeIdle() {
	for _, c := range append(s.in(idle), s.in(woken)...) {
		if c.phase.CompareAndSwap(idle, cut) || c.phase.CompareAndSwap(woken, cut) {
			_ = c.sock.Close()
		}
	}
}

// kept counts the connections that stay open after an answer.
func (s *connSet) kept() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.kept.Load() {
			n++
		}
	}
	return n
}

// cutReaders makes the requests that are still coming in end at the given time.
func (s *connSet) cutReaders(unixNano int64) {
	if unixNano == 0 || time.Now().UnixNano() < unixNano {
		return
	}
	for _, c := range s.in(reading) {
		c.cutRead(time.Unix(0, unixNano))
	}
}

// closeAll closes everything and says how many requests that leaves unanswered.
func (s *connSet) closeAll() int {
	n := len(s.in(reading)) + len(s.in(handling))
	s.closeIdle()
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range all {
		_ = c.sock.Close()
	}
	return n
}

func (s *connSet) in(phase int32) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*conn
	for c := range s.open {
		if c.phase.Load() == phase {
			list = append(list, c)
		}
	}
	return list
}

// networkOf is what counts as one address: IPv6 hosts own a /64.
func networkOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return a
}
