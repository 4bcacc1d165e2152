package forward

import "github.com/prometheus/client_golang/prometheus"

// producerMetrics are the producer's own numbers. Labels are bounded: topics come
// from the configuration, causes from Kafka's table of errors.
type producerMetrics struct {
	seconds   prometheus.Histogram
	bytes     prometheus.Histogram
	records   prometheus.Histogram
	retries   *prometheus.CounterVec
	ambiguous prometheus.Counter
	lookups   *prometheus.CounterVec
	regressed *prometheus.CounterVec
	blocked   *prometheus.GaugeVec
	inFlight  prometheus.Gauge
	sessions  prometheus.Counter
}

func newProducerMetrics(reg prometheus.Registerer) (*producerMetrics, error) {
	m := &producerMetrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_kafka_produce_seconds", Help: "Time of one produce request, answered or not.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		bytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_kafka_batch_bytes", Help: "Size of a record batch on the wire.",
			Buckets: prometheus.ExponentialBuckets(256, 4, 8),
		}),
		records: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_kafka_batch_records", Help: "Records in a batch.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_kafka_retries_total", Help: "Produce attempts that failed, by cause.",
		}, []string{"cause"}),
		ambiguous: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_kafka_ambiguous_total",
			Help: "Produce attempts after which nobody knew whether Kafka had the batch.",
		}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_kafka_lookups_total", Help: "Batches that were looked up in Kafka, by what came out.",
		}, []string{"result"}),
		regressed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_kafka_regressed_total", Help: "Times that a partition ended below what Kafka had acknowledged.",
		}, []string{"topic"}),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "penstock_kafka_topic_blocked", Help: "1 while a topic or one of its partitions takes nothing.",
		}, []string{"topic", "reason"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_kafka_in_flight_bytes", Help: "Bytes of messages that wait for Kafka in memory.",
		}),
		sessions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_kafka_producer_ids_total", Help: "Producer ids that were asked for.",
		}),
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	for _, c := range []prometheus.Collector{m.seconds, m.bytes, m.records, m.retries, m.ambiguous, m.lookups,
		m.regressed, m.blocked, m.inFlight, m.sessions} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
