package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"penstock/archive"
)

type jobsPage struct {
	frame
	Jobs    []jobView
	Running bool
}

// jobView is a job with what can be done about it.
type jobView struct {
	Job
	Running bool
	Params  []string // of its filter, for people
	Href    string   // the view with that filter
}

// paramsOf writes a filter as people read it.
func paramsOf(query string) (out []string) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	for _, name := range sortedKeys(v) {
		value := v.Get(name)
		if at, err := time.Parse(time.RFC3339, value); err == nil && (name == "from" || name == "to") {
			value = at.UTC().Format(time.DateTime)
		}
		out = append(out, strings.ReplaceAll(name, "_", " ")+" "+value)
	}
	return out
}

func (s *Server) pageJobs(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Replayer == nil {
		return s.pageProblem(w, r, who, notHere("replay"))
	}
	p := jobsPage{frame: s.frame(r, "Replays", "replays", who)}
	p.Refresh = true
	jobs, err := s.o.Replayer.Jobs(r.Context())
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	if job := r.URL.Query().Get("job"); job != "" {
		p.Notice = "Replay started: job " + job
	}
	for _, j := range jobs {
		v := jobView{Job: j, Running: j.FinishedAt == nil && (j.State == "running" || j.State == "queued")}
		p.Running = p.Running || v.Running
		if v.Params = paramsOf(j.Query); v.Params != nil {
			v.Href = "/?" + j.Query
		}
		p.Jobs = append(p.Jobs, v)
	}
	return s.render(w, http.StatusOK, "replays.html", p)
}

