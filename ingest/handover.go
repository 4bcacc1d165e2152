package ingest

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxLeft bounds the idle connections that a process leaves to the next one; what is over
// it is closed as in any other drain.
const maxLeft = 10_000

// leftConns are idle connections whose sockets outlive this process.
type leftConns struct {
	mu    sync.Mutex
	files []*os.File
}

// HandOver says, before a drain, that the next process goes on where this one ends: idle
// connections are not closed then, Left has them. Those with TLS or a PROXY header are,
// since what was agreed on them lies in this process's memory.
func (s *Server) HandOver() { s.handing.Store(true) }

// Left gives the idle connections after a drain. They are the caller's.
func (s *Server) Left() []*os.File {
	s.left.mu.Lock()
	defer s.left.mu.Unlock()
	files := s.left.files
	s.left.files = nil
	return files
}

func (l *leftConns) add(f *os.File) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) >= maxLeft {
		return false
	}
	l.files = append(l.files, f)
	return true
}

// leaves says whether the connection goes to the next process while it is idle.
func (c *conn) leaves() bool {
	if !c.srv.handing.Load() {
		return false
	}
	_, ok := c.sock.(*net.TCPConn)
	return ok && c.Conn == c.sock
}

// wake makes a Read that waits for a request end.
func (c *conn) wake() {
	c.waking.Lock()
	defer c.waking.Unlock()
	if c.phase.CompareAndSwap(idle, woken) || c.phase.Load() == woken {
		c.cutRead(time.Unix(1, 0))
	}
}

// begin says whether a request that has come while the drain looked may still be read, and
// gives it its time.
func (c *conn) begin() bool {
	c.waking.Lock()
	woke := c.phase.CompareAndSwap(woken, reading)
	c.waking.Unlock()
	if woke {
		c.moreTime()
	}
	return c.phase.Load() != cut
}

// silent says whether a Read ended without a byte because a drain, or the idle time, ended
// it, and not the client.
func (c *conn) silent(err error) bool {
	var timeout net.Error
	if p := c.phase.Load(); p != idle && p != woken || !errors.As(err, &timeout) || !timeout.Timeout() {
		return false
	}
	// One that was moved counts as fresh in the server, which would answer its silence.
	return c.srv.draining.Load() || c.moved
}

// lateRead is what a request has that lies in the socket when its connection's time is
// over, whatever else the drain allows: a close before its first byte was read would be a
// reset.
const lateRead = time.Second

// leave ends a connection that is silent. If a request has come after all, the next process
// reads it, or, where there is none, this one does: then it is false.
func (c *conn) leave() bool {
	if c.srv.draining.Load() && !c.leaves() && c.arrived() {
		c.waking.Lock()
		defer c.waking.Unlock()
		if !c.phase.CompareAndSwap(woken, idle) && c.phase.Load() != idle {
			return true
		}
		c.since.Store(int64(c.srv.clock.mono()))
		// Past the drain's own bound on reading: with that the next Read would end at once,
		// and so on for ever.
		c.deadlines.read = time.Time{}
		return c.Conn.SetReadDeadline(time.Now().Add(lateRead)) != nil
	}
	if !c.phase.CompareAndSwap(woken, cut) && !c.phase.CompareAndSwap(idle, cut) || !c.leaves() {
		return true
	}
	if f, err := c.sock.(*net.TCPConn).File(); err == nil && !c.srv.left.add(f) {
		_ = f.Close()
	}
	return true
}

// arrived looks whether bytes wait in the socket.
func (c *conn) arrived() (yes bool) {
	raw, ok := c.sock.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		yes = err == nil && n > 0
	})
	return err == nil && yes
}

// moreTime undoes the deadline that woke a connection, for a request that has begun.
func (c *conn) moreTime() { _ = c.SetReadDeadline(time.Now().Add(c.srv.opts.ReadTimeout)) }

// movedConn is an idle connection from the process before this one.
type movedConn struct{ net.Conn }

// WithConns gives ln's connections after those that the process before has left.
func WithConns(ln net.Listener, conns []net.Conn) net.Listener {
	l := &withConns{Listener: ln, conns: make(chan net.Conn, len(conns))}
	for _, c := range conns {
		l.conns <- movedConn{c}
	}
	return l
}

type withConns struct {
	net.Listener
	conns chan net.Conn
}

func (l *withConns) Close() error {
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return l.Listener.Close()
		}
	}
}

func (l *withConns) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	default:
		return l.Listener.Accept()
	}
}
