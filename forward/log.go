package forward

import (
	"context"

	"penstock/archive"
)

// FromArchive makes an archive the pump's log.
func FromArchive(a *archive.Archive) Log { return archiveLog{a} }

type archiveLog struct{ *archive.Archive }

func (l archiveLog) Reader(from uint64) Reader { return l.NewReader(from) }

func (l archiveLog) State() State { return l.Archive.State() }

// kafkaSink is the producer with what the pump asks beside.
type kafkaSink struct {
	*producer
}

func newKafkaSink(o Options, regressed func(Regression) error) (sink, error) {
	k := o.Kafka
	if k.Logger == nil {
		k.Logger = o.Logger
	}
	if k.Registerer == nil {
		k.Registerer = o.Registerer
	}
	if k.Regressed == nil {
		k.Regressed = regressed
	}
	if k.Trace == nil {
		k.Trace = o.Trace
	}
	p, err := newProducer(k, o.Archive.State())
	if err != nil {
		return nil, err
	}
	return kafkaSink{p}, nil
}

// Blocked says whether the topic takes nothing. One stuck partition does not block the
// others: whether it is open again, only a Send can tell.
func (k kafkaSink) Blocked(topic string, partition int32) (bool, string) {
	if partition >= 0 {
		return false, ""
	}
	k.mu.Lock()
	t := k.topics[topic]
	k.mu.Unlock()
	if t == nil {
		return false, ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason != "", t.reason
}

// PartitionOf counts as Send does: by the partitions that the topic had when it was last
// open. A broker that has just started may know no topic for a moment; were the partition
// of a waiting event unknown then, it would wait behind another gate than the older ones
// of its key, and go before them.
func (k kafkaSink) PartitionOf(topic string, key []byte) int32 {
	k.mu.Lock()
	t := k.topics[topic]
	k.mu.Unlock()
	if t != nil {
		if n := t.partitions(); n > 0 {
			return partitionOf(key, n)
		}
	}
	v := k.layout.topic(topic)
	if v == nil || len(v.partitions) == 0 {
		return -1
	}
	return partitionOf(key, int32(len(v.partitions)))
}

func (k kafkaSink) Away() bool {
	k.layout.mu.Lock()
	defer k.layout.mu.Unlock()
	return k.layout.failed != nil
}

// Recover is the producer's, called once before anything is sent.
func (k kafkaSink) Recover(ctx context.Context, rebuild func(ItemRef) (*Message, error)) ([]Ack, error) {
	return k.producer.Recover(ctx, rebuild)
}
