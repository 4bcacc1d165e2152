package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"penstock/archive"
)

// field is one input of the filter form.
type field struct {
	Name, Label, Value, Hint string
	Choices                  []string
	List                     string // id of a datalist
}

type listPage struct {
	frame
	Search   field
	Fields   []field
	More     []field // the rarer ones, folded unless one is set
	Open     bool
	Ranges   []rangeLink
	Sources  []string
	Rows     []rowView
	Next     string
	Newest   string // the same view without a cursor, when this is not its first page
	Filtered bool
	Live     string // address of the live stream; "" where the view cannot be live
	Query    string // the filter, for replays
	CSV      string // addresses of the exports
	NDJSON   string
	Progress *archive.Progress
	// SearchedTo is how far back this page has looked, where its time was up before it was full.
	SearchedTo *time.Time
	Exact      []exactHit
	Histogram  *histogram
	MayReplay  bool
	MayVerify  bool // re-verify what the view finds: all of it was refused
}

// rangeLink is one of the ranges of time that are a click away.
type rangeLink struct {
	Label, Href string
	Current     bool
}

// rowView is a row as the table shows it.
type rowView struct {
	archive.Row
	State string // one word for verdict and outcome
	Note  string // reason, or what else belongs to it
}

func viewRow(r *archive.Row) rowView {
	v := rowView{Row: *r, State: stateOf(r), Note: r.Reason}
	if v.Note == "" && len(r.Outcomes) > 1 {
		v.Note = strings.Join(r.Outcomes, ", ")
	}
	return v
}

// stateOf is what became of a delivery, in one word.
func stateOf(r *archive.Row) string {
	switch {
	case r.Outcome != "":
		return r.Outcome
	case r.Verdict == archive.Accepted.String():
		return archive.Pending
	}
	return r.Verdict
}

func viewRows(rows []archive.Row) []rowView {
	out := make([]rowView, len(rows))
	for i := range rows {
		out[i] = viewRow(&rows[i])
	}
	return out
}

func formFields(v url.Values, who secretToken) (search field, main, more []field) {
	get := func(f field) field { f.Value = v.Get(f.Name); return f }
	search = get(field{Name: "q", Label: "Search", Hint: "order, payment, event id, type, address …"})
	for _, f := range []field{
		{Name: "order_id", Label: "Order id"},
		{Name: "payment_id", Label: "Payment id"},
		{Name: "source", Label: "Source", List: "sources"},
		{Name: "verdict", Label: "Verdict", Choices: []string{"accepted", "rejected", "challenge"}},
		{Name: "outcome", Label: "Outcome", Choices: []string{"published", "duplicate", "held", "dead", "filtered", archive.Pending}},
		{Name: "from", Label: "From", Hint: "-2h, 2026-05-28 20:00"},
		{Name: "to", Label: "To", Hint: "now"},
	} {
		main = append(main, get(f))
	}
	rare := []field{
		{Name: "event_id", Label: "Event id"}, {Name: "event_type", Label: "Provider's type"}, {Name: "type", Label: "Type"},
		{Name: "status", Label: "Status"}, {Name: "provider", Label: "Provider"}, {Name: "reason", Label: "Reason of refusal"},
		{Name: "tenant", Label: "Tenant"}, {Name: "request_id", Label: "Request id"},
		{Name: "idempotency_key", Label: "Idempotency key"},
		{Name: "livemode", Label: "Live", Choices: []string{"true", "false"}},
		{Name: "limit", Label: "Rows", Choices: []string{"50", "100", "200", "500"}},
	}
	if who.role == Operator {
		rare = append([]field{{Name: "text", Label: "Text in bodies (slow)", Hint: "give a range of time"}}, rare...)
	}
	for _, f := range rare {
		more = append(more, get(f))
	}
	return search, main, more
}

