package admin

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// State is how the gateway is, as the overview shows it.
type State struct {
	ArchiveBytes    int64         `json:"archive_bytes"`
	QuarantineBytes int64         `json:"quarantine_bytes"`
	DiskFree        uint64        `json:"disk_free_bytes"`
	DiskFull        bool          `json:"disk_full"`          // at its reserve: deliveries are answered 503
	Failing         string        `json:"failing,omitempty"`  // why nothing can be written; "" when it can
	Oldest          time.Time     `json:"oldest_at,omitzero"` // of what is kept
	Damage          []string      `json:"damage,omitempty"`
	IndexLag        uint64        `json:"index_lag"`
	SampledAway     []SampledAway `json:"-"` // in the API's stats

	Sink        bool              `json:"sink"`                 // one is configured
	SinkName    string            `json:"sink_name,omitempty"`  // what is published to, in words; "" = Kafka
	SinkState   string            `json:"sink_state,omitempty"` // live, or what publishing waits for
	Unpublished int               `json:"unpublished"`          // with two sinks, of both
	OldestFor   time.Duration     `json:"oldest_ns"`            // how long the oldest of them has waited
	Held        int               `json:"held"`
	Blocked     map[string]string `json:"blocked,omitempty"` // topic: reason

	Redis     bool `json:"redis"` // is used
	RedisAway bool `json:"redis_away"`
	KafkaAway bool `json:"kafka_away"`

	ConfigError string        `json:"config_error,omitempty"` // why a changed configuration is not in force
	Unknown     []UnknownPath `json:"-"`                      // in the API's stats
}

// SampledAway are refusals of one source and reason that were counted and not kept.
type SampledAway struct {
	Source, Reason string
	Count          uint64
}

// UnknownPath is a path that was called and belongs to no source.
type UnknownPath struct {
	Path      string    `json:"path"`
	Method    string    `json:"method"`
	Count     uint64    `json:"count"`
	Address   string    `json:"address"` // of the last one
	UserAgent string    `json:"user_agent"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// Secret is a credential of a source, by its name and fingerprint.
type Secret struct {
	Name        string     `json:"name"`
	Fingerprint string     `json:"fingerprint"`
	Since       *time.Time `json:"since,omitempty"` // when this gateway first saw it in its configuration
}

// Setup says how a source is set up at its provider.
type Setup struct {
	URL          string   `json:"url"`            // what the provider is to call
	Help         string   `json:"help"`           // where that is entered, and where the secret is found
	Docs         string   `json:"docs,omitempty"` // the provider's own documentation
	Verification []string `json:"verification"`   // how its deliveries are verified
	Samples      []string `json:"samples"`        // types of test events that can be sent
}

// Sent is what became of a test event.
type Sent struct {
	Delivery string `json:"delivery"` // its id
	Status   int    `json:"status"`   // of the answer
}

// Helper helps to set sources up: what to enter at the provider, and a signed test event
// that comes in as the provider's would.
type Helper interface {
	Setup(ctx context.Context, source string) (Setup, error)
	SendTest(ctx context.Context, source, typ, by string) (Sent, error)
}

// gatheredMetrics are all of the gateway's metrics as they were, shared for measuredFor: of
// many sources to gather them takes milliseconds.
type gatheredMetrics struct {
	mu       sync.Mutex // held while they are gathered: the others wait for the same
	at       time.Time
	families []*dto.MetricFamily
}

// sharedMetrics is for pages; /metrics itself gathers anew.
func (s *Server) sharedMetrics(ctx context.Context) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		m := &s.gathered
		m.mu.Lock()
		defer m.mu.Unlock()
		if time.Since(m.at) < measuredFor {
			return m.families, nil
		}
		var families []*dto.MetricFamily
		if err := s.lane.turn(ctx, func() { families = gathered(s.o.Gatherer) }); err != nil {
			return nil, err
		}
		m.families, m.at = families, time.Now()
		return families, nil
	})
}

// quantiles reads some histograms without labels: the value below which the share q of all
// since the start was.
func quantiles(g prometheus.Gatherer, q float64, names ...string) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, f := range gathered(g) {
		for _, name := range names {
			if f.GetName() == name && len(f.GetMetric()) == 1 {
				if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() > 0 {
					out[name] = quantile(h, q)
				}
			}
		}
	}
	return out
}

// quantilesBySource reads a histogram with the label source.
func quantilesBySource(g prometheus.Gatherer, q float64, name string) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, f := range gathered(g) {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h.GetSampleCount() > 0 {
				for _, l := range m.GetLabel() {
					if l.GetName() == "source" {
						out[l.GetValue()] = quantile(h, q)
					}
				}
			}
		}
	}
	return out
}

// gathered is what there is of the metrics: a page is worth having without the rest.
func gathered(g prometheus.Gatherer) []*dto.MetricFamily {
	if g == nil {
		return nil
	}
	families, _ := g.Gather()
	return families
}

// quantile interpolates within the bucket, as Prometheus does.
func quantile(h *dto.Histogram, q float64) time.Duration {
	rank, below, from := q*float64(h.GetSampleCount()), 0.0, 0.0
	for _, b := range h.GetBucket() {
		upTo := float64(b.GetCumulativeCount())
		if upTo >= rank {
			share := 1.0
			if upTo > below {
				share = (rank - below) / (upTo - below)
			}
			return time.Duration((from + (b.GetUpperBound()-from)*share) * float64(time.Second))
		}
		below, from = upTo, b.GetUpperBound()
	}
	return time.Duration(from * float64(time.Second)) // above the last bound: at least that
}
