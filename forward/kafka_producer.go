package forward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

const (
	defaultBatchBytes    = 1_000_000
	defaultInFlightBytes = 64 << 20
	// batchRecords bounds the records of a batch: its intent grows with them.
	batchRecords = 5000
	// ackSlices is how many answers may wait for the pump.
	ackSlices = 64
)

// producer publishes messages to Kafka, each exactly once as far as Kafka can tell:
// batches carry a producer id and sequence, and an intent on disk before they are
// sent, so that neither a lost answer nor a crash makes a second copy.
//
// One goroutine per partition has one batch in flight and tries it for ever. A topic
// or partition that takes nothing is blocked: its waiting messages are given back with
// ErrNotSent, Send refuses more, and Changed tells when that ends.
//
// Order of locks: producer.mu, topic.mu, partition.mu, budget.mu.
type producer struct {
	o       KafkaOptions
	log     *zap.Logger
	metrics *producerMetrics
	state   State
	wire    *wire
	layout  *layout
	encoder *batchEncoder
	journal *journal
	budget  *budget
	acks    chan []Ack
	changed chan struct{}

	life    context.Context // ends when Close gives up
	end     context.CancelCauseFunc
	closing chan struct{} // closed when Close begins
	workers sync.WaitGroup
	helpers sync.WaitGroup // journal and watch
	stop    context.CancelFunc

	accept  atomic.Bool  // another cluster is welcome
	landed  atomic.Int64 // when a batch was last resolved, Unix ns
	rehomed atomic.Bool  // the cluster is another one: intents of the last life are void

	sessions chan struct{} // held while a producer id is asked for
	session  session       // guarded by sessions

	mu         sync.Mutex // guards what follows
	topics     map[string]*topic
	closed     bool
	left       []*intent // of the last life
	unresolved map[*intent]struct{}
	collecting bool // Recover runs: results go to collected
	collected  []Ack
	rebuild    func(ItemRef) (*Message, error)
}

// session is a producer id, numbered in the order of their coming.
type session struct {
	number uint64
	stampOf
}

// newProducer makes a producer over the intents that its last life left in st. It
// talks to nobody before Open; Close ends it.
func newProducer(o KafkaOptions, st State) (*producer, error) {
	if len(o.Brokers) == 0 {
		return nil, errors.New("kafka producer needs the address of at least one broker")
	}
	if o.ClientID == "" {
		o.ClientID = "penstock"
	}
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = defaultBatchBytes
	}
	if o.MaxInFlightBytes <= 0 {
		o.MaxInFlightBytes = defaultInFlightBytes
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	p := &producer{
		o: o, log: o.Logger, state: st,
		acks: make(chan []Ack, ackSlices), changed: make(chan struct{}, 1), closing: make(chan struct{}),
		sessions: make(chan struct{}, 1), topics: map[string]*topic{}, unresolved: map[*intent]struct{}{},
	}
	p.accept.Store(o.AcceptHome)
	var err error
	if p.metrics, err = newProducerMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register kafka metrics: %w", err)
	}
	if p.encoder, err = newBatchEncoder(o.Compression); err != nil {
		return nil, err
	}
	if p.wire, err = newWire(o); err != nil {
		return nil, err
	}
	p.layout = newLayout(p.wire, o.Brokers)
	p.budget = newBudget(o.MaxInFlightBytes, p.metrics.inFlight)
	if err := p.loadIntents(); err != nil {
		return nil, err
	}
	p.life, p.end = context.WithCancelCause(context.Background())
	helpers, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.helpers.Go(func() { p.journal.run(helpers) })
	p.helpers.Go(func() { p.watch(helpers) })
	return p, nil
}

