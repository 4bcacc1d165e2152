package archive

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rekeyBase is an encrypted archive of several sources and months, closed.
func rekeyBase(t *testing.T) (*crashFS, []*Delivery) {
	t.Helper()
	disk := newCrashFS(seeded(t))
	o := sealedOptions()
	o.FS, o.NoPack = disk, true
	a := mustOpen(t, worldDir, o)
	var all []*Delivery
	for n := range 24 {
		d := secretDelivery(n)
		d.ReceivedAt = time.Date(2025, time.Month(1+n/6), 1, 0, 0, n, 0, time.UTC)
		mustAppend(t, a, d)
		all = append(all, d)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, all
}

// content is every file of a disk as it is read.
func (c *crashFS) content() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := map[string]string{}
	for name, i := range c.live {
		files[name] = string(i.data)
	}
	return files
}

// keysOpen says whether the archive on a copy of the disk opens with those keys, the first of
// which is the one in force. What opens is read to the last byte, before and after another
// start; what does not says which key it wants, and nothing is changed.
func keysOpen(t *testing.T, when string, disk *crashFS, all []*Delivery, keys ...byte) bool {
	t.Helper()
	o := sealedOptions()
	o.FS, o.NoPack, o.Encryption = disk.clone(), true, &Encryption{Key: testKey(keys[0])}
	for _, k := range keys[1:] {
		o.Encryption.Previous = append(o.Encryption.Previous, testKey(k))
	}
	before := disk.content()
	a, err := Open(worldDir, o)
	if err != nil {
		wants, err2 := newWrapping(testKey(3 - keys[0]))
		if err2 != nil {
			t.Fatal(err2)
		}
		if !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), "wants the key with fingerprint "+wants.print) {
			t.Fatalf("%s, keys %d: %v", when, keys, err)
		}
		if after := o.FS.(*crashFS).content(); !maps.Equal(before, after) {
			t.Fatalf("%s, keys %d: a start that was refused changed the directory", when, keys)
		}
		return false
	}
	for life := range 2 {
		if d := a.Damage(); len(d) > 0 {
			t.Fatalf("%s, keys %d, life %d: damage %q", when, keys, life, d)
		}
		readsAll(t, a, all)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		// From here on the key in force is enough, whichever of the files is lost.
		w, err := newWrapping(testKey(keys[0]))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{keyringName, keyringCopy} {
			if _, err := readKeyring(o.FS, filepath.Join(worldDir, name), []wrapping{w}); err != nil {
				t.Fatalf("%s, keys %d, life %d: %s: %v", when, keys, life, name, err)
			}
		}
		o.FS, o.Encryption.Previous = o.FS.(*crashFS).powerCut(), nil
		if a, err = Open(worldDir, o); err != nil {
			t.Fatalf("%s, keys %d, life %d: %v", when, keys, life, err)
		}
	}
	_ = a.Close()
	return true
}

// eitherKey: with both keys the archive opens; with one of them alone it does, or says that it
// wants the other one, and one of them is enough.
func eitherKey(t *testing.T, when string, disk *crashFS, all []*Delivery) (byOld, byNew bool) {
	t.Helper()
	for _, both := range [][]byte{{2, 1}, {1, 2}} {
		if !keysOpen(t, when, disk, all, both...) {
			t.Fatalf("%s: it does not open with both keys", when)
		}
	}
	byOld, byNew = keysOpen(t, when, disk, all, 1), keysOpen(t, when, disk, all, 2)
	if byOld == byNew {
		t.Fatalf("%s: it opens with the old key: %t, with the new: %t", when, byOld, byNew)
	}
	return byOld, byNew
}

// TestRekeyCrashes: a kill, a power cut or a failure at every operation of a change of the
// key, by the command and by the start of a gateway that has both, and a second one at some
// operation of the start that follows: nothing is lost, and never more than one key is needed.
// What said that it was done needs the old key no more.
func TestRekeyCrashes(t *testing.T) {
	base, all := rekeyBase(t)
	rng := seeded(t)
	change := map[string]func(disk *crashFS) error{
		"rekey": func(disk *crashFS) error { return rekey(disk, worldDir, testKey(2), testKey(1)) },
		"start": func(disk *crashFS) error {
			o := sealedOptions()
			o.FS, o.NoPack, o.Encryption = disk, true, &Encryption{Key: testKey(2), Previous: [][]byte{testKey(1)}}
			a, err := Open(worldDir, o)
			if err == nil {
				_ = a.Close()
				err = errNotSaid
			}
			return err
		},
	}
	for how, f := range change {
		met, old, between, renewed := map[string]int{}, 0, 0, 0
		for _, fault := range []error{errCrashed, errCrashedAfter, errNoSpace, errShort} {
			for n := 1; ; n++ {
				disk := base.clone()
				disk.rng = rand.New(rand.NewPCG(uint64(n), rng.Uint64()))
				disk.fail = func(op, name string, k int) error {
					if k != n || errors.Is(fault, errShort) && op != "write" {
						return nil
					}
					met[op+" "+filepath.Base(name)]++
					return fault
				}
				err := f(disk)
				disk.mu.Lock()
				done := disk.ops < n
				disk.mu.Unlock()
				disk.fail = nil
				after := disk.powerCut
				if n%2 == 0 {
					after = disk.kill
				}
				disk = after()
				when := fmt.Sprintf("%s: %s at operation %d", how, cellNames[fault], n)
				byOld, byNew := eitherKey(t, when, disk, all)
				if err == nil && !byNew {
					t.Fatalf("%s: it was said to be done, and the new key does not open it", when)
				}
				switch first, copied := wrappedBy(t, disk, keyringName), wrappedBy(t, disk, keyringCopy); {
				case first != copied:
					between++
				case byOld:
					old++
				default:
					renewed++
				}
				// The start that follows has both keys, and is cut off as well.
				m := 1 + rng.IntN(12)
				disk.fail = func(_, _ string, k int) error {
					if k >= m {
						return errCrashed
					}
					return nil
				}
				_ = change["start"](disk)
				disk.fail = nil
				eitherKey(t, when+", and a power cut in the start after it", disk.powerCut(), all)
				if done || how == "start" && n > 12 {
					break
				}
			}
		}
		if old == 0 || between == 0 || renewed == 0 {
			t.Errorf("%s: %d times all was old, %d times the files differed, %d times all was new", how, old, between, renewed)
		}
		for _, op := range []string{"create " + keyringNew, "write " + keyringNew, "sync " + keyringNew, "rename " + keyringName, "rename " + keyringCopy, "syncdir " + filepath.Base(worldDir)} {
			if met[op] == 0 {
				t.Errorf("%s: no fault met %q: %v", how, op, met)
			}
		}
	}
}

// errNotSaid: a start does not say that the key was changed.
var errNotSaid = errors.New("a start says nothing")

func wrappedBy(t *testing.T, fsys FS, name string) string {
	t.Helper()
	text, err := readWhole(fsys, filepath.Join(worldDir, name))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := parseKeyring(text)
	if err != nil {
		t.Fatal(err)
	}
	return doc.By
}
