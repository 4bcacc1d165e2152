package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penstock/bench/profile"
)

// adminOptions are what `bench admin` was asked.
type adminOptions struct {
	options
	n, body, admins, conns, each int
	rate                         float64
	think, oneRun                time.Duration
	dir                          string
}

// adminResult is what `bench admin` measures.
type adminResult struct {
	At         time.Time
	Go         string
	CPUs       int
	Deliveries int
	Capacity   float64     `json:"capacity_per_second"` // acked and indexed, closed loop
	Rate       float64     `json:"ingest_per_second"`   // beside the questions
	Questions  []answer    `json:"questions"`
	Rounds     []ingesting `json:"rounds"`
	Ratio      float64     `json:"ingest_p99_ratio"` // medians, with admins to without
}

// ingesting is one run of the load, with so many admins beside it.
type ingesting struct {
	Admins   int     `json:"admins"`
	PerSec   float64 `json:"per_second"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	P999     float64 `json:"p99_9_ms"`
	Wrong    int     `json:"wrong_answers"`
	Asked    asked   `json:"asked"`
	ServerUS float64 `json:"server_cpu_us_per_delivery"`
	RSSMiB   float64 `json:"rss_mib"`
	CPU      shares  `json:"cpus"`
}

// shares are how many CPUs each process used while the load ran. All of them share the
// machine's: what the last two take, the gateway does not have.
type shares struct {
	Gateway float64 `json:"gateway"`
	Load    float64 `json:"load"`
	Admins  float64 `json:"admins"` // their clients, at nice 19
}

// adminBench fills an archive, starts the built binary over it with load at half of what it
// takes, and asks its admin side what people ask it.
func adminBench(args []string) error {
	o := &adminOptions{}
	fs := flag.NewFlagSet("bench admin", flag.ExitOnError)
	fs.StringVar(&o.out, "out", "bench/out", "directory for admin.json and the server's log")
	fs.StringVar(&o.dir, "dir", "", "archive to fill, or one that was filled before; default a directory under -out that is removed afterwards")
	fs.IntVar(&o.n, "deliveries", 1_000_000, "deliveries in the archive")
	fs.IntVar(&o.body, "size", 700, "bytes of a body in the archive")
	fs.IntVar(&o.rounds, "rounds", 5, "interleaved rounds without and with admins")
	fs.IntVar(&o.admins, "admins", 50, "people who look at once")
	fs.DurationVar(&o.think, "think", time.Second, "how long each rests between two pages; 0 = not at all")
	fs.DurationVar(&o.oneRun, "time", 10*time.Second, "how long a round's run takes")
	fs.IntVar(&o.each, "times", 30, "how often each question is asked")
	fs.IntVar(&o.conns, "conns", 64, "connections of the load")
	fs.Float64Var(&o.rate, "rate", 0, "deliveries a second; 0 = half of what a closed loop reaches")
	fs.StringVar(&o.penstock, "penstock", "", "binary to measure; default: built from here")
	fs.BoolVar(&o.profile, "profile", os.Getenv("PROFILE") == "1", "write a CPU profile of each round to -out")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if o.penstock == "" {
		o.penstock = filepath.Join(o.out, "penstock")
		if err := o.build(); err != nil {
			return err
		}
	}
	if o.dir == "" {
		tmp, err := os.MkdirTemp(o.out, "admin-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		o.dir = filepath.Join(tmp, "archive")
	}
	return o.run()
}

func (o *adminOptions) run() error {
	began := time.Now()
	id, err := fillForAdmins(o.dir, o.n, o.body)
	if err != nil {
		return fmt.Errorf("fill %s: %w", o.dir, err)
	}
	fmt.Printf("%s, %d CPUs, %s; %d deliveries of %d days in %s (filled in %s)\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(),
		o.n, adminDays, o.dir, time.Since(began).Round(time.Second))
	s, err := o.start()
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.settle(); err != nil {
		return err
	}
	res := adminResult{At: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Deliveries: o.n}
	if res.Capacity, err = o.capacity(s); err != nil {
		return err
	}
	if res.Rate = o.rate; res.Rate == 0 {
		res.Rate = res.Capacity / 2
	}
	fmt.Printf("a closed loop of %d connections: %.0f/s acked and indexed; beside the questions: %.0f/s\n", o.conns, res.Capacity, res.Rate)
	if res.Questions, err = o.questions(s, id, res.Rate); err != nil {
		return err
	}
	for range o.rounds {
		for _, admins := range []int{0, o.admins} {
			r, err := o.round(s, id, res.Rate, admins)
			if err != nil {
				return err
			}
			res.Rounds = append(res.Rounds, r)
		}
	}
	res.Ratio = reportRounds(res.Rounds)
	b, err := json.MarshalIndent(res, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "admin.json"), append(b, '\n'), 0o644)
}

// start runs the binary over the filled archive.
func (o *adminOptions) start() (*server, error) {
	s := &server{addr: freeAddr(), admin: freeAddr()}
	var text strings.Builder
	fmt.Fprintf(&text, config, s.addr, s.admin, o.dir)
	known := map[string]bool{}
	source := func(name, provider string) {
		if !known[name] {
			known[name] = true
			fmt.Fprintf(&text, "  - {name: %s, provider: %s, credentials: {secrets: [%q]}}\n", name, provider, secret)
		}
	}
	for _, p := range providers {
		source(p, p)
	}
	for k := range 100 * adminSources {
		source(sourceOf(k))
	}
	conf := filepath.Join(o.out, "admin.yaml")
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(o.penstock, "serve", "-c", conf)
	if o.profile {
		s.profile = filepath.Join(o.out, "profile-admin.pb.gz") // of the last round: with admins
		s.cmd.Env = append(os.Environ(), profile.Env+"="+s.profile)
	}
	return s, s.launch(filepath.Join(o.out, "admin.log"), 2*time.Minute)
}

// settle waits until the server rests: what the start has to do at leisure (compressing what
// was filled) is no part of the measurement.
func (s *server) settle() error {
	was, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		time.Sleep(2 * time.Second)
		is, err := cpuOf(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		if is-was < 100*time.Millisecond {
			return nil
		}
		was = is
	}
	return fmt.Errorf("the server does not come to rest")
}

// metric gives one number of the server's metrics.
func (s *server) metric(name string) (float64, error) {
	b, err := get("http://" + s.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// caughtUp waits until the index knows all that was acked.
func (s *server) caughtUp() error {
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if lag, err := s.metric("penstock_index_lag_records"); err != nil || lag == 0 {
			return err
		}
	}
	return fmt.Errorf("the index does not catch up")
}

// capacity is how many deliveries a second are acked and indexed when all senders are as
// fast as their answers.
func (o *adminOptions) capacity(s *server) (float64, error) {
	reqs := makeRequests(pool, traffic{Size: 1024, Mixed: true}, "c", time.Now())
	if _, err := load(s.addr, reqs, o.conns, time.Second, 0, true); err != nil { // warm
		return 0, err
	}
	if err := s.caughtUp(); err != nil {
		return 0, err
	}
	began := time.Now()
	r, err := load(s.addr, reqs, o.conns, o.oneRun/2, 0, true)
	if err != nil {
		return 0, err
	}
	if r.Wrong > 0 {
		return 0, fmt.Errorf("%d of the load's answers were wrong", r.Wrong)
	}
	err = s.caughtUp()
	return float64(r.OK) / time.Since(began).Seconds(), err
}

// round is one run of the load beside so many admins, who are a process of their own: the
// load's clock must not wait for their pages.
func (o *adminOptions) round(s *server, id string, rate float64, admins int) (ingesting, error) {
	if err := s.caughtUp(); err != nil {
		return ingesting{}, err
	}
	time.Sleep(time.Second)
	var crowd *exec.Cmd
	var told strings.Builder
	if admins > 0 {
		self, err := os.Executable()
		if err != nil {
			return ingesting{}, err
		}
		crowd = exec.Command(self, "admins", s.admin, id, strconv.Itoa(o.n), strconv.Itoa(admins), o.think.String(), (o.oneRun + 2*time.Second).String())
		crowd.Stdout, crowd.Stderr = &told, os.Stderr
		if err := crowd.Start(); err != nil {
			return ingesting{}, err
		}
		defer func() { _ = crowd.Process.Kill() }() // it has ended where all went well
		time.Sleep(time.Second)
	}
	reqs := makeRequests(pool, traffic{Size: 1024, Mixed: true}, fmt.Sprint("r", time.Now().UnixNano()), time.Now())
	was, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return ingesting{}, err
	}
	crowdWas, err := crowdCPU(crowd)
	if err != nil {
		return ingesting{}, err
	}
	began, loadWas := time.Now(), ownCPU()
	s.signal(syscall.SIGUSR1)
	r, err := load(s.addr, reqs, o.conns, o.oneRun, rate, true)
	s.signal(syscall.SIGUSR1)
	if err != nil {
		return ingesting{}, err
	}
	loadIs, took := ownCPU(), time.Since(began)
	is, err := cpuOf(s.cmd.Process.Pid)
	if err != nil {
		return ingesting{}, err
	}
	crowdIs, err := crowdCPU(crowd)
	if err != nil {
		return ingesting{}, err
	}
	cpus := func(a, b time.Duration) float64 { return (b - a).Seconds() / took.Seconds() }
	out := ingesting{Admins: admins, PerSec: r.rate(), P50: ms(r.P50), P99: ms(r.P99), P999: ms(r.P999), Wrong: r.Wrong,
		ServerUS: float64((is - was).Microseconds()) / float64(max(1, r.OK)),
		CPU:      shares{Gateway: cpus(was, is), Load: cpus(loadWas, loadIs), Admins: cpus(crowdWas, crowdIs)}}
	if rss, err := rssOf(s.cmd.Process.Pid); err == nil {
		out.RSSMiB = float64(rss) / (1 << 20)
	}
	if crowd != nil {
		if err := crowd.Wait(); err != nil {
			return out, fmt.Errorf("the admins: %w", err)
		}
		if err := json.Unmarshal([]byte(told.String()), &out.Asked); err != nil {
			return out, fmt.Errorf("what the admins say: %w", err)
		}
	}
	return out, nil
}

// crowdCPU is what the admins' clients have used; 0 where there are none. Whoever has ended has
// used what the kernel's table no longer says, but not before the load has.
func crowdCPU(crowd *exec.Cmd) (time.Duration, error) {
	if crowd == nil {
		return 0, nil
	}
	d, err := cpuOf(crowd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("the admins' CPU: %w", err)
	}
	return d, nil
}

// launch starts a server and waits until it listens.
func (s *server) launch(logFile string, within time.Duration) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			return c.Close()
		}
	}
	s.stop()
	return fmt.Errorf("%s did not listen on %s within %s; see %s", s.cmd.Path, s.addr, within, logFile)
}

func get(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	return readAll(resp)
}
