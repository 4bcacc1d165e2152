package forward

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"penstock/archive"
)

func TestPublishOnce(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	for i := range 300 {
		r.put("s", body{ID: "e" + strconv.Itoa(i%200), Key: "k" + strconv.Itoa(i%200%7)})
	}
	r.drained()
	got := ids(r.k.records("webhooks.s"))
	if len(got) != 200 {
		t.Fatalf("%d events in kafka, want 200", len(got))
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s is in kafka %d times", id, n)
		}
	}
	r.stop()
}

func TestOutcomesSayWhatBecame(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	first := r.put("s", body{ID: "a", Key: "k"})
	twin := r.put("s", body{ID: "a", Key: "k"})
	bad := r.put("s", body{ID: "b", Note: "bad"})
	panics := r.put("s", body{ID: "c", Note: "panic"})
	none := r.put("s", body{ID: "d", Note: "none"})
	three := r.put("s", body{ID: "m", Key: "k", Items: 3})
	conflict := r.put("s", body{ID: "a", Key: "k", Note: "other"})
	again := r.put("s", body{ID: "a", Key: "k", Note: "other"})
	r.drained()
	f := func(d *archive.Delivery, items int, kind archive.OutcomeKind, reason, of string) {
		t.Helper()
		os := r.outcomes(d)
		if len(os) != items {
			t.Fatalf("%d outcomes, want %d: %+v", len(os), items, os)
		}
		for _, o := range os {
			if kind == archive.Published && (o.Deduplicated.Before(d.ReceivedAt) || o.Deduplicated.After(o.At)) {
				t.Errorf("deduplicated at %v, received at %v, published at %v", o.Deduplicated, d.ReceivedAt, o.At)
			}
			if o.Kind != kind || o.Reason != reason || o.Of != of || o.Items != items {
				t.Errorf("outcome %v %q of %q items %d, want %v %q of %q items %d", o.Kind, o.Reason, o.Of, o.Items, kind, reason, of, items)
			}
		}
	}
	f(first, 1, archive.Published, "", "")
	f(twin, 1, archive.Duplicate, "", first.ID)
	f(bad, 1, archive.Dead, "unreadable", "")
	f(panics, 1, archive.Dead, "unreadable", "")
	f(none, 1, archive.Filtered, "no_event", "")
	f(three, 3, archive.Published, "", "")
	f(conflict, 1, archive.Published, "", "")
	f(again, 1, archive.Duplicate, "", conflict.ID)
	var marked int
	for _, rec := range r.k.records("webhooks.s") {
		if rec.headers["ce_conflict"] == first.ID && rec.headers["ce_id"] == "a" {
			marked++
		}
	}
	if marked != 1 {
		t.Errorf("%d events are marked as conflicts, want 1", marked)
	}
	dead := r.k.records("dead")
	if len(dead) != 2 || dead[0].headers["ce_deadreason"] != "unreadable" || !json.Valid([]byte(dead[0].value)) {
		t.Errorf("dead letters: %+v", dead)
	}
	r.stop()
}

// TestCrash kills the pump at random moments, again and again, and reads Kafka at the
// end: everything is there, once, and each key in its order.
func TestCrash(t *testing.T) {
	r := newRig(t, nil)
	r.slow = 2 * time.Millisecond
	n := 0
	for life := range 25 {
		r.start()
		for range rand.N(120) {
			if n > 0 && rand.N(10) < 3 {
				m := rand.N(n)
				r.put("s", body{ID: "e" + strconv.Itoa(m), Key: "k" + strconv.Itoa(m%5)})
				continue
			}
			r.put("s", body{ID: "e" + strconv.Itoa(n), Key: "k" + strconv.Itoa(n%5)})
			n++
		}
		time.Sleep(rand.N(25 * time.Millisecond))
		switch life % 5 {
		case 3:
			r.stop()
			r.reopen()
		case 4:
			if err := r.p.Pause("s"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(100 * time.Millisecond))
			r.crash()
			r.start()
			time.Sleep(rand.N(20 * time.Millisecond))
			if err := r.p.Resume("s"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(10 * time.Millisecond))
			r.crash()
		default:
			r.crash()
		}
	}
	r.start()
	r.drained()
	r.stop()
	got := ids(r.k.records("webhooks.s"))
	lost, twice := 0, 0
	for i := range n {
		switch c := got["e"+strconv.Itoa(i)]; {
		case c == 0:
			lost++
		case c > 1:
			twice += c - 1
			r.explain("e" + strconv.Itoa(i))
		}
	}
	if lost > 0 || twice > 0 {
		t.Errorf("of %d events %d are lost and %d repeated", n, lost, twice)
	}
	checkOrder(t, r.k.records("webhooks.s"))
}

