package archive

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPin: a pinned delivery outlives its segment and a restart, byte for byte, until its
// time is over; what was not pinned goes.
func TestPin(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	o := Options{NoIndex: true, SegmentBytes: minSegmentBytes, Now: c.now, Retention: Retention{Size: 3 * minSegmentBytes}}
	a := mustOpen(t, dir, o)
	pinned, other := kb(testDelivery(1), 3), kb(testDelivery(2), 3)
	mustAppend(t, a, pinned)
	mustAppend(t, a, other)
	until := c.now().Add(time.Hour)
	for _, at := range []time.Time{until.Add(-time.Minute), until, until.Add(-time.Hour)} { // the longest counts
		if err := a.Pin(pinned, at); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 60 {
		mustAppend(t, a, kb(testDelivery(10+n), 2))
	}
	a.retain()
	if _, err := a.Get(other.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("its segment was to be removed: %v", err)
	}
	same := func() {
		t.Helper()
		d, err := a.Get(pinned.ID)
		if err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(filepath.Join(dir, pinsDir))
		if err != nil {
			t.Fatal(err)
		}
		var want int64
		for _, e := range names {
			if info, err := e.Info(); err == nil {
				want += info.Size()
			}
		}
		if n, size := a.pins.total(); n != 1 || size != want || size < int64(len(pinned.Body)) {
			t.Errorf("%d pins of %d bytes are counted, want one of %d", n, size, want)
		}
		if !bytes.Equal(d.Body, pinned.Body) || d.ID != pinned.ID || d.Seq != pinned.Seq || d.Source != pinned.Source || !bytes.Equal(d.Header, pinned.Header) {
			t.Errorf("%+v, want %+v", d, pinned)
		}
	}
	same()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, pinsDir, "tmp")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, dir, o)
	same()
	if names, _ := os.ReadDir(filepath.Join(dir, pinsDir)); len(names) != 1 {
		t.Errorf("%d files, want one", len(names))
	}
	name := filepath.Join(dir, pinsDir, a.pins.at[pinned.ID].name(pinned.ID))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(pinned.ID); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
	c.add(2 * time.Hour)
	a.retain()
	if _, err := a.Get(pinned.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("expired: %v", err)
	}
	if names, _ := os.ReadDir(filepath.Join(dir, pinsDir)); len(names) != 0 {
		t.Errorf("%d files stay", len(names))
	}
	if n, size := a.pins.total(); n != 0 || size != 0 {
		t.Errorf("%d pins of %d bytes are counted after the last has gone", n, size)
	}
	if err := a.Pin(&Delivery{ID: "../x"}, until); err == nil {
		t.Error("an id that is none was pinned")
	}
}
