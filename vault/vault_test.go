package vault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	keyA = bytes.Repeat([]byte{1}, KeyBytes)
	keyB = bytes.Repeat([]byte{2}, KeyBytes)
	at   = time.Unix(1780000000, 0).UTC()
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, dir string, key []byte, previous ...[]byte) *Vault {
	t.Helper()
	v, err := Open(dir, key, previous...)
	must(t, err)
	return v
}

func entry(name, secret string) Entry {
	return Entry{Source: "liqpay", Kind: Tenant, Name: name, Values: map[string][]string{"private_key": {secret}}, At: at, By: "ops"}
}

// wantSecret fails unless exactly that secret is kept under the name; "" = none.
func wantSecret(t *testing.T, v *Vault, name, secret string) {
	t.Helper()
	e, ok, err := v.Get("liqpay", Tenant, name)
	must(t, err)
	got := ""
	if ok {
		got = e.Values["private_key"][0]
	}
	if got != secret {
		t.Errorf("%s: %q is kept, want %q", name, got, secret)
	}
}

func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := opened(t, dir, keyA)
	must(t, v.Put(entry("i1", "the first secret of i1")))
	must(t, v.Put(entry("i2", "the secret of i2")))
	must(t, v.Put(entry("i1", "the second secret of i1")))
	v = opened(t, dir, keyA)
	wantSecret(t, v, "i1", "the second secret of i1")
	wantSecret(t, v, "i2", "the secret of i2")
	if list := v.List("liqpay", Tenant); len(list) != 2 || list[0].Name != "i1" || list[0].By != "ops" || !list[0].At.Equal(at) {
		t.Errorf("list %+v", list)
	}
	if there, err := v.Delete("liqpay", Tenant, "i1"); err != nil || !there {
		t.Fatal(there, err)
	}
	if there, err := v.Delete("liqpay", Tenant, "i1"); err != nil || there {
		t.Error("taken away twice", there, err)
	}
	wantSecret(t, opened(t, dir, keyA), "i1", "")
}

// TestSealed: neither a secret nor a merchant's name can be read in the directory, and only
// its owner may look into it.
func TestSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := opened(t, dir, keyA)
	must(t, v.Put(entry("merchant-name", "a-secret-of-the-merchant")))
	must(t, v.Capture("asana", "secrets", "a-secret-of-the-handshake", at))
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 2 {
		t.Fatalf("%d files, want 2", len(files))
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %s", f.Name(), info.Mode())
		}
		for _, word := range []string{"merchant-name", "a-secret", "liqpay", "asana", "secrets"} {
			if bytes.Contains(b, []byte(word)) || strings.Contains(f.Name(), word) {
				t.Errorf("%q stands in %s", word, f.Name())
			}
		}
	}
}

func TestWrongKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	must(t, opened(t, dir, keyA).Put(entry("i1", "the secret of i1")))
	if _, err := Open(dir, keyB); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("opened under another key: %v", err)
	}
	wantSecret(t, opened(t, dir, keyB, keyA), "i1", "the secret of i1") // and sealed again
	wantSecret(t, opened(t, dir, keyB), "i1", "the secret of i1")
}

// TestDamage: a broken file is named, keeps nobody else from being served, and is still
// there: a handshake does not replace what cannot be read.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := opened(t, dir, keyA)
	must(t, v.Put(entry("i1", "the secret of i1")))
	must(t, v.Put(entry("i2", "the secret of i2")))
	must(t, v.Capture("asana", "secrets", "the-secret-of-asana", at))
	name := func(e id) string { return filepath.Join(dir, fileName(e)) }
	broken := name(id{"asana", Captured, "secrets"})
	b, err := os.ReadFile(broken)
	must(t, err)
	b[len(b)-1] ^= 1
	must(t, os.WriteFile(broken, b, 0o600))
	// One merchant's file in another's place does not open as that one.
	one, err := os.ReadFile(name(id{"liqpay", Tenant, "i1"}))
	must(t, err)
	must(t, os.WriteFile(name(id{"liqpay", Tenant, "i2"}), one, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, ".writing-123"), []byte("what a crash left"), 0o600))

	v = opened(t, dir, keyA)
	wantSecret(t, v, "i1", "the secret of i1")
	if d := v.Damaged(); len(d) != 2 {
		t.Errorf("damaged: %v", d)
	}
	for _, i := range []id{{"asana", Captured, "secrets"}, {"liqpay", Tenant, "i2"}} {
		if _, _, err := v.Get(i.source, i.kind, i.name); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v: %v", i, err)
		}
	}
	if err := v.Capture("asana", "secrets", "chosen-by-somebody-else", at); !errors.Is(err, ErrKept) {
		t.Errorf("a damaged secret was replaced: %v", err)
	}
	if there, err := v.Delete("asana", Captured, "secrets"); err != nil || !there {
		t.Fatal(there, err)
	}
	must(t, v.Capture("asana", "secrets", "the-new-secret-of-asana", at))
	must(t, v.Put(entry("i2", "the secret of i2 again")))
	if d := opened(t, dir, keyA).Damaged(); len(d) != 0 {
		t.Errorf("still damaged: %v", d)
	}
}

// TestCaptureFirstWins: of many handshakes at once one is kept, for good.
func TestCaptureFirstWins(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := opened(t, dir, keyA)
	var wg sync.WaitGroup
	var won atomic.Int32
	var winner atomic.Pointer[string]
	for i := range 16 {
		wg.Go(func() {
			secret := fmt.Sprintf("secret-of-handshake-%02d", i)
			switch err := v.Capture("asana", "secrets", secret, at); {
			case err == nil:
				won.Add(1)
				winner.Store(&secret)
			case !errors.Is(err, ErrKept):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d handshakes were kept", won.Load())
	}
	v = opened(t, dir, keyA)
	if err := v.Capture("asana", "secrets", "a-later-handshake", at); !errors.Is(err, ErrKept) {
		t.Errorf("after a restart: %v", err)
	}
	must(t, v.Capture("asana", "secrets", *winner.Load(), at)) // the provider asks again
	if e, _, err := v.Get("asana", Captured, "secrets"); err != nil || e.Values["secrets"][0] != *winner.Load() {
		t.Errorf("kept %v, %v", e, err)
	}
}

// fault fails a step of the disk.
type fault struct {
	disk
	err error
}

func (f *fault) write(dir, name string, b []byte) error {
	if f.err != nil {
		return f.err
	}
	return f.disk.write(dir, name, b)
}

func (f *fault) remove(dir, name string) error {
	if f.err != nil {
		return f.err
	}
	return f.disk.remove(dir, name)
}

// TestDiskFault: what could not be synced is not kept, and nobody is told that it is.
func TestDiskFault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	f := &fault{}
	v, err := open(dir, keyA, nil, f)
	must(t, err)
	must(t, v.Put(entry("i1", "the secret of i1")))
	f.err = errors.New("no space left on device")
	if v.Put(entry("i1", "another secret of i1")) == nil || v.Capture("asana", "secrets", "a-secret-of-asana", at) == nil {
		t.Fatal("said to be kept although the disk refused it")
	}
	if _, err := v.Delete("liqpay", Tenant, "i1"); err == nil {
		t.Fatal("said to be gone although the disk refused it")
	}
	wantSecret(t, v, "i1", "the secret of i1")
	if _, ok, _ := v.Get("asana", Captured, "secrets"); ok {
		t.Error("a handshake's secret counts although it is not on disk")
	}
	f.err = nil
	must(t, v.Capture("asana", "secrets", "another-secret-of-asana", at))
}