// checkOrder wants rising numbers in the ids of each key.
func checkOrder(t *testing.T, rs []fakeRecord) {
	t.Helper()
	last := map[string]int{}
	wrong := 0
	for _, rec := range rs {
		n, err := strconv.Atoi(rec.headers["ce_id"][1:])
		if err != nil {
			t.Fatal(err)
		}
		if prev, ok := last[rec.key]; ok && n < prev {
			wrong++
		}
		last[rec.key] = n
	}
	if wrong > 0 {
		t.Errorf("%d events stand before an earlier one of their key", wrong)
	}
}

func TestCursorWaitsForOutcomes(t *testing.T) {
	r := newRig(t, nil)
	r.fail = func(os []archive.Outcome) error {
		for _, o := range os {
			if o.Fields.CEID == "e5" {
				return errors.New("no sync today")
			}
		}
		return nil
	}
	r.start()
	r.k.set(func() { r.k.blocked["webhooks.slow"] = "topic_missing" })
	stuck := r.put("s", body{ID: "e5", Key: "k5"})
	r.until("the event in kafka", func() bool { return len(r.k.all()) == 1 })
	for i := range 50 {
		r.put("s", body{ID: "f" + strconv.Itoa(i), Key: "k"})
	}
	time.Sleep(2 * cursorEvery)
	cur, _, err := loadCursor(r.a.State(), "kafka:fake")
	if err != nil {
		t.Fatal(err)
	}
	if cur.Seq >= stuck.Seq {
		t.Errorf("cursor %d has passed delivery %d, whose outcome is not synced", cur.Seq, stuck.Seq)
	}
	if n := r.p.Unpublished(); n == 0 {
		t.Error("nothing counts as unpublished while outcomes cannot be written")
	}
	r.fail = nil
	r.crash()
	r.start()
	r.drained()
	if got := ids(r.k.all()); got["e5"] != 1 {
		t.Errorf("e5 is in kafka %d times", got["e5"])
	}
	r.stop()
}

func TestKafkaAway(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxBytes = 64 << 10; o.MaxEvents = 200 })
	r.k.away = true
	for i := range 1000 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%5)})
	}
	r.start()
	r.until("all counted", func() bool { return r.p.Unpublished() == 1000 })
	if r.p.OldestUnpublished() <= 0 {
		t.Error("the oldest unpublished delivery has no age")
	}
	r.k.set(func() { r.k.away = false })
	r.until("some in kafka", func() bool { return len(r.k.all()) > 20 })
	r.k.set(func() { r.k.away = true })
	time.Sleep(150 * time.Millisecond)
	for i := range 1000 {
		r.put("s", body{ID: "e" + strconv.Itoa(i+1000), Key: "k" + strconv.Itoa(i%5)})
	}
	time.Sleep(150 * time.Millisecond)
	works := make(chan int)
	r.p.control <- func(c *core) { go func(n int) { works <- n }(c.works) }
	if n := <-works; n > 200+readRecords {
		t.Errorf("%d events are in memory, bound 200 and a batch", n)
	}
	if h := r.p.Stats().Held; h > 0 {
		t.Errorf("%d events are held although all of kafka is away", h)
	}
	r.k.set(func() { r.k.away = false })
	r.drained()
	got := ids(r.k.records("webhooks.s"))
	if len(got) != 2000 || len(r.k.all()) != 2000 {
		t.Errorf("%d events, %d records, want 2000", len(got), len(r.k.all()))
	}
	checkOrder(t, r.k.records("webhooks.s"))
	r.stop()
}

