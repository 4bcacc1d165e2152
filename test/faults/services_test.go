package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// services is a Redis and a Kafka that this run alone uses, and may therefore kill.
type services struct {
	run          string // services.sh keeps data, ports and pid files here
	redis, kafka string // addresses
	env          []string

	mu    sync.Mutex     // protects kills
	kills map[string]int // by service
}

// required says whether the tests run: real services must be asked for, as for the others.
func required(t *testing.T) {
	t.Helper()
	if os.Getenv("PENSTOCK_REQUIRE_REAL") == "" && os.Getenv("PENSTOCK_KAFKA") == "" && os.Getenv("PENSTOCK_FAULTS") == "" {
		t.Skip("starts a Redis and a Kafka of its own: run `make faults`")
	}
}

func startServices(t *testing.T) *services {
	t.Helper()
	// Not t.TempDir: the broker needs a moment longer than its directory's removal allows.
	dir, err := os.MkdirTemp("", "penstock-faults")
	if err != nil {
		t.Fatal(err)
	}
	s := &services{run: dir, kills: map[string]int{}}
	t.Cleanup(func() {
		for _, name := range []string{"redis", "kafka"} {
			_ = s.signal(name, syscall.SIGCONT)
		}
		if err := s.do("wipe"); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	ports := map[string]string{}
	for _, name := range []string{"redis", "kafka", "kafka-controller", "kafka-sasl"} {
		ports[name] = freePort(t)
		if err := os.WriteFile(filepath.Join(dir, name+".port"), []byte(ports[name]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.redis, s.kafka = "127.0.0.1:"+ports["redis"], "127.0.0.1:"+ports["kafka"]
	if err := s.do("up"); err != nil {
		t.Fatal(err)
	}
	return s
}

// freePort is a port of no one's, below those that outgoing connections get: a service
// that was killed must find its own free again. At random, as several runs may start at
// the same moment.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		p := strconv.Itoa(20000 + rand.IntN(12000))
		if ln, err := net.Listen("tcp", "127.0.0.1:"+p); err == nil {
			ln.Close()
			return p
		}
	}
	t.Fatal("no free port")
	return ""
}

// do runs a command of services.sh on this run's directory.
func (s *services) do(command string) error {
	cmd := exec.Command("../services.sh", command)
	cmd.Env = append(append(os.Environ(), "PENSTOCK_RUN="+s.run, "KAFKA_HEAP=256m"), s.env...)
	// A file, no pipe: the services inherit it, and a pipe would be waited for.
	log, err := os.OpenFile(filepath.Join(s.run, "services.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("services.sh %s: %w\n%s", command, err, b[max(0, len(b)-2000):])
	}
	if name, ok := strings.CutSuffix(command, "-kill"); ok {
		s.mu.Lock()
		s.kills[name]++
		s.mu.Unlock()
	}
	return nil
}

func (s *services) signal(name string, sig syscall.Signal) error {
	b, err := os.ReadFile(filepath.Join(s.run, name+".pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.Fields(string(b) + " x")[0])
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s has no pid: %q", name, b)
	}
	return syscall.Kill(pid, sig)
}

// cli says something to Redis, past the proxy.
func (s *services) cli(args ...string) (string, error) {
	_, port, _ := strings.Cut(s.redis, ":")
	out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli %v: %w %s", args, err, out)
	}
	return string(out), nil
}
