package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fill makes an archive of several segments, as they were written, in a real directory
// and closes it.
func fill(t testing.TB, dir string, n int) []*Delivery {
	t.Helper()
	a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes, NoPack: true})
	var ds []*Delivery
	for i := range n {
		d := testDelivery(i)
		mustAppend(t, a, d)
		ds = append(ds, d)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return ds
}

func flip(t testing.TB, path string, off int64, bits byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bits
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// frameAtOffset gives the frames of a segment file, by offset.
func framesOf(t testing.TB, path string) []frame {
	t.Helper()
	f := openForTest(t, path)
	h, err := readHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	sc := &scanner{src: f, tag: h.tag, off: segmentHead, end: size}
	var fs []frame
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			return fs
		}
		if err != nil {
			t.Fatal(err)
		}
		if it.isFrame() && it.frame.typ.record() {
			it.frame.payload = nil
			fs = append(fs, it.frame)
		}
	}
}

// TestBitFlips flips single bits anywhere in the records of any segment: the record is
// named as damaged (by id, by the reader, by a check), no wrong byte is served, and
// every other record is there.
func TestBitFlips(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 120)
	rng := seeded(t)
	files := segmentFiles(t, dir, segmentsDir)
	if len(files) < 2 {
		t.Fatalf("%d segments", len(files))
	}
	for range 40 { // each costs a check's second look
		path := files[rng.IntN(len(files))]
		frames := framesOf(t, path)
		hit := frames[rng.IntN(len(frames))]
		off, bit := hit.off+int64(rng.IntN(int(hit.size))), byte(1)<<rng.IntN(8)
		flip(t, path, off, bit)
		at := fmt.Sprintf("bit %08b at offset %d of %s (seq=%d at %d)", bit, off, filepath.Base(path), hit.seq, hit.off)
		checkDamaged(t, dir, ds, hit.seq, at, path == files[len(files)-1])
		flip(t, path, off, bit)
	}
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("the restored archive is not sound: %v %q", err, res.Damage)
	}
}

// checkDamaged works on a copy: opening adds a segment.
func checkDamaged(t *testing.T, dir string, ds []*Delivery, seq uint64, at string, newest bool) {
	t.Helper()
	var out bytes.Buffer
	res, err := Check(dir, &out)
	if err != nil || res.Sound() || !strings.Contains(out.String(), "damage: ") {
		t.Fatalf("%s: check finds nothing: %v\n%s", at, err, out.String())
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	a, err := Open(copied, Options{NoIndex: true, SegmentBytes: minSegmentBytes})
	if err != nil {
		t.Fatalf("%s: open: %v", at, err)
	}
	defer a.Close()
	if newest && len(a.Damage()) == 0 { // older ones are not read at the start
		t.Fatalf("%s: the start reports no damage", at)
	}
	for _, d := range ds {
		got, err := a.Get(d.ID)
		if d.Seq == seq {
			var c *CorruptError
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &c) || c.Reason == "" {
				t.Fatalf("%s: get of the damaged one: %+v, %v", at, got, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: get of neighbour seq=%d: %v", at, d.Seq, err)
		}
		sameDelivery(t, got, d)
	}
	recs := readAll(t, a.NewReader(0))
	if len(recs) != len(ds) {
		t.Fatalf("%s: reader gives %d records, want %d", at, len(recs), len(ds))
	}
	for i, rec := range recs {
		if rec.Seq != ds[i].Seq {
			t.Fatalf("%s: record %d has seq=%d, want %d", at, i, rec.Seq, ds[i].Seq)
		}
		if rec.Seq == seq {
			if !errors.Is(rec.Corrupt, ErrCorrupt) {
				t.Fatalf("%s: reader gives %+v", at, rec)
			}
			continue
		}
		sameDelivery(t, rec.Delivery, ds[i])
	}
	_ = a.Close()
	// What recovery has dealt with stays known as damage.
	if res, err := Check(copied, io.Discard); err != nil || res.Sound() {
		t.Fatalf("%s: after a life, check finds nothing: %v", at, err)
	}
}

// TestDamageAfterKill: a damaged last record is damage after a kill too, not a torn
// write: the sync mark behind it says that it was synced.
func TestDamageAfterKill(t *testing.T) {
	disk := newCrashFS(seeded(t))
	o := Options{FS: disk, NoIndex: true}
	a := mustOpen(t, worldDir, o)
	var last *Delivery
	for n := range 3 {
		last = testDelivery(n)
		mustAppend(t, a, last)
	}
	path := a.log.active.path
	scan := func() tailScan {
		f, err := disk.Open(path, false)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		seg := &segment{head: a.log.active.head}
		seg.size.Store(size)
		return scanTail(f, seg, nil)
	}
	eventually(t, "the sync mark", func() bool { tail := scan(); return tail.synced == tail.end })
	end := scan().end
	killed := disk.kill()
	_ = a.Close()
	killed.live[path].data[end-5] ^= 1
	o.FS = killed
	a = mustOpen(t, worldDir, o)
	if len(a.Damage()) != 1 {
		t.Fatalf("damage: %q", a.Damage())
	}
	if _, err := a.Get(last.ID); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("get: %v", err)
	}
}

// TestHeaderDamage: one bad copy or both cost nothing but a report.
func TestHeaderDamage(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 120)
	files := segmentFiles(t, dir, segmentsDir)
	for _, offs := range [][]int64{{20}, {headerCopy + 20}, {20, headerCopy + 20}} {
		for _, path := range files {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			for _, off := range offs {
				flip(t, filepath.Join(copied, segmentsDir, filepath.Base(path)), off, 0x10)
			}
			res, err := Check(copied, io.Discard)
			if err != nil || res.Sound() {
				t.Fatalf("%s %v: check: %v %q", path, offs, err, res.Damage)
			}
			a := mustOpen(t, copied, Options{NoIndex: true, SegmentBytes: minSegmentBytes})
			recs := readAll(t, a.NewReader(0))
			if len(recs) != len(ds) {
				t.Fatalf("%s %v: %d records, want %d; %q", path, offs, len(recs), len(ds), a.Damage())
			}
			for i, rec := range recs {
				sameDelivery(t, rec.Delivery, ds[i])
			}
			mustAppend(t, a, testDelivery(1000))
			_ = a.Close()
		}
	}
}

