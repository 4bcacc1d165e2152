package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"penstock/archive"
)

type sourcesPage struct {
	frame
	Sources []sourceView
	Silent  []sourceView // nothing came within a day, and nothing is wrong with them
	Unknown []unknownView
}

// sourceView is a source as the page shows it.
type sourceView struct {
	SourceInfo
	State   string // receiving, silent, never, paused, gone
	Last    *archive.Row
	Day     archive.CountRow
	All     int64
	PerHour float64
	Pending int
	Held    int           // by a pause
	AckP99  time.Duration // first byte to answer, since the start; 0: none was answered
	LagP99  time.Duration // receipt to the sink, of the last published ones
	LagOf   int
	settled time.Time // when it was seen that none of those is still to be published; zero: one is
}

// Bounds of what the list of sources looks at.
const (
	lagRows     = 20 // published deliveries per source whose lag is measured
	pendingRows = 500
	// settledFor is how long what was measured of a source stands while nothing new comes. What
	// was refused may be released meanwhile, which changes it.
	settledFor = time.Minute
)

func (s *Server) pageSources(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Sources == nil {
		return s.pageProblem(w, r, who, notHere("the list of sources"))
	}
	p := sourcesPage{frame: s.frame(r, "Sources", "sources", who)}
	p.Refresh = true
	list, err := s.o.Sources.List(r.Context())
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	for _, v := range s.viewSources(r.Context(), list) {
		if v.State == "never" {
			p.Silent = append(p.Silent, v)
		} else {
			p.Sources = append(p.Sources, v)
		}
	}
	if s.o.State != nil {
		p.Unknown = s.unknown(r.Context(), s.o.State(r.Context()).Unknown)
	}
	return s.render(w, http.StatusOK, "sources.html", p)
}

// measuredSources is what the index says of all sources: of a gateway with many it takes a
// query each, and every open tab asks every five seconds. All share what one has asked.
type measuredSources struct {
	mu   sync.Mutex // held while it is asked: the others wait for the same answer
	at   time.Time
	rows map[string]sourceView
}

// measuredFor is how long an answer is shared.
const measuredFor = time.Second

func (s *Server) measure(ctx context.Context, list []SourceInfo) map[string]sourceView {
	m := &s.measured
	m.mu.Lock()
	defer m.mu.Unlock()
	known := !slices.ContainsFunc(list, func(i SourceInfo) bool { _, ok := m.rows[i.Name]; return !ok })
	if known && time.Since(m.at) < measuredFor {
		return m.rows
	}
	acks := quantilesBySource(s.sharedMetrics(ctx), 0.99, "penstock_source_ack_seconds")
	rows := make(map[string]sourceView, len(list))
	err := s.lane.look(ctx, func(a Archive) {
		now := s.o.Now()
		counts, err := a.Counts(ctx, now.Add(-countRange), now, time.Hour, "")
		if err != nil {
			counts.Sources = nil // not known: shown as none
		}
		pending := waitingBySource(ctx, a)
		for i := range list {
			v := sourceView{SourceInfo: list[i], Day: counts.Sources[list[i].Name], Pending: pending[list[i].Name], Held: heldOf(ctx, a, &list[i]), AckP99: acks[list[i].Name]}
			v.All = v.Day.Accepted + v.Day.Rejected + v.Day.Challenge
			v.PerHour = float64(v.All) / countRange.Hours()
			lastOf(ctx, a, &v, m.rows[v.Name])
			rows[v.Name] = v
		}
	})
	if err == nil && ctx.Err() == nil { // what a caller that went away has seen is not the whole
		m.rows, m.at = rows, time.Now()
	}
	return rows
}

// waitingBySource counts what has no outcome yet, up to pendingRows in all.
func waitingBySource(ctx context.Context, a Archive) map[string]int {
	n := map[string]int{}
	if page, err := a.Query(ctx, archive.Filter{Outcome: archive.Pending, Limit: pendingRows}); err == nil { // the page is worth having without
		for i := range page.Rows {
			n[page.Rows[i].Source]++
		}
	}
	return n
}

// heldOf counts what a paused source holds, up to pendingRows. Others hold what their topic or
// definition lacks, which the overview tells.
func heldOf(ctx context.Context, a Archive, i *SourceInfo) int {
	if !i.Paused {
		return 0
	}
	page, err := a.Query(ctx, archive.Filter{Source: i.Name, Outcome: archive.Held.String(), Limit: pendingRows, Budget: listBudget})
	if err != nil {
		return 0 // the page is worth having without
	}
	return len(page.Rows)
}

func (s *Server) viewSources(ctx context.Context, list []SourceInfo) []sourceView {
	measured := s.measure(ctx, list)
	out := make([]sourceView, len(list))
	for i := range list {
		v := &out[i]
		*v = measured[list[i].Name]
		v.SourceInfo = list[i] // as it is now: a pause shows at once
		switch {
		case v.Path == "":
			v.State = "gone"
		case v.Paused:
			v.State = "paused"
		case v.Last == nil:
			v.State = "never"
		case v.All == 0:
			v.State = "silent"
		default:
			v.State = "receiving"
		}
	}
	slices.SortStableFunc(out, func(a, b sourceView) int {
		return cmp.Or(cmp.Compare(b.All, a.All), newest(a.Last).Compare(newest(b.Last))*-1, strings.Compare(a.Name, b.Name))
	})
	return out
}

