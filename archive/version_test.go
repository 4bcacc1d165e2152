package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"
)

// newerDir is an encrypted archive as a killed gateway leaves it: with a torn tail, halves of
// files and segments to thin, so that every step of a start has something to do.
func newerDir(t *testing.T) string {
	t.Helper()
	dir, o := t.TempDir(), sealedOptions()
	o.NoPack, o.NoIndex = true, false
	a := mustOpen(t, dir, o)
	all := sealFill(t, a, 0, 60)
	if _, err := a.Reject(rejected(2)); err != nil {
		t.Fatal(err)
	}
	a.quarantine.flushCounts()
	eventually(t, "the quarantine", func() bool { return a.quarantine.log.synced.Load() > 0 })
	if err := a.Pin(all[0], time.Unix(4_000_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	segs := segmentFiles(t, dir, segmentsDir)
	for path, tail := range map[string]string{
		segs[len(segs)-1]: "a torn write",
		filepath.Join(dir, segmentsDir, newPrefix+"900"):  "half",
		filepath.Join(dir, segmentsDir, thinPrefix+"901"): "half",
		filepath.Join(dir, quarantineDir, packPrefix+"1"): "half",
		filepath.Join(dir, pinsDir, pinHalf):              "half",
		filepath.Join(dir, keyringNew):                    "half",
		filepath.Join(dir, stateNewName):                  "half",
	} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			_, err = f.WriteString(tail)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// newerFiles make a file of each kind one of a newer format, by name and by what is done to it.
func newerFiles(t *testing.T, dir string) map[string]func([]byte) []byte {
	t.Helper()
	header := func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[8:], 99)
		reseal(b)
		return b
	}
	keyring := func(b []byte) []byte {
		text := bytes.Replace(b[:bytes.LastIndex(b, []byte(keyringSum))], []byte(keyringFirst), []byte(keyringMagic+"99\n"), 1)
		return fmt.Appendf(text, "%s%08x\n", keyringSum, crc(text))
	}
	pin := func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[8:], 99)
		binary.LittleEndian.PutUint32(b[16:], crc(b[:16]))
		return b
	}
	kinds := map[string]func([]byte) []byte{stateName: header, keyringName: keyring, keyringCopy: keyring}
	for _, log := range []string{segmentsDir, quarantineDir} {
		for _, path := range segmentFiles(t, dir, log) {
			kinds[filepath.Join(log, filepath.Base(path))] = header
		}
	}
	// One copy of the header is enough to know it.
	first := segmentFiles(t, dir, segmentsDir)[0]
	kinds["second copy "+filepath.Join(segmentsDir, filepath.Base(first))] = func(b []byte) []byte {
		b = header(b)
		b[60] ^= 1
		return b
	}
	pins, err := os.ReadDir(filepath.Join(dir, pinsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range pins {
		if e.Name() != pinHalf {
			kinds[filepath.Join(pinsDir, e.Name())] = pin
		}
	}
	return kinds
}

// TestNewerVersion: where any file of an archive is of a newer version, the start is refused
// with an error that names it and says what to do, and every byte of the directory stays as
// it is, whatever recovery would have done to the others. So do a change of the key and an
// erasure, and a check looks no further.
func TestNewerVersion(t *testing.T) {
	dir := newerDir(t)
	kinds := newerFiles(t, dir)
	if len(kinds) < 9 {
		t.Fatalf("only %d files: %v", len(kinds), kinds)
	}
	for kind, change := range kinds {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		name := kind[strings.LastIndexByte(kind, ' ')+1:]
		path := filepath.Join(copied, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
		before := filesOf(t, copied)
		e := *sealedOptions().Encryption
		for what, f := range map[string]func() error{
			"open":                  func() error { _, err := Open(copied, sealedOptions()); return err },
			"open without the key":  func() error { _, err := Open(copied, Options{}); return err },
			"open with another key": func() error { _, err := Open(copied, Options{Encryption: &Encryption{Key: testKey(7)}}); return err },
			"rekey":                 func() error { return Rekey(copied, testKey(2), e.Key) },
			"erase":                 func() error { _, err := EraseKey(copied, e, "source-1", "2026-01"); return err },
			"check":                 func() error { _, err := Check(copied, io.Discard); return err },
		} {
			err := f()
			if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "format 99") ||
				!strings.Contains(err.Error(), "use that build") {
				t.Fatalf("%s is newer, %s: %v", kind, what, err)
			}
			if after := filesOf(t, copied); !maps.Equal(before, after) {
				t.Fatalf("%s is newer, %s: the directory was changed", kind, what)
			}
		}
	}
	a := mustOpen(t, dir, sealedOptions()) // the same, with nothing newer in it
	if d := a.Damage(); len(d) > 0 {
		t.Fatal(d)
	}
}

// TestNewerIndex: an index of another format, of ours or of Pebble's, is built anew, and
// nothing else is touched.
func TestNewerIndex(t *testing.T) {
	for _, spoil := range []func(t *testing.T, dir string){
		func(t *testing.T, dir string) {
			db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Merger: indexMerger, Logger: pebbleLogger{&index{log: zap.NewNop()}}})
			if err == nil {
				err = errors.Join(db.Set(metaKey("format"), uintValue(99), pebble.Sync), db.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		func(t *testing.T, dir string) {
			marks, err := filepath.Glob(filepath.Join(dir, "marker.format-version.*"))
			if err != nil || len(marks) != 1 {
				t.Fatal(marks, err)
			}
			if err := os.Rename(marks[0], filepath.Join(dir, "marker.format-version.000099.999")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		a := mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes})
		for n := range 30 {
			mustAppend(t, a, testDelivery(n))
		}
		eventually(t, "the index", func() bool { return a.Indexed() >= a.Synced() })
		_ = a.Close()
		spoil(t, filepath.Join(dir, indexDir))
		a = mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes})
		if d := a.Damage(); len(d) > 0 {
			t.Fatal(d)
		}
		eventually(t, "the new index", func() bool { return a.Indexed() >= a.Synced() })
		if p, err := a.Query(t.Context(), Filter{Limit: 100}); err != nil || len(p.Rows) != 30 {
			t.Fatalf("%d rows: %v", len(p.Rows), err)
		}
		_ = a.Close()
	}
}

// filesOf reads every entry of an archive.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			files[path] = "directory"
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestAlteredAndMended: a byte that was changed by somebody who also put the checksum of its
// record right is found by the digest that the next segment has of this one.
func TestAlteredAndMended(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 150)
	path := segmentFiles(t, dir, segmentsDir)[1]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := framesOf(t, path)[3]
	fr := b[f.off : f.off+f.size]
	fr[len(fr)-1] ^= 1 // of a body
	binary.LittleEndian.PutUint32(fr, crc(fr[4:]))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	res, err := Check(dir, io.Discard)
	if err != nil || len(res.Damage) != 1 || !strings.Contains(res.Damage[0], filepath.Base(path)+" its records are not those that were written") {
		t.Fatalf("%v %q", err, res.Damage)
	}
}
