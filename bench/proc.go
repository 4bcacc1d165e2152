package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuOf is the user and system time that process pid has used, from the kernel's table.
// Its unit there is the clock tick, which Linux fixes at 1/100 s for user space.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in parentheses and may hold blanks.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	var ticks int64
	for _, v := range f[11:13] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// rssOf is the resident memory of process pid in bytes.
func rssOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// ownCPU is the load generator's.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// yield puts this process behind all others: its CPU would be on other machines. The kernel
// keeps a priority for each thread, and gives a new one that of the thread that makes it.
func yield() error {
	const lowest = 19
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		changed := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			// The system call gives 20 - nice.
			if is, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid); err != nil || is == 20-lowest {
				continue // it has ended, or is there already
			}
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, lowest); err != nil {
				return fmt.Errorf("setpriority of thread %d: %w", tid, err)
			}
			changed = true
		}
		if !changed {
			return nil
		}
	}
}

// serviceCPU is that of a service that test/services.sh started, 0 where it is another's.
func serviceCPU(name string) time.Duration {
	dir := os.Getenv("PENSTOCK_RUN")
	if dir == "" {
		dir = "test/.run"
	}
	b, err := os.ReadFile(dir + "/" + name + ".pid")
	if err != nil {
		return 0
	}
	word, _, _ := strings.Cut(string(b), " ")
	pid, err := strconv.Atoi(strings.TrimSpace(word))
	if err != nil {
		return 0
	}
	d, err := cpuOf(pid)
	if err != nil {
		return 0
	}
	return d
}

// diskBytes counts what the block device under dir has written, by whomever; 0 where
// there is none to ask. A process's own counter is no use: one small overwrite counts a
// whole folio of the page cache there.
func diskBytes(dir string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return 0
	}
	sectors, err := strconv.ParseInt(f[6], 10, 64)
	if err != nil {
		return 0
	}
	return sectors * 512
}
