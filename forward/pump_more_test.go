package forward

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

func TestMissingDefinition(t *testing.T) {
	r := newRig(t, nil)
	whole := r.infos
	r.infos = func(source string) *SourceInfo {
		if source == "gone" {
			return nil
		}
		return whole(source)
	}
	r.start()
	d := r.put("gone", body{ID: "a", Key: "k", Items: 3})
	r.put("gone", body{ID: "b", Key: "k"})
	r.put("s", body{ID: "c", Key: "k"})
	r.until("the other flows", func() bool { return len(r.k.all()) == 1 })
	r.until("held", func() bool { return r.p.Stats().Held == 2 })
	if os := r.outcomes(d); len(os) != 1 || os[0].Reason != "definition_missing" || os[0].Kind != archive.Held {
		t.Errorf("outcomes: %+v", os)
	}
	r.until("cursor passes", func() bool {
		cur, _, _ := loadCursor(r.a.State(), "kafka:fake")
		return cur.Seq > d.Seq+2
	})
	r.crash()
	r.infos = whole
	r.start()
	r.p.Reload()
	r.drained()
	got := ids(r.k.records("webhooks.gone"))
	for _, id := range []string{"a", "a#1", "a#2", "b"} {
		if got[id] != 1 {
			t.Errorf("%s is in kafka %d times", id, got[id])
		}
	}
	r.stop()
}

func TestTooLarge(t *testing.T) {
	f := func(url string, kind archive.OutcomeKind) {
		t.Helper()
		r := newRig(t, func(o *Options) { o.AdminURL, o.Node, o.KeepFor = url, "n1", time.Hour })
		r.k.max = 2000
		r.start()
		d := r.put("s", body{ID: "big", Key: "k", Note: strings.Repeat("x", 5000)})
		r.put("s", body{ID: "small", Key: "k"})
		r.drained()
		if os := r.outcomes(d); len(os) != 1 || os[0].Kind != kind {
			t.Errorf("outcomes: %+v", os)
		}
		got := ids(r.k.records("webhooks.s"))
		if got["small"] != 1 {
			t.Errorf("what came behind the large one is in kafka %d times", got["small"])
		}
		if kind == archive.Published {
			for _, rec := range r.k.records("webhooks.s") {
				if rec.headers["ce_id"] == "big" && !strings.Contains(rec.value, url+"/api/v1/deliveries/"+d.ID+"/body") {
					t.Errorf("claim-check: %s", rec.value)
				}
			}
		} else if len(r.k.records("dead")) != 1 {
			t.Errorf("%d dead letters", len(r.k.records("dead")))
		}
		r.stop()
	}
	f("https://admin.example", archive.Published)
	f("", archive.Dead)
}

func TestPoison(t *testing.T) {
	r := newRig(t, nil)
	r.k.poison = "k1"
	r.start()
	bad := r.put("s", body{ID: "a", Key: "k1"})
	r.put("s", body{ID: "b", Key: "k2"})
	r.drained()
	if os := r.outcomes(bad); len(os) != 1 || os[0].Kind != archive.Dead || os[0].Reason != reasonRefused || os[0].Topic != "dead" {
		t.Errorf("outcomes: %+v", os)
	}
	if got := ids(r.k.records("webhooks.s")); got["b"] != 1 {
		t.Errorf("what came behind the poison: %v", got)
	}
	r.stop()
}

func TestRelease(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	d := &archive.Delivery{ReceivedAt: time.Now(), Source: "s", Provider: "prov", Verdict: archive.Rejected, Reason: "signature_mismatch",
		Method: "POST", Body: []byte(`{"id":"q","key":"k"}`), Epoch: r.epochOf("s")}
	if kept, err := r.a.Reject(d); err != nil || !kept {
		t.Fatal(kept, err)
	}
	if _, err := r.p.Replay(context.Background(), ReplayRequest{IDs: []string{d.ID}}); !errors.Is(err, ErrNotPublished) {
		t.Errorf("replay of a rejected delivery: %v", err)
	}
	if err := r.p.Release(d.ID, "ops", "hmac:new", false); err != nil {
		t.Fatal(err)
	}
	r.until("released", func() bool { return len(r.k.all()) == 1 })
	if by := r.k.all()[0].headers["ce_verifiedby"]; by != "hmac:new" {
		t.Errorf("verified by %q", by)
	}
	if err := r.p.Release(d.ID, "ops", "", true); err != nil {
		t.Fatal(err)
	}
	r.put("s", body{ID: "q", Key: "k"})
	r.drained()
	r.crash()
	r.start()
	r.drained()
	time.Sleep(50 * time.Millisecond)
	if n := len(r.k.all()); n != 1 {
		t.Errorf("%d records, want 1: a release goes through dedupe: %+v", n, r.k.all())
	}
	acc := r.put("s", body{ID: "z"})
	if err := r.p.Release(acc.ID, "ops", "", false); !errors.Is(err, ErrNotRejected) {
		t.Errorf("release of an accepted delivery: %v", err)
	}
	r.stop()
}

