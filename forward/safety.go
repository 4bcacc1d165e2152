package forward

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"go.uber.org/zap"
)

// SafeReplicas is the least min.insync.replicas with which an ack of Kafka outlives the
// loss of one of its brokers.
const SafeReplicas = 2

const (
	insyncKey = "min.insync.replicas"
	// safetyEvery is how often the broker is asked again; a topic that is not there yet, or
	// a broker that does not answer, is asked for sooner.
	safetyEvery      = 5 * time.Minute
	safetyRetry      = 5 * time.Second
	safetyAfterError = time.Minute
)

// safety is what the broker says of the topics that answers wait for.
type safety struct {
	mu     sync.Mutex // protects what follows
	topics []string
	insync map[string]int
}

func (s *safety) shown() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.insync)
}

// setAwaited notes which topics are to be looked at. A template is not one: what it leads
// to is known when it has been opened.
func (p *Pump) setAwaited(topics []string) {
	p.safety.mu.Lock()
	defer p.safety.mu.Unlock()
	p.safety.topics = nil
	for _, t := range topics {
		if !strings.Contains(t, "{") && !slices.Contains(p.safety.topics, t) {
			p.safety.topics = append(p.safety.topics, t)
		}
	}
}

// insyncAsker is a sink that can tell what its acks are worth.
type insyncAsker interface {
	minInsync(ctx context.Context, topics []string) (map[string]int, error)
}

// watchSafety asks the broker for min.insync.replicas of the awaited topics until ctx ends.
func (p *Pump) watchSafety(ctx context.Context) {
	asker, ok := p.sink.(insyncAsker)
	if !ok {
		return
	}
	var last time.Time
	failed := false
	for ; ctx.Err() == nil; sleepCtx(ctx, time.Second) {
		p.safety.mu.Lock()
		topics := slices.Clone(p.safety.topics)
		known := true
		for _, t := range topics {
			_, has := p.safety.insync[t]
			known = known && has
		}
		p.safety.mu.Unlock()
		wait := safetyEvery
		switch {
		case failed:
			wait = safetyAfterError
		case !known:
			wait = safetyRetry
		}
		if len(topics) == 0 || time.Since(last) < wait {
			continue
		}
		last = time.Now()
		found, err := asker.minInsync(ctx, topics)
		if failed = err != nil; failed {
			if ctx.Err() == nil {
				p.log.Warn("cannot ask kafka for "+insyncKey+" of the topics that answers wait for", zap.Error(err))
			}
			continue
		}
		p.setSafety(found)
	}
}

// setSafety keeps what the broker said, and says what is not safe when it is new.
func (p *Pump) setSafety(found map[string]int) {
	p.safety.mu.Lock()
	was := p.safety.insync
	p.safety.insync = found
	p.safety.mu.Unlock()
	for topic, n := range found {
		if old, ok := was[topic]; ok && old == n {
			continue
		}
		if n < SafeReplicas {
			p.log.Error("answers wait for a topic whose acks one broker gives alone: what it loses was answered 2xx",
				zap.String("topic", topic), zap.Int(insyncKey, n), zap.Int("want", SafeReplicas))
			continue
		}
		p.log.Info("answers wait for a topic", zap.String("topic", topic), zap.Int(insyncKey, n))
	}
}

// minInsync asks for the setting of the topics that are there; others are left out.
func (k kafkaSink) minInsync(ctx context.Context, topics []string) (map[string]int, error) {
	const topicResource = 2
	req := &describeconfigs.Request{}
	for _, t := range topics {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: topicResource, ResourceName: t, ConfigNames: []string{insyncKey}})
	}
	res, err := k.layout.anyBroker(ctx, func() protocol.Message { return req })
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, r := range res.(*describeconfigs.Response).Resources {
		switch kafka.Error(r.ErrorCode) {
		case 0:
		case kafka.UnknownTopicOrPartition:
			continue
		default:
			return nil, codeError(r.ErrorCode, r.ErrorMessage)
		}
		for _, e := range r.ConfigEntries {
			if n, err := strconv.Atoi(e.ConfigValue); err == nil && e.ConfigName == insyncKey {
				out[r.ResourceName] = n
			}
		}
	}
	return out, nil
}
