package archive

import (
	"time"

	"github.com/cockroachdb/pebble/v2"

	"penstock/threads"
)

// Deliveries are not answered later because somebody may look for them: the index is built, and
// old segments are packed, on threads that the kernel puts behind the others. In a burst the
// index falls behind, and follows when the burst is over. It does not fall behind without end:
// once what it reads is indexLate old it gets the same right as all until it has caught up.

// backgroundThreads is how many lowered threads may hold one of Go's processors: the index's
// reader, its writer, a flush or compaction, and the packer.
const backgroundThreads = 4

const (
	// indexLate is how old the newest delivery that can be found may be while others wait.
	indexLate = 10 * time.Second
	// indexCaughtUp is how old it is when the index is behind the others again.
	indexCaughtUp = time.Second
)

// lowers reports whether background work is lowered: the process says how many CPUs there are,
// and Go's scheduler has a processor for each of them beside those for this.
func (a *Archive) lowers() bool { return a.o.Cores > 0 && threads.Spare(a.o.Cores, backgroundThreads) }

// steps does steps until one fails, behind the others of the process or among them.
func (x *index) steps(step func() error) error {
	for {
		late := x.late.Load()
		run := func() (err error) {
			for err == nil && x.late.Load() == late {
				err = step()
			}
			return err
		}
		var err error
		if x.o.behind && !late {
			err = threads.Behind(run)
		} else {
			err = run()
		}
		if err != nil {
			return err
		}
	}
}

// punctual looks how late the index is: newest is when the delivery that it took last came.
func (x *index) punctual(newest time.Time) {
	x.late.Store(isLate(x.lag(), x.o.now().Sub(newest), x.late.Load()))
}

func isLate(lag uint64, age time.Duration, already bool) bool {
	return lag > 0 && (age >= indexLate || already && age >= indexCaughtUp)
}

// background puts a goroutine of Pebble's behind the others for as long as it flushes or
// compacts, and the goroutine ends with that. Pebble holds its mutex here.
func (x *index) background() {
	if x.o.behind && !x.late.Load() {
		threads.Lower()
	}
}

func (x *index) listener() *pebble.EventListener {
	return &pebble.EventListener{
		CompactionBegin: func(pebble.CompactionInfo) { x.background() },
		FlushBegin:      func(pebble.FlushInfo) { x.background() },
	}
}
