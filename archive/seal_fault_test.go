package archive

import (
	"bytes"
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
