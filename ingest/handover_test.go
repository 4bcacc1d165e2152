package ingest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const keepAlive = "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}"

// answered reads one answer of a connection that stays open.
func answered(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1000)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return string(b[:n])
}

// TestDrainServesTheSilent: connections on which no request has begun are served on for a
// while, an old one and a fresh one, each with Connection: close.
func TestDrainServesTheSilent(t *testing.T) {
	r := newRig(t, Options{IdleTimeout: time.Hour, ReadTimeout: time.Hour, DrainLinger: time.Hour})
	old, fresh := r.dial(), r.dial()
	_, _ = io.WriteString(old, keepAlive)
	wantStatus(t, answered(t, old), 200)
	waitFor(t, func() bool { return r.srv.conns.len() == 2 })
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	go func() { drained <- r.srv.Drain(ctx) }()
	waitFor(t, r.srv.Draining)
	for name, c := range map[string]net.Conn{"old": old, "fresh": fresh} {
		_, _ = io.WriteString(c, keepAlive)
		b, err := io.ReadAll(c)
		if err != nil || headerOf(string(b), "Connection") != "close" {
			t.Errorf("%s connection: %v %q, want an answer that closes", name, err, b)
		}
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
}

// TestDrainReadsWhatHasCome: a request that lies in the socket when its connection's time
// is over is answered, and one whose bytes come at that very moment is not broken off.
func TestDrainReadsWhatHasCome(t *testing.T) {
	r := newRig(t, Options{IdleTimeout: time.Hour, ReadTimeout: time.Hour})
	for i := range 200 {
		c := r.dial()
		_, _ = io.WriteString(c, keepAlive)
		wantStatus(t, answered(t, c), 200)
		var own *conn
		waitFor(t, func() bool {
			list := r.srv.conns.in(idle)
			if len(list) == 1 {
				own = list[0]
			}
			return own != nil
		})
		r.srv.draining.Store(true) // answers close; nothing else drains
		there := i%2 == 0
		if there {
			_, _ = io.WriteString(c, keepAlive[:30])
		}
		woke := make(chan struct{})
		go func() { defer close(woke); own.wake() }()
		if !there {
			_, _ = io.WriteString(c, keepAlive[:30])
		}
		<-woke
		_, _ = io.WriteString(c, keepAlive[30:])
		b, _ := io.ReadAll(c)
		// Answered whole, or ended before a byte came.
		if (there || len(b) > 0) && !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
			t.Fatalf("broken off with %q", b)
		}
		_ = c.Close()
		waitFor(t, func() bool { return r.srv.conns.len() == 0 })
		r.srv.draining.Store(false)
	}
}

// TestDrainReadsLate: what lies in the socket when its connection is woken is read, also
// after the time for reading; the end of the drain ends it even then.
func TestDrainReadsLate(t *testing.T) {
	r := newRig(t, Options{})
	r.srv.readBy.Store(1)
	r.srv.draining.Store(true)
	defer r.srv.draining.Store(false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (client net.Conn, own *conn) {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		sock, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); sock.Close() })
		return client, &conn{Conn: sock, sock: sock, srv: r.srv}
	}
	client, own := pair()
	_, _ = io.WriteString(client, "POST")
	waitFor(t, own.arrived)
	own.wake()
	b := make([]byte, 10)
	if n, err := own.Read(b); string(b[:n]) != "POST" || err != nil || own.phase.Load() != reading {
		t.Errorf("read %q, %v", b[:n], err)
	}
	_, own = pair()
	own.wake()
	if n, err := own.Read(b); n != 0 || !errors.Is(err, io.EOF) || own.phase.Load() != cut {
		t.Errorf("a silent connection: %d bytes, %v", n, err)
	}
}

// TestHandOver: under load the listener and the idle connections go from one server to the
// next, many times: no connection is refused or reset, and each answer comes.
func TestHandOver(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := ln.(*net.TCPListener).File() // what the next process would inherit
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	url := "http://" + ln.Addr().String() + "/in/s"
	ln.Close()
	arch := &memArchive{}
	var stop atomic.Bool
	var answers, reused atomic.Int64
	var wg sync.WaitGroup
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	once := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(client *http.Client) bool {
		req, _ := http.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
		req.Header.Set("X-Test", "ok")
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("after %d answers: %v", answers.Load(), err)
			return false
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("answer %d %v", resp.StatusCode, err)
			return false
		}
		answers.Add(1)
		return true
	}
	for i := range 8 {
		c := client
		if i%2 == 0 {
			c = once
		}
		wg.Go(func() {
			for !stop.Load() && post(c) {
			}
		})
	}
	var files []*os.File
	const rounds = 10
	for round := range rounds {
		ln, err := net.FileListener(socket)
		if err != nil {
			t.Fatal(err)
		}
		var conns []net.Conn
		for _, f := range files {
			c, err := net.FileConn(f)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			conns = append(conns, c)
		}
		srv, err := New(Options{}, arch)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.SetSources([]Source{testSource("s")}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- srv.RunOn(ctx, WithConns(ln, conns)) }()
		was := answers.Load()
		waitFor(t, func() bool { return t.Failed() || answers.Load() > was+50 })
		if round == rounds-1 { // nobody comes after this one
			stop.Store(true)
			wg.Wait()
		}
		srv.HandOver()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("drain: %v", err)
		}
		files = srv.Left()
		reused.Add(int64(len(files)))
	}
	for _, f := range files {
		f.Close()
	}
	stored, _ := arch.all()
	t.Logf("%d stored, %d answered, %d connections moved", len(stored), answers.Load(), reused.Load())
	if int64(len(stored)) != answers.Load() {
		t.Error("what was stored was not answered")
	}
	if reused.Load() == 0 {
		t.Error("no connection was moved")
	}
}