// loadIntents reads what the last life left. An intent that cannot be read is an
// error: to skip it could lose or double its events.
func (p *producer) loadIntents() error {
	var last uint64
	var errs []error
	p.state.Range(intentPrefix, func(key string, value []byte) bool {
		n, err := strconv.ParseUint(strings.TrimPrefix(key, intentPrefix), 16, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: key %q", errIntent, key))
			return true
		}
		last = max(last, n)
		it, err := decodeIntent(n, value)
		if err != nil {
			errs = append(errs, err)
			return true
		}
		p.left = append(p.left, it)
		p.unresolved[it] = struct{}{}
		return true
	})
	slices.SortFunc(p.left, func(a, b *intent) int { return int(int64(a.n - b.n)) })
	p.journal = newJournal(p.state, last)
	return errors.Join(errs...)
}

// Open waits until a broker answers and gives us a producer id, and returns the
// cluster's id. ErrNewHome: it is not the cluster that was published to before; an
// operator's AcceptHome makes it so.
func (p *producer) Open(ctx context.Context) (string, error) {
	ctx, cancel := p.within(ctx)
	defer cancel()
	err := p.retry(ctx, "reach kafka", func() error { return p.layout.refresh(ctx, time.Now()) })
	if err != nil {
		return "", err
	}
	p.layout.mu.Lock()
	id := p.layout.clusterID
	p.layout.mu.Unlock()
	if err := p.checkCluster(ctx, id); err != nil {
		return id, err
	}
	_, err = p.newSession(ctx, 0)
	return id, err
}

func (p *producer) checkCluster(ctx context.Context, id string) error {
	kept, ok := p.state.Get(clusterKey)
	if id == "" || ok && string(kept) == id {
		return nil
	}
	if ok && !p.accept.Load() {
		return fmt.Errorf("%w: cluster id is %q, was %q", ErrNewHome, id, kept)
	}
	changes := []archive.Change{{Key: clusterKey, Value: []byte(id)}}
	if ok {
		// What is known of the old cluster says nothing of this one. Its open intents
		// are given back by Recover: in this cluster their batches are not.
		for _, prefix := range []string{topicPrefix, ackedPrefix} {
			p.state.Range(prefix, func(key string, _ []byte) bool {
				changes = append(changes, archive.Change{Key: key})
				return true
			})
		}
		p.rehomed.Store(true)
		p.log.Warn("another kafka cluster is accepted", zap.String("was", string(kept)), zap.String("is", id))
	}
	return p.retry(ctx, "keep the cluster id", func() error { return p.journal.commit(ctx, changes...) })
}

// AcceptHome is an operator's word that a topic whose id has changed is to be
// published to; "" means the cluster, which the next Open then takes.
func (p *producer) AcceptHome(topic string) {
	if topic == "" {
		p.accept.Store(true)
		return
	}
	p.mu.Lock()
	t := p.topics[topic]
	p.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		t.accepted = true
		t.mu.Unlock()
		t.doubt()
	}
}

