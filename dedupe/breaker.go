package dedupe

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// breaker keeps a Redis that does not answer from being asked: one batch pays the
// time-out, later ones go on at once. A probe beside the claims closes it again, so
// that no event pays for finding out.
type breaker struct {
	open atomic.Bool
}

func (b *breaker) isOpen() bool { return b.open.Load() }

func (b *breaker) trip() { b.open.Store(true) }

const (
	probeEvery    = 250 * time.Millisecond
	probeEveryMax = 2 * time.Second
	checkEvery    = time.Minute // policy and run id are looked at again so often
)

// watch probes Redis while the breaker is open, and says when its memory policy or
// its identity changes.
func (s *store) watch(ctx context.Context, log *zap.Logger) {
	var seen serverInfo
	pause, sinceCheck := time.Duration(0), checkEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(pause, probeEvery)):
			sinceCheck += max(pause, probeEvery)
		}
		wasOpen := s.br.isOpen()
		if !wasOpen && sinceCheck < checkEvery {
			pause = 0
			continue
		}
		info, err := s.info(ctx)
		if err != nil {
			if !wasOpen && ctx.Err() == nil {
				s.failed(err)
				log.Warn("redis does not answer; the local index decides alone", zap.Error(err))
			}
			pause = min(max(2*pause, probeEvery), probeEveryMax)
			continue
		}
		s.br.open.Store(false)
		s.met.breaker.Set(0)
		if wasOpen {
			log.Info("redis answers")
		}
		seen.compare(info, log)
		s.checked.Store(true)
		seen, pause, sinceCheck = info, 0, 0
	}
}

// serverInfo is what the start-up check looks at.
type serverInfo struct {
	runID, policy, version string
}

// info asks one server; a server that forbids INFO is alive, and nothing is known.
func (s *store) info(ctx context.Context) (serverInfo, error) {
	var ping *redis.StatusCmd
	var info *redis.StringCmd
	err := s.exchange(ctx, func(p redis.Pipeliner) {
		ping = p.Ping(ctx)
		info = p.Info(ctx)
	})
	if errors.Is(err, errNoAnswer) {
		return serverInfo{}, err
	}
	if ping.Err() != nil {
		return serverInfo{}, ping.Err()
	}
	text, _ := info.Result()
	si := serverInfo{runID: field(text, "run_id"), policy: field(text, "maxmemory_policy"), version: field(text, "redis_version")}
	if si.version != "" {
		major, _, _ := strings.Cut(si.version, ".")
		s.old.Store(len(major) == 1 && major < "7")
	}
	return si, nil
}

func (old serverInfo) compare(now serverInfo, log *zap.Logger) {
	if now.policy != "" && now.policy != "noeviction" && now.policy != old.policy {
		log.Warn("redis evicts keys: repeats may be published again; set maxmemory-policy noeviction",
			zap.String("maxmemory_policy", now.policy))
	}
	if old.runID != "" && now.runID != "" && old.runID != now.runID {
		log.Warn("redis was restarted or failed over; evidence it lost is asked of the local index",
			zap.String("run_id", now.runID))
	}
}

func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Status is what readiness and the page say about Redis.
type Status struct {
	Configured bool
	Answers    bool
	Confirms   int // waiting
	Claims     int // held
}

// Status reports the state of now.
func (d *Deduper) Status() Status {
	d.mu.Lock()
	st := Status{Configured: d.redis != nil, Claims: len(d.flying)}
	d.mu.Unlock()
	if d.redis != nil {
		st.Answers = !d.redis.br.isOpen()
		st.Confirms = d.confirms.length()
	}
	return st
}
