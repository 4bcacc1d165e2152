package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"unicode/utf8"

	"penstock/archive"
)

// maxShownBody is how much of a body the page shows; all of it is a download away.
const maxShownBody = 64 << 10

type deliveryPage struct {
	frame
	D           *detail
	State       string
	Why         string   // of a refusal, in words
	Hints       []string // what probably happened, and what to do
	Waits       string   // why it is not published yet
	Tried       []string // fingerprints of the credentials that were tried
	Body        string   // as the role may see it
	BodyNote    string
	Raw         string // the exact text, where Body is not it
	Decoded     string // where the body carries its document in another form
	MaskedAt    []string
	BodyMasked  bool
	Events      []eventView
	MoreEvents  int
	ReadNote    string // why there is no normalized event
	Twins       []rowView
	Related     []rowView
	RelatedMore bool
	CanReplay   bool
	DeadLetter  bool // a replay drives it again
	CanRelease  bool // its source is paused, and it alone may be let through
	CanReverify bool
	Verifies    bool // it does with today's credentials
}

// eventView is one normalized event as the page shows it.
type eventView struct {
	ReadEvent
	N    int
	Text string // of Value
}

func (s *Server) pageDelivery(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	d, p := s.load(r.PathValue("id"), who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	page := deliveryPage{frame: s.frame(r, "Delivery "+d.ID, "deliveries", who), D: d, State: stateOf(&d.Row), Why: reasonWords[d.Reason]}
	operator := who.role == Operator
	page.DeadLetter = d.Outcome == archive.Dead.String() || slices.Contains(d.Outcomes, archive.Dead.String())
	page.CanReplay = operator && (len(d.Published) > 0 || page.DeadLetter) && s.o.Replayer != nil
	page.CanRelease = operator && heldFor(d) == "paused" && s.o.Sources != nil
	refused := d.Verdict == archive.Rejected.String()
	page.CanReverify = operator && refused && d.Damaged == "" && s.o.Reverifier != nil && d.Outcome != archive.Published.String()
	if refused && d.Damaged == "" && operator && s.o.Explainer != nil {
		// The page is worth having without: a source that is gone cannot be asked.
		if e, err := s.o.Explainer.Explain(r.Context(), d.ID); err == nil {
			page.Hints, page.Tried = e.Hints, e.Fingerprints
			page.Verifies = e.Verdict == archive.Accepted.String()
		}
	}
	if job := r.URL.Query().Get("job"); job != "" {
		page.Notice = "Replay started: job " + job
	}
	if operator && d.rec != nil { // who sees what is masked for others is on record
		if p := s.audit(r, actReadBody, d.ID, ""); p != nil {
			return s.pageProblem(w, r, who, p)
		}
	}
	s.showBody(r.Context(), &page, operator)
	page.Waits = s.waits(r.Context(), d)
	s.showOthers(r.Context(), &page)
	return s.render(w, http.StatusOK, "delivery.html", page)
}

// showBody fills in the body, its decoded form and the events, as the role may see them.
func (s *Server) showBody(ctx context.Context, page *deliveryPage, operator bool) {
	d := page.D
	if d.rec == nil {
		page.BodyNote = "The stored record is damaged: " + d.Damaged
		return
	}
	var reading Reading
	err := errNotMasked
	if s.o.Reader != nil {
		if reading, err = s.o.Reader.Read(ctx, d.rec); err != nil {
			page.ReadNote = "Its definition cannot read it: " + err.Error()
		}
	}
	for i := range reading.Events {
		e := &reading.Events[i]
		text, _ := readable(e.Value)
		page.Events = append(page.Events, eventView{ReadEvent: *e, N: i, Text: text})
	}
	page.MoreEvents = reading.Total - len(reading.Events)
	if !operator {
		page.BodyMasked = true
		doc, places, merr := maskedOf(reading)
		if err != nil || merr != nil {
			page.BodyNote = "The role " + string(page.Role) + " sees bodies masked, and this one not at all: " + errNotMasked.Error() + "."
			return
		}
		page.Body, page.BodyNote = readable(doc)
		page.MaskedAt = places
		return
	}
	page.Body, page.BodyNote = readable(d.rec.Body)
	if utf8.Valid(d.rec.Body) && len(d.rec.Body) <= maxShownBody && page.Body != string(d.rec.Body) {
		page.Raw = string(d.rec.Body)
	}
	if err == nil && reading.Document != nil && !sameJSON(reading.Document, d.rec.Body) {
		page.Decoded, _ = readable(reading.Document)
	}
	if err == nil && len(reading.Events) > 0 {
		page.MaskedAt = reading.Events[0].Masked
	}
}

// heldFor is the reason for which a delivery is held, "" where it is not.
func heldFor(d *detail) string {
	if d.Verdict != archive.Accepted.String() || d.Outcome != archive.Held.String() || len(d.History) == 0 {
		return ""
	}
	return d.History[len(d.History)-1].Reason
}

// waits says why an accepted delivery has no final outcome.
func (s *Server) waits(ctx context.Context, d *detail) string {
	if d.Verdict != archive.Accepted.String() || d.Outcome != "" && d.Outcome != archive.Held.String() {
		return ""
	}
	switch heldFor(d) {
	case "paused":
		return "Its source is paused. It is published, in order, when the source is resumed."
	case "definition_missing":
		return "The definition that it came under is not there. It is published when the source is configured again."
	case "topic_blocked":
		return "Its topic takes nothing now. It is published when the topic does again."
	}
	if s.o.State == nil {
		return "It waits for being published."
	}
	st := s.o.State(ctx)
	switch {
	case !st.Sink:
		return "No sink is configured: deliveries are kept, and published when there is one."
	case st.KafkaAway:
		return "Kafka does not answer. It is kept, and published when Kafka is back."
	case st.SinkState != "" && st.SinkState != "live":
		return "It waits for being published; publishing says: " + st.SinkState + "."
	}
	return "It is on its way to " + cmp.Or(st.SinkName, "Kafka") + "; load the page again."
}

const (
	maxRelated = 30
	maxTwins   = 100
)

// showOthers finds the twins of a delivery and what else is known of its order and payment,
// of whatever provider. What cannot be searched is left out.
func (s *Server) showOthers(ctx context.Context, page *deliveryPage) {
	d := page.D
	find := func(f archive.Filter) []archive.Row {
		p, err := s.o.Archive.Query(ctx, f)
		if err != nil {
			return nil
		}
		page.RelatedMore = page.RelatedMore || p.Next != ""
		return p.Rows
	}
	var related []archive.Row
	if d.OrderID != "" {
		related = append(related, find(archive.Filter{OrderID: d.OrderID, Limit: maxRelated})...)
	}
	if d.PaymentID != "" {
		related = append(related, find(archive.Filter{PaymentID: d.PaymentID, Limit: maxRelated})...)
	}
	more := page.RelatedMore
	var same []archive.Row
	if d.EventID != "" {
		same = find(archive.Filter{EventID: d.EventID, Source: d.Source, Limit: maxTwins})
	}
	page.RelatedMore = more
	root := d.DuplicateOf
	if root == "" {
		root = d.ID
	}
	seen := map[string]bool{d.ID: true}
	for _, r := range slices.Concat(same, related) {
		if !seen[r.ID] && (r.ID == d.DuplicateOf || r.DuplicateOf == root) {
			seen[r.ID] = true
			page.Twins = append(page.Twins, viewRow(&r))
		}
	}
	if d.DuplicateOf != "" && !seen[d.DuplicateOf] {
		if r, err := s.o.Archive.Row(d.DuplicateOf); err == nil {
			seen[r.ID] = true
			page.Twins = append(page.Twins, viewRow(&r))
		}
	}
	seen = map[string]bool{}
	for i := range related {
		if r := &related[i]; !seen[r.ID] {
			seen[r.ID] = true
			page.Related = append(page.Related, viewRow(r))
		}
	}
	oldest := func(a, b rowView) int { return a.ReceivedAt.Compare(b.ReceivedAt) }
	slices.SortFunc(page.Related, oldest)
	slices.SortFunc(page.Twins, oldest)
	if len(page.Related) < 2 { // the delivery itself
		page.Related = nil
	}
}

// readable gives a body as text: JSON indented, other text as it is, bytes not at all.
func readable(body []byte) (text, note string) {
	if len(body) == 0 {
		return "", "The body is empty."
	}
	if len(body) > maxShownBody {
		body = bytes.ToValidUTF8(body[:maxShownBody], nil)
		note = "Only the first 64 KiB are shown."
	} else if json.Valid(body) {
		var b bytes.Buffer
		// Deep nesting grows with the square of its depth when indented.
		if json.Indent(&b, body, "", "  ") == nil && b.Len() <= 4*maxShownBody {
			return b.String(), ""
		}
	}
	if !utf8.Valid(body) {
		return "", "The body is not text; download it to see its bytes."
	}
	return string(body), note
}

// reasonWords say what a refusal means and what to do about it.
var reasonWords = map[string]string{
	"signature_missing":           "No signature came with it. Either it is not from the provider, or signing is switched off there.",
	"signature_malformed":         "The signature cannot be read. A proxy may have changed the header.",
	"signature_mismatch":          "The signature does not fit the bytes. Compare the secret here with the provider's; a proxy that rewrites bodies has the same effect.",
	"timestamp_missing":           "The scheme signs a time, and none came.",
	"timestamp_outside_tolerance": "It was signed too long ago or in the future: a replayed request, or a clock that is wrong.",
	"duplicate_header":            "A header that must come once came more often.",
	"ip_not_allowed":              "Its address is not on the source's list.",
	"merchant_mismatch":           "It is signed for another merchant than this source is configured for.",
	"key_unavailable":             "The key to verify it with could not be had at that moment; the provider was asked to come again.",
	"policy":                      "The source's own rules refuse it.",
}

func (s *Server) pageReplay(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	job, p := s.startReplay(r, who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	http.Redirect(w, r, "/deliveries/"+url.PathEscape(r.PathValue("id"))+"?job="+url.QueryEscape(job.ID), http.StatusSeeOther)
	return nil
}

// pageRelease lets one delivery out of a paused source.
func (s *Server) pageRelease(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if p := s.startRelease(r, who); p != nil {
		return s.pageProblem(w, r, who, p)
	}
	return done(w, r, "/deliveries/"+url.PathEscape(r.PathValue("id")), "let")
}

// pageReverify checks a refused delivery again, or releases it by the operator's word.
func (s *Server) pageReverify(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	force := r.PostFormValue("force") == "true"
	if force {
		note(r, "force=true")
	}
	v, p := s.startReverify(r, force, who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	what := "refused"
	switch {
	case v.Forced:
		what = "forced"
	case v.Released:
		what = "released"
	}
	return done(w, r, "/deliveries/"+url.PathEscape(v.ID), what)
}
