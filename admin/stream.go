package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"penstock/archive"
)

const (
	// streamBeat keeps proxies from closing a quiet stream.
	streamBeat = 15 * time.Second
	// streamWrite is how long a client may take for one write; after that it is gone.
	streamWrite = 15 * time.Second
)

// stream sends rows as they reach the index: `delivery` events with the row as data (the
// same id again when its outcome changes), and `dropped` with a count where the client
// was too slow.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	f, p := s.filter(r.URL.Query(), who)
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
	rows, cancel := s.o.Archive.Subscribe()
	defer cancel()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	e := &eventWriter{w: w, rc: http.NewResponseController(w)}
	e.write(": penstock\n\n")
	e.flush()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for e.err == nil {
		select {
		case row, open := <-rows:
			if !open {
				return nil
			}
			s.send(e, row, &f)
			// What is there already goes in one write.
			for more := len(rows); more > 0 && e.err == nil; more-- {
				s.send(e, <-rows, &f)
			}
			e.flush()
		case <-beat.C:
			e.write(": alive\n\n")
			e.flush()
		case <-r.Context().Done():
			return nil
		case <-s.closing:
			return nil
		}
	}
	return nil
}

func (s *Server) send(e *eventWriter, row archive.TailRow, f *archive.Filter) {
	if row.Dropped > 0 {
		s.metrics.streamDropped.Add(float64(row.Dropped))
		e.write(fmt.Sprintf("event: dropped\ndata: {\"dropped\":%d}\n\n", row.Dropped))
	}
	if row.Row.ID == "" || !row.Matches(f) {
		return
	}
	b, err := json.Marshal(row.Row)
	if err != nil {
		e.err = err
		return
	}
	// JSON has no raw line breaks, so nothing in a row can begin a field of its own.
	e.write("event: delivery\nid: " + row.Row.ID + "\ndata: " + string(b) + "\n\n")
}

// eventWriter writes until something fails; each write has its own deadline, in place of
// the server's for whole answers.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (e *eventWriter) write(text string) {
	if e.err != nil {
		return
	}
	// Not every writer has deadlines (tests): then the client's own end counts.
	_ = e.rc.SetWriteDeadline(time.Now().Add(streamWrite))
	_, e.err = e.w.Write([]byte(text))
}

func (e *eventWriter) flush() {
	if e.err == nil {
		e.err = e.rc.Flush()
	}
}
