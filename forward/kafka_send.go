package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"go.uber.org/zap"

	"penstock/archive"
)

const (
	// produceTimeout is how long the broker may wait for its replicas;
	// answerTimeout how long we wait for the broker.
	produceTimeout = 10 * time.Second
	answerTimeout  = 20 * time.Second
)

// result is what became of a batch: acknowledged (offsets), or refused for good (means
// and cause), or neither because the producer's life ended (means == gone).
type result struct {
	means   verdict
	base    int64   // offset of the first record
	offsets []int64 // of each record, where they are not base, base+1, ...
	bad     []int   // records that the broker names as invalid
	cause   error
}

const (
	acked verdict = 100 + iota
	gone
	notThere // a batch of the last life is not in Kafka and cannot go under its old sequence
)

// run sends the partition's batches, one at a time, until the producer closes.
func (pt *partition) run() {
	ctx := pt.p.life
	if !pt.settleLeft(ctx) {
		return
	}
	for {
		batch := pt.take(ctx)
		if batch == nil {
			return
		}
		ok := pt.publish(ctx, batch)
		pt.landed()
		if !ok {
			return
		}
	}
}

// publish sends the messages, in one batch or, where the broker refuses that, in
// smaller ones, until each has an ack. False: the producer's life ended.
func (pt *partition) publish(ctx context.Context, msgs []*Message) bool {
	for todo := [][]*Message{msgs}; len(todo) > 0; {
		group := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		var start time.Time
		if pt.p.o.Trace != nil {
			start = time.Now()
		}
		res := pt.sendBatch(ctx, group)
		if pt.p.o.Trace != nil {
			pt.traceProduce(start, group, &res)
		}
		switch res.means {
		case gone:
			return false
		case acked:
		case invalid:
			bad, rest := part(group, res.bad)
			if len(bad) > 0 {
				pt.refuse(bad, fmt.Errorf("%w: %w", ErrInvalidRecord, res.cause))
				todo = appendGroup(todo, rest)
				continue
			}
			todo = appendGroup(appendGroup(todo, group[len(group)/2:]), group[:len(group)/2])
		case tooLarge:
			if len(group) == 1 {
				pt.refuse(group, fmt.Errorf("%w: %w", ErrTooLarge, res.cause))
				continue
			}
			todo = appendGroup(appendGroup(todo, group[len(group)/2:]), group[:len(group)/2])
		case notThere: // another home was accepted, or the partition is no more
			pt.refuse(group, res.cause)
		}
	}
	return true
}

func appendGroup(todo [][]*Message, g []*Message) [][]*Message {
	if len(g) == 0 {
		return todo
	}
	return append(todo, g)
}

// part splits the group into the records that the broker named and the others. A
// single record need not be named.
func part(group []*Message, named []int) (bad, rest []*Message) {
	if len(group) == 1 {
		return group, nil
	}
	is := make(map[int]bool, len(named))
	for _, i := range named {
		is[i] = true
	}
	for i, m := range group {
		if is[i] {
			bad = append(bad, m)
		} else {
			rest = append(rest, m)
		}
	}
	return bad, rest
}

// refuse acks messages that are not in Kafka and that no intent names.
func (pt *partition) refuse(msgs []*Message, err error) {
	acks := make([]Ack, len(msgs))
	for i, m := range msgs {
		acks[i] = Ack{Message: m, Partition: pt.id, Err: err}
	}
	pt.p.deliver(acks)
}

// sendBatch encodes the group, keeps its intent, sends it until the broker has it or
// refuses it, and acks what was taken.
func (pt *partition) sendBatch(ctx context.Context, group []*Message) result {
	if err := pt.prepare(ctx); err != nil {
		return pt.unprepared(ctx, err)
	}
	st := stampOf{pt.session.pid, pt.session.epoch, pt.seq}
	buf, err := pt.p.encoder.encode(group, st)
	if err != nil {
		return result{means: invalid, cause: err}
	}
	defer pt.p.encoder.release(buf)
	// A learned limit forms batches; a single record is refused by the topic's own
	// word, which may have changed since.
	limit := pt.limit
	if len(group) == 1 {
		limit = pt.p.o.MaxBatchBytes
	}
	if n := len(buf) - recordSetSize; n > limit {
		return result{means: tooLarge, cause: fmt.Errorf("batch of %d records for %s has %d bytes, the limit is %d",
			len(group), pt.t.name, n, limit)}
	}
	it := newIntent(group, st, pt.next, batchCRC(buf))
	it.partition = pt.id
	if !pt.keep(ctx, it, nil) {
		return result{means: gone}
	}
	pt.p.metrics.bytes.Observe(float64(len(buf)))
	pt.p.metrics.records.Observe(float64(len(group)))
	f := flight{pt: pt, it: it, buf: buf, renew: true}
	res := f.fly(ctx)
	switch res.means {
	case gone:
	case acked:
		pt.seq = addSequence(f.it.stamp.seq, len(group))
		pt.ack(f.it, group, res)
	default:
		// The refused bytes had these sequences; nothing else ever has.
		pt.p.journal.later(archive.Change{Key: intentKey(f.it.n)})
		pt.forsake()
		if res.means == tooLarge && len(group) > 1 {
			pt.limit = min(pt.limit, max(len(buf)*3/4, 1024))
		}
	}
	return res
}

