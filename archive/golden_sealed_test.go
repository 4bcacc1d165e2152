package archive

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestGoldenSealed holds format version 3: the segment in testdata is thinned and sealed,
// and its keyring lies beside it. Both must be read for ever.
func TestGoldenSealed(t *testing.T) {
	golden, ring := filepath.Join("testdata", "v3.sealed.hex"), filepath.Join("testdata", "v3.keyring")
	if *update {
		writeGoldenSealed(t, golden, ring)
	}
	b := goldenBytes(t, golden)
	h, err := parseHeader(b)
	if err != nil || !h.sealed || h.thin.end == 0 || b[8] != thinnedVersion {
		t.Fatalf("header: %+v %v", h, err)
	}
	keys, err := os.ReadFile(ring)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, segmentsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentsDir, segmentName(h.first)), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyringName), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	readsThinned(t, dir, sealedOptions(), h)
}

func writeGoldenSealed(t *testing.T, golden, ring string) {
	t.Helper()
	dir, c, p := t.TempDir(), newClock(), new(pumped)
	o := sealedOptions()
	o.Now, o.Retention, o.Keep, o.Waiting = c.now, Retention{Age: time.Minute}, p.keep, p.waiting
	a := mustOpen(t, dir, o)
	thinFill(t, a, p, c, 20)
	a.retain()
	for from, to := range map[string]string{segmentFiles(t, dir, segmentsDir)[0]: golden, filepath.Join(dir, keyringName): ring} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if to == golden {
			b = []byte(hex.EncodeToString(b))
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
