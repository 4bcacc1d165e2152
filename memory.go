package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapRoom is how large the Go part of the process may grow before the collector works for its
// size and no longer for speed; some 40 MiB of the binary itself are resident beside it. 160 to
// 230 MiB live beside a backlog (heap profiles); without a limit the heap grows to twice that,
// and what the collector cannot follow in time comes on top: 930 MiB were resident while a
// backlog was taken up. With 176 MiB, 255 are resident at full load and not 339, but a delivery
// costs 195 us of CPU and not 165 (256 connections, four rounds in turn).
const heapRoom = 336 << 20

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
