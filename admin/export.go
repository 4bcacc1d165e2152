package admin

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// countRange is what counts shows where no time is given.
const countRange = 24 * time.Hour

// counts answers a histogram. A consumer sees its own source.
func (s *Server) counts(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	v := r.URL.Query()
	var step time.Duration
	if text := v.Get("step"); text != "" {
		var err error
		if step, err = parseStep(text); err != nil {
			return refuse(http.StatusBadRequest, "invalid_parameter", "step: "+err.Error())
		}
	}
	for name := range v {
		if name != "step" && name != "from" && name != "to" && name != "source" {
			return refuse(http.StatusBadRequest, "invalid_parameter", name+": there is no such parameter")
		}
	}
	v.Del("step")
	f, p := s.filter(v, who)
	if p != nil {
		return p
	}
	if f.To.IsZero() {
		f.To = s.o.Now()
	}
	if f.From.IsZero() {
		f.From = f.To.Add(-countRange)
	}
	c, err := s.o.Archive.Counts(r.Context(), f.From, f.To, step, f.Source)
	if err != nil {
		return s.failure(err)
	}
	writeJSON(w, http.StatusOK, c)
	return nil
}

// parseStep reads 5m, 1h or 7d.
func parseStep(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%q is not a length of time like 5m, 1h or 7d", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a length of time like 5m, 1h or 7d", text)
	}
	return d, nil
}

// export streams rows, newest first, page by page: nothing but a page is in memory. What
// goes wrong on the way cuts the answer off, so that no client takes a part for the whole.
func (s *Server) export(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	v := r.URL.Query()
	format, max, p := exportShape(v)
	if p != nil {
		return p
	}
	f, p := s.filter(v, who)
	if p == nil {
		p = s.auditSearch(r, f, who)
	}
	if p != nil {
		return p
	}
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		return busy("too_many_exports", "other exports are running")
	}
	f.Limit = archive.MaxLimit
	page, err := s.exportPage(r.Context(), f)
	if err != nil {
		return s.failure(err)
	}
	e := newRowWriter(w, format)
	w.Header().Set("Content-Type", e.contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="deliveries.`+format+`"`)
	w.WriteHeader(http.StatusOK)
	for {
		if max > 0 && len(page.Rows) > max {
			page.Rows = page.Rows[:max]
		}
		// Each page has its own time, as a stream's events have.
		_ = e.rc.SetWriteDeadline(time.Now().Add(streamWrite))
		if err := e.write(page.Rows); err != nil {
			return answered // the client is gone
		}
		if max > 0 {
			if max -= len(page.Rows); max == 0 {
				return nil
			}
		}
		if page.Next == "" {
			return nil
		}
		f.Cursor = page.Next
		if page, err = s.exportPage(r.Context(), f); err != nil {
			s.log.Warn("export was cut off", zap.String("by", who.name), zap.Error(err))
			panic(http.ErrAbortHandler)
		}
		select {
		case <-s.closing:
			panic(http.ErrAbortHandler)
		default:
		}
	}
}

// exportShape takes the parameters that are no filter out of v.
func exportShape(v url.Values) (format string, max int, p *problem) {
	if format = v.Get("format"); format == "" {
		format = "ndjson"
	}
	if format != "csv" && format != "ndjson" {
		return "", 0, refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("format: %q is neither csv nor ndjson", format))
	}
	if text := v.Get("limit"); text != "" {
		var err error
		if max, err = strconv.Atoi(text); err != nil || max < 1 {
			return "", 0, refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("limit: %q is not a number from 1 on", text))
		}
	}
	if v.Get("cursor") != "" {
		return "", 0, refuse(http.StatusBadRequest, "invalid_parameter", "cursor: an export has no pages")
	}
	v.Del("format")
	v.Del("limit")
	return format, max, nil
}

func (s *Server) exportPage(ctx context.Context, f archive.Filter) (archive.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return s.o.Archive.Query(ctx, f)
}

// rowWriter writes rows in one of the formats.
type rowWriter struct {
	contentType string
	w           http.ResponseWriter
	rc          *http.ResponseController
	csv         *csv.Writer
	json        *json.Encoder
	record      []string
	begun       bool
}

func newRowWriter(w http.ResponseWriter, format string) *rowWriter {
	e := &rowWriter{w: w, rc: http.NewResponseController(w)}
	if format == "csv" {
		e.contentType, e.csv = "text/csv; charset=utf-8; header=present", csv.NewWriter(w)
		return e
	}
	e.contentType, e.json = "application/x-ndjson", json.NewEncoder(w)
	e.json.SetEscapeHTML(false)
	return e
}

func (e *rowWriter) write(rows []archive.Row) error {
	if e.csv != nil && !e.begun {
		e.begun = true
		if err := e.csv.Write(archive.RowColumns()); err != nil {
			return err
		}
	}
	for i := range rows {
		var err error
		if e.csv != nil {
			e.record = rows[i].Record(e.record[:0])
			err = e.csv.Write(e.record)
		} else {
			err = e.json.Encode(&rows[i])
		}
		if err != nil {
			return err
		}
	}
	if e.csv != nil {
		e.csv.Flush()
		if err := e.csv.Error(); err != nil {
			return err
		}
	}
	return e.rc.Flush()
}
