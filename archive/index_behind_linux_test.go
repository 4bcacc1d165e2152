package archive

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"penstock/threads"
)

// niceness is the calling thread's, 1 to 40, as the kernel numbers them: lower is behind.
func niceness() int {
	n, _ := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
	return n
}

// seenAt tells at which priority the index does what.
type seenAt struct {
	vfs.FS
	mu   *sync.Mutex
	seen map[string]map[int]bool
}

func (s seenAt) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[what] == nil {
		s.seen[what] = map[int]bool{}
	}
	s.seen[what][niceness()] = true
}

func (s seenAt) take() map[string]map[int]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := map[string]map[int]bool{}
	for what, at := range s.seen {
		was[what] = at
	}
	clear(s.seen)
	return was
}

func (s seenAt) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	s.note(string(category))
	return s.FS.Create(name, category)
}

// TestIndexBehind: the index is read, written, flushed and compacted behind the others of the
// process, and among them while it is late.
func TestIndexBehind(t *testing.T) {
	own := niceness()
	lowered := max(own-threads.Steps, 1)
	s := seenAt{vfs.NewMem(), &sync.Mutex{}, map[string]map[int]bool{}}
	var mu sync.Mutex
	now := fakeEpoch
	x := testIndex(t, "index", indexOptions{fs: s, behind: true, busyDelay: time.Millisecond,
		Tip: func() uint64 { return 1 << 40 }, // there is always more to come
		now: func() time.Time {
			s.note("write")
			mu.Lock()
			defer mu.Unlock()
			return now
		},
		Extract: func(d *Delivery) (Fields, bool) { s.note("read"); return fakeExtract(d) }})
	work := []string{"read", "write", "pebble-memtable-flush", "pebble-compaction"}
	g := newFakeLogs(1)
	round := func() map[string]map[int]bool {
		s.take()
		seen := map[string]map[int]bool{}
		waitFor(t, "all kinds of work", func() bool {
			g.run(5)
			g.feed(t, x, 1)
			if err := x.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatal(err)
			}
			for what, at := range s.take() {
				if seen[what] == nil {
					seen[what] = at
				}
				for n := range at {
					seen[what][n] = true
				}
			}
			for _, what := range work {
				if seen[what] == nil {
					return false
				}
			}
			return true
		})
		return seen
	}
	for what, at := range round() {
		for _, w := range work {
			if what == w && (len(at) != 1 || !at[lowered]) {
				t.Errorf("%s was done at %v, want %d (the process is at %d)", what, at, lowered, own)
			}
		}
	}
	mu.Lock()
	now = g.at.Add(1000 * time.Hour) // the made-up clock of the records goes on
	mu.Unlock()
	waitFor(t, "a late index to work among the others", func() bool {
		seen := round()
		for _, what := range work {
			if !seen[what][own] || len(seen[what]) != 1 {
				return false
			}
		}
		return true
	})
	mu.Lock()
	now = fakeEpoch
	mu.Unlock()
	waitFor(t, "an index that caught up to be behind again", func() bool { return round()["read"][lowered] })
}
