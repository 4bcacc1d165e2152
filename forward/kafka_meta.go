package forward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// metadataEvery is the least time between two metadata requests that errors cause.
const metadataEvery = 100 * time.Millisecond

// errNoLeader says that the partition has no leader now.
var errNoLeader = fmt.Errorf("partition has no leader: %w", errUnsent)

// layout is where everything is: brokers, and for each topic that we publish to its
// id and leaders. It is asked for when something went wrong and never by a timer
// alone: a partition that moves is found by its first NotLeader.
type layout struct {
	wire  *wire
	seeds []string

	mu        sync.Mutex // guards what follows
	brokers   map[int32]string
	topics    map[string]*topicView // nil view: wanted, not yet seen
	clusterID string
	asked     time.Time     // when the last answer was asked for
	failed    error         // what the last request failed with
	inflight  chan struct{} // closed when the request under way is done; nil: none
	turn      int           // which broker is asked next
}

func newLayout(w *wire, seeds []string) *layout {
	return &layout{wire: w, seeds: seeds, brokers: map[int32]string{}, topics: map[string]*topicView{}}
}

// want adds a topic to those that are asked for.
func (l *layout) want(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.topics[topic]; !ok {
		l.topics[topic] = nil
	}
}

// topic is the last view of a topic; nil before the first.
func (l *layout) topic(name string) *topicView {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topics[name]
}

// leader is the address and epoch of a partition's leader.
func (l *layout) leader(topic string, partition int32) (addr string, epoch int32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.topics[topic]; t != nil {
		for i := range t.partitions {
			p := &t.partitions[i]
			if p.index != partition {
				continue
			}
			if addr, ok := l.brokers[p.leader]; ok {
				return addr, p.leaderEpoch, nil
			}
		}
	}
	return "", 0, errNoLeader
}

// refresh makes sure that the layout is newer than since. Many may call it at once:
// one of them asks.
func (l *layout) refresh(ctx context.Context, since time.Time) error {
	for {
		l.mu.Lock()
		if l.asked.After(since) {
			l.mu.Unlock()
			return nil
		}
		wait := l.inflight
		if wait == nil {
			l.inflight = make(chan struct{})
			l.mu.Unlock()
			return l.ask(ctx)
		}
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.mu.Lock()
		failed := l.failed
		l.mu.Unlock()
		if failed != nil {
			return failed
		}
	}
}

// ask asks one broker after the other until one answers. The caller has set inflight.
func (l *layout) ask(ctx context.Context) error {
	l.mu.Lock()
	pause := metadataEvery - time.Since(l.asked)
	names := slices.Sorted(maps.Keys(l.topics))
	l.mu.Unlock()
	if pause > 0 {
		sleep(ctx, pause)
	}
	asked := time.Now()
	res, err := l.anyBroker(ctx, func() protocol.Message { return &metadataRequest{topics: names} })
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.inflight)
	l.inflight = nil
	l.failed = err
	if err != nil {
		return err
	}
	view := res.(*clusterView)
	l.asked, l.clusterID = asked, view.clusterID
	if len(view.brokers) > 0 {
		l.brokers = view.brokers
	}
	for i := range view.topics {
		l.topics[view.topics[i].name] = &view.topics[i]
	}
	return nil
}

// addresses are all brokers that we know of, the known ones before the seeds, each
// call beginning with another one.
func (l *layout) addresses() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := slices.Sorted(maps.Values(l.brokers))
	l.turn++
	if n := len(known); n > 0 {
		known = slices.Concat(known[l.turn%n:], known[:l.turn%n])
	}
	for i := range l.seeds {
		if s := l.seeds[(i+l.turn)%len(l.seeds)]; !slices.Contains(known, s) {
			known = append(known, s)
		}
	}
	return known
}

// anyBroker sends a request, made anew for each attempt, to brokers in turn until one answers.
func (l *layout) anyBroker(ctx context.Context, req func() protocol.Message) (protocol.Message, error) {
	var errs []error
	for _, addr := range l.addresses() {
		attempt, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		res, err := l.wire.roundTrip(attempt, addr, req())
		cancel()
		if err == nil {
			return res, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// newProducerID asks for a fresh producer id. The -1s ask for a new one: zeros would
// be producer 0. Any broker gives ids where no transaction is meant.
func (l *layout) newProducerID(ctx context.Context) (stampOf, error) {
	res, err := l.anyBroker(ctx, func() protocol.Message {
		return &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1, TransactionTimeoutMs: 60_000}
	})
	if err != nil {
		return stampOf{}, err
	}
	r := res.(*initproducerid.Response)
	if err := codeError(r.ErrorCode, ""); err != nil {
		return stampOf{}, fmt.Errorf("get a kafka producer id: %w", err)
	}
	return stampOf{pid: r.ProducerID, epoch: r.ProducerEpoch}, nil
}

// createTopic makes a topic. An answer that it exists is no error.
func (l *layout) createTopic(ctx context.Context, name string, o CreateTopics) error {
	t := createtopics.RequestTopic{Name: name, NumPartitions: -1, ReplicationFactor: -1}
	if o.Partitions > 0 {
		t.NumPartitions = int32(o.Partitions)
	}
	if o.Replication > 0 {
		t.ReplicationFactor = int16(o.Replication)
	}
	res, err := l.anyBroker(ctx, func() protocol.Message {
		return &createtopics.Request{Topics: []createtopics.RequestTopic{t}, TimeoutMs: 10_000}
	})
	if err != nil {
		return err
	}
	const exists = 36
	for _, a := range res.(*createtopics.Response).Topics {
		if a.ErrorCode != exists {
			return codeError(a.ErrorCode, a.ErrorMessage)
		}
	}
	return nil
}

// Timestamps that mean an offset in ListOffsets.
const (
	latestOffset   = -1
	earliestOffset = -2
)

// offset asks the leader for the first or the next offset of a partition.
func (l *layout) offset(ctx context.Context, topic string, partition int32, which int64) (int64, error) {
	addr, _, err := l.leader(topic, partition)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	res, err := l.wire.roundTrip(ctx, addr, &listoffsets.Request{ReplicaID: -1, Topics: []listoffsets.RequestTopic{{
		Topic:      topic,
		Partitions: []listoffsets.RequestPartition{{Partition: partition, CurrentLeaderEpoch: -1, Timestamp: which}},
	}}})
	if err != nil {
		return 0, err
	}
	topics := res.(*listoffsets.Response).Topics
	if len(topics) == 0 || len(topics[0].Partitions) == 0 {
		return 0, fmt.Errorf("list offsets of %s/%d: the answer names no partition", topic, partition)
	}
	p := &topics[0].Partitions[0]
	if err := codeError(p.ErrorCode, ""); err != nil {
		return 0, fmt.Errorf("list offsets of %s/%d: %w", topic, partition, err)
	}
	return p.Offset, nil
}

func hostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// sleep waits, or returns early when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
