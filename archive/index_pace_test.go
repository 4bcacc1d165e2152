package archive

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCompactionsRest: what a compaction writes makes it rest as long as it worked, within
// bounds; what a flush writes, or a compaction that is behind, does not.
func TestCompactionsRest(t *testing.T) {
	d := newIndexDisk(vfs.NewMem(), "", nil)
	var rests []time.Duration
	paced := pacedFS{d.inner, &d.hurry, func(d time.Duration) { rests = append(rests, d) }}
	write := func(category vfs.DiskWriteCategory, worked time.Duration) []time.Duration {
		t.Helper()
		f, err := paced.Create("table", category)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if p, ok := f.(*pacedFile); ok {
			p.began = p.began.Add(-worked)
		}
		rests = nil
		if n, err := f.Write([]byte("x")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		return rests
	}
	if r := write(compactionFile, 5*time.Millisecond); len(r) != 1 || r[0] < 5*time.Millisecond || r[0] > paceMost {
		t.Errorf("after 5 ms of work it rested %v", r)
	}
	if r := write(compactionFile, time.Hour); len(r) != 1 || r[0] != paceMost {
		t.Errorf("after an hour of a slow disk it rested %v", r)
	}
	if r := write("pebble-memtable-flush", time.Hour); len(r) != 0 {
		t.Errorf("a flush rested %v", r)
	}
	d.hurry.Store(true)
	if r := write(compactionFile, time.Hour); len(r) != 0 {
		t.Errorf("a compaction that is behind rested %v", r)
	}
	for _, c := range []struct {
		depth     int
		was, want bool
	}{{0, false, false}, {paceOn, false, false}, {paceOff, false, true}, {paceOn, true, true}, {paceOn - 1, true, false}} {
		if got := hurries(c.depth, c.was); got != c.want {
			t.Errorf("%d tables deep, hurrying before: %t: hurries %t", c.depth, c.was, got)
		}
	}
}

// TestPaceIsLookedAt: an index that writes finds out that it need not hurry any more.
func TestPaceIsLookedAt(t *testing.T) {
	x := testIndex(t, t.TempDir(), indexOptions{batchDelay: time.Millisecond})
	x.disk.hurry.Store(true)
	g := newFakeLogs(1)
	g.run(20)
	g.feed(t, x, 1)
	waitFor(t, "the index to rest again", func() bool { return !x.disk.hurry.Load() })
}