func (s *Server) pageList(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	v := r.URL.Query()
	p := listPage{frame: s.frame(r, "Deliveries", "deliveries", who)}
	v.Del("done")
	p.Search, p.Fields, p.More = formFields(v, who)
	p.Open = slices.ContainsFunc(p.More, func(f field) bool { return f.Value != "" })
	p.Ranges, p.Sources = rangeLinks(v), s.sourceNames(r.Context())
	for name, values := range v {
		p.Filtered = p.Filtered || name != "limit" && name != "cursor" && values[0] != ""
	}
	f, bad := s.filter(v, who)
	if bad == nil {
		bad = s.auditSearch(r, f, who)
	}
	if bad == nil {
		bad = s.fillList(r.Context(), &p, v, f)
	}
	if v.Get("cursor") != "" {
		p.Newest = link(v, "")
		if p.Newest == "" {
			p.Newest = "/"
		}
	}
	p.Query = queryOf(v, "cursor", "limit")
	p.CSV = strings.TrimSuffix("/api/v1/export?format=csv&"+p.Query, "&")
	p.NDJSON = strings.TrimSuffix("/api/v1/export?format=ndjson&"+p.Query, "&")
	may := bad == nil && who.role == Operator && p.Filtered && v.Get("text") == ""
	p.MayVerify = may && s.o.Reverifier != nil && f.Verdict == archive.Rejected.String()
	p.MayReplay = may && s.o.Replayer != nil && f.Verdict != archive.Rejected.String()
	if bad == nil && p.Newest == "" && v.Get("text") == "" && v.Get("to") == "" {
		p.Live = strings.TrimSuffix("/api/v1/stream?brief=true&"+p.Query, "&")
	}
	status := http.StatusOK
	if bad != nil {
		p.Error, status, p.Next = bad.Detail, bad.Status, ""
	}
	return s.render(w, status, "list.html", p)
}

// fillList looks for the view's rows and all that stands beside them.
func (s *Server) fillList(ctx context.Context, p *listPage, v url.Values, f archive.Filter) *problem {
	f.Budget = listBudget
	var page archive.Page
	var err error
	if f.Text != "" {
		page, err = s.lane.Query(ctx, f)
	}
	late := s.lane.look(ctx, func(a Archive) {
		if f.Text == "" {
			page, err = a.Query(ctx, f)
		}
		p.Exact = exact(ctx, a, f)
		p.Histogram = s.histogram(ctx, a, v, f)
	})
	p.Rows, p.Progress, p.SearchedTo = viewRows(page.Rows), page.Progress, page.SearchedTo
	if page.Next != "" {
		p.Next = link(v, page.Next)
	}
	if f.Text != "" {
		late = nil // what was found in bodies is worth having without the rest
	}
	if err = errors.Join(late, err); err != nil {
		return s.failure(err)
	}
	return nil
}

// exactHit says that what was typed into the search is somebody's whole id.
type exactHit struct{ Label, Href string }

// exact looks the words of the search up as ids, which takes no time, where the search for
// their parts reads everything.
func exact(ctx context.Context, a Archive, f archive.Filter) (hits []exactHit) {
	id := strings.TrimSpace(f.Q)
	if id == "" || f.Text != "" {
		return nil
	}
	if row, err := a.Row(id); err == nil && row.ID == id {
		hits = append(hits, exactHit{"the delivery " + id, "/deliveries/" + url.PathEscape(id)})
	}
	for _, by := range []struct {
		label, name string
		f           archive.Filter
	}{
		{"order", "order_id", archive.Filter{OrderID: id}}, {"payment", "payment_id", archive.Filter{PaymentID: id}},
		{"event", "event_id", archive.Filter{EventID: id}}, {"request", "request_id", archive.Filter{RequestID: id}},
		{"idempotency key", "idempotency_key", archive.Filter{IdempotencyKey: id}},
	} {
		by.f.Limit, by.f.Budget = 1, listBudget
		if page, err := a.Query(ctx, by.f); err == nil && len(page.Rows) > 0 {
			hits = append(hits, exactHit{"every delivery of the " + by.label + " " + id, "/?" + by.name + "=" + url.QueryEscape(id)})
		}
	}
	return hits
}

// queryOf is the filter without some parameters, as the part of an address behind "?".
func queryOf(v url.Values, without ...string) string {
	kept := url.Values{}
	for name, values := range v {
		if !slices.Contains(without, name) && values[0] != "" {
			kept[name] = values
		}
	}
	return kept.Encode()
}

// link is the view with another cursor; "" when there is nothing to link to.
func link(v url.Values, cursor string) string {
	next := queryOf(v, "cursor")
	if cursor != "" {
		if next != "" {
			next += "&"
		}
		next += "cursor=" + url.QueryEscape(cursor)
	}
	if next == "" {
		return ""
	}
	return "/?" + next
}

