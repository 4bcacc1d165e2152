package threads

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// niceness is the calling thread's, 1 to 40, as the kernel numbers them: lower is behind.
func niceness(t *testing.T) int {
	t.Helper()
	n, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Error(err)
	}
	return n
}

// Lowered work is behind, says what it found, and no other thread is put there with it.
func TestBehind(t *testing.T) {
	own := niceness(t)
	want := max(own-Steps, 1)
	failure := errors.New("of the work")
	var at int
	if err := Behind(func() error { at = niceness(t); return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if at != want {
		t.Errorf("work was done at %d, want %d (the process is at %d)", at, want, own)
	}
	for range 100 { // threads that were made by that one or took over from it
		done := make(chan int)
		go func() { done <- niceness(t) }()
		if n := <-done; n != own {
			t.Fatalf("a goroutine beside runs at %d, the process at %d", n, own)
		}
	}
}

// A prompt thread has a short slice and the priority that it had.
func TestPrompt(t *testing.T) {
	own := niceness(t)
	type found struct {
		nice  int
		slice uint64
		err   error
	}
	done := make(chan found)
	go func() {
		Prompt()
		f := found{nice: niceness(t)}
		var attr *unix.SchedAttr
		if attr, f.err = unix.SchedGetAttr(0, 0); f.err == nil {
			f.slice = attr.Runtime
			if attr.Policy != unix.SCHED_NORMAL {
				f.slice = uint64(slice) // as in a run under chrt
			}
		}
		done <- f
	}()
	f := <-done
	if f.err != nil {
		t.Skipf("this kernel does not say: %v", f.err)
	}
	if f.nice != own {
		t.Errorf("at %d, want %d", f.nice, own)
	}
	if f.slice == 0 {
		t.Skip("this kernel has no slices of a thread's own (Linux 6.12)")
	}
	if f.slice != uint64(slice) {
		t.Errorf("slice of %d ns, want %d", f.slice, slice)
	}
}
