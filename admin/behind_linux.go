package admin

import "syscall"

// lower is how many steps of nice a worker is behind the rest of the process. Ten: where both
// want a CPU, it has a tenth of it. Nineteen would leave it a hundredth: pages would hardly
// come, and when the collector stops the world while other programs use all CPUs, deliveries
// would wait until the worker has stopped too.
const lower = 10

// lowPriority puts the calling thread behind the others of the process. What the kernel
// refuses is not done: pages work without.
func lowPriority() {
	tid := syscall.Gettid()
	is, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid) // the system call gives 20 - nice
	if err != nil {
		return
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, tid, min(20-is+lower, 19))
}
