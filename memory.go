package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapRoom is how large the process may grow before the collector works for its size and no
// longer for speed. 160 to 230 MiB live beside a backlog (heap profiles); without a limit the
// heap grows to twice that, and what the collector cannot follow in time comes on top: 930
// MiB were resident while a backlog was taken up, 422 with it.
const heapRoom = 336 << 20

// bound keeps the process small, unless GOMEMLIMIT or GOGC say what is wanted. What lives
// always has half as much again: a limit that nothing can meet would spend the CPU on it.
func bound(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for tick := time.NewTicker(time.Second); ; {
		metrics.Read(live)
		debug.SetMemoryLimit(max(heapRoom, int64(live[0].Value.Uint64()/2*3)))
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}
