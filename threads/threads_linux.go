package threads

import (
	"time"

	"golang.org/x/sys/unix"
)

// slice is what a prompt thread asks the kernel for: the shorter, the sooner it comes.
// 100 us is the least that the kernel takes (sched(7), sched_setattr(2): sched_runtime of
// the normal policies).
const slice = 100 * time.Microsecond

func lower() {
	tid := unix.Gettid()
	is, err := unix.Getpriority(unix.PRIO_PROCESS, tid) // the system call gives 20 - nice
	if err != nil {
		return
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, tid, min(20-is+Steps, 19))
}

// prompt says whether the kernel took it: an older one takes no notice and says nothing.
func prompt() bool {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return false // whoever runs the process in another class wants it so
	}
	attr.Runtime = uint64(slice)
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return false
	}
	attr, err = unix.SchedGetAttr(0, 0)
	return err == nil && attr.Runtime == uint64(slice)
}
