package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzSealed: a file that was not sealed under the key is no entry, even where it was one
// before somebody changed it.
func FuzzSealed(f *testing.F) {
	key, name := bytes.Repeat([]byte{7}, KeyBytes), fileName(id{"s", Tenant, "shop"})
	dir := f.TempDir()
	v, err := Open(dir, key)
	if err != nil {
		f.Fatal(err)
	}
	if err := v.Put(Entry{Source: "s", Kind: Tenant, Name: "shop", Values: map[string][]string{"key": {"the secret"}}, At: time.Unix(1780000000, 0)}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		at := t.TempDir()
		if err := os.WriteFile(filepath.Join(at, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := Read(at, key)
		if err != nil {
			return // ErrWrongKey: nothing in it opens
		}
		_, ok, err := read.Get("s", Tenant, "shop")
		if same := bytes.Equal(text, good); ok && err == nil != same {
			t.Fatalf("a changed file was opened: %v, %v", ok, err)
		}
	})
}
