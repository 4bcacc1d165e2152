package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func testKey(n byte) []byte { return bytes.Repeat([]byte{n}, KeyBytes) }

func sealedOptions() Options {
	return Options{NoIndex: true, SegmentBytes: minSegmentBytes, Encryption: &Encryption{Key: testKey(1)}}
}

// secrets are what must never stand on the disk in the clear.
func secretDelivery(n int) *Delivery {
	d := testDelivery(n)
	d.Body = fmt.Appendf(nil, `{"card":"TOP-SECRET-%d","pad":%q}`, n, strings.Repeat("p", n%400))
	d.Header = []byte("X-Secret-Header: HEADER-SECRET\r\n")
	d.Target = []byte("/in/source?token=TARGET-SECRET")
	d.Tenant = "TENANT-SECRET"
	return d
}

var secretWords = []string{"TOP-SECRET", "HEADER-SECRET", "TARGET-SECRET", "TENANT-SECRET", "ORDER-SECRET"}

func sealFill(t testing.TB, a *Archive, from, n int) []*Delivery {
	t.Helper()
	var ds []*Delivery
	for i := range n {
		d := secretDelivery(from + i)
		mustAppend(t, a, d)
		o := outcomeOf(d, Published)
		o[0].Source, o[0].Fields.OrderID, o[0].Identity = d.Source, "ORDER-SECRET", Identity{1, byte(i)}
		if err := a.AppendOutcomes(o); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	return ds
}

func noSecrets(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, w := range secretWords {
			if bytes.Contains(b, []byte(w)) {
				t.Errorf("%s stands in %s in the clear", w, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSealed: nothing of a delivery that could be a secret is on the disk in the clear; it
// is read as it was, by id and in order, in each life, and by another process.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	var all []*Delivery
	for life := range 3 {
		a := mustOpen(t, dir, sealedOptions())
		all = append(all, sealFill(t, a, life*100, 60)...)
		r := secretDelivery(life*100 + 77)
		r.Reason = "signature_mismatch"
		if kept, err := a.Reject(r); err != nil || !kept {
			t.Fatal(kept, err)
		}
		got, err := a.Get(r.ID) // out of memory
		if err != nil {
			t.Fatal(err)
		}
		sameDelivery(t, got, r)
		for _, d := range all {
			got, err := a.Get(d.ID)
			if err != nil {
				t.Fatalf("life %d: get seq=%d: %v", life, d.Seq, err)
			}
			sameDelivery(t, got, d)
		}
		i, outcomes := 0, 0
		for _, rec := range readAll(t, a.NewReader(0)) {
			switch {
			case rec.Corrupt != nil:
				t.Fatal(rec.Corrupt)
			case rec.Delivery != nil:
				sameDelivery(t, rec.Delivery, all[i])
				i++
			case rec.Outcome != nil:
				if o := rec.Outcome; o.Fields.OrderID != "ORDER-SECRET" || o.Identity[0] != 1 || o.Source != all[i-1].Source {
					t.Fatalf("outcome: %+v", o)
				}
				outcomes++
			}
		}
		if i != len(all) || outcomes != len(all) || len(a.Damage()) > 0 {
			t.Fatalf("life %d: %d deliveries, %d outcomes of %d; %q", life, i, outcomes, len(all), a.Damage())
		}
		if err := a.Pin(all[0], time.Now().AddDate(1, 0, life)); err != nil {
			t.Fatal(err)
		}
		if got, err = a.pins.get(all[0].ID); err != nil {
			t.Fatalf("pinned: %v", err)
		}
		sameDelivery(t, got, all[0])
		_ = a.Close()
		noSecrets(t, dir)
	}
	if res, err := Check(dir, io.Discard); err != nil || !res.Sound() || res.Stat.Deliveries != 180 || res.Stat.Outcomes != 180 {
		t.Fatalf("check without the key: %+v %v", res, err)
	}
	keys, err := OpenKeys(dir, Encryption{Key: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := CheckWith(dir, keys, io.Discard); err != nil || !res.Sound() || res.Stat.Deliveries != 180 {
		t.Fatalf("check with the key: %+v %v", res, err)
	}
	i := 0
	e := &Export{Dir: dir, Keys: keys, Damaged: func(err error) { t.Error(err) }}
	if err := e.Deliveries(context.Background(), func(d *Delivery) error {
		sameDelivery(t, d, all[i])
		i++
		return nil
	}); err != nil || i != len(all) {
		t.Fatalf("%d of %d exported: %v", i, len(all), err)
	}
	locked := 0
	if err := Walk(dir, false, func(rec Record) error {
		if errors.Is(rec.Corrupt, errLocked) {
			locked++
		}
		if rec.Outcome != nil && rec.Outcome.Fields != (Fields{}) {
			t.Error("an outcome's fields are read without a key")
		}
		return nil
	}); err != nil || locked != len(all) {
		t.Fatalf("%d of %d are locked: %v", locked, len(all), err)
	}
}

// TestSealedNoncesDiffer: the same delivery, given again and again over lives that lose
// their tails, never has the same key and nonce; the salt is new in each segment.
func TestSealedNoncesDiffer(t *testing.T) {
	disk := newCrashFS(seeded(t))
	type use struct{ salt, seq uint64 }
	seen := map[use][]byte{}
	reused := 0
	lost := uint64(0) // the seq of what was written last
	for life := range 30 {
		o := sealedOptions()
		o.FS = disk
		a := mustOpen(t, worldDir, o)
		for n := range 20 {
			d := secretDelivery(n)
			mustAppend(t, a, d)
			if n == 0 && d.Seq == lost {
				reused++
			}
			lost = d.Seq + 1
		}
		// One more is written, and the power fails before its sync: most often it is lost,
		// and the next life gives its seq to another delivery.
		disk.mu.Lock()
		disk.fail = func(op, _ string, _ int) error {
			if op == "sync" {
				return errCrashed
			}
			return nil
		}
		disk.mu.Unlock()
		if err := a.Append(secretDelivery(100 + life)); err == nil {
			t.Fatal("acked without a sync")
		}
		disk.mu.Lock()
		for name, node := range disk.live {
			if filepath.Ext(name) != segmentSuffix {
				continue
			}
			h, err := readHeader(bytes.NewReader(node.data))
			if err != nil {
				t.Fatal(err)
			}
			sc := &scanner{src: bytes.NewReader(node.data), tag: h.tag, off: segmentHead, end: int64(len(node.data))}
			for it, err := sc.next(); err == nil; it, err = sc.next() {
				if it.frame.typ != typeDelivery {
					continue
				}
				if it.frame.flags != frameSealed {
					t.Fatal("a delivery is not sealed")
				}
				p := payloadReader{b: it.frame.payload}
				d := p.skimDelivery()
				u := use{salt: p.u64(), seq: it.frame.seq}
				if old, ok := seen[u]; ok && !bytes.Equal(old, p.b) {
					t.Fatalf("salt %x and seq=%d of %s have sealed two texts", u.salt, u.seq, d.Source)
				}
				seen[u] = bytes.Clone(p.b)
			}
		}
		disk.mu.Unlock()
		disk.fail = nil
		next := disk.powerCut()
		_ = a.Close()
		disk = next
	}
	if reused == 0 {
		t.Fatal("no seq was given again: nothing was tried")
	}
}

// TestWrongKey: with another key, or none, nothing is opened and nothing written.
func TestWrongKey(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, sealedOptions())
	all := sealFill(t, a, 0, 20)
	_ = a.Close()
	before := tree(t, dir)
	for name, c := range map[string]struct {
		e    *Encryption
		want error
	}{
		"none":    {nil, ErrNoKey},
		"another": {&Encryption{Key: testKey(2)}, ErrWrongKey},
		"two":     {&Encryption{Key: testKey(2), Previous: [][]byte{testKey(3)}}, ErrWrongKey},
	} {
		o := sealedOptions()
		o.Encryption = c.e
		if _, err := Open(dir, o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.e != nil {
			if _, err := OpenKeys(dir, *c.e); !errors.Is(err, c.want) {
				t.Errorf("%s: reading: %v", name, err)
			}
		}
	}
	if after := tree(t, dir); after != before {
		t.Fatalf("a wrong key changed the directory:\n%s\n%s", before, after)
	}
	// Without its keyring it does not open either: nothing would be readable.
	for _, name := range []string{keyringName, keyringCopy} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".away")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, sealedOptions()); !errors.Is(err, ErrKeyring) {
		t.Fatalf("without a keyring: %v", err)
	}
	for _, name := range []string{keyringName, keyringCopy} {
		if err := os.Rename(filepath.Join(dir, name+".away"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The key is changed: in the configuration, and by hand.
	o := sealedOptions()
	o.Encryption = &Encryption{Key: testKey(2), Previous: [][]byte{testKey(1)}}
	a = mustOpen(t, dir, o)
	readsAll(t, a, all)
	_ = a.Close()
	if err := Rekey(dir, testKey(3), testKey(2)); err != nil {
		t.Fatal(err)
	}
	o.Encryption = &Encryption{Key: testKey(2)}
	if _, err := Open(dir, o); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("the old key after the change: %v", err)
	}
	o.Encryption = &Encryption{Key: testKey(3)}
	a = mustOpen(t, dir, o)
	readsAll(t, a, all)
}

func readsAll(t *testing.T, a *Archive, all []*Delivery) {
	t.Helper()
	for _, d := range all {
		got, err := a.Get(d.ID)
		if err != nil {
			t.Fatalf("get seq=%d: %v", d.Seq, err)
		}
		sameDelivery(t, got, d)
	}
}

// tree is every file of a directory with its content, but for the lock's.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockName {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %x\n", path, len(text), digestFrame(0, append(text, make([]byte, frameHead)...)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestTurnedOn: an archive that was not encrypted goes on, and both parts are read.
func TestTurnedOn(t *testing.T) {
	dir := t.TempDir()
	o := sealedOptions()
	o.Encryption = nil
	a := mustOpen(t, dir, o)
	all := sealFill(t, a, 0, 40)
	_ = a.Close()
	a = mustOpen(t, dir, sealedOptions())
	all = append(all, sealFill(t, a, 100, 40)...)
	readsAll(t, a, all)
	_ = a.Close()
	a = mustOpen(t, dir, sealedOptions())
	readsAll(t, a, all)
	_ = a.Close()
	keys, err := OpenKeys(dir, *sealedOptions().Encryption)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := CheckWith(dir, keys, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("%v %q", err, res.Damage)
	}
}

// TestErase: with the key of a source's month what it sealed is gone, for good, and says
// so; everything else is served; the row stays.
func TestErase(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	o := sealedOptions()
	o.NoIndex, o.Now = false, c.now
	a := mustOpen(t, dir, o)
	var gone, kept []*Delivery
	for n := range 60 {
		d := secretDelivery(n)
		d.ReceivedAt = time.Date(2025, time.Month(1+n%3), 3, 4, 5, 6, n, time.UTC)
		mustAppend(t, a, d)
		if d.Source == "source-1" && d.ReceivedAt.Month() == 2 {
			gone = append(gone, d)
		} else {
			kept = append(kept, d)
		}
		out := outcomeOf(d, Published)
		out[0].Source = d.Source
		if err := a.AppendOutcomes(out); err != nil {
			t.Fatal(err)
		}
	}
	if len(gone) == 0 || len(kept) == 0 {
		t.Fatal("nothing to erase")
	}
	e := *o.Encryption
	if _, err := EraseKey(dir, e, "source-1", "2025-02"); !errors.Is(err, ErrLocked) {
		t.Fatalf("erase beside the gateway: %v", err)
	}
	_ = a.Close()
	for month, want := range map[string]string{"2025-13": "2006-01", "2099-01": "not over", "2025-04": "no key"} {
		if _, err := EraseKey(dir, e, "source-1", month); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("erase %s: %v", month, err)
		}
	}
	if before, err := EraseKey(dir, e, "source-1", "2025-02"); err != nil || !before.IsZero() {
		t.Fatal(before, err)
	}
	if before, err := EraseKey(dir, e, "source-1", "2025-02"); err != nil || before.IsZero() {
		t.Fatal("a second time:", before, err)
	}
	for range 2 {
		a = mustOpen(t, dir, o)
		readsAll(t, a, kept)
		eventually(t, "the index", func() bool { return a.Indexed() >= a.Synced() })
		for _, d := range gone {
			_, err := a.Get(d.ID)
			var erased *ErasedError
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &erased) || !strings.Contains(err.Error(), "source-1 for 2025-02") {
				t.Fatalf("erased seq=%d: %v", d.Seq, err)
			}
			row, err := a.Row(d.ID)
			if err != nil || row.Reason != reasonErased || row.Source != d.Source || row.Outcome != "published" || !row.ReceivedAt.Equal(d.ReceivedAt) || row.Tenant != "" {
				t.Fatalf("row of erased seq=%d: %+v %v", d.Seq, row, err)
			}
		}
		if len(a.Damage()) > 0 || a.Stats().Damage > 0 {
			t.Fatalf("what was erased counts as damage: %q", a.Damage())
		}
		_ = a.Close()
		keys, err := OpenKeys(dir, e)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := CheckWith(dir, keys, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("%v %q", err, res.Damage)
		}
	}
}

// TestKeyringFiles: either file of the keyring is enough, a flipped bit anywhere in it is
// found, and the start repairs it; without both the archive says so and does not open.
func TestKeyringFiles(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, sealedOptions())
	all := sealFill(t, a, 0, 10)
	_ = a.Close()
	rng := seeded(t)
	for range 30 {
		name := []string{keyringName, keyringCopy}[rng.IntN(2)]
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		off := rng.IntN(len(b))
		bad := bytes.Clone(b)
		bad[off] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if res, err := Check(dir, io.Discard); err != nil || res.Sound() || !strings.HasPrefix(res.Damage[0], name+" ") {
			t.Fatalf("a bit at %d of %s: %v %q", off, name, err, res.Damage)
		}
		a := mustOpen(t, dir, sealedOptions())
		if len(a.Damage()) != 1 {
			t.Fatalf("a bit at %d of %s: %q", off, name, a.Damage())
		}
		readsAll(t, a, all)
		_ = a.Close()
		if res, err := Check(dir, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("after the start: %v %q", err, res.Damage)
		}
	}
	for _, name := range []string{keyringName, keyringCopy} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("penstock keyring 9\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, sealedOptions()); !errors.Is(err, ErrKeyring) {
		t.Fatalf("both are damaged: %v", err)
	}
}

// TestSealedFlips flips bits in the records of an encrypted archive: each is named, and
// nobody is given a wrong byte. With the checksum made right again the seal still holds.
func TestSealedFlips(t *testing.T) {
	saved := secondLook
	secondLook = 0
	defer func() { secondLook = saved }()
	dir := t.TempDir()
	o := sealedOptions()
	o.NoPack = true // the bits of packed ones: TestPackedSealedFlips
	a := mustOpen(t, dir, o)
	all := sealFill(t, a, 0, 80)
	_ = a.Close()
	rng := seeded(t)
	keys, err := OpenKeys(dir, *sealedOptions().Encryption)
	if err != nil {
		t.Fatal(err)
	}
	files := segmentFiles(t, dir, segmentsDir)
	for n := range flips(t, 500) {
		path := files[rng.IntN(len(files))]
		frames := framesOf(t, path)
		hit := frames[rng.IntN(len(frames))]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b)
		forged := n%2 == 1
		off := hit.off + int64(rng.IntN(int(hit.size)))
		if forged { // somebody who knows the format
			off = hit.off + frameHead + int64(rng.IntN(int(hit.size-frameHead)))
		}
		bad[off] ^= 1 << rng.IntN(8)
		if forged {
			fr := bad[hit.off : hit.off+hit.size]
			binary.LittleEndian.PutUint32(fr, crc32.Checksum(fr[4:], castagnoli))
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("a bit at offset %d of %s (record at %d, type %d, forged=%t)", off, filepath.Base(path), hit.off, hit.typ, forged)
		res, err := CheckWith(dir, keys, io.Discard)
		if err != nil || res.Sound() {
			t.Fatalf("%s: the check finds nothing: %v", at, err)
		}
		lost := 0
		err = WalkWith(dir, keys, false, func(rec Record) error {
			if rec.Corrupt != nil {
				lost++
			}
			if d := rec.Delivery; d != nil {
				for _, want := range all {
					if want.Seq == d.Seq {
						sameDelivery(t, d, want)
					}
				}
			}
			return nil
		})
		if err != nil || lost > 1 {
			t.Fatalf("%s: %d records are lost: %v", at, lost, err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := CheckWith(dir, keys, io.Discard); err != nil || !res.Sound() {
		t.Fatalf("restored: %v %q", err, res.Damage)
	}
}

// TestSealedCrashes is TestCrashes over an encrypted archive, whose keyring is written at
// each turn of a month.
func TestSealedCrashes(t *testing.T) {
	all := crashes(t, 400)
	for seed, total := firstSeed(t), all; total > 0; seed++ {
		w := newWorld(t, seed)
		w.sealed, w.before = true, all-total
		for range lives {
			w.life()
			total--
		}
		w.last()
	}
}

// TestKeyringCrashes: at whichever operation a crash or a fault meets the first deliveries
// of months, each that was acknowledged can be read.
func TestKeyringCrashes(t *testing.T) {
	for _, fault := range []error{errCrashed, errInjected} {
		met := map[string]int{}
		for n := 1; ; n++ {
			disk := newCrashFS(rand.New(rand.NewPCG(uint64(n), 3)))
			var mu sync.Mutex
			disk.fail = func(op, name string, k int) error {
				mu.Lock()
				defer mu.Unlock()
				if k == n {
					met[op+" "+filepath.Base(name)]++
				}
				if k < n || errors.Is(fault, errInjected) && k > n {
					return nil
				}
				return fault
			}
			o := sealedOptions()
			o.FS = disk
			acked := map[string]*Delivery{}
			a, err := Open(worldDir, o)
			if err == nil {
				for m := range 24 {
					d := secretDelivery(m)
					d.ReceivedAt = time.Date(2025, time.Month(1+m/3), 1, 0, 0, m, 0, time.UTC)
					if a.Append(d) == nil {
						acked[d.ID] = d
					}
				}
				_ = a.Close()
			} else if !errors.Is(err, errCrashed) && !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
			ops := disk.ops
			disk.fail = nil
			o.FS = disk.powerCut()
			a, err = Open(worldDir, o)
			if err != nil {
				t.Fatalf("operation %d: %v", n, err)
			}
			if d := a.Damage(); len(d) > 0 {
				t.Fatalf("operation %d: %q", n, d)
			}
			for _, d := range acked {
				got, err := a.Get(d.ID)
				if err != nil {
					t.Fatalf("operation %d: seq=%d: %v", n, d.Seq, err)
				}
				sameDelivery(t, got, d)
			}
			_ = a.Close()
			if ops < n {
				break
			}
		}
		for _, op := range []string{"create " + keyringNew, "write " + keyringNew, "sync " + keyringNew, "rename " + keyringName, "rename " + keyringCopy} {
			if met[op] == 0 {
				t.Errorf("no fault met %q: %v", op, met)
			}
		}
	}
}

// TestThinSealed: what waits moves to a thinned segment as it is, and opens there.
func TestThinSealed(t *testing.T) {
	dir, c, p := t.TempDir(), newClock(), new(pumped)
	o := sealedOptions()
	o.Now, o.Retention, o.Keep, o.Waiting = c.now, Retention{Age: time.Minute}, p.keep, p.waiting
	a := mustOpen(t, dir, o)
	held, _ := thinFill(t, a, p, c, 200)
	a.retain()
	if len(a.log.segs) > 12 || !a.log.segs[0].head.sealed || a.log.segs[0].head.thin.end == 0 {
		t.Fatalf("%d segments, the first is %+v", len(a.log.segs), a.log.segs[0].head)
	}
	readsAll(t, a, held)
	_ = a.Close()
	a = mustOpen(t, dir, o)
	readsAll(t, a, held)
	ds, os := inLog(t, a)
	for _, d := range held {
		if ds[d.Seq] == nil || os[d.Seq] != Held {
			t.Fatalf("held seq=%d: %v, outcome %s", d.Seq, ds[d.Seq], os[d.Seq])
		}
	}
}

func TestSealedAppendAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true, Encryption: &Encryption{Key: testKey(1)}})
	d := testDelivery(1)
	d.Epoch = a.RegisterEpoch("stripe", []byte("{}"))
	for range 200 {
		mustAppend(t, a, d)
	}
	if n := testing.AllocsPerRun(500, func() {
		if err := a.Append(d); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Fatalf("append allocates %.1f times", n)
	}
}

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
