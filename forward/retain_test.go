package forward

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// TestRetentionPassesWhatWaits: while a source is paused the archive lets go of all that is
// published around its deliveries; what waits, and a release that waits with it, is there
// in each life, and is published once when the source goes on.
func TestRetentionPassesWhatWaits(t *testing.T) {
	r := newRig(t, nil)
	r.keep = archive.Options{SegmentBytes: 16 << 10, Retention: archive.Retention{Size: 128 << 10}, Quarantine: archive.Quarantine{Size: 128 << 10}}
	r.reopen()
	start := func() {
		r.start()
		r.a.SetKeep(r.p.Keep)
		r.a.SetWaiting(r.p.Waiting)
	}
	start()
	if err := r.p.Pause("idle"); err != nil {
		t.Fatal(err)
	}
	refused := &archive.Delivery{ReceivedAt: time.Now(), Source: "idle", Provider: "prov", Verdict: archive.Rejected, Reason: "signature_mismatch",
		Method: "POST", Body: []byte(`{"id":"refused","key":"k"}`), Epoch: r.epochOf("idle")}
	if kept, err := r.a.Reject(refused); err != nil || !kept {
		t.Fatal(kept, err)
	}
	if err := r.p.Release(refused.ID, "ops", "hmac:new", false); err != nil {
		t.Fatal(err)
	}
	var waiting []*archive.Delivery
	note := strings.Repeat("n", 1000)
	events := 0
	round := func() {
		for i := range 60 {
			if i%10 == 0 && len(waiting) < 40 {
				waiting = append(waiting, r.put("idle", body{ID: fmt.Sprintf("w%d", len(waiting)), Key: "k", Items: 1 + i%20/10}))
			}
			r.put("busy", body{ID: fmt.Sprintf("b%d", events), Key: "k", Note: note})
			events++
		}
		for i := range 10 {
			d := &archive.Delivery{ReceivedAt: time.Now(), Source: fmt.Sprintf("junk%d-%d", events, i), Verdict: archive.Rejected, Reason: "signature_missing",
				Method: "POST", Body: []byte(strings.Repeat("j", 2000))}
			if _, err := r.a.Reject(d); err != nil {
				t.Fatal(err)
			}
		}
		want := len(waiting)
		r.until("all but the paused is published", func() bool {
			return r.p.led.Load().position() >= r.last && r.p.Unpublished() == want
		})
	}
	thinned := func() {
		t.Helper()
		// The archive looks when a segment is begun.
		for n := 0; ; n++ {
			round()
			if s := r.a.Stats(); len(waiting) == 40 && s.Segments < 30 && s.QuarantineFirst > 0 {
				return
			}
			if n == 60 {
				t.Fatalf("%d segments stay: %+v", r.a.Stats().Segments, r.a.Stats())
			}
		}
	}
	there := func() {
		t.Helper()
		for _, d := range append(waiting, refused) {
			got, err := r.a.Get(d.ID)
			if err != nil || string(got.Body) != string(d.Body) {
				t.Fatalf("what waits is not there: %s: %v", d.Body, err)
			}
		}
	}
	thinned()
	there()
	r.crash()
	start()
	thinned()
	there()
	r.crash()
	there()
	start()
	if err := r.p.Resume("idle"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	r.until("the release is through", func() bool { return ids(r.k.all())["refused"] > 0 })
	got := ids(r.k.all())
	for i, d := range waiting {
		for item := range 1 + i%2 {
			id := fmt.Sprintf("w%d", i)
			if item > 0 {
				id += "#1"
			}
			if got[id] != 1 {
				t.Errorf("%s (seq=%d) is in kafka %d times", id, d.Seq, got[id])
			}
		}
	}
	if got["refused"] != 1 {
		t.Errorf("the released one is in kafka %d times", got["refused"])
	}
	for n := range events {
		if id := fmt.Sprintf("b%d", n); got[id] != 1 {
			t.Errorf("%s is in kafka %d times", id, got[id])
		}
	}
	r.stop()
}
