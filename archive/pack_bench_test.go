package archive

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// stored is an archive with what a corpus makes: each delivery and its outcome.
func stored(b *testing.B, c *corpus, deliveries int, o Options) (*Archive, []string) {
	b.Helper()
	o.NoIndex, o.NoPack, o.MaxWait, o.SegmentBytes = true, true, time.Hour, 16<<20
	a := mustOpen(b, b.TempDir(), o)
	var ids []string
	for n := 0; n < deliveries; {
		work := make(chan *Delivery, 64)
		for range cap(work) {
			d := c.next()
			go func() {
				if err := a.Append(d); err != nil {
					b.Error(err)
				}
				work <- d
			}()
			n++
		}
		var os []Outcome
		for range cap(work) {
			d := <-work
			ids = append(ids, d.ID)
			os = append(os, c.outcome(d))
		}
		if err := a.AppendOutcomes(os); err != nil {
			b.Fatal(err)
		}
	}
	return a, ids
}

// packNow packs what can be packed, without resting.
func packNow(b testing.TB, a *Archive) {
	b.Helper()
	p := &packer{a: a, restless: true}
	eventually(b, "sealed", func() bool { return a.Stats().Sealed == a.Stats().Segments-1 })
	for _, j := range []*journal{a.log, a.quarantine.log} {
		p.packLog(j)
	}
	if _, all := packed(a); !all {
		b.Fatalf("not packed: %+v", a.Stats())
	}
}

// BenchmarkPack says how much smaller sealed segments become, frames, headers and outcomes
// included, and what that costs: packing, reading back and comparing.
func BenchmarkPack(b *testing.B) {
	for _, names := range [][]string{{"stripe"}, {"liqpay"}, payments} {
		for _, enc := range []*Encryption{nil, {Key: testKey(1)}} {
			benchmarkPack(b, names, enc)
		}
	}
}

func benchmarkPack(b *testing.B, names []string, enc *Encryption) {
	b.Run(fmt.Sprintf("%s+%d/encrypted=%t", names[0], len(names)-1, enc != nil), func(b *testing.B) {
		for range b.N {
			a, _ := stored(b, newCorpus(b, names...), 26_000, Options{Encryption: enc})
			sum := func() (raw, disk int64) {
				for _, s := range a.log.packable() {
					raw += s.size.Load()
				}
				for _, s := range a.log.segs {
					if n := s.stored.Load(); n > 0 {
						raw += s.size.Load()
						disk += n
					}
				}
				return raw, disk
			}
			start := time.Now()
			packNow(b, a)
			took := time.Since(start)
			raw, disk := sum()
			b.ReportMetric(float64(raw)/float64(disk), "ratio")
			b.ReportMetric(took.Seconds()*1000/(float64(raw)/(1<<20)), "ms/MiB")
			_ = a.Close()
		}
	})
}

// BenchmarkGet reads deliveries by id, anywhere and one after the other as a list does.
func BenchmarkGet(b *testing.B) {
	for _, kind := range []string{"raw", "packed", "sealed+packed"} {
		for _, next := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/neighbours=%t", kind, next), func(b *testing.B) {
				pack, o := kind != "raw", Options{}
				if kind == "sealed+packed" {
					o.Encryption = &Encryption{Key: testKey(1)}
				}
				a, ids := stored(b, newCorpus(b, payments...), 39_000, o)
				ids = ids[:len(ids)*3/4] // in sealed segments
				if pack {
					packNow(b, a)
				}
				rng := rand.New(rand.NewPCG(1, 1))
				b.ResetTimer()
				for n := range b.N {
					at := n % len(ids)
					if !next {
						at = rng.IntN(len(ids))
					}
					if _, err := a.Get(ids[at]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkReadPacked measures how fast a reader that is far behind goes through.
func BenchmarkReadPacked(b *testing.B) {
	for _, pack := range []bool{false, true} {
		b.Run(fmt.Sprintf("packed=%t", pack), func(b *testing.B) {
			a, _ := stored(b, newCorpus(b, payments...), 39_000, Options{})
			if pack {
				packNow(b, a)
			}
			b.ResetTimer()
			var r *Reader
			for range b.N {
				if r == nil {
					r = a.NewReader(0)
				}
				if _, ok, err := r.TryNext(); err != nil {
					b.Fatal(err)
				} else if !ok {
					r.Close()
					r = nil
				}
			}
			if r != nil {
				r.Close()
			}
		})
	}
}
