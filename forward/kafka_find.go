package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"go.uber.org/zap"

	"penstock/archive"
)

const (
	// settle is how long after a failed attempt a broker may still append what it had
	// read of it. A look that finds nothing is repeated after it.
	settle = time.Second
	// fetchBytes is what one fetch asks for.
	fetchBytes = 4 << 20
	// lowEndTries is how often an end below our mark is asked for again: a new leader
	// does not know at once how far its log is replicated.
	lowEndTries = 4
)

// find looks for the intent's records in its partition from the offset on, and
// returns the offset of each, or nil when they are not there. It tries until it knows;
// an error means that the context ended or that the partition is no more.
//
// A second look, after a pause, is for those who will send the events under another
// sequence when they are not there: a broker may still append what it had read of a
// request that failed. One look does for sending the same bytes again.
//
// A batch is written whole or not at all. Where some records are found and others
// not (retention, a compacted topic) it was written.
func (pt *partition) find(ctx context.Context, it *intent, from int64, looks int) ([]int64, error) {
	for {
		var offsets []int64
		err := pt.insist(ctx, "look up a batch in kafka", func() (err error) {
			offsets, err = pt.scan(ctx, it, from)
			if errors.Is(err, kafka.TopicAuthorizationFailed) {
				pt.block(ReasonForbidden) // it may not be read
			}
			return err
		})
		looks--
		if err != nil || offsets != nil || looks <= 0 {
			return offsets, err
		}
		sleep(ctx, settle)
	}
}

// insist repeats f until it succeeds, each time with a fresh layout and only while
// the topic is open.
func (pt *partition) insist(ctx context.Context, what string, f func() error) error {
	return pt.p.retry(ctx, what, func() error {
		if !pt.t.gate(ctx) {
			return context.Cause(ctx)
		}
		if pt.id >= pt.t.partitions() {
			return nil
		}
		began := time.Now()
		err := f()
		if err != nil {
			_ = pt.p.layout.refresh(ctx, began)
			if v := pt.p.layout.topic(pt.t.name); v != nil && v.code != 0 {
				pt.t.doubt()
			}
		}
		return err
	})
}

// scan reads the partition once, from the offset to where its leader's log ends.
func (pt *partition) scan(ctx context.Context, it *intent, from int64) ([]int64, error) {
	start, err := pt.p.layout.offset(ctx, pt.t.name, pt.id, earliestOffset)
	if err != nil {
		return nil, err
	}
	end, err := pt.leaderEnd(ctx)
	if err != nil {
		return nil, err
	}
	s := newSearch(it, from)
	for at := max(from, start); at < end && s.missing > 0; {
		next, err := pt.fetch(ctx, at, s)
		if err != nil {
			return nil, err
		}
		if next == at {
			// Nothing yet above the offset: it waits for its replicas.
			sleep(ctx, metadataEvery)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if end, err = pt.leaderEnd(ctx); err != nil {
				return nil, err
			}
		}
		at = next
	}
	return s.result(), nil
}

// search is what is looked for in a partition and what was found of it.
type search struct {
	it      *intent
	from    int64
	prints  map[uint64][]int // fingerprint -> items that have it and are not found
	offsets []int64          // of the items; -1: not found
	missing int
}

func newSearch(it *intent, from int64) *search {
	s := &search{it: it, from: from, prints: make(map[uint64][]int, len(it.items)),
		offsets: make([]int64, len(it.items)), missing: len(it.items)}
	for i := range it.items {
		s.offsets[i] = -1
		if p := it.items[i].print; p != 0 {
			s.prints[p] = append(s.prints[p], i)
		}
	}
	return s
}

// see looks at one record; inBatch is its place in a batch that has the intent's
// producer id and sequence, -1 in any other. The id and sequence alone prove nothing
// of an event that has a name of its own: other bytes may stand under them.
func (s *search) see(r *protocol.Record, inBatch int) {
	if r.Offset < s.from {
		return
	}
	if inBatch >= 0 && inBatch < len(s.offsets) && s.it.items[inBatch].print == 0 {
		s.take(inBatch, r.Offset)
		return
	}
	p := fingerprint(func(key string) []byte {
		for i := range r.Headers {
			if r.Headers[i].Key == key {
				return r.Headers[i].Value
			}
		}
		return nil
	})
	for _, i := range s.prints[p] {
		if s.offsets[i] < 0 {
			s.take(i, r.Offset)
			return
		}
	}
}

func (s *search) take(i int, offset int64) {
	if s.offsets[i] < 0 {
		s.missing--
	}
	s.offsets[i] = offset
}

// result is nil when nothing was found. Where only a part was, the others get the
// offsets that they had when the batch was written.
func (s *search) result() []int64 {
	if s.missing == len(s.offsets) {
		return nil
	}
	for i, at := range s.offsets {
		if at < 0 {
			continue
		}
		for j := range s.offsets {
			if s.offsets[j] < 0 {
				s.offsets[j] = at + int64(j-i)
			}
		}
		break
	}
	return s.offsets
}

