package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"penstock/archive"
)

type overviewPage struct {
	frame
	Histogram *histogram
	Hour, Day archive.CountRow
	Counted   bool // Hour is
	State     State
	Known     bool // State is
	Degraded  []string
	Unready   string
	AckP50    time.Duration
	AckP99    time.Duration
	LagP99    time.Duration
	Sources   []sourceCount
	Refused   []rowView
	Unknown   []unknownView
	Older     int // unknown paths beyond those
}

// sourceCount is a source's share of the day.
type sourceCount struct {
	Name string
	archive.CountRow
	All int64
}

const (
	topSources = 8
	topRows    = 5
)

func (s *Server) pageOverview(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	p := overviewPage{frame: s.frame(r, "Overview", "overview", who)}
	p.Refresh = true
	if err := s.lookOver(r.Context(), &p); err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	p.Unknown = s.unknown(r.Context(), p.State.Unknown)
	if len(p.Unknown) > topRows {
		p.Older, p.Unknown = len(p.Unknown)-topRows, p.Unknown[:topRows]
	}
	return s.render(w, http.StatusOK, "overview.html", p)
}

// lookOver fills in what the page and the API say alike; alerts that need no look into the
// archive are there already.
func (s *Server) lookOver(ctx context.Context, p *overviewPage) error {
	now := s.o.Now()
	v := url.Values{"from": {"-24h"}}
	err := s.lane.look(ctx, func(a Archive) {
		if p.Histogram = s.histogram(ctx, a, v, archive.Filter{From: now.Add(-countRange)}); p.Histogram != nil {
			p.Day, p.Sources = p.Histogram.Total, busiest(p.Histogram.sources)
		}
		if c, err := a.Counts(ctx, now.Add(-time.Hour), now, time.Minute, ""); err == nil {
			p.Hour, p.Counted = c.Total, true
			p.Alerts = append(p.Alerts, refusing(c.Sources)...)
		}
		p.Alerts = append(p.Alerts, died(ctx, a, now)...)
		if page, err := a.Query(ctx, archive.Filter{Verdict: archive.Rejected.String(), From: now.Add(-countRange), Limit: topRows}); err == nil {
			p.Refused = viewRows(page.Rows)
		}
	})
	if err != nil {
		return err
	}
	p.Alerts = append(p.Alerts, s.paused(ctx)...)
	if s.o.Health != nil {
		h := s.o.Health()
		p.Degraded = h.Degraded
		if h.Unready != nil {
			p.Unready = h.Unready.Error()
		}
	}
	if s.o.State != nil {
		p.State, p.Known = s.o.State(ctx), true
	}
	m := s.sharedMetrics(ctx)
	p.AckP50 = quantiles(m, 0.5, "penstock_ack_seconds")["penstock_ack_seconds"]
	q := quantiles(m, 0.99, "penstock_ack_seconds", "penstock_publish_lag_seconds")
	p.AckP99, p.LagP99 = q["penstock_ack_seconds"], q["penstock_publish_lag_seconds"]
	return nil
}

// Refusals within an hour that want attention: so many of a source, and of what came from it.
const (
	manyRefused  = 10
	manyOfTenths = 2
)

// refusing tells of sources much of whose deliveries are refused.
func refusing(counts map[string]archive.CountRow) (out []alert) {
	for _, name := range sortedKeys(counts) {
		c := counts[name]
		if all := c.Accepted + c.Rejected + c.Challenge; name != "" && c.Rejected >= manyRefused && 10*c.Rejected > manyOfTenths*all {
			out = append(out, alert{"many_refused", "warn", name + ": " + count(c.Rejected) + " of " + count(all) + " deliveries were refused within an hour.", "/?verdict=rejected&from=-1h&source=" + url.QueryEscape(name)})
		}
	}
	return out
}

// manyDead is up to where dead letters are counted one by one: of more than a few it does not
// matter how many, and each is a row to be read.
const manyDead = 20

// died tells of what was answered 2xx within a day and could not be published: nobody else
// looks at it, and it does not mend itself.
func died(ctx context.Context, a Archive, now time.Time) []alert {
	page, err := a.Query(ctx, archive.Filter{Outcome: archive.Dead.String(), From: now.Add(-countRange), Limit: manyDead})
	n := 0
	for i := range page.Rows { // one that was driven again since then has its event out
		if page.Rows[i].Outcome == archive.Dead.String() {
			n++
		}
	}
	if err != nil || n == 0 {
		return nil
	}
	text := count(int64(n))
	if page.Next != "" {
		text = "More than " + text
	}
	if text += " deliveries of the last day are dead letters: accepted and not publishable."; n == 1 && page.Next == "" {
		text = "1 delivery of the last day is a dead letter: accepted and not publishable."
	}
	return []alert{{"dead_letters", "bad", text, "/refused#dead"}}
}

// paused tells of sources that publish nothing because somebody said so.
func (s *Server) paused(ctx context.Context) (out []alert) {
	if s.o.Sources == nil {
		return nil
	}
	list, err := s.o.Sources.List(ctx)
	if err != nil {
		return nil // the page is worth having without
	}
	for i := range list {
		if list[i].Paused {
			out = append(out, alert{"source_paused", "warn", list[i].Name + " is paused: its deliveries are taken and held.", "/sources/" + url.PathEscape(list[i].Name)})
		}
	}
	return out
}

func busiest(counts map[string]archive.CountRow) (out []sourceCount) {
	for name, c := range counts {
		if name != "" {
			out = append(out, sourceCount{Name: name, CountRow: c, All: c.Accepted + c.Rejected + c.Challenge})
		}
	}
	slices.SortFunc(out, func(a, b sourceCount) int { return cmp.Or(cmp.Compare(b.All, a.All), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), topSources)]
}

// unknownView is a path that belongs to no source, with the one that was probably meant.
type unknownView struct {
	UnknownPath
	Meant     string `json:"meant_path,omitempty"` // of the source
	MeantName string `json:"meant_source,omitempty"`
}

func (s *Server) unknown(ctx context.Context, list []UnknownPath) []unknownView {
	var sources []SourceInfo
	if s.o.Sources != nil && len(list) > 0 {
		sources, _ = s.o.Sources.List(ctx) // without it nothing is suggested
	}
	out := make([]unknownView, len(list))
	for i := range list {
		out[i].UnknownPath = list[i]
		if n := meant(list[i].Path, sources); n >= 0 {
			out[i].Meant, out[i].MeantName = sources[n].Path, sources[n].Name
		}
	}
	return out
}
