package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// errSkip says that a fault cannot be made here.
var errSkip = errors.New("cannot be made here")

// run is one run of the harness.
type run struct {
	t      *testing.T
	sv     *services
	redis  *proxy
	kafka  *proxy
	disk   *disk
	g      *gateway
	load   *load
	prefix string
	conf   string
	menu   []fault
	copies int      // replication of topics; 0 = 1
	more   []sender // sources that the load does not send to

	counts  map[string]*count
	skipped map[string]bool
}

// count is what one kind of fault came to.
type count struct {
	n        int
	recovery []time.Duration
}

// config is the gateway's file; more are further secrets, paused is a source.
func (r *run) config(more, paused string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `ingest: {listen: "%s", read_timeout: 5s}
admin:
  listen: "%s"
  tokens: [{name: faults, role: operator, token: "%s"}]
archive: {dir: "%s", segment_size: 4MiB}
dedupe: {window: 8d, redis: {addresses: ["%s"], prefix: "%s"}}
forward:
  kafka: {brokers: ["%s"], topic: "%s.{source}", dead_letter_topic: "%s.dead", create_topics: {partitions: 3, replication: %d}, compression: zstd}
sources:
`, r.g.ingest, r.g.admin, adminToken, r.g.archive, r.redis.addr(), r.prefix, r.bootstrap(), r.prefix, r.prefix, max(1, r.copies))
	for _, s := range append(slices.Clip(r.load.senders), r.more...) {
		conf := strings.TrimPrefix(strings.NewReplacer("%MORE%", more, "%PREFIX%", r.prefix).Replace(s.conf), "\n    ")
		if s.source == paused && strings.HasPrefix(conf, "{") {
			conf = "{paused: true, " + conf[1:]
		}
		b.WriteString("  - " + conf + "\n")
	}
	return b.String()
}

func (r *run) bootstrap() string {
	if r.kafka == nil { // several brokers, which name each other
		return strings.ReplaceAll(r.sv.kafka, ",", `", "`)
	}
	return r.kafka.addr()
}

func env(name string, def uint64) uint64 {
	if v, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return v
	}
	return def
}

// TestFaults is the harness. PENSTOCK_FAULTS is how long faults are injected (default
// 20s with seed 1), PENSTOCK_SEED repeats a run's faults (their order and their pauses;
// what the machine does meanwhile is its own), PENSTOCK_FAULTS_RATE is deliveries per
// second, PENSTOCK_FAULTS_ONLY is a regular expression of the names of the faults to take.
func TestFaults(t *testing.T) {
	required(t)
	length := 20 * time.Second
	if v := os.Getenv("PENSTOCK_FAULTS"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatalf("PENSTOCK_FAULTS: %v", err)
		}
	}
	first := uint64(1) // the short run of every test run
	if os.Getenv("PENSTOCK_FAULTS") != "" {
		first = uint64(time.Now().UnixNano() % 1e9)
	}
	seed, rate := env("PENSTOCK_SEED", first), int(env("PENSTOCK_FAULTS_RATE", 150))
	t.Logf("seed %d; again: make faults T=%v SEED=%d", seed, length, seed)
	only, err := regexp.Compile(os.Getenv("PENSTOCK_FAULTS_ONLY"))
	if err != nil {
		t.Fatalf("PENSTOCK_FAULTS_ONLY: %v", err)
	}
	r := newRun(t, seed, length, rate)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r.load.run(stop, rate)
	}()
	time.Sleep(500 * time.Millisecond)
	ok := r.inject(length, rand.New(rand.NewPCG(seed, 1)), only)
	close(stop)
	<-done
	if ok {
		r.finish(seed)
	}
}

