package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"penstock/archive"
)

// The states of a job.
const (
	JobQueued   = "queued" // as many as may run do so already
	JobRunning  = "running"
	JobDone     = "done"
	JobCanceled = "canceled"
	JobFailed   = "failed"
)

// Job is a replay: publishing again on purpose. It asks no dedupe, proves nothing and
// has its own lane and rate.
type Job struct {
	ID       string         `json:"id"`
	State    string         `json:"state"`
	By       string         `json:"by,omitempty"`
	Created  time.Time      `json:"created"`
	Ended    time.Time      `json:"ended,omitzero"`
	Rate     float64        `json:"rate"` // events per second
	IDs      []string       `json:"ids,omitempty"`
	Filter   archive.Filter `json:"filter,omitzero"`
	Found    int            `json:"found"`               // deliveries
	Events   int            `json:"events"`              // published again
	Skipped  int            `json:"skipped"`             // deliveries without a published event
	Failed   int            `json:"failed"`              // events that became dead letters
	FirstSeq uint64         `json:"first_seq,omitempty"` // of the first delivery that it found
	LastSeq  uint64         `json:"last_seq"`            // deliveries up to here are through
	Error    string         `json:"error,omitempty"`
}

// ReplayRequest says what to publish again: deliveries by id, or all that a filter
// finds and that were published.
type ReplayRequest struct {
	IDs    []string
	Filter *archive.Filter
	Rate   float64 // events per second; 0 = Options.ReplayRate
	By     string  // who asked
}

// maxJobs bounds the jobs that are remembered; ended ones go first, oldest first.
const maxJobs = 1000

// maxReplayIDs bounds one request by ids.
const maxReplayIDs = 10_000

// What runs at once; others are queued, oldest first. A filter may mean millions and take
// hours, so what is asked for by id never waits behind one.
const (
	maxFilterJobs = 4
	maxIDJobs     = 32
)

// inLane is how many events of one job are on their way at once: enough to fill
// batches, little enough to be no burden for live traffic.
const inLane = 256

// open says that the job has not ended.
func (j *Job) open() bool { return j.State == JobRunning || j.State == JobQueued }

type job struct {
	Job
	mu     sync.Mutex // protects Job
	cancel context.CancelFunc
	slots  chan struct{}
}

// Replay starts a job and returns it. ErrNotPublished when a delivery asked for by id
// was rejected or has no published event; archive.ErrNotFound when there is none.
func (p *Pump) Replay(ctx context.Context, r ReplayRequest) (Job, error) {
	if (len(r.IDs) == 0) == (r.Filter == nil) {
		return Job{}, errors.New("a replay wants ids or a filter")
	}
	if len(r.IDs) > maxReplayIDs {
		return Job{}, fmt.Errorf("a replay takes up to %d ids, use a filter", maxReplayIDs)
	}
	for _, id := range r.IDs {
		d, err := p.o.Archive.Get(id)
		if err != nil {
			return Job{}, fmt.Errorf("replay delivery %s: %w", id, err)
		}
		if ok, err := p.wasPublished(d); err != nil || !ok {
			return Job{}, fmt.Errorf("replay delivery %s: %w", id, errors.Join(ErrNotPublished, err))
		}
	}
	now := p.o.Now()
	j := newJob(Job{ID: ulid.MustNew(ulid.Timestamp(now), ulid.DefaultEntropy()).String(), State: JobQueued, By: r.By,
		Created: now, Rate: r.Rate, IDs: r.IDs})
	if r.Filter != nil {
		j.Filter = *r.Filter
		if j.Filter.To.IsZero() || j.Filter.To.After(now) {
			j.Filter.To = now // what comes later is not meant
		}
	}
	if j.Rate <= 0 {
		j.Rate = p.o.ReplayRate
	}
	if err := p.saveJob(j); err != nil {
		return Job{}, err
	}
	p.stateMu.Lock()
	p.jobs[j.ID] = j
	p.trimJobs()
	p.stateMu.Unlock()
	return j.snapshot(), nil
}

func newJob(j Job) *job { return &job{Job: j, slots: make(chan struct{}, inLane)} }

func (j *job) snapshot() Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.Job
}

// Replays lists the jobs, newest first.
func (p *Pump) Replays() []Job {
	p.stateMu.Lock()
	js := slices.Collect(maps.Values(p.jobs))
	p.stateMu.Unlock()
	out := make([]Job, len(js))
	for i, j := range js {
		out[i] = j.snapshot()
	}
	slices.SortFunc(out, func(a, b Job) int { return b.Created.Compare(a.Created) })
	return out
}

// ReplayJob returns one job; ErrNoJob when there is none of that id.
func (p *Pump) ReplayJob(id string) (Job, error) {
	p.stateMu.Lock()
	j := p.jobs[id]
	p.stateMu.Unlock()
	if j == nil {
		return Job{}, ErrNoJob
	}
	return j.snapshot(), nil
}

// CancelReplay ends a job; what is in its lane already still arrives.
func (p *Pump) CancelReplay(id string) (Job, error) {
	p.stateMu.Lock()
	j := p.jobs[id]
	p.stateMu.Unlock()
	if j == nil {
		return Job{}, ErrNoJob
	}
	j.end(JobCanceled, nil, p.o.Now())
	return j.snapshot(), p.saveJob(j)
}

