package forward

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"penstock/archive"
)

// runJobs runs jobs, each in a goroutine of its own, until ctx ends.
func (p *Pump) runJobs(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ended := make(chan *job)
	running := map[string]bool{}
	byFilter := 0
	for ctx.Err() == nil {
		for _, j := range p.openJobs() {
			filter := len(j.IDs) == 0
			if running[j.ID] || filter && byFilter == maxFilterJobs || !filter && len(running)-byFilter == maxIDJobs {
				continue
			}
			if filter {
				byFilter++
			}
			running[j.ID] = true
			wg.Go(func() {
				p.runJob(ctx, j)
				select {
				case ended <- j:
				case <-ctx.Done():
				}
			})
		}
		select {
		case j := <-ended:
			delete(running, j.ID)
			if len(j.IDs) == 0 {
				byFilter--
			}
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// openJobs are those that have not ended, oldest first.
func (p *Pump) openJobs() []*job {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	var open []*job
	for _, j := range p.jobs {
		if s := j.snapshot(); s.open() {
			open = append(open, j)
		}
	}
	slices.SortFunc(open, func(a, b *job) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID)) })
	return open
}

func (p *Pump) runJob(ctx context.Context, j *job) {
	jctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.mu.Lock()
	j.cancel = cancel
	if j.State == JobQueued {
		j.State = JobRunning
	}
	open := j.open()
	j.mu.Unlock()
	if !open { // canceled at this moment
		return
	}
	err := p.replayAll(jctx, j)
	switch {
	case ctx.Err() != nil:
		return // goes on after the restart from LastSeq
	case err != nil && jctx.Err() == nil:
		j.end(JobFailed, err, p.o.Now())
	default:
		j.end(JobDone, nil, p.o.Now())
	}
	if err := p.saveJob(j); err != nil {
		p.log.Warn("end of a replay job is not kept", zap.Error(err))
	}
}

// replayAll finds the deliveries, then publishes them oldest first: an entity's history
// is replayed in its order.
func (p *Pump) replayAll(ctx context.Context, j *job) error {
	seqs, err := p.find(ctx, j)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.Found = seqs.n
	first, after := j.FirstSeq, j.LastSeq
	if first == 0 { // later, a filter by outcome may find others in place of those that are done
		for first = range seqs.ascending() {
			break
		}
		j.FirstSeq = first
	}
	lim := rate.NewLimiter(rate.Limit(j.Rate), max(1, int(j.Rate/20)))
	j.mu.Unlock()
	if err := p.saveJob(j); err != nil {
		return err
	}
	saved := time.Now()
	for seq := range seqs.ascending() {
		if seq <= after || seq < first {
			continue
		}
		if err := p.replayOne(ctx, j, seq, lim); err != nil {
			return err
		}
		if time.Since(saved) > time.Second {
			// A place is only kept when all before it has arrived.
			if err := p.drainLane(ctx, j); err != nil {
				return err
			}
			saved = time.Now()
			j.mu.Lock()
			j.LastSeq = seq
			j.mu.Unlock()
			if err := p.saveJob(j); err != nil {
				return err
			}
		}
	}
	return p.drainLane(ctx, j)
}

func (p *Pump) drainLane(ctx context.Context, j *job) error {
	for len(j.slots) > 0 {
		sleepCtx(ctx, 2*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// find gathers what the job means: of a filter with a limit the newest that were accepted.
func (p *Pump) find(ctx context.Context, j *job) (*seqSet, error) {
	if err := p.indexed(ctx); err != nil {
		return nil, fmt.Errorf("find what to replay: %w", err)
	}
	seqs := &seqSet{}
	for _, id := range j.IDs {
		d, err := p.o.Archive.Get(id)
		if err != nil {
			return nil, fmt.Errorf("replay delivery %s: %w", id, err)
		}
		seqs.add(d.Seq)
	}
	if len(j.IDs) > 0 {
		return seqs, nil
	}
	f := j.Filter
	f.Limit = archive.MaxLimit
	for {
		page, err := p.o.Archive.Query(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("find what to replay: %w", err)
		}
		for i := range page.Rows {
			if page.Rows[i].Verdict != archive.Accepted.String() {
				continue
			}
			if seqs.add(page.Rows[i].Seq); seqs.n == j.Filter.Limit {
				return seqs, nil
			}
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			return seqs, nil
		}
	}
}

// indexed waits until the index has what is synced now: a job that asked it before would
// miss what was received in its last moments and, after a kill, do twice what it had done.
func (p *Pump) indexed(ctx context.Context) error {
	for seq := p.o.Archive.Synced(); p.o.Archive.Indexed() < seq; sleepCtx(ctx, 5*time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := p.o.Archive.Outcomes(seq); err != nil {
			return err
		}
	}
	return nil
}

// replayOne sends the published events of one delivery again.
func (p *Pump) replayOne(ctx context.Context, j *job, seq uint64, lim *rate.Limiter) error {
	os, err := p.outcomes(seq)
	if err != nil {
		return fmt.Errorf("read outcomes of %d: %w", seq, err)
	}
	todo, done := toReplay(&Job{ID: j.ID, IDs: j.IDs, Filter: j.Filter, Created: j.Created}, os)
	j.mu.Lock()
	for _, o := range done {
		j.counts(o)
	}
	j.mu.Unlock()
	if len(todo) == 0 && len(done) > 0 {
		return nil
	}
	d, err := p.o.Archive.GetSeq(seq)
	if err != nil || len(todo) == 0 {
		j.mu.Lock()
		j.Skipped++
		j.mu.Unlock()
		return nil
	}
	for i := range todo {
		o := todo[i].o
		ev := &parcel{ref: ref{d.Seq, o.Item}, delivery: d.ID, source: p.source(d.Source), replay: j, redrive: todo[i].redrive, unasked: true,
			items: o.Items, received: d.ReceivedAt, repeats: o.Of}
		if d.Verdict == archive.Rejected {
			ev.released = &release{VerifiedBy: "operator"}
		}
		if err := p.loadFrom(ev, d); err != nil {
			return err
		}
		ev.unasked = true
		if err := lim.Wait(ctx); err != nil {
			return err
		}
		if err := p.intoLane(ctx, j, ev); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pump) intoLane(ctx context.Context, j *job, ev *parcel) error {
	select {
	case j.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case p.control <- func(c *core) {
		c.works++
		c.bytes += ev.size
		c.stage(ev)
	}:
		return nil
	case <-ctx.Done():
		<-j.slots
		return ctx.Err()
	}
}
