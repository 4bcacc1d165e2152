// Package threads tells the kernel which of the process's work can wait. Go's scheduler knows
// no priorities: to the kernel, a compaction of the index that computes for a second is as
// much as all answers to providers together.
//
// What is said here is said of a thread, and a thread cannot be given back its priority
// without a privilege. So a goroutine that is lowered keeps its thread, and both end together.
// Where the kernel knows nothing of this or refuses, the work is done all the same.
package threads

import "runtime"

// Steps is how many steps of nice a lowered thread is behind the rest of the process. Ten:
// where both want a CPU, it has a tenth of it. Nineteen, or the idle policy, would leave it a
// hundredth or less: the collector waits for each thread that computes, wherever it is with
// its work, and while other programs take all CPUs everything would wait with it (SCHED_IDLE,
// three quarters of the capacity in an open loop: p99 50 to 90 ms in four of five runs, 20 and
// 23 at ten steps).
const Steps = 10

// Lower puts the calling goroutine on a thread of its own, behind the others of the process,
// until the goroutine ends. The goroutine must not unlock its thread.
func Lower() {
	runtime.LockOSThread()
	lower()
}

// Behind does work on a lowered thread and returns when it is done.
func Behind(work func() error) error {
	done := make(chan error, 1)
	go func() {
		Lower()
		done <- work()
	}()
	return <-done
}

// Prompt puts the calling goroutine on a thread of its own that gets a CPU as soon as it has
// something to do, in front of those that compute: for work that takes little and for which
// many wait. It gets no larger share. Linux since 6.12; nothing happens elsewhere.
func Prompt() {
	runtime.LockOSThread()
	if !prompt() {
		runtime.UnlockOSThread() // a thread of its own costs something, and gains nothing then
	}
}

// Spare reports whether Go's scheduler has a processor for each of so many CPUs beside those
// that lowered threads hold while the kernel lets them wait. Where it has not, nothing should
// be lowered: what holds the last processor would be waited for by everything.
func Spare(cpus, lowered int) bool { return spare(runtime.GOMAXPROCS(0), cpus, lowered) }

func spare(procs, cpus, lowered int) bool { return procs-lowered >= cpus }