func (j *job) end(state string, err error, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.open() {
		return
	}
	j.State, j.Ended = state, now
	if err != nil {
		j.Error = err.Error()
	}
	if j.cancel != nil {
		j.cancel()
	}
}

// done counts an event of the job; called by the core.
func (j *job) done(o *archive.Outcome) {
	j.mu.Lock()
	j.counts(o)
	j.mu.Unlock()
	<-j.slots
}

// counts is done without the lane; the caller holds mu.
func (j *job) counts(o *archive.Outcome) {
	if o.Kind == archive.Published {
		j.Events++
	} else {
		j.Failed++
	}
}

func (p *Pump) saveJob(j *job) error {
	b, err := json.Marshal(j.snapshot())
	if err != nil {
		return fmt.Errorf("encode replay job %s: %w", j.ID, err)
	}
	if err := p.o.Archive.State().Commit(archive.Change{Key: p.jobPrefix() + j.ID, Value: b}); err != nil {
		return fmt.Errorf("keep replay job %s: %w", j.ID, err)
	}
	return nil
}

func (p *Pump) loadJobs(st State) {
	st.Range(p.jobPrefix(), func(key string, v []byte) bool {
		var j Job
		if err := json.Unmarshal(v, &j); err != nil {
			p.log.Warn("replay job cannot be read", zap.String("key", key), zap.Error(err))
			return true
		}
		p.jobs[j.ID] = newJob(j)
		return true
	})
}

// trimJobs forgets the oldest ended jobs; the caller holds stateMu.
func (p *Pump) trimJobs() {
	for len(p.jobs) > maxJobs {
		var oldest *job
		for _, j := range p.jobs {
			s := j.snapshot()
			if !s.open() && (oldest == nil || s.Created.Before(oldest.Created)) {
				oldest = j
			}
		}
		if oldest == nil {
			return
		}
		delete(p.jobs, oldest.ID)
		if err := p.o.Archive.State().Commit(archive.Change{Key: p.jobPrefix() + oldest.ID}); err != nil {
			p.log.Warn("ended replay job is not forgotten", zap.Error(err))
		}
	}
}

// wasPublished says whether a delivery can be replayed: it has an event that was published,
// or one that became a dead letter and is driven again.
func (p *Pump) wasPublished(d *archive.Delivery) (bool, error) {
	os, err := p.outcomes(d.Seq)
	if err != nil {
		return false, fmt.Errorf("read outcomes: %w", err)
	}
	return slices.ContainsFunc(os, func(o archive.Outcome) bool { return isLivePublished(o) || isDeadLetter(o) }), nil
}

func isDeadLetter(o archive.Outcome) bool { return o.Kind == archive.Dead && o.Replay == "" }

// wasDead says that an event is a dead letter and nothing else: what publishes it now is
// the first to do so.
func (p *Pump) wasDead(seq uint64, item int) bool {
	os, err := p.outcomes(seq)
	if err != nil {
		return false
	}
	dead := false
	for i := range os {
		if os[i].Item == item {
			dead = dead || isDeadLetter(os[i])
			if isLivePublished(os[i]) {
				return false
			}
		}
	}
	return dead
}

// encore is one event of a delivery that a job publishes.
type encore struct {
	o       *archive.Outcome
	redrive bool
}

// toReplay picks what a job publishes of a delivery, by its outcomes in their order: what
// was published, and the dead letters where the job names the delivery or asks for those.
// What this job did before it was cut off is done: it is not published a second time.
func toReplay(j *Job, os []archive.Outcome) (todo []encore, done []*archive.Outcome) {
	dead := map[int]*archive.Outcome{}
	live := map[int]*archive.Outcome{}
	mine := map[int]*archive.Outcome{}
	for i := range os {
		o := &os[i]
		switch {
		case o.Replay == j.ID:
			mine[o.Item] = o
		case isDeadLetter(*o):
			dead[o.Item] = o
		case isLivePublished(*o) && live[o.Item] == nil:
			live[o.Item] = o
		}
	}
	for _, o := range mine {
		done = append(done, o)
	}
	drives := len(j.IDs) > 0 || j.Filter.Outcome == archive.Dead.String()
	for item, o := range live {
		switch {
		case mine[item] != nil:
		case dead[item] == nil || o.At.Before(j.Created):
			todo = append(todo, encore{o, false})
		case drives: // since the job began, so it is what the job was to do
			done = append(done, o)
		}
	}
	if drives {
		for item, o := range dead {
			if live[item] == nil && mine[item] == nil {
				todo = append(todo, encore{o, true})
			}
		}
	}
	slices.SortFunc(todo, func(a, b encore) int { return a.o.Item - b.o.Item })
	return todo, done
}

func isLivePublished(o archive.Outcome) bool { return o.Kind == archive.Published && o.Replay == "" }

// outcomes are those of this pump's sink: what another one has says nothing here.
func (p *Pump) outcomes(seq uint64) ([]archive.Outcome, error) {
	os, err := p.o.Archive.Outcomes(seq)
	return slices.DeleteFunc(os, func(o archive.Outcome) bool { return !p.ours(o.Sink) }), err
}
