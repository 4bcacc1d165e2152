package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// testDelivery is a delivery whose every field follows from n.
func testDelivery(n int) *Delivery {
	return &Delivery{
		ReceivedAt: time.Unix(1_790_000_000, int64(n)*1_000_003).UTC(),
		Source:     fmt.Sprintf("source-%d", n%3), Provider: "stripe", Tenant: fmt.Sprintf("acct_%d", n%5),
		Verdict: Accepted, VerifiedBy: "hmac-sha256:ab12", RemoteIP: netip.MustParseAddr("203.0.113.7"), Method: "POST",
		Target: fmt.Appendf(nil, "/in/source-%d?n=%d", n%3, n),
		Header: []byte("Content-Type: application/json\r\nX-Sig: \x00\xff\r\n"),
		Body:   bytes.Repeat(fmt.Appendf(nil, `{"n":%d}`, n), 1+n%20),
	}
}

func mustOpen(t testing.TB, dir string, o Options) *Archive {
	t.Helper()
	a, err := Open(dir, o)
	if err != nil {
		t.Fatalf("open %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func mustAppend(t testing.TB, a *Archive, ds ...*Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := a.Append(d); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
}

// readAll reads a log up to its synced mark.
func readAll(t testing.TB, r *Reader) []Record {
	t.Helper()
	defer r.Close()
	var all []Record
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if !ok {
			return all
		}
		all = append(all, rec)
	}
}

func sameDelivery(t testing.TB, got, want *Delivery) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("delivery differs:\n got %+v\nwant %+v", got, want)
	}
}

