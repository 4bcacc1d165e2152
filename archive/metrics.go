package archive

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// journalMetrics are the metrics of one log.
type journalMetrics struct {
	sync     prometheus.Histogram
	batch    prometheus.Histogram
	failures prometheus.Counter
	corrupt  prometheus.Counter
}

func (m *journalMetrics) observe(took time.Duration, b *batch) {
	m.sync.Observe(took.Seconds())
	m.batch.Observe(float64(b.count))
}

// metrics of the whole archive, by log where both logs have one.
type metrics struct {
	log [2]journalMetrics
}

func newMetrics(r prometheus.Registerer, a *Archive) *metrics {
	labels := []string{"log"}
	// The deliveries' one stands in the contract and has no labels, so the quarantine has
	// its own.
	syncs := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help,
			// 50 us is a sync of a good disk, 5 s the budget for an outage.
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18)})
		r.MustRegister(h)
		return h
	}
	sync := []prometheus.Histogram{syncs("penstock_archive_sync_seconds", "Duration of a sync of the archive's segment."),
		syncs("penstock_quarantine_sync_seconds", "Duration of a sync of the quarantine's segment.")}
	batch := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "penstock_archive_batch_records", Help: "Records that one sync made durable.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 14),
	}, labels)
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_archive_write_failures_total", Help: "Failed writes and syncs; each gives up a segment.",
	}, labels)
	corrupt := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_archive_corrupt_total", Help: "Damaged records or stretches of the archive that were met.",
	}, labels)
	r.MustRegister(batch, failures, corrupt)
	m := &metrics{}
	for i, name := range []string{"deliveries", "quarantine"} {
		m.log[i] = journalMetrics{
			sync:     sync[i],
			batch:    batch.WithLabelValues(name).(prometheus.Histogram),
			failures: failures.WithLabelValues(name),
			corrupt:  corrupt.WithLabelValues(name),
		}
	}
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("penstock_archive_bytes", "Bytes of the deliveries' segments on disk.", func() float64 { return float64(a.log.bytes.Load()) })
	gauge("penstock_archive_raw_bytes", "Bytes that the deliveries' segments would have without compression.", func() float64 { return float64(a.log.raw()) })
	gauge("penstock_archive_damage", "Places of the archive known to be damaged or missing: found at the start, or met since.",
		func() float64 { return float64(a.damage.count()) })
	gauge("penstock_backlog_bytes", "About how many bytes of the log a sink has still to work through.", func() float64 { return float64(a.Backlog()) })
	gauge("penstock_archive_segments", "Segments of deliveries.", func() float64 { return float64(a.log.count()) })
	gauge("penstock_archive_pins", "Deliveries that events point to, kept in files of their own beyond retention by size.", func() float64 {
		n, _ := a.pins.total()
		return float64(n)
	})
	gauge("penstock_archive_pinned_bytes", "Bytes of those files on disk: retention.size does not bound them, retention.age does.", func() float64 {
		_, size := a.pins.total()
		return float64(size)
	})
	gauge("penstock_quarantine_bytes", "Bytes of the quarantine's segments on disk.", func() float64 { return float64(a.quarantine.log.bytes.Load()) })
	gauge("penstock_quarantine_raw_bytes", "Bytes that the quarantine's segments would have without compression.", func() float64 { return float64(a.quarantine.log.raw()) })
	gauge("penstock_archive_disk_free_bytes", "Bytes that the archive's file system can still take.",
		func() float64 { return float64(a.diskFree.Load()) })
	gauge("penstock_archive_writable", "1 while deliveries can be taken.", func() float64 {
		if a.Writable() != nil {
			return 0
		}
		return 1
	})
	return m
}