// TestTornTail: what was never synced is cut, kept beside, and no damage.
func TestTornTail(t *testing.T) {
	f := func(name string, tear func(b []byte, frames []frame) []byte) {
		t.Helper()
		dir := t.TempDir()
		ds := fill(t, dir, 20)
		files := segmentFiles(t, dir, segmentsDir)
		path := files[len(files)-1]
		frames := framesOf(t, path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		last := frames[len(frames)-1]
		end := last.off + last.size
		b = append(b[:end:end], tear(b[:end], frames)...)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("%s: a torn tail is called damage: %v %q", name, err, res.Damage)
		}
		a := mustOpen(t, dir, Options{NoIndex: true})
		recs := readAll(t, a.NewReader(0))
		if len(recs) != len(ds) || len(a.Damage()) > 0 {
			t.Fatalf("%s: %d records, want %d; damage %q", name, len(recs), len(ds), a.Damage())
		}
		for i, rec := range recs {
			sameDelivery(t, rec.Delivery, ds[i])
		}
		torn, err := os.ReadFile(path + tornSuffix)
		if err != nil || len(torn) < 17 {
			t.Fatalf("%s: cut bytes are not kept: %v", name, err)
		}
		_ = a.Close()
	}
	f("half a frame", func(b []byte, fs []frame) []byte {
		last := fs[len(fs)-1]
		return append([]byte(nil), b[last.off:last.off+last.size-7]...)
	})
	f("header only", func(b []byte, fs []frame) []byte {
		last := fs[len(fs)-1]
		return append([]byte(nil), b[last.off:last.off+frameHead]...)
	})
	f("garbage", func([]byte, []frame) []byte { return bytes.Repeat([]byte("garbage!"), 100) })
	f("an old frame of this segment", func(b []byte, fs []frame) []byte { return append([]byte(nil), b[fs[0].off:fs[0].off+fs[0].size]...) })
}

// TestTornFooter: of a footer whose write was cut short, wherever, nobody says damage.
func TestTornFooter(t *testing.T) {
	dir := t.TempDir()
	ds := fill(t, dir, 600)
	path := segmentFiles(t, dir, segmentsDir)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames := framesOf(t, path)
	last := frames[len(frames)-1]
	end := last.off + last.size
	if n := int64(len(b)) - end; n <= frameHead {
		t.Fatalf("the segment has no footer: %d bytes after its records", n)
	}
	for cut := end; cut < int64(len(b)); cut++ {
		if err := os.WriteFile(path, b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("%d bytes of the footer: %v %q", cut-end, err, res.Damage)
		}
	}
	a := mustOpen(t, dir, Options{NoIndex: true, NoPack: true})
	defer a.Close()
	if recs := readAll(t, a.NewReader(0)); len(recs) != len(ds) || len(a.Damage()) > 0 {
		t.Fatalf("%d records, want %d; damage %q", len(recs), len(ds), a.Damage())
	}
}

