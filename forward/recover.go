package forward

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"penstock/archive"
)

// recover turns the open intents of the last life into outcomes: what is in Kafka is
// done, everything else is read again from the log.
func (p *Pump) recover(ctx context.Context, led *ledger) error {
	built := map[*Message]*parcel{}
	acks, err := p.sink.Recover(ctx, func(r ItemRef) (*Message, error) {
		ev, err := p.rebuild(r)
		if err != nil {
			return nil, err
		}
		built[ev.msg] = ev
		return ev.msg, nil
	})
	if err != nil {
		return fmt.Errorf("resolve batches of the last life: %w", err)
	}
	var os []archive.Outcome
	for i := range acks {
		a := &acks[i]
		if a.Err != nil || a.Message == nil {
			continue // not in Kafka: the log says that it is not done
		}
		m := a.Message
		if m.Replay == "" && led.state(ref{m.Delivery, m.Item}) == stateFinal {
			continue
		}
		os = append(os, p.recovered(built[m], a))
	}
	if len(os) > 0 {
		p.log.Info("found in kafka what the last life had sent", zap.Int("events", len(os)))
		if err := p.o.Archive.AppendOutcomes(os); err != nil {
			return fmt.Errorf("write outcomes of what the last life had sent: %w", err)
		}
		for i := range os {
			led.settle(&os[i])
		}
	}
	if err := p.sink.Done(acks); err != nil {
		return fmt.Errorf("close the last life's intents: %w", err)
	}
	return nil
}

// recovered is the outcome of a message that turned out to be in Kafka.
func (p *Pump) recovered(ev *parcel, a *Ack) archive.Outcome {
	m := a.Message
	o := archive.Outcome{Delivery: m.Delivery, Item: m.Item, Items: 1, Kind: archive.Published, At: p.o.Now(),
		Sink: p.sinkName, Topic: m.Topic, Partition: a.Partition, Offset: a.Offset, Replay: m.Replay, Of: m.Repeats}
	if ev == nil {
		// The delivery cannot be rendered any more; that it is in Kafka is what counts.
		ev, _ = p.rebuild(ItemRef{m.Delivery, m.Item, m.Replay, m.Repeats})
	}
	if ev != nil {
		o.Items, o.Fields, o.Reason, o.Source = max(ev.items, 1), ev.fields, ev.to.word, ev.source.name
		if m.Replay == "" && !ev.unasked {
			o.Identity, o.Content = ev.claim.ID, ev.claim.Content
			if m.Repeats == "" {
				o.State = ev.state
			}
		}
	}
	if m.Replay != "" && ev != nil && p.wasDead(m.Delivery, m.Item) {
		o.Replay, o.Identity, o.Content, o.State = "", ev.claim.ID, ev.claim.Content, ev.state
	}
	if m.Topic == p.o.DeadLetterTopic && m.Topic != "" {
		o.Kind, o.Identity, o.State, o.Of = archive.Dead, archive.Identity{}, archive.Identity{}, ""
		if o.Reason = reasonRefused; ev != nil && ev.dead != "" {
			o.Reason = ev.dead
		}
	}
	return o
}

var errNotRendered = errors.New("event cannot be rendered")

// rebuild renders an event as it would be sent now.
func (p *Pump) rebuild(r ItemRef) (*parcel, error) {
	d, err := p.o.Archive.GetSeq(r.Delivery)
	if err != nil {
		return nil, fmt.Errorf("read delivery %d: %w", r.Delivery, err)
	}
	var rel *release
	if d.Verdict == archive.Rejected {
		rel = &release{VerifiedBy: "operator"}
	}
	evs := p.read(d, rel)
	if r.Item >= len(evs) {
		return nil, fmt.Errorf("%w: delivery %d has no event %d", errNotRendered, r.Delivery, r.Item)
	}
	ev := evs[r.Item]
	ev.repeats = r.Repeats
	if r.Replay != "" {
		ev.replay = &job{Job: Job{ID: r.Replay}}
	}
	if r.Replay != "" || r.Repeats != "" {
		if err := p.rerender(ev, d); err != nil {
			return nil, err
		}
	}
	if ev.msg == nil {
		return nil, fmt.Errorf("%w: delivery %d event %d", errNotRendered, r.Delivery, r.Item)
	}
	return ev, nil
}

// remake hands the confirms over that may not have reached Redis in the last life.
func (p *Pump) remake(ctx context.Context, cur cursor) error {
	batch := make([]Claim, 0, claimBatch)
	err := p.Confirms(ctx, cur.Confirmed+1, func(c Claim) bool {
		if batch = append(batch, c); len(batch) == cap(batch) {
			p.o.Dedupe.Confirm(batch)
			batch = batch[:0]
		}
		return true
	})
	if len(batch) > 0 {
		p.o.Dedupe.Confirm(batch)
	}
	return err
}

// Confirms reads from the log what the outcomes from seq from on prove, for a deduper
// that had to forget some. It ends at the synced mark or when f returns false.
func (p *Pump) Confirms(ctx context.Context, from uint64, f func(Claim) bool) error {
	rd := p.o.Archive.Reader(from)
	defer rd.Close()
	upto := p.o.Archive.Synced()
	for ctx.Err() == nil {
		r, ok, err := rd.TryNext()
		if err != nil {
			return fmt.Errorf("read outcomes from seq %d on: %w", from, err)
		}
		if !ok || r.Seq > upto {
			return nil
		}
		o := r.Outcome
		if o == nil || o.Kind != archive.Published || o.Replay != "" || o.Identity == (archive.Identity{}) {
			continue
		}
		c := Claim{ID: o.Identity, Content: o.Content, Item: o.Item, Outcome: r.Seq, At: o.At, Window: p.o.Window}
		d, err := p.o.Archive.GetSeq(o.Delivery)
		if err != nil {
			continue // its record is gone: the index has what it proves
		}
		c.Delivery = d.ID
		if info := p.lookup(d); info != nil && info.Window > 0 {
			c.Window = info.Window
		}
		if c.Window -= p.o.Now().Sub(o.At); c.Window <= 0 {
			continue
		}
		if !f(c) {
			return nil
		}
		if c.ID, c.Content = o.State, (archive.Identity{}); c.ID != c.Content && !f(c) {
			return nil
		}
	}
	return ctx.Err()
}
