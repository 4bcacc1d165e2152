package admin

import (
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// The overview says first that something was answered and cannot be published, and leads there.
func TestDeadLettersWantAttention(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return time.Date(2026, 5, 28, 21, 0, 0, 0, time.UTC) } })
	w.archive.whole = true
	overview := func() string { return w.call("GET", "/overview", viewerToken, "").Body.String() }
	if page := overview(); strings.Contains(page, "dead letter") || !strings.Contains(page, "Nothing wants attention") {
		t.Fatal("there is none")
	}
	dead := func(id string) {
		w.archive.add(archive.Row{ID: id, Source: "stripe", Verdict: "accepted", Outcome: "dead"}, &archive.Delivery{Body: []byte("{}")})
	}
	dead("dead-1")
	page := overview()
	if !strings.Contains(page, "1 delivery of the last day is a dead letter") || strings.Contains(page, "Nothing wants attention") {
		t.Fatalf("it is not told of:\n%s", page)
	}
	if !strings.Contains(page, `href="/refused#dead"`) || !strings.Contains(w.call("GET", "/refused", viewerToken, "").Body.String(), `id="dead"`) {
		t.Fatal("nothing leads to it")
	}
	// One that was driven again is out: it is found by the filter and is not counted.
	w.archive.add(archive.Row{ID: "driven", Source: "stripe", Verdict: "accepted", Outcome: "published", Outcomes: []string{"published", "dead"}}, &archive.Delivery{Body: []byte("{}")})
	dead("dead-2")
	if page := overview(); !strings.Contains(page, "2 deliveries of the last day are dead letters") {
		t.Fatalf("two of them:\n%s", page)
	}
	w.archive.whole = false
	if page := overview(); !strings.Contains(page, "More than 2 deliveries") {
		t.Fatalf("there are more:\n%s", page)
	}
	w.archive.err = archive.ErrIndex
	if page := overview(); strings.Contains(page, "dead letter") {
		t.Fatal("what cannot be looked up is claimed")
	}
}

// A job says what it replays, and leads there.
func TestJobsSayWhatTheyReplay(t *testing.T) {
	w := newWorld(t, nil)
	w.work.jobs = []Job{{ID: "job-2", State: "done", Total: 1, Delivery: "ID<1>"}, {ID: "job-3", State: "running", Total: -1, Query: "from=2026-05-28T20%3A00%3A00.5Z&order_id=a%3Cb%26c"}, {ID: "job-4", State: "done", Query: "%zz"}}
	w.want(w.call("GET", "/replays", viewerToken, ""), 200, `<a href="/deliveries/ID%3C1%3E">one delivery</a>`,
		`<a href="/?from=2026-05-28T20%3A00%3A00.5Z&amp;order_id=a%3Cb%26c">from 2026-05-28 20:00:00, order id a&lt;b&amp;c</a>`, "1 delivery")
}

// A view of refused deliveries is re-verified, any other replayed; neither without a filter, nor
// by a viewer.
func TestViewOffersWhatFitsIt(t *testing.T) {
	w := newWorld(t, nil)
	const replay, verify = "Replay this view", "Re-verify this view"
	for path, want := range map[string][2]bool{"/": {}, "/?source=stripe": {true, false}, "/?verdict=accepted": {true, false}, "/?verdict=rejected&from=-2h": {false, true}, "/?verdict=rejected&text=x": {}, "/?verdict=wrong": {}} {
		page := w.call("GET", path, operatorToken, "").Body.String()
		if got := [2]bool{strings.Contains(page, replay), strings.Contains(page, verify)}; got != want {
			t.Errorf("%s offers replay and re-verify: %v, want %v", path, got, want)
		}
		page = w.call("GET", path, viewerToken, "").Body.String()
		if strings.Contains(page, replay) || strings.Contains(page, verify) {
			t.Errorf("%s offers it to a viewer", path)
		}
	}
	w.want(w.call("GET", "/?verdict=rejected&order_id=7", operatorToken, ""), 200, `action="/refused/reverify"><input type="hidden" name="filter" value="order_id=7&amp;verdict=rejected">`)
}

// What a paused source holds is waiting too: its page and the list say how much.
func TestSourcesCountWhatIsHeld(t *testing.T) {
	w := newWorld(t, nil)
	w.archive.held = []archive.Row{{ID: "h1", Source: "stripe"}, {ID: "h2", Source: "stripe"}}
	const words = `<a href="/?source=stripe&amp;outcome=held">2 held</a>`
	for _, w.work.paused = range []bool{false, true} {
		w.server.measured = measuredSources{} // or the page stands for a second
		for _, path := range []string{"/sources", "/sources/stripe"} {
			if page := w.call("GET", path, viewerToken, "").Body.String(); strings.Contains(page, words) != w.work.paused {
				t.Errorf("%s, paused %t, says %q: %t", path, w.work.paused, words, !w.work.paused)
			}
		}
	}
}
