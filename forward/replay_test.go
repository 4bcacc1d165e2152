package forward

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"penstock/archive"
)

// replayed counts by id what is in the topic with the job's mark.
func (r *rig) replayed(job string) map[string]int {
	n := map[string]int{}
	for _, rec := range r.k.records("webhooks.s") {
		if rec.headers["ce_replay"] == job {
			n[rec.headers["ce_id"]]++
		}
	}
	return n
}

// TestReplayKilled: a job that is killed and stopped on its way publishes each event once,
// and counts it once.
func TestReplayKilled(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReplayRate = 1e6 })
	r.start()
	const n = 1500
	for i := range n {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k" + strconv.Itoa(i%7)})
	}
	r.drained()
	r.slow = time.Millisecond
	r.stop()
	r.reopen()
	r.start()
	var j Job
	r.until("the job starts", func() bool {
		var err error
		j, err = r.p.Replay(t.Context(), ReplayRequest{Filter: &archive.Filter{Source: "s"}})
		return err == nil
	})
	for life := 1; life <= 4; life++ {
		r.until("some more are replayed", func() bool {
			s, err := r.p.ReplayJob(j.ID)
			return err == nil && s.State == JobDone || len(r.replayed(j.ID)) >= life*n/6
		})
		if life == 2 { // in an orderly way too
			r.stop()
			r.reopen()
		} else {
			r.crash()
		}
		r.start()
	}
	r.until("the job is done", func() bool { s, err := r.p.ReplayJob(j.ID); return err == nil && s.State == JobDone })
	for id, times := range r.replayed(j.ID) {
		if times > 1 {
			t.Errorf("%s is replayed %d times", id, times)
		}
	}
	if j, _ = r.p.ReplayJob(j.ID); len(r.replayed(j.ID)) != n || j.Events != n || j.Found != n || j.Failed+j.Skipped != 0 {
		t.Errorf("%d of %d are replayed; %+v", len(r.replayed(j.ID)), n, j)
	}
	r.stop()
}

// TestReplayLimit: a filter's limit is how many deliveries are taken, the newest.
func TestReplayLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReplayRate = 1e6 })
	r.start()
	for i := range 20 {
		r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k"})
	}
	r.drained()
	j := r.redriven(ReplayRequest{Filter: &archive.Filter{Source: "s", Limit: 3}})
	if got := r.replayed(j.ID); len(got) != 3 || got["e17"]+got["e18"]+got["e19"] != 3 {
		t.Errorf("replayed %v, want the last three", got)
	}
	r.stop()
}

// TestReplayQueue: so many filters are replayed at once and no more, those that come later
// wait for their turn, and what is asked for by id waits for none of them.
func TestReplayQueue(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ReplayRate = 1e6 })
	r.start()
	var d *archive.Delivery
	for i := range 20 {
		d = r.put("s", body{ID: "e" + strconv.Itoa(i), Key: "k"})
	}
	r.drained()
	var jobs []Job
	for range maxFilterJobs + 2 {
		j, err := r.p.Replay(t.Context(), ReplayRequest{Filter: &archive.Filter{Source: "s"}, Rate: 0.01})
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	states := func() map[string]int {
		n := map[string]int{}
		for _, j := range r.p.Replays() {
			n[j.State]++
		}
		return n
	}
	wait := func(running, queued int) {
		t.Helper()
		r.until(fmt.Sprintf("%d run, %d wait", running, queued), func() bool {
			n := states()
			return n[JobRunning] == running && n[JobQueued] == queued
		})
	}
	wait(maxFilterJobs, 2)
	if j := r.redriven(ReplayRequest{IDs: []string{d.ID}}); j.Events != 1 {
		t.Errorf("by id, beside them: %+v", j)
	}
	for i := len(jobs) - 1; i >= 0; i -= 2 { // those that wait and those that run
		if _, err := r.p.CancelReplay(jobs[i].ID); err != nil {
			t.Fatal(err)
		}
	}
	wait(len(jobs)/2, 0)
	r.stop()
	r.start()
	wait(len(jobs)/2, 0)
	r.stop()
}

func TestSeqSet(t *testing.T) {
	var s seqSet
	want := []uint64{0, 1, 63, 64, 4095, 4096, 1 << 30, 1<<47 | 5}
	for _, seq := range slices.Backward(want) {
		s.add(seq)
		s.add(seq)
	}
	if got := slices.Collect(s.ascending()); !slices.Equal(got, want) || s.n != len(want) {
		t.Errorf("%d: %v, want %v", s.n, got, want)
	}
	for range s.ascending() {
		break
	}
}
