package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"penstock/archive"
)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *Server) replayOne(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	job, p := s.startReplay(r, who)
	if p != nil {
		return p
	}
	accepted(w, job)
	return nil
}

func accepted(w http.ResponseWriter, job Job) {
	w.Header().Set("Location", "/api/v1/replays/"+url.PathEscape(job.ID))
	writeJSON(w, http.StatusAccepted, job)
}

// startReplay publishes one delivery again, or drives its dead letters again. Nothing else
// can be: a replay asks no dedupe, and would publish what never was let through.
func (s *Server) startReplay(r *http.Request, who secretToken) (Job, *problem) {
	if s.o.Replayer == nil {
		return Job{}, notHere("replay")
	}
	id := r.PathValue("id")
	row, err := s.o.Archive.Row(id)
	if err != nil {
		return Job{}, s.failure(err)
	}
	published, dead := archive.Published.String(), archive.Dead.String()
	switch {
	case row.Outcome == published || slices.Contains(row.Outcomes, published):
	case row.Outcome == dead || slices.Contains(row.Outcomes, dead): // driven again
	case row.Verdict != archive.Accepted.String():
		return Job{}, refuse(http.StatusConflict, "not_accepted", "the delivery is "+row.Verdict+"; what was refused is re-verified and released, not replayed")
	case row.Outcome == archive.Duplicate.String():
		return Job{}, refuse(http.StatusConflict, "not_published", "the delivery is a duplicate of "+row.DuplicateOf+"; replay that one")
	default:
		return Job{}, refuse(http.StatusConflict, "not_published", "the delivery was not published yet")
	}
	job, err := s.o.Replayer.Replay(r.Context(), Selection{IDs: []string{row.ID}, Sink: r.URL.Query().Get("sink")}, who.name)
	if err != nil {
		return Job{}, s.failure(err)
	}
	return job, nil
}

// selectionBody is what POST /api/v1/replays and /api/v1/reverify read: ids, or a filter
// with the parameters of the list. A selection of everything must be asked for in words.
type selectionBody struct {
	IDs    []string                   `json:"ids"`
	Filter map[string]json.RawMessage `json:"filter"`
	All    bool                       `json:"all"`
	Force  bool                       `json:"force"`
	Sink   string                     `json:"sink"`
	Rate   float64                    `json:"rate"`
}

// maxSelectedIDs bounds a list of ids; a filter takes any number.
const maxSelectedIDs = 10_000

// selection reads query parameters and body; both may hold filters.
func (s *Server) selection(r *http.Request) (Selection, selectionBody, *problem) {
	var body selectionBody
	invalid := func(format string, args ...any) (Selection, selectionBody, *problem) {
		return Selection{}, body, refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf(format, args...))
	}
	if p := jsonBody(r); p != nil {
		return Selection{}, body, p
	}
	raw, err := io.ReadAll(r.Body)
	if tooLarge(err) {
		return Selection{}, body, refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than 1 MiB")
	}
	if err != nil {
		return invalid("body: %v", err)
	}
	if len(bytes.TrimSpace(raw)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&body); err != nil {
			return invalid(`body: %v; want {"filter":{...}} or {"ids":[...]}`, err)
		}
		if dec.More() {
			return invalid("body: more than one JSON value")
		}
	}
	v := r.URL.Query()
	if force := v.Get("force"); force != "" {
		if body.Force, err = strconv.ParseBool(force); err != nil {
			return invalid("force: %q is neither true nor false", force)
		}
	}
	v.Del("force")
	if sink := v.Get("sink"); sink != "" {
		body.Sink = sink
	}
	v.Del("sink")
	if given := v.Get("rate"); given != "" {
		if body.Rate, err = strconv.ParseFloat(given, 64); err != nil || body.Rate <= 0 {
			return invalid("rate: %q is no number of events per second", given)
		}
	}
	v.Del("rate")
	if body.Rate < 0 || body.Rate > maxReplayRate || math.IsNaN(body.Rate) {
		return invalid("rate: %v events per second; want a number up to %d", body.Rate, maxReplayRate)
	}
	for name, value := range body.Filter {
		text, err := filterText(value)
		if err != nil || v.Has(name) {
			return invalid("filter.%s: want one string, number or boolean", name)
		}
		v.Set(name, text)
	}
	if len(body.IDs) > 0 {
		if len(v) > 0 || body.All || len(body.IDs) > maxSelectedIDs {
			return invalid("ids: want at most %d of them, and no filter beside", maxSelectedIDs)
		}
		note(r, describe(v, body))
		return Selection{IDs: body.IDs, Sink: body.Sink, Rate: body.Rate}, body, nil
	}
	f, err := archive.ParseFilter(v, s.o.Now())
	if err != nil {
		return invalid("%v", err)
	}
	if f.Cursor != "" {
		return invalid("cursor: a selection has none")
	}
	if f.Text != "" {
		return invalid("text: is for lists and exports; name the deliveries that it finds by ids")
	}
	if narrow := f; !body.All {
		narrow.Limit = 0
		if narrow == (archive.Filter{}) {
			return invalid(`filter: it is empty; for everything say {"all":true}`)
		}
	}
	note(r, describe(v, body))
	return Selection{Filter: &f, Sink: body.Sink, Rate: body.Rate}, body, nil
}

