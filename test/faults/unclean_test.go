package faults

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// TestUncleanLeader: of two copies one broker is killed; the other acknowledges alone, is
// killed as well, and the first comes back as the leader without what it has missed. So
// Kafka has lost what it acknowledged. The gateway must see that by itself, say so, and
// publish again what is gone.
// It takes a gigabyte and a minute: `make faults-unclean`.
func TestUncleanLeader(t *testing.T) {
	if os.Getenv("PENSTOCK_UNCLEAN") == "" {
		t.Skip("three brokers: run `make faults-unclean`")
	}
	seed, rate := env("PENSTOCK_SEED", 1), int(env("PENSTOCK_FAULTS_RATE", 100))
	all := startBrokers(t, "min.insync.replicas=1\nunclean.leader.election.enable=true")
	r := newBrokersRun(t, all, seed, 3*time.Minute, rate, 2)
	end := r.sending(rate)
	first, second := all[0], all[1]
	step := func(what string, do ...error) {
		t.Helper()
		if err := errors.Join(do...); err != nil {
			t.Fatal(what, err)
		}
		time.Sleep(4 * time.Second) // of load
		if err := eventually(3*time.Minute, what+", and deliveries are published", r.flows); err != nil {
			t.Log(r.g.state())
			t.Fatal(err)
		}
	}
	step("three brokers")
	step("one is killed, of some partitions one copy is left", second.do("kafka-kill"))
	step("the last copy is killed and the one that lacks events leads", first.do("kafka-kill"), second.do("kafka-start"))
	step("all are back", first.do("kafka-start"))
	end()
	if err := errors.Join(r.load.settle(time.Minute), eventually(3*time.Minute, "everything is published", r.drained)); err != nil {
		t.Error(err)
	}
	if err := eventually(time.Minute, "what was lost is published again", func() error {
		if s := r.g.state(); !strings.Contains(s, "penstock_kafka_lost_republished_total") {
			return errors.New("nothing was published again")
		}
		return nil
	}); err != nil {
		t.Log(r.g.state())
		t.Error(err)
	}
	if err := r.g.stop(); err != nil {
		t.Error(err)
	}
	lost, repeats, err := r.once()
	if err != nil || lost > 0 {
		t.Errorf("%d deliveries that were acked are not in Kafka; %v", lost, err)
	}
	log, err := os.ReadFile(r.g.log.Name())
	if err != nil || !strings.Contains(string(log), "kafka lost acknowledged events; they are published again") {
		t.Errorf("the log does not say that Kafka lost events; %v", err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "kafka lost ack") || strings.Contains(line, "ended below") {
			t.Log(strings.TrimSpace(line))
		}
	}
	requests, acks, _ := r.load.counts()
	t.Logf("seed %d: %d requests, %d answered 2xx, lost %d, repeats %d", seed, requests, acks, lost, repeats)
}
