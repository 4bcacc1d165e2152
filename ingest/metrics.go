package ingest

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/archive"
)

// ackBuckets reach from an answer out of memory to one that waited for a sick disk.
var ackBuckets = []float64{
	.0001, .00025, .0005, .00075, .001, .0015, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2,
}

// reasons are all that verification and the edge give (CONTRACT); their counters and
// bodies are made beforehand.
var reasons = []string{
	"signature_missing", "signature_malformed", "signature_mismatch", "timestamp_missing",
	reasonStale, "duplicate_header", reasonAddress, "merchant_mismatch", "key_unavailable", reasonPolicy,
}

// sourceAckBuckets are fewer: each source has them.
var sourceAckBuckets = []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// acked is a request that was answered with a 2xx: its first byte, and where its source's
// times are counted.
type acked struct {
	first  time.Time
	seq    uint64
	source prometheus.Observer
}

type metrics struct {
	deliveries *prometheus.CounterVec // source, verdict, reason
	shadow     *prometheus.CounterVec // source
	ack        prometheus.Histogram
	sourceAck  *prometheus.HistogramVec // source
	refused    [refusals]prometheus.Counter
	panics     prometheus.Counter
	bodies     map[string][]byte // JSON body of each reason
}

// sourceCounters are one source's counters, so that a request looks none up.
type sourceCounters struct {
	vec                 *prometheus.CounterVec
	name                string
	accepted, challenge prometheus.Counter
	rejected            map[string]prometheus.Counter // by reason
	ack                 prometheus.Observer
	shadow              prometheus.Counter // what an allowlist on trial would have refused
	shadowAt            atomic.Int64       // second of the last line about it
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_deliveries_total",
			Help: "Deliveries of known sources by verdict; the reason is empty unless rejected.",
		}, []string{"source", "verdict", "reason"}),
		shadow: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_ip_shadow_refusals_total",
			Help: "Deliveries that allow_ips would have refused if its mode were enforce.",
		}, []string{"source"}),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "penstock_ack_seconds",
			Help:    "From the first byte of a delivery in to its 2xx answer out.",
			Buckets: ackBuckets,
		}),
		sourceAck: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "penstock_source_ack_seconds",
			Help:    "From the first byte of a delivery in to its 2xx answer out, by source.",
			Buckets: sourceAckBuckets,
		}, []string{"source"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_ingest_panics_total",
			Help: "Requests that met a bug of ours and were answered 503.",
		}),
		bodies: make(map[string][]byte, len(reasons)),
	}
	for _, r := range reasons {
		m.bodies[r] = jsonError(r)
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_ingest_refused_total",
		Help: "Requests and connections turned away before or beside verification, by class.",
	}, []string{"class"})
	for r := refusedRequest; r < refusals; r++ {
		m.refused[r] = refused.WithLabelValues(refusalInfo[r].code)
	}
	for _, c := range []prometheus.Collector{
		m.deliveries, m.shadow, m.ack, m.sourceAck, m.panics, refused,
		gauge("penstock_ingest_inflight_bytes", "Bytes of bodies being read or handled, as declared.", func() float64 { return float64(s.budget.used.Load()) }),
		gauge("penstock_ack_waiting", "Answers that wait until a sink has the delivery.", func() float64 { return float64(s.waiting.Load()) }),
		gauge("penstock_ingest_connections", "Open connections.", func() float64 { return float64(s.conns.len()) }),
		gauge("penstock_ingest_draining", "1 while the edge is being stopped.", func() float64 {
			if s.draining.Load() {
				return 1
			}
			return 0
		}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register ingest metrics: %w", err)
		}
	}
	return m, nil
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

func (m *metrics) source(name string) *sourceCounters {
	c := &sourceCounters{
		vec:       m.deliveries,
		name:      name,
		accepted:  m.deliveries.WithLabelValues(name, archive.Accepted.String(), ""),
		challenge: m.deliveries.WithLabelValues(name, archive.Challenge.String(), ""),
		rejected:  make(map[string]prometheus.Counter, len(reasons)),
		ack:       m.sourceAck.WithLabelValues(name),
		shadow:    m.shadow.WithLabelValues(name),
	}
	for _, r := range reasons {
		c.rejected[r] = m.deliveries.WithLabelValues(name, archive.Rejected.String(), r)
	}
	return c
}

func (c *sourceCounters) reject(reason string) {
	if n, ok := c.rejected[reason]; ok {
		n.Inc()
		return
	}
	c.vec.WithLabelValues(c.name, archive.Rejected.String(), "other").Inc()
}

// reasonBody is the JSON body that names a reason.
func (m *metrics) reasonBody(reason string) []byte {
	if b, ok := m.bodies[reason]; ok {
		return b
	}
	return jsonErrors[refusedVerdict]
}
