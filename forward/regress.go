package forward

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// regressPrefix: one key per partition that went back and is not made good yet.
const regressPrefix = "regress/"

// regressWindow is how much of what Kafka lost is published again by itself (DESIGN 7).
// More than that is no lost tail but another history, and waits for an operator.
const regressWindow = time.Hour

// regressEvery is how often the pump looks for something to make good.
const regressEvery = 500 * time.Millisecond

// regression is what is kept of a Regression until it is made good.
type regression struct {
	Regression
	At time.Time `json:"at"`
}

// regressed makes durable that a partition's lost end is to be published again; the
// producer sends nothing more to that partition before it has returned nil.
func (p *Pump) regressed(r Regression) error {
	key := fmt.Sprintf("%s%s/%d", regressPrefix, r.Topic, r.Partition)
	rec := regression{Regression: r, At: p.o.Now()}
	if b, ok := p.o.Archive.State().Get(key); ok {
		var old regression
		if json.Unmarshal(b, &old) == nil { // it went back again before it was made good
			rec.End, rec.Acked = min(rec.End, old.End), max(rec.Acked, old.Acked)
		}
	}
	if err := p.saveRegression(key, &rec); err != nil {
		return err
	}
	return nil
}

func (p *Pump) saveRegression(key string, r *regression) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode what kafka lost: %w", err)
	}
	if err := p.o.Archive.State().Commit(archive.Change{Key: key, Value: b}); err != nil {
		return fmt.Errorf("keep what kafka lost: %w", err)
	}
	return nil
}

// watchRegressions makes good what Kafka lost, until ctx ends.
func (p *Pump) watchRegressions(ctx context.Context) {
	for ctx.Err() == nil {
		p.makeGood(ctx)
		sleepCtx(ctx, regressEvery)
	}
}

// makeGood publishes again what Kafka has lost, partition by partition.
func (p *Pump) makeGood(ctx context.Context) {
	found := map[string]regression{}
	p.o.Archive.State().Range(regressPrefix, func(key string, v []byte) bool {
		var r regression
		if err := json.Unmarshal(v, &r); err == nil {
			found[key] = r
		}
		return true
	})
	for key, r := range found {
		if err := p.makeGoodOne(ctx, key, r); err != nil && ctx.Err() == nil {
			p.log.Error("what kafka lost is not published again yet, will try again",
				zap.String("topic", r.Topic), zap.Int32("partition", r.Partition), zap.Error(err))
		}
	}
}

func (p *Pump) makeGoodOne(ctx context.Context, key string, r regression) error {
	lost, old, err := p.lostEvents(ctx, r)
	if err != nil {
		return err
	}
	p.log.Error("kafka lost acknowledged events; they are published again from the archive", zap.String("topic", r.Topic),
		zap.Int32("partition", r.Partition), zap.Int("events", len(lost)), zap.Int("older_than_an_hour_not_published", old))
	// No job of the user's: same message as the first time, no ce_replay.
	j := newJob(Job{ID: "", State: JobRunning})
	for _, o := range lost {
		ev := &parcel{ref: ref{o.Delivery, o.Item}, items: o.Items, lost: j, order: 0, repeats: o.Of}
		if err := p.load(ev); err != nil {
			return err
		}
		if ev.missing || ev.msg == nil {
			p.log.Error("a lost event cannot be rendered any more", zap.Uint64("seq", o.Delivery), zap.Int("item", o.Item))
			continue
		}
		ev.lost, ev.unasked, ev.again = j, true, true
		ev.claim.ID, ev.claim.Content, ev.state = o.Identity, o.Content, o.State
		if err := p.intoLane(ctx, j, ev); err != nil {
			return err
		}
		p.met.remade.Inc()
	}
	if err := p.drainLane(ctx, j); err != nil {
		return err
	}
	if err := p.o.Archive.State().Commit(archive.Change{Key: key}); err != nil {
		return fmt.Errorf("close what kafka lost: %w", err)
	}
	return nil
}

// lostEvents finds the outcomes that say an event stands where the partition has no
// record any more, in the order of the log; old counts those that are too long ago.
func (p *Pump) lostEvents(ctx context.Context, r regression) (lost []archive.Outcome, old int, err error) {
	since := r.At.Add(-regressWindow)
	rd := p.o.Archive.Reader(p.firstAfter(since.Add(-time.Minute)))
	defer rd.Close()
	upto := p.o.Archive.Synced()
	good := map[ref]bool{} // published again already, before a restart
	for ctx.Err() == nil {
		rec, ok, err := rd.TryNext()
		if err != nil {
			return nil, 0, fmt.Errorf("find what kafka lost: %w", err)
		}
		if !ok || rec.Seq > upto {
			lost = slices.DeleteFunc(lost, func(o archive.Outcome) bool { return good[ref{o.Delivery, o.Item}] })
			return lost, old, nil
		}
		o := rec.Outcome
		switch {
		case o == nil || o.Kind != archive.Published || o.Replay != "" || o.Topic != r.Topic:
		case o.At.After(r.At):
			good[ref{o.Delivery, o.Item}] = true
		case o.Partition != r.Partition || o.Offset < r.End || o.Offset >= r.Acked:
		case o.At.Before(since):
			old++
		default:
			lost = append(lost, *o)
		}
	}
	return nil, 0, ctx.Err()
}

// firstAfter is a place in the log before which nothing was written after t: outcomes
// stand behind the deliveries that had come by then.
func (p *Pump) firstAfter(t time.Time) uint64 {
	lo, hi := max(p.o.Archive.First(), 1), p.o.Archive.Synced()+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		at, next, ok := p.receivedFrom(mid, hi)
		switch {
		case !ok: // no delivery from mid on: the place is before
			hi = mid
		case at.Before(t):
			lo = next + 1
		default:
			hi = mid
		}
	}
	return lo
}

// receivedFrom is when the first delivery at or above seq and below end came.
func (p *Pump) receivedFrom(seq, end uint64) (at time.Time, found uint64, ok bool) {
	rd := p.o.Archive.Reader(seq)
	defer rd.Close()
	for {
		rec, more, err := rd.TryNext()
		if err != nil || !more || rec.Seq >= end {
			return time.Time{}, 0, false
		}
		if rec.Delivery != nil {
			return rec.Delivery.ReceivedAt, rec.Seq, true
		}
	}
}
