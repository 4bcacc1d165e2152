package archive

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// spread makes deliveries over ninety days, so that minutes, hours and days all matter.
func spread(seed uint64, n int) *fakeLogs {
	g := newFakeLogs(seed)
	for range n {
		g.run(8)
		g.at = g.at.Add(time.Duration(g.rng.Int64N(int64(20 * time.Hour))))
	}
	return g
}

// countByHand counts what the logs hold from log's floor on.
func countByHand(g *fakeLogs, from, to time.Time, source string, floor [2]uint64) (c CountRow) {
	for log, records := range g.logs {
		for _, r := range records {
			d := r.Delivery
			if d == nil || r.Seq&^QuarantineBit < floor[log] || source != "" && d.Source != source || d.ReceivedAt.Before(from) || !d.ReceivedAt.Before(to) {
				continue
			}
			var t tallyRow
			t[countColumn(d.Verdict.String())]++
			c.add(&t)
		}
	}
	return c
}

func checkCounts(t *testing.T, x *index, g *fakeLogs, rng *rand.Rand, floor [2]uint64) {
	t.Helper()
	a := &Archive{index: x}
	span := g.at.Sub(fakeEpoch)
	for range 60 {
		from := fakeEpoch.Add(time.Duration(rng.Int64N(int64(span))))
		to := from.Add(1 + time.Duration(rng.Int64N(int64(span))))
		step := pick(rng, 0, time.Hour, 24*time.Hour, 6*time.Hour, 90*time.Minute, 7*24*time.Hour)
		if to.Sub(from) < 12*time.Hour {
			step = pick(rng, 0, time.Minute, 7*time.Minute)
		}
		source := pick(rng, "", "", "stripe", "stripe-eu", "none")
		c, err := a.Counts(t.Context(), from, to, step, source)
		if err != nil {
			t.Fatal(err)
		}
		if c.From.After(from) || c.To.Before(to) || step != 0 && c.Step != int64(step/time.Second) {
			t.Fatalf("asked for %s to %s by %s, got %s to %s by %d s", from, to, step, c.From, c.To, c.Step)
		}
		if want := countByHand(g, c.From, c.To, source, floor); c.Total != want {
			t.Fatalf("%s to %s of %q: total %+v, want %+v", c.From, c.To, source, c.Total, want)
		}
		for _, b := range c.Buckets {
			if want := countByHand(g, b.At, b.At.Add(time.Duration(c.Step)*time.Second), source, floor); b.CountRow != want {
				t.Fatalf("bar at %s by %d s of %q: %+v, want %+v", b.At, c.Step, source, b.CountRow, want)
			}
		}
		for name, got := range c.Sources {
			if want := countByHand(g, c.From, c.To, name, floor); got != want {
				t.Fatalf("source %s: %+v, want %+v", name, got, want)
			}
		}
		if source == "" && c.Total != (CountRow{}) && len(c.Sources) == 0 {
			t.Fatal("no sources")
		}
	}
}

// TestCounts: the histogram is what one counts by hand, at every step, after crashes of
// the index and while retention deletes.
func TestCounts(t *testing.T) {
	for seed := range uint64(3) {
		g, rng := spread(300+seed, 100), rand.New(rand.NewPCG(seed, 4))
		fs := vfs.NewCrashableMem()
		for share := 0.0; share < 1; {
			share = min(1, share+0.1+rng.Float64()/3)
			x := testIndex(t, "index", indexOptions{fs: fs, batchChanges: 1 + rng.IntN(100)})
			g.feed(t, x, share)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
			fs = crashed
		}
		x := testIndex(t, "index", indexOptions{fs: fs})
		g.feed(t, x, 1)
		checkCounts(t, x, g, rng, [2]uint64{})
		floor := [2]uint64{g.seq[0] / 2, g.seq[1] / 3}
		x.forget(0, floor[0])
		x.forget(1, floor[1])
		a := &Archive{index: x}
		waitFor(t, "the sweep", func() bool {
			c, err := a.Counts(t.Context(), fakeEpoch.Add(-24*time.Hour), g.at.Add(24*time.Hour), 0, "")
			return err == nil && c.Total == countByHand(g, c.From, c.To, "", floor)
		})
		checkCounts(t, x, g, rng, floor)
	}
}

func TestCountsRefuses(t *testing.T) {
	a := &Archive{index: memIndex(t)}
	for _, c := range []struct {
		age, until, step time.Duration
	}{{time.Hour, time.Hour, 0}, {time.Hour, 2 * time.Hour, 0}, {time.Hour, 0, time.Second}, {time.Hour, 0, 90 * time.Second},
		{90 * 24 * time.Hour, 0, time.Minute}, {time.Hour, 0, -time.Minute}} {
		if _, err := a.Counts(t.Context(), fakeEpoch.Add(-c.age), fakeEpoch.Add(-c.until), c.step, ""); !errors.Is(err, ErrCountRange) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := a.Counts(t.Context(), time.Time{}, fakeEpoch, 0, ""); !errors.Is(err, ErrCountRange) {
		t.Errorf("from the year 1: %v", err)
	}
}

// BenchmarkCounts: ninety days of 10 million deliveries of ten sources.
func BenchmarkCounts(b *testing.B) {
	x := testIndex(b, b.TempDir(), indexOptions{})
	const days, sources = 90, 10
	for day := range days {
		w := &writer{x: x, batch: x.db.NewBatch(), counts: map[countMinute]*tallyRow{}}
		for minute := range 24 * 60 {
			at := fakeEpoch.Add(time.Duration(day*24*60+minute) * time.Minute)
			for s := range sources {
				w.tally(&Row{ReceivedAt: at, Source: string(rune('a' + s)), Verdict: "accepted"}, 8)
			}
		}
		if err := w.putCounts(); err != nil {
			b.Fatal(err)
		}
		if err := w.batch.Commit(pebble.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	a := &Archive{index: x}
	for name, step := range map[string]time.Duration{"by day": 24 * time.Hour, "by hour": time.Hour, "by half hour": 30 * time.Minute} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c, err := a.Counts(b.Context(), fakeEpoch, fakeEpoch.Add(days*24*time.Hour), step, "")
				if err != nil || c.Total.Accepted != days*24*60*sources*8 {
					b.Fatal(c.Total, err)
				}
			}
		})
	}
}
