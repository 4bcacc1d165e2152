package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sealedPacked makes an encrypted archive of three months whose segments are packed, all
// but the newest, and closes it.
func sealedPacked(t testing.TB, dir string, o Options, n int) []*Delivery {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(n), 5))
	a := mustOpen(t, dir, o)
	var ds []*Delivery
	for i := range n {
		d := secretDelivery(i)
		d.ReceivedAt = time.Date(2025, time.Month(1+i%3), 3, 4, 5, 6, i, time.UTC)
		d.Body = fmt.Appendf(nil, `{"card":"TOP-SECRET-%d","pad":%q}`, i, randomText(rng, 500))
		mustAppend(t, a, d)
		os := outcomeOf(d, Published)
		os[0].Source, os[0].Fields.OrderID, os[0].At = d.Source, "ORDER-SECRET", d.ReceivedAt
		if err := a.AppendOutcomes(os); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	eventually(t, "all sealed segments packed", func() bool { n, all := packed(a); return n > 0 && all })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return ds
}

// watchedFS says what of the secrets is ever written, wherever and for how short a time.
type watchedFS struct {
	FS
	seen *atomic.Pointer[string]
}

func (w watchedFS) Create(name string) (File, error) {
	f, err := w.FS.Create(name)
	return watchedFile{f, name, w.seen}, err
}

func (w watchedFS) Open(name string, write bool) (File, error) {
	f, err := w.FS.Open(name, write)
	if err != nil {
		return f, err
	}
	return watchedFile{f, name, w.seen}, nil
}

func (w watchedFS) Link(from, to string) error { return w.FS.(linkFS).Link(from, to) }

type watchedFile struct {
	File
	name string
	seen *atomic.Pointer[string]
}

func (w watchedFile) WriteAt(b []byte, off int64) (int, error) {
	for _, word := range secretWords {
		if bytes.Contains(b, []byte(word)) {
			text := word + " is written to " + w.name
			w.seen.Store(&text)
		}
	}
	return w.File.WriteAt(b, off)
}

