package archive

import (
	"slices"
	"sync"
	"time"
)

// warmSegments keeps the segments that single records were read from open for a moment. Who
// asks for one often asks for its neighbours: a backlog whose topic was blocked, a replay, a
// list of twins. Opening a segment, with its header, its table and its footer, and closing
// it again was most of the 100 us and 100 KB that a record cost.
type warmSegments struct {
	mu     sync.Mutex
	segs   []warmSegment // the last used first
	closed bool
	timer  *time.Timer // nil: none is open
}

type warmSegment struct {
	*segment
	used bool // since the timer fired
}

const (
	maxWarm  = 4
	warmTime = time.Second // so long, and once more at most, an unused file stays open
)

// keep keeps seg open, whose caller has it acquired.
func (w *warmSegments) keep(seg *segment) {
	var over *segment
	w.mu.Lock()
	i := slices.IndexFunc(w.segs, func(s warmSegment) bool { return s.segment == seg })
	switch {
	case w.closed:
	case i >= 0:
		w.segs[i].used = true
		if i > 0 {
			s := w.segs[i]
			copy(w.segs[1:i+1], w.segs[:i])
			w.segs[0] = s
		}
	default:
		if _, err := seg.acquire(); err != nil {
			break
		}
		if len(w.segs) == maxWarm {
			over = w.segs[maxWarm-1].segment
			w.segs = w.segs[:maxWarm-1]
		}
		w.segs = slices.Insert(w.segs, 0, warmSegment{seg, true})
		if w.timer == nil {
			w.timer = time.AfterFunc(warmTime, w.cool)
		}
	}
	w.mu.Unlock()
	if over != nil {
		over.release()
	}
}

// cool lets go of what was not used since it was called last.
func (w *warmSegments) cool() {
	w.drop(func(s *warmSegment) bool {
		was := s.used
		s.used = false
		return !was
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = nil
	if len(w.segs) > 0 {
		w.timer = time.AfterFunc(warmTime, w.cool)
	}
}

// forget lets go of a segment whose file is to be changed or removed.
func (w *warmSegments) forget(seg *segment) {
	w.drop(func(s *warmSegment) bool { return s.segment == seg })
}

// close lets go of all, and keeps none any more.
func (w *warmSegments) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.drop(func(*warmSegment) bool { return true })
}

func (w *warmSegments) drop(which func(*warmSegment) bool) {
	w.mu.Lock()
	var gone []*segment
	kept := w.segs[:0]
	for _, s := range w.segs {
		if which(&s) {
			gone = append(gone, s.segment)
		} else {
			kept = append(kept, s)
		}
	}
	clear(w.segs[len(kept):])
	w.segs = kept
	w.mu.Unlock()
	for _, seg := range gone {
		seg.release()
	}
}