// TestHole: the block that the end of a footer is in was to grow the file, and has zeros.
func TestHole(t *testing.T) {
	b := bytes.Repeat([]byte{0, 7}, 3000)
	for _, c := range []struct {
		from, to int
		off      int64
		want     bool
	}{
		{0, 0, 0, false},
		{4096, 6000, 0, true},
		{4098, 6000, 0, false}, // not all of the block
		{96, 4192, 4000, true},
		{96, 4191, 4000, false},
		{5996, 6000, 4096*7 - 5996, true}, // the last block has four bytes
		{5997, 6000, 4096*7 - 5997, false},
	} {
		torn := bytes.Clone(b)
		clear(torn[c.from:c.to])
		if got := hasHole(torn, c.off); got != c.want {
			t.Errorf("zeros at %d to %d of a frame at %d: %t", c.from, c.to, c.off, got)
		}
	}
}

// TestForgedFrameInBody: a body that holds a well-formed frame of the very segment must
// not become a record when the frame around it is damaged. The salt keeps a sender from
// making one; this shows what it is for.
func TestForgedFrameInBody(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true})
	mustAppend(t, a, testDelivery(0))
	// All that a sender can know or guess: the number and the next seq, not the salt.
	forged := testDelivery(666)
	body := putDelivery(beginFrame(nil), forged, makeID(forged.ReceivedAt, a.log.node(), 4))
	endFrame(body, 0, tag{number: a.log.active.head.tag.number, salt: 1}, 4, segmentHead, typeDelivery)
	d := testDelivery(1)
	d.Body = body
	mustAppend(t, a, d, testDelivery(2))
	_ = a.Close()
	path := segmentFiles(t, dir, segmentsDir)[0]
	flip(t, path, framesOf(t, path)[1].off+9, 1)
	a = mustOpen(t, dir, Options{NoIndex: true})
	for _, rec := range readAll(t, a.NewReader(0)) {
		if rec.Delivery != nil && bytes.Equal(rec.Delivery.Body, forged.Body) {
			t.Fatal("a record was read out of a body")
		}
	}
}

// TestFrameOfAnotherSegment: sound bytes of another segment are no record of this one,
// whatever their seq.
func TestFrameOfAnotherSegment(t *testing.T) {
	ours := tag{number: 5, salt: 77}
	for _, other := range []tag{{number: 4, salt: 77}, {number: 5, salt: 78}} {
		var b []byte
		for n := range 3 {
			d := testDelivery(n)
			start := len(b)
			b = putDelivery(beginFrame(b), d, makeID(d.ReceivedAt, 1, 1))
			endFrame(b[start:], 0, other, uint64(1000+n), 0, typeDelivery)
		}
		sc := &scanner{src: bytes.NewReader(b), tag: ours, end: int64(len(b))}
		if it, err := sc.next(); err != nil || it.isFrame() || it.region.size != int64(len(b)) {
			t.Fatalf("%+v: %+v, %v", other, it, err)
		}
	}
}

