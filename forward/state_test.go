package forward

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/archive"
	"penstock/dedupe"
)

// told counts what went out as the canonical type, per state, and as the provider's own.
func told(rs []fakeRecord, stateOf func(ceID string) string) (canonical, own map[string]int) {
	canonical, own = map[string]int{}, map[string]int{}
	for _, rec := range rs {
		if rec.headers["ce_replay"] != "" {
			continue
		}
		if s := stateOf(rec.headers["ce_id"]); rec.headers["ce_type"] == "payment.captured" {
			canonical[s]++
		} else {
			own[s]++
		}
	}
	return canonical, own
}

// TestStateOnce: a state said again under a new id goes out under the provider's name
// and says whom it repeats; what is another state, or none, is not touched.
func TestStateOnce(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReplayRate = 1e6 })
	first := r.put("s", body{ID: "a", Key: "k", State: "captured|1"})
	again := r.put("s", body{ID: "b", Key: "k", State: "captured|1"}) // one batch: the first is in flight
	elsewhere := r.put("s", body{ID: "c", Key: "other", State: "captured|1"})
	other := r.put("s", body{ID: "d", Key: "k", State: "captured|2"})
	none := []*archive.Delivery{r.put("s", body{ID: "e", Key: "k"}), r.put("s", body{ID: "f", Key: "k"})}
	foreign := r.put("s2", body{ID: "a", Key: "k", State: "captured|1"})
	r.start()
	r.drained()
	r.crash()
	r.start()
	later := r.put("s", body{ID: "g", Key: "k", State: "captured|1"})
	retry := r.put("s", body{ID: "b", Key: "k", State: "captured|1"})
	r.drained()

	want := func(d *archive.Delivery, kind archive.OutcomeKind, of, typ string) {
		t.Helper()
		os := r.outcomes(d)
		if len(os) != 1 || os[0].Kind != kind || os[0].Of != of || os[0].Fields.Type != typ {
			t.Fatalf("outcomes %+v, want %v of %q as %s", os, kind, of, typ)
		}
		if proves := os[0].State != (archive.Identity{}); proves != (kind == archive.Published && of == "" && d != none[0] && d != none[1]) {
			t.Errorf("%s: proves a state: %v", typ, proves)
		}
		if kind != archive.Published {
			return
		}
		for _, rec := range r.k.all() {
			if rec.headers["ce_deliveryid"] != d.ID {
				continue
			}
			if rec.headers["ce_type"] != typ || rec.headers["ce_repeats"] != of {
				t.Errorf("published as %s repeating %q, want %s, %q", rec.headers["ce_type"], rec.headers["ce_repeats"], typ, of)
			}
			if books := strings.Contains(rec.value, `"payment":{`); books != (typ == "payment.captured") {
				t.Errorf("%s: says a payment: %v: %s", typ, books, rec.value)
			}
			return
		}
		t.Errorf("delivery %s is not in kafka", d.ID)
	}
	want(first, archive.Published, "", "payment.captured")
	want(again, archive.Published, first.ID, "prov.t")
	want(elsewhere, archive.Published, first.ID, "prov.t")
	want(other, archive.Published, "", "payment.captured")
	want(none[0], archive.Published, "", "payment.captured")
	want(none[1], archive.Published, "", "payment.captured")
	want(foreign, archive.Published, "", "payment.captured")
	want(later, archive.Published, first.ID, "prov.t")
	want(retry, archive.Duplicate, again.ID, "payment.captured")

	// A replay says what was said the first time.
	r.until("indexed", func() bool { return r.a.IndexLag() == 0 })
	j, err := r.p.Replay(context.Background(), ReplayRequest{IDs: []string{first.ID, again.ID}})
	if err != nil {
		t.Fatal(err)
	}
	r.until("job done", func() bool { s, _ := r.p.ReplayJob(j.ID); return s.State == JobDone })
	types := map[string]string{}
	for _, rec := range r.k.all() {
		if rec.headers["ce_replay"] == j.ID {
			types[rec.headers["ce_id"]] = rec.headers["ce_type"] + " " + rec.headers["ce_repeats"]
		}
	}
	if len(types) != 2 || types["a"] != "payment.captured " || types["b"] != "prov.t "+first.ID {
		t.Errorf("replayed as %v", types)
	}
	r.stop()
}