// pageReplayAll publishes again what a view finds.
func (s *Server) pageReplayAll(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Replayer == nil {
		return s.pageProblem(w, r, who, notHere("replay"))
	}
	f, p := s.viewFilter(r, who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	job, err := s.o.Replayer.Replay(r.Context(), Selection{Filter: &f}, who.name)
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	http.Redirect(w, r, "/replays?job="+url.QueryEscape(job.ID), http.StatusSeeOther)
	return nil
}

// viewFilter reads the filter of a view out of a form. Everything there is must be asked
// for through the API, in words: a form that lost its filter must not replay it.
func (s *Server) viewFilter(r *http.Request, who secretToken) (archive.Filter, *problem) {
	v, err := url.ParseQuery(r.PostFormValue("filter"))
	if err != nil {
		return archive.Filter{}, refuse(http.StatusBadRequest, "invalid_parameter", "the form's filter cannot be read")
	}
	note(r, v.Encode())
	f, p := s.filter(v, who)
	if p != nil {
		return f, p
	}
	if f.Text != "" {
		return f, refuse(http.StatusBadRequest, "invalid_parameter", "text: is for lists and exports; narrow the view by its other filters")
	}
	f.Limit, f.Cursor = 0, ""
	if f == (archive.Filter{}) {
		return f, refuse(http.StatusBadRequest, "invalid_parameter", "the view has no filter; narrow it first")
	}
	return f, nil
}

func (s *Server) pageCancel(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Replayer == nil {
		return s.pageProblem(w, r, who, notHere("replay"))
	}
	if _, err := s.o.Replayer.Cancel(r.Context(), r.PathValue("id"), who.name); err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	return done(w, r, "/replays", "canceled")
}

type refusedPage struct {
	frame
	Groups  []refusedGroup
	More    bool // there are older refusals than those that were looked at
	Dead    []deadView
	DeadTop bool
	Sampled []SampledAway
	Looked  int
	CanDo   bool
	CanPush bool // drive dead letters again
}

// refusedGroup are refusals of one source for one reason.
type refusedGroup struct {
	Source, Reason, Why string
	Count               int
	First, Last         time.Time
	Sample              string // id of the newest
	Filter, Href        string
}

// deadView is a dead letter with its reason.
type deadView struct {
	rowView
	Why string
}

// deadRows bounds the dead letters of the page; the list has them all.
const deadRows = 50

func (s *Server) pageRefused(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	p := refusedPage{frame: s.frame(r, "Refused and dead", "refused", who), CanDo: who.role == Operator && s.o.Reverifier != nil, CanPush: who.role == Operator && s.o.Replayer != nil}
	var err error
	late := s.lane.look(r.Context(), func(a Archive) { err = p.fill(r.Context(), a) })
	if err = errors.Join(late, err); err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	if s.o.State != nil {
		p.Sampled = s.o.State(r.Context()).SampledAway
	}
	v := r.URL.Query()
	if text := v.Get("looked"); text != "" {
		var n [4]int
		if _, err := fmt.Sscanf(text, "%d-%d-%d-%d", &n[0], &n[1], &n[2], &n[3]); err == nil {
			p.Notice = fmt.Sprintf("%d looked at: %d released, %d left as they were, %d failed.", n[0], n[1], n[2], n[3])
		}
	}
	return s.render(w, http.StatusOK, "refused.html", p)
}

// fill looks for what was refused, and for the dead letters with their reasons.
func (p *refusedPage) fill(ctx context.Context, a Archive) error {
	page, err := a.Query(ctx, archive.Filter{Verdict: archive.Rejected.String(), Limit: archive.MaxLimit})
	if err != nil {
		return err
	}
	p.Groups, p.Looked, p.More = groupRefused(page.Rows), len(page.Rows), page.Next != ""
	dead, err := a.Query(ctx, archive.Filter{Outcome: archive.Dead.String(), Limit: deadRows})
	if err != nil {
		return err
	}
	p.DeadTop = dead.Next != ""
	ids := make([]string, len(dead.Rows))
	for i := range dead.Rows {
		p.Dead = append(p.Dead, deadView{rowView: viewRow(&dead.Rows[i])})
		ids[i] = dead.Rows[i].ID
	}
	outcomes, err := a.FirstOutcomes(ids, func(o *archive.Outcome) bool { return o.Kind == archive.Dead })
	if err != nil {
		return nil // the page is worth having without the reasons
	}
	for i := range outcomes {
		p.Dead[i].Why = cmp.Or(deadWords[outcomes[i].Reason], outcomes[i].Reason)
	}
	return nil
}

// groupRefused puts together what is refused for the same reason; newest group first.
func groupRefused(rows []archive.Row) (out []refusedGroup) {
	at := map[[2]string]int{}
	for i := range rows {
		r := &rows[i]
		if r.Outcome != "" && r.Outcome != archive.Dead.String() {
			continue // released meanwhile
		}
		key := [2]string{r.Source, r.Reason}
		n, ok := at[key]
		if !ok {
			n = len(out)
			at[key] = n
			f := url.Values{"verdict": {archive.Rejected.String()}, "source": {r.Source}, "reason": {r.Reason}}
			out = append(out, refusedGroup{Source: r.Source, Reason: r.Reason, Why: reasonWords[r.Reason], Last: r.ReceivedAt, Sample: r.ID, Filter: f.Encode(), Href: "/?" + f.Encode()})
		}
		out[n].Count++
		out[n].First = r.ReceivedAt
	}
	slices.SortStableFunc(out, func(a, b refusedGroup) int { return b.Last.Compare(a.Last) })
	return out
}

// pageReverifyAll checks a group of refusals again with today's credentials.
func (s *Server) pageReverifyAll(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Reverifier == nil {
		return s.pageProblem(w, r, who, notHere("re-verify"))
	}
	f, p := s.viewFilter(r, who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	if f.Verdict != archive.Rejected.String() {
		return s.pageProblem(w, r, who, refuse(http.StatusBadRequest, "invalid_parameter", "verdict: only rejected deliveries are re-verified"))
	}
	job, err := s.o.Reverifier.ReverifyAll(r.Context(), f, false, who.name)
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	http.Redirect(w, r, fmt.Sprintf("/refused?looked=%d-%d-%d-%d", max(job.Total, 0), job.Done, job.Skipped, job.Failed), http.StatusSeeOther)
	return nil
}
