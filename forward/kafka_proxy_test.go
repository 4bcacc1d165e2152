package forward

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is a TCP proxy before the brokers that knows request and answer frames apart.
type proxy struct {
	t  *testing.T
	mu sync.Mutex
	ln map[string]net.Listener
	wg sync.WaitGroup
	// verdict is asked for each answer (after the broker gave it) with the request's
	// API key: pass it on, swallow it and cut the connection, or hold it back.
	onAnswer func(key int16, answer []byte) proxyDo
	// onRequest is asked before a request goes to the broker.
	onRequest func(key int16, request []byte) proxyDo
	conns     map[net.Conn]struct{}
}

type proxyDo int

const (
	pass proxyDo = iota
	cut
	stall // neither answer nor end
)

const (
	keyProduce = 0
)

func newProxy(t *testing.T) *proxy {
	px := &proxy{t: t, ln: map[string]net.Listener{}, conns: map[net.Conn]struct{}{}}
	t.Cleanup(px.close)
	return px
}

func (px *proxy) close() {
	px.mu.Lock()
	for _, l := range px.ln {
		_ = l.Close()
	}
	for c := range px.conns {
		_ = c.Close()
	}
	px.mu.Unlock()
	px.wg.Wait()
}

func (px *proxy) set(onRequest, onAnswer func(int16, []byte) proxyDo) {
	px.mu.Lock()
	defer px.mu.Unlock()
	px.onRequest, px.onAnswer = onRequest, onAnswer
}

func (px *proxy) hooks() (func(int16, []byte) proxyDo, func(int16, []byte) proxyDo) {
	px.mu.Lock()
	defer px.mu.Unlock()
	return px.onRequest, px.onAnswer
}

// dial connects to the proxy that stands before addr.
func (px *proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	px.mu.Lock()
	l := px.ln[addr]
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			px.mu.Unlock()
			return nil, err
		}
		px.ln[addr] = l
		px.wg.Go(func() { px.serve(l, addr) })
	}
	px.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
}

func (px *proxy) serve(l net.Listener, addr string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		px.wg.Go(func() { px.relay(c, addr) })
	}
}

func (px *proxy) track(c net.Conn) func() {
	px.mu.Lock()
	px.conns[c] = struct{}{}
	px.mu.Unlock()
	return func() {
		_ = c.Close()
		px.mu.Lock()
		delete(px.conns, c)
		px.mu.Unlock()
	}
}

// relay carries one request and its answer after the other, as our wire sends them.
func (px *proxy) relay(c net.Conn, addr string) {
	defer px.track(c)()
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer px.track(up)()
	for {
		req, err := readFrame(c)
		if err != nil {
			return
		}
		key := int16(binary.BigEndian.Uint16(req[4:]))
		onRequest, onAnswer := px.hooks()
		if onRequest != nil {
			switch onRequest(key, req) {
			case cut:
				return
			case stall:
				_, _ = io.Copy(io.Discard, c)
				return
			}
		}
		if _, err := up.Write(req); err != nil {
			return
		}
		res, err := readFrame(up)
		if err != nil {
			return
		}
		if onAnswer != nil {
			switch onAnswer(key, res) {
			case cut:
				return
			case stall:
				_, _ = io.Copy(io.Discard, c)
				return
			}
		}
		if _, err := c.Write(res); err != nil {
			return
		}
	}
}

// readFrame reads a size and as many bytes, and returns both.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, 4+binary.BigEndian.Uint32(head[:]))
	copy(b, head[:])
	_, err := io.ReadFull(r, b[4:])
	return b, err
}
