package admin

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"penstock/archive"
	"penstock/threads"
)

// lane lets few look through the index or draw a page at once, in the order in which they
// came: on two cores one, so that fifty people who look leave the other to deliveries. Who
// waits longer than a request may take is answered 503 with Retry-After.
//
// What is done in a turn is done on a thread of lower priority where it can be (behind). While
// people wait for one another the lane spares the machine in two ways more: a list that has to look far answers
// earlier as far as it got, and after each turn the slot rests as long as the turn took. So a
// crowd waits for itself, and deliveries do not.
type lane struct {
	Archive
	behind  *behind // nil where that would take what deliveries need
	slots   chan struct{}
	waiting atomic.Int32
	after   func(time.Duration, func()) // time.AfterFunc
}

const (
	// crowdBudget is what a list may take while others wait for it.
	crowdBudget = 15 * time.Millisecond
	// restAbove is the shortest turn that is followed by a rest: shorter ones are cheaper than
	// the timer. restMost bounds what the next one waits.
	restAbove, restMost = time.Millisecond, 20 * time.Millisecond
)

// newLane has a slot for every two CPUs; 0 CPUs: as many as the runtime uses.
func newLane(a Archive, cores int) *lane {
	procs := runtime.GOMAXPROCS(0)
	if cores == 0 {
		cores = procs
	}
	l := &lane{Archive: a, slots: make(chan struct{}, max(1, cores/2)),
		after: func(d time.Duration, f func()) { time.AfterFunc(d, f) }}
	if threads.Spare(cores, cap(l.slots)) {
		l.behind = newBehind()
	}
	return l
}

func (l *lane) enter(ctx context.Context) (leave func(), err error) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.waiting.Add(1)
		defer l.waiting.Add(-1)
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	began := time.Now()
	return func() { l.leave(time.Since(began)) }, nil
}

func (l *lane) leave(took time.Duration) {
	if took < restAbove || l.waiting.Load() == 0 {
		<-l.slots
		return
	}
	l.after(min(took, restMost), func() { <-l.slots })
}

// turn does work when it is its turn, behind deliveries. The work must not ask for another.
func (l *lane) turn(ctx context.Context, work func()) error {
	leave, err := l.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if l.behind == nil {
		work()
	} else {
		l.behind.do(work)
	}
	return nil
}

// look asks the archive in one turn for all that a page wants of it: who waits, waits once.
// Full text must not be asked for in it.
func (l *lane) look(ctx context.Context, ask func(Archive)) error {
	return l.turn(ctx, func() { ask(inTurn{l.Archive, l}) })
}

// inTurn is the archive for who has the turn already.
type inTurn struct {
	Archive
	lane *lane
}

func (a inTurn) Query(ctx context.Context, f archive.Filter) (archive.Page, error) {
	return a.lane.query(ctx, f)
}

// Query looks for deliveries. Full text has a queue of its own, and rests.
func (l *lane) Query(ctx context.Context, f archive.Filter) (page archive.Page, err error) {
	if f.Text != "" {
		return l.Archive.Query(ctx, f)
	}
	late := l.turn(ctx, func() { page, err = l.query(ctx, f) })
	return page, errors.Join(late, err)
}

// query is Query within a turn.
func (l *lane) query(ctx context.Context, f archive.Filter) (archive.Page, error) {
	if f.Budget > crowdBudget && l.waiting.Load() > 0 {
		f.Budget = crowdBudget
	}
	f.Behind = l.behind != nil
	return l.Archive.Query(ctx, f)
}

// Counts counts deliveries.
func (l *lane) Counts(ctx context.Context, from, to time.Time, step time.Duration, source string) (c archive.Counts, err error) {
	late := l.turn(ctx, func() { c, err = l.Archive.Counts(ctx, from, to, step, source) })
	return c, errors.Join(late, err)
}
