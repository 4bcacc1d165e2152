package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"penstock/archive"
)

// A page asks for all that it needs in one turn: who looks beside others waits once, not
// once for each question.
func TestPageLooksInOneTurn(t *testing.T) {
	for _, path := range []string{"/", "/?q=order%3A1", "/overview", "/sources", "/refused"} {
		var asked []string
		var l *lane
		other := make(chan error, 1)
		p := &probed{Archive: newFakeArchive()}
		w := newWorld(t, func(o *Options) { p.Archive, o.Archive, o.Cores = o.Archive, p, 2 })
		l = w.server.lane
		p.probe = func(what string) {
			if len(asked) == 0 { // another one comes while the page has its turn
				go func() {
					_, err := l.Query(t.Context(), archive.Filter{Source: "another's"})
					other <- err
				}()
				for l.waiting.Load() == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			asked = append(asked, what)
		}
		w.want(w.call("GET", path, viewerToken, ""), 200)
		if err := <-other; err != nil {
			t.Fatal(err)
		}
		if n := slices.Index(asked, "query another's"); len(asked) < 3 || n != len(asked)-1 {
			t.Errorf("%s: another's question came %d. of %q", path, n+1, asked)
		}
	}
}

// What the index says of a source stands while nothing new comes to it, but not for long, and
// not while something of it is still to be published.
func TestSettledSources(t *testing.T) {
	p := &probed{Archive: newFakeArchive()}
	var asked []string
	p.probe = func(what string) { asked = append(asked, what) }
	a := newFakeArchive()
	w := newWorld(t, func(o *Options) { a = o.Archive.(*fakeArchive); p.Archive, o.Archive = a, p })
	list, err := w.server.o.Sources.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list = list[slices.IndexFunc(list, func(i SourceInfo) bool { return i.Name == "stripe" }):][:1]
	outcomes := func() (n int) {
		t.Helper()
		asked = nil
		w.server.measured.at = time.Time{}
		if v := w.server.measure(t.Context(), list)["stripe"]; v.LagOf != 1 || v.Last == nil {
			t.Fatalf("measured: %+v", v)
		}
		for _, what := range asked {
			if what == "outcomes" {
				n++
			}
		}
		return n
	}
	for range 2 {
		if outcomes() != 1 {
			t.Error("with a delivery that is still to be published its lag is not measured each time")
		}
	}
	r := a.rows[pendingID]
	r.Outcome = "filtered"
	a.rows[pendingID] = r
	if outcomes() != 1 || outcomes() != 0 {
		t.Error("nothing came, nothing is to be published: it is measured again")
	}
	v := w.server.measured.rows["stripe"]
	v.settled = v.settled.Add(-settledFor)
	w.server.measured.rows["stripe"] = v
	if outcomes() != 1 || outcomes() != 0 {
		t.Error("what was measured long ago still stands")
	}
	a.add(archive.Row{ID: strings.Replace(publishedID, "0", "9", 1), Source: "stripe", Verdict: "accepted", Outcome: "duplicate"}, &archive.Delivery{})
	if outcomes() != 1 {
		t.Error("a new delivery is not seen")
	}
}

// Pages gather metrics once for all who look, and again when they are old.
func TestMetricsAreGatheredOnce(t *testing.T) {
	gathers := 0
	w := newWorld(t, func(o *Options) {
		all := o.Gatherer
		o.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { gathers++; return all.Gather() })
	})
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_ack_seconds", Buckets: []float64{1, 2}})
	w.reg.MustRegister(h)
	h.Observe(1.5)
	look := func() time.Duration {
		return quantiles(w.server.sharedMetrics(t.Context()), 1, "penstock_ack_seconds")["penstock_ack_seconds"]
	}
	if got := look(); got != 2*time.Second {
		t.Fatalf("the metric says %v", got)
	}
	w.server.gathered.at = time.Now().Add(time.Hour)
	h.Observe(0.5)
	w.want(w.call("GET", "/overview", viewerToken, ""), 200)
	if look(); gathers != 1 {
		t.Errorf("gathered %d times within a moment", gathers)
	}
	w.server.gathered.at = time.Time{}
	if look(); gathers != 2 {
		t.Errorf("gathered %d times; old metrics are still shared", gathers)
	}
}
