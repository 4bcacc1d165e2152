package archive

import (
	"sync"

	"go.uber.org/zap"
)

// tailBuffer is how many rows a subscriber may be behind before rows are dropped for it.
const tailBuffer = 1024

// maxSubscribers bounds what a page left open in many browsers can cost.
const maxSubscribers = 256

// TailRow is one row of the live tail: a new delivery, or a known one whose outcome or
// fields changed (the same ID again).
type TailRow struct {
	Row     Row
	Dropped uint64 // rows dropped for this subscriber just before this one

	kinds uint8
	items []item
}

// Matches reports whether the row fits the filter; paging, time range ends and limits
// do not count.
func (t *TailRow) Matches(f *Filter) bool {
	e := entry{row: t.Row, ref: makeRef(0, t.Row.Seq), kinds: t.kinds, items: t.items}
	return f.matches(&e)
}

type subscriber struct {
	ch      chan TailRow
	dropped uint64
}

// subscribers hands rows to those who watch. Its mutex guards all fields; nothing that
// waits happens under it.
type subscribers struct {
	mu     sync.Mutex
	all    map[*subscriber]struct{}
	closed bool
	log    *zap.Logger
}

func (s *subscribers) add() (<-chan TailRow, func()) {
	sub := &subscriber{ch: make(chan TailRow, tailBuffer)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.all) >= maxSubscribers {
		close(sub.ch)
		return sub.ch, func() {}
	}
	if s.all == nil {
		s.all = map[*subscriber]struct{}{}
	}
	s.all[sub] = struct{}{}
	return sub.ch, func() { s.remove(sub) }
}

func (s *subscribers) remove(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[sub]; ok {
		delete(s.all, sub)
		close(sub.ch)
	}
}

// watched lets the writer skip the rendering of rows that nobody wants.
func (s *subscribers) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all) > 0
}

// send never waits: a subscriber that does not keep up loses rows and is told how many.
func (s *subscribers) send(rows []TailRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.all {
		for _, r := range rows {
			r.Dropped = sub.dropped
			select {
			case sub.ch <- r:
				sub.dropped = 0
			default:
				sub.dropped++
			}
		}
	}
}

func (s *subscribers) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for sub := range s.all {
		close(sub.ch)
	}
	s.all = nil
}

// Subscribe gives rows as they reach the index, in the order in which they were applied.
// The channel holds 1024 rows; what does not fit is dropped and counted in the next
// row's Dropped. It is closed by cancel, when the archive closes, and at once when 256
// subscribers are there already. Cancel may be called more than once.
func (a *Archive) Subscribe() (rows <-chan TailRow, cancel func()) {
	if a.index == nil {
		ch := make(chan TailRow)
		close(ch)
		return ch, func() {}
	}
	return a.index.subs.add()
}
