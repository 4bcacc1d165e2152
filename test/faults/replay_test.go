package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bulk is what is replayed: one source beside those that the load sends to, whose events
// go to the topic of one of them, so that both meet in every partition.
func bulk() sender {
	const key = "faults-bulk-webhooks-key-0123456"
	return sender{"bulk", "{name: bulk, provider: standard_webhooks, topic: %PREFIX%.standard, credentials: {secrets: [whsec_" + b64([]byte(key)) + "]}}", func(n, _ int) delivery {
		id := token("bulk", n, 0)
		body := fmt.Sprintf(`{"type":"invoice.paid","timestamp":"2026-01-01T00:00:01Z","data":{"id":"bulk_%d","note":"%s","lines":"%s"}}`, n/3, id, strings.Repeat("a line of an invoice. ", 10))
		return signed("bulk", n, 0, body, body, key, func(key, ts string) [][2]string {
			return [][2]string{{"webhook-id", id}, {"webhook-timestamp", ts}, {"webhook-signature", "v1," + standardMAC(key, id, ts, body)}}
		})
	}}
}

// TestReplayBeside: PENSTOCK_REPLAY deliveries that were published are published again by a
// job, at PENSTOCK_REPLAY_RATE events a second at most, beside a load of PENSTOCK_FAULTS_RATE,
// and the gateway is restarted in the middle. Every event of the load must be in Kafka once,
// each that is replayed once more with the job's mark. How long the load's events took from
// receipt to Kafka's ack is printed, before the replay and during it.
func TestReplayBeside(t *testing.T) {
	n := int(env("PENSTOCK_REPLAY", 0))
	if n == 0 {
		t.Skip("a measurement: run `make replay-beside N=1000000 RATE=200`")
	}
	rate := int(env("PENSTOCK_FAULTS_RATE", 200))
	most := int(env("PENSTOCK_REPLAY_RATE", 1_000_000))
	calm := time.Duration(env("PENSTOCK_REPLAY_CALM", 20)) * time.Second
	r := newRun(t, env("PENSTOCK_SEED", 1), time.Duration(n/100/rate)*time.Second+10*time.Minute, rate, bulk())
	began := time.Now()
	r.fill(n)
	t.Logf("%d deliveries published after %.1f s", n, time.Since(began).Seconds())

	end := r.sending(rate)
	time.Sleep(calm / 4) // connections, caches
	phases := []phase{{name: "before", from: time.Now()}}
	time.Sleep(calm)
	phases[0].to, phases[0].rss = time.Now(), r.rss()

	job, err := r.replay(most)
	if err != nil {
		t.Fatal(err)
	}
	limit := time.Hour + time.Duration(n/100)*time.Second
	first := phase{name: "during", from: time.Now()}
	j := r.replayed(job, limit, func(j *jobRow) bool { return int(j.Done) >= n/2 || j.ended() })
	first.to, first.rss = time.Now(), r.rss()
	half, peak := j.Done, r.peak()
	if err := errors.Join(r.g.stop(), r.g.start()); err != nil {
		t.Fatal(err)
	}
	if err := eventually(5*time.Minute, "the load flows again", r.flows); err != nil {
		t.Fatal(err)
	}
	second := phase{name: "during, after the restart", from: time.Now()}
	from := r.replayed(job, time.Minute, func(*jobRow) bool { return true }).Done
	j = r.replayed(job, limit, func(j *jobRow) bool { return j.ended() })
	second.to, second.rss = time.Now(), r.rss()
	phases = append(phases, first, second)
	peak = max(peak, r.peak())
	time.Sleep(time.Second)
	end()
	if err := errors.Join(r.load.settle(time.Minute), eventually(5*time.Minute, "everything is published", r.drained)); err != nil {
		t.Error(err)
	}
	if j.State != "done" || int(j.Done) != n || j.Failed > 0 {
		t.Errorf("the job is %+v, want %d done", j, n)
	}
	lost, repeats, err := r.once()
	if err != nil || lost > 0 || repeats > 0 {
		t.Errorf("of the load %d deliveries that were acked are not in Kafka, %d are twice; %v", lost, repeats, err)
	}
	r.twice(n, job)
	if err := r.lags(phases); err != nil {
		t.Error(err)
	}
	requests, acks, shed := r.load.counts()
	t.Logf("%d requests beside it, %d answered 2xx, %d not sent for want of room, slowest answer %.2f s", requests, acks, shed, r.load.slowest.Seconds())
	perSecond := func(events int64, p phase) float64 { return float64(events) / p.to.Sub(p.from).Seconds() }
	t.Logf("replayed %.0f/s before the restart, %.0f/s after it", perSecond(half, first), perSecond(j.Done-from, second))
	for _, p := range phases {
		slices.Sort(p.took)
		slices.Sort(p.same)
		t.Logf("%-26s %4.0f s: from receipt to Kafka's ack p50 %v, p99 %v, worst %v of %d; of the topic that is replayed to p50 %v, p99 %v of %d; RSS %d MiB",
			p.name, p.to.Sub(p.from).Seconds(), at(p.took, 50), at(p.took, 99), at(p.took, 100), len(p.took), at(p.same, 50), at(p.same, 99), len(p.same), p.rss>>20)
	}
	t.Logf("most memory %d MiB", peak>>20)
}

