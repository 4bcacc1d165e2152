package archive

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The index as the archive runs it: rows at once by id, in lists soon, the same after a
// restart and after the index was deleted.
func TestIndexFollowsTheArchive(t *testing.T) {
	dir := t.TempDir()
	open := func() *Archive {
		t.Helper()
		a, err := Open(dir, Options{Extract: fakeExtract})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	rows, cancel := a.Subscribe()
	defer cancel()
	at := time.Now().UTC().Truncate(time.Millisecond)
	d := &Delivery{ReceivedAt: at, Source: "stripe", Provider: "stripe", Verdict: Accepted, RemoteIP: netip.MustParseAddr("192.0.2.1"),
		Method: "POST", Target: []byte("/in/stripe?x=1"), Header: []byte("A: b\r\n"),
		Body: fakeBody(Fields{EventID: "evt_1", OrderID: "o1", Status: "ok"})}
	if err := a.Append(d); err != nil {
		t.Fatal(err)
	}
	row, err := a.Row(d.ID) // whether the index has got there or not
	if err != nil || row.ID != d.ID || row.OrderID != "o1" || row.Path != "/in/stripe" || row.Seq != d.Seq {
		t.Fatalf("row at once: %+v, %v", row, err)
	}
	bad := &Delivery{ReceivedAt: at.Add(time.Millisecond), Source: "stripe", Provider: "stripe", Verdict: Rejected, Reason: "signature_mismatch",
		Body: fakeBody(Fields{EventID: "evt_1", OrderID: "o1", Status: "forged"})}
	if kept, err := a.Reject(bad); err != nil || !kept {
		t.Fatalf("reject: %t, %v", kept, err)
	}
	identity, content := Identity{1, 2}, Identity{3}
	o := []Outcome{{Delivery: d.Seq, Items: 1, Kind: Published, At: at, Sink: "kafka:c", Topic: "t", Offset: 5, Identity: identity, Content: content,
		Fields: Fields{EventID: "evt_1", OrderID: "o1", Status: "ok", Type: "payment.captured"}}}
	if err := a.AppendOutcomes(o); err != nil {
		t.Fatal(err)
	}
	check := func(a *Archive) {
		t.Helper()
		waitFor(t, "both rows", func() bool {
			p, err := a.Query(t.Context(), Filter{OrderID: "o1"})
			return err == nil && len(p.Rows) == 2 && p.Rows[1].Outcome == "published"
		})
		p, err := a.Query(t.Context(), Filter{})
		if err != nil || len(p.Rows) != 2 || p.Rows[0].ID != bad.ID || p.Rows[1].ID != d.ID {
			t.Fatalf("newest first: %+v, %v", p.Rows, err)
		}
		if r := p.Rows[0]; r.Verdict != "rejected" || r.Reason != "signature_mismatch" || r.Seq != bad.Seq || r.Status != "forged" {
			t.Fatalf("refused row %+v", r)
		}
		if r := p.Rows[1]; r.Type != "payment.captured" || r.Outcome != "published" {
			t.Fatalf("published row %+v", r)
		}
		id, c, _, ok := a.Evidence(identity)
		if !ok || id != d.ID || c != content {
			t.Fatalf("evidence %s %x %t", id, c, ok)
		}
		os, err := a.Outcomes(d.Seq)
		if err != nil || len(os) != 1 || os[0].Offset != 5 || os[0].Fields.Type != "payment.captured" {
			t.Fatalf("outcomes %+v, %v", os, err)
		}
		waitFor(t, "the index to be ready", a.IndexReady)
		waitFor(t, "no lag", func() bool { return a.IndexLag() == 0 && a.Indexed() == a.Synced() })
	}
	check(a)
	if r := <-rows; r.Row.Source != "stripe" {
		t.Fatalf("tail %+v", r)
	}
	if _, err := a.Row(makeID(at, 1, 99).String()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("unknown id: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Query(t.Context(), Filter{}); !errors.Is(err, ErrIndex) {
		t.Fatalf("query after close: %v", err)
	}
	a = open()
	check(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, indexDir)); err != nil {
		t.Fatal(err)
	}
	a = open()
	defer a.Close()
	check(a)
}
