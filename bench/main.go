// Command bench measures, on one machine and in one run, a bare fasthttp handler, the
// same with Stripe's HMAC, and Penstock's full path: verified, archived and synced,
// deduplicated in Redis, published to Kafka. The candidates take turns, so that the
// ratios hold when the machine's speed drifts. See README.md beside it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	rounds, count, size int
	conns               []int
	out, penstock       string
	redis, kafka        string
}

// row is one measurement of one candidate.
type row struct {
	Candidate   string        `json:"candidate"`
	Conns       int           `json:"connections"`
	Round       int           `json:"round"`
	AckPerSec   float64       `json:"acks_per_second"`
	FullPerSec  float64       `json:"full_path_per_second"` // until the last event is in Kafka; equals acks where nothing follows
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	CPUPerReqUS float64       `json:"server_cpu_us_per_request"`
	RSSMiB      float64       `json:"rss_mib"`
	Other       int           `json:"answers_not_2xx"`
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "server" {
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fatal(err)
		}
		return
	}
	var o options
	var conns string
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds")
	flag.IntVar(&o.count, "n", 100_000, "deliveries a run")
	flag.IntVar(&o.size, "size", 1024, "body bytes")
	flag.StringVar(&conns, "conns", "64,256", "connections, a list")
	flag.StringVar(&o.out, "out", "bench/out", "directory for result.json and the runs' data")
	flag.Parse()
	o.redis, o.kafka = os.Getenv("PENSTOCK_REDIS"), os.Getenv("PENSTOCK_KAFKA")
	if o.redis == "" || o.kafka == "" {
		fatal(fmt.Errorf("PENSTOCK_REDIS and PENSTOCK_KAFKA are not set; run it by `make bench`, which starts both"))
	}
	for c := range strings.SplitSeq(conns, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 || n > 4096 {
			fatal(fmt.Errorf("-conns %q: want numbers from 1 to 4096, separated by commas", conns))
		}
		o.conns = append(o.conns, n)
	}
	if err := run(o); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func run(o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	o.penstock = filepath.Join(o.out, "penstock")
	if out, err := exec.Command("go", "build", "-o", o.penstock, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	fmt.Printf("%d CPUs, %s, %d deliveries of %d bytes a run, %d rounds; client, servers, Redis and Kafka share the machine\n",
		runtime.NumCPU(), runtime.Version(), o.count, o.size, o.rounds)
	var rows []row
	for round := range o.rounds {
		for _, conns := range o.conns {
			for _, candidate := range []string{"bare", "hmac", "penstock"} {
				r, err := measure(o, candidate, conns, round)
				if err != nil {
					return fmt.Errorf("%s at %d connections: %w", candidate, conns, err)
				}
				rows = append(rows, r)
			}
		}
	}
	report(o, rows)
	b, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "result.json"), append(b, '\n'), 0o644)
}

func measure(o options, candidate string, conns, round int) (row, error) {
	id := fmt.Sprintf("%s%d%d%d", candidate[:1], conns, round, time.Now().UnixNano()%1e9)
	s, err := start(o, candidate, id)
	if err != nil {
		return row{}, err
	}
	defer s.stop()
	// A short warm-up: connections, caches, the producer's first metadata.
	if _, err := load(s.addr, makeRequests(2000, o.size, id+"w", time.Now()), conns); err != nil {
		return row{}, err
	}
	if err := s.drained(); err != nil {
		return row{}, err
	}
	reqs := makeRequests(o.count, o.size, id, time.Now())
	cpu0, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return row{}, err
	}
	begin := time.Now()
	res, err := load(s.addr, reqs, conns)
	if err != nil {
		return row{}, err
	}
	if err := s.drained(); err != nil {
		return row{}, err
	}
	full := time.Since(begin)
	if s.admin == "" {
		full = res.Elapsed
	}
	cpu1, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return row{}, err
	}
	rss, err := rssOf(s.cmd.Process.Pid)
	if err != nil {
		return row{}, err
	}
	return row{Candidate: candidate, Conns: conns, Round: round, Other: res.Other, P50: res.P50, P99: res.P99,
		AckPerSec: float64(res.OK) / res.Elapsed.Seconds(), FullPerSec: float64(res.OK) / full.Seconds(),
		CPUPerReqUS: float64((cpu1 - cpu0).Microseconds()) / float64(max(1, res.OK)), RSSMiB: float64(rss) / (1 << 20)}, nil
}

