package forward

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// budget bounds the bytes of messages that are taken and not acked.
type budget struct {
	max   int64
	gauge prometheus.Gauge

	mu    sync.Mutex // guards what follows
	used  int64
	freed chan struct{} // closed and made anew when bytes come back
}

func newBudget(limit int64, g prometheus.Gauge) *budget {
	return &budget{max: limit, gauge: g, freed: make(chan struct{})}
}

// take waits for n bytes. Replays get half of the budget at most, so that live
// traffic always finds room. One message above the whole budget goes alone.
func (b *budget) take(ctx context.Context, closing <-chan struct{}, n int64, replay bool) error {
	limit := b.max
	if replay {
		limit /= 2
	}
	for {
		b.mu.Lock()
		if b.used == 0 || b.used+n <= limit {
			b.used += n
			b.gauge.Set(float64(b.used))
			b.mu.Unlock()
			return nil
		}
		wait := b.freed
		b.mu.Unlock()
		select {
		case <-wait:
		case <-closing:
			return ErrProducerClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.used -= n
	b.gauge.Set(float64(b.used))
	close(b.freed)
	b.freed = make(chan struct{})
	b.mu.Unlock()
}

const (
	backoffFirst = 20 * time.Millisecond
	backoffMax   = 2 * time.Second
	// loudEvery is the least time between two log lines of one thing that fails.
	loudEvery = 10 * time.Second
)

// backoff is the pause between attempts: doubled each time, with jitter.
type backoff struct {
	next time.Duration
	said time.Time
}

func newBackoff() *backoff { return &backoff{next: backoffFirst} }

func (b *backoff) wait(ctx context.Context) {
	d := b.next/2 + rand.N(b.next)
	b.next = min(2*b.next, backoffMax)
	sleep(ctx, d)
}

// loud says whether it is time for a log line. The first failure is not: it is
// ordinary that a broker moves something.
func (b *backoff) loud() bool {
	if b.next <= 2*backoffFirst || time.Since(b.said) < loudEvery {
		return false
	}
	b.said = time.Now()
	return true
}

func encodeOffset(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// decodeOffset is -1 for what encodeOffset did not write.
func decodeOffset(b []byte) int64 {
	if len(b) != 8 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(b))
}
