package archive

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackedFilesSpoiled: what can happen to a packed file as a whole is named, and what
// of it can be read is read.
func TestPackedFilesSpoiled(t *testing.T) {
	f := func(name string, spoil func(t *testing.T, files []string), all bool, says string) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ds := fillPacked(t, dir, 600, 512<<10, 3000)
			files := packedFiles(t, dir)
			in := make(map[uint64]bool)
			for _, fr := range framesOf(t, files[1]) {
				in[fr.seq] = true
			}
			spoil(t, files)
			var out bytes.Buffer
			res, err := Check(dir, &out)
			if err != nil || res.Sound() || !strings.Contains(out.String(), says) {
				t.Fatalf("check says: %v\n%s", err, out.String())
			}
			a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 512 << 10})
			seen, lost := make(map[uint64]bool), 0
			for _, rec := range readAll(t, a.NewReader(0)) {
				seen[rec.Seq] = rec.Delivery != nil
			}
			for _, d := range ds {
				if seen[d.Seq] {
					continue
				}
				if lost++; !in[d.Seq] || all {
					t.Fatalf("seq=%d is lost, of the spoiled file: %t", d.Seq, in[d.Seq])
				}
				if _, err := a.Get(d.ID); err == nil {
					t.Fatalf("seq=%d: by id it is there", d.Seq)
				}
			}
			if !all && lost == 0 {
				t.Fatal("nothing was lost")
			}
			d := testDelivery(9999)
			mustAppend(t, a, d)
			if d.Seq <= ds[len(ds)-1].Seq {
				t.Fatalf("seq=%d is given again", d.Seq)
			}
		})
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	size := func(t *testing.T, path string) int64 {
		t.Helper()
		st, err := os.Stat(path)
		must(t, err)
		return st.Size()
	}
	f("missing", func(t *testing.T, files []string) { must(t, os.Remove(files[1])) }, false, "is missing")
	f("cut in the middle", func(t *testing.T, files []string) { must(t, os.Truncate(files[1], size(t, files[1])/2)) }, false, "seek table cannot be used")
	f("one byte short", func(t *testing.T, files []string) { must(t, os.Truncate(files[1], size(t, files[1])-1)) }, true, "seek table cannot be used")
	f("longer than it was", func(t *testing.T, files []string) {
		b, err := os.ReadFile(files[1])
		must(t, err)
		must(t, os.WriteFile(files[1], append(b, b...), 0o600))
	}, true, "seek table cannot be used")
	f("both headers lost", func(t *testing.T, files []string) {
		flip(t, files[1], 20, 1)
		flip(t, files[1], headerCopy+20, 1)
	}, true, "its header is lost")
	f("both headers and the table lost", func(t *testing.T, files []string) {
		flip(t, files[1], 20, 1)
		flip(t, files[1], headerCopy+20, 1)
		flip(t, files[1], size(t, files[1])-3, 1)
	}, true, "its header is lost")
	f("swapped", func(t *testing.T, files []string) {
		must(t, os.Rename(files[1], files[1]+"x"))
		must(t, os.Rename(files[2], files[1]))
		must(t, os.Rename(files[1]+"x", files[2]))
	}, true, "has the name of another segment")
	f("a block of another segment", func(t *testing.T, files []string) {
		b, err := os.ReadFile(files[1])
		must(t, err)
		other, err := os.ReadFile(files[2])
		must(t, err)
		copy(b[segmentHead:segmentHead+60_000], other[segmentHead:])
		must(t, os.WriteFile(files[1], b, 0o600))
	}, false, "cannot be used")
}

// TestPackedNewestWithoutItsSuccessor: a packed segment that is the newest one again, as
// in a copy that lacks a file, is never written to.
func TestPackedNewestWithoutItsSuccessor(t *testing.T) {
	for _, spoilt := range []bool{false, true} {
		dir := t.TempDir()
		fillPacked(t, dir, 400, 512<<10, 3000)
		files := segmentFiles(t, dir, segmentsDir)
		newest := packedFiles(t, dir)[1]
		for _, path := range files {
			if path > newest {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		frames := framesOf(t, newest)
		if spoilt { // its footer
			p := openForTest(t, newest).(*packedFile)
			flip(t, newest, p.blocks[len(p.blocks)-1].off+60, 1)
		}
		before, err := os.ReadFile(newest)
		if err != nil {
			t.Fatal(err)
		}
		a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 512 << 10})
		if len(a.Damage()) == 0 {
			t.Fatal("the missing segment is not reported")
		}
		mustAppend(t, a, testDelivery(1))
		seen := 0
		for _, rec := range readAll(t, a.NewReader(frames[0].seq)) {
			if rec.Delivery != nil {
				seen++
			}
		}
		if seen != len(frames)+1 {
			t.Fatalf("spoilt %t: %d records, want %d", spoilt, seen, len(frames)+1)
		}
		_ = a.Close()
		if after, err := os.ReadFile(newest); err != nil || !bytes.Equal(after, before) {
			t.Fatalf("spoilt %t: the packed segment was written to: %v", spoilt, err)
		}
	}
}

