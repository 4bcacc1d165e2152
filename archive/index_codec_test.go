package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sealIndexes makes all indexes of tests those of an encrypted archive.
var sealIndexes bool

// testCodec has keys for one of the sources that tests make up; the others are as those of
// an archive that was not encrypted then.
func testCodec(t testing.TB) *codec {
	t.Helper()
	keys, err := loadKeys(OS(), t.TempDir(), &Encryption{Key: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.ready("stripe", fakeEpoch.UnixNano()); err != nil {
		t.Fatal(err)
	}
	// The same in each call, so that an index opens again.
	keys.index = testKey(9)
	names := *keys.names.Load()
	names[keyName{"stripe", monthOf(fakeEpoch.UnixNano())}].key = [KeyBytes]byte(testKey(8))
	c, err := newCodec(keys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSealedIndex: with a key the index does all that it does without. PENSTOCK_SEALED_INDEX=1
// for all of it.
func TestSealedIndex(t *testing.T) {
	sealIndexes = true
	defer func() { sealIndexes = false }()
	t.Run("queries", TestQueryAgainstBruteForce)
	t.Run("cursors", TestCursorIsStableUnderInserts)
	t.Run("evidence", TestIndexEvidence)
	if os.Getenv("PENSTOCK_SEALED_INDEX") == "" {
		return // half a minute
	}
	t.Run("forget", TestIndexForget)
	t.Run("rebuild", TestIndexRebuildEqualsIncremental)
	t.Run("crash", TestIndexCrashLosesATailAndCatchesUp)
}

// planted is a delivery in which every value is its own, and what to look for.
func planted(n int) (*Delivery, Outcome, [][]byte) {
	word := func(s string) string { return fmt.Sprintf("PLANTED%dx%s", n, s) }
	sum := int64(7_301_204_455_870_000 + n)
	d := &Delivery{ReceivedAt: time.Date(2025, time.Month(1+n%3), 5, 6, 7, 8, n, time.UTC), Source: fmt.Sprintf("source-%d", n%2), Provider: "stripe",
		Verdict: Accepted, Tenant: word("tenant"), RemoteIP: netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), Method: "POST",
		Target: []byte("/in/" + word("path")), Header: []byte("X-A: " + word("header") + "\r\n"),
		Body: fakeBody(Fields{EventID: word("guessed"), OrderID: word("guessedorder"), PaymentID: word("guessedpayment"), Status: word("guessedstatus")})}
	o := Outcome{Items: 1, Kind: Published, At: d.ReceivedAt, Source: d.Source, Sink: "kafka:test", Topic: "t",
		Fields: Fields{EventID: word("event"), EventType: word("eventtype"), Type: word("type"), CEID: word("ce"), OrderID: word("order"),
			PaymentID: word("payment"), Status: word("status"), RequestID: word("request"), IdempotencyKey: word("idem"), Currency: word("cur"), AmountMinor: &sum}}
	copy(o.Identity[:], word("identity--------"))
	copy(o.Content[:], word("content---------"))
	copy(o.State[:], word("state-----------"))
	secrets := [][]byte{fmt.Appendf(nil, "PLANTED%dx", n), []byte(d.RemoteIP.String()), binary.AppendVarint(nil, sum), fmt.Append(nil, sum),
		binary.LittleEndian.AppendUint64(nil, fnv64(o.Fields.OrderID)), binary.BigEndian.AppendUint64(nil, fnv64(o.Fields.OrderID))}
	return d, o, secrets
}

// found lists the files of a directory that hold one of the secrets.
func found(t *testing.T, dir string, secrets [][]byte) (list []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a temporary file
		}
		for _, s := range secrets {
			if bytes.Contains(b, s) {
				list = append(list, fmt.Sprintf("%s (%q)", path, s))
				break
			}
		}
		return err
	}); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

// TestNothingInTheClear looks for planted values in all bytes of the data directory: with a
// key nothing is found, in segments, packed ones, the quarantine, pins, or the index's
// tables; without one all of it is.
func TestNothingInTheClear(t *testing.T) {
	for _, key := range []bool{false, true} {
		t.Run(fmt.Sprintf("key=%t", key), func(t *testing.T) {
			dir := t.TempDir()
			o := Options{SegmentBytes: minSegmentBytes, Extract: fakeExtract}
			if key {
				o.Encryption = &Encryption{Key: testKey(1)}
			}
			a := mustOpen(t, dir, o)
			var ds []*Delivery
			var secrets [][]byte
			for n := range 60 {
				d, out, s := planted(n)
				secrets = append(secrets, s...)
				if n%7 == 6 {
					d.Verdict, d.Reason = Rejected, "signature_mismatch"
					if kept, err := a.Reject(d); err != nil || !kept {
						t.Fatal(kept, err)
					}
				} else {
					mustAppend(t, a, d)
				}
				ds = append(ds, d)
				if n%5 == 4 {
					continue // the extractor's word stands
				}
				out.Delivery = d.Seq
				if err := a.AppendOutcomes([]Outcome{out}); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.Pin(ds[0], time.Now().AddDate(1, 0, 0)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "packed and indexed", func() bool {
				_, all := packed(a)
				p, err := a.Query(t.Context(), Filter{OrderID: "PLANTED58xorder"})
				return all && err == nil && len(p.Rows) == 1 && a.Indexed() >= a.Synced()
			})
			if list := found(t, dir, secrets); key && len(list) > 0 {
				t.Fatalf("while it runs: %q", list)
			}
			p, err := a.Query(t.Context(), Filter{Q: "198.51.100.3", Limit: 500})
			if err != nil || len(p.Rows) < 10 {
				t.Fatalf("free text finds %d rows: %v", len(p.Rows), err)
			}
			_, out, _ := planted(3)
			if id, content, _, ok := a.Evidence(out.Identity); !ok || id != ds[3].ID || content != out.Content {
				t.Fatalf("evidence: %s %x %t", id, content, ok)
			}
			os, err := a.OutcomesOf(ds[3].ID)
			if err != nil || len(os) != 1 || os[0].Identity != out.Identity || os[0].State != out.State || os[0].Fields.OrderID != out.Fields.OrderID {
				t.Fatalf("outcomes: %+v %v", os, err)
			}
			_ = a.Close()
			list := found(t, dir, secrets)
			inIndex := 0
			for _, path := range list {
				if rel, _ := filepath.Rel(dir, path); filepath.Dir(rel) == indexDir {
					inIndex++
				}
			}
			if key && len(list) > 0 || !key && inIndex == 0 {
				t.Fatalf("%d in the index: %q", inIndex, list)
			}
		})
	}
}

// TestEraseWhileOpen: an erased month is gone at once, in bodies, rows, outcomes and
// searches; all else is served; and the next start has an index without it, under another key.
func TestEraseWhileOpen(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentBytes: minSegmentBytes, Extract: fakeExtract, Encryption: &Encryption{Key: testKey(1)}}
	a := mustOpen(t, dir, o)
	var ds []*Delivery
	for n := range 60 {
		d, out, _ := planted(n)
		mustAppend(t, a, d)
		out.Delivery = d.Seq
		if err := a.AppendOutcomes([]Outcome{out}); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	indexed := func() bool { return a.Indexed() >= a.Synced() }
	eventually(t, "indexed", indexed)
	for month, want := range map[string]error{"2025-13": ErrMonth, "2099-01": ErrMonth, "2024-02": ErrNotFound} {
		if _, err := a.EraseKey("source-1", month); !errors.Is(err, want) {
			t.Fatalf("erase %s: %v", month, err)
		}
	}
	if before, err := a.EraseKey("source-1", "2025-02"); err != nil || !before.IsZero() {
		t.Fatal(before, err)
	}
	if before, err := a.EraseKey("source-1", "2025-02"); err != nil || before.IsZero() {
		t.Fatal("a second time:", before, err)
	}
	check := func(when string) {
		t.Helper()
		gone := 0
		for n, d := range ds {
			_, out, _ := planted(n)
			got, err := a.Get(d.ID)
			row, errRow := a.Row(d.ID)
			p, errQ := a.Query(t.Context(), Filter{OrderID: out.Fields.OrderID})
			os, errO := a.OutcomesOf(d.ID)
			if errRow != nil || errQ != nil || errO != nil || len(os) == 0 {
				t.Fatal(when, errRow, errQ, errO, len(os))
			}
			if d.Source == "source-1" && d.ReceivedAt.Month() == 2 {
				gone++
				if erased := (*ErasedError)(nil); !errors.As(err, &erased) {
					t.Fatalf("%s: body of seq=%d: %v", when, d.Seq, err)
				}
				if row.Reason != reasonErased || row.OrderID != "" || row.Path != "" || row.RemoteIP != "" || row.AmountMinor != nil || row.Outcome != "published" {
					t.Fatalf("%s: row %+v", when, row)
				}
				if len(p.Rows) != 0 || os[0].Identity != (Identity{}) || os[0].Fields.OrderID != "" || os[0].Kind != Published {
					t.Fatalf("%s: found %d rows, outcome %+v", when, len(p.Rows), os[0])
				}
				continue
			}
			if err != nil || row.OrderID != out.Fields.OrderID || len(p.Rows) != 1 || os[0].Identity != out.Identity {
				t.Fatalf("%s: seq=%d: %v %+v, %d rows", when, d.Seq, err, row, len(p.Rows))
			}
			sameDelivery(t, got, d)
		}
		if gone == 0 {
			t.Fatal("nothing was erased")
		}
	}
	check("at once")
	// An outcome that comes later brings nothing back.
	for n, d := range ds {
		_, out, _ := planted(n)
		out.Delivery, out.At, out.Sink = d.Seq, time.Now(), "kafka:other"
		if err := a.AppendOutcomes([]Outcome{out}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "indexed", indexed)
	for _, d := range ds {
		if row, err := a.Row(d.ID); err != nil || (row.Reason == reasonErased) != (row.OrderID == "") {
			t.Fatalf("%+v %v", row, err)
		}
	}
	key := a.index.codec.check
	_ = a.Close()
	a = mustOpen(t, dir, o)
	if a.index.codec.check == key {
		t.Fatal("the index has the key that it had")
	}
	eventually(t, "indexed anew", indexed)
	for n, d := range ds {
		_, out, _ := planted(n)
		erased := d.Source == "source-1" && d.ReceivedAt.Month() == 2
		p, err := a.Query(t.Context(), Filter{OrderID: out.Fields.OrderID})
		if err != nil || (len(p.Rows) == 0) != erased {
			t.Fatalf("seq=%d, erased %t: %d rows, %v", d.Seq, erased, len(p.Rows), err)
		}
	}
	check2, err := a.Query(t.Context(), Filter{Reason: reasonErased, Limit: 500})
	if err != nil || len(check2.Rows) == 0 {
		t.Fatalf("%d rows say that they were erased: %v", len(check2.Rows), err)
	}
	_ = a.Close()
	if _, err := (&Archive{}).EraseKey("source-1", "2025-02"); !errors.Is(err, ErrNotEncrypted) {
		t.Fatal(err)
	}
}

// TestIndexTurnedOn: the index of before goes when encryption is turned on.
func TestIndexTurnedOn(t *testing.T) {
	dir := t.TempDir()
	o := Options{Extract: fakeExtract}
	a := mustOpen(t, dir, o)
	d, _, secrets := planted(1)
	mustAppend(t, a, d)
	eventually(t, "indexed", func() bool { return a.Indexed() >= a.Synced() })
	_ = a.Close()
	if len(found(t, filepath.Join(dir, indexDir), secrets)) == 0 {
		t.Fatal("nothing to look for")
	}
	o.Encryption = &Encryption{Key: testKey(1)}
	for range 2 {
		a = mustOpen(t, dir, o)
		eventually(t, "found", func() bool {
			p, err := a.Query(t.Context(), Filter{OrderID: "PLANTED1xguessedorder"})
			return err == nil && len(p.Rows) == 1 && p.Rows[0].Tenant == "PLANTED1xtenant"
		})
		_ = a.Close()
		if list := found(t, filepath.Join(dir, indexDir), secrets); len(list) > 0 {
			t.Fatalf("in the clear: %q", list)
		}
	}
}