// TestStateNeverLost: only a publication makes a repeat. The first of a state that
// became a dead letter leaves it to the next.
func TestStateNeverLost(t *testing.T) {
	r := newRig(t, nil)
	r.k.poison = "bad"
	dead := r.put("s", body{ID: "a", Key: "bad", State: "x"})
	next := r.put("s", body{ID: "b", Key: "k", State: "x"})
	r.start()
	r.drained()
	if os := r.outcomes(dead); len(os) != 1 || os[0].Kind != archive.Dead || os[0].State != (archive.Identity{}) {
		t.Fatalf("outcomes %+v", os)
	}
	if os := r.outcomes(next); len(os) != 1 || os[0].Kind != archive.Published || os[0].Of != "" || os[0].Fields.Type != "payment.captured" {
		t.Fatalf("outcomes %+v", os)
	}
	r.stop()
}

// TestStateCrash kills the pump at random moments while the same states are told again
// and again and topics close and open: every event is there once, every state was told
// once, and each key is in its order.
func TestStateCrash(t *testing.T) {
	r := newRig(t, nil)
	r.slow = 2 * time.Millisecond
	n := 0
	var ds []*archive.Delivery
	stateOf := func(ceID string) string {
		i, _ := strconv.Atoi(ceID[1:])
		return "s" + strconv.Itoa(i*7%40)
	}
	put := func(i int) {
		id := "e" + strconv.Itoa(i)
		// States share keys, and are told under several of them.
		ds = append(ds, r.put("s", body{ID: id, Key: "k" + strconv.Itoa(i%5), State: stateOf(id)}))
	}
	for life := range 20 {
		r.start()
		for range rand.N(100) {
			if n > 0 && rand.N(10) < 3 {
				put(rand.N(n))
				continue
			}
			put(n)
			n++
		}
		if life%4 == 1 {
			r.k.set(func() { r.k.blocked["webhooks.s/"+strconv.Itoa(rand.N(2))] = "test" })
			time.Sleep(rand.N(80 * time.Millisecond))
			r.k.set(func() { clear(r.k.blocked) })
		}
		time.Sleep(rand.N(25 * time.Millisecond))
		if life%5 == 3 {
			r.stop()
			r.reopen()
			continue
		}
		r.crash()
	}
	r.start()
	r.drained()
	r.stop()
	rs := r.k.records("webhooks.s")
	got := ids(rs)
	for i := range n {
		if c := got["e"+strconv.Itoa(i)]; c != 1 {
			t.Errorf("e%d is in kafka %d times", i, c)
			r.explain("e" + strconv.Itoa(i))
		}
	}
	canonical, own := told(rs, stateOf)
	for s := range own {
		if canonical[s] != 1 {
			t.Errorf("state %s was told %d times, and %d times as a repeat", s, canonical[s], own[s])
		}
	}
	// What the log says of an event is what Kafka has, also where a crash came between.
	says := map[string]string{}
	for _, rec := range rs {
		says[rec.headers["ce_deliveryid"]] = rec.headers["ce_type"] + " of " + rec.headers["ce_repeats"]
	}
	for _, d := range ds {
		for _, o := range r.outcomes(d) {
			if o.Kind == archive.Published && o.Fields.Type+" of "+o.Of != says[d.ID] {
				t.Errorf("the log says %s of %s, kafka %s", o.Fields.Type, o.Of, says[d.ID])
			}
		}
	}
	checkOrder(t, rs)
}

