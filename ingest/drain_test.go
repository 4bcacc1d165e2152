package ingest

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDrainAnswersInFlight: readiness goes first, a request that is with the archive is
// answered with Connection: close, idle connections end, new ones are not taken.
func TestDrainAnswersInFlight(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	r := newRig(t, Options{IdleTimeout: time.Minute, ReadTimeout: time.Minute, OnDrain: func() { ready.Store(false) }})
	r.arch.hold, r.arch.entered = make(chan struct{}), make(chan struct{}, 1)
	idle, fresh, busy := r.dial(), r.dial(), r.dial()
	r.arch.set(func() {})
	go func() { <-r.arch.entered; r.arch.hold <- struct{}{} }()
	_, _ = io.WriteString(idle, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}")
	if _, err := idle.Read(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(busy, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}")
	<-r.arch.entered
	if !ready.Load() || r.srv.Draining() {
		t.Fatal("not ready before the drain")
	}
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- r.srv.Drain(ctx)
	}()
	for _, c := range []net.Conn{idle, fresh} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
			t.Errorf("idle connection: %d bytes, %v; want it closed", n, err)
		}
	}
	if ready.Load() || !r.srv.Draining() {
		t.Error("ready while draining")
	}
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a request in flight", err)
	default:
	}
	r.arch.hold <- struct{}{}
	answer, _ := io.ReadAll(busy)
	wantStatus(t, string(answer), 200)
	if headerOf(string(answer), "Connection") != "close" {
		t.Errorf("answer %q does not close", answer)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		_ = c.Close()
		t.Error("a connection was taken after the drain")
	}
}

// TestDrainBounds: a half-sent request is cut at half of the time, and what the archive
// does not answer is left at its end.
func TestDrainBounds(t *testing.T) {
	r := newRig(t, Options{ReadTimeout: time.Hour, IdleTimeout: time.Hour})
	r.arch.hold, r.arch.entered = make(chan struct{}), make(chan struct{}, 1)
	half, stuck := r.dial(), r.dial()
	_, _ = io.WriteString(half, "POST /in/s HTTP/1.1\r\nHost: h\r\nContent-Length: 200\r\n\r\n{")
	_, _ = io.WriteString(stuck, request("/in/s", "{}", "X-Test: ok"))
	<-r.arch.entered
	waitFor(t, func() bool { return len(r.srv.conns.in(reading)) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	err := r.srv.Drain(ctx)
	if err == nil || !strings.Contains(err.Error(), "1 connections closed unanswered") {
		t.Errorf("drain: %v, want one connection left", err)
	}
	answer, _ := io.ReadAll(half)
	wantStatus(t, string(answer), 408)
	if n, err := stuck.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("stuck connection: %d bytes, %v", n, err)
	}
	close(r.arch.hold)
	waitFor(t, func() bool { return r.srv.conns.len() == 0 && r.srv.budget.used.Load() == 0 })
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it does not come true within 5 s")
}

// TestRun: the end of its context drains, also when it ends before serving began.
func TestRun(t *testing.T) {
	for _, early := range []bool{true, false} {
		s, err := New(Options{Listen: "127.0.0.1:0"}, &memArchive{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if early {
			cancel()
		}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if !early {
			waitFor(t, func() bool { s.open.Lock(); defer s.open.Unlock(); return len(s.lns) == 1 })
			cancel()
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("run does not end")
		}
	}
	s, err := New(Options{Listen: "256.0.0.1:1"}, &memArchive{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "256.0.0.1:1") {
		t.Errorf("run on a bad address: %v", err)
	}
}

// TestDrainUnderLoad: of the requests that were taken none is left without its answer.
func TestDrainUnderLoad(t *testing.T) {
	r := newRig(t, Options{})
	var stop atomic.Bool
	var sent, answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					return
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.WriteString(c, request("/in/s", "{}", "X-Test: ok")); err == nil {
					sent.Add(1)
				}
				answer, _ := io.ReadAll(c)
				if strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
					answered.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	waitFor(t, func() bool { return answered.Load() > 200 })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.srv.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
	stop.Store(true)
	wg.Wait()
	stored, _ := r.arch.all()
	if int64(len(stored)) != answered.Load() {
		t.Errorf("%d stored, %d answered", len(stored), answered.Load())
	}
}
