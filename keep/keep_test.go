package keep

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "new"))
	if _, err := d.Read("a.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if names, err := d.Names(".json"); err != nil || len(names) > 0 {
		t.Errorf("no directory: %q, %v", names, err)
	}
	must(t, d.Sweep())
	for _, text := range []string{"one", "two, and longer", "3"} {
		must(t, d.Write("a.json", []byte(text)))
		if got, err := d.Read("a.json"); err != nil || string(got) != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
	}
	must(t, d.Write("b.json", nil))
	must(t, d.Write("c.sealed", []byte("x")))
	// What a crash leaves, and a directory with the name of a document.
	must(t, os.WriteFile(filepath.Join(string(d), writing+"1.json"), []byte("half"), 0o600))
	must(t, os.Mkdir(filepath.Join(string(d), "d.json"), 0o700))
	if names, err := d.Names(".json"); err != nil || !slices.Equal(names, []string{"a.json", "b.json"}) {
		t.Errorf("%q, %v", names, err)
	}
	must(t, d.Sweep())
	left, err := os.ReadDir(string(d))
	if must(t, err); len(left) != 4 {
		t.Errorf("%v are left", left)
	}
	for _, f := range left {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	must(t, d.Remove("a.json"))
	must(t, d.Remove("a.json"))
	if names, err := d.Names(".json"); err != nil || !slices.Equal(names, []string{"b.json"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// A write that fails leaves the old document, and nothing of the new one.
func TestWriteFails(t *testing.T) {
	d := Dir(t.TempDir())
	must(t, d.Write("a.json", []byte("old")))
	must(t, os.MkdirAll(filepath.Join(string(d), "dir.json", "full"), 0o700))
	if err := d.Write("dir.json", []byte("new")); err == nil {
		t.Error("a directory was replaced by a document")
	}
	if err := Dir(filepath.Join(string(d), "no", "way")).Write("a.json", nil); err == nil {
		t.Error("made a directory without its parent")
	}
	if got, err := d.Read("a.json"); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(string(d), writing+"*")); err != nil || len(left) > 0 {
		t.Errorf("%q left, %v", left, err)
	}
}
