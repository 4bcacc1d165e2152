package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock/admin"
	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/forward"
	"penstock/ingest"
	"penstock/provider"
	"penstock/verify"
)

// Read shows a delivery as its definition reads it: that of the time when it came.
func (o operator) Read(_ context.Context, d *archive.Delivery) (admin.Reading, error) {
	info, err := o.epochs.source(d.Epoch, d.Seq)
	if err != nil {
		return admin.Reading{}, adminError(err)
	}
	events, total, err := forward.Preview(d, info)
	if err != nil {
		return admin.Reading{}, adminError(err)
	}
	out := admin.Reading{Total: total, Document: forward.Document(d, info)}
	for i := range events {
		e := &events[i]
		one := admin.ReadEvent{Topic: e.Topic, Key: e.Key, Value: e.Value, Payload: e.Payload, PayloadJSON: e.PayloadJSON, Masked: e.Masked, Part: e.Part, Problems: e.Problems}
		for _, h := range e.Headers {
			one.Headers = append(one.Headers, [2]string{h.Key, string(h.Value)})
		}
		out.Events = append(out.Events, one)
	}
	return out, nil
}

// state is what the page's overview shows.
func (p *program) state(context.Context) admin.State {
	a := p.archive.Stats()
	s := admin.State{ArchiveBytes: a.Bytes, QuarantineBytes: a.QuarantineBytes, DiskFree: a.DiskFree, DiskFull: a.Full, Failing: a.Failing, Oldest: a.Oldest,
		Damage: p.archive.Damage(), IndexLag: p.archive.IndexLag()}
	for _, one := range p.archive.SampledAway() {
		s.SampledAway = append(s.SampledAway, admin.SampledAway{Source: one.Source, Reason: one.Reason, Count: one.Count})
	}
	for _, u := range p.unknownPaths() {
		s.Unknown = append(s.Unknown, admin.UnknownPath{Path: u.Path, Method: u.Method, Address: u.Address.String(), UserAgent: u.UserAgent, Count: u.Count, First: u.First, Last: u.Last})
	}
	if p.pump != nil {
		p.publishing(&s)
		s.Redis, s.RedisAway = p.conf.Load().Dedupe.Redis != nil, p.dedupe.Away()
	}
	if why := p.failed.Load(); why != nil {
		s.ConfigError = *why
	}
	return s
}

// publishing says how it stands with all that is published to: what waits for one sink waits,
// however well the other does.
func (p *program) publishing(s *admin.State) {
	var names []string
	p.eachPump(func(pump *forward.Pump) {
		f, kafka := pump.Stats(), pump.Kind() != forward.KindHTTP
		if !s.Sink || s.SinkState == liveState { // the first that is not
			s.SinkState = f.State
		}
		s.Sink = true
		s.Unpublished, s.Held, s.OldestFor = s.Unpublished+f.Unpublished, s.Held+f.Held, max(s.OldestFor, f.OldestFor)
		for at, why := range f.Blocked {
			if s.Blocked == nil {
				s.Blocked = map[string]string{}
			}
			s.Blocked[at] = why
		}
		if kafka {
			s.KafkaAway = f.Away
			names = append(names, "Kafka")
		} else {
			names = append(names, "HTTP targets")
		}
	})
	s.SinkName = strings.Join(names, " and ")
}

// liveState is what a pump says that has nothing to wait for.
const liveState = "live"

// seenPrefix begins the keys of the archive's state that say when a credential was first
// seen: its fingerprint follows.
const seenPrefix = "admin/secret/"

// noteSecrets remembers since when each credential is configured, for its age. What cannot
// be written now is tried again at the next reload.
func (p *program) noteSecrets(conf *config.Config, now time.Time) error {
	st := p.archive.State()
	at, err := json.Marshal(now.UTC().Truncate(time.Second))
	if err != nil {
		return err
	}
	var changes []archive.Change
	for i := range conf.Sources {
		for _, s := range secretsOf(&conf.Sources[i]) {
			key := seenPrefix + conf.Sources[i].Name + "/" + s.Fingerprint
			if _, known := st.Get(key); !known {
				changes = append(changes, archive.Change{Key: key, Value: at})
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return st.Commit(changes...)
}

// secretsOf names the credentials of a source that are secret.
func secretsOf(s *config.Source) (out []admin.Secret) {
	d, ok := s.Definition.(*provider.Definition)
	if !ok {
		return nil
	}
	for _, spec := range d.CredentialSpecs() {
		if !spec.Secret {
			continue
		}
		for _, v := range s.Credentials[spec.Name] {
			out = append(out, admin.Secret{Name: spec.Name, Fingerprint: verify.Fingerprint(v.Reveal())})
		}
	}
	return out
}

// describeSecrets fills in what the list of sources says of credentials.
func (o operator) describeSecrets(s *config.Source, info *admin.SourceInfo) {
	info.Secrets = secretsOf(s)
	for i := range info.Secrets {
		one := &info.Secrets[i]
		info.Fingerprints = append(info.Fingerprints, one.Name+" "+one.Fingerprint)
		var at time.Time
		if b, ok := o.archive.State().Get(seenPrefix + s.Name + "/" + one.Fingerprint); ok && json.Unmarshal(b, &at) == nil {
			one.Since = &at
		}
	}
}

// Setup says how a source is set up at its provider.
func (o operator) Setup(_ context.Context, name string) (admin.Setup, error) {
	s := o.source(name)
	if s == nil {
		return admin.Setup{}, fmt.Errorf("%w: no source is called %q", admin.ErrNotFound, name)
	}
	d := s.Definition.(*provider.Definition)
	out := admin.Setup{URL: cmp.Or(s.URL(), s.Path), Help: d.Setup, Docs: d.Docs, Verification: d.Verification()}
	types := map[string]bool{}
	for _, t := range d.SampleTypes() {
		types[t.Type] = true
	}
	out.Samples = slices.Sorted(maps.Keys(types))
	return out, nil
}

// SendTest sends one event to the gateway's own edge, signed as the provider signs.
func (o operator) SendTest(ctx context.Context, name, typ, _ string) (admin.Sent, error) {
	s := o.source(name)
	if s == nil {
		return admin.Sent{}, fmt.Errorf("%w: no source is called %q", admin.ErrNotFound, name)
	}
	sent, err := cli.SendTest(ctx, o.conf.Load(), s, typ)
	switch {
	case errors.Is(err, cli.ErrCannotSign):
		return admin.Sent{}, fmt.Errorf("%w: %w", admin.ErrConflict, err)
	case err != nil:
		return admin.Sent{}, fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	return admin.Sent{Delivery: sent.Delivery, Status: sent.Status}, nil
}

// unknownPaths are what was called and belongs to no source. Nobody has to see the card number
// that somebody put into an address.
func (p *program) unknownPaths() []ingest.UnknownPath {
	list := p.ingest.UnknownPaths()
	for i := range list {
		list[i].Path, list[i].UserAgent = provider.MaskCards(list[i].Path), provider.MaskCards(list[i].UserAgent)
	}
	return list
}