func newest(r *archive.Row) time.Time {
	if r == nil {
		return time.Time{}
	}
	return r.ReceivedAt
}

// lastOf finds a source's last delivery, and measures the lag of its last published ones. Of
// most sources of many nothing has come since they were looked at before: then that stands.
func lastOf(ctx context.Context, a Archive, v *sourceView, before sourceView) {
	if time.Since(before.settled) < settledFor {
		page, err := a.Query(ctx, archive.Filter{Source: v.Name, Limit: 1})
		if err == nil && len(page.Rows) > 0 && page.Rows[0].ID == before.Last.ID {
			v.Last, v.LagP99, v.LagOf, v.settled = before.Last, before.LagP99, before.LagOf, before.settled
			return
		}
	}
	page, err := a.Query(ctx, archive.Filter{Source: v.Name, Limit: lagRows})
	if err != nil || len(page.Rows) == 0 {
		return
	}
	v.Last = &page.Rows[0]
	var published []*archive.Row
	var ids []string
	open := false
	for i := range page.Rows {
		r := &page.Rows[i]
		open = open || stateOf(r) == archive.Pending || r.Outcome == archive.Held.String()
		if r.Outcome == archive.Published.String() {
			published, ids = append(published, r), append(ids, r.ID)
		}
	}
	outcomes, err := a.FirstOutcomes(ids, func(o *archive.Outcome) bool { return o.Kind == archive.Published && o.Replay == "" })
	if err != nil {
		return
	}
	lags := make([]time.Duration, 0, len(ids))
	for i := range outcomes {
		if outcomes[i].Kind == archive.Published {
			lags = append(lags, outcomes[i].At.Sub(published[i].ReceivedAt))
		}
	}
	if v.LagOf = len(lags); len(lags) > 0 {
		slices.Sort(lags)
		v.LagP99 = lags[min(len(lags)-1, len(lags)*99/100)]
	}
	if !open {
		v.settled = time.Now()
	}
}

type sourcePage struct {
	frame
	Source    sourceView
	Setup     Setup
	HasSetup  bool
	Histogram *histogram
	Rows      []rowView
	Tenants   int // merchants behind it; -1: it has one
	CanTest   bool
	SentID    string
}

func (s *Server) pageSource(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	name := r.PathValue("name")
	v, p := s.oneSource(r.Context(), name)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	page := sourcePage{frame: s.frame(r, "Source "+name, "sources", who), Source: v, Tenants: -1}
	now := s.o.Now()
	err := s.lane.look(r.Context(), func(a Archive) {
		page.Histogram = s.histogram(r.Context(), a, url.Values{"source": {name}}, archive.Filter{Source: name, From: now.Add(-countRange)})
		if rows, err := a.Query(r.Context(), archive.Filter{Source: name, Limit: 2 * topRows}); err == nil {
			page.Rows = viewRows(rows.Rows)
		}
	})
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	if s.o.Helper != nil {
		if setup, err := s.o.Helper.Setup(r.Context(), name); err == nil {
			page.Setup, page.HasSetup, page.CanTest = setup, true, who.role == Operator
		}
	}
	if s.o.Tenants != nil {
		if list, err := s.o.Tenants.Tenants(r.Context(), name); err == nil {
			page.Tenants = len(list)
		}
	}
	return s.render(w, http.StatusOK, "source.html", page)
}

func (s *Server) oneSource(ctx context.Context, name string) (sourceView, *problem) {
	if s.o.Sources == nil {
		return sourceView{}, notHere("the list of sources")
	}
	list, err := s.o.Sources.List(ctx)
	if err != nil {
		return sourceView{}, s.failure(err)
	}
	i := slices.IndexFunc(list, func(i SourceInfo) bool { return i.Name == name })
	if i < 0 {
		return sourceView{}, refuse(http.StatusNotFound, "not_found", fmt.Sprintf("no source is called %q", name))
	}
	all := s.viewSources(ctx, list)
	return all[slices.IndexFunc(all, func(v sourceView) bool { return v.Name == name })], nil
}

func (s *Server) pagePause(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	return s.pageSetPaused(w, r, who, true)
}

func (s *Server) pageResume(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	return s.pageSetPaused(w, r, who, false)
}

func (s *Server) pageSetPaused(w http.ResponseWriter, r *http.Request, who secretToken, paused bool) *problem {
	if p := s.changePaused(r, who, paused); p != nil {
		return s.pageProblem(w, r, who, p)
	}
	what := "resumed"
	if paused {
		what = "paused"
	}
	return done(w, r, "/sources/"+url.PathEscape(r.PathValue("name")), what)
}

// pageTest sends a signed test event and leads to what became of it.
func (s *Server) pageTest(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	sent, p := s.startTest(r, r.PostFormValue("type"), who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	http.Redirect(w, r, "/deliveries/"+url.PathEscape(sent.Delivery), http.StatusSeeOther)
	return nil
}
