package archive

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

// TestKnownFields: fields that somebody else has read are asked for, what nobody knows is
// read from the log again, and a row is the delivery's own although its memory was lent.
func TestKnownFields(t *testing.T) {
	var extracted, asked atomic.Int64
	gate := make(chan struct{}) // nothing is known before all is appended
	a := mustOpen(t, t.TempDir(), Options{
		Known: func(seq uint64) (Fields, bool) {
			<-gate
			asked.Add(1)
			if seq%2 == 0 {
				return Fields{}, false
			}
			return Fields{OrderID: fmt.Sprintf("known-%d", seq)}, true
		},
		Extract: func(d *Delivery) (Fields, bool) {
			extracted.Add(1)
			return Fields{OrderID: string(d.Body[:strings.IndexByte(string(d.Body), ' ')])}, true
		},
	})
	const n = 40
	var ds []*Delivery
	for i := range n {
		d := &Delivery{Source: "s", Provider: "p", Verdict: Accepted, Method: "POST", Target: fmt.Appendf(nil, "/in/%d?token=x", i),
			Header: []byte("A: b\r\n"), Body: fmt.Appendf(nil, "read-%d %s", i, strings.Repeat("x", 37*i))}
		if i%5 == 4 { // of these nobody can know; large, so that what was lent is used again
			d.Verdict, d.Reason = Rejected, "signature_mismatch"
			d.Body = append(d.Body, strings.Repeat("x", 150<<10)...)
			if _, err := a.Reject(d); err != nil {
				t.Fatal(err)
			}
		} else if err := a.Append(d); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	// The outcome of the first is there before its row is written: nobody is asked.
	if err := a.AppendOutcomes([]Outcome{{Delivery: ds[0].Seq, Items: 1, Kind: Published, Fields: Fields{OrderID: "told"}}}); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for i, d := range ds {
		want := fmt.Sprintf("read-%d", i)
		switch {
		case i == 0:
			want = "told"
		case d.Verdict == Accepted && d.Seq%2 == 1:
			want = fmt.Sprintf("known-%d", d.Seq)
		}
		waitFor(t, "the row of "+want, func() bool {
			page, err := a.Query(t.Context(), Filter{OrderID: want, Limit: 5})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Rows) == 0 {
				return false
			}
			row := page.Rows[0]
			if len(page.Rows) != 1 || row.ID != d.ID || row.Path != fmt.Sprintf("/in/%d", i) || row.Size != int64(len(d.Body)) {
				t.Fatalf("order %s: %d rows, %s %s of %d bytes, want %s", want, len(page.Rows), row.ID, row.Path, row.Size, d.ID)
			}
			return true
		})
	}
	if a.index.held.Load() != 0 {
		t.Errorf("%d bytes of bodies are still held", a.index.held.Load())
	}
	if extracted.Load() == 0 || asked.Load() == 0 {
		t.Errorf("asked %d times, extracted %d", asked.Load(), extracted.Load())
	}
}

// TestBodiesAreNotKept: a delivery whose outcome is not awaited is read at once, in the
// memory that the log's reader lends; one that is awaited from far behind is kept in memory
// of its own, for the lent one holds the next delivery by then.
func TestBodiesAreNotKept(t *testing.T) {
	known := func(uint64) (Fields, bool) { return Fields{}, false }
	for _, c := range []struct {
		name    string
		verdict Verdict
		known   func(uint64) (Fields, bool)
		lag     uint64
		kept    bool
	}{
		{"no sink", Accepted, nil, 10, false},
		{"no sink, far behind", Accepted, nil, 10 * maxRecall, false},
		{"refused", Rejected, known, 10, false},
		{"far behind", Accepted, known, 10 * maxRecall, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &index{o: indexOptions{Known: c.known, Extract: func(d *Delivery) (Fields, bool) {
				return Fields{OrderID: string(d.Body)}, true
			}}, tip: func() uint64 { return c.lag }}
			lent := []byte("order-1")
			got := x.change(Record{Seq: 1, Delivery: &Delivery{Seq: 1, Verdict: c.verdict, Body: lent}})
			copy(lent, "another")
			if got.recall {
				t.Error("the log is read again for it")
			}
			if !c.kept {
				if f := got.entry.items; got.body != nil || x.held.Load() != 0 || len(f) != 1 || f[0].f.OrderID != "order-1" {
					t.Errorf("fields %+v, body kept: %t, %d bytes held", f, got.body != nil, x.held.Load())
				}
				return
			}
			if got.body == nil || string(got.body.Body) != "order-1" || x.held.Load() != int64(len(lent)) {
				t.Errorf("kept %+v, %d bytes held", got.body, x.held.Load())
			}
		})
	}
}
