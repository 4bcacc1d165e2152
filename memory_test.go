package main

import (
	"context"
	"math"
	"runtime/debug"
	"testing"
)

// TestBound: the collector has a limit, what lives has room above it, and whoever sets
// Go's own variables decides alone.
func TestBound(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
	ended, end := context.WithCancel(context.Background())
	end()
	for _, c := range []struct {
		limit, gc string
		bounded   bool
	}{{"", "", true}, {"1GiB", "", false}, {"", "100", false}} {
		t.Setenv("GOMEMLIMIT", c.limit)
		t.Setenv("GOGC", c.gc)
		debug.SetMemoryLimit(math.MaxInt64)
		bound(ended)
		if got := debug.SetMemoryLimit(-1) < math.MaxInt64; got != c.bounded {
			t.Errorf("GOMEMLIMIT=%q GOGC=%q: bounded %v, want %v", c.limit, c.gc, got, c.bounded)
		}
	}
	if got := roomFor(1 << 20); got != heapRoom {
		t.Errorf("of 1 MiB the limit is %d, want %d", got, heapRoom)
	}
	if got, want := roomFor(1<<30), int64(3<<29); got != want {
		t.Errorf("of 1 GiB the limit is %d, want %d", got, want)
	}
}