// ack hands the offsets of the batch's records to the pump.
func (pt *partition) ack(it *intent, group []*Message, res result) {
	acks := make([]Ack, len(group))
	last := res.base - 1
	for i, m := range group {
		at := res.base + int64(i)
		if res.offsets != nil {
			at = res.offsets[i]
		}
		last = max(last, at)
		acks[i] = Ack{Message: m, Partition: pt.id, Offset: at, intent: it}
	}
	pt.next = last + 1
	pt.p.deliver(acks)
}

// forsake makes the next batch go under a new producer id.
func (pt *partition) forsake() {
	pt.seq = 0
	pt.session = session{number: pt.session.number, stampOf: stampOf{pid: -1}}
}

// prepare gets a producer id and learns the partition's end, when they are not known.
func (pt *partition) prepare(ctx context.Context) error {
	if pt.session.number == 0 || pt.session.pid < 0 {
		s, err := pt.p.newSession(ctx, pt.session.number)
		if err != nil {
			return err
		}
		pt.session, pt.seq = s, 0
	}
	if pt.moved.Swap(false) {
		pt.next = -1
	}
	if pt.next >= 0 {
		return nil
	}
	return pt.learnEnd(ctx)
}

// errNoPartition says that the open topic no longer has the partition.
var errNoPartition = errors.New("topic no longer has the partition")

func (pt *partition) unprepared(ctx context.Context, err error) result {
	if ctx.Err() == nil && errors.Is(err, errNoPartition) {
		return result{means: notThere, cause: fmt.Errorf("%w: %w", ErrNotSent, err)}
	}
	return result{means: gone, cause: err}
}

// keep makes the intent durable, in the same commit in which the one that it replaces
// goes. No intent synced, nothing sent. False: the producer's life ended.
func (pt *partition) keep(ctx context.Context, it, instead *intent) bool {
	it.n = pt.p.journal.number()
	changes := []archive.Change{{Key: intentKey(it.n), Value: it.encode()}}
	if instead != nil {
		changes = append(changes, archive.Change{Key: intentKey(instead.n)})
	}
	err := pt.p.retry(ctx, "keep a kafka intent", func() error { return pt.p.journal.commit(ctx, changes...) })
	return err == nil
}

// flight is one batch on its way.
//
// The sequence alone does not make a repeat harmless. A broker knows a producer only
// as long as the newest record that it took of it is younger than
// producer.id.expiration.ms (a day), by the record's own timestamp: it forgets,
// at each start and each periodic check, who sends what happened long ago
// (replays, a backlog, a late event). From a producer that it does not know it takes
// any sequence as new (KIP-360): the batch would stand there twice. So a batch that may
// have been appended is looked for before each further attempt; the sequence covers
// what a request still on its way appends between the look and the attempt.
type flight struct {
	pt        *partition
	it        *intent
	buf       []byte
	ambiguous bool // an attempt may have been appended, and no later answer changes that
	renew     bool // may go under a new producer id; a batch of the last life may not
}

// fly sends the batch until it is acknowledged or refused for good.
func (f *flight) fly(ctx context.Context) result {
	pt := f.pt
	for b := newBackoff(); ; {
		if !pt.t.gate(ctx) {
			return result{means: gone}
		}
		if f.ambiguous {
			if res, known := pt.seek(ctx, f.it, f.it.end, 1); known {
				return res
			}
		}
		if pt.moved.Load() {
			// The topic was replaced under us: in the new one the batch is not.
			return result{means: notThere, cause: fmt.Errorf("%w: topic was replaced", ErrNotSent)}
		}
		began := time.Now()
		res, err := f.attempt(ctx)
		if err == nil && res.base >= pt.next {
			return res
		}
		if ctx.Err() != nil {
			return result{means: gone}
		}
		if err == nil {
			if res, done := f.notAnAck(ctx, res.base); done {
				return res
			}
			continue
		}
		if res, done := f.failed(ctx, res, err, b); done {
			return res
		}
		// Where the partition is now; without an answer the old layout stays.
		_ = pt.p.layout.refresh(ctx, began)
		if v := pt.p.layout.topic(pt.t.name); v != nil && (v.code != 0 || int32(len(v.partitions)) <= pt.id) {
			pt.t.doubt()
		}
		b.wait(ctx)
	}
}