func TestMissingAndForeignSegments(t *testing.T) {
	f := func(name string, spoil func(dir string, files []string), kept func(i, n int) bool, says string) {
		t.Helper()
		dir := t.TempDir()
		ds := fill(t, dir, 150)
		files := segmentFiles(t, dir, segmentsDir)
		if len(files) < 4 {
			t.Fatalf("%d segments", len(files))
		}
		in := make(map[uint64]int)
		for i, path := range files {
			for _, fr := range framesOf(t, path) {
				in[fr.seq] = i
			}
		}
		spoil(dir, files)
		var out bytes.Buffer
		res, err := Check(dir, &out)
		if err != nil || res.Sound() || !strings.Contains(out.String(), says) {
			t.Fatalf("%s: check says: %v\n%s", name, err, out.String())
		}
		a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes})
		if d := strings.Join(a.Damage(), "\n"); !strings.Contains(d, says) {
			t.Fatalf("%s: open says %q, want %q", name, d, says)
		}
		var last uint64
		seen := make(map[uint64]bool)
		for _, rec := range readAll(t, a.NewReader(0)) {
			if rec.Seq <= last {
				t.Fatalf("%s: seq=%d after %d", name, rec.Seq, last)
			}
			last = rec.Seq
			seen[rec.Seq] = rec.Delivery != nil
		}
		for _, d := range ds {
			if want := kept(in[d.Seq], len(files)); seen[d.Seq] != want {
				t.Fatalf("%s: seq=%d of segment %d: read %t, want %t", name, d.Seq, in[d.Seq], seen[d.Seq], want)
			}
		}
		d := testDelivery(9999)
		mustAppend(t, a, d)
		if d.Seq <= ds[len(ds)-1].Seq {
			t.Fatalf("%s: seq=%d is given again", name, d.Seq)
		}
		_ = a.Close()
	}
	all := func(int, int) bool { return true }
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	f("missing in the middle", func(_ string, files []string) { must(os.Remove(files[1])) },
		func(i, _ int) bool { return i != 1 }, "is missing")
	f("oldest missing", func(_ string, files []string) { must(os.Remove(files[0])) },
		func(i, _ int) bool { return i != 0 }, "is missing")
	f("newest missing", func(_ string, files []string) { must(os.Remove(files[len(files)-1])) },
		func(i, n int) bool { return i != n-1 }, "it was the newest segment")
	f("two swapped", func(_ string, files []string) {
		must(os.Rename(files[1], files[1]+"x"))
		must(os.Rename(files[2], files[1]))
		must(os.Rename(files[1]+"x", files[2]))
	}, all, "has the name of another segment")
	f("one copied", func(dir string, files []string) {
		b, err := os.ReadFile(files[1])
		must(err)
		must(os.WriteFile(filepath.Join(dir, segmentsDir, segmentName(90_000)), b, 0o600))
	}, all, "is a copy of")
	f("one of another archive", func(dir string, files []string) {
		other := t.TempDir()
		fill(t, other, 10)
		b, err := os.ReadFile(segmentFiles(t, other, segmentsDir)[0])
		must(err)
		must(os.WriteFile(filepath.Join(dir, segmentsDir, segmentName(70_000)), b, 0o600))
	}, all, "belongs to another archive")
	f("one overwritten", func(_ string, files []string) { must(os.WriteFile(files[1], make([]byte, 20000), 0o600)) },
		func(i, _ int) bool { return i != 1 }, "cannot be read as a segment")
	f("one cut short", func(_ string, files []string) { must(os.Truncate(files[1], segmentHead)) },
		func(i, _ int) bool { return i != 1 }, "bytes short")
}

// TestMissingRangeIsReported: a reader says which seqs a missing segment had, so that
// nobody waits for them.
func TestMissingRangeIsReported(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 150)
	files := segmentFiles(t, dir, segmentsDir)
	gone := framesOf(t, files[1])
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	a := mustOpen(t, dir, Options{NoIndex: true})
	for _, rec := range readAll(t, a.NewReader(0)) {
		var c *CorruptError
		if errors.As(rec.Corrupt, &c) {
			if c.FirstSeq > gone[0].seq || c.LastSeq < gone[len(gone)-1].seq || rec.Seq != c.LastSeq {
				t.Fatalf("reported %d to %d, gone are %d to %d", c.FirstSeq, c.LastSeq, gone[0].seq, gone[len(gone)-1].seq)
			}
			return
		}
	}
	t.Fatal("nothing was reported")
}

func TestStateDamage(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true})
	for n := range 50 {
		if err := a.State().Commit(Change{fmt.Sprintf("key-%02d", n), []byte("value")}); err != nil {
			t.Fatal(err)
		}
	}
	_ = a.Close()
	path := filepath.Join(dir, stateName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, path, int64(bytes.Index(b, []byte("key-20"))), 4)
	if res, err := Check(dir, io.Discard); err != nil || res.Sound() {
		t.Fatalf("check: %v", err)
	}
	a = mustOpen(t, dir, Options{NoIndex: true})
	if len(a.Damage()) != 1 {
		t.Fatalf("damage: %q", a.Damage())
	}
	for n := range 50 {
		if _, ok := a.State().Get(fmt.Sprintf("key-%02d", n)); ok != (n != 20) {
			t.Fatalf("key %d: %t", n, ok)
		}
	}
	_ = a.Close()
	if err := os.WriteFile(path, []byte("no longer a file of ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, dir, Options{NoIndex: true})
	if len(a.Damage()) == 0 {
		t.Fatal("lost cursors are not reported")
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Fatalf("the damaged file is not kept: %v", err)
	}
}
