package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"penstock/provider"
	"penstock/verify"
)

// benchFlags are what `bench` was asked.
type benchFlags struct {
	provider, dir, body string
	conns               int
	time                time.Duration
	json                bool
}

func benchCommand() *command {
	return &command{name: "bench", args: "[PROVIDER]", short: "measure this machine: disk, signatures, deliveries per second", long: `
It measures, one after the other: how long the disk under --dir takes to make a write
durable; how many signatures of PROVIDER (default stripe) one core checks; and what one
delivery costs a gateway of its own in CPU, from the first byte to the synced archive, and
to Kafka. That gateway runs beside this command for a moment, in a directory under --dir
that is removed afterwards, with an in-memory Redis and Kafka-protocol broker, so neither
of yours is touched. The estimate is what CPU allows when sender, Redis and Kafka have
machines of their own; docs/capacity.md says how to read it.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			f := &benchFlags{}
			fs.StringVar(&f.dir, "dir", ".", "`DIR` on the disk that the archive will have")
			fs.StringVar(&f.body, "body", "", "`FILE` to send as the body in place of a sample")
			fs.IntVar(&f.conns, "connections", 64, "`NUMBER` of senders that wait for their answer")
			fs.DurationVar(&f.time, "time", 3*time.Second, "`DURATION` of each measurement")
			fs.BoolVar(&f.json, "json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) > 1 || f.conns < 1 || f.conns > 10000 || f.time <= 0 {
					return a.usageError("bench", "name at most one provider; --connections is 1 to 10000, --time is positive")
				}
				f.provider = "stripe"
				if len(args) == 1 {
					f.provider = args[0]
				}
				return a.bench(ctx, f)
			}
		}}
}

// benchResult is what `bench` found.
type benchResult struct {
	Cores      int     `json:"cores"`
	Provider   string  `json:"provider"`
	BodyBytes  int     `json:"body_bytes"`
	SyncP50ms  float64 `json:"disk_sync_p50_ms"`
	SyncP99ms  float64 `json:"disk_sync_p99_ms"`
	Signatures float64 `json:"signatures_per_second_and_core"`

	Acked     *benchRun `json:"acked"`     // verified, synced, answered, indexed
	Published *benchRun `json:"published"` // and deduplicated, and in Kafka
}

// benchRun is one gateway under load.
type benchRun struct {
	Deliveries  int     `json:"deliveries"`
	PerSecond   float64 `json:"per_second"` // with the sender on the same machine
	AckP50ms    float64 `json:"ack_p50_ms"`
	AckP99ms    float64 `json:"ack_p99_ms"`
	PerSync     float64 `json:"deliveries_per_sync"`
	CPUus       float64 `json:"cpu_us_per_delivery"`
	Estimate    float64 `json:"estimated_per_second"` // of a machine that does nothing else
	MemoryMiB   float64 `json:"resident_mib"`
	DrainedSecs float64 `json:"drain_seconds"` // from the last ack until everything was published
}

// benchShare is how much of the CPU the estimate gives to deliveries: the rest is for
// bursts, compaction of the index, and the people who look something up.
const benchShare = 0.7

// estimate is how many deliveries per second so many cores take.
func estimate(cores int, cpuMicros float64) float64 {
	if cpuMicros <= 0 {
		return 0
	}
	return benchShare * float64(cores) * 1e6 / cpuMicros
}

func (a *app) bench(ctx context.Context, f *benchFlags) int {
	def, ok := a.w.Providers.Get(f.provider)
	if !ok {
		return a.fail(exitUsage, "%v", unknownProvider(f.provider, a.w.Providers.Names()))
	}
	dir, err := os.MkdirTemp(f.dir, ".penstock-bench-")
	if err != nil {
		return a.fail(exitUsage, "--dir: %v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := &benchResult{Cores: runtime.GOMAXPROCS(0), Provider: def.Name}
	if err := a.measure(ctx, f, def, dir, r); err != nil {
		return a.fail(exitFound, "bench: %v", err)
	}
	if f.json {
		return a.printJSON(r)
	}
	a.printBench(f, r)
	return exitOK
}

func (a *app) measure(ctx context.Context, f *benchFlags, def *provider.Definition, dir string, r *benchResult) error {
	say := func(what string) {
		if !f.json {
			fmt.Fprintf(a.Stderr, "measuring %s ...\n", what)
		}
	}
	say("the disk")
	if err := benchDisk(filepath.Join(dir, "probe"), f.time, r); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	creds, err := verify.DevCredentials(def, randomReader)
	if err != nil {
		return err
	}
	events, err := newSampler(def, "", f.body, false)
	if err != nil {
		return err
	}
	say("signatures")
	if err := benchSignatures(def, creds, events, f.time, r); err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	for _, part := range []struct {
		what    string
		publish bool
		to      **benchRun
	}{{"verify, sync, answer", false, &r.Acked}, {"the same, deduplicated and published", true, &r.Published}} {
		say(part.what)
		g := &benchGateway{app: a, flags: f, def: def, creds: creds, events: events, dir: filepath.Join(dir, fmt.Sprint("gateway-", part.publish)), publish: part.publish}
		if *part.to, err = g.run(ctx, r.Cores); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	return ctx.Err()
}

// benchSignatures verifies one delivery over and over on one goroutine.
func benchSignatures(def *provider.Definition, creds provider.Credentials, events *sampler, d time.Duration, r *benchResult) error {
	v, err := verify.New(def, creds, verify.Options{})
	if err != nil {
		return err
	}
	req, query, err := events.next(0)
	if err != nil {
		return err
	}
	now := time.Now()
	req.ReceivedAt, req.Target, req.PublicURL = now, []byte("/in/bench"), "http://localhost/in/bench"
	if query != "" {
		req.Target = append(append(req.Target, '?'), query...)
		req.PublicURL += "?" + query
	}
	if err := v.Sign(req, now); err != nil {
		return err
	}
	r.BodyBytes = len(req.Body)
	n, start := 0, time.Now()
	for ; n < 16 || time.Since(start) < d; n++ {
		if res := v.Verify(req, now); res.Verdict != verify.Accepted {
			return fmt.Errorf("the sample of %s is refused: %s", def.Name, res.Reason)
		}
	}
	r.Signatures = float64(n) / time.Since(start).Seconds()
	return nil
}

// benchGateway is a gateway of its own process, so that its CPU can be told from ours.
type benchGateway struct {
	app     *app
	flags   *benchFlags
	def     *provider.Definition
	creds   provider.Credentials
	events  *sampler
	dir     string
	publish bool

	dev   *dev
	token string
	cmd   *exec.Cmd
	log   strings.Builder
}

func (g *benchGateway) run(ctx context.Context, cores int) (*benchRun, error) {
	stop, err := g.start(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	// The first moments fill caches, pools and files; they are not counted.
	if _, err := g.send(ctx, g.flags.time/4); err != nil {
		return nil, err
	}
	if err := g.drained(ctx); err != nil {
		return nil, err
	}
	before, err := g.metrics(ctx)
	if err != nil {
		return nil, err
	}
	res, err := g.send(ctx, g.flags.time)
	if err != nil {
		return nil, err
	}
	last := time.Now()
	if err := g.drained(ctx); err != nil {
		return nil, err
	}
	drain := time.Since(last)
	after, err := g.metrics(ctx)
	if err != nil {
		return nil, err
	}
	diff := func(name string) float64 { return after[name] - before[name] }
	n := diff("penstock_deliveries_total")
	if n < 1 {
		return nil, errors.New("nothing was taken; a longer --time may help")
	}
	j := res.json()
	run := &benchRun{Deliveries: int(n), PerSecond: j.PerSecond, AckP50ms: j.LatencyMS["p50"], AckP99ms: j.LatencyMS["p99"],
		PerSync: n / max(diff("penstock_archive_sync_seconds"), 1), CPUus: diff("process_cpu_seconds_total") * 1e6 / n,
		MemoryMiB: after["process_resident_memory_bytes"] / (1 << 20), DrainedSecs: drain.Seconds()}
	run.Estimate = estimate(cores, run.CPUus)
	return run, nil
}

// start writes a configuration, starts Redis and broker if they are wanted, and the gateway.
func (g *benchGateway) start(ctx context.Context) (stop func(), err error) {
	g.dev = &dev{app: g.app, ingest: "127.0.0.1:0", admin: "127.0.0.1:0", kafka: "127.0.0.1:0", dir: g.dir}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&g.dev.ingest, &g.dev.admin, &g.dev.kafka} {
		if *addr, err = resolveAddr(*addr); err != nil {
			return nil, err
		}
	}
	var ends []func()
	stop = func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if g.publish {
		cluster, err := g.dev.openKafka()
		if err != nil {
			return nil, err
		}
		ends = append(ends, cluster.Close)
		redis, err := startRedis()
		if err != nil {
			return nil, err
		}
		ends = append(ends, redis.Close)
		g.dev.redis = redis.Addr()
	}
	if err := g.writeConfig(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g.cmd = exec.CommandContext(ctx, self, "serve", "-c", devConfig(g.dir))
	g.cmd.Cancel = func() error { return g.cmd.Process.Signal(syscall.SIGTERM) }
	g.cmd.WaitDelay = 20 * time.Second
	g.cmd.Stderr = &g.log
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- g.cmd.Wait() }()
	ends = append(ends, func() {
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	return stop, g.ready(ctx, ended)
}

// ready waits for the ingest listener, which opens last.
func (g *benchGateway) ready(ctx context.Context, ended chan error) error {
	for end := time.Now().Add(time.Minute); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL(g.dev.ingest, false)+"/", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return resp.Body.Close()
		}
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("the gateway ended: %w: %s", err, strings.TrimSpace(g.log.String()))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return errors.New("the gateway did not open its listener within a minute")
		}
	}
}

func (g *benchGateway) writeConfig() error {
	var err error
	if g.token, err = randomHex(16); err != nil {
		return err
	}
	doc := g.dev.document(&devSecrets{AdminToken: g.token, Credentials: map[string]provider.Credentials{g.def.Name: g.creds}})
	if !g.publish {
		kept := yaml.MapSlice{}
		for _, item := range doc {
			if item.Key != "forward" && item.Key != "dedupe" {
				kept = append(kept, item)
			}
		}
		doc = kept
	}
	b, err := yaml.MarshalWithOptions(doc, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return err
	}
	return replaceFile(devConfig(g.dir), b)
}

// send loads the gateway for d.
func (g *benchGateway) send(ctx context.Context, d time.Duration) (*results, error) {
	v, err := verify.New(g.def, g.creds, verify.Options{})
	if err != nil {
		return nil, err
	}
	to, err := url.Parse(baseURL(g.dev.ingest, false) + "/in/" + g.def.Name)
	if err != nil {
		return nil, err
	}
	l := &load{flags: &sendFlags{count: 1 << 30, concurrency: g.flags.conns}, to: to, signURL: to.String(), verifier: v,
		events: g.events, client: sendClient(to, g.flags.conns)}
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	res := l.run(timed)
	if res.unexpected > 0 {
		return nil, fmt.Errorf("%d of %d answers were not expected: %s", res.unexpected, res.sent, strings.Join(res.reasons, "; "))
	}
	return res, ctx.Err()
}

// drained waits until nothing is left to publish.
func (g *benchGateway) drained(ctx context.Context) error {
	for g.publish {
		m, err := g.metrics(ctx)
		if err != nil {
			return err
		}
		if m["penstock_unpublished_deliveries"] == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// metrics gives the gateway's counters and gauges, summed over their labels; of a
// histogram its count.
func (g *benchGateway) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL(g.dev.admin, false)+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return sumMetrics(resp.Body)
}

func sumMetrics(r io.Reader) (map[string]float64, error) {
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	sums := make(map[string]float64, len(families))
	for name, f := range families {
		for _, m := range f.GetMetric() {
			sums[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sums, nil
}

func (a *app) printBench(f *benchFlags, r *benchResult) {
	w := a.Stdout
	fmt.Fprintf(w, "%d cores; %s, body of %d bytes, %d connections\n\n", r.Cores, r.Provider, r.BodyBytes, f.conns)
	fmt.Fprintf(w, "disk sync           p50 %.2f ms   p99 %.2f ms\n", r.SyncP50ms, r.SyncP99ms)
	fmt.Fprintf(w, "signatures          %.0f a second and core\n\n", r.Signatures)
	a.table(w, []string{"", "CPU a delivery", "deliveries a sync", "ack p50", "ack p99", "memory", "measured here", "estimated alone"}, [][]string{
		benchRow("answered", r.Acked), benchRow("published", r.Published)}, nil)
	fmt.Fprintf(w, "\n\"Measured here\" shares the machine with the sender; \"estimated alone\" gives %.0f %% of the CPU to\n"+
		"deliveries and assumes that sender, Redis and Kafka run elsewhere.\n", benchShare*100)
}

func benchRow(what string, r *benchRun) []string {
	return []string{what, fmt.Sprintf("%.0f us", r.CPUus), fmt.Sprintf("%.1f", r.PerSync), fmt.Sprintf("%.2f ms", r.AckP50ms),
		fmt.Sprintf("%.2f ms", r.AckP99ms), fmt.Sprintf("%.0f MiB", r.MemoryMiB), fmt.Sprintf("%.0f/s", r.PerSecond), fmt.Sprintf("%.0f/s", r.Estimate)}
}
