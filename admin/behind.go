package admin

import (
	"fmt"
	"runtime/debug"
	"time"

	"penstock/threads"
)

// behind does work on threads of their own that have the kernel's lower priority: where the
// CPUs do not suffice for all, deliveries go first and pages take a little longer. Go's
// scheduler knows no priorities, so a search that computes for 15 ms on one of two CPUs
// was as much to the kernel as all answers to providers together.
//
// A worker ends its thread when it has had nothing to do for a while: a thread cannot raise
// its priority again without a privilege. How many there are the lane bounds: while the
// kernel lets one wait, the processor of Go's scheduler that it holds runs nothing else.
type behind struct {
	tasks chan *task // to a worker that waits for one
	lower func()     // threads.Lower
}

// task is work and its end.
type task struct {
	work  func()
	done  chan struct{}
	panic error // what the work panicked with, and where
}

// workerRest is how long a worker without work stays.
const workerRest = 100 * time.Millisecond

func newBehind() *behind { return &behind{tasks: make(chan *task), lower: threads.Lower} }

// do returns when the work is done. A panic in it is one here.
func (b *behind) do(work func()) {
	t := &task{work: work, done: make(chan struct{})}
	select {
	case b.tasks <- t:
	default:
		go b.worker(t)
	}
	<-t.done
	if t.panic != nil {
		panic(t.panic)
	}
}

func (b *behind) worker(t *task) {
	b.lower() // the thread ends with this function
	for t != nil {
		t.run()
		rest := time.NewTimer(workerRest)
		select {
		case t = <-b.tasks:
		case <-rest.C:
			t = nil
		}
		rest.Stop()
	}
}

func (t *task) run() {
	defer close(t.done)
	defer func() {
		if p := recover(); p != nil {
			t.panic = fmt.Errorf("%v\n%s", p, debug.Stack())
		}
	}()
	t.work()
}
