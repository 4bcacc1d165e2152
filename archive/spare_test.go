package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestFileInUseIsNoSpare: a file that somebody reads is not written again, whether retention
// removed its segment or the packer replaced it.
func TestFileInUseIsNoSpare(t *testing.T) {
	for _, pack := range []bool{false, true} {
		t.Run(fmt.Sprintf("pack=%t", pack), func(t *testing.T) {
			var keep atomic.Uint64
			keep.Store(1)
			o := Options{NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 1}, Keep: keep.Load}
			dir := t.TempDir()
			a := mustOpen(t, dir, o)
			add := func(n int) {
				for i := range n {
					mustAppend(t, a, kb(testDelivery(i), 2))
				}
			}
			add(60)
			seg := a.log.segs[1]
			f, err := seg.acquire()
			if err != nil {
				t.Fatal(err)
			}
			defer seg.release()
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			read := func() []byte {
				b := make([]byte, size)
				if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return b
			}
			want := read()[:seg.end.Load()]
			if pack {
				a.workers.Add(1)
				go a.packAll()
				a.packSoon()
				eventually(t, "packed", func() bool { n, all := packed(a); return n > 2 && all })
			} else {
				keep.Store(math.MaxUint64)
				a.retain()
			}
			add(200) // in the place of what was let go
			a.retain()
			add(200)
			if !bytes.Equal(read()[:len(want)], want) {
				t.Fatal("it was written again")
			}
		})
	}
}

// TestSpareOfASegment: the file of a removed segment is written again, and the power cut. What
// the disk has under the old name, or under both, is no segment with another's header. (Found
// on a full disk, where a segment begins in the file that was removed a moment before.)
func TestSpareOfASegment(t *testing.T) {
	for seed := range uint64(30) {
		var keep atomic.Uint64
		keep.Store(1)
		disk := newCrashFS(rand.New(rand.NewPCG(seed, 0)))
		o := Options{FS: disk, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes, Retention: Retention{Size: 1}, Keep: keep.Load, MaxWait: time.Hour}
		a := mustOpen(t, worldDir, o)
		for n := range 40 {
			mustAppend(t, a, kb(testDelivery(n), 1))
		}
		done := make(chan struct{})
		if a.runLater(func() { close(done) }) {
			within(t, "the background", done)
		}
		a.log.spares.mu.Lock()
		a.log.spares.names, a.log.spares.held = nil, 0 // what is removed is used at once
		a.log.spares.mu.Unlock()
		removed, off := false, false
		disk.mu.Lock()
		disk.fail = func(op, name string, _ int) error {
			removed = removed || op == "rename" && strings.Contains(name, usedPrefix)
			if off || removed && op == "rename" && strings.Contains(name, segmentsDir) && strings.HasSuffix(name, segmentSuffix) {
				off = true
				return errCrashedAfter
			}
			return nil
		}
		disk.mu.Unlock()
		keep.Store(math.MaxUint64)
		a.retain()
		for n := range 40 {
			_ = a.Append(kb(testDelivery(100+n), 1))
		}
		_ = a.Close()
		disk.mu.Lock()
		met := off
		disk.fail = nil
		disk.mu.Unlock()
		if !met {
			t.Fatalf("seed %d: no segment began in a removed one's file", seed)
		}
		disk = disk.powerCut()
		if res, err := check(disk, worldDir, nil); err != nil || !res.Sound() {
			t.Fatalf("seed %d: %v %q", seed, err, res.Damage)
		}
		o.FS = disk
		a = mustOpen(t, worldDir, o)
		if damage := a.Damage(); len(damage) > 0 {
			t.Fatalf("seed %d: a crash is taken for damage: %q", seed, damage)
		}
		_ = a.Close()
	}
}
