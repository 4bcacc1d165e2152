package archive

import "testing"

// holders is how many hold each segment of the log open.
func (j *journal) holders() []int {
	var n []int
	for _, s := range j.segs {
		s.mu.Lock()
		n = append(n, s.refs)
		s.mu.Unlock()
	}
	return n
}

// TestWarmSegments: what single records were read from stays open for a moment, a few
// segments at most, and lets retention take it.
func TestWarmSegments(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 3000)
	a := mustOpen(t, dir, Options{NoIndex: true, NoPack: true})
	defer a.Close()
	j := a.log
	held := func() (n int) {
		for _, refs := range j.holders()[:len(j.segs)-1] { // the last is written
			n += refs
		}
		return n
	}
	before := held()
	for range 3 {
		for _, d := range ds {
			got, err := a.GetSeq(d.Seq)
			if err != nil {
				t.Fatal(err)
			}
			sameDelivery(t, got, d)
			if n := held() - before; n > maxWarm {
				t.Fatalf("%d segments are open, want up to %d", n, maxWarm)
			}
		}
	}
	if n := held() - before; n == 0 {
		t.Error("none stays open")
	}
	seg := j.holding(ds[len(ds)-100].Seq)
	if _, err := a.GetSeq(ds[len(ds)-100].Seq); err != nil {
		t.Fatal(err)
	}
	j.warm.forget(seg)
	seg.mu.Lock()
	refs := seg.refs
	seg.mu.Unlock()
	if refs != 0 {
		t.Errorf("%d hold a segment that is to be removed", refs)
	}
	j.warm.cool() // each was used since
	j.warm.cool()
	if n := held() - before; n != 0 {
		t.Errorf("%d are open that nobody uses", n)
	}
	if _, err := a.GetSeq(ds[0].Seq); err != nil {
		t.Fatal(err)
	}
	j.warm.close()
	if _, err := a.GetSeq(ds[1000].Seq); err != nil {
		t.Fatal(err)
	}
	if n := held() - before; n != 0 {
		t.Errorf("%d are open after the end", n)
	}
}

// BenchmarkGetSeq reads single records one after the other, as a backlog is taken up.
func BenchmarkGetSeq(b *testing.B) {
	dir := b.TempDir()
	ds := fill(b, dir, 3000)
	a := mustOpen(b, dir, Options{NoIndex: true, NoPack: true})
	defer a.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := a.GetSeq(ds[i%2500].Seq); err != nil {
			b.Fatal(err)
		}
	}
}
