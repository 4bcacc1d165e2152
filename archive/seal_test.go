package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
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
