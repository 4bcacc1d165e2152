package main

import (
	"runtime"
	"testing"
)

// TestSpread: a small machine runs more goroutines than it has CPUs, unless somebody
// has said how many.
func TestSpread(t *testing.T) {
	was, machine := runtime.GOMAXPROCS(0), cores
	t.Cleanup(func() {
		cores = machine
		runtime.GOMAXPROCS(was)
	})
	for _, c := range []struct {
		env   string
		cores int
		want  int
	}{{"", 1, 5}, {"", 2, 6}, {"", fewCores, 8}, {"", fewCores + 1, was}, {"2", 2, was}} {
		runtime.GOMAXPROCS(was)
		t.Setenv("GOMAXPROCS", c.env)
		cores = c.cores
		spread()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("%d CPUs, GOMAXPROCS=%q: %d, want %d", c.cores, c.env, got, c.want)
		}
	}
}