// Send takes the message and returns; its Ack comes by Acks. It waits while too many
// bytes are in flight. A blocked topic is ErrTopicBlocked at once and the message is
// not taken. Acks must be read by another goroutine than those that Send.
func (p *producer) Send(ctx context.Context, m *Message) error {
	t, err := p.topic(m.Topic)
	if err != nil {
		return err
	}
	size := int64(m.size())
	for {
		pt, err := t.route(ctx, m)
		if err != nil {
			return err
		}
		if err := p.budget.take(ctx, p.closing, size, m.Replay != ""); err != nil {
			return err
		}
		wait, err := pt.push(m, size)
		if err == nil && wait == nil {
			return nil
		}
		p.budget.give(size)
		if err != nil {
			return err
		}
		select {
		case <-wait:
		case <-p.closing:
			return ErrProducerClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Acks gives what became of messages, in order within a partition. It is closed by
// Close.
func (p *producer) Acks() <-chan []Ack { return p.acks }

// Done says that the outcomes of the acked messages are synced: their intents may go.
// Acks that give a message back (ErrNotSent) may be handed in too.
func (p *producer) Done(acks []Ack) error {
	var changes []archive.Change
	ends := map[string]int64{}
	for i := range acks {
		a := &acks[i]
		if a.intent == nil {
			continue
		}
		if a.Err == nil {
			k := ackedKey(a.intent.topic, a.intent.partition)
			ends[k] = max(ends[k], a.Offset+1)
		}
		if a.intent.open.Add(-1) == 0 {
			changes = append(changes, archive.Change{Key: intentKey(a.intent.n)})
		}
	}
	for k, end := range ends {
		changes = append(changes, archive.Change{Key: k, Value: encodeOffset(end)})
	}
	if len(changes) > 0 {
		p.journal.later(changes...)
	}
	return nil
}

// TopicState says whether the topic, or one of its partitions, takes nothing now, and why.
func (p *producer) TopicState(name string) (blocked bool, reason string) {
	p.mu.Lock()
	t := p.topics[name]
	p.mu.Unlock()
	if t == nil {
		return false, ""
	}
	reason = t.blockedReason()
	return reason != "", reason
}

// BlockedTopics are the topics that take nothing now, in whole or in part, with the reason.
func (p *producer) BlockedTopics() map[string]string {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.topics))
	p.mu.Unlock()
	out := map[string]string{}
	for _, t := range all {
		if r := t.blockedReason(); r != "" {
			out[t.name] = r
		}
	}
	return out
}

// Changed is signalled when a topic or partition was blocked or opened.
func (p *producer) Changed() <-chan struct{} { return p.changed }

// Close takes no more messages, waits until open batches are resolved or the context
// ends, and ends everything. What is queued and not yet sent is dropped (it has no
// outcome); what is unresolved keeps its intent and is resolved by the next Recover.
func (p *producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	close(p.closing)
	idle := make(chan struct{})
	go func() {
		p.workers.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fmt.Errorf("close kafka producer with batches in flight: %w", context.Cause(ctx))
	}
	p.end(ErrProducerClosed)
	p.wire.close()
	<-idle
	p.stop()
	p.helpers.Wait()
	close(p.acks)
	return err
}

// deliver hands acks to the pump, or to Recover while that runs.
func (p *producer) deliver(acks []Ack) {
	p.mu.Lock()
	if p.collecting {
		p.collected = append(p.collected, acks...)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	select {
	case p.acks <- acks:
	case <-p.life.Done():
	}
}

// topic is the topic of that name, opened when it is new.
func (p *producer) topic(name string) (*topic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrProducerClosed
	}
	t := p.topics[name]
	if t == nil {
		t = newTopic(p, name)
		p.topics[name] = t
		p.layout.want(name)
		p.workers.Go(t.run)
	}
	return t, nil
}

// newSession returns a producer id that is newer than the one numbered failed.
func (p *producer) newSession(ctx context.Context, failed uint64) (session, error) {
	select {
	case p.sessions <- struct{}{}:
	case <-ctx.Done():
		return session{}, context.Cause(ctx)
	}
	defer func() { <-p.sessions }()
	if p.session.number > failed {
		return p.session, nil
	}
	err := p.retry(ctx, "get a kafka producer id", func() error {
		st, err := p.layout.newProducerID(ctx)
		if err == nil {
			p.session = session{p.session.number + 1, st}
			p.metrics.sessions.Inc()
		}
		return err
	})
	return p.session, err
}

// within is the context, ended by the end of the producer's life too.
func (p *producer) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(p.life, func() { cancel(ErrProducerClosed) })
	return ctx, func() {
		unlink()
		cancel(nil)
	}
}

// retry repeats f until it succeeds or the context ends.
func (p *producer) retry(ctx context.Context, what string, f func() error) error {
	for b := newBackoff(); ; {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		if b.loud() {
			p.log.Warn("cannot "+what+", will try again", zap.Error(err))
		}
		b.wait(ctx)
	}
}

// signal tells whoever waits on Changed.
func (p *producer) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func ackedKey(topic string, partition int32) string {
	return ackedPrefix + topic + "/" + strconv.Itoa(int(partition))
}
