package forward

import (
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// redriven starts a job for the delivery and waits for its end.
func (r *rig) redriven(req ReplayRequest) Job {
	r.t.Helper()
	var j Job
	r.until("the job can start", func() bool {
		var err error
		j, err = r.p.Replay(r.t.Context(), req)
		return err == nil
	})
	r.until("the job is done", func() bool {
		j, _ = r.p.ReplayJob(j.ID)
		return j.State == JobDone
	})
	return j
}

// TestRedrive: a dead letter is driven again once its cause is cured, and is from then on
// known as published: a retry of the provider is a duplicate, and a replay is a replay.
func TestRedrive(t *testing.T) {
	url := ""
	r := newRig(t, func(o *Options) { o.AdminURL, o.Node, o.KeepFor, o.PinBodies = url, "n1", time.Hour, true })
	r.k.max = 2000
	big := body{ID: "big", Key: "k", Note: strings.Repeat("x", 5000)}
	r.start()
	d := r.put("s", big)
	small := r.put("s", body{ID: "small", Key: "k"})
	r.drained()
	r.wantSays(d, "0/1 dead dead (too_large)")
	if j := r.redriven(ReplayRequest{IDs: []string{d.ID}}); j.Failed != 1 || j.Events != 0 {
		t.Errorf("the cause is there still: %+v", j)
	}
	r.stop()
	r.reopen()
	url = "https://admin.example"
	r.start()
	all := archive.Filter{Source: "s"}
	if j := r.redriven(ReplayRequest{Filter: &all}); j.Events != 1 || j.Skipped != 1 {
		t.Errorf("a filter that does not ask for dead letters: %+v", j)
	}
	dead := archive.Filter{Outcome: "dead"}
	if j := r.redriven(ReplayRequest{Filter: &dead}); j.Events != 1 || j.Failed != 0 {
		t.Errorf("dead letters: %+v", j)
	}
	var ref fakeRecord
	for _, rec := range r.k.records("webhooks.s") {
		if rec.headers["ce_id"] == "big" {
			ref = rec
		}
	}
	if ref.headers["ce_replay"] == "" {
		t.Error("it is not marked as published on purpose")
	}
	for _, want := range []string{url + "/api/v1/deliveries/" + d.ID + "/body", `"node":"n1"`, `"size":5`, `"sha256":"` + ref.headers["ce_bodysha256"], `"expires_at":"20`} {
		if !strings.Contains(ref.value, want) {
			t.Errorf("no %s in %s", want, ref.value)
		}
	}
	os := r.outcomes(d)
	if last := os[len(os)-1]; last.Kind != archive.Published || last.Replay != "" || last.Identity == (archive.Identity{}) {
		t.Errorf("it does not count as published: %+v", last)
	}
	twin := r.put("s", big)
	r.drained()
	r.wantSays(twin, "0/1 duplicate  ()")
	r.until("the row says published", func() bool {
		row, err := r.a.Row(d.ID)
		return err == nil && row.Outcome == "published"
	})
	if j := r.redriven(ReplayRequest{IDs: []string{d.ID, small.ID}}); j.Events != 2 || j.Failed != 0 {
		t.Errorf("a replay: %+v; %v; %v", j, r.says(d), r.says(small))
	}
	r.stop()
}

// TestRedriveKilled: a kill while dead letters are driven again loses none of them, and
// each counts as published once it is in Kafka.
func TestRedriveKilled(t *testing.T) {
	url := ""
	r := newRig(t, func(o *Options) { o.AdminURL, o.Node = url, "n1" })
	r.k.max, r.slow = 2000, 2*time.Millisecond
	r.start()
	var ds []*archive.Delivery
	var req ReplayRequest
	for i := range 20 {
		d := r.put("s", body{ID: "b" + string(rune('a'+i)), Key: "k", Note: strings.Repeat("x", 5000)})
		ds = append(ds, d)
		req.IDs = append(req.IDs, d.ID)
	}
	r.drained()
	r.stop()
	r.reopen()
	url = "https://admin.example"
	r.start()
	var j Job
	r.until("the job starts", func() bool {
		var err error
		j, err = r.p.Replay(t.Context(), req)
		return err == nil
	})
	r.until("some are in kafka", func() bool { return len(r.k.records("webhooks.s")) > 3 })
	r.crash()
	r.start()
	r.until("the job is done", func() bool { s, _ := r.p.ReplayJob(j.ID); return s.State == JobDone })
	r.drained()
	got := ids(r.k.records("webhooks.s"))
	for _, d := range ds {
		os := r.outcomes(d)
		n := 0
		for i := range os {
			if isLivePublished(os[i]) {
				n++
			}
		}
		if n == 0 {
			t.Errorf("%s does not count as published: %+v", d.ID, os)
		}
	}
	if len(got) != len(ds) {
		t.Errorf("%d events in kafka, want %d", len(got), len(ds))
	}
	for id, n := range got {
		if n > 2 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	r.stop()
}

// TestPinned: what an event points to can be read after retention has removed its segment.
func TestPinned(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.AdminURL, o.Node, o.KeepFor, o.PinBodies = "https://admin.example", "n1", time.Hour, true
	})
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() {
		var err error
		if r.a, err = archive.Open(r.dir, archive.Options{SegmentBytes: 64 << 10, ReservePercent: -1, Retention: archive.Retention{Size: 256 << 10}}); err != nil {
			t.Fatal(err)
		}
	}
	open()
	r.k.max = 2000
	r.start()
	r.a.SetKeep(func() uint64 { return r.a.Synced() })
	d := r.put("s", body{ID: "big", Key: "k", Note: strings.Repeat("x", 5000)})
	r.drained()
	for first := r.a.First(); r.a.First() == first; {
		for range 50 {
			r.put("s", body{ID: "x", Key: "k", Note: strings.Repeat("y", 1500)})
		}
		r.drained()
	}
	if _, err := r.a.GetSeq(d.Seq); err == nil {
		t.Fatal("its segment is there still")
	}
	r.stop()
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	open()
	got, err := r.a.Get(d.ID)
	if err != nil || string(got.Body) != string(d.Body) {
		t.Errorf("after retention and a restart: %v", err)
	}
	if row, err := r.a.Row(d.ID); err != nil || row.Source != "s" {
		t.Errorf("row: %+v %v", row, err)
	}
}
