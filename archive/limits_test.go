package archive

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestDiskAtItsReserve(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	mustAppend(t, a, testDelivery(1))
	disk.setFree(disk.total/20 - 1<<30)
	eventually(t, "deliveries refused", func() bool { return errors.Is(a.Append(testDelivery(2)), ErrFull) })
	if err := a.Writable(); !errors.Is(err, ErrFull) {
		t.Fatalf("writable: %v", err)
	}
	if err := a.AppendOutcomes([]Outcome{{Delivery: 1, Kind: Published}}); err != nil {
		t.Fatalf("outcome on a full disk: %v", err)
	}
	if err := a.AppendMarker(&Marker{Kind: JobMarker, Key: "j"}); err != nil {
		t.Fatalf("marker on a full disk: %v", err)
	}
	if err := a.State().Commit(Change{"cursor", []byte("1")}); err != nil {
		t.Fatalf("state on a full disk: %v", err)
	}
	d := testDelivery(3)
	if kept, err := a.Reject(d); kept || err != nil {
		t.Fatalf("reject on a full disk: %t, %v", kept, err)
	}
	if s := a.SampledAway(); len(s) != 1 || s[0].Count != 1 {
		t.Fatalf("sampled away: %+v", s)
	}
	disk.setFree(disk.total / 2)
	eventually(t, "deliveries taken again", func() bool { return a.Append(testDelivery(4)) == nil })
}

func TestOpensOnADiskThatCannotBeWritten(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	var acked []*Delivery
	for n := range 10 {
		d := testDelivery(n)
		mustAppend(t, a, d)
		acked = append(acked, d)
	}
	_ = a.Close()
	disk = disk.kill()
	var full atomic.Bool
	full.Store(true)
	disk.fail = func(string, string, int) error {
		if full.Load() {
			return errInjected
		}
		return nil
	}
	a = mustOpen(t, worldDir, Options{FS: disk, NoIndex: true})
	if recs := readAll(t, a.NewReader(0)); len(recs) != len(acked) {
		t.Fatalf("%d records can be read, want %d", len(recs), len(acked))
	}
	if err := a.Append(testDelivery(100)); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("append: %v", err)
	}
	full.Store(false)
	eventually(t, "serving after the cure", func() bool { return a.Append(testDelivery(101)) == nil })
}

func TestInFlightIsBounded(t *testing.T) {
	disk := newCrashFS(seeded(t))
	a := mustOpen(t, worldDir, Options{FS: disk, NoIndex: true, MaxInFlight: 4096, MaxWait: time.Hour})
	let, entered := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(let) })
	t.Cleanup(free) // before Close, which waits for what is blocked
	var once sync.Once
	disk.mu.Lock()
	disk.block = func(op, name string) {
		if op == "sync" && strings.HasSuffix(name, segmentSuffix) {
			once.Do(func() { close(entered) })
			<-let
		}
	}
	disk.mu.Unlock()
	errs := make(chan error, 100)
	for n := range 100 {
		go func() {
			d := testDelivery(n)
			d.Body = make([]byte, 500)
			errs <- a.Append(d)
		}()
	}
	within(t, "the sync", entered)
	busy := 0
	for busy < 90 { // at most 8 of them fit
		if err := within(t, "an answer", errs); !errors.Is(err, ErrBusy) {
			t.Fatalf("append beyond the bound: %v", err)
		}
		busy++
	}
	free()
	for range 100 - busy {
		if err := within(t, "an answer", errs); err != nil && !errors.Is(err, ErrBusy) {
			t.Fatalf("append within the bound: %v", err)
		}
	}
}

func TestAppendAfterClose(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	mustAppend(t, a, testDelivery(1))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	d := testDelivery(2)
	if err := a.Append(d); !errors.Is(err, ErrClosed) {
		t.Fatalf("append: %v", err)
	}
	if err := a.AppendMarker(&Marker{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("marker: %v", err)
	}
	if err := a.State().Commit(Change{"a", []byte("b")}); !errors.Is(err, ErrClosed) {
		t.Fatalf("state: %v", err)
	}
	if _, err := a.Reject(testDelivery(3)); !errors.Is(err, ErrClosed) {
		t.Fatalf("reject: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
}
