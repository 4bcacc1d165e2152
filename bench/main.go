// Command bench measures Penstock beside what it stands on, on one machine and in one
// run: a bare fasthttp handler, the same with Stripe's HMAC, Penstock's ack path
// (verified and synced to disk), and its full path (deduplicated in Redis, published to
// Kafka). The candidates take turns, so that the ratios hold when the machine's speed
// drifts. See README.md beside it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

type options struct {
	rounds, size      int
	records           int
	d                 time.Duration
	conns             []int
	candidates, parts []string
	out, penstock     string
	against           string // another build of penstock
	redis, kafka      string
	compression       string
	profile           bool
	disk              diskProbe
}

// parts of a benchmark, each a table of its own.
var allParts = []string{"connections", "sizes", "traffic", "growth", "latency"}

func main() {
	if len(os.Args) == 6 && os.Args[1] == "server" {
		if err := serve(os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
			fatal(err)
		}
		return
	}
	if len(os.Args) > 1 && (os.Args[1] == "admin" || os.Args[1] == "admins") {
		bench := adminBench
		if os.Args[1] == "admins" {
			bench = crowd
		}
		if err := bench(os.Args[2:]); err != nil {
			fatal(err)
		}
		return
	}
	o, err := readOptions()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func readOptions() (*options, error) {
	o := &options{redis: os.Getenv("PENSTOCK_REDIS"), kafka: os.Getenv("PENSTOCK_KAFKA")}
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds")
	flag.DurationVar(&o.d, "time", 3*time.Second, "how long a run sends")
	flag.IntVar(&o.size, "size", 1024, "body bytes")
	flag.IntVar(&o.records, "records", 1_000_000, "deliveries that the archive has before, in the part growth")
	flag.StringVar(&o.compression, "compression", "zstd", "of what goes to Kafka")
	flag.StringVar(&o.out, "out", "bench/out", "directory for result.json, profiles and the runs' data; its disk is what is measured")
	flag.StringVar(&o.against, "against", "", "another build of penstock, which takes turns with this one as ack-other and full-other")
	flag.BoolVar(&o.profile, "profile", os.Getenv("PROFILE") == "1", "write CPU profiles; a profile costs a few percent")
	conns := flag.String("conns", "1,64,256,1024", "connections, a list")
	candidates := flag.String("candidates", strings.Join([]string{bare, mac, edge, ack, full}, ","), "candidates, a list")
	only := flag.String("only", strings.Join(allParts, ","), "parts of the benchmark, a list")
	flag.Parse()
	o.candidates, o.parts = strings.Split(*candidates, ","), strings.Split(*only, ",")
	for _, p := range o.parts {
		if !slices.Contains(allParts, p) {
			return nil, fmt.Errorf("-only %q: the parts are %s", p, strings.Join(allParts, ", "))
		}
	}
	for _, c := range o.candidates {
		if !slices.Contains([]string{bare, mac, edge, ack, full}, c) {
			return nil, fmt.Errorf("-candidates %q: there are %s, %s, %s, %s and %s", c, bare, mac, edge, ack, full)
		}
	}
	if slices.Contains(o.candidates, full) && (o.redis == "" || o.kafka == "") {
		return nil, fmt.Errorf("PENSTOCK_REDIS and PENSTOCK_KAFKA are not set; run it by `make bench`, which starts both, or leave %q out of -candidates", full)
	}
	for c := range strings.SplitSeq(*conns, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 || n > 4096 {
			return nil, fmt.Errorf("-conns %q: want numbers from 1 to 4096, separated by commas", *conns)
		}
		o.conns = append(o.conns, n)
	}
	return o, nil
}

// build makes the binary to measure, one that writes profiles if asked to. As what is
// shipped it has no cgo: with it the index's memory would come from C's allocator, where the
// collector's limit does not see it.
func (o *options) build() error {
	args := []string{"build", "-o", o.penstock}
	if o.profile {
		args = append(args, "-tags", "profile")
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	return nil
}

func run(o *options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	o.penstock = filepath.Join(o.out, "penstock")
	err := o.build()
	if err != nil {
		return err
	}
	if o.disk, err = probeDisk(o.out); err != nil {
		return fmt.Errorf("measure the disk of %s: %w", o.out, err)
	}
	fmt.Printf("%s, %d CPUs, %s, runs of %s, %d rounds; client, servers, Redis and Kafka share the machine\n", time.Now().UTC().Format(time.DateOnly),
		runtime.NumCPU(), runtime.Version(), o.d, o.rounds)
	fmt.Printf("disk: write + fdatasync of 4 KiB, pre-written file: p50 %.2f ms, p99 %.2f ms\n", ms(o.disk.P50), ms(o.disk.P99))
	var rows []row
	for _, p := range plan(o) {
		got, err := p.run(o, rows)
		if err != nil {
			return err
		}
		rows = append(rows, got...)
		report(p.name, got)
	}
	b, err := json.MarshalIndent(struct {
		At   time.Time
		Go   string
		CPUs int
		Disk diskProbe
		Rows []row
	}{time.Now().UTC(), runtime.Version(), runtime.NumCPU(), o.disk, rows}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "result.json"), append(b, '\n'), 0o644)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
