// Package profile writes CPU profiles of a process while the benchmark's clock runs. It
// is linked only where profiles are asked for: `make bench PROFILE=1`.
package profile

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// Env names the file that a profile goes to; unset or empty: none is written.
const Env = "PENSTOCK_PROFILE"

// OnSignal begins a profile at SIGUSR1 and ends it at the next one, with the allocations so
// far in a second file beside. SIGUSR2 restarts the gateway.
func OnSignal() {
	path := os.Getenv(Env)
	if path == "" {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		var f *os.File
		for range c {
			var err error
			if f == nil {
				if f, err = os.Create(path); err == nil {
					err = pprof.StartCPUProfile(f)
				}
			} else {
				pprof.StopCPUProfile()
				err = f.Close()
				f = nil
				if err == nil {
					err = writeAllocs(path + ".allocs")
				}
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "profile:", err)
			}
		}
	}()
}

func writeAllocs(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.GC()
	return pprof.Lookup("allocs").WriteTo(f, 0)
}
