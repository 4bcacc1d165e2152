package dedupe

import "github.com/prometheus/client_golang/prometheus"

// metrics are resolved once; nothing looks a label up per claim.
type metrics struct {
	unknown  prometheus.Counter
	inflight prometheus.Gauge
	waiting  prometheus.Gauge
	breaker  prometheus.Gauge
	errors   *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		unknown: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_dedupe_unknown_total",
			Help: "Events published because nobody could say whether they were delivered before."}),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_dedupe_claims",
			Help: "Claims held by this node."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_dedupe_confirms_waiting",
			Help: "Confirms that Redis has not taken yet."}),
		breaker: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_dedupe_breaker_open",
			Help: "1 while Redis is not asked because it did not answer."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_dedupe_redis_errors_total",
			Help: "Replies of Redis that prove nothing, by class."}, []string{"class"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_dedupe_redis_seconds",
			Help: "Time of one exchange of claims with Redis.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12)}),
	}
	r.MustRegister(m.unknown, m.inflight, m.waiting, m.breaker, m.errors, m.seconds)
	return m
}
