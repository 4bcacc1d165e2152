package archive

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestErase: with the key of a source's month what it sealed is gone, for good, and says
// so; everything else is served; the row stays.
func TestErase(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	o := sealedOptions()
	o.NoIndex, o.Now = false, c.now
	a := mustOpen(t, dir, o)
	var gone, kept []*Delivery
	for n := range 60 {
		d := secretDelivery(n)
		d.ReceivedAt = time.Date(2025, time.Month(1+n%3), 3, 4, 5, 6, n, time.UTC)
		mustAppend(t, a, d)
		if d.Source == "source-1" && d.ReceivedAt.Month() == 2 {
			gone = append(gone, d)
		} else {
			kept = append(kept, d)
		}
		out := outcomeOf(d, Published)
		out[0].Source = d.Source
		if err := a.AppendOutcomes(out); err != nil {
			t.Fatal(err)
		}
	}
	if len(gone) == 0 || len(kept) == 0 {
		t.Fatal("nothing to erase")
	}
	e := *o.Encryption
	if _, err := EraseKey(dir, e, "source-1", "2025-02"); !errors.Is(err, ErrLocked) {
		t.Fatalf("erase beside the gateway: %v", err)
	}
	_ = a.Close()
	for month, want := range map[string]string{"2025-13": "2006-01", "2099-01": "not over", "2025-04": "no key"} {
		if _, err := EraseKey(dir, e, "source-1", month); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("erase %s: %v", month, err)
		}
	}
	if before, err := EraseKey(dir, e, "source-1", "2025-02"); err != nil || !before.IsZero() {
		t.Fatal(before, err)
	}
	if before, err := EraseKey(dir, e, "source-1", "2025-02"); err != nil || before.IsZero() {
		t.Fatal("a second time:", before, err)
	}
	for range 2 {
		a = mustOpen(t, dir, o)
		readsAll(t, a, kept)
		eventually(t, "the index", func() bool { return a.Indexed() >= a.Synced() })
		for _, d := range gone {
			_, err := a.Get(d.ID)
			var erased *ErasedError
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &erased) || !strings.Contains(err.Error(), "source-1 for 2025-02") {
				t.Fatalf("erased seq=%d: %v", d.Seq, err)
			}
			row, err := a.Row(d.ID)
			if err != nil || row.Reason != reasonErased || row.Source != d.Source || row.Outcome != "published" || !row.ReceivedAt.Equal(d.ReceivedAt) || row.Tenant != "" {
				t.Fatalf("row of erased seq=%d: %+v %v", d.Seq, row, err)
			}
		}
		if len(a.Damage()) > 0 || a.Stats().Damage > 0 {
			t.Fatalf("what was erased counts as damage: %q", a.Damage())
		}
		_ = a.Close()
		keys, err := OpenKeys(dir, e)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := CheckWith(dir, keys, io.Discard); err != nil || !res.Sound() {
			t.Fatalf("%v %q", err, res.Damage)
		}
	}
}