func TestAppendAndRead(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	var want []*Delivery
	for n := range 100 {
		d := testDelivery(n)
		mustAppend(t, a, d)
		want = append(want, d)
		got, err := a.Get(d.ID)
		if err != nil {
			t.Fatalf("get right after append: %v", err)
		}
		sameDelivery(t, got, d)
	}
	recs := readAll(t, a.NewReader(0))
	if len(recs) != len(want) {
		t.Fatalf("read %d records, want %d", len(recs), len(want))
	}
	for i, r := range recs {
		sameDelivery(t, r.Delivery, want[i])
	}
	if a.Synced() != want[99].Seq || a.First() != 1 {
		t.Fatalf("synced %d first %d", a.Synced(), a.First())
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var want []*Delivery
	for life := range 5 {
		a := mustOpen(t, dir, Options{NoIndex: true, SegmentBytes: 16 << 10})
		for n := range 100 {
			d := testDelivery(life*100 + n)
			mustAppend(t, a, d)
			want = append(want, d)
		}
		for _, d := range want {
			got, err := a.Get(d.ID)
			if err != nil {
				t.Fatalf("life %d: get seq=%d: %v", life, d.Seq, err)
			}
			sameDelivery(t, got, d)
		}
		recs := readAll(t, a.NewReader(0))
		if len(recs) != len(want) {
			t.Fatalf("life %d: read %d records, want %d", life, len(recs), len(want))
		}
		if d := a.Damage(); len(d) > 0 {
			t.Fatalf("damage: %q", d)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOutcomesAndMarkersRoundTrip(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	yes, sum := true, int64(-9232)
	os := []Outcome{
		{Delivery: 7, Item: 1, Items: 2, Kind: Published, At: time.Unix(1, 2).UTC(), Sink: "kafka:x", Topic: "webhooks.stripe",
			Partition: 3, Offset: 1 << 40, Identity: Identity{1, 2}, Content: Identity{3}, State: Identity{4}, Of: "first",
			Fields: Fields{EventID: "evt_1", EventType: "a",
				Type: "payment.captured", CEID: "ce", OrderID: "o", PaymentID: "p", Status: "s", RequestID: "r", IdempotencyKey: "i",
				Livemode: &yes, AmountMinor: &sum, Currency: "EUR"}},
		{Delivery: QuarantineBit | 9, Kind: Dead, At: time.Unix(3, 0).UTC(), Reason: "unreadable", Of: "x", Replay: "job", Offset: -1, Partition: -1},
	}
	if err := a.AppendOutcomes(os); err != nil {
		t.Fatal(err)
	}
	m := &Marker{Kind: JobMarker, At: time.Unix(5, 0).UTC(), Key: "job-1", ID: 1 << 63, Data: []byte(`{}`)}
	if err := a.AppendMarker(m); err != nil {
		t.Fatal(err)
	}
	recs := readAll(t, a.NewReader(0))
	if len(recs) != 3 {
		t.Fatalf("%d records", len(recs))
	}
	for i := range os {
		if !reflect.DeepEqual(*recs[i].Outcome, os[i]) {
			t.Fatalf("outcome differs:\n got %+v\nwant %+v", *recs[i].Outcome, os[i])
		}
	}
	if !reflect.DeepEqual(recs[2].Marker, m) {
		t.Fatalf("marker differs: %+v", recs[2].Marker)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, Options{NoIndex: true})
	_, err := Open(dir, Options{NoIndex: true})
	var locked *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) || locked.Holder == "" {
		t.Fatalf("second open: %v", err)
	}
	if want := fmt.Sprintf("pid %d", os.Getpid()); !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Fatalf("%q does not say who: %s", err, want)
	}
}

func TestNextWaits(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{NoIndex: true})
	r := a.NewReader(1)
	defer r.Close()
	got := make(chan Record)
	go func() {
		rec, err := r.Next(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- rec
	}()
	d := testDelivery(1)
	mustAppend(t, a, d)
	sameDelivery(t, (<-got).Delivery, d)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("next after cancel: %v", err)
	}
	go func() { _ = a.Close() }()
	if _, err := r.Next(context.Background()); !errors.Is(err, ErrClosed) {
		t.Fatalf("next after close: %v", err)
	}
}

func TestStateSurvives(t *testing.T) {
	dir := t.TempDir()
	for life := range 4 {
		a := mustOpen(t, dir, Options{NoIndex: true})
		s := a.State()
		if life > 0 {
			if v, ok := s.Get("cursor"); !ok || string(v) != fmt.Sprint(life-1) {
				t.Fatalf("life %d: cursor is %q, %v", life, v, ok)
			}
			if _, ok := s.Get("gone"); ok {
				t.Fatal("deleted key is there")
			}
			if v, ok := s.Get("empty"); !ok || len(v) != 0 {
				t.Fatal("empty value is lost")
			}
		}
		if err := s.Commit(Change{"cursor", fmt.Append(nil, life)}, Change{"gone", []byte("x")}, Change{"empty", []byte{}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(Change{Key: "gone"}); err != nil {
			t.Fatal(err)
		}
		var keys []string
		s.Range("c", func(k string, _ []byte) bool { keys = append(keys, k); return true })
		if !reflect.DeepEqual(keys, []string{"cursor"}) {
			t.Fatalf("range: %q", keys)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "cursors")); err != nil {
		t.Fatal(err)
	}
}

func TestRejected(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, Options{NoIndex: true})
	d := testDelivery(1)
	d.Reason = "signature_mismatch"
	kept, err := a.Reject(d)
	if err != nil || !kept {
		t.Fatalf("reject: %v %v", kept, err)
	}
	got, err := a.Get(d.ID)
	if err != nil {
		t.Fatalf("get right after reject: %v", err)
	}
	sameDelivery(t, got, d)
	if d.Verdict != Rejected || d.Seq&QuarantineBit == 0 {
		t.Fatalf("verdict %v seq %x", d.Verdict, d.Seq)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, dir, Options{NoIndex: true})
	got, err = b.Get(d.ID)
	if err != nil {
		t.Fatalf("get after reopen: %v", err)
	}
	sameDelivery(t, got, d)
	if recs := readAll(t, b.NewRejectedReader(0)); len(recs) != 1 {
		t.Fatalf("%d records in the quarantine", len(recs))
	}
	if recs := readAll(t, b.NewReader(0)); len(recs) != 0 {
		t.Fatalf("%d records in the log", len(recs))
	}
}
