package admin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"penstock/archive"
)

const (
	// hubRows is how many rows go to the streams at once.
	hubRows = 128
	// hubChunks is how many of these a stream may be behind before rows are dropped for it.
	hubChunks = 32
)

// hub feeds all live streams from one subscription: a row is rendered once, and looked at
// once for all streams with the same filter, however many people have the table open. While
// there is no stream there is no subscription.
type hub struct {
	archive Archive

	mu     sync.Mutex // guards all below; nothing that waits happens under it
	groups map[string]*group
	end    chan struct{} // ends the subscription; nil while there is none
}

// group is all streams with one filter.
type group struct {
	f     archive.Filter
	brief bool // they want to know how many rows, not which
	all   map[*listener]struct{}
}

// listener is one stream. chunks is closed when the archive has no more to say.
type listener struct {
	chunks  chan chunk
	dropped uint64
}

// chunk is what one or more rows are to a stream.
type chunk struct {
	text    []byte
	rows    int
	dropped uint64 // rows that were lost just before
}

func newHub(a Archive) *hub { return &hub{archive: a, groups: map[string]*group{}} }

// join adds a stream; leave must be called.
func (h *hub) join(f archive.Filter, brief bool) (l *listener, leave func()) {
	key, err := json.Marshal(f)
	if err != nil {
		key = fmt.Appendf(nil, "%p", &f) // a group of its own
	}
	name := strconv.FormatBool(brief) + string(key)
	l = &listener{chunks: make(chan chunk, hubChunks)}
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[name]
	if g == nil {
		g = &group{f: f, brief: brief, all: map[*listener]struct{}{}}
		h.groups[name] = g
	}
	g.all[l] = struct{}{}
	if h.end == nil {
		h.end = make(chan struct{})
		rows, cancel := h.archive.Subscribe()
		go h.run(rows, cancel, h.end)
	}
	return l, func() { h.leave(name, g, l) }
}

func (h *hub) leave(name string, g *group, l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(g.all, l)
	if len(g.all) == 0 && h.groups[name] == g {
		delete(h.groups, name)
	}
	if len(h.groups) == 0 && h.end != nil {
		close(h.end)
		h.end = nil
	}
}

// run hands rows on until nobody listens, or there are no more.
func (h *hub) run(rows <-chan archive.TailRow, cancel func(), end chan struct{}) {
	defer cancel()
	batch := make([]archive.TailRow, 0, hubRows)
	for {
		select {
		case <-end:
			return
		case row, open := <-rows:
			if !open {
				h.close(end)
				return
			}
			batch = append(batch[:0], row)
		}
		for more := min(len(rows), hubRows-1); more > 0; more-- {
			if row, open := <-rows; open {
				batch = append(batch, row)
			}
		}
		h.send(batch)
	}
}

// close ends the streams of a subscription that has ended.
func (h *hub) close(end chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end != end {
		return
	}
	for _, g := range h.groups {
		for l := range g.all {
			close(l.chunks)
		}
	}
	h.groups, h.end = map[string]*group{}, nil
}

func (h *hub) send(batch []archive.TailRow) {
	lost := uint64(0)
	for i := range batch {
		lost += batch[i].Dropped
	}
	rendered := make([][]byte, len(batch))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.groups {
		c := chunk{}
		for i := range batch {
			if batch[i].Row.ID == "" || !batch[i].Matches(&g.f) {
				continue
			}
			c.rows++
			if g.brief {
				continue
			}
			if rendered[i] == nil {
				rendered[i] = renderRow(&batch[i].Row)
			}
			c.text = append(c.text, rendered[i]...)
		}
		for l := range g.all {
			l.dropped += lost
			if c.rows == 0 && l.dropped == 0 {
				continue
			}
			mine := c
			mine.dropped = l.dropped
			select {
			case l.chunks <- mine:
				l.dropped = 0
			default:
				l.dropped += uint64(c.rows) //nolint:gosec // a count
			}
		}
	}
}

// renderRow makes the event of a row. JSON has no raw line breaks, so nothing in a row can
// begin a field of its own.
func renderRow(r *archive.Row) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		return nil // a row of strings and numbers: it cannot be
	}
	return append(append([]byte("event: delivery\nid: "+r.ID+"\ndata: "), b...), '\n', '\n')
}
