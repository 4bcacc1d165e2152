package forward

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the pump; names are CONTRACT's.
type metrics struct {
	published   *prometheus.CounterVec
	duplicates  *prometheus.CounterVec
	conflicts   *prometheus.CounterVec
	events      *prometheus.CounterVec
	failures    *prometheus.CounterVec
	dead        *prometheus.CounterVec
	held        *prometheus.CounterVec
	lag         prometheus.Histogram
	providerLag prometheus.Histogram
	sourceLag   *prometheus.HistogramVec
	routeErrors *prometheus.CounterVec
	remade      prometheus.Counter
	parked      *prometheus.GaugeVec
	heldNow     *prometheus.GaugeVec
	inMemory    *prometheus.GaugeVec
	blocked     *prometheus.GaugeVec
	pumps       *pumps
}

// pumps are those that count into one set of metrics.
type pumps struct {
	mu   sync.Mutex
	list []*Pump
}

func (ps *pumps) add(p *Pump) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.list = append(ps.list, p)
}

// sum adds what each pump says; most is the largest of it.
func (ps *pumps) sum(f func(*Pump) float64) (sum, most float64) {
	ps.mu.Lock()
	list := slices.Clone(ps.list)
	ps.mu.Unlock()
	for _, p := range list {
		v := f(p)
		sum, most = sum+v, max(most, v)
	}
	return sum, most
}

func newMetrics(r prometheus.Registerer, p *Pump) *metrics {
	if p.o.Beside != nil {
		m := p.o.Beside.met
		m.pumps.add(p)
		return m
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"sink"})
		r.MustRegister(g)
		return g
	}
	m := &metrics{
		published:  vec("penstock_published_total", "Events that a sink has, with synced outcome.", "source", "sink"),
		duplicates: vec("penstock_duplicates_total", "Events not published because their twin was delivered.", "source"),
		conflicts:  vec("penstock_dedupe_conflicts_total", "Events published although another of the same id was, with other content.", "source"),
		events:     vec("penstock_events_total", "Published events by type.", "source", "type"),
		failures:   vec("penstock_failures_total", "Published events that say why something failed.", "source", "reason"),
		dead:       vec("penstock_dead_letters_total", "Events that could not be published.", "reason"),
		routeErrors: vec("penstock_route_errors_total", "Events that a route's expression could not be evaluated for; the route does not take them.",
			"source", "route"),
		held: vec("penstock_held_total", "Times that an event was held.", "reason"),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_publish_lag_seconds",
			Help: "From receipt of a delivery to the ack of its event.", Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 16)}),
		providerLag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_provider_lag_seconds",
			Help: "From what happened at the provider to the receipt here.", Buckets: prometheus.ExponentialBuckets(0.05, 3, 16)}),
		sourceLag: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "penstock_source_provider_lag_seconds",
			Help: "From what happened at the provider to the receipt here, by source.", Buckets: []float64{.5, 2, 10, 60, 300, 900, 3600, 14400, 43200, 86400}}, []string{"source"}),
		remade: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_kafka_lost_republished_total",
			Help: "Events published again because Kafka had lost them after its ack."}),
		parked:   gauge("penstock_dedupe_parked", "Events that wait for another node's claim."),
		heldNow:  gauge("penstock_held_events", "Events that are held: paused source, blocked topic, missing definition."),
		inMemory: gauge("penstock_forward_bytes", "Bytes of events in memory."),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_topic_blocked",
			Help: "1 while a topic, or an HTTP target, takes nothing."}, []string{"topic"}),
		pumps: &pumps{list: []*Pump{p}},
	}
	r.MustRegister(m.lag, m.providerLag, m.sourceLag, m.blocked, m.remade)
	// From the start: of a series that begins at 1 Prometheus does not see that it grew, and
	// the alert would miss the first one.
	for _, reason := range deadReasons {
		m.dead.WithLabelValues(reason)
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_unpublished_deliveries",
		Help: "Accepted deliveries without a final synced outcome; with two sinks, of each."}, func() float64 {
		sum, _ := m.pumps.sum(func(p *Pump) float64 { return float64(p.Unpublished()) })
		return sum
	}))
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_oldest_unpublished_seconds",
		Help: "Age of the oldest of them; 0 when there is none."}, func() float64 {
		_, most := m.pumps.sum(func(p *Pump) float64 { return p.OldestUnpublished().Seconds() })
		return most
	}))
	return m
}

// sourceState is what the pump keeps per source; label handles are resolved once.
type sourceState struct {
	name       string
	met        *metrics
	published  prometheus.Counter
	duplicates prometheus.Counter
	conflicts  prometheus.Counter
	lag        prometheus.Observer
	byType     map[string]prometheus.Counter // the core's alone, like byReason
	byReason   map[string]prometheus.Counter
}

// maxTypes bounds the types of one source that get a series of their own: the words
// come from outside.
const maxTypes = 200

func (s *sourceState) events(typ string) prometheus.Counter {
	return cached(s.byType, s.met.events, s.name, typ)
}

func (s *sourceState) failures(reason string) prometheus.Counter {
	return cached(s.byReason, s.met.failures, s.name, reason)
}

func cached(m map[string]prometheus.Counter, v *prometheus.CounterVec, source, label string) prometheus.Counter {
	c := m[label]
	if c == nil {
		if len(m) >= maxTypes {
			label = "other"
		}
		c = v.WithLabelValues(source, label)
		if label != "other" {
			m[label] = c
		}
	}
	return c
}

// source gives the state of a source by name.
func (p *Pump) source(name string) *sourceState {
	p.infoMu.Lock()
	defer p.infoMu.Unlock()
	s := p.sources[name]
	if s == nil {
		s = &sourceState{name: name, met: p.met,
			published: p.met.published.WithLabelValues(name, p.kind), duplicates: p.met.duplicates.WithLabelValues(name),
			conflicts: p.met.conflicts.WithLabelValues(name), lag: p.met.sourceLag.WithLabelValues(name),
			byType: map[string]prometheus.Counter{}, byReason: map[string]prometheus.Counter{}}
		p.sources[name] = s
	}
	return s
}
