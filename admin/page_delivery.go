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
	RelatedAll  string // address of all of the order or payment
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
	// maxTies bounds the ids by which a payment's history is gathered: a payment has a few.
	maxTies = 6
)

// showOthers finds the twins of a delivery and what else is known of its order and payment,
// of whatever provider. What cannot be searched is left out.
func (s *Server) showOthers(ctx context.Context, page *deliveryPage) {
	d := page.D
	var related, same []archive.Row
	var twin archive.Row
	_ = s.lane.look(ctx, func(a Archive) { // the page is worth having without
		related, page.RelatedMore = kin(ctx, a, d)
		if d.EventID != "" {
			if p, err := a.Query(ctx, archive.Filter{EventID: d.EventID, Source: d.Source, Limit: maxTwins}); err == nil {
				same = p.Rows
			}
		}
		if d.DuplicateOf != "" {
			twin, _ = a.Row(d.DuplicateOf)
		}
	})
	page.RelatedAll = "/?" + url.Values{"order_id": {d.OrderID}}.Encode()
	if d.OrderID == "" {
		page.RelatedAll = "/?" + url.Values{"payment_id": {d.PaymentID}}.Encode()
	}
	root := d.DuplicateOf
	if root == "" {
		root = d.ID
	}
	seen := map[string]bool{d.ID: true}
	for _, r := range append(slices.Concat(same, related), twin) {
		if r.ID != "" && !seen[r.ID] && (r.ID == d.DuplicateOf || r.DuplicateOf == root) {
			seen[r.ID] = true
			page.Twins = append(page.Twins, viewRow(&r))
		}
	}
	for i := range related {
		page.Related = append(page.Related, viewRow(&related[i]))
	}
	oldest := func(a, b rowView) int { return a.ReceivedAt.Compare(b.ReceivedAt) }
	slices.SortStableFunc(page.Related, oldest)
	slices.SortStableFunc(page.Twins, oldest)
	if len(page.Related) < 2 { // the delivery itself
		page.Related = nil
	}
}

// tie is an id that deliveries have in common.
type tie struct{ order, payment string }

// kin gathers what is known of a delivery's order and payment. A refund often names the
// payment alone, and only the payment its order: so the ids of what was found are asked for
// as well. Those of refused deliveries are not: anybody can write them.
func kin(ctx context.Context, a Archive, d *detail) (rows []archive.Row, more bool) {
	var ties []tie
	add := func(r *archive.Row) {
		for _, t := range [...]tie{{order: r.OrderID}, {payment: r.PaymentID}} {
			if t != (tie{}) && len(ties) < maxTies && !slices.Contains(ties, t) {
				ties = append(ties, t)
			}
		}
	}
	add(&d.Row)
	seen := map[string]bool{}
	for i := 0; i < len(ties); i++ {
		p, err := a.Query(ctx, archive.Filter{OrderID: ties[i].order, PaymentID: ties[i].payment, Limit: maxRelated})
		if err != nil {
			continue
		}
		more = more || p.Next != ""
		for j := range p.Rows {
			r := &p.Rows[j]
			if r.Verdict == archive.Accepted.String() {
				add(r)
			}
			if !seen[r.ID] {
				seen[r.ID] = true
				rows = append(rows, *r)
			}
		}
	}
	return rows, more
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
	"signature_missing":           "No signature came with it. Either it is not from the provider, or signing is switched off there: set a secret at the provider, and look whether a proxy drops the header.",
	"signature_malformed":         "The signature cannot be read. A proxy may have changed the header, or another scheme is set at the provider: compare it with the source's setup help.",
	"signature_mismatch":          "The signature does not fit the bytes. Compare the secret here with the provider's; a proxy that rewrites bodies has the same effect.",
	"timestamp_missing":           "The scheme signs a time, and none came. A proxy may drop its header; what the provider itself sends has one.",
	"timestamp_outside_tolerance": "It was signed too long ago or in the future: a replayed request, or a clock that is wrong. Check the clock of this machine, and let the provider send it again; where its deliveries come late by nature, widen the source's tolerance and re-verify.",
	"duplicate_header":            "A header that must come once came more often, so that nobody can say which one counts. Look for a proxy that adds it a second time.",
	"ip_not_allowed":              "Its address is not on the source's list. If it is the provider's, add it to the source's allow_ips and re-verify; if it is your proxy's, name the proxy in ingest.trusted_proxies.",
	"merchant_mismatch":           "It is signed for another merchant than this source is configured for. Compare the merchant's id here with the one at the provider; where it is right, that merchant wants a source of its own.",
	"key_unavailable":             "The key to verify it with could not be had at that moment; the provider was asked to come again. If it did not, see whether the address of its keys can be reached from here, and re-verify.",
	"policy":                      "The source's rules refuse it: it signs the address and public_url is not set, a signed value can be read in two ways, or a handshake asks for what this source does not answer. Set public_url as it stands at the provider, and re-verify.",
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
