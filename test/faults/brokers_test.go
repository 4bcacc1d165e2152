package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// twoCopies: an ack says that two brokers have it.
const twoCopies = "min.insync.replicas=2"

// startBrokers makes a Kafka cluster of three and a Redis beside the first; more is what
// their configuration has more. A broker that is silent for three
// seconds loses what it leads to another.
func startBrokers(t *testing.T, more string) []*services {
	t.Helper()
	dir, err := os.MkdirTemp("", "penstock-brokers")
	if err != nil {
		t.Fatal(err)
	}
	var all []*services
	var voters, addrs []string
	for i := range 3 {
		s := &services{run: filepath.Join(dir, fmt.Sprint(i+1)), kills: map[string]int{}}
		if err := os.Mkdir(s.run, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"redis", "kafka", "kafka-controller", "kafka-sasl"} {
			port := freePort(t)
			if err := os.WriteFile(filepath.Join(s.run, name+".port"), []byte(port+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "redis":
				s.redis = "127.0.0.1:" + port
			case "kafka":
				addrs = append(addrs, "127.0.0.1:"+port)
			case "kafka-controller":
				voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%s", i+1, port))
			}
		}
		all = append(all, s)
	}
	t.Cleanup(func() {
		for _, s := range all {
			_ = s.signal("kafka", syscall.SIGCONT)
			if err := s.do("wipe"); err != nil {
				t.Error(err)
			}
		}
		_ = os.RemoveAll(dir)
	})
	for i, s := range all {
		s.kafka = strings.Join(addrs, ",")
		s.env = []string{fmt.Sprintf("KAFKA_NODE=%d", i+1), "KAFKA_VOTERS=" + strings.Join(voters, ","), "KAFKA_CLUSTER=penstockfaultsbrokers0",
			"KAFKA_MORE=" + more + "\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500"}
	}
	if err := errors.Join(all[0].do("redis-start"), together(all, "kafka-start")); err != nil {
		t.Fatal(err)
	}
	return all
}

// together says it to all at once: a broker is not up before most of its kind are.
func together(all []*services, command string) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = s.do(command) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// brokersMenu is what may become of three brokers; the last card is the gateway's.
func brokersMenu(all []*services) []fault {
	some := func(rng *rand.Rand, n int) (them []*services) {
		for _, i := range rng.Perm(len(all))[:n] {
			them = append(them, all[i])
		}
		return them
	}
	killed := func(n, lo, hi int) func(*run, *rand.Rand) error {
		return func(_ *run, rng *rand.Rand) error {
			them := some(rng, n)
			if err := together(them, "kafka-kill"); err != nil {
				return err
			}
			pause(rng, lo, hi)
			return together(them, "kafka-start")
		}
	}
	return []fault{
		{"one of three brokers kill -9, leaders move", "kafka", 2, killed(1, 4000, 7000)},
		{"one of three brokers kill -9, back at once", "kafka", 1, killed(1, 0, 500)},
		{"two of three brokers kill -9, no quorum", "kafka", 1, killed(2, 2000, 6000)},
		{"all brokers kill -9", "kafka", 1, killed(3, 0, 2000)},
		{"one of three brokers stopped", "kafka", 1, func(_ *run, rng *rand.Rand) error {
			s := some(rng, 1)[0]
			return errors.Join(s.do("kafka-stop"), s.do("kafka-start"))
		}},
		{"one of three brokers frozen, leaders move", "kafka", 2, func(_ *run, rng *rand.Rand) error {
			s := some(rng, 1)[0]
			return frozen(func(sig syscall.Signal) error { return s.signal("kafka", sig) }, func() { pause(rng, 4000, 8000) })
		}},
		{"two of three brokers frozen, min.insync.replicas broken", "kafka", 1, func(_ *run, rng *rand.Rand) error {
			them := some(rng, 2)
			return frozen(func(sig syscall.Signal) error {
				return errors.Join(them[0].signal("kafka", sig), them[1].signal("kafka", sig))
			}, func() { pause(rng, 2000, 6000) })
		}},
		menu[0],
	}
}

func newBrokersRun(t *testing.T, all []*services, seed uint64, length time.Duration, rate, copies int) *run {
	t.Helper()
	r := &run{t: t, sv: all[0], prefix: fmt.Sprintf("flt%d", seed), menu: brokersMenu(all), copies: copies, counts: map[string]*count{}, skipped: map[string]bool{}}
	r.redis = newProxy(t, r.sv.redis, rand.New(rand.NewPCG(seed, 2)), speakRedis)
	r.disk = newDisk(t, 256<<20+int64(length.Seconds()+30)*int64(rate)*16<<10)
	r.g = newGateway(t, r.disk.dir+"/archive")
	r.load = newLoad(r.g, rand.New(rand.NewPCG(seed, 4)))
	r.conf = r.config("", "")
	if err := errors.Join(r.g.configure(r.conf), r.g.start()); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBrokers is TestFaults on three brokers. It takes more than a gigabyte and minutes,
// so it is asked for: `make faults-brokers T=5m SEED=7`.
func TestBrokers(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("PENSTOCK_BROKERS"))
	if err != nil {
		t.Skip("three brokers: run `make faults-brokers`")
	}
	seed, rate := env("PENSTOCK_SEED", uint64(time.Now().UnixNano()%1e9)), int(env("PENSTOCK_FAULTS_RATE", 100))
	t.Logf("seed %d; again: make faults-brokers T=%v SEED=%d", seed, length, seed)
	all := startBrokers(t, twoCopies)
	r := newBrokersRun(t, all, seed, length, rate, len(all))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.load.run(stop, rate)
	}()
	ok := r.inject(length, rand.New(rand.NewPCG(seed, 1)), regexp.MustCompile(os.Getenv("PENSTOCK_FAULTS_ONLY")))
	close(stop)
	<-done
	for _, s := range all[1:] {
		all[0].kills["kafka"] += s.kills["kafka"]
	}
	if ok {
		r.finish(seed)
	}
}
