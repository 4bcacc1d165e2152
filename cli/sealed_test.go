package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"path/filepath"
	"testing"
	"time"

	"penstock/archive"
)

// TestArchiveSealed: an encrypted archive is checked without its key, exported with it,
// wrapped by another one, and erased by source and month.
func TestArchiveSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	key := bytes.Repeat([]byte{7}, archive.KeyBytes)
	a, err := archive.Open(dir, archive.Options{SegmentBytes: 1 << 20, Encryption: &archive.Encryption{Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"one", "two"} {
		d := &archive.Delivery{ReceivedAt: time.Date(2025, 5, 28, 20, 26, 0, 0, time.UTC), Source: source, Provider: "stripe", Verdict: archive.Accepted,
			Method: "POST", Body: []byte("body of " + source)}
		if err := a.Append(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	body := func(source string) string { return base64.StdEncoding.EncodeToString([]byte("body of " + source)) }
	w := newWorld(t)
	t.Setenv("PENSTOCK_ARCHIVE_KEY", "")
	w.want(exitOK, "2 deliveries", "archive", "check", dir)
	w.want(exitOK, "accepted", "archive", "stat", dir)
	w.want(exitUsage, "PENSTOCK_ARCHIVE_KEY", "archive", "export", dir)
	w.want(exitUsage, "PENSTOCK_ARCHIVE_KEY", "archive", "rekey", dir)
	t.Setenv("PENSTOCK_ARCHIVE_KEY", "short")
	w.want(exitUsage, "no key of 32 bytes", "archive", "check", dir)
	t.Setenv("PENSTOCK_ARCHIVE_KEY", hex.EncodeToString(bytes.Repeat([]byte{8}, archive.KeyBytes)))
	w.want(exitUsage, "wrapped by another key", "archive", "check", dir)
	w.want(exitUsage, "wrapped by another key", "archive", "export", dir)
	t.Setenv("PENSTOCK_ARCHIVE_KEY", hex.EncodeToString(key))
	w.want(exitOK, "2 deliveries", "archive", "check", dir)
	w.want(exitOK, body("two"), "archive", "export", dir)
	w.want(exitOK, "", "archive", "rekey", dir)
	w.want(exitUsage, "name --source and --month", "archive", "erase", dir, "--source", "two")
	w.want(exitUsage, "no key of source", "archive", "erase", dir, "--source", "three", "--month", "2025-05")
	w.want(exitOK, "is destroyed", "archive", "erase", dir, "--source", "two", "--month", "2025-05")
	w.want(exitOK, "already", "archive", "erase", dir, "--source", "two", "--month", "2025-05")
	w.want(exitOK, "0 damaged", "archive", "check", dir)
	w.want(exitOK, body("one"), "archive", "export", dir)
	w.want(exitOK, "accepted,erased,", "archive", "export", dir, "--format", "csv")
}
