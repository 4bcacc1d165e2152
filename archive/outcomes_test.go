package archive

import "testing"

// FirstOutcomes finds for many deliveries at once what OutcomesOf gives for each: the first
// that fits, and nothing of another's.
func TestFirstOutcomes(t *testing.T) {
	a := mustOpen(t, t.TempDir(), Options{Extract: fakeExtract})
	defer a.Close()
	var ids []string
	for n := range 5 {
		d, out, _ := planted(n)
		mustAppend(t, a, d)
		ids = append(ids, d.ID)
		out.Delivery = d.Seq
		held := out
		held.Kind, held.Reason = Held, "source_paused"
		list := [][]Outcome{{}, {held}, {held, out}, {out, held}, {held, out, out}}[n]
		if len(list) > 0 {
			if err := a.AppendOutcomes(list); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "indexed", func() bool { return a.Indexed() >= a.Synced() })
	ids = append([]string{"no id", ids[4]}, ids...) // in any order, twice, and what is none
	for _, kind := range []OutcomeKind{Published, Held, Dead} {
		got, err := a.FirstOutcomes(ids, func(o *Outcome) bool { return o.Kind == kind })
		if err != nil || len(got) != len(ids) {
			t.Fatalf("%d outcomes of %d deliveries: %v", len(got), len(ids), err)
		}
		for i, id := range ids {
			all, err := a.OutcomesOf(id)
			if err != nil {
				t.Fatal(err)
			}
			var want Outcome
			for k := len(all) - 1; k >= 0; k-- {
				if all[k].Kind == kind {
					want = all[k]
				}
			}
			if got[i].Kind != want.Kind || got[i].Seq != want.Seq || got[i].Delivery != want.Delivery || !got[i].At.Equal(want.At) || got[i].Reason != want.Reason {
				t.Errorf("%s, first %s: %+v, want %+v", id, kind, got[i], want)
			}
		}
	}
}