func TestReplay(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReplayRate = 1e6 })
	r.start()
	var ds []*archive.Delivery
	for i := range 50 {
		ds = append(ds, r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)}))
	}
	r.put("s", body{ID: "bad", Note: "bad"})
	r.drained()
	r.until("indexed", func() bool { return r.a.IndexLag() == 0 })
	j, err := r.p.Replay(context.Background(), ReplayRequest{Filter: &archive.Filter{Source: "s"}, By: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	r.until("job done", func() bool { s, _ := r.p.ReplayJob(j.ID); return s.State == JobDone })
	again := 0
	for _, rec := range r.k.records("webhooks.s") {
		if rec.headers["ce_replay"] == j.ID {
			again++
		}
	}
	if j, _ = r.p.ReplayJob(j.ID); again != 50 || j.Events != 50 || j.Found != 51 || j.Skipped != 1 {
		t.Errorf("%d replayed, job %+v", again, j)
	}
	one, err := r.p.Replay(context.Background(), ReplayRequest{IDs: []string{ds[3].ID}})
	if err != nil {
		t.Fatal(err)
	}
	r.until("one done", func() bool { s, _ := r.p.ReplayJob(one.ID); return s.State == JobDone })
	if got := ids(r.k.records("webhooks.s"))["e3"]; got != 3 {
		t.Errorf("e3 is in kafka %d times, want 3", got)
	}
	for _, o := range r.outcomes(ds[3]) {
		if (o.Replay != "") != (o.Identity == archive.Identity{}) {
			t.Errorf("outcome of replay %q proves identity %x", o.Replay, o.Identity)
		}
	}
	// A replay is no evidence and changes none.
	r.put("s", body{ID: "e3", Key: "k0"})
	r.drained()
	if got := ids(r.k.records("webhooks.s"))["e3"]; got != 3 {
		t.Errorf("after a repeat e3 is in kafka %d times, want 3", got)
	}
	r.stop()
}

// TestDrainRate: what a paused source held is let out at a bounded rate, in order, with what
// comes meanwhile behind it; other sources do not wait for it.
func TestDrainRate(t *testing.T) {
	const held, perSecond = 300, 200
	r := newRig(t, func(o *Options) { o.DrainRate = perSecond })
	if err := r.startPaused("s"); err != nil {
		t.Fatal(err)
	}
	for i := range held {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.until("held", func() bool { return r.p.Stats().Held == held })
	began := time.Now()
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	other := r.put("other", body{ID: "x", Key: "k"})
	r.put("s", body{ID: "e" + strconv.Itoa(held), Key: "k0"})
	r.until("the other source's is published", func() bool { return len(r.outcomes(other)) == 1 })
	out := len(r.k.records("webhooks.s"))
	took := time.Since(began)
	if most := perSecond/5 + int(perSecond*took.Seconds()) + 1; out > most {
		t.Errorf("%d are out after %v, want at most %d", out, took, most)
	}
	r.drained()
	if took, least := time.Since(began), time.Duration(held-perSecond/5)*time.Second/perSecond; took < least {
		t.Errorf("all are out after %v, at this rate it takes %v", took, least)
	}
	if got := len(r.k.records("webhooks.s")); got != held+1 {
		t.Errorf("%d events, want %d", got, held+1)
	}
	checkOrder(t, r.k.records("webhooks.s"))
	r.stop()
}

// TestDrainKeepsOrder: what comes while a source is drained goes behind what was held.
func TestDrainKeepsOrder(t *testing.T) {
	r := newRig(t, nil)
	if err := r.startPaused("s"); err != nil {
		t.Fatal(err)
	}
	const n = 2000
	for i := range n {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.until("held", func() bool { return r.p.Stats().Held == n })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	for i := n; i < n+500; i++ {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.drained()
	if got := len(r.k.all()); got != n+500 {
		t.Errorf("%d events, want %d", got, n+500)
	}
	checkOrder(t, r.k.all())
	r.stop()
}

// startPaused starts with a source that was paused before.
func (r *rig) startPaused(source string) error {
	if err := r.a.State().Commit(archive.Change{Key: pausePrefix + source, Value: []byte("1")}); err != nil {
		return err
	}
	r.start()
	return nil
}

// TestCrashWhileDraining: an event that was taken out of a gate and is on its way has no
// outcome yet; the next life finds it again.
func TestCrashWhileDraining(t *testing.T) {
	r := newRig(t, nil)
	if err := r.startPaused("s"); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3)})
	}
	r.until("held", func() bool { return r.p.Stats().Held == 50 })
	r.put("other", body{ID: "x", Key: "k"})
	r.until("the other source's event", func() bool { return len(r.k.all()) == 1 })
	r.k.set(func() { r.k.away = true })
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * cursorEvery)
	r.put("other", body{ID: "y", Key: "k"})
	time.Sleep(3 * cursorEvery) // the cursor is written meanwhile
	r.crash()
	r.k.set(func() { r.k.away = false })
	r.start()
	r.drained()
	if got := ids(r.k.records("webhooks.s")); len(got) != 50 || len(r.k.records("webhooks.s")) != 50 {
		t.Errorf("%d of 50 held events came out, in %d records", len(got), len(r.k.records("webhooks.s")))
	}
	checkOrder(t, r.k.records("webhooks.s"))
	r.stop()
}

