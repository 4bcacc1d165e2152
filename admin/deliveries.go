package admin

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"penstock/archive"
)

// listBudget is how long a list looks for its rows: what nearly nothing fits may be far
// back, and whoever waits is told how far the search has come.
const listBudget = 70 * time.Millisecond

func (s *Server) list(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	f, p := s.filter(r.URL.Query(), who)
	if p == nil {
		p = s.auditSearch(r, f, who)
	}
	if p != nil {
		return p
	}
	f.Budget = listBudget
	page, err := s.o.Archive.Query(r.Context(), f)
	if err != nil {
		return s.failure(err)
	}
	if page.Rows == nil {
		page.Rows = []archive.Row{}
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// auditSearch puts a search in bodies on record, page by page: what it finds tells what the
// mask hides. What was searched for may be a card number, and is not.
func (s *Server) auditSearch(r *http.Request, f archive.Filter, who secretToken) *problem {
	if f.Text == "" || who.role != Operator {
		return nil
	}
	return s.audit(r, actSearchBody, f.Source, "")
}

// filter reads the filter and keeps a consumer to its sources.
func (s *Server) filter(v url.Values, who secretToken) (archive.Filter, *problem) {
	f, err := archive.ParseFilter(v, s.o.Now())
	if err != nil {
		return f, refuse(http.StatusBadRequest, "invalid_parameter", err.Error())
	}
	if f.Text != "" && who.role == Viewer {
		return f, refuse(http.StatusForbidden, "body_masked", "the role viewer sees bodies masked, so it cannot search them: text")
	}
	// Of headers it sees the credentials masked: a search would tell them letter by letter.
	f.BodyOnly = f.Text != "" && who.role != Operator
	if who.role != Consumer {
		return f, nil
	}
	if f.Source == "" && len(who.sources) == 1 {
		f.Source = who.sources[0]
	}
	if !who.may(f.Source) {
		return f, refuse(http.StatusForbidden, "source_not_allowed", "this token reads source="+strings.Join(who.sources, ", source=")+" only")
	}
	return f, nil
}

// detail is one delivery as /api/v1/deliveries/{id} answers it.
type detail struct {
	archive.Row
	VerifiedBy  string            `json:"verified_by"`
	Target      string            `json:"target"`  // path and query; without the query for those who may not see credentials
	Headers     [][2]string       `json:"headers"` // in order, as received
	BodySHA256  string            `json:"body_sha256"`
	Masked      bool              `json:"masked"` // credentials in headers and target were replaced
	Damaged     string            `json:"damaged,omitempty"`
	Body        []byte            `json:"body_base64,omitzero"` // where it was asked for; nil otherwise
	Published   []history         `json:"published"`            // where it went, replays too
	History     []history         `json:"history"`              // every outcome in order
	Timeline    []step            `json:"timeline"`             // all that happened, with its times
	rec         *archive.Delivery // nil where it is damaged
	contentType string
}

// history is one outcome of one event.
type history struct {
	At        time.Time `json:"at"`
	Event     int       `json:"event"` // which of the delivery's events, from 0; one that several routes took counts once for each
	Events    int       `json:"events"`
	Outcome   string    `json:"outcome"`
	Reason    string    `json:"reason,omitempty"`
	Route     string    `json:"route,omitempty"` // of a published one: which route took it, or default
	Of        string    `json:"of,omitempty"`    // the twin of a duplicate
	Sink      string    `json:"sink,omitempty"`
	Topic     string    `json:"topic,omitempty"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Replay    string    `json:"replay,omitempty"`
	CEID      string    `json:"ce_id,omitempty"`

	DeduplicatedAt time.Time `json:"deduplicated_at,omitzero"` // when it was settled that no twin was there before
	EventID        string    `json:"event_id,omitempty"`
	Type           string    `json:"type,omitempty"`
}

// show answers one delivery; with body=true its bytes too, which is one look and not two.
func (s *Server) show(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	withBody := false
	if text := r.URL.Query().Get("body"); text != "" {
		var err error
		if withBody, err = strconv.ParseBool(text); err != nil {
			return refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("body: %q is neither true nor false", text))
		}
	}
	if withBody && who.role == Viewer {
		return refuse(http.StatusForbidden, "body_masked", "the role viewer sees bodies masked: /body gives it so")
	}
	d, p := s.load(r.PathValue("id"), who)
	if p != nil {
		return p
	}
	action := actReadHeaders // headers and query are masked for others
	if withBody && d.rec != nil {
		d.Body, action = append([]byte{}, d.rec.Body...), actReadBody // an empty one is not nil
	}
	return writeTagged(w, r, d, func() *problem {
		if who.role != Operator || d.rec == nil {
			return nil
		}
		return s.audit(r, action, d.ID, "")
	})
}

// noDelivery is the answer for what is not there, and for what is not there for this token:
// the two must not differ in a byte.
func noDelivery(id string) *problem {
	return refuse(http.StatusNotFound, "not_found", "there is no delivery "+id)
}

// load gathers what is known of a delivery. A damaged record still has its row.
func (s *Server) load(id string, who secretToken) (*detail, *problem) {
	row, err := s.o.Archive.Row(id)
	if errors.Is(err, archive.ErrNotFound) || err == nil && !who.may(row.Source) {
		return nil, noDelivery(id) // ids of other sources are none of its business
	}
	if err != nil {
		return nil, s.failure(err)
	}
	d := &detail{Row: row, Headers: [][2]string{}, Published: []history{}, History: []history{}}
	outcomes, err := s.o.Archive.OutcomesOf(id)
	if err != nil && !errors.Is(err, archive.ErrIndex) {
		return nil, s.failure(err)
	}
	way := s.o.Archive.Times(id, outcomes)
	for i := range outcomes {
		h := toHistory(&outcomes[i])
		d.History = append(d.History, h)
		if outcomes[i].Kind == archive.Published {
			d.Published = append(d.Published, h)
		}
	}
	rec, err := s.o.Archive.Get(id)
	if errors.Is(err, archive.ErrCorrupt) {
		d.Damaged = err.Error()
		d.Timeline = d.timeline(way)
		return d, nil
	}
	if err != nil {
		return nil, s.failure(err)
	}
	d.fill(rec, who.role != Operator)
	if who.role == Viewer && s.o.MaskCards != nil {
		for i := range d.Headers {
			d.Headers[i][1] = s.o.MaskCards(d.Headers[i][1])
		}
	}
	d.Timeline = d.timeline(way)
	return d, nil
}

func (d *detail) fill(rec *archive.Delivery, mask bool) {
	d.VerifiedBy, d.Target, d.rec, d.Masked = rec.VerifiedBy, string(rec.Target), rec, mask
	d.BodySHA256 = sha256Hex(rec.Body)
	if mask {
		d.Target, _, _ = strings.Cut(d.Target, "?")
	}
	eachHeader(rec.Header, func(name, value string) {
		if strings.EqualFold(name, "content-type") {
			d.contentType = value
		}
		if mask && credential(name) {
			value = maskedValue
		}
		d.Headers = append(d.Headers, [2]string{name, value})
	})
}

func toHistory(o *archive.Outcome) history {
	h := history{At: o.At, Event: o.Item, Events: o.Items, Outcome: o.Kind.String(), Reason: o.Reason, Of: o.Of,
		Sink: o.Sink, Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, Replay: o.Replay,
		CEID: o.Fields.CEID, EventID: o.Fields.EventID, Type: o.Fields.Type, DeduplicatedAt: o.Deduplicated}
	if o.Kind == archive.Published {
		h.Reason, h.Route = "", o.Reason
	}
	return h
}

const maskedValue = "[masked]"

// credential reports whether a header's value lets its holder in somewhere. Signatures do
// not: they are bound to their body, and are what one compares when asking why a delivery
// was refused.
func credential(name string) bool {
	n := strings.ToLower(name)
	switch n {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	if strings.Contains(n, "signature") {
		return false
	}
	for _, word := range []string{"token", "secret", "password", "passwd", "api-key", "apikey", "api_key", "access-key", "auth-key", "credential"} {
		if strings.Contains(n, word) {
			return true
		}
	}
	return false
}

// eachHeader walks a raw header block in order.
func eachHeader(block []byte, visit func(name, value string)) {
	for len(block) > 0 {
		var line []byte
		line, block, _ = bytes.Cut(block, []byte{'\n'})
		name, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte{'\r'}), []byte{':'})
		if ok {
			visit(string(name), string(bytes.Trim(value, " \t")))
		}
	}
}

// body answers the exact bytes, in a form that no browser renders.
func (s *Server) body(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if who.role == Viewer {
		return s.maskedBody(w, r)
	}
	d, p := s.stored(r.PathValue("id"), who)
	if p != nil {
		return p
	}
	if unchanged(w, r, `"`+sha256Hex(d.Body)+`"`) {
		return nil
	}
	// A person who looks is on record; a program that follows its claim checks is not.
	if who.role == Operator {
		if p := s.audit(r, actReadBody, d.ID, ""); p != nil {
			return p
		}
	}
	h := w.Header()
	bodyHeaders(h, d.ID, d.Body)
	eachHeader(d.Header, func(name, value string) {
		// What the sender called it. net/http drops line breaks, and nosniff with the
		// type above keep it from meaning anything.
		if strings.EqualFold(name, "content-type") {
			h.Set("Penstock-Content-Type", value)
		}
	})
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(d.Body) // the client is gone: nothing to do
	return nil
}

// bodyHeaders keep any browser from rendering a body.
func bodyHeaders(h http.Header, id string, body []byte) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.bin"`, id))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("ETag", `"`+sha256Hex(body)+`"`)
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	v := map[string]any{}
	if s.o.Stats != nil {
		v = s.o.Stats(r.Context())
	}
	if s.o.State != nil {
		v["ingest"] = map[string]any{"unknown_paths": s.unknown(r.Context(), s.o.State(r.Context()).Unknown)}
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}
