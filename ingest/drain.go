package ingest

import (
	"context"
	"fmt"
	"time"
)

// drainTick is how often a drain looks for connections that have become idle.
const drainTick = 10 * time.Millisecond

// Drain stops the server: readiness first (Options.OnDrain), then every answer says
// "Connection: close", and a connection that has been silent for Options.DrainLinger is
// closed: whoever uses his often hears of it in an answer, and does not send into a close.
// When no connection is left that had an answer before, no new one is taken. A request
// that is still being read at half of the time that ctx leaves is cut with 408; what is
// not answered when ctx ends is closed unanswered and an error says how many. Only the
// first call drains; later ones return at once.
func (s *Server) Drain(ctx context.Context) error {
	if !s.beginDrain() {
		return nil
	}
	if s.opts.OnDrain != nil {
		s.opts.OnDrain()
	}
	if s.opts.DrainDelay > 0 {
		select {
		case <-time.After(s.opts.DrainDelay):
		case <-ctx.Done():
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.readBy.Store(time.Now().Add(time.Until(deadline) / 2).UnixNano())
	}
	silent := s.opts.DrainLinger
	if deadline, ok := ctx.Deadline(); ok {
		silent = min(silent, time.Until(deadline)/4)
	}
	s.waitKept(ctx, silent)
	s.closeListeners()
	err := s.waitClosed(ctx, silent)
	// Only now fasthttp's own shutdown, for its bookkeeping: it closes idle connections
	// without looking whether a request has just begun on them.
	if stop := s.http.ShutdownWithContext(ctx); err == nil && stop != nil {
		err = fmt.Errorf("drain ingest: %w", stop)
	}
	return err
}

// waitKept goes on taking connections while those are told that were open before.
func (s *Server) waitKept(ctx context.Context, silent time.Duration) {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for end := time.Now().Add(silent); s.conns.kept() > 0 && time.Now().Before(end) && ctx.Err() == nil; <-tick.C {
		s.conns.endIdle(silent)
	}
}

// waitClosed ends what is idle until nothing is open any more, or ctx ends.
func (s *Server) waitClosed(ctx context.Context, silent time.Duration) error {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for {
		s.conns.endIdle(silent)
		s.conns.cutReaders(s.readBy.Load())
		if s.conns.len() == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			n := s.conns.closeAll()
			return fmt.Errorf("drain ingest: %d connections closed unanswered: %w", n, ctx.Err())
		case <-tick.C:
		}
	}
}

func (s *Server) beginDrain() bool {
	s.open.Lock()
	defer s.open.Unlock()
	if !s.draining.CompareAndSwap(false, true) {
		return false
	}
	close(s.drained)
	return true
}

// closeListeners closes them before fasthttp does: it knows nothing of one whose Serve
// has only just begun.
func (s *Server) closeListeners() {
	s.open.Lock()
	defer s.open.Unlock()
	for _, ln := range s.lns {
		_ = ln.Close()
	}
}
