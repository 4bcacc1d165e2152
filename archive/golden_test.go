package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
)

// goldenBytes reads a golden file.
func goldenBytes(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeGolden(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, []byte(hex.EncodeToString(b)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readsThinned reads what thinFill had held out of an archive that has a thinned segment with
// the header h, byte for byte and with its outcomes.
func readsThinned(t *testing.T, dir string, o Options, h segmentHeader) {
	t.Helper()
	a := mustOpen(t, dir, o)
	if d := a.Damage(); len(d) > 0 {
		t.Fatal(d)
	}
	n, outcomes := 0, map[uint64]bool{}
	for _, rec := range readAll(t, a.NewReader(0)) {
		switch {
		case rec.Corrupt != nil:
			t.Fatal(rec.Corrupt)
		case rec.Delivery != nil:
			want := kb(testDelivery(10*n+3), 1)
			want.Seq, want.ID, want.Epoch = rec.Delivery.Seq, rec.Delivery.ID, rec.Delivery.Epoch
			sameDelivery(t, rec.Delivery, want)
			if doc, err := a.Epoch(want.Epoch, want.Seq); err != nil || string(doc) != `{"definition":1}` {
				t.Fatalf("epoch of seq=%d: %q %v", want.Seq, doc, err)
			}
			got, err := a.Get(want.ID)
			if err != nil {
				t.Fatal(err)
			}
			sameDelivery(t, got, want)
			n++
		case rec.Outcome != nil:
			if rec.Outcome.Kind != Held || rec.Outcome.Fields.OrderID != fmt.Sprintf("order-%d", rec.Outcome.Delivery) {
				t.Fatalf("outcome: %+v", rec.Outcome)
			}
			outcomes[rec.Outcome.Delivery] = true
		}
	}
	if n != int(h.thin.deliveries) || n == 0 || len(outcomes) != n {
		t.Fatalf("%d deliveries with %d outcomes, the header says %d", n, len(outcomes), h.thin.deliveries)
	}
}

// TestGoldenThinned holds format version 3 of an archive that is not encrypted: the segments
// in testdata are thinned, and one was compressed after that. They must be read for ever.
func TestGoldenThinned(t *testing.T) {
	for _, pack := range []bool{false, true} {
		golden := filepath.Join("testdata", map[bool]string{false: "v3.thinned.hex", true: "v3.thinned-packed.hex"}[pack])
		if *update {
			dir, c, p := t.TempDir(), newClock(), new(pumped)
			a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: minSegmentBytes, NoPack: !pack, Now: c.now, Retention: Retention{Age: time.Minute},
				Keep: p.keep, Waiting: p.waiting})
			thinFill(t, a, p, c, 20)
			a.retain()
			path := segmentFiles(t, dir, segmentsDir)[0]
			eventually(t, "packed", func() bool { _, ok := openForTest(t, path).(*packedFile); return ok == pack })
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			writeGolden(t, golden, b)
		}
		b := goldenBytes(t, golden)
		h, err := parseHeader(b)
		if err != nil || h.sealed || h.thin.end == 0 || h.pack.size > 0 != pack || b[8] != thinnedVersion {
			t.Fatalf("header: %+v %v", h, err)
		}
		dir := t.TempDir()
		path := filepath.Join(dir, segmentsDir, segmentName(h.first))
		if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		readsThinned(t, dir, Options{NoIndex: true}, h)
	}
}

// TestGoldenCursors holds the format of the cursors: a file that was made new once and
// committed to, with values set, changed and deleted, and closed.
func TestGoldenCursors(t *testing.T) {
	golden := filepath.Join("testdata", "v1.cursors.hex")
	if *update {
		dir := t.TempDir()
		a := mustOpen(t, dir, Options{NoIndex: true})
		for n := range 5 {
			if err := a.State().Commit(Change{fmt.Sprintf("key-%d", n), fmt.Appendf(nil, "value-%d", n)}, Change{"n", fmt.Append(nil, n)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.State().Commit(Change{"key-1", nil}, Change{"empty", []byte{}}); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		b, err := os.ReadFile(filepath.Join(dir, stateName))
		if err != nil {
			t.Fatal(err)
		}
		b = append(bytes.TrimRight(b, "\x00"), make([]byte, 64)...) // the last commit may end in zeros
		writeGolden(t, golden, b)
	}
	b := goldenBytes(t, golden)
	h, err := parseHeader(b)
	if err != nil || h.log != logCursors || b[8] != 1 {
		t.Fatalf("header: %+v %v", h, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stateName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, found, err := loadState(OS(), dir, zap.NewNop())
	if err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	want := map[string]string{"key-0": "value-0", "key-2": "value-2", "key-3": "value-3", "key-4": "value-4", "n": "4", "empty": ""}
	got := map[string]string{}
	s.Range("", func(k string, v []byte) bool {
		if !strings.HasPrefix(k, "archive/") {
			got[k] = string(v)
		}
		return true
	})
	if !maps.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	if s.uint(keyArchiveID) != h.archive || h.archive == 0 {
		t.Fatalf("archive %x, the header says %x", s.uint(keyArchiveID), h.archive)
	}
	if _, ok := s.Get(keyHead + "0"); ok != (s.note(keyHead+"0").number > 0) {
		t.Fatal("the note of the newest segment is not read")
	}
}

// TestGoldenPins holds the formats of pinned deliveries, of today and of the time before they
// had a version, in the clear and sealed. The name of a file belongs to its format.
func TestGoldenPins(t *testing.T) {
	d := testDelivery(3)
	d.Seq = 77
	id := ulid.ULID(makeID(d.ReceivedAt, 0xa5a6a7a8, d.Seq))
	d.ID = id.String()
	ring := t.TempDir()
	text, err := os.ReadFile(filepath.Join("testdata", "v3.keyring"))
	if err == nil {
		err = os.WriteFile(filepath.Join(ring, keyringName), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := OpenKeys(ring, *sealedOptions().Encryption)
	if err != nil {
		t.Fatal(err)
	}
	for golden, keys := range map[string]*Keys{"v1.pin.hex": nil, "v1.sealed-pin.hex": keys, "v2.pin.hex": nil, "v2.sealed-pin.hex": keys} {
		path := filepath.Join("testdata", golden)
		if *update && golden[1] != '1' { // nothing writes version 1 any more
			b, err := (&pins{keys: keys}).encode(d, id)
			if err != nil {
				t.Fatal(err)
			}
			writeGolden(t, path, b)
		}
		b := goldenBytes(t, path)
		if version, err := pinFormat(b); err != nil || version != uint16(golden[1]-'0') {
			t.Fatalf("%s: version %d %v", golden, version, err)
		}
		dir := t.TempDir()
		file := filepath.Join(dir, pinsDir, d.ID+".77.4000000000")
		if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		p, err := openPins(OS(), dir, keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.get(d.ID)
		if err != nil {
			t.Fatalf("%s: %v", golden, err)
		}
		sameDelivery(t, got, d)
		for at := range b { // and nothing else is
			b[at] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := p.get(d.ID); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s, a bit at %d: %+v %v", golden, at, got, err)
			}
			b[at] ^= 1
		}
		if golden == "v2.pin.hex" {
			if now, err := p.encode(d, id); err != nil || string(now) != string(b) {
				t.Fatalf("the format has changed: a new format needs a new version number, and %s must still be read: %v", golden, err)
			}
		}
	}
}
