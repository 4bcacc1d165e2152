package archive

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// textArchive holds n deliveries of both logs in small segments; a third has the word in
// its body, its header or its path's query.
func textArchive(t *testing.T, rng *rand.Rand, n int, raw bool) (*Archive, []*Delivery) {
	a := mustOpen(t, t.TempDir(), Options{SegmentBytes: 64 << 10, NoPack: raw})
	var ds []*Delivery
	for i := range n {
		d := testDelivery(i)
		d.ReceivedAt = fakeEpoch.Add(time.Duration(i) * time.Second)
		d.Source = pick(rng, "stripe", "liqpay")
		d.Body = fmt.Appendf(nil, `{"n":%d,"filler":"%s"}`, i, strings.Repeat("x", rng.IntN(600)))
		switch rng.IntN(9) {
		case 0:
			d.Body = append(d.Body, "Customer NEEDLE-77 said"...)
		case 1:
			d.Header = []byte("X-Trace: needle-77\r\n")
		case 2:
			d.Target = []byte("/in/stripe?ref=Needle-77")
		}
		if rng.IntN(4) == 0 {
			d.Verdict, d.Reason = Rejected, "signature_mismatch"
			if kept, err := a.Reject(d); err != nil {
				t.Fatal(err)
			} else if !kept {
				continue // sampled away: a storm from one address
			}
		} else {
			mustAppend(t, a, d)
		}
		ds = append(ds, d)
	}
	waitFor(t, "the index", func() bool {
		p, err := a.Counts(t.Context(), fakeEpoch, fakeEpoch.Add(time.Duration(n)*time.Second), time.Hour, "")
		return err == nil && p.Total.Accepted+p.Total.Rejected == int64(len(ds))
	})
	return a, ds
}

// TestFullText: page by page, whatever the limit and however often the time is up, a
// search finds what is there, once, newest first.
func TestFullText(t *testing.T) {
	rng := seeded(t)
	a, ds := textArchive(t, rng, 1500, false)
	defer a.Close()
	for range 12 {
		f := Filter{Text: pick(rng, "needle-77", "NEEDLE-77"), Limit: pick(rng, 1, 7, 500), BodyOnly: rng.IntN(3) == 0,
			Source: pick(rng, "", "", "stripe"), Verdict: pick(rng, "", "", "rejected")}
		if rng.IntN(2) == 0 {
			f.From, f.To = fakeEpoch.Add(200*time.Second), fakeEpoch.Add(1100*time.Second)
		}
		a.textBudget = pick(rng, time.Nanosecond, time.Hour)
		var want []string
		inRange := int64(0)
		for _, d := range slices.Backward(ds) {
			if f.Source != "" && d.Source != f.Source || f.Verdict != "" && d.Verdict.String() != f.Verdict ||
				!f.From.IsZero() && (d.ReceivedAt.Before(f.From) || !d.ReceivedAt.Before(f.To)) {
				continue
			}
			inRange++
			all := string(d.Body)
			if !f.BodyOnly {
				all += string(d.Header) + string(d.Target)
			}
			if strings.Contains(strings.ToLower(all), "needle-77") {
				want = append(want, d.ID)
			}
		}
		got, scanned := []string{}, int64(0)
		left := int64(1 << 40)
		for pages := 0; ; pages++ {
			p, err := a.Query(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range p.Rows {
				got = append(got, r.ID)
			}
			scanned += p.Progress.Scanned
			if len(p.Rows) > f.Limit || p.Progress.Left > left || p.Progress.Damaged > 0 || p.Progress.Total < inRange || p.Progress.Total > inRange+120 {
				t.Fatalf("page %d of %+v: %d rows, progress %+v, %d are in the range", pages, f, len(p.Rows), p.Progress, inRange)
			}
			if left = p.Progress.Left; p.Next == "" {
				break
			}
			f.Cursor = p.Next
		}
		if !slices.Equal(got, want) || left != 0 {
			t.Fatalf("%+v: found %d, want %d; %d left", f, len(got), len(want), left)
		}
		if scanned < inRange {
			t.Fatalf("%d were read, %d are there", scanned, inRange)
		}
	}
	if p, err := a.Query(t.Context(), Filter{Text: "it is nowhere"}); err != nil || len(p.Rows) > 0 || p.Rows == nil {
		t.Fatalf("%+v, %v", p, err)
	}
}

// TestFullTextDamage: a damaged record costs itself alone, and is counted.
func TestFullTextDamage(t *testing.T) {
	a, ds := textArchive(t, seeded(t), 300, true) // its places in the file are those of the records
	defer a.Close()
	ds = slices.DeleteFunc(ds, func(d *Delivery) bool { return d.Verdict == Rejected })
	d := ds[100]
	broken := false
	for _, path := range segmentFiles(t, a.dir, segmentsDir) {
		for _, fr := range framesOf(t, path) {
			if fr.seq == d.Seq && fr.typ == typeDelivery {
				flip(t, filepath.Clean(path), fr.off+fr.size-3, 1)
				broken = true
			}
		}
	}
	if !broken {
		t.Fatal("the record is nowhere")
	}
	f := Filter{Text: `"filler"`, Limit: MaxLimit}
	p, err := a.Query(t.Context(), f)
	if err != nil || int64(len(p.Rows)) != p.Progress.Total-1 || p.Progress.Damaged != 1 || p.Progress.Scanned != p.Progress.Total {
		t.Fatalf("%d rows, progress %+v, %v", len(p.Rows), p.Progress, err)
	}
	if len(a.Damage()) != 1 {
		t.Fatalf("damage %q", a.Damage())
	}
}

// BenchmarkFullText: what a search for something that is nowhere reads in a second.
func BenchmarkFullText(b *testing.B) {
	a := mustOpen(b, b.TempDir(), Options{})
	defer a.Close()
	const n = 20_000
	for i := range n {
		d := testDelivery(i)
		d.Body = []byte(strings.Repeat(`{"id":"evt_1Nv2Kx2eZvKYlo2C","amount":9232},`, 40))
		if err := a.Append(d); err != nil {
			b.Fatal(err)
		}
	}
	waitFor(b, "the index", func() bool { return a.IndexLag() == 0 })
	a.textBudget = time.Hour
	for b.Loop() {
		if p, err := a.Query(b.Context(), Filter{Text: "nowhere at all"}); err != nil || p.Progress.Scanned != n {
			b.Fatal(p.Progress, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}
