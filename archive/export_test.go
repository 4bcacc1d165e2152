package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// exportArchive holds deliveries of both logs with outcomes at once, late, very late,
// several and none, as traffic and people leave them.
func exportArchive(t *testing.T, rng *rand.Rand, n int) *Archive {
	a := mustOpen(t, t.TempDir(), Options{SegmentBytes: 256 << 10})
	var open []*Delivery
	settle := func(i int) {
		d := open[i]
		open = append(open[:i], open[i+1:]...)
		items := pick(rng, 1, 1, 3)
		var os []Outcome
		for item := range items {
			minor := int64(rng.IntN(100_000))
			kind := pick(rng, Published, Published, Held, Dead, Duplicate)
			o := Outcome{Delivery: d.Seq, Item: item, Items: items, Kind: kind, At: d.ReceivedAt, Sink: "kafka:c",
				Fields: Fields{EventID: fmt.Sprint("evt_", d.Seq, item), OrderID: fmt.Sprint("order-", rng.IntN(50)), Status: "ok", Currency: "EUR", AmountMinor: &minor}}
			if kind == Duplicate {
				o.Of = "twin"
			}
			os = append(os, o)
			if rng.IntN(8) == 0 {
				o.Replay = "job"
				os = append(os, o)
			}
		}
		if err := a.AppendOutcomes(os); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		d := testDelivery(i)
		d.ReceivedAt = fakeEpoch.Add(time.Duration(i) * time.Second)
		d.Source = pick(rng, "stripe", "liqpay")
		if rng.IntN(10) == 0 {
			d.Verdict, d.Reason = Rejected, "signature_mismatch"
			if kept, err := a.Reject(d); err != nil || !kept {
				continue
			}
			if rng.IntN(3) > 0 {
				continue
			}
		} else {
			mustAppend(t, a, d)
		}
		open = append(open, d)
		if len(open) > 5 {
			settle(pick(rng, 0, len(open)-1))
		}
	}
	for len(open) > 3 { // what was held for a long time
		settle(0)
	}
	return a
}

// TestExport: what is taken out of the directory beside the running archive, without its
// index, is what its index says; and nothing in the directory changes by it.
func TestExport(t *testing.T) {
	rng := seeded(t)
	a := exportArchive(t, rng, 1200)
	defer a.Close()
	waitFor(t, "the quarantine's sync", func() bool { return a.quarantine.log.placed() == 0 })
	waitFor(t, "the index", func() bool { return a.IndexLag() == 0 && a.index.position(1) == a.quarantine.log.synced.Load() })
	before := quietDir(t, a.dir)
	for _, f := range []Filter{{}, {Source: "stripe"}, {OrderID: "order-7"}, {Outcome: "held"}, {Outcome: Pending},
		{From: fakeEpoch.Add(100 * time.Second), To: fakeEpoch.Add(900 * time.Second), Outcome: "published", Source: "liqpay"}, {Text: "delivery 7"}, {Limit: 13}} {
		for _, rejected := range []bool{false, true} {
			q := f
			q.Limit = MaxLimit
			var want []Row
			for {
				p, err := a.Query(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range p.Rows {
					if (r.Verdict == "rejected") == rejected {
						want = append(want, r)
					}
				}
				if q.Cursor = p.Next; p.Next == "" {
					break
				}
			}
			slices.Reverse(want)
			if f.Limit > 0 {
				want = want[:min(len(want), f.Limit)]
			}
			e := &Export{Dir: a.dir, Rejected: rejected, Filter: f, Damaged: func(err error) { t.Error(err) }}
			var got []Row
			if err := e.Rows(t.Context(), func(r Row) error { got = append(got, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v rejected=%t: %d rows, want %d\n%+v\n%+v", f, rejected, len(got), len(want), first(got), first(want))
			}
			i := 0
			if err := e.Deliveries(t.Context(), func(d *Delivery) error {
				if i >= len(want) || d.ID != want[i].ID || int64(len(d.Body)) != want[i].Size {
					t.Fatalf("%+v: delivery %d is %s", f, i, d.ID)
				}
				i++
				return nil
			}); err != nil || i != len(want) {
				t.Fatalf("%+v: %d deliveries, want %d; %v", f, i, len(want), err)
			}
		}
	}
	if after := dirState(t, a.dir); after != before {
		t.Fatalf("the directory has changed:\n%s\n%s", before, after)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &Export{Dir: a.dir}
	_ = e.Rows(ctx, func(Row) error { return nil }) // too few records to notice; must end
}

// quietDir waits until what goes on behind the appends (marks, footers, packing, counts of
// what was sampled away) has ended, and gives the state of the directory.
func quietDir(t *testing.T, dir string) string {
	state, since := dirState(t, dir), time.Now()
	waitFor(t, "the directory to hold still", func() bool {
		if now := dirState(t, dir); now != state {
			state, since = now, time.Now()
		}
		return time.Since(since) > quarantineLinger+5*watchEvery
	})
	return state
}

func first(rows []Row) any {
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
}

// dirState names every file outside the index with size and time.
func dirState(t *testing.T, dir string) string {
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !strings.Contains(path, indexDir) && !info.IsDir() {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRowRecord: a column for each, and nothing a spreadsheet would run.
func TestRowRecord(t *testing.T) {
	minor, live := int64(-500), true
	r := Row{ID: "x", OrderID: "=HYPERLINK(1)", EventID: "-1+1", AmountMinor: &minor, Livemode: &live}
	rec := r.Record(nil)
	if len(rec) != len(RowColumns()) {
		t.Fatalf("%d values, %d columns", len(rec), len(RowColumns()))
	}
	for name, want := range map[string]string{"order_id": "'=HYPERLINK(1)", "event_id": "'-1+1", "amount_minor": "-500", "livemode": "true", "currency": ""} {
		if got := rec[slices.Index(RowColumns(), name)]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
