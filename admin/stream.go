package admin

import (
	"fmt"
	"net/http"
	"time"
)

const (
	// streamBeat keeps proxies from closing a quiet stream.
	streamBeat = 15 * time.Second
	// streamWrite is how long a client may take for one write; after that it is gone.
	streamWrite = 15 * time.Second
)

// stream sends rows as they reach the index: `delivery` events with the row as data (the
// same id again when its outcome changes), and `dropped` with a count where the client
// was too slow. With brief=true it says `changed` and how many, now and then: a page that
// fetches itself again needs no more.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	v := r.URL.Query()
	brief := v.Get("brief") == "true"
	if word := v.Get("brief"); word != "" && word != "true" && word != "false" {
		return refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("brief: %q is neither true nor false", word))
	}
	v.Del("brief")
	f, p := s.filter(v, who)
	if p != nil {
		return p
	}
	if f.Text != "" {
		return refuse(http.StatusBadRequest, "invalid_parameter", "text: is for lists and exports; a stream looks at rows alone")
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return busy("too_many_streams", "too many live streams are open")
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	from, leave := s.hub.join(f, brief)
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	e := &eventWriter{w: w, rc: http.NewResponseController(w)}
	e.write([]byte(": penstock\n\n"))
	e.flush()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	var last time.Time
	for e.err == nil {
		select {
		case c, open := <-from.chunks:
			if !open {
				return nil
			}
			if brief {
				c = s.gather(r, c, from, last.Add(briefEvery))
				last = time.Now()
			}
			s.send(e, &c, brief)
			// What is there already goes in one write.
			for more := len(from.chunks); more > 0 && e.err == nil; more-- {
				if c, open = <-from.chunks; open {
					s.send(e, &c, brief)
				}
			}
			e.flush()
		case <-beat.C:
			e.write([]byte(": alive\n\n"))
			e.flush()
		case <-r.Context().Done():
			return nil
		case <-s.closing:
			return nil
		}
	}
	return nil
}

// briefEvery is the least time between two events of a brief stream.
const briefEvery = 500 * time.Millisecond

// gather puts together what comes until then.
func (s *Server) gather(r *http.Request, c chunk, from *listener, until time.Time) chunk {
	rest := time.NewTimer(time.Until(until))
	defer rest.Stop()
	for {
		select {
		case more, open := <-from.chunks:
			if !open {
				return c
			}
			c.rows, c.dropped = c.rows+more.rows, c.dropped+more.dropped
		case <-rest.C:
			return c
		case <-r.Context().Done():
			return c
		case <-s.closing:
			return c
		}
	}
}

func (s *Server) send(e *eventWriter, c *chunk, brief bool) {
	if c.dropped > 0 {
		s.metrics.streamDropped.Add(float64(c.dropped))
		e.write(fmt.Appendf(nil, "event: dropped\ndata: {\"dropped\":%d}\n\n", c.dropped))
	}
	switch {
	case brief && c.rows > 0:
		e.write(fmt.Appendf(nil, "event: changed\ndata: {\"rows\":%d}\n\n", c.rows))
	case len(c.text) > 0:
		e.write(c.text)
	}
}

// eventWriter writes until something fails; each write has its own deadline, in place of
// the server's for whole answers.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (e *eventWriter) write(text []byte) {
	if e.err != nil {
		return
	}
	// Not every writer has deadlines (tests): then the client's own end counts.
	_ = e.rc.SetWriteDeadline(time.Now().Add(streamWrite))
	_, e.err = e.w.Write(text)
}

func (e *eventWriter) flush() {
	if e.err == nil {
		e.err = e.rc.Flush()
	}
}
