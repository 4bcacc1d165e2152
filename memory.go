package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapRoom is how large the Go part of the process may grow before the collector works for its
// size and no longer for speed; some 40 MiB of the binary itself are resident beside it. At
// full load about 100 MiB live, a third of them the index's tables, and the heap would grow to
// twice that: 258 MiB were resident.
const heapRoom = 176 << 20

// bound keeps the process small, unless GOMEMLIMIT or GOGC say what is wanted.
func bound(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for tick := time.NewTicker(time.Second); ; {
		metrics.Read(live)
		debug.SetMemoryLimit(roomFor(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// roomFor is the limit where so much lives. What lives always has half as much again: a limit
// that nothing can meet would spend the CPU on it.
func roomFor(live uint64) int64 { return max(heapRoom, int64(live/2*3)) }