type server struct {
	cmd         *exec.Cmd
	addr, admin string
	dir         string
}

func start(o options, candidate, id string) (*server, error) {
	s := &server{addr: freeAddr()}
	if candidate == "penstock" {
		s.admin, s.dir = freeAddr(), filepath.Join(o.out, "run-"+id)
		conf := filepath.Join(s.dir, "penstock.yaml")
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
		text := fmt.Sprintf(config, s.addr, s.admin, filepath.Join(s.dir, "archive"), o.redis, id, o.kafka, secret)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		s.cmd = exec.Command(o.penstock, "serve", "-c", conf)
	} else {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		s.cmd = exec.Command(self, "server", candidate, s.addr)
	}
	log, err := os.Create(filepath.Join(o.out, candidate+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			return s, c.Close()
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s did not listen on %s; see %s", candidate, s.addr, log.Name())
}

const config = `ingest: {listen: %q, max_connections: 8192, max_conns_per_ip: 8192}
admin: {listen: %q}
archive: {dir: %q}
dedupe: {redis: {addresses: [%q], prefix: "bench%s"}}
forward: {kafka: {brokers: [%q], create_topics: {partitions: 6, replication: 1}, compression: zstd}}
log: {level: error}
sources:
  - {name: stripe, provider: stripe, credentials: {secrets: [%q]}}
`

// drained waits until everything that was acked has its outcome; at once for servers that forward nothing.
func (s *server) drained() error {
	if s.admin == "" {
		return nil
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://" + s.admin + "/metrics")
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "\npenstock_unpublished_deliveries 0\n") {
			return nil
		}
	}
	return fmt.Errorf("not everything was published within two minutes")
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// report prints medians with their spread, and ratios paired within a round.
func report(o options, rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "connections\tcandidate\tacks/s [min..max]\tall published/s\tp50 ms\tp99 ms\tserver CPU us\tRSS MiB\tacks ratio to hmac\tfull ratio to hmac")
	for _, conns := range o.conns {
		base := pick(rows, "hmac", conns)
		for _, c := range []string{"bare", "hmac", "penstock"} {
			rs := pick(rows, c, conns)
			ack, full := make([]float64, len(rs)), make([]float64, len(rs))
			for i := range rs {
				ack[i], full[i] = rs[i].AckPerSec/base[i].AckPerSec, rs[i].FullPerSec/base[i].AckPerSec
			}
			lo, mid, hi := spread(rs, func(r row) float64 { return r.AckPerSec })
			fmt.Fprintf(w, "%d\t%s\t%.0f [%.0f..%.0f]\t%.0f\t%.2f\t%.2f\t%.1f\t%.0f\t%.2f\t%.2f\n", conns, c, mid, lo, hi,
				median(rs, func(r row) float64 { return r.FullPerSec }),
				median(rs, func(r row) float64 { return r.P50.Seconds() * 1e3 }), median(rs, func(r row) float64 { return r.P99.Seconds() * 1e3 }),
				median(rs, func(r row) float64 { return r.CPUPerReqUS }), median(rs, func(r row) float64 { return r.RSSMiB }), middle(ack), middle(full))
			for _, r := range rs {
				if r.Other > 0 {
					fmt.Fprintf(w, "\t\t%d answers were not 2xx in round %d\n", r.Other, r.Round)
				}
			}
		}
	}
	w.Flush()
}

func pick(rows []row, candidate string, conns int) (out []row) {
	for _, r := range rows {
		if r.Candidate == candidate && r.Conns == conns {
			out = append(out, r)
		}
	}
	return out
}

func spread(rs []row, f func(row) float64) (lo, mid, hi float64) {
	var v []float64
	for _, r := range rs {
		v = append(v, f(r))
	}
	slices.Sort(v)
	return v[0], v[len(v)/2], v[len(v)-1]
}

func median(rs []row, f func(row) float64) float64 { _, m, _ := spread(rs, f); return m }

func middle(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
