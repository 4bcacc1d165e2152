package archive

import (
	"fmt"
	"testing"
)

// TestStormCountsOutliveAKill: however fast segments of the quarantine follow each other,
// each begins with all that was counted and not kept, and a kill loses none of that.
func TestStormCountsOutliveAKill(t *testing.T) {
	disk, c := newCrashFS(seeded(t)), newClock()
	o := Options{FS: disk, NoIndex: true, Now: c.now, Quarantine: Quarantine{Size: 1 << 20}}
	a := mustOpen(t, worldDir, o)
	want := uint64(0)
	for range 5000 {
		if kept, err := a.Reject(rejected(1)); err != nil {
			t.Fatal(err)
		} else if !kept {
			want++
		}
	}
	if want == 0 {
		t.Fatal("nothing was sampled away")
	}
	var last uint64
	for n := range 120 {
		d := kb(rejected(1), 4)
		d.Source = fmt.Sprintf("other-%d", n)
		if kept, err := a.Reject(d); err != nil || !kept {
			t.Fatal(kept, err)
		}
		last = d.Seq &^ QuarantineBit
	}
	q := a.quarantine.log
	eventually(t, "synced", func() bool { return q.synced.Load() >= last })
	if n := q.count(); n < 4 {
		t.Fatalf("%d segments: this tests nothing", n)
	}
	killed := disk.kill()
	_ = a.Close()
	o.FS = killed
	a = mustOpen(t, worldDir, o)
	if got := a.SampledAway(); len(got) != 1 || got[0].Count != want {
		t.Fatalf("%+v after the kill, want %d", got, want)
	}
}