// TestStateMadeGood: what Kafka lost comes again as what it was.
func TestStateMadeGood(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	for i := range 20 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k", State: "x"})
	}
	r.drained()
	part := r.k.partition([]byte("k"))
	var acked int64
	r.k.set(func() {
		acked = int64(len(r.k.topics["webhooks.s"][part]))
		r.k.topics["webhooks.s"][part] = nil
	})
	if err := r.p.regressed(Regression{Topic: "webhooks.s", Partition: part, Acked: acked, End: 0}); err != nil {
		t.Fatal(err)
	}
	r.until("published again", func() bool { return len(ids(r.k.all())) == 20 })
	r.drained()
	time.Sleep(2 * regressEvery)
	r.put("s", body{ID: "e20", Key: "k", State: "x"})
	r.drained()
	canonical, own := told(r.k.all(), func(string) string { return "x" })
	if canonical["x"] != 1 || own["x"] != 20 {
		t.Errorf("told %v times, repeated %v", canonical, own)
	}
	r.stop()
}

// TestStateParked: a state that another node claims holds the event, not for ever.
func TestStateParked(t *testing.T) {
	s := &stateParks{}
	r := newRig(t, func(o *Options) { o.Dedupe = s; o.ParkFor = 300 * time.Millisecond })
	r.put("s", body{ID: "e0", Key: "k", State: "x"})
	r.put("s", body{ID: "e1", Key: "k"})
	r.start()
	time.Sleep(150 * time.Millisecond)
	if n := len(r.k.all()); n != 0 {
		t.Errorf("%d events passed a parked one", n)
	}
	r.drained()
	checkOrder(t, r.k.all())
	if n := len(r.k.all()); n != 2 || s.forced != 1 {
		t.Errorf("%d events, %d forced", n, s.forced)
	}
	r.stop()
}

// TestStateWaitsForNoWaiter: an event that waits for a state, or for its twin, does not
// hold back the very one it waits for.
func TestStateWaitsForNoWaiter(t *testing.T) {
	r := newRig(t, func(o *Options) { o.HoldAfter = time.Hour })
	r.k.blocked["webhooks.s"] = "test"
	r.put("s", body{ID: "e0", Key: "k", State: "x"})
	r.put("s", body{ID: "e1", Key: "k", State: "x"})
	r.put("s", body{ID: "e2", Key: "k2"})
	r.put("s", body{ID: "e2", Key: "k2"})
	r.start()
	time.Sleep(100 * time.Millisecond)
	r.k.set(func() { clear(r.k.blocked) })
	r.drained()
	if rs := r.k.all(); len(rs) != 3 {
		t.Errorf("%d records, want 3", len(rs))
	}
	r.stop()

	// The first of a key is parked when the second has taken the state that both tell.
	p := &parksFirst{}
	r = newRig(t, nil)
	r.change = func(o *Options) { p.Deduper = r.d; o.Dedupe = p }
	p.delivery = r.put("s", body{ID: "e0", Key: "k", State: "x"}).ID
	r.put("s", body{ID: "e1", Key: "k", State: "x"})
	r.start()
	r.drained()
	checkOrder(t, r.k.all())
	if canonical, own := told(r.k.all(), func(string) string { return "x" }); canonical["x"] != 1 || own["x"] != 1 {
		t.Errorf("told %v times, repeated %v", canonical, own)
	}
	r.stop()
}

// TestAskedKeepsItsPlace: what waited for its key and has nothing to ask any more stays
// behind what waited before it and has to ask again.
func TestAskedKeepsItsPlace(t *testing.T) {
	r := newRig(t, nil)
	for _, b := range []body{
		{ID: "e0", Key: "other", State: "x"}, // takes the state
		{ID: "e1", Key: "k", State: "x"},     // waits for it, and its key for e1
		{ID: "e2", Key: "k", State: "y"},     // has to give its state back and asks twice
		{ID: "e3", Key: "k"},                 // is granted and asks once
		{ID: "e4", Key: "k", State: "y"},
		{ID: "e5", Key: "k"},
	} {
		r.put("s", b)
	}
	r.start() // all of it is one batch
	r.drained()
	checkOrder(t, r.k.all())
	if canonical, own := told(r.k.all(), func(id string) string { return id }); len(canonical) != 4 || len(own) != 2 {
		t.Errorf("told by %v, repeated by %v, want e1 and e4 as repeats", canonical, own)
	}
	r.stop()
}

