package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"testing"
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
