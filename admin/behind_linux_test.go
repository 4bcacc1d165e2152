package admin

import (
	"syscall"
	"testing"
	"time"

	"penstock/archive"
	"penstock/threads"
)

// niceness is the calling thread's, 0 to 39, as the kernel numbers them: lower is behind.
func niceness(t *testing.T) int {
	t.Helper()
	n, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Searches, counts and the drawing of pages are done on threads that the kernel puts behind
// those of deliveries, and no other thread is put there.
func TestBehindDeliveries(t *testing.T) {
	own := niceness(t)
	want := max(own-threads.Steps, 1)
	at := map[string]int{}
	p := &probed{Archive: newFakeArchive(), probe: func(what string) { at[what] = niceness(t) }}
	w := newWorld(t, func(o *Options) {
		o.Now = func() time.Time { at["now"] = niceness(t); return time.Now() }
	})
	l := newLane(p, 2)
	l.behind = newBehind() // also where the runtime has too few processors for it
	if _, err := l.Query(t.Context(), archive.Filter{}); err != nil {
		t.Fatal(err)
	}
	if p.yield {
		t.Error("a search behind deliveries was to give way by itself as well")
	}
	if _, err := l.Query(t.Context(), archive.Filter{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if !p.yield {
		t.Error("full text, which is not done behind, was not to give way")
	}
	if _, err := l.Counts(t.Context(), time.Time{}, time.Time{}, 0, ""); err != nil {
		t.Fatal(err)
	}
	w.server.lane = l
	if _, err := w.server.draw("sources.html", sourcesPage{Sources: []sourceView{{Last: &archive.Row{ReceivedAt: time.Now()}}}}); err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]int{"query ": want, "counts": want, "now": want, "query x": own} {
		if at[what] != n {
			t.Errorf("%q was done at %d, want %d (the process is at %d)", what, at[what], n, own)
		}
	}
	for range 100 { // threads that were made by the worker's or took over from it
		done := make(chan int)
		go func() { done <- niceness(t) }()
		if n := <-done; n != own {
			t.Fatalf("a goroutine beside runs at %d, the process at %d", n, own)
		}
	}
}
