package faults

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy stands between the gateway and one service. It knows where an answer begins and
// ends, so that it can hold back, lose or exchange whole ones.
type proxy struct {
	ln     net.Listener
	target string
	speak  func(px *proxy, client, server net.Conn) // relays until one side ends

	mu    sync.Mutex // protects what follows
	mode  mode
	rng   *rand.Rand
	conns map[net.Conn]struct{}
	hits  int // answers that the mode touched
}

// mode is what the proxy does to answers.
type mode struct {
	delay  time.Duration // each answer comes so much later
	lose   float64       // share of answers that are swallowed and the connection cut
	skip   float64       // share that is swallowed and the connection goes on: all that follow are shifted
	swap   bool          // neighbours change places
	refuse bool          // every connection is cut, new ones too
	mute   float64       // Kafka: share of produce requests that are swallowed and never get there
}

func newProxy(t *testing.T, target string, rng *rand.Rand, speak func(*proxy, net.Conn, net.Conn)) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px := &proxy{ln: ln, target: target, speak: speak, rng: rng, conns: map[net.Conn]struct{}{}}
	t.Cleanup(func() {
		ln.Close()
		px.set(mode{refuse: true})
	})
	go px.serve()
	return px
}

func (px *proxy) addr() string { return px.ln.Addr().String() }

// touched says how many messages the mode has been at so far.
func (px *proxy) touched() int {
	px.mu.Lock()
	defer px.mu.Unlock()
	return px.hits
}

// set changes the mode and says how many answers the last one touched.
func (px *proxy) set(m mode) int {
	px.mu.Lock()
	defer px.mu.Unlock()
	px.mode = m
	hits := px.hits
	px.hits = 0
	if m.refuse {
		for c := range px.conns {
			c.Close()
		}
	}
	return hits
}

func (px *proxy) serve() {
	for {
		c, err := px.ln.Accept()
		if err != nil {
			return
		}
		go px.relay(c)
	}
}

func (px *proxy) hold(c net.Conn) bool {
	px.mu.Lock()
	defer px.mu.Unlock()
	if px.mode.refuse {
		return false
	}
	px.conns[c] = struct{}{}
	return true
}

func (px *proxy) drop(c net.Conn) {
	c.Close()
	px.mu.Lock()
	delete(px.conns, c)
	px.mu.Unlock()
}

func (px *proxy) relay(c net.Conn) {
	defer px.drop(c)
	if !px.hold(c) {
		return
	}
	up, err := net.Dial("tcp", px.target)
	if err != nil {
		return
	}
	defer px.drop(up)
	if px.hold(up) {
		px.speak(px, c, up)
	}
}

func (px *proxy) mutes() bool {
	px.mu.Lock()
	defer px.mu.Unlock()
	if px.rng.Float64() >= px.mode.mute {
		return false
	}
	px.hits++
	return true
}

var errCut = errors.New("the proxy cuts here")

// judge applies the mode to one answer: pass it (after its delay), swallow it, or cut.
func (px *proxy) judge() (pass bool, err error) {
	px.mu.Lock()
	m := px.mode
	dice := px.rng.Float64()
	if m.delay > 0 || dice < m.lose+m.skip {
		px.hits++
	}
	px.mu.Unlock()
	time.Sleep(m.delay)
	switch {
	case dice < m.lose:
		return false, errCut
	case dice < m.lose+m.skip:
		return false, nil
	}
	return true, nil
}

// --- Redis ---------------------------------------------------------------------

func speakRedis(px *proxy, client, server net.Conn) {
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	defer client.Close()
	in := bufio.NewReaderSize(server, 1<<16)
	var held []byte // waits for a neighbour to change places with
	for {
		reply, err := readReply(in, nil)
		if err != nil {
			return
		}
		pass, err := px.judge()
		if err != nil {
			return
		}
		if !pass {
			continue
		}
		px.mu.Lock()
		swap := px.mode.swap
		px.mu.Unlock()
		switch {
		case held != nil:
			px.mu.Lock()
			px.hits++
			px.mu.Unlock()
			reply, held = append(reply, held...), nil
		case swap && in.Buffered() > 0:
			held = reply
			continue
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

// readReply appends one whole reply, of RESP2 or RESP3, to b.
func readReply(in *bufio.Reader, b []byte) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	b = append(b, line...)
	kind := line[0]
	n, err := strconv.Atoi(strings.TrimSpace(string(line[1:])))
	switch kind {
	case '$', '=', '!':
		if err != nil || n < 0 {
			return b, err
		}
		at := len(b)
		b = append(b, make([]byte, n+2)...)
		_, err = io.ReadFull(in, b[at:])
		return b, err
	case '*', '~', '>', '%':
		if err != nil {
			return nil, err
		}
		if kind == '%' {
			n *= 2
		}
		for range n {
			if b, err = readReply(in, b); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// --- Kafka ---------------------------------------------------------------------

const apiProduce = 0

// speakKafka relays frames. Answers name the broker's own port; the proxy's is put in its
// place, or the gateway would go past it. Only answers to produce requests are judged.
func speakKafka(px *proxy, client, server net.Conn) {
	var mu sync.Mutex
	asked := map[uint32]uint16{} // correlation id to API key
	go func() {
		defer server.Close()
		in := bufio.NewReaderSize(client, 1<<16)
		for {
			f, err := readFrame(in)
			if err != nil || len(f) < 12 {
				return
			}
			if binary.BigEndian.Uint16(f[4:]) == apiProduce && px.mutes() {
				continue
			}
			mu.Lock()
			asked[binary.BigEndian.Uint32(f[8:])] = binary.BigEndian.Uint16(f[4:])
			mu.Unlock()
			if _, err := server.Write(f); err != nil {
				return
			}
		}
	}()
	defer client.Close()
	from, to := brokerName(px.target), brokerName(px.addr())
	in := bufio.NewReaderSize(server, 1<<16)
	for {
		f, err := readFrame(in)
		if err != nil || len(f) < 8 {
			return
		}
		corr := binary.BigEndian.Uint32(f[4:])
		mu.Lock()
		key := asked[corr]
		delete(asked, corr)
		mu.Unlock()
		if key == apiProduce {
			if pass, err := px.judge(); err != nil || !pass {
				return
			}
		} else {
			f = bytes.ReplaceAll(f, from, to) // as long as before: the frame stays whole
		}
		if _, err := client.Write(f); err != nil {
			return
		}
	}
}

func brokerName(addr string) []byte {
	host, port, _ := net.SplitHostPort(addr)
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(fmt.Sprintf("BUG: address %q", addr))
	}
	return binary.BigEndian.AppendUint32([]byte(host), uint32(n))
}

func readFrame(in *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	f := make([]byte, 4+binary.BigEndian.Uint32(head[:]))
	copy(f, head[:])
	_, err := io.ReadFull(in, f[4:])
	return f, err
}
