package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"penstock/admin"
	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/forward"
	"penstock/provider"
	"penstock/verify"
)

// operator fills admin's interfaces: what people may do to a running gateway.
type operator struct{ *program }

// Replay publishes again by the pump that the selection names: by Kafka's where it names
// none and there is one.
func (o operator) Replay(ctx context.Context, s admin.Selection, by string) (admin.Job, error) {
	pump := o.pump
	switch {
	case s.Sink == "" || s.Sink == pump.Kind():
	case o.beside != nil && s.Sink == o.beside.Kind():
		pump = o.beside
	default:
		return admin.Job{}, fmt.Errorf("%w: no sink %s is configured", admin.ErrConflict, s.Sink)
	}
	j, err := pump.Replay(ctx, forward.ReplayRequest{IDs: s.IDs, Filter: s.Filter, Rate: s.Rate, By: by})
	return adminJob(j), adminError(err)
}

func (o operator) Jobs(context.Context) (out []admin.Job, err error) {
	o.eachPump(func(pump *forward.Pump) {
		for _, j := range pump.Replays() {
			out = append(out, adminJob(j))
		}
	})
	return out, nil
}

func (o operator) Job(_ context.Context, id string) (admin.Job, error) {
	j, err := o.pumpOf(id).ReplayJob(id)
	return adminJob(j), adminError(err)
}

func (o operator) Cancel(_ context.Context, id, _ string) (admin.Job, error) {
	j, err := o.pumpOf(id).CancelReplay(id)
	return adminJob(j), adminError(err)
}

// pumpOf is the pump that has the job.
func (o operator) pumpOf(job string) *forward.Pump {
	if o.beside != nil {
		if _, err := o.beside.ReplayJob(job); err == nil {
			return o.beside
		}
	}
	return o.pump
}

func adminJob(j forward.Job) admin.Job {
	out := admin.Job{ID: j.ID, Kind: "replay", State: j.State, By: j.By, Total: int64(j.Found), Done: int64(j.Events), Skipped: int64(j.Skipped), Failed: int64(j.Failed),
		Rate: j.Rate, Error: j.Error, CreatedAt: j.Created}
	switch len(j.IDs) {
	case 0:
		out.Query = j.Filter.Params().Encode()
	case 1:
		out.Delivery = j.IDs[0]
	}
	if j.Ended.IsZero() && j.Found == 0 { // still looking
		out.Total = -1
	}
	if !j.Ended.IsZero() {
		out.FinishedAt = &j.Ended
	}
	return out
}

// adminError puts an error into admin's classes, with its own words kept.
func adminError(err error) error {
	class := func(c error) error { return fmt.Errorf("%w: %w", c, err) }
	switch {
	case err == nil:
		return nil
	case errors.Is(err, archive.ErrNotFound), errors.Is(err, forward.ErrNoJob):
		return class(admin.ErrNotFound)
	case errors.Is(err, forward.ErrNotPublished), errors.Is(err, forward.ErrNotRejected), errors.Is(err, forward.ErrNotHeld):
		return class(admin.ErrConflict)
	}
	return class(admin.ErrUnavailable)
}

func (o operator) List(context.Context) (out []admin.SourceInfo, err error) {
	conf := o.conf.Load()
	var paused []string
	if o.pump != nil {
		paused = o.pump.Paused()
	}
	for i := range conf.Sources {
		s := &conf.Sources[i]
		info := admin.SourceInfo{Name: s.Name, Provider: s.Definition.(*provider.Definition).Name, Path: s.Path, Paused: slices.Contains(paused, s.Name)}
		o.describeSecrets(s, &info)
		out = append(out, info)
	}
	for _, name := range paused { // removed since: what it left behind waits
		if o.source(name) == nil {
			out = append(out, admin.SourceInfo{Name: name, Paused: true})
		}
	}
	return out, nil
}

func (o operator) Pause(_ context.Context, name, _ string) error  { return o.setPaused(name, true) }
func (o operator) Resume(_ context.Context, name, _ string) error { return o.setPaused(name, false) }

