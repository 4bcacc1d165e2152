package threads

import "testing"

// Every CPU has a processor of Go's scheduler that no lowered thread can hold.
func TestSpare(t *testing.T) {
	for _, c := range []struct {
		procs, cpus, lowered int
		want                 bool
	}{{2, 1, 1, true}, {4, 2, 1, true}, {6, 2, 4, true}, {1, 1, 1, false}, {2, 2, 1, false}, {6, 2, 5, false}, {8, 8, 4, false}} {
		if got := spare(c.procs, c.cpus, c.lowered); got != c.want {
			t.Errorf("%d processors on %d CPUs, %d lowered threads: %v", c.procs, c.cpus, c.lowered, got)
		}
	}
}