// attempt sends the batch once.
func (f *flight) attempt(ctx context.Context) (result, error) {
	pt := f.pt
	addr, _, err := pt.p.layout.leader(pt.t.name, pt.id)
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	began := time.Now()
	m, err := pt.p.wire.roundTrip(ctx, addr, &rawproduce.Request{
		Acks:    -1,
		Timeout: int32(produceTimeout / time.Millisecond),
		Topics: []rawproduce.RequestTopic{{Topic: pt.t.name, Partitions: []rawproduce.RequestPartition{{
			Partition: pt.id,
			// The reader is consumed: each attempt has its own over the same bytes.
			RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(f.buf)},
		}}}},
	})
	pt.p.metrics.seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return result{}, err
	}
	for _, t := range m.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			if t.Topic != pt.t.name || p.Partition != pt.id {
				continue
			}
			res := result{means: acked, base: p.BaseOffset}
			for _, e := range p.RecordErrors {
				res.bad = append(res.bad, int(e.BatchIndex))
			}
			return res, codeError(p.ErrorCode, p.ErrorMessage)
		}
	}
	return result{}, fmt.Errorf("answer of kafka broker %s does not name %s/%d", addr, pt.t.name, pt.id)
}

// failed acts on a failed attempt. done: there is a result.
func (f *flight) failed(ctx context.Context, res result, err error, b *backoff) (_ result, done bool) {
	pt := f.pt
	v, ambiguous := judge(err)
	pt.p.metrics.retries.WithLabelValues(errorLabel(err)).Inc()
	if ambiguous {
		pt.p.metrics.ambiguous.Inc()
		f.ambiguous = true
	}
	if b.loud() || v == sequence {
		pt.p.log.Warn("kafka does not take a batch", zap.String("topic", pt.t.name), zap.Int32("partition", pt.id),
			zap.Int("records", len(f.it.items)), zap.Int32("sequence", f.it.stamp.seq), zap.Error(err))
	}
	switch v {
	case tooLarge, invalid:
		if f.ambiguous {
			if res, done := f.lookUp(ctx, f.it.end); done {
				return res, true
			}
		}
		return result{means: v, bad: res.bad, cause: err}, true
	case sequence:
		return f.lookUp(ctx, f.it.end)
	case missing:
		pt.t.doubt()
	case forbidden:
		pt.block(ReasonForbidden)
		sleep(ctx, probeEvery)
	case refused:
		pt.block(ReasonRefused)
		sleep(ctx, probeEvery)
	}
	return result{}, false
}

// notAnAck handles an answer without an error whose base offset is not above our
// last: either Kafka lost what it had acknowledged and the batch stands where other
// records of ours stood, or the broker answered for other bytes of the same sequence.
func (f *flight) notAnAck(ctx context.Context, base int64) (result, bool) {
	pt := f.pt
	pt.p.log.Error("kafka acknowledged a batch at an offset that it had already given us",
		zap.String("topic", pt.t.name), zap.Int32("partition", pt.id), zap.Int64("base", base), zap.Int64("expected", pt.next))
	from := f.it.end
	if base >= 0 {
		from = min(from, base)
	}
	// A topic that was deleted and made again gives low offsets too: that is another
	// home, and no loss. Its next look blocks it.
	began := time.Now()
	_ = pt.p.layout.refresh(ctx, began)
	if pt.t.replaced() {
		pt.t.doubt()
		pt.next = 0
	}
	res, done := f.lookUp(ctx, from)
	if done && res.means == acked && res.base < pt.next {
		if !pt.regressed(ctx, Regression{Topic: pt.t.name, Partition: pt.id, Acked: pt.next, End: res.base}) {
			return result{means: gone}, true
		}
	}
	return res, done
}

// lookUp reads the partition for the batch. done: it is there, or it is a batch of the
// last life that is not. Else it goes on under a new producer id: the old sequence
// belongs to the old bytes for ever.
func (f *flight) lookUp(ctx context.Context, from int64) (_ result, done bool) {
	pt := f.pt
	if res, known := pt.seek(ctx, f.it, from, 2); known {
		return res, true
	}
	if !f.renew {
		return result{means: notThere, cause: ErrNotSent}, true
	}
	pt.forsake()
	if err := pt.prepare(ctx); err != nil {
		return pt.unprepared(ctx, err), true
	}
	old := f.it
	f.it = old.under(stampOf{pt.session.pid, pt.session.epoch, 0}, pt.next)
	stamp(f.buf, f.it.stamp)
	f.it.crc = batchCRC(f.buf)
	if !pt.keep(ctx, f.it, old) {
		return result{means: gone}, true
	}
	return result{}, false
}

// under is the same batch under another producer id.
func (it *intent) under(st stampOf, end int64) *intent {
	n := &intent{topic: it.topic, partition: it.partition, end: end, stamp: st, items: it.items}
	n.open.Store(int32(len(it.items)))
	return n
}