func newRun(t *testing.T, seed uint64, length time.Duration, rate int, more ...sender) *run {
	t.Helper()
	r := &run{t: t, prefix: fmt.Sprintf("flt%d", seed), menu: menu, counts: map[string]*count{}, skipped: map[string]bool{}}
	r.sv = startServices(t)
	r.redis = newProxy(t, r.sv.redis, rand.New(rand.NewPCG(seed, 2)), speakRedis)
	r.kafka = newProxy(t, r.sv.kafka, rand.New(rand.NewPCG(seed, 3)), speakKafka)
	r.disk = newDisk(t, 256<<20+int64(length.Seconds()+30)*int64(rate)*16<<10)
	r.g = newGateway(t, r.disk.dir+"/archive")
	r.load = newLoad(r.g, rand.New(rand.NewPCG(seed, 4)))
	r.more = more
	r.conf = r.config("", "")
	if err := r.g.configure(r.conf); err != nil {
		t.Fatal(err)
	}
	if err := r.g.start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// inject deals faults from a shuffled deck until the time is over. Every other one
// comes with a second of another victim, if the deck has it.
func (r *run) inject(length time.Duration, rng *rand.Rand, only *regexp.Regexp) bool {
	var deck []fault
	for end := time.Now().Add(length); time.Now().Before(end); {
		if len(deck) < 2 {
			for _, f := range r.menu {
				for range f.often {
					if only.MatchString(f.name) {
						deck = append(deck, f)
					}
				}
			}
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		fs := deck[:1]
		if !deck[1].clash(deck[0]) && rng.IntN(2) == 0 {
			fs = deck[:2]
		}
		deck = deck[len(fs):]
		pause(rng, 50, 600)
		if err := r.episode(fs, rng); err != nil {
			r.t.Error(err)
			return false
		}
	}
	return true
}

// episode makes its faults and measures how long after the last cure everything that was
// acked is on its way again.
func (r *run) episode(fs []fault, rng *rand.Rand) error {
	errs := make([]error, len(fs))
	names := make([]string, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		names[i] = f.name
		its := rand.New(rand.NewPCG(rng.Uint64(), 5))
		after := time.Duration(i*rng.IntN(1000)) * time.Millisecond
		wg.Go(func() {
			time.Sleep(after)
			errs[i] = f.run(r, its)
		})
	}
	wg.Wait()
	healed := time.Now()
	for i, err := range errs {
		if errors.Is(err, errSkip) {
			r.skipped[names[i]] = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(names, " + "), err)
		}
	}
	// Long, for a machine that has much else to do; what it took is in the table.
	if err := eventually(4*time.Minute, "deliveries are published again after "+strings.Join(names, " + "), r.flows); err != nil {
		r.t.Log(r.g.state())
		return err
	}
	took := time.Since(healed)
	r.t.Logf("%-60s flows again after %5.2f s", strings.Join(names, " + "), took.Seconds())
	for _, n := range names {
		c := r.counts[n]
		if c == nil {
			c = &count{}
			r.counts[n] = c
		}
		c.n++
		c.recovery = append(c.recovery, took)
	}
	return nil
}

func (r *run) ready() error { return eventually(30*time.Second, "the gateway is ready", r.g.ready) }

// flows says whether the gateway takes deliveries and publishes what it took.
func (r *run) flows() error {
	if err := r.g.ready(); err != nil {
		return err
	}
	v, err := r.g.metric("penstock_oldest_unpublished_seconds")
	if err == nil && v > 1 {
		err = fmt.Errorf("the oldest unpublished delivery is %.1f s old", v)
	}
	return err
}

// finish heals, drains, stops, checks, and prints.
func (r *run) finish(seed uint64) {
	t := r.t
	began := time.Now()
	if err := r.load.settle(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := eventually(2*time.Minute, "everything acked is published", func() error {
		v, err := r.g.metric("penstock_unpublished_deliveries")
		if err == nil && v != 0 {
			err = fmt.Errorf("%v deliveries are unpublished", v)
		}
		return err
	}); err != nil {
		t.Error(err) // the equations say which
	}
	drained := time.Since(began)
	if err := r.g.stop(); err != nil {
		t.Error(err)
	}
	c := check(r)
	r.table(seed, c, drained)
}

// table prints what the docs quote.
func (r *run) table(seed uint64, c *verdict, drained time.Duration) {
	var b strings.Builder
	injected := 0
	all := []time.Duration{}
	fmt.Fprintf(&b, "\n| fault | times | recovery s, median | worst |\n|---|---|---|---|\n")
	for _, f := range r.menu {
		k := r.counts[f.name]
		if k == nil {
			continue
		}
		injected += k.n
		all = append(all, k.recovery...)
		slices.Sort(k.recovery)
		fmt.Fprintf(&b, "| %s | %d | %.2f | %.2f |\n", f.name, k.n, k.recovery[k.n/2].Seconds(), k.recovery[k.n-1].Seconds())
	}
	for name := range r.skipped {
		fmt.Fprintf(&b, "left out: %s (%s)\n", name, r.disk.why)
	}
	if len(all) == 0 {
		r.t.Error("no fault was injected")
		return
	}
	slices.Sort(all)
	fmt.Fprintf(&b, "\n| seed | injected | sent | 2xx | lost | repeats | recovery s, median / worst |\n|---|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %d | %d | %d | %d | %d | %d | %.2f / %.2f |\n", seed, injected, r.load.requests, r.load.acks, c.lost, c.repeats, all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
	fmt.Fprintf(&b, "\n%d deliveries of %d entities, %d events in Kafka, %d forged, %d not sent for want of room, slowest answer %.2f s, drained in %.1f s",
		len(r.load.log), r.load.entities, c.events, r.load.forged, r.load.shed, r.load.slowest.Seconds(), drained.Seconds())
	fmt.Fprintf(&b, "\nkills: %d of the gateway, %d of Redis, %d of Kafka", r.g.kills, r.sv.kills["redis"], r.sv.kills["kafka"])
	r.t.Log(b.String())
}