// TestWalkBesideThePacker: the file that another process reads becomes another segment
// under its hands; it goes on with the one that has the name now.
func TestWalkBesideThePacker(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true, NoPack: true, SegmentBytes: 1 << 20})
	var ds []*Delivery
	add := func(n int) {
		for range n {
			d := kb(testDelivery(len(ds)), 4)
			mustAppend(t, a, d)
			ds = append(ds, d)
		}
	}
	add(300)
	n := 0
	if err := Walk(dir, false, func(rec Record) error {
		if rec.Corrupt != nil {
			return rec.Corrupt
		}
		sameDelivery(t, rec.Delivery, ds[n])
		if n++; n == 3 {
			packNow(t, a)
			add(800)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 200 {
		t.Fatalf("%d records", n)
	}
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
		t.Fatal(err, res.Damage)
	}
}

// TestRetentionOfPackedSegments: they go like others, and are no spares.
func TestRetentionOfPackedSegments(t *testing.T) {
	dir := t.TempDir()
	ds := fillPacked(t, dir, 300, 64<<10, 3000)
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 64 << 10, Retention: Retention{Size: 1}, Keep: func() uint64 { return ds[150].Seq }})
	a.retain()
	if a.First() > ds[150].Seq || a.First() < ds[100].Seq {
		t.Fatalf("first is %d, needed is %d", a.First(), ds[150].Seq)
	}
	// The packer may be at work between the two looks.
	waitFor(t, "the count of bytes to be what is on disk", func() bool { return a.Stats().Bytes == diskBytes(t, dir) })
	names, _ := filepath.Glob(filepath.Join(dir, segmentsDir, usedPrefix+"*"))
	for _, name := range names {
		if p, ok := openForTest(t, name).(*packedFile); ok {
			t.Fatalf("%s is a spare and was packed: %d bytes", name, p.stored)
		}
	}
}

// TestReaderKeepsItsFile: the file of a segment that was packed under a reader is no spare
// while he reads it.
func TestReaderKeepsItsFile(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, NoPack: true, SegmentBytes: 1 << 20})
	var ds []*Delivery
	add := func(n int) {
		for range n {
			d := kb(testDelivery(len(ds)), 4)
			mustAppend(t, a, d)
			ds = append(ds, d)
		}
	}
	add(600)
	r := a.NewReader(0)
	defer r.Close()
	for n := 0; n < len(ds); n++ {
		rec, ok, err := r.TryNext()
		if err != nil || !ok || rec.Corrupt != nil {
			t.Fatal(n, ok, err, rec.Corrupt)
		}
		sameDelivery(t, rec.Delivery, ds[n])
		if n == 3 {
			packNow(t, a)
			add(1200)
		}
	}
}

// lyingFS is a disk on which one byte of what the packer writes is not what it wrote.
type lyingFS struct{ FS }

type lyingFile struct{ File }

func (l lyingFS) Create(name string) (File, error) {
	f, err := l.FS.Create(name)
	if err == nil && isPack(name) {
		return lyingFile{f}, nil
	}
	return f, err
}

func (l lyingFile) WriteAt(b []byte, off int64) (int, error) {
	if off > 0 {
		b = append([]byte(nil), b...)
		b[len(b)-1] ^= 1
	}
	return l.File.WriteAt(b, off)
}

// TestPackedIsReadBack: what does not read back as it was is thrown away, and the segment
// stays.
func TestPackedIsReadBack(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{FS: lyingFS{OS()}, NoIndex: true, NoPack: true, SegmentBytes: minSegmentBytes})
	var ds []*Delivery
	for n := range 60 {
		ds = append(ds, kb(testDelivery(n), 1))
	}
	mustAppend(t, a, ds...)
	eventually(t, "sealed", func() bool { return a.Stats().Sealed == a.Stats().Segments-1 })
	(&packer{a: a, restless: true}).packLog(a.log)
	if n, _ := packed(a); n > 0 {
		t.Fatalf("%d segments were replaced", n)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, segmentsDir, packPrefix+"*")); len(left) > 0 {
		t.Fatalf("left over: %q", left)
	}
	for _, d := range ds {
		got, err := a.Get(d.ID)
		if err != nil {
			t.Fatal(err)
		}
		sameDelivery(t, got, d)
	}
}
