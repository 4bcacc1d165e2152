package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// row is one measurement of one candidate.
type row struct {
	Part      string  `json:"part"`
	Cell      string  `json:"cell"`
	Candidate string  `json:"candidate"`
	Traffic   traffic `json:"traffic"`
	Conns     int     `json:"connections"`
	Round     int     `json:"round"`

	OfferedPerSec float64       `json:"offered_per_second,omitempty"` // open loop
	AckPerSec     float64       `json:"acks_per_second"`
	FullPerSec    float64       `json:"full_path_per_second"` // until the last event is in Kafka; equals acks where nothing follows
	IndexedPerSec float64       `json:"indexed_per_second"`   // until a search finds the last; equals acks where there is no index
	P50           time.Duration `json:"p50_ns"`
	P99           time.Duration `json:"p99_ns"`
	P999          time.Duration `json:"p99_9_ns"`
	Refused       int           `json:"refused"` // as their wrong signatures want
	Wrong         int           `json:"wrong_answers"`

	// Per delivery, all CPU in microseconds.
	ServerUS float64 `json:"server_cpu_us"`
	ClientUS float64 `json:"client_cpu_us"`
	RedisUS  float64 `json:"redis_cpu_us"`
	KafkaUS  float64 `json:"kafka_cpu_us"`
	DiskKiB  float64 `json:"disk_kib"` // of the whole device, Kafka's included
	Syncs    float64 `json:"archive_syncs_per_second"`
	PerSync  float64 `json:"records_per_sync"`
	SyncMS   float64 `json:"archive_sync_mean_ms"`
	RSSMiB   float64 `json:"rss_mib"`
}

// usage is what was used up to now.
type usage struct {
	server, client, redis, kafka time.Duration
	disk                         int64
	gauges
}

func (s *server) usage(o *options) (u usage, err error) {
	if u.server, err = cpuOf(s.cmd.Process.Pid); err != nil {
		return u, err
	}
	u.client = ownCPU()
	u.redis, u.kafka = serviceCPU("redis"), serviceCPU("kafka")
	u.disk = diskBytes(o.out)
	u.gauges, err = s.scrape()
	return u, err
}

// pool is how many different requests a run has. What is not deduplicated may come
// again, as with any load generator; the full path gets each once.
const (
	pool     = 20_000
	fullPool = 150_000
)

func measure(o *options, c *cell, binary, candidate string, round int, rate float64) (row, error) {
	id := fmt.Sprintf("%s%d%d%d", candidate[:1], c.conns, round, time.Now().UnixNano()%1e9)
	s, err := start(o, binary, candidate, id, c.traffic)
	if err != nil {
		return row{}, err
	}
	defer s.stop()
	// A short warm-up: connections, caches, the producer's first metadata.
	if _, err := load(s.addr, makeRequests(4000, c.traffic, id+"w", time.Now()), c.conns, o.d/3, 0, candidate != full); err != nil {
		return row{}, err
	}
	if err := errors.Join(s.drained(candidate), s.indexed()); err != nil {
		return row{}, err
	}
	n := pool
	if candidate == full {
		n = fullPool
	}
	reqs := makeRequests(n, c.traffic, id, time.Now())
	was, err := s.usage(o)
	if err != nil {
		return row{}, err
	}
	s.signal(syscall.SIGUSR1)
	begin := time.Now()
	res, err := load(s.addr, reqs, c.conns, o.d, rate, candidate != full)
	if err != nil {
		return row{}, err
	}
	// Both before the backlog is worked off: that is not part of taking deliveries.
	acked, err := s.scrape()
	if err != nil {
		return row{}, err
	}
	if err := s.drained(candidate); err != nil {
		return row{}, err
	}
	took := time.Since(begin)
	if candidate != full {
		took = res.Elapsed
	}
	// What the index has put off until then is CPU of these deliveries, too.
	if err := s.indexed(); err != nil {
		return row{}, err
	}
	indexed := time.Since(begin)
	if s.admin == "" {
		indexed = res.Elapsed
	}
	s.signal(syscall.SIGUSR1)
	is, err := s.usage(o)
	if err != nil {
		return row{}, err
	}
	rss, err := rssOf(s.cmd.Process.Pid)
	if err != nil {
		return row{}, err
	}
	each := max(1, res.OK+res.Refused)
	us := func(a, b time.Duration) float64 { return float64((b - a).Microseconds()) / float64(each) }
	return row{Cell: c.name, Candidate: candidate, Traffic: c.traffic, Conns: c.conns, Round: round, OfferedPerSec: rate,
		AckPerSec: res.rate(), FullPerSec: float64(res.OK) / took.Seconds(), IndexedPerSec: float64(res.OK+res.Refused) / indexed.Seconds(), P50: res.P50, P99: res.P99, P999: res.P999,
		Refused: res.Refused, Wrong: res.Wrong,
		ServerUS: us(was.server, is.server), ClientUS: us(was.client, is.client), RedisUS: us(was.redis, is.redis), KafkaUS: us(was.kafka, is.kafka),
		DiskKiB: float64(is.disk-was.disk) / 1024 / float64(each), Syncs: (acked.syncs - was.syncs) / res.Elapsed.Seconds(),
		PerSync: (acked.records - was.records) / max(1, acked.syncs-was.syncs), RSSMiB: float64(rss) / (1 << 20),
		SyncMS: 1e3 * (acked.syncing - was.syncing) / max(1, acked.syncs-was.syncs)}, nil
}