// TestPumpMakesGood: what Kafka lost after its ack is published again, and only that,
// also when the gateway is killed between the two.
func TestPumpMakesGood(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	for i := range 60 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%5)})
	}
	r.drained()
	part := r.k.partition([]byte("k0"))
	var acked, end int64
	r.k.set(func() {
		p := r.k.topics["webhooks.s"][part]
		acked, end = int64(len(p)), int64(len(p)-7)
		r.k.topics["webhooks.s"][part] = p[:end]
	})
	if got := len(ids(r.k.all())); got != 53 {
		t.Fatalf("%d events are left, want 53", got)
	}
	r.put("s", body{ID: "e0", Key: "k0"})
	if err := r.p.regressed(Regression{Topic: "webhooks.s", Partition: part, Acked: acked, End: end}); err != nil {
		t.Fatal(err)
	}
	r.crash()
	r.start()
	r.until("published again", func() bool { return len(ids(r.k.all())) == 60 })
	r.drained()
	time.Sleep(2 * regressEvery)
	if n := len(r.k.all()); n != 60 {
		t.Errorf("%d records, want 60", n)
	}
	r.a.State().Range(regressPrefix, func(key string, _ []byte) bool {
		t.Errorf("%s is still there", key)
		return true
	})
	r.stop()
}

// TestMetrics: the counters that dashboards read.
func TestMetrics(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	r.put("s", body{ID: "a", Key: "k"})
	r.put("s", body{ID: "a", Key: "k"})
	r.put("s", body{ID: "a", Key: "k", Note: "x"})
	r.put("s", body{ID: "b", Note: "bad"})
	r.put("late", body{ID: "c", Dated: true})
	r.drained()
	r.until("booked", func() bool {
		return r.metric("penstock_dead_letters_total") == 1 && r.metric("penstock_published_total") == 3
	})
	f := func(name string, want float64) {
		t.Helper()
		if got := r.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	f("penstock_duplicates_total", 1)
	f("penstock_dedupe_conflicts_total", 1)
	f("penstock_events_total", 3)
	f("penstock_provider_lag_seconds", 1)
	f("penstock_source_provider_lag_seconds", 1)
	f("penstock_unpublished_deliveries", 0)
	f("penstock_oldest_unpublished_seconds", 0)
	f("penstock_publish_lag_seconds", 3)
	r.stop()
}

// TestCrashInRecovery: a life that ends before it has written what it found in Kafka
// leaves that to the next.
func TestCrashInRecovery(t *testing.T) {
	r := newRig(t, nil)
	r.fail = func([]archive.Outcome) error { return errors.New("no sync today") }
	r.put("s", body{ID: "e0", Key: "k"})
	r.start()
	r.until("the event in kafka", func() bool { return len(r.k.all()) == 1 })
	r.crash()
	r.start() // its recovery cannot write either
	r.until("end of that life", func() bool { return r.p.Stats().State == "stopped" })
	r.crash()
	r.fail = nil
	r.start()
	r.drained()
	if n := len(r.k.all()); n != 1 {
		t.Errorf("the event is in kafka %d times", n)
	}
	r.stop()
}