// phase is a stretch of time of which the lags are told.
type phase struct {
	name       string
	from, to   time.Time
	took, same []time.Duration // of all the load's events; of those in the topic of the replayed
	rss        int64
}

func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Round(100 * time.Microsecond)
}

// fill has n deliveries published, as fast as they are taken.
func (r *run) fill(n int) {
	r.t.Helper()
	s := bulk()
	client := &load{g: r.g, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	var next, refused atomic.Int64
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n || refused.Load() > int64(n) || r.t.Context().Err() != nil {
					return
				}
				for client.post(s.make(i, 0)).status/100 != 2 {
					refused.Add(1)
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	if refused.Load() > int64(n) {
		r.t.Fatal("the gateway does not take the deliveries that are to be replayed")
	}
	if err := eventually(time.Hour, "what is to be replayed is published", r.drained); err != nil {
		r.t.Fatal(err)
	}
}

// jobRow is what the API says of a job.
type jobRow struct {
	ID, State, Error             string
	Total, Done, Skipped, Failed int64
}

func (j *jobRow) ended() bool { return j.State != "queued" && j.State != "running" }

func (r *run) ask(method, path, body string) (j jobRow, err error) {
	req, err := http.NewRequest(method, "http://"+r.g.admin+path, strings.NewReader(body))
	if err != nil {
		return j, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := r.g.client.Do(req)
	if err != nil {
		return j, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return j, fmt.Errorf("%s %s answers %d", method, path, resp.StatusCode)
	}
	return j, json.NewDecoder(resp.Body).Decode(&j)
}

func (r *run) replay(most int) (job string, err error) {
	j, err := r.ask(http.MethodPost, "/api/v1/replays", fmt.Sprintf(`{"filter":{"source":"bulk"},"rate":%d}`, most))
	return j.ID, err
}

// replayed waits until the job is as is wanted.
func (r *run) replayed(job string, limit time.Duration, ok func(*jobRow) bool) (j jobRow) {
	r.t.Helper()
	if err := eventually(limit, "the replay goes on", func() (err error) {
		if j, err = r.ask(http.MethodGet, "/api/v1/replays/"+job, ""); err == nil && !ok(&j) {
			time.Sleep(200 * time.Millisecond) // asking is not to cost what is measured
			err = fmt.Errorf("%+v", j)
		}
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	return j
}

// twice checks that every delivery of the bulk is in Kafka twice: once, and once with the
// job's mark.
func (r *run) twice(n int, job string) {
	plain, marked := make([]uint8, n+1), make([]uint8, n+1)
	cmd := exec.CommandContext(r.t.Context(), "kcat", "-C", "-b", r.sv.kafka, "-t", r.prefix+".standard", "-o", "beginning", "-e", "-q", "-f", "%h\t%s\n")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	in.Buffer(nil, 4<<20)
	strange := 0
	for in.Scan() {
		head, body, _ := bytes.Cut(in.Bytes(), []byte("\t"))
		tok := tokens.FindString(string(body))
		id, ours := strings.CutPrefix(tok, "flt-bulk-")
		if !ours {
			continue
		}
		i, err := strconv.Atoi(strings.TrimSuffix(id, "-0"))
		switch {
		case err != nil || i < 1 || i > n:
			strange++
		case bytes.Contains(head, []byte("ce_replay="+job)):
			marked[i]++
		case !bytes.Contains(head, []byte("ce_replay=")):
			plain[i]++
		default:
			strange++
		}
	}
	if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
		r.t.Fatal(err)
	}
	missing, more := [2]int{}, [2]int{}
	for k, seen := range [][]uint8{plain, marked} {
		for _, times := range seen[1:] {
			missing[k] += b2i(times == 0)
			more[k] += b2i(times > 1)
		}
	}
	if missing != [2]int{} || more != [2]int{} || strange > 0 {
		r.t.Errorf("of %d events that were replayed: missing %d, twice %d; of their replay: missing %d, twice %d; strange %d", n, missing[0], more[0], missing[1], more[1], strange)
	}
}

// lags sorts the load's events into the phases, by when they were received.
func (r *run) lags(phases []phase) error {
	for _, s := range r.load.senders {
		received := map[uint64]time.Time{}
		cmd := exec.CommandContext(r.t.Context(), r.g.bin, "archive", "export", r.g.archive, "--outcomes", "--quiet", "--source", s.source,
			"--from", phases[0].from.Format(time.RFC3339Nano))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		for dec := json.NewDecoder(out); dec.More(); {
			var a archived
			if err := dec.Decode(&a); err != nil {
				return fmt.Errorf("archive export: %w", err)
			}
			if a.Kind == "delivery" {
				received[a.Seq] = a.Received
				continue
			}
			was, known := received[a.Delivery]
			for i := range phases {
				p := &phases[i]
				if known && a.Outcome == "published" && was.After(p.from) && a.At.Before(p.to) {
					p.took = append(p.took, a.At.Sub(was))
					if s.source == "standard" {
						p.same = append(p.same, a.At.Sub(was))
					}
				}
			}
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("archive export: %w", err)
		}
	}
	return nil
}

func (r *run) peak() int64 { n, _ := r.g.memory("VmHWM"); return n }

func (r *run) rss() int64 { n, _ := r.g.memory("VmRSS"); return n }
