package archive

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNewerVersion: a directory of a newer version is refused and not touched, whichever of
// its files is newer.
func TestNewerVersion(t *testing.T) {
	for _, log := range []string{segmentsDir, quarantineDir, stateName} {
		dir := t.TempDir()
		a := mustOpen(t, dir, Options{NoIndex: true})
		mustAppend(t, a, testDelivery(1))
		if _, err := a.Reject(rejected(2)); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		path := filepath.Join(dir, stateName)
		if log != stateName {
			path = segmentFiles(t, dir, log)[0]
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		block := h.block()
		block[8] = 99
		reseal(block)
		copy(b, block)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		before := filesOf(t, dir)
		if _, err := Open(dir, Options{NoIndex: true}); !errors.Is(err, errVersion) {
			t.Fatalf("%s: open: %v", log, err)
		}
		if after := filesOf(t, dir); log != quarantineDir && !maps.Equal(before, after) || after[path] != before[path] {
			t.Fatalf("%s: the directory was changed", log)
		}
		if _, err := Check(dir, io.Discard); err == nil {
			t.Fatalf("%s: check looked at what it cannot read", log)
		}
	}
}

// filesOf reads all files of an archive but its lock.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockName {
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