// fetch reads what a leader has from the offset on, shows it to the search, and returns
// the offset to go on from; the same offset when there is nothing yet.
func (pt *partition) fetch(ctx context.Context, at int64, s *search) (int64, error) {
	addr, _, err := pt.p.layout.leader(pt.t.name, pt.id)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	m, err := pt.p.wire.roundTrip(ctx, addr, &fetch.Request{
		ReplicaID: -1, MaxWaitTime: 200, MinBytes: 1, MaxBytes: fetchBytes, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: pt.t.name, Partitions: []fetch.RequestPartition{{
			Partition: pt.id, CurrentLeaderEpoch: -1, FetchOffset: at, LogStartOffset: -1, PartitionMaxBytes: fetchBytes,
		}}}},
	})
	if err != nil {
		return 0, err
	}
	res := m.(*fetch.Response)
	if err := codeError(res.ErrorCode, ""); err != nil {
		return 0, err
	}
	if len(res.Topics) == 0 || len(res.Topics[0].Partitions) == 0 {
		return 0, fmt.Errorf("fetch %s/%d: the answer names no partition", pt.t.name, pt.id)
	}
	p := &res.Topics[0].Partitions[0]
	if err := codeError(p.ErrorCode, ""); err != nil {
		return 0, fmt.Errorf("fetch %s/%d at offset %d: %w", pt.t.name, pt.id, at, err)
	}
	next, err := s.readSet(p.RecordSet.Records, at)
	if next == at && err == nil && p.HighWatermark > at {
		next++ // a batch without records (compacted): step over it
	}
	return next, err
}

// readSet shows all records of a fetch to the search and returns the offset after the last.
func (s *search) readSet(records protocol.RecordReader, next int64) (int64, error) {
	stream, ok := records.(*protocol.RecordStream)
	if !ok {
		return next, nil
	}
	for _, set := range stream.Records {
		ours := false
		if b, ok := set.(*protocol.RecordBatch); ok {
			st := s.it.stamp
			ours = b.ProducerID == st.pid && b.ProducerEpoch == st.epoch && b.BaseSequence == st.seq
		}
		_, control := set.(*protocol.ControlBatch)
		for i := 0; ; i++ {
			r, err := set.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return next, err
			}
			next = max(next, r.Offset+1)
			if !control && ours {
				s.see(r, i)
			} else if !control {
				s.see(r, -1)
			}
			closeBytes(r.Key, r.Value)
		}
	}
	return next, nil
}

func closeBytes(all ...protocol.Bytes) {
	for _, b := range all {
		if b != nil {
			_ = b.Close()
		}
	}
}

// leaderEnd is where the leader's log ends, replicated or not; where the broker does
// not say that, where the replicated part ends.
func (pt *partition) leaderEnd(ctx context.Context) (int64, error) {
	end, err := pt.p.layout.offset(ctx, pt.t.name, pt.id, latestOffset)
	if err != nil {
		return 0, err
	}
	addr, epoch, err := pt.p.layout.leader(pt.t.name, pt.id)
	if err != nil {
		return 0, err
	}
	m, err := pt.p.wire.roundTrip(ctx, addr, &leaderEndRequest{topic: pt.t.name, partition: pt.id, epoch: epoch})
	if err != nil {
		return 0, err
	}
	res := m.(*leaderEndResponse)
	switch kafka.Error(res.code) {
	case 0:
		return max(end, res.end), nil
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed:
		return end, nil
	}
	return 0, kafka.Error(res.code)
}

// learnEnd asks where the partition ends, and says so loudly when that is below what
// was acknowledged to us in this life or an earlier one.
func (pt *partition) learnEnd(ctx context.Context) error {
	mark := int64(-1)
	if v, ok := pt.p.state.Get(ackedKey(pt.t.name, pt.id)); ok {
		mark = decodeOffset(v)
	}
	end := int64(-1)
	for range lowEndTries {
		err := pt.insist(ctx, "ask kafka for the end of a partition", func() (err error) {
			end, err = pt.p.layout.offset(ctx, pt.t.name, pt.id, latestOffset)
			return err
		})
		if err != nil {
			return err
		}
		if pt.id >= pt.t.partitions() {
			return errNoPartition
		}
		if end >= mark {
			pt.next = end
			return nil
		}
		sleep(ctx, settle)
	}
	if !pt.regressed(ctx, Regression{Topic: pt.t.name, Partition: pt.id, Acked: mark, End: end}) {
		return context.Cause(ctx)
	}
	pt.next = end
	return nil
}

// regressed reports that Kafka went back, and lowers the mark when the pump has made
// durable what it will do about it. False: the context ended.
func (pt *partition) regressed(ctx context.Context, r Regression) bool {
	pt.p.metrics.regressed.WithLabelValues(pt.t.name).Inc()
	pt.p.log.Error("KAFKA WENT BACK: it lost records that it had acknowledged", zap.String("topic", r.Topic),
		zap.Int32("partition", r.Partition), zap.Int64("acked", r.Acked), zap.Int64("end", r.End))
	if pt.p.o.Regressed != nil {
		if pt.p.retry(ctx, "hand over a kafka regression", func() error { return pt.p.o.Regressed(r) }) != nil {
			return false
		}
	}
	change := archive.Change{Key: ackedKey(r.Topic, r.Partition), Value: encodeOffset(r.End)}
	return pt.p.retry(ctx, "keep a lower kafka mark", func() error { return pt.p.journal.commit(ctx, change) }) == nil
}
