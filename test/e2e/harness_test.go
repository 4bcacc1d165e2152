package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const adminToken = "e2e-admin-token-0123456789"

// services are the real Redis and Kafka; without them the tests skip, unless
// PENSTOCK_REQUIRE_REAL says that their absence is a failure.
func services(t *testing.T) (redis, kafka string) {
	t.Helper()
	redis, kafka = os.Getenv("PENSTOCK_REDIS"), os.Getenv("PENSTOCK_KAFKA")
	if redis != "" && kafka != "" {
		return redis, kafka
	}
	if os.Getenv("PENSTOCK_REQUIRE_REAL") != "" {
		t.Fatal("PENSTOCK_REDIS and PENSTOCK_KAFKA are not set, and PENSTOCK_REQUIRE_REAL is: run `make e2e`")
	}
	t.Skip("no real Redis and Kafka: run `make e2e`")
	return "", ""
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "penstock-e2e")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "penstock")
	cmd := exec.Command("go", "build", "-o", bin, "penstock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	return bin, nil
})

func binary(t *testing.T) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// gateway is one running `penstock serve`, and how to start it again.
type gateway struct {
	t             *testing.T
	dir, conf     string
	ingest, admin string
	log           *os.File
	cmd           *exec.Cmd
}

// newGateway writes the configuration; %INGEST%, %ADMIN% and %DIR% in it are filled in.
func newGateway(t *testing.T, conf string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), ingest: freeAddr(t), admin: freeAddr(t)}
	g.conf = filepath.Join(g.dir, "penstock.yaml")
	g.configure(conf)
	var err error
	if g.log, err = os.Create(filepath.Join(g.dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if g.cmd != nil {
			g.kill()
		}
		g.log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(g.log.Name())
			t.Logf("end of the gateway's log:\n%s", b[max(0, len(b)-6000):])
		}
	})
	return g
}

func (g *gateway) configure(conf string) {
	g.t.Helper()
	conf = strings.NewReplacer("%INGEST%", g.ingest, "%ADMIN%", g.admin, "%DIR%", g.dir, "%TOKEN%", adminToken).Replace(conf)
	if err := os.WriteFile(g.conf, []byte(conf), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) start() {
	g.t.Helper()
	g.cmd = exec.Command(binary(g.t), "serve", "-c", g.conf)
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	eventually(g.t, 30*time.Second, "the gateway is ready", func() error {
		resp, err := http.Get("http://" + g.admin + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz answers %d", resp.StatusCode)
		}
		c, err := net.Dial("tcp", g.ingest)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// kill is kill -9: no signal handler runs, nothing is flushed.
func (g *gateway) kill() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	g.cmd = nil
}

// stop is SIGTERM; the contract wants exit code 0 within ten seconds.
func (g *gateway) stop() {
	g.t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- g.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			g.t.Errorf("SIGTERM: %v; want exit code 0", err)
		}
	case <-time.After(10 * time.Second):
		g.t.Error("SIGTERM: still running after 10 s")
		_ = g.cmd.Process.Kill()
		<-done
	}
	g.cmd = nil
}

func (g *gateway) get(path string, into any) {
	g.t.Helper()
	b := g.getRaw(path)
	if err := json.Unmarshal(b, into); err != nil {
		g.t.Fatalf("GET %s: %v in %.300s", path, err, b)
	}
}

func (g *gateway) getRaw(path string) []byte {
	g.t.Helper()
	req, _ := http.NewRequest(http.MethodGet, "http://"+g.admin+path, nil)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		g.t.Fatalf("GET %s: %d %v %.300s", path, resp.StatusCode, err, b)
	}
	return b
}

// row is what the tests read of a delivery's row.
type row struct {
	ID          string `json:"id"`
	Source      string `json:"source"`
	Verdict     string `json:"verdict"`
	Reason      string `json:"reason"`
	Outcome     string `json:"outcome"`
	DuplicateOf string `json:"duplicate_of"`
	EventID     string `json:"event_id"`
	OrderID     string `json:"order_id"`
	Type        string `json:"type"`
}

// list pages through all deliveries that the filter finds.
func (g *gateway) list(filter string) (rows []row) {
	g.t.Helper()
	for cursor := ""; ; {
		var page struct {
			Deliveries []row  `json:"deliveries"`
			Next       string `json:"next"`
		}
		g.get("/api/v1/deliveries?limit=500&"+filter+"&cursor="+cursor, &page)
		rows = append(rows, page.Deliveries...)
		if cursor = page.Next; cursor == "" {
			return rows
		}
	}
}

// metric reads one metric without labels.
func (g *gateway) metric(name string) (string, error) {
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("no metric %s", name)
}

// drain waits until everything acked has its outcome.
func (g *gateway) drain(limit time.Duration) {
	g.t.Helper()
	eventually(g.t, limit, "everything acked is published", func() error {
		v, err := g.metric("penstock_unpublished_deliveries")
		if err == nil && v != "0" {
			err = fmt.Errorf("%s deliveries are unpublished", v)
		}
		return err
	})
}

// record is one Kafka record as kcat prints it.
type record struct {
	Topic     string   `json:"topic"`
	Partition int      `json:"partition"`
	Offset    int64    `json:"offset"`
	Headers   []string `json:"headers"`
	Key       string   `json:"key"`
	Payload   string   `json:"payload"`
}

func (r record) header(name string) string {
	for i := 0; i+1 < len(r.Headers); i += 2 {
		if r.Headers[i] == name {
			return r.Headers[i+1]
		}
	}
	return ""
}

// consume reads a topic from its beginning to its end with kcat.
func consume(t *testing.T, kafka, topic string) (out []record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kcat", "-C", "-b", kafka, "-t", topic, "-o", "beginning", "-e", "-q", "-J")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("kcat -C -t %s: %v %s", topic, err, stderr.String())
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	for {
		var r record
		if err := dec.Decode(&r); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatalf("kcat's output of %s: %v", topic, err)
		}
		out = append(out, r)
	}
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

func eventually(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %s: %v", limit, what, err)
}