// Release publishes one delivery that a paused source holds.
func (o operator) Release(_ context.Context, id, by string) error {
	if o.pump == nil {
		return fmt.Errorf("%w: no sink is configured, so nothing is held", admin.ErrConflict)
	}
	err := o.pump.ReleaseHeld(id, by)
	if errors.Is(err, forward.ErrNotHeld) && o.beside != nil {
		err = o.beside.ReleaseHeld(id, by) // the marker is read by both: it is one release
	}
	return adminError(err)
}

func (o operator) setPaused(name string, on bool) error {
	if o.pump == nil {
		return fmt.Errorf("%w: no sink is configured, so nothing is published", admin.ErrConflict)
	}
	// What a removed source left behind is still published: it must be possible to resume it.
	if o.source(name) == nil && (on || !slices.Contains(o.pump.Paused(), name)) {
		return fmt.Errorf("%w: no source is called %q", admin.ErrNotFound, name)
	}
	return adminError(o.pause(name, on))
}

func (o operator) source(name string) *config.Source {
	conf := o.conf.Load()
	for i := range conf.Sources {
		if conf.Sources[i].Name == name {
			return &conf.Sources[i]
		}
	}
	return nil
}

// Reverify checks a refused delivery with today's credentials and the time of receipt as
// the clock, and releases it when it holds now.
func (o operator) Reverify(_ context.Context, id string, force bool, by string) (admin.Verification, error) {
	d, err := o.archive.Get(id)
	if err != nil {
		return admin.Verification{}, adminError(err)
	}
	if d.Verdict != archive.Rejected {
		return admin.Verification{}, fmt.Errorf("%w: the delivery was %s, not rejected", admin.ErrConflict, d.Verdict)
	}
	if err := o.notReleased(id); err != nil {
		return admin.Verification{}, err
	}
	s := o.source(d.Source)
	if s == nil {
		return admin.Verification{}, fmt.Errorf("%w: source %s is not configured any more", admin.ErrConflict, d.Source)
	}
	v, err := cli.NewVerifier(s, o.vault, o.keysOf)
	if err != nil {
		return admin.Verification{}, fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	r := provider.Request{Method: d.Method, Target: d.Target, PublicURL: s.URLOf(string(d.Target)), Header: d.Header, Body: d.Body, ReceivedAt: d.ReceivedAt, RemoteIP: d.RemoteIP}
	res := v.Verify(&r, d.ReceivedAt)
	out := admin.Verification{ID: id, Verdict: archive.Verdict(res.Verdict).String(), Reason: res.Reason}
	good := res.Verdict == verify.Accepted
	if !good && !force {
		return out, nil
	}
	if o.pump == nil {
		return out, fmt.Errorf("%w: no sink is configured, so nothing can be released", admin.ErrConflict)
	}
	if !o.releasing.begin(id) {
		return out, fmt.Errorf("%w: %w", admin.ErrConflict, errReleased)
	}
	if err := o.pump.Release(id, by, res.VerifiedBy, !good); err != nil {
		o.releasing.undo(id)
		return out, adminError(err)
	}
	out.Released, out.Forced = true, !good
	return out, nil
}

var errReleased = errors.New("the delivery was released already")

// Explain says why a delivery is refused, with the time of receipt as the clock.
func (o operator) Explain(_ context.Context, id string) (admin.Explained, error) {
	d, err := o.archive.Get(id)
	if err != nil {
		return admin.Explained{}, adminError(err)
	}
	s := o.source(d.Source)
	if s == nil {
		return admin.Explained{}, fmt.Errorf("%w: source %s is not configured any more", admin.ErrConflict, d.Source)
	}
	v, err := cli.NewVerifier(s, o.vault, o.keysOf)
	if err != nil {
		return admin.Explained{}, fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	r := provider.Request{Method: d.Method, Target: d.Target, PublicURL: s.URLOf(string(d.Target)), Header: d.Header, Body: d.Body, ReceivedAt: d.ReceivedAt, RemoteIP: d.RemoteIP}
	e := v.ExplainAmong(&r, d.ReceivedAt, cli.Surroundings(o.conf.Load(), s, &r, o.vault))
	out := admin.Explained{ID: id, Verdict: e.Verdict.String(), Reason: e.Reason, Where: e.Where, Template: e.Template, Hints: e.Hints, Fingerprints: []string{}}
	for _, k := range e.Keys {
		out.Fingerprints = append(out.Fingerprints, k.Credential+" "+k.Fingerprint)
	}
	if d.Reason == verify.IPNotAllowed {
		out.Hints = append([]string{fmt.Sprintf("its address %s is not on the source's list: add it to allow_ips, or set trusted_proxies where that is the address of a proxy of yours", d.RemoteIP)}, out.Hints...)
	}
	if out.Hints == nil {
		out.Hints = []string{}
	}
	return out, nil
}

// releases remembers what was released a moment ago: until the pump has written its
// outcome nothing else tells a second release from the first.
type releases struct {
	mu  sync.Mutex
	ids map[string]bool
}

// maxReleases bounds the memory; what falls out has its outcome long since.
const maxReleases = 10_000

func (r *releases) begin(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids[id] {
		return false
	}
	if r.ids == nil || len(r.ids) >= maxReleases {
		r.ids = map[string]bool{}
	}
	r.ids[id] = true
	return true
}

func (r *releases) undo(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, id)
}

// notReleased refuses to release again what a release has published or holds: each marker
// would be an event of its own.
func (o operator) notReleased(id string) error {
	outcomes, err := o.archive.OutcomesOf(id)
	if err != nil {
		return adminError(err)
	}
	if len(outcomes) > 0 {
		o.releasing.undo(id) // from here on its outcomes tell
	}
	for i := range outcomes {
		if k := outcomes[i].Kind; k != archive.Dead {
			return fmt.Errorf("%w: %w and is %s", admin.ErrConflict, errReleased, k)
		}
	}
	return nil
}

// maxReverify bounds one re-verification over a filter; it runs while the caller waits.
const maxReverify = 10_000

// ReverifyAll is Reverify for all that a filter finds.
func (o operator) ReverifyAll(ctx context.Context, f archive.Filter, force bool, by string) (admin.Job, error) {
	f.Verdict, f.Limit = archive.Rejected.String(), 500
	j := admin.Job{ID: "reverify-" + fmt.Sprint(time.Now().UnixNano()), Kind: "reverify", State: "done", By: by, CreatedAt: time.Now()}
	for {
		page, err := o.archive.Query(ctx, f)
		if err != nil {
			return j, adminError(err)
		}
		for i := range page.Rows {
			j.Total++
			switch v, err := o.Reverify(ctx, page.Rows[i].ID, force, by); {
			case errors.Is(err, errReleased):
				j.Skipped++
			case err != nil:
				j.Failed++
			case v.Released:
				j.Done++
			default:
				j.Skipped++
			}
		}
		if f.Cursor = page.Next; f.Cursor == "" || j.Total >= maxReverify {
			now := time.Now()
			j.FinishedAt = &now
			return j, nil
		}
	}
}

// health is what readiness says: a delivery can be taken, and what else is away.
func (p *program) health() admin.Health {
	h := admin.Health{Unready: p.archive.Writable()}
	if p.ingest.Draining() {
		h.Unready = errors.New("draining")
	}
	if p.pump != nil {
		p.eachPump(func(pump *forward.Pump) { h.Degraded = append(h.Degraded, degraded(pump.Stats())...) })
		if p.dedupe.Away() {
			h.Degraded = append(h.Degraded, "redis")
		}
	}
	if !p.archive.IndexReady() {
		h.Degraded = append(h.Degraded, "index is being built")
	}
	if p.vault != nil && len(p.vault.Damaged()) > 0 {
		h.Degraded = append(h.Degraded, "secrets in the vault are damaged")
	}
	if why := p.failed.Load(); why != nil {
		h.Degraded = append(h.Degraded, "the changed configuration is not in force")
	}
	return h
}

// stats is what the API's stats say; admin adds the unknown paths, with the sources that were meant.
func (p *program) stats(context.Context) map[string]any {
	out := map[string]any{"archive": map[string]any{"first_seq": p.archive.First(), "synced_seq": p.archive.Synced(), "damage": p.archive.Damage(),
		"sampled_away": p.archive.SampledAway(), "index_lag": p.archive.IndexLag()}}
	if p.pump != nil {
		out["forward"] = p.pump.Stats()
	}
	if p.beside != nil {
		out["forward_http"] = p.beside.Stats()
	}
	return out
}