func rangeLinks(v url.Values) (out []rangeLink) {
	rest := queryOf(v, "from", "to", "cursor")
	for _, r := range [][2]string{{"15 min", "-15m"}, {"1 h", "-1h"}, {"24 h", "-24h"}, {"7 days", "-7d"}, {"30 days", "-30d"}, {"all", ""}} {
		href := rest
		if r[1] != "" {
			href = strings.TrimPrefix(href+"&from="+r[1], "&")
		}
		out = append(out, rangeLink{Label: r[0], Href: "/?" + href, Current: v.Get("from") == r[1] && v.Get("to") == ""})
	}
	return out
}

func (s *Server) sourceNames(ctx context.Context) (names []string) {
	if s.o.Sources == nil {
		return nil
	}
	list, err := s.o.Sources.List(ctx)
	if err != nil {
		return nil // the page is worth having without
	}
	for i := range list {
		names = append(names, list[i].Name)
	}
	slices.Sort(names)
	return names
}

// histogram is the volume over a range of time, as bars of a drawing.
type histogram struct {
	From, To time.Time
	Source   string
	Narrowed bool // other filters are set, which a histogram does not follow
	Total    archive.CountRow
	All      int64
	Max      int64
	Step     time.Duration
	Width    int
	Bars     []bar
	sources  map[string]archive.CountRow // over the same time
}

// bar is one step; heights are of histogramHeight, and each part stands on the one before.
type bar struct {
	X                                          int
	Accepted, Rejected, Challenge              int64
	AcceptedY, AcceptedH, RejectedY, RejectedH int
	ChallengeY, ChallengeH, RestY              int
	At                                         time.Time
	Href                                       string
}

const (
	histogramHeight = 100
	barWidth        = 10
	// widestHistogram: more bars than that are narrower than what can be pointed at.
	widestHistogram = 120
)

// histogram counts over the view's range of time, or the last day. A view that cannot be
// counted has none.
func (s *Server) histogram(ctx context.Context, a Archive, v url.Values, f archive.Filter) *histogram {
	from, to := f.From, f.To
	if to.IsZero() {
		to = s.o.Now()
	}
	if from.IsZero() {
		from = to.Add(-countRange)
	}
	c, err := a.Counts(ctx, from, to, stepFor(to.Sub(from)), f.Source)
	if err != nil {
		return nil
	}
	h := &histogram{From: c.From, To: c.To, Source: f.Source, Total: c.Total, Step: time.Duration(c.Step) * time.Second, sources: c.Sources}
	h.Narrowed = queryOf(v, "from", "to", "source", "cursor", "limit") != ""
	h.All = c.Total.Accepted + c.Total.Rejected + c.Total.Challenge
	h.draw(c.Buckets, queryOf(v, "from", "to", "cursor"))
	return h
}

// steps are lengths of a bar that people can read.
var steps = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

func stepFor(length time.Duration) time.Duration {
	for _, s := range steps {
		if length <= s*widestHistogram {
			return s
		}
	}
	return (length/widestHistogram/(24*time.Hour) + 1) * 24 * time.Hour
}

func (h *histogram) draw(buckets []archive.CountBucket, query string) {
	for i := range buckets {
		b := &buckets[i]
		h.Max = max(h.Max, b.Accepted+b.Rejected+b.Challenge)
	}
	h.Width = max(1, len(buckets)) * barWidth
	for i := range buckets {
		b := &buckets[i]
		at := b.At.UTC()
		one := bar{X: i * barWidth, Accepted: b.Accepted, Rejected: b.Rejected, Challenge: b.Challenge, At: at,
			Href: "/?" + strings.TrimPrefix(query+"&from="+url.QueryEscape(at.Format(time.RFC3339))+"&to="+url.QueryEscape(at.Add(h.Step).Format(time.RFC3339)), "&")}
		y := histogramHeight
		part := func(n int64) (top, height int) {
			if n > 0 {
				height = max(2, int(n*(histogramHeight-4)/h.Max)) // what is there is seen
			}
			y -= height
			return y, height
		}
		one.AcceptedY, one.AcceptedH = part(b.Accepted)
		one.ChallengeY, one.ChallengeH = part(b.Challenge)
		one.RejectedY, one.RejectedH = part(b.Rejected)
		one.RestY = max(0, y)
		h.Bars = append(h.Bars, one)
	}
}
