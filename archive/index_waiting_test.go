package archive

import (
	"fmt"
	"testing"
)

// TestWaiting: an entry is kept in memory until each of its events has an outcome that is not
// held, and no longer; what never gets one is bounded.
func TestWaiting(t *testing.T) {
	var c waiting
	entryOf := func(seq uint64, v Verdict) *live {
		l := &live{e: newEntry(&Delivery{Seq: seq, Verdict: v, Source: "s"})}
		c.put(l)
		return l
	}
	tell := func(l *live, seq uint64, item, items int, kind OutcomeKind) {
		l.outcome(&Outcome{Seq: seq, Item: item, Items: items, Kind: kind, Sink: "kafka:c"})
		c.committed([]*live{l})
	}
	has := func(what string, l *live, want bool) {
		t.Helper()
		if got := c.get(l.e.ref) == l; got != want {
			t.Errorf("%s: in memory %v, want %v", what, got, want)
		}
	}
	one, two, refused := entryOf(1, Accepted), entryOf(2, Accepted), entryOf(3, Rejected)
	c.committed([]*live{one, two, refused})
	has("accepted, without an outcome", one, true)
	has("refused", refused, false)
	tell(one, 10, 0, 1, Held)
	has("held", one, true)
	tell(one, 11, 0, 1, Published)
	has("published", one, false)
	tell(two, 12, 1, 2, Published)
	has("one of two published", two, true)
	tell(two, 13, 0, 2, Duplicate)
	has("both done", two, false)

	c = waiting{}
	var batch []*live
	for n := range 5 * maxCached {
		batch = append(batch, entryOf(uint64(n+1), Accepted))
		if len(batch) == 256 {
			c.committed(batch)
			batch = batch[:0]
		}
	}
	if n := len(c.young) + len(c.old); n > 2*maxCached+512 {
		t.Errorf("%d entries are in memory though no outcome ever came, want %d at most", n, 2*maxCached)
	}
}

// TestLateOutcomes: outcomes that come long after their deliveries, in memory or not any
// more, end in rows as they would have at once.
func TestLateOutcomes(t *testing.T) {
	const n, late = 3*maxWaiting + 1000, 2*maxWaiting + 2000
	x := testIndex(t, t.TempDir(), indexOptions{batchChanges: 1024})
	r := newBenchRecords(n, true, late)
	if err := x.follow(t.Context(), r.next); err != errEnd { //nolint:errorlint // returned as it is
		t.Fatal(err)
	}
	waitFor(t, "the index", func() bool { return x.position(0) >= r.seq[0] })
	for _, i := range []uint64{1, 17, maxWaiting, 2 * maxWaiting} {
		f := benchFields(i)
		page, err := x.query(t.Context(), &Filter{EventID: f.EventID, Outcome: "published", Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Rows) != 1 || page.Rows[0].Seq != i || page.Rows[0].OrderID != f.OrderID {
			t.Errorf("delivery %d: %s", i, fmt.Sprint(page.Rows))
		}
	}
	page, err := x.query(t.Context(), &Filter{Verdict: "accepted", Outcome: Pending, Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Rows) > 0 {
		t.Errorf("%d rows are pending still: %v", len(page.Rows), page.Rows[0])
	}
}
