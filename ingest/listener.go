package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	proxyHeaderTime = 5 * time.Second       // for the PROXY header of a trusted peer
	acceptPause     = 20 * time.Millisecond // after an accept that failed for want of something
	floodAnswerTime = 50 * time.Millisecond // to write the answer to a connection over the limits
)

// listener makes conns of what it accepts, counts them and turns away what is over the
// limits.
type listener struct {
	net.Listener
	srv  *Server
	once sync.Once
}

// Close closes the listener once: a drain does it, and fasthttp again.
func (l *listener) Close() (err error) {
	l.once.Do(func() { err = l.Listener.Close() })
	return err
}

// Accept waits for the next connection that may be served. It blocks on no connection's
// bytes: PROXY header and TLS handshake are read on the connection's own goroutine.
func (l *listener) Accept() (net.Conn, error) {
	for {
		sock, err := l.Listener.Accept()
		if err != nil {
			if l.passing(err) {
				time.Sleep(acceptPause)
				continue
			}
			return nil, err
		}
		c, err := l.srv.wrap(sock)
		if err != nil {
			_ = sock.Close()
			continue
		}
		if c.tls != nil {
			return tlsConn{c}, nil
		}
		return c, nil
	}
}

// passing says whether an accept error will pass: no descriptors, no memory, a peer that
// left already. fasthttp would stop serving for good.
func (l *listener) passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			l.srv.refuseConn(refusedAccept)
			return true
		}
	}
	return false
}

// wrap makes a conn of an accepted socket, or refuses it.
func (s *Server) wrap(sock net.Conn) (*conn, error) {
	peer := addrOf(sock.RemoteAddr())
	from, moved := sock.(movedConn)
	if moved {
		sock = from.Conn
	}
	c := &conn{Conn: sock, sock: sock, srv: s, moved: moved}
	c.since.Store(int64(s.clock.mono()))
	if moved && (s.tls != nil || contains(s.opts.ProxyProtocol, peer)) {
		return nil, fmt.Errorf("connection from %s is of the time before TLS or the PROXY protocol", peer)
	}
	counted := peer
	if contains(s.opts.TrustedProxies, peer) || contains(s.opts.ProxyProtocol, peer) {
		counted = netip.Addr{} // it stands for many clients
	}
	if r := s.conns.add(c, counted); r != 0 {
		s.refuseConn(r)
		if s.tls == nil {
			_ = sock.SetWriteDeadline(time.Now().Add(floodAnswerTime))
			_, _ = sock.Write(floodAnswer)
		}
		return nil, fmt.Errorf("connection from %s is over a limit", peer)
	}
	if contains(s.opts.ProxyProtocol, peer) {
		c.Conn = proxyproto.NewConn(sock, proxyproto.WithPolicy(proxyproto.REQUIRE),
			proxyproto.SetReadHeaderTimeout(proxyHeaderTime))
	}
	if s.tls != nil {
		c.tls = tls.Server(c.Conn, s.tlsConfig())
		c.Conn = c.tls
	}
	return c, nil
}
