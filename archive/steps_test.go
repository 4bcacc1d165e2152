package archive

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func publishedAt(d *Delivery, at time.Time) Outcome {
	return Outcome{Delivery: d.Seq, Items: 1, Kind: Published, At: at, Source: d.Source, Sink: "kafka:c", Topic: "t", Partition: 1, Offset: 2}
}

// TestTimes: the times of a delivery's way are known from memory until it has an outcome, and
// after a restart from that, encrypted or not.
func TestTimes(t *testing.T) {
	for name, o := range map[string]Options{"in the clear": {}, "sealed": sealedOptions()} {
		t.Run(name, func(t *testing.T) {
			o.NoIndex = false
			dir := t.TempDir()
			a := mustOpen(t, dir, o)
			d, lost := testDelivery(1), testDelivery(2)
			mustAppend(t, a, d, lost)
			if s := a.Times(d.ID, nil); s != (Steps{}) {
				t.Errorf("nobody has told, and it knows %+v", s)
			}
			for _, d := range []*Delivery{d, lost} {
				a.NoteStored(d.Seq, 120*time.Microsecond, 2500*time.Microsecond)
			}
			if s, want := a.Times(d.ID, nil), (Steps{Verified: 120 * time.Microsecond, Archived: 2500 * time.Microsecond}); s != want {
				t.Errorf("before the answer: %+v, want %+v", s, want)
			}
			a.NoteAcked(d.Seq, 2700*time.Microsecond)
			a.NoteAcked(d.Seq+stepSlots, time.Hour) // whose slot is another's
			want := Steps{Verified: 120 * time.Microsecond, Archived: 2500 * time.Microsecond, Acked: 2700 * time.Microsecond}
			if s := a.Times(d.ID, nil); s != want {
				t.Errorf("after the answer: %+v, want %+v", s, want)
			}
			at := time.Unix(1_790_000_000, 500_000_000).UTC()
			first, second, replay := publishedAt(d, at), publishedAt(d, at), publishedAt(d, at)
			first.Deduplicated = at.Add(-40 * time.Millisecond)
			second.Item = 1
			replay.Replay = "job"
			if err := a.AppendOutcomes([]Outcome{first, second, replay}); err != nil {
				t.Fatal(err)
			}
			for _, rec := range readAll(t, a.NewReader(0)) {
				if rec.Outcome != nil && (rec.Outcome.Steps != Steps{}) != (rec.Outcome.Item == 0 && rec.Outcome.Replay == "") {
					t.Errorf("outcome %d of %q has %+v", rec.Outcome.Item, rec.Outcome.Replay, rec.Outcome.Steps)
				}
			}
			_ = a.Close()
			a = mustOpen(t, dir, o)
			os := waitOutcomes(t, a, d.ID, 3)
			if s := a.Times(d.ID, os); s != want {
				t.Errorf("after a restart: %+v, want %+v", s, want)
			}
			if !os[0].Deduplicated.Equal(first.Deduplicated) || !os[1].Deduplicated.IsZero() {
				t.Errorf("deduplicated at %v and %v, want %v and never", os[0].Deduplicated, os[1].Deduplicated, first.Deduplicated)
			}
			if s := a.Times(lost.ID, nil); s != (Steps{}) {
				t.Errorf("without an outcome and after a restart it knows %+v", s)
			}
		})
	}
}

func waitOutcomes(t *testing.T, a *Archive, id string, n int) []Outcome {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		os, err := a.OutcomesOf(id)
		if err != nil {
			t.Fatal(err)
		}
		if len(os) == n {
			return os
		}
		if time.Now().After(until) {
			t.Fatalf("the index has %d outcomes of %s, want %d", len(os), id, n)
		}
	}
}

