package forward

import (
	"context"
	"sync"
	"time"

	"penstock/archive"
)

const (
	// lazyDelay is how long changes that nobody waits for may lie before they cost a
	// sync of their own. Losing them costs a look into Kafka at the next start.
	lazyDelay = 250 * time.Millisecond
	// lazyMax is how many of them may lie.
	lazyMax = 1024
	// gatherFor is how long a sync waits for the intents of other partitions: those that
	// got their messages together bring them within this time.
	gatherFor = 500 * time.Microsecond
)

// journal groups the producer's changes of State: while one sync runs, whoever comes is
// in the next. Partitions that send at the same time share one sync for their intents.
type journal struct {
	state State
	wake  chan struct{}

	mu      sync.Mutex // guards what follows
	pending []archive.Change
	waiters []chan error
	lazy    []archive.Change
	next    uint64 // number of the next intent
}

func newJournal(s State, next uint64) *journal {
	return &journal{state: s, wake: make(chan struct{}, 1), next: next}
}

// number gives the next intent's number.
func (j *journal) number() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next++
	return j.next
}

// commit makes the changes durable before it returns. They are all kept or none.
func (j *journal) commit(ctx context.Context, changes ...archive.Change) error {
	done := make(chan error, 1)
	j.mu.Lock()
	j.pending = append(j.pending, changes...)
	j.waiters = append(j.waiters, done)
	j.mu.Unlock()
	j.kick()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// later makes the changes durable some time, with the next commit or after lazyDelay.
func (j *journal) later(changes ...archive.Change) {
	j.mu.Lock()
	first := len(j.lazy) == 0
	j.lazy = append(j.lazy, changes...)
	full := len(j.lazy) >= lazyMax
	j.mu.Unlock()
	if first || full {
		j.kick()
	}
}

func (j *journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// run commits until the context ends; then it commits what is left.
func (j *journal) run(ctx context.Context) {
	timer := time.NewTimer(lazyDelay)
	defer timer.Stop()
	for {
		select {
		case <-j.wake:
			j.mu.Lock()
			urgent := len(j.waiters) > 0 || len(j.lazy) >= lazyMax
			j.mu.Unlock()
			if !urgent {
				timer.Reset(lazyDelay)
				continue
			}
			sleep(ctx, gatherFor)
		case <-timer.C:
		case <-ctx.Done():
			j.flush()
			return
		}
		j.flush()
	}
}

// flush writes everything that is pending in one sync. Lazy changes that could not be
// written wait for the next one; those of a waiter are his to bring again.
func (j *journal) flush() {
	j.mu.Lock()
	changes, waiters, lazy := j.pending, j.waiters, j.lazy
	j.pending, j.waiters, j.lazy = nil, nil, nil
	j.mu.Unlock()
	if len(changes)+len(lazy) == 0 {
		return
	}
	// Lazy ones first: a deletion must never follow a newer value of its key.
	err := j.state.Commit(append(lazy[:len(lazy):len(lazy)], changes...)...)
	for _, w := range waiters {
		w <- err
	}
	if err != nil && len(lazy) > 0 {
		j.mu.Lock()
		j.lazy = append(lazy, j.lazy...)
		j.mu.Unlock()
		time.AfterFunc(lazyDelay, j.kick)
	}
}