// maxReplayRate is as good as no limit.
const maxReplayRate = 1_000_000

// describe is a selection in the audit log's words.
func describe(filter url.Values, body selectionBody) string {
	text := filter.Encode()
	switch {
	case len(body.IDs) > 0:
		text = fmt.Sprintf("%d ids: %s", len(body.IDs), strings.Join(body.IDs, " "))
	case text == "":
		text = "all"
	}
	if body.Force {
		text += " force=true"
	}
	if body.Rate > 0 {
		text += fmt.Sprintf(" rate=%v", body.Rate)
	}
	return text
}

// filterText gives a filter's JSON value as the text of a query parameter.
func filterText(raw json.RawMessage) (string, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", errors.New("not a scalar")
}

func (s *Server) replayAll(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Replayer == nil {
		return notHere("replay")
	}
	sel, body, p := s.selection(r)
	if p != nil {
		return p
	}
	if body.Force {
		return refuse(http.StatusBadRequest, "invalid_parameter", "force: only a re-verify has it")
	}
	job, err := s.o.Replayer.Replay(r.Context(), sel, who.name)
	if err != nil {
		return s.failure(err)
	}
	accepted(w, job)
	return nil
}

func (s *Server) jobs(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Replayer == nil {
		return notHere("replay")
	}
	jobs, err := s.o.Replayer.Jobs(r.Context())
	if err != nil {
		return s.failure(err)
	}
	if jobs == nil {
		jobs = []Job{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"jobs": jobs})
	return nil
}

func (s *Server) job(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Replayer == nil {
		return notHere("replay")
	}
	job, err := s.o.Replayer.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return s.failure(err)
	}
	writeJSON(w, http.StatusOK, job)
	return nil
}

func (s *Server) cancelJob(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Replayer == nil {
		return notHere("replay")
	}
	job, err := s.o.Replayer.Cancel(r.Context(), r.PathValue("id"), who.name)
	if err != nil {
		return s.failure(err)
	}
	writeJSON(w, http.StatusOK, job)
	return nil
}

func (s *Server) reverifyOne(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Reverifier == nil {
		return notHere("re-verify")
	}
	force := false
	if text := r.URL.Query().Get("force"); text != "" {
		var err error
		if force, err = strconv.ParseBool(text); err != nil {
			return refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("force: %q is neither true nor false", text))
		}
	}
	v, p := s.startReverify(r, force, who)
	if p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// startReverify checks one refused delivery again.
func (s *Server) startReverify(r *http.Request, force bool, who secretToken) (Verification, *problem) {
	if s.o.Reverifier == nil {
		return Verification{}, notHere("re-verify")
	}
	row, err := s.o.Archive.Row(r.PathValue("id"))
	if err != nil {
		return Verification{}, s.failure(err)
	}
	if row.Verdict != archive.Rejected.String() {
		return Verification{}, refuse(http.StatusConflict, "not_rejected", "the delivery is "+row.Verdict+": there is nothing to release")
	}
	v, err := s.o.Reverifier.Reverify(r.Context(), row.ID, force, who.name)
	if err != nil {
		return Verification{}, s.failure(err)
	}
	return v, nil
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Explainer == nil {
		return notHere("explain")
	}
	row, err := s.o.Archive.Row(r.PathValue("id"))
	if err != nil {
		return s.failure(err)
	}
	if row.Verdict != archive.Rejected.String() {
		return refuse(http.StatusConflict, "not_rejected", "the delivery is "+row.Verdict+": there is nothing to explain")
	}
	e, err := s.o.Explainer.Explain(r.Context(), row.ID)
	if err != nil {
		return s.failure(err)
	}
	if e.Fingerprints == nil {
		e.Fingerprints = []string{}
	}
	if e.Hints == nil {
		e.Hints = []string{}
	}
	writeJSON(w, http.StatusOK, e)
	return nil
}

func (s *Server) reverifyAll(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Reverifier == nil {
		return notHere("re-verify")
	}
	sel, body, p := s.selection(r)
	if p != nil {
		return p
	}
	if sel.Filter == nil {
		return refuse(http.StatusBadRequest, "invalid_parameter", "ids: re-verify single deliveries by /api/v1/deliveries/{id}/reverify")
	}
	if v := sel.Filter.Verdict; v != "" && v != archive.Rejected.String() {
		return refuse(http.StatusBadRequest, "invalid_parameter", "verdict: only rejected deliveries are re-verified")
	}
	sel.Filter.Verdict = archive.Rejected.String()
	job, err := s.o.Reverifier.ReverifyAll(r.Context(), *sel.Filter, body.Force, who.name)
	if err != nil {
		return s.failure(err)
	}
	accepted(w, job)
	return nil
}