// TestTimesAreBounded: a slot goes to the latest delivery that has it, and is never a mixture
// of two.
func TestTimesAreBounded(t *testing.T) {
	a := &Archive{steps: newStepRing()}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for n := range 2000 {
				seq := uint64(1 + w + 4*n) // each its own, as in life
				a.NoteStored(seq, time.Duration(seq)*time.Microsecond, time.Duration(2*seq)*time.Microsecond)
				a.NoteAcked(seq, time.Duration(3*seq)*time.Microsecond)
				s := a.steps.get(seq)
				if us := time.Duration(seq) * time.Microsecond; s != (Steps{us, 2 * us, 3 * us}) {
					t.Errorf("seq=%d has %+v", seq, s)
					return
				}
			}
		})
	}
	writers.Wait()
	a.NoteStored(7+stepSlots, time.Millisecond, time.Millisecond)
	if s := a.steps.get(7); s != (Steps{}) {
		t.Errorf("what was pushed out still has %+v", s)
	}
	a.NoteAcked(7, time.Hour)
	if s := a.steps.get(7 + stepSlots); s.Acked != 0 {
		t.Errorf("another one's answer was noted: %+v", s)
	}
	a.NoteAcked(7+stepSlots, 1000*time.Hour) // beyond what a slot holds
	if s := a.steps.get(7 + stepSlots); s.Verified != time.Millisecond || s.Acked < time.Hour {
		t.Errorf("a long wait: %+v", s)
	}
}

// TestNotingAllocatesNothing, as it stands on the way to an answer.
func TestNotingAllocatesNothing(t *testing.T) {
	a, seq := &Archive{steps: newStepRing()}, uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		a.NoteStored(seq, time.Millisecond, time.Millisecond)
		a.NoteAcked(seq, time.Millisecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestGoldenTimes holds the format of an outcome that has times: the bytes in testdata must be
// read for ever. Those without are in v1.segment.hex.
func TestGoldenTimes(t *testing.T) {
	golden := filepath.Join("testdata", "v1.times.hex")
	at := time.Unix(3, 4000).UTC()
	o := Outcome{Delivery: 102, Items: 1, Kind: Published, At: at, Sink: "kafka:c", Topic: "webhooks.stripe", Partition: 3, Offset: 77,
		State: Identity{3}, Fields: Fields{EventID: "evt_1"}, Deduplicated: at.Add(-20 * time.Millisecond),
		Steps: Steps{Verified: 130 * time.Microsecond, Archived: 2400 * time.Microsecond, Acked: 2600 * time.Microsecond}}
	b := putOutcome(nil, &o)
	text := []byte(hex.EncodeToString(b) + "\n")
	if *update {
		if err := os.WriteFile(golden, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(text, want) {
		t.Fatalf("the format has changed (%v): %s, want %s", err, text, want)
	}
	old := o
	old.Steps, old.Deduplicated = Steps{}, time.Time{}
	if n := len(b) - len(putOutcome(nil, &old)); n > 10 {
		t.Errorf("the times take %d bytes", n)
	}
	b, _ = hex.DecodeString(strings.TrimSpace(string(want)))
	dec := payloadReader{b: b}
	got, err := dec.outcome(&frame{})
	if err != nil || dec.bad || len(dec.b) > 0 || *got != o {
		t.Errorf("read: %v, bad %t, %d bytes left\n%+v\n%+v", err, dec.bad, len(dec.b), *got, o)
	}
	for n := range 10 { // cut anywhere within the times it is bad, not wrong
		if n == 0 {
			continue
		}
		dec := payloadReader{b: b[:len(b)-n]}
		if _, err := dec.outcome(&frame{}); err == nil && !dec.bad {
			t.Errorf("without its last %d bytes it is read", n)
		}
	}
}

// BenchmarkNoteSteps is what the way to an answer pays for the times.
func BenchmarkNoteSteps(b *testing.B) {
	a, seq, born := &Archive{steps: newStepRing()}, uint64(0), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		seq += 2
		verified := time.Since(born)
		a.NoteStored(seq, verified, time.Since(born))
		a.NoteAcked(seq, verified)
	}
}

// BenchmarkOutcomeTimes is what the pump pays: looked up and encoded, against without.
func BenchmarkOutcomeTimes(b *testing.B) {
	a := &Archive{steps: newStepRing()}
	for seq := range uint64(stepSlots) {
		a.NoteStored(seq+1, 130*time.Microsecond, 2400*time.Microsecond)
		a.NoteAcked(seq+1, 2600*time.Microsecond)
	}
	at := time.Now()
	for name, with := range map[string]bool{"with": true, "without": false} {
		b.Run(name, func(b *testing.B) {
			var buf []byte
			seq := uint64(0)
			for b.Loop() {
				seq++
				os := [1]Outcome{{Delivery: seq % stepSlots, Items: 1, Kind: Published, At: at, Sink: "kafka:c", Topic: "webhooks.stripe"}}
				if with {
					os[0].Deduplicated = at
					a.addSteps(os[:])
				}
				buf = putOutcome(buf[:0], &os[0])
			}
		})
	}
}
