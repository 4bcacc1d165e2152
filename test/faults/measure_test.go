package faults

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is measured here takes minutes and a calm machine, so each is asked for by a
// duration and prints its numbers. None asserts a time: a busy machine is not a fault.

func asked(t *testing.T, name, target string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv(name))
	if err != nil {
		t.Skip("a measurement: run `make " + target + "`")
	}
	return d
}

// sending runs the load until the returned function is called.
func (r *run) sending(rate int) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.load.run(stop, rate)
	}()
	return func() {
		close(stop)
		<-done
	}
}

func (l *load) counts() (requests, acks, shed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, l.acks, l.shed
}

// TestKafkaAway: Kafka is killed for PENSTOCK_AWAY under PENSTOCK_FAULTS_RATE deliveries a
// second (2,000 unless told) and comes back while they go on. Everything must be acked
// meanwhile and published once in the end; how fast the backlog goes and the most memory
// that the gateway had are printed.
func TestKafkaAway(t *testing.T) {
	away := asked(t, "PENSTOCK_AWAY", "away T=10m RATE=2000")
	rate := int(env("PENSTOCK_FAULTS_RATE", 2000))
	r := newRun(t, env("PENSTOCK_SEED", 1), away+2*time.Minute, rate)
	end := r.sending(rate)
	time.Sleep(5 * time.Second)
	if err := r.sv.do("kafka-kill"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(away)
	if err := r.sv.do("kafka-start"); err != nil {
		t.Fatal(err)
	}
	_, acked, _ := r.load.counts()
	backlog, err := r.g.metric("penstock_unpublished_deliveries")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := eventually(away+10*time.Minute, "the backlog is gone", func() error {
		time.Sleep(200 * time.Millisecond) // a page of metrics is a millisecond of the gateway's CPU
		left, err := r.g.metric("penstock_unpublished_deliveries")
		if err == nil && left > float64(rate)/2 {
			err = fmt.Errorf("%v are left", left)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()
	_, now, _ := r.load.counts()
	drained := backlog + float64(now-acked)
	end()
	rss, err := r.g.peakRSS()
	if err != nil {
		t.Error(err)
	}
	if err := errors.Join(r.load.settle(time.Minute), eventually(5*time.Minute, "everything is published", r.drained)); err != nil {
		t.Error(err)
	}
	lost, repeats, err := r.once()
	if err != nil {
		t.Error(err)
	}
	requests, acks, shed := r.load.counts()
	if lost > 0 || repeats > 0 {
		t.Errorf("%d deliveries that were acked are not in Kafka, %d are twice", lost, repeats)
	}
	t.Logf("kafka away for %v at %d/s: %d requests, %d answered 2xx, %d not sent for want of room, slowest answer %.2f s, lost %d, repeats %d; "+
		"%.0f waited, drained in %.1f s beside the load: %.0f/s, %.1f times the rate of arrival; most memory %d MiB",
		away, rate, requests, acks, shed, r.load.slowest.Seconds(), lost, repeats, backlog, took, drained/took, drained/took/float64(rate), rss>>20)
}

func (r *run) drained() error {
	left, err := r.g.metric("penstock_unpublished_deliveries")
	if err == nil && left != 0 {
		err = fmt.Errorf("%v deliveries are unpublished", left)
	}
	return err
}

// peakRSS is the most memory that the gateway's process has had.
func (g *gateway) peakRSS() (int64, error) { return g.memory("VmHWM") }

// memory is a line of the process's status.
func (g *gateway) memory(name string) (int64, error) {
	g.mu.Lock()
	pid := g.cmd.Process.Pid
	g.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no " + name)
}

// once compares the client's log with Kafka by tokens alone, a record at a time: a million
// of them do not fit into check.
func (r *run) once() (lost, repeats int, err error) {
	seen := map[string]int{}
	for _, s := range r.load.senders {
		cmd := exec.CommandContext(r.t.Context(), "kcat", "-C", "-b", r.sv.kafka, "-t", r.prefix+"."+s.source, "-o", "beginning", "-e", "-q", "-f", "%s\n")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, 0, err
		}
		in := bufio.NewScanner(out)
		in.Buffer(nil, 4<<20)
		for in.Scan() {
			if tok := tokens.FindString(in.Text()); tok != "" {
				seen[tok]++
			}
		}
		if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
			return 0, 0, fmt.Errorf("kcat of %s: %w", s.source, err)
		}
	}
	for tok, t := range r.load.log {
		if n := seen[tok]; n > 1 {
			repeats += n - 1
		} else if n == 0 && len(t.acked) > 0 {
			lost++
		}
	}
	return lost, repeats, nil
}

// TestAckRedisDead measures what a dead Redis costs an answer: five rounds of
// PENSTOCK_ACK_ROUND each with a healthy one, interleaved with five with one that accepts
// and never answers, at PENSTOCK_FAULTS_RATE (500 unless told).
func TestAckRedisDead(t *testing.T) {
	length := asked(t, "PENSTOCK_ACK_ROUND", "ack-redis-dead T=10s RATE=500")
	rate := int(env("PENSTOCK_FAULTS_RATE", 500))
	r := newRun(t, env("PENSTOCK_SEED", 1), 12*length, rate)
	defer r.sending(rate)()
	time.Sleep(2 * time.Second)
	var p99 [2][]time.Duration
	for round := range 5 {
		for i := range p99 {
			dead := (i+round)%2 == 1 // neither is always first
			if err := r.sv.signal("redis", []syscall.Signal{syscall.SIGCONT, syscall.SIGSTOP}[b2i(dead)]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			r.load.timed(true)
			time.Sleep(length)
			took := r.load.timed(false)
			if len(took) == 0 {
				t.Fatal("nothing was answered")
			}
			slices.Sort(took)
			p99[b2i(dead)] = append(p99[b2i(dead)], took[len(took)*99/100])
			t.Logf("round %d, redis dead %-5v: %6d answers, p50 %v, p99 %v", round+1, dead, len(took), took[len(took)/2], took[len(took)*99/100])
		}
	}
	_ = r.sv.signal("redis", syscall.SIGCONT)
	for i := range p99 {
		slices.Sort(p99[i])
	}
	healthy, dead := p99[0][2], p99[1][2]
	t.Logf("ack p99, median of five rounds at %d/s: healthy %v, redis dead %v, ratio %.2f", rate, healthy, dead, float64(dead)/float64(healthy))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// timed begins to write down how long answers took, or ends it and gives them.
func (l *load) timed(on bool) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := l.took
	l.took, l.timing = nil, on
	return took
}