// TestPackedSealed: an encrypted archive is packed too. It is read as it was, by id and in
// order, beside it and with the keys, and checked without; at no moment is anything written
// that was opened.
func TestPackedSealed(t *testing.T) {
	dir, o := t.TempDir(), sealedOptions()
	o.SegmentBytes = 300 << 10
	var seen atomic.Pointer[string]
	o.FS = watchedFS{OS(), &seen}
	ds := sealedPacked(t, dir, o, 800)
	if s := seen.Load(); s != nil {
		t.Fatal(*s)
	}
	noSecrets(t, dir)
	files := packedFiles(t, dir)
	if len(files) < 2 {
		t.Fatalf("%d packed segments", len(files))
	}
	for _, path := range files {
		if h, err := readHeader(openForTest(t, path)); err != nil || !h.sealed || h.pack.size == 0 {
			t.Fatalf("%+v %v", h, err)
		}
	}
	keys, err := OpenKeys(dir, *o.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Keys{nil, keys} {
		res, err := CheckWith(dir, k, io.Discard)
		if err != nil || !res.Sound() || len(res.Notes) > 0 || res.Stat.Deliveries != 800 || res.Stat.Outcomes != 800 {
			t.Fatalf("check with keys %t: %v %+v", k != nil, err, res)
		}
		if res.Stat.Bytes > res.Stat.RawBytes*3/4 {
			t.Fatalf("%d bytes of %d are left", res.Stat.Bytes, res.Stat.RawBytes)
		}
	}
	i := 0
	if err := WalkWith(dir, keys, false, func(rec Record) error {
		if rec.Delivery != nil {
			sameDelivery(t, rec.Delivery, ds[i])
			i++
		} else if rec.Outcome == nil || rec.Outcome.Fields.OrderID != "ORDER-SECRET" {
			t.Fatalf("%+v", rec)
		}
		return nil
	}); err != nil || i != len(ds) {
		t.Fatalf("walked %d: %v", i, err)
	}
	a := mustOpen(t, dir, o)
	readsAll(t, a, ds)
	if recs := readAll(t, a.NewReader(0)); len(recs) != 2*len(ds) || len(a.Damage()) > 0 {
		t.Fatalf("%d records; %q", len(recs), a.Damage())
	}
}

// TestPackedSealedErase: with a key destroyed, before or after a segment was packed, its
// records say so, and those that share a block with them are read.
func TestPackedSealedErase(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("before=%t", before), func(t *testing.T) {
			dir, o := t.TempDir(), sealedOptions()
			o.SegmentBytes, o.NoPack = 128<<10, before
			var ds []*Delivery
			if before {
				a := mustOpen(t, dir, o)
				for i := range 300 {
					d := secretDelivery(i)
					d.ReceivedAt = time.Date(2025, time.Month(1+i%3), 3, 4, 5, 6, i, time.UTC)
					mustAppend(t, a, d)
					ds = append(ds, d)
				}
				_ = a.Close()
			} else {
				ds = sealedPacked(t, dir, o, 300)
			}
			if _, err := EraseKey(dir, *o.Encryption, "source-1", "2025-02"); err != nil {
				t.Fatal(err)
			}
			o.NoPack = false
			a := mustOpen(t, dir, o)
			eventually(t, "packed", func() bool { n, all := packed(a); return n > 0 && all })
			gone := 0
			for _, d := range ds {
				got, err := a.Get(d.ID)
				if d.Source == "source-1" && d.ReceivedAt.Month() == 2 {
					var erased *ErasedError
					if gone++; !errors.As(err, &erased) || erased.Delivery == nil || erased.Delivery.ID != d.ID {
						t.Fatalf("erased seq=%d: %v", d.Seq, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("seq=%d: %v", d.Seq, err)
				}
				sameDelivery(t, got, d)
			}
			for _, rec := range readAll(t, a.NewReader(0)) {
				if erased := (*ErasedError)(nil); rec.Corrupt != nil && !errors.As(rec.Corrupt, &erased) {
					t.Fatal(rec.Corrupt)
				}
			}
			if gone == 0 || len(a.Damage()) > 0 {
				t.Fatalf("%d are gone; damage: %q", gone, a.Damage())
			}
			_ = a.Close()
			keys, err := OpenKeys(dir, *o.Encryption)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []*Keys{nil, keys} {
				if res, err := CheckWith(dir, k, io.Discard); err != nil || !res.Sound() || res.Stat.Deliveries != 300 {
					t.Fatalf("keys %t: %v %+v", k != nil, err, res)
				}
			}
		})
	}
}

// TestPackedSealedLargeRecords: a record that is larger than a block has one of its own; one
// that is larger than those may be stays as it is.
func TestPackedSealedLargeRecords(t *testing.T) {
	dir, o := t.TempDir(), sealedOptions()
	o.SegmentBytes = 1 << 20
	rng := rand.New(rand.NewPCG(1, 1))
	a := mustOpen(t, dir, o)
	var ds []*Delivery
	for i, size := range []int{10, packBlock, sealedBlock - 300, sealedBlock, 3*sealedBlock + 17, 5, maxSealedBlock + packBlock, 1, 700_000, 700_000} {
		d := secretDelivery(i)
		d.Body = randomText(rng, size)
		mustAppend(t, a, d)
		ds = append(ds, d)
	}
	eventually(t, "packed", func() bool { n, all := packed(a); return n > 0 && all })
	readsAll(t, a, ds)
	if recs := readAll(t, a.NewReader(0)); len(recs) != len(ds) || len(a.Damage()) > 0 {
		t.Fatalf("%d records %q", len(recs), a.Damage())
	}
}

// TestPackedSealedFlips: of single bits that are flipped anywhere in a packed sealed segment
// each is found, with the keys and without, and what is read beside is what was there. The
// same for somebody who knows the format and makes the checksum of a block right again: then
// the seal says it.
func TestPackedSealedFlips(t *testing.T) {
	dir, o := t.TempDir(), sealedOptions()
	o.SegmentBytes = 400 << 10
	sealedPacked(t, dir, o, 500)
	path := packedFiles(t, dir)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := OpenKeys(dir, *o.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	disk := &memoryFS{data: b}
	read := func(k *Keys) (*packedFile, []byte) {
		t.Helper()
		f, err := openSegment(disk, path, &blockCache{keys: k})
		if err != nil {
			t.Fatal(err)
		}
		p, ok := f.(*packedFile)
		if !ok {
			t.Fatal("not known as a packed segment")
		}
		got := make([]byte, p.size)
		if _, err := p.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return p, got
	}
	clean, want := read(keys)
	_, wantShut := read(nil)
	if bytes.Equal(want, wantShut) || len(clean.blocks) < 3 {
		t.Fatalf("%d blocks, and no key is needed", len(clean.blocks))
	}
	rng := seeded(t)
	for n := range flips(t, 500) {
		off, bit := rng.IntN(len(b)), byte(1)<<rng.IntN(8)
		k, expect := keys, want
		forged := n%4 == 1
		if n%4 == 3 {
			k, expect = nil, wantShut
		}
		var blk packedBlock
		var sum []byte
		if forged {
			blk = clean.blocks[rng.IntN(len(clean.blocks)-1)] // the last is the footer, which is not sealed
			off = int(blk.off) + frameHead + rng.IntN(int(blk.end-blk.off)-frameHead)
			sum = bytes.Clone(b[blk.off:][:4])
		}
		b[off] ^= bit
		if forged {
			fr := b[blk.off:blk.end]
			copy(fr, le32(crc(fr[4:])))
		}
		p, got := read(k)
		if len(p.look()) == 0 && len(p.damaged) == 0 && bytes.Equal(got[segmentHead:], expect[segmentHead:]) {
			t.Fatalf("bit %d of offset %d, forged=%t: not found", bit, off, forged)
		}
		for _, blk := range clean.blocks {
			from, to, _ := hitBy(clean, blk.off)
			if g := got[from:to]; !bytes.Equal(g, expect[from:to]) && !bytes.Equal(g, make([]byte, to-from)) {
				t.Fatalf("bit %d of offset %d, forged=%t: wrong bytes are read in the block at %d", bit, off, forged, from)
			}
		}
		b[off] ^= bit
		if forged {
			copy(b[blk.off:], sum)
		}
	}
}

// TestGoldenPackedSealed holds format version 4: what lies in testdata must be read for ever.
func TestGoldenPackedSealed(t *testing.T) {
	golden, ring := filepath.Join("testdata", "v4.packed.hex"), filepath.Join("testdata", "v4.keyring")
	dir := t.TempDir()
	if *update {
		sealedPacked(t, dir, sealedOptions(), 40)
		b, err := os.ReadFile(packedFiles(t, dir)[0])
		if err != nil {
			t.Fatal(err)
		}
		keys, err := os.ReadFile(filepath.Join(dir, keyringName))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(golden, []byte(hex.EncodeToString(b)), 0o600), os.WriteFile(ring, keys, 0o600)); err != nil {
			t.Fatal(err)
		}
		dir = t.TempDir()
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHeader(b)
	if err != nil || b[8] != sealedPackVersion || !h.sealed || h.pack.size == 0 {
		t.Fatalf("version %d: %+v %v", b[8], h, err)
	}
	text, err = os.ReadFile(ring)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyringName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := OpenKeys(dir, *sealedOptions().Encryption)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openSegment(&memoryFS{data: b}, "", &blockCache{keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	p, ok := f.(*packedFile)
	if !ok || len(p.look()) > 0 {
		t.Fatalf("it is not read as a packed segment: %T", f)
	}
	rng := rand.New(rand.NewPCG(40, 5))
	dec := payloadReader{keys: keys}
	n := 0
	for sc := (&scanner{src: p, tag: h.tag, off: segmentHead, end: p.size}); ; {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !it.isFrame() {
			t.Fatalf("%+v %v", it, err)
		}
		if it.frame.typ == typeSeal {
			continue
		}
		rec, err := dec.record(it.frame)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Delivery == nil {
			continue
		}
		want := fmt.Sprintf(`{"card":"TOP-SECRET-%d","pad":%q}`, n, randomText(rng, 500))
		if string(rec.Delivery.Body) != want || string(rec.Delivery.Header) != "X-Secret-Header: HEADER-SECRET\r\n" {
			t.Fatalf("delivery %d: %q", n, rec.Delivery.Body)
		}
		n++
	}
	if n < 5 {
		t.Fatalf("%d records", n)
	}
}
