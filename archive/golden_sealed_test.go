package archive

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
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
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
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
	a := mustOpen(t, dir, sealedOptions())
	if d := a.Damage(); len(d) > 0 {
		t.Fatal(d)
	}
	n := 0
	for _, rec := range readAll(t, a.NewReader(0)) {
		switch {
		case rec.Corrupt != nil:
			t.Fatal(rec.Corrupt)
		case rec.Delivery != nil:
			want := kb(testDelivery(10*n+3), 1)
			want.Seq, want.ID, want.Epoch = rec.Delivery.Seq, rec.Delivery.ID, rec.Delivery.Epoch
			sameDelivery(t, rec.Delivery, want)
			n++
		case rec.Outcome != nil && (rec.Outcome.Kind != Held || rec.Outcome.Fields.OrderID == ""):
			t.Fatalf("outcome: %+v", rec.Outcome)
		}
	}
	if n != int(h.thin.deliveries) || n == 0 {
		t.Fatalf("%d deliveries, the header says %d", n, h.thin.deliveries)
	}
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
