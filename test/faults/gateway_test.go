package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const adminToken = "faults-admin-token-0123456789"

var built string // directory of the binary

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// build makes the binary of the tree, or takes the one that PENSTOCK_BINARY names: the
// sabotaged builds come that way.
var build = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("PENSTOCK_BINARY"); bin != "" {
		return filepath.Abs(bin)
	}
	var err error
	if built, err = os.MkdirTemp("", "penstock-faults-bin"); err != nil {
		return "", err
	}
	bin := filepath.Join(built, "penstock")
	cmd := exec.Command("go", "build", "-o", bin, "penstock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	return bin, nil
})

// gateway is one `penstock serve` and how to end it in every way.
type gateway struct {
	bin, dir, conf string
	archive        string
	ingest, admin  string
	log            *os.File
	client         *http.Client

	mu     sync.Mutex // protects cmd, ended, wanted, kills
	cmd    *exec.Cmd
	ended  chan error // what Wait said
	wanted bool       // somebody ended it on purpose
	kills  int        // how often it was killed
}

func newGateway(t *testing.T, archive string) *gateway {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{bin: bin, dir: t.TempDir(), archive: archive, ingest: freeAddr(t), admin: freeAddr(t), client: &http.Client{Timeout: 10 * time.Second}}
	g.conf = filepath.Join(g.dir, "penstock.yaml")
	if g.log, err = os.Create(filepath.Join(g.dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.kill()
		if t.Failed() {
			b, _ := os.ReadFile(g.log.Name())
			t.Logf("end of the gateway's log:\n%s", b[max(0, len(b)-4000):])
			if keep := os.Getenv("PENSTOCK_FAULTS_LOG"); keep != "" {
				_ = os.WriteFile(keep, b, 0o600)
			}
		}
		g.log.Close()
	})
	return g
}

// configure puts a whole new file in the old one's place, as an operator's tool would.
func (g *gateway) configure(conf string) error {
	if err := os.WriteFile(g.conf+".new", []byte(conf), 0o600); err != nil {
		return err
	}
	return os.Rename(g.conf+".new", g.conf)
}

// launch starts the process and waits for nothing.
func (g *gateway) launch() error { return g.run(exec.Command(g.bin, "serve", "-c", g.conf)) }

func (g *gateway) run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = g.log, g.log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	g.mu.Lock()
	g.cmd, g.ended, g.wanted = cmd, ended, false
	g.mu.Unlock()
	go func() { ended <- cmd.Wait() }()
	return nil
}

// start launches it and waits until it is ready.
func (g *gateway) start() error {
	if err := g.launch(); err != nil {
		return err
	}
	return eventually(30*time.Second, "the gateway is ready", g.ready)
}

func (g *gateway) ready() error {
	select {
	case err := <-g.ended:
		g.ended <- err
		return fatal{errors.New("the gateway ended by itself: " + fmt.Sprint(err))}
	default:
	}
	resp, err := g.client.Get("http://" + g.admin + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("readyz answers %d %.200s", resp.StatusCode, b)
	}
	c, err := net.Dial("tcp", g.ingest)
	if err != nil {
		return err
	}
	return c.Close()
}

func (g *gateway) signal(sig syscall.Signal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd == nil {
		return errors.New("the gateway does not run")
	}
	return g.cmd.Process.Signal(sig)
}

// kill is kill -9.
func (g *gateway) kill() error {
	g.mu.Lock()
	cmd, ended := g.cmd, g.ended
	g.cmd = nil
	if cmd != nil {
		g.kills++
	}
	g.mu.Unlock()
	if cmd == nil {
		return nil
	}
	err := cmd.Process.Kill()
	<-ended
	return err
}

// stop is SIGTERM; the contract wants exit code 0 within ten seconds.
func (g *gateway) stop() error {
	if err := g.signal(syscall.SIGTERM); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-g.ended:
		g.cmd = nil
		if err != nil {
			return fmt.Errorf("SIGTERM: %w; want exit code 0", err)
		}
		return nil
	case <-time.After(11 * time.Second):
		_ = g.cmd.Process.Signal(syscall.SIGQUIT) // the log says where it hangs
		return errors.New("SIGTERM: still running after 11 s")
	}
}

// metric reads one metric without labels.
func (g *gateway) metric(name string) (float64, error) {
	resp, err := g.client.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// state is what the gateway says of its back half: for whoever asks why nothing flows.
func (g *gateway) state() string {
	resp, err := g.client.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "penstock_") && !strings.Contains(line, "_bucket") && !strings.HasSuffix(line, " 0\n") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// fatal is an error that waiting does not cure.
type fatal struct{ error }

func eventually(limit time.Duration, what string, f func() error) error {
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
		if errors.As(err, new(fatal)) {
			break
		}
	}
	return fmt.Errorf("not within %v: %s: %w", limit, what, err)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