// TestTwinWaitsForNoWaiter: a parked event whose twin was granted the claim meanwhile.
func TestTwinWaitsForNoWaiter(t *testing.T) {
	p := &parksFirst{}
	r := newRig(t, nil)
	r.change = func(o *Options) { p.Deduper = r.d; o.Dedupe = p }
	p.delivery = r.put("s", body{ID: "e0", Key: "k"}).ID
	r.put("s", body{ID: "e0", Key: "k"})
	r.start()
	r.drained()
	r.stop()
}

// parksFirst parks a delivery's event the first time that it is asked for.
type parksFirst struct {
	*dedupe.Deduper
	delivery string
	done     bool
}

func (s *parksFirst) Claim(ctx context.Context, cs []Claim, out []Answer) {
	var rest []Claim
	var at []int
	for i := range cs {
		if !s.done && cs[i].Delivery == s.delivery {
			out[i] = Answer{Verdict: claimPark, ID: cs[i].ID}
			continue
		}
		rest, at = append(rest, cs[i]), append(at, i)
	}
	s.done = true
	got := make([]Answer, len(rest))
	s.Deduper.Claim(ctx, rest, got)
	for n, i := range at {
		out[i] = got[n]
	}
}

// stateParks parks every claim that compares no content: those of states.
type stateParks struct{ scripted }

func (s *stateParks) Claim(_ context.Context, cs []Claim, out []Answer) {
	for i := range cs {
		out[i] = Answer{Verdict: claimPublish, ID: cs[i].ID}
		if cs[i].Content == (archive.Identity{}) {
			out[i].Verdict = claimPark
		}
	}
}

// TestStateRealRedis: two nodes that share nothing but Redis tell a state once; one whose
// Redis is away publishes.
func TestStateRealRedis(t *testing.T) {
	addr := os.Getenv("PENSTOCK_REDIS")
	if addr == "" {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") == "1" {
			t.Fatal("PENSTOCK_REQUIRE_REAL=1 and PENSTOCK_REDIS is not set")
		}
		t.Skip("PENSTOCK_REDIS is not set")
	}
	prefix := "state-test-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	node := func(name, addr string) *rig {
		r := newRig(t, nil)
		r.change = func(o *Options) {
			d, err := dedupe.New(dedupe.Options{Node: name, Local: r.a, Lease: time.Second,
				Redis: &dedupe.RedisOptions{Addresses: []string{addr}, Prefix: prefix}})
			if err != nil {
				t.Fatal(err)
			}
			o.Dedupe = d
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); _ = d.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-done })
		}
		r.start()
		return r
	}
	a, b, lonely := node("a", addr), node("b", addr), node("c", "127.0.0.1:1")
	const n = 200
	stateOf := func(ceID string) string { return ceID[1:] }
	for i := range n {
		s := strconv.Itoa(i)
		a.put("s", body{ID: "a" + s, Key: "k" + s, State: s})
		b.put("s", body{ID: "b" + s, Key: "k" + s, State: s})
		if i < 20 {
			lonely.put("s", body{ID: "c" + s, Key: "k" + s, State: s})
		}
	}
	for _, r := range []*rig{a, b, lonely} {
		r.drained()
	}
	both := append(a.k.all(), b.k.all()...)
	canonical, own := told(both, stateOf)
	for i := range n {
		if s := strconv.Itoa(i); canonical[s] != 1 || own[s] != 1 {
			t.Errorf("state %s: told %d times, repeated %d times", s, canonical[s], own[s])
		}
	}
	if canonical, own := told(lonely.k.all(), stateOf); len(canonical) != 20 || len(own) != 0 {
		t.Errorf("without redis %d states are told and %d held for repeats, want 20 and none", len(canonical), len(own))
	}
	a.stop()
	b.stop()
	lonely.stop()
}
