package admin

import (
	"context"
	"runtime"
	"time"

	"penstock/archive"
)

// lane lets few look through the index or draw a page at once, in the order in which they
// came: on two cores one, so that fifty people who look leave the other to deliveries. Who
// waits longer than a request may take is answered 503 with Retry-After.
type lane struct {
	Archive
	slots chan struct{}
}

func newLane(a Archive) *lane {
	return &lane{Archive: a, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

func (l *lane) enter(ctx context.Context) (leave func(), err error) {
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Query looks for deliveries. Full text has a queue of its own, and rests.
func (l *lane) Query(ctx context.Context, f archive.Filter) (archive.Page, error) {
	if f.Text == "" {
		leave, err := l.enter(ctx)
		if err != nil {
			return archive.Page{}, err
		}
		defer leave()
	}
	return l.Archive.Query(ctx, f)
}

// Counts counts deliveries.
func (l *lane) Counts(ctx context.Context, from, to time.Time, step time.Duration, source string) (archive.Counts, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		return archive.Counts{}, err
	}
	defer leave()
	return l.Archive.Counts(ctx, from, to, step, source)
}
