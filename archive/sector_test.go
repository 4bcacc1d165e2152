package archive

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
)

// sectorFS is a disk with one page that cannot be read.
type sectorFS struct {
	FS
	name string
	off  atomic.Int64 // of the page; negative: all is well
}

type sectorFile struct {
	File
	fs *sectorFS
}

func (s *sectorFS) Open(name string, write bool) (File, error) {
	f, err := s.FS.Open(name, write)
	if err == nil && filepath.Base(name) == s.name {
		return sectorFile{f, s}, nil
	}
	return f, err
}

func (f sectorFile) ReadAt(b []byte, off int64) (int, error) {
	bad := f.fs.off.Load()
	if bad >= 0 && off < bad+salvagePage && off+int64(len(b)) > bad {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(b, off)
}

// TestUnreadableSector: what stands in a dead sector is reported after a few attempts,
// not at the first; everything beside it is read.
func TestUnreadableSector(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 150)
	path := segmentFiles(t, dir, segmentsDir)[1]
	disk := &sectorFS{FS: OS(), name: filepath.Base(path)}
	disk.off.Store(2 * salvagePage)
	hit := make(map[uint64]bool)
	for _, f := range framesOf(t, path) {
		hit[f.seq] = f.off < 3*salvagePage && f.off+f.size > 2*salvagePage
	}
	a := mustOpen(t, dir, Options{NoIndex: true, FS: disk})
	r := a.NewReader(0)
	defer r.Close()
	failures, lost := 0, uint64(0)
	got := make(map[uint64]bool)
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			if failures++; failures > readAttempts {
				t.Fatalf("reading does not go on: %v", err)
			}
			continue
		}
		if !ok {
			break
		}
		var c *CorruptError
		if errors.As(rec.Corrupt, &c) {
			lost = c.LastSeq - c.FirstSeq + 1
		}
		got[rec.Seq] = rec.Delivery != nil
	}
	if failures < readAttempts-1 {
		t.Fatalf("given up after %d failures: a controller that resets would cost records", failures)
	}
	want := uint64(0)
	for _, d := range ds {
		if hit[d.Seq] {
			want++
		} else if !got[d.Seq] {
			t.Fatalf("seq=%d beside the sector is lost", d.Seq)
		}
		_, err := a.Get(d.ID)
		if hit[d.Seq] && !errors.Is(err, ErrCorrupt) || !hit[d.Seq] && err != nil {
			t.Fatalf("get seq=%d, in the sector: %t: %v", d.Seq, hit[d.Seq], err)
		}
	}
	if want == 0 || lost != want {
		t.Fatalf("%d records are reported, %d are in the sector", lost, want)
	}
	disk.off.Store(-1) // the next life has a disk that reads again
	_ = a.Close()
	a = mustOpen(t, dir, Options{NoIndex: true, FS: disk})
	if recs := readAll(t, a.NewReader(0)); len(recs) != len(ds) {
		t.Fatalf("%d of %d records when the disk reads again", len(recs), len(ds))
	}
}

// TestSegmentThatWasSkipped: a segment that one life could not read is found again.
func TestSegmentThatWasSkipped(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 60)
	files := segmentFiles(t, dir, segmentsDir)
	newest := filepath.Base(files[len(files)-1])
	disk := &sectorFS{FS: OS(), name: newest}
	disk.off.Store(0)
	a := mustOpen(t, dir, Options{NoIndex: true, FS: disk})
	if len(a.Damage()) == 0 {
		t.Fatal("an unreadable segment is not reported")
	}
	d := testDelivery(1000)
	mustAppend(t, a, d)
	for _, old := range ds {
		if old.Seq == d.Seq {
			t.Fatalf("seq=%d is given again", d.Seq)
		}
	}
	_ = a.Close()
	disk.off.Store(-1)
	a = mustOpen(t, dir, Options{NoIndex: true, FS: disk})
	seen := make(map[string]bool)
	for _, rec := range readAll(t, a.NewReader(0)) {
		if rec.Delivery != nil {
			seen[rec.Delivery.ID] = true
		}
	}
	for _, want := range append(ds, d) {
		if !seen[want.ID] {
			t.Fatalf("seq=%d is lost; %q", want.Seq, a.Damage())
		}
	}
}