// TestBlockedTopic: it blocks only itself, its events are held, the cursor goes on, and
// after a crash they come out in order when it opens.
func TestBlockedTopic(t *testing.T) {
	r := newRig(t, nil)
	r.k.blocked["webhooks.a"] = "topic_missing"
	r.start()
	n := 0
	more := func(c int) (last *archive.Delivery) {
		for range c {
			last = r.put("a", body{ID: "e" + strconv.Itoa(n), Key: "k" + strconv.Itoa(n%4)})
			r.put("b", body{ID: "e" + strconv.Itoa(n), Key: "k"})
			n++
		}
		return last
	}
	held := more(100)
	r.until("the other topic flows", func() bool { return len(r.k.records("webhooks.b")) == 100 })
	r.until("events held", func() bool { return r.p.Stats().Held == 100 })
	more(50)
	r.until("later ones held too", func() bool { return r.p.Stats().Held == 150 })
	if os := r.outcomes(held); len(os) != 1 || os[0].Kind != archive.Held || os[0].Reason != "topic_blocked" || os[0].Topic != "webhooks.a" {
		t.Errorf("outcomes of a held event: %+v", os)
	}
	r.until("cursor passes", func() bool {
		cur, _, _ := loadCursor(r.a.State(), "kafka:fake")
		return cur.Seq > held.Seq
	})
	r.until("the other topic's outcomes are synced", func() bool { return r.p.Unpublished() == 150 })
	r.crash()
	r.start()
	r.until("held again", func() bool { return r.p.Stats().Held == 150 })
	more(20)
	r.until("the others flow", func() bool { return len(r.k.records("webhooks.b")) == 170 })
	r.k.set(func() { delete(r.k.blocked, "webhooks.a") })
	more(20)
	r.drained()
	got := ids(r.k.records("webhooks.a"))
	if len(got) != n || len(r.k.records("webhooks.a")) != n {
		t.Errorf("%d events in %d records, want %d", len(got), len(r.k.records("webhooks.a")), n)
	}
	checkOrder(t, r.k.records("webhooks.a"))
	r.stop()
}

// TestBlockedPartition: events of the other partitions pass by.
func TestBlockedPartition(t *testing.T) {
	r := newRig(t, nil)
	stuck := fmt.Sprintf("webhooks.a/%d", r.k.partition([]byte("k0")))
	r.k.blocked[stuck] = "partition_stuck"
	r.start()
	for i := range 200 {
		r.put("a", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%8)})
	}
	others := 0
	for i := range 200 {
		if r.k.partition([]byte("k"+strconv.Itoa(i%8))) != r.k.partition([]byte("k0")) {
			others++
		}
	}
	r.until("others flow", func() bool { return len(r.k.all()) == others })
	r.until("held", func() bool { return r.p.Stats().Held == 200-others })
	r.k.set(func() { delete(r.k.blocked, stuck) })
	r.drained()
	if len(r.k.all()) != 200 {
		t.Errorf("%d records, want 200", len(r.k.all()))
	}
	checkOrder(t, r.k.all())
	r.stop()
}

func TestPauseResume(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	r.put("a", body{ID: "e0", Key: "k"})
	r.drained()
	if err := r.p.Pause("a"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	var last *archive.Delivery
	for i := 1; i < 100; i++ {
		last = r.put("a", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%3), Items: 1 + i%2})
		r.put("b", body{ID: "e" + strconv.Itoa(i), Key: "k"})
	}
	r.until("b flows", func() bool { return len(r.k.records("webhooks.b")) == 99 })
	r.until("held", func() bool { return r.p.Stats().Held == 149 })
	if got := len(r.k.records("webhooks.a")); got != 1 {
		t.Errorf("%d events of a paused source in kafka, want 1", got)
	}
	if os := r.outcomes(last); os[0].Kind != archive.Held || os[0].Reason != "paused" {
		t.Errorf("outcome of a paused source's event: %+v", os[0])
	}
	r.crash()
	r.start()
	r.until("still held", func() bool { return r.p.Stats().Held == 149 })
	if got := len(r.k.records("webhooks.a")); got != 1 {
		t.Errorf("%d events of a paused source in kafka after a crash, want 1", got)
	}
	if err := r.p.Resume("a"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	if got := len(r.k.records("webhooks.a")); got != 150 {
		t.Errorf("%d events of a resumed source in kafka, want 150", got)
	}
	r.stop()
}
