package forward

import (
	"context"
	"fmt"
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
	insyncKey  = "min.insync.replicas"
	cleanupKey = "cleanup.policy"
	uncleanKey = "unclean.leader.election.enable"
	largestKey = "max.message.bytes"
	// safetyEvery is how often the broker is asked again; a topic that is not there yet, or
	// a broker that does not answer, is asked for sooner.
	safetyEvery      = 5 * time.Minute
	safetyRetry      = 5 * time.Second
	safetyAfterError = time.Minute
)

// safety is what the broker says of the topics that are published to.
type safety struct {
	mu      sync.Mutex // protects what follows
	awaited []string   // answers wait for them
	watched []string   // named by the configuration
	insync  map[string]int
	risks   map[string][]string
}

func (s *safety) shown() (insync map[string]int, risks map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, topic := range s.awaited {
		if n, known := s.insync[topic]; known {
			if insync == nil {
				insync = map[string]int{}
			}
			insync[topic] = n
		}
	}
	return insync, maps.Clone(s.risks)
}

// Watch names the topics that are published to, as far as the configuration tells. The
// broker is asked for settings of theirs that lose events (see Stats), at the start and from
// time to time; so it is of every other topic, once there was an event for it.
func (p *Pump) Watch(topics []string) {
	p.safety.mu.Lock()
	defer p.safety.mu.Unlock()
	p.safety.watched = named(topics)
}

// setAwaited notes the topics that answers wait for.
func (p *Pump) setAwaited(topics []string) {
	p.safety.mu.Lock()
	defer p.safety.mu.Unlock()
	p.safety.awaited = named(topics)
}

// named leaves templates out: what they lead to is known when it has been opened.
func named(topics []string) (out []string) {
	for _, t := range topics {
		if t != "" && !strings.Contains(t, "{") && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// topicSettings is what a topic's broker says of it.
type topicSettings struct {
	insync  int
	compact bool
	unclean bool
	largest int // bytes of a batch; 0 = not told
}

// settingsAsker is a sink that can tell what its topics do with what they take.
type settingsAsker interface {
	topicSettings(ctx context.Context, topics []string) (map[string]topicSettings, error)
	opened() []string // topics that were published to
}

// watchSafety asks the broker for the settings of the topics until ctx ends.
func (p *Pump) watchSafety(ctx context.Context) {
	asker, ok := p.sink.(settingsAsker)
	if !ok {
		return
	}
	var last time.Time
	var failed error
	for ; ctx.Err() == nil; sleepCtx(ctx, time.Second) {
		p.safety.mu.Lock()
		wanted := named(slices.Concat(p.safety.awaited, asker.opened()))
		topics := named(slices.Concat(wanted, p.safety.watched))
		known := !slices.ContainsFunc(wanted, func(t string) bool {
			_, has := p.safety.insync[t]
			return !has
		})
		p.safety.mu.Unlock()
		wait := safetyEvery
		switch {
		case failed != nil:
			wait = safetyAfterError
		case !known:
			wait = safetyRetry
		}
		if len(topics) == 0 || time.Since(last) < wait {
			continue
		}
		last = time.Now()
		found, err := asker.topicSettings(ctx, topics)
		if err != nil && ctx.Err() == nil && (failed == nil || failed.Error() != err.Error()) {
			p.log.Warn("cannot ask kafka for settings of topics; DESCRIBE_CONFIGS is what it takes", zap.Error(err))
		}
		failed = err
		p.setSafety(found)
	}
}

// setSafety keeps what the broker said, and says what is not safe when it is new.
func (p *Pump) setSafety(found map[string]topicSettings) {
	insync, risks := map[string]int{}, map[string][]string{}
	p.safety.mu.Lock()
	wasInsync, wasRisks, awaited := p.safety.insync, p.safety.risks, p.safety.awaited
	for topic, is := range found {
		insync[topic] = is.insync
		if r := is.risks(p.o.Kafka.MaxBatchBytes); len(r) > 0 {
			risks[topic] = r
		}
	}
	for topic, n := range wasInsync { // not told this time
		if _, told := found[topic]; !told {
			insync[topic] = n
			if len(wasRisks[topic]) > 0 {
				risks[topic] = wasRisks[topic]
			}
		}
	}
	p.safety.insync, p.safety.risks = insync, risks
	p.safety.mu.Unlock()
	for topic, is := range risks {
		if !slices.Equal(is, wasRisks[topic]) {
			p.log.Warn("kafka topic has settings that lose events", zap.String("topic", topic), zap.Strings("settings", is))
		}
	}
	for _, topic := range awaited {
		n, known := insync[topic]
		if old, ok := wasInsync[topic]; !known || ok && old == n {
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

// risks are the settings under which events are lost or refused, in words; ours is what a
// batch of ours may have.
func (s topicSettings) risks(ours int) (out []string) {
	if s.compact {
		out = append(out, cleanupKey+" compact: of the events of one key Kafka keeps the last")
	}
	if s.unclean {
		out = append(out, uncleanKey+" true: a broker that lacks events may lead, and they are gone")
	}
	if ours <= 0 {
		ours = defaultBatchBytes
	}
	if s.largest > 0 && s.largest < ours {
		out = append(out, fmt.Sprintf("%s %d is less than forward.kafka.max_message_bytes %d: larger events go as pointers, or become dead letters", largestKey, s.largest, ours))
	}
	return out
}

func (k kafkaSink) opened() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.topics))
}

// topicSettings asks for the settings of the topics that are there; others are left out.
// With an error it gives those that it was told.
func (k kafkaSink) topicSettings(ctx context.Context, topics []string) (map[string]topicSettings, error) {
	const topicResource = 2
	req := &describeconfigs.Request{}
	for _, t := range topics {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: topicResource, ResourceName: t,
			ConfigNames: []string{insyncKey, cleanupKey, uncleanKey, largestKey}})
	}
	res, err := k.layout.anyBroker(ctx, func() protocol.Message { return req })
	if err != nil {
		return nil, err
	}
	out := map[string]topicSettings{}
	for _, r := range res.(*describeconfigs.Response).Resources {
		switch kafka.Error(r.ErrorCode) {
		case 0:
		case kafka.UnknownTopicOrPartition:
			continue
		default:
			err = fmt.Errorf("topic %s: %w", r.ResourceName, codeError(r.ErrorCode, r.ErrorMessage))
			continue
		}
		var is topicSettings
		for _, e := range r.ConfigEntries {
			switch n, _ := strconv.Atoi(e.ConfigValue); e.ConfigName {
			case insyncKey:
				is.insync = n
			case cleanupKey:
				is.compact = strings.Contains(e.ConfigValue, "compact")
			case uncleanKey:
				is.unclean = e.ConfigValue == "true"
			case largestKey:
				is.largest = n
			}
		}
		out[r.ResourceName] = is
	}
	return out, err
}
