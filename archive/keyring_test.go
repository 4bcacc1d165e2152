package archive

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestEraseThatWasInterrupted: where an erasure ended between the two files of the keyring,
// the key goes from the copy too, with the next start or when the erasure is asked for
// again, whichever comes first.
func TestEraseThatWasInterrupted(t *testing.T) {
	const source, month = "source-1", "2025-02"
	at, err := time.Parse("2006-01", month)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		dir, o := t.TempDir(), sealedOptions()
		a := mustOpen(t, dir, o)
		for n := range 20 {
			d := secretDelivery(n)
			d.ReceivedAt = at
			mustAppend(t, a, d)
		}
		_ = a.Close()
		copied := filepath.Join(dir, keyringCopy)
		before, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		if when, err := EraseKey(dir, *o.Encryption, source, month); err != nil || !when.IsZero() {
			t.Fatal(when, err)
		}
		if err := os.WriteFile(copied, before, 0o600); err != nil {
			t.Fatal(err)
		}
		if again {
			if when, err := EraseKey(dir, *o.Encryption, source, month); err != nil || when.IsZero() {
				t.Fatal(when, err)
			}
		} else {
			a = mustOpen(t, dir, o)
			_ = a.Close()
		}
		w, err := newWrapping(o.Encryption.Key)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{keyringName, keyringCopy} {
			r, err := readKeyring(OS(), filepath.Join(dir, name), []wrapping{w})
			if err != nil {
				t.Fatal(err)
			}
			m, _ := parseMonth(month)
			if s := r.names[keyName{source, m}]; s == nil || s.erased.IsZero() {
				t.Errorf("again=%t: %s has the key still", again, name)
			}
		}
	}
}
