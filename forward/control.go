package forward

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"penstock/archive"
)

// Errors of the control methods; admin answers 409 to them and 404 to ErrNoJob.
var (
	ErrNotPublished = errors.New("delivery was neither published nor a dead letter, so there is nothing to replay")
	ErrNotRejected  = errors.New("only a rejected delivery can be released")
	ErrNotHeld      = errors.New("the delivery is not held by a paused source")
	ErrNoJob        = errors.New("there is no such replay job")
)

// Pause stops publishing a source: its deliveries are archived and acked as before and
// held. It survives a restart. What is on its way to Kafka already arrives.
func (p *Pump) Pause(source string) error {
	return p.setPaused(source, true)
}

// Resume publishes what a paused source has held, in order, and goes on.
func (p *Pump) Resume(source string) error {
	return p.setPaused(source, false)
}

func (p *Pump) setPaused(source string, on bool) error {
	ch := archive.Change{Key: pausePrefix + source}
	if on {
		ch.Value = []byte("1")
	}
	if err := p.o.Archive.State().Commit(ch); err != nil {
		return fmt.Errorf("keep that source %s is paused=%t: %w", source, on, err)
	}
	p.stateMu.Lock()
	if on {
		p.paused[source] = true
	} else {
		delete(p.paused, source)
	}
	p.stateMu.Unlock()
	p.changes.Add(1)
	return nil
}

func (p *Pump) pausedNow() map[string]bool {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	return maps.Clone(p.paused)
}

// Paused lists the paused sources by name.
func (p *Pump) Paused() []string {
	out := slices.AppendSeq([]string{}, maps.Keys(p.pausedNow()))
	slices.Sort(out)
	return out
}

// Reload asks for every source again, the missing ones at once; call it after a new
// config.
func (p *Pump) Reload() {
	p.infoMu.Lock()
	clear(p.infos)
	p.infoMu.Unlock()
	p.changes.Add(1)
}

// Release publishes a rejected delivery after dedupe. It is a marker in the log, so it
// survives a kill as soon as this returns nil. verifiedBy is what today's credentials
// said; force releases what still does not verify, and is marked as the operator's.
func (p *Pump) Release(delivery, by, verifiedBy string, force bool) error {
	d, err := p.o.Archive.Get(delivery)
	if err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	if d.Verdict != archive.Rejected {
		return fmt.Errorf("release delivery %s: %w", delivery, ErrNotRejected)
	}
	data, err := json.Marshal(release{By: by, VerifiedBy: verifiedBy, Force: force})
	if err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	m := &archive.Marker{Kind: archive.ReleaseMarker, At: p.o.Now(), Key: delivery, Data: data}
	if err := p.o.Archive.AppendMarker(m); err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	return nil
}

// ReleaseHeld publishes one delivery that a paused source holds; the others stay held. It
// survives a kill as soon as this returns nil, and is done once however often it is asked.
func (p *Pump) ReleaseHeld(delivery, by string) error {
	d, err := p.o.Archive.Get(delivery)
	if err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	if d.Verdict != archive.Accepted || !p.pausedNow()[d.Source] || !p.counted().holds(d.Seq) {
		return fmt.Errorf("release delivery %s: %w", delivery, ErrNotHeld)
	}
	data, err := json.Marshal(release{By: by})
	if err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	if err := p.o.Archive.AppendMarker(&archive.Marker{Kind: archive.ReleaseMarker, At: p.o.Now(), Key: delivery, Data: data}); err != nil {
		return fmt.Errorf("release delivery %s: %w", delivery, err)
	}
	return nil
}

// Keep is the lowest seq that the pump still needs; retention removes nothing from there
// on (archive.SetKeep).
func (p *Pump) Keep() uint64 { return p.keep.Load() }

// Waiting lists the deliveries with seqs from..to that have no final outcome, and with
// archive.QuarantineBit in both the refused ones whose release is not done. Retention
// copies them forward (archive.SetWaiting); it asks for those above Keep only when Keep is
// not 0. ok is false while the pump has not seen the log that far.
func (p *Pump) Waiting(from, to uint64) (seqs []uint64, ok bool) {
	synced := p.o.Archive.Synced()
	led := p.counted()
	return led.waiting(from, to, synced)
}

// Stats is what readiness, the page and /api/v1/stats say about publishing.
type Stats struct {
	State       string            `json:"state"` // live, or what it waits for
	Sink        string            `json:"sink"`
	Unpublished int               `json:"unpublished"`
	OldestFor   time.Duration     `json:"oldest_ns"`
	Held        int               `json:"held"`
	Parked      int               `json:"parked"`
	Paused      []string          `json:"paused"`
	Blocked     map[string]string `json:"blocked"` // topic: reason
	Away        bool              `json:"away"`    // no broker answers
	// MinInsync is min.insync.replicas of the topics that answers wait for (ack after
	// published), as the broker has it. Below SafeReplicas one lost broker may take with it
	// what was answered.
	MinInsync map[string]int `json:"min_insync_replicas,omitempty"`
	// Risks are settings of topics under which Kafka loses or refuses events, in words.
	Risks map[string][]string `json:"topic_risks,omitempty"`
}

// Stats reports the state of now.
func (p *Pump) Stats() Stats {
	s := Stats{Unpublished: p.Unpublished(), OldestFor: p.OldestUnpublished(), Paused: p.Paused(), Away: p.sink.Away()}
	if b, ok := p.sink.(interface{ BlockedTopics() map[string]string }); ok {
		s.Blocked = b.BlockedTopics()
	}
	s.MinInsync, s.Risks = p.safety.shown()
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	s.State, s.Held, s.Parked = p.state, p.heldN, p.parkedN
	if p.state == "live" {
		s.Sink = p.sinkName
	}
	return s
}
