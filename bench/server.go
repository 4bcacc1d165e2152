package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penstock/bench/profile"
)

// The candidates, in the order in which they take turns.
const (
	bare = "bare" // fasthttp with an empty handler
	mac  = "hmac" // the same, and Stripe's signature is checked; nothing is kept
	edge = "edge" // Penstock's edge, verifier and archive in one process, without an index
	ack  = "ack"  // penstock serve without a sink: verified, synced, indexed
	full = "full" // penstock serve: the same, deduplicated in Redis and published to Kafka
)

// other marks a candidate that runs the build of -against.
const other = "-other"

// server is one candidate that runs.
type server struct {
	cmd         *exec.Cmd
	addr, admin string
	dir         string
	profile     string
}

func start(o *options, binary, candidate, id string, t traffic) (*server, error) {
	s := &server{addr: freeAddr()}
	switch candidate {
	case ack, full:
		s.admin, s.dir = freeAddr(), filepath.Join(o.out, "run-"+id)
		conf := filepath.Join(s.dir, "penstock.yaml")
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(conf, []byte(configOf(o, candidate, id, s, t)), 0o600); err != nil {
			return nil, err
		}
		if t.Records > 0 {
			if err := fill(filepath.Join(s.dir, "archive"), t); err != nil {
				return nil, fmt.Errorf("fill an archive with %d deliveries: %w", t.Records, err)
			}
		}
		s.cmd = exec.Command(binary, "serve", "-c", conf)
	default:
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		s.dir = filepath.Join(o.out, "run-"+id)
		admin := freeAddr()
		if candidate == edge {
			s.admin = admin
		}
		s.cmd = exec.Command(self, "server", candidate, s.addr, admin, s.dir)
	}
	s.cmd.Env = os.Environ()
	if o.profile {
		s.profile = filepath.Join(o.out, "profile-"+id+".pb.gz")
		s.cmd.Env = append(s.cmd.Env, profile.Env+"="+s.profile)
	}
	return s, s.launch(filepath.Join(o.out, candidate+".log"), time.Minute)
}

const config = `ingest: {listen: %q, max_connections: 8192, max_conns_per_ip: 8192}
admin: {listen: %q}
archive: {dir: %q}
log: {level: error}
sources:
`

const sinkConfig = `dedupe: {redis: {addresses: [%q], prefix: "bench%s"}}
forward: {kafka: {brokers: [%q], create_topics: {partitions: 6, replication: 1}, compression: %s}}
`

func configOf(o *options, candidate, id string, s *server, t traffic) string {
	text := fmt.Sprintf(config, s.addr, s.admin, filepath.Join(s.dir, "archive"))
	var secrets []string
	for n := range max(t.Secrets, 1) {
		secrets = append(secrets, strconv.Quote(secretOf(n)))
	}
	source := func(name, provider string) {
		text += fmt.Sprintf("  - {name: %s, provider: %s, credentials: {secrets: [%s]}}\n", name, provider, strings.Join(secrets, ", "))
	}
	for _, p := range providers {
		source(p, p)
	}
	if t.Sources > 1 {
		for n := range t.Sources {
			source(sourceName(n), providers[0])
		}
	}
	if candidate == full {
		text += fmt.Sprintf(sinkConfig, o.redis, id, o.kafka, o.compression)
	}
	return text
}

// gauges of Penstock's own metrics that a run looks at.
type gauges struct {
	unpublished, unindexed, syncs, syncing, records float64
}

func (s *server) scrape() (g gauges, err error) {
	if s.admin == "" {
		return g, nil
	}
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return g, err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		name, value, ok := strings.Cut(sc.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		var to *float64
		switch name {
		case "penstock_unpublished_deliveries":
			to = &g.unpublished
		case "penstock_index_lag_records":
			to = &g.unindexed
		case "penstock_archive_sync_seconds_count":
			to = &g.syncs
		case "penstock_archive_sync_seconds_sum":
			to = &g.syncing
		case `penstock_archive_batch_records_sum{log="deliveries"}`:
			to = &g.records
		default:
			continue
		}
		if *to, err = strconv.ParseFloat(value, 64); err != nil {
			return g, fmt.Errorf("metric %s: %w", name, err)
		}
	}
	return g, sc.Err()
}

// drained waits until everything that was acked has its outcome; at once for servers
// that forward nothing.
func (s *server) drained(candidate string) error {
	if candidate != full {
		return nil
	}
	return s.until("published", func(g gauges) bool { return g.unpublished == 0 })
}

// indexed waits until a search finds everything that was acked; at once for servers without
// an index.
func (s *server) indexed() error {
	return s.until("indexed", func(g gauges) bool { return g.unindexed == 0 })
}

// lookEvery is how often a run looks whether all is done. Metrics cost the server and us CPU,
// which counts as a delivery's: looking each 5 ms was a tenth of it.
const lookEvery = 50 * time.Millisecond

func (s *server) until(what string, all func(gauges) bool) error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(lookEvery) {
		g, err := s.scrape()
		if err != nil {
			return err
		}
		if all(g) {
			return nil
		}
	}
	return fmt.Errorf("not everything was %s within two minutes", what)
}

// signal tells the server's profile when the clock runs.
func (s *server) signal(sig syscall.Signal) {
	if s.profile != "" {
		_ = s.cmd.Process.Signal(sig) // without it there is no profile, and the run counts all the same
	}
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
