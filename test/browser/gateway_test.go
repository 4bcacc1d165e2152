package browser

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take. Nothing here measures time: on a slow machine the
// tests are slow.
const patience = 60 * time.Second

const (
	operatorToken = "browser-operator-0123456789"
	viewerToken   = "browser-viewer-0123456789"
	liqpayKey     = "liqpay_private_0123456789"
	stripeKey     = "whsec_browser_0123456789abcdef"
)

const configuration = `
ingest: {listen: '%[1]s', public_url: 'http://%[1]s'}
admin:
  listen: '%[2]s'
  tokens:
    - {name: olena, role: operator, token: ` + operatorToken + `}
    - {name: finance, role: viewer, token: ` + viewerToken + `}
archive: {dir: '%[3]s/data'}
dedupe: {redis: {addresses: ['%[4]s'], prefix: '%[6]s'}}
forward: {kafka: {brokers: ['%[5]s'], topic: '%[6]s.{source}', create_topics: {partitions: 1, replication: 1}}}
sources:
  - {name: liqpay, provider: liqpay, credentials: {private_key: ` + liqpayKey + `}}
  - {name: shop-eu, provider: stripe, credentials: {secrets: [` + stripeKey + `]}}
  - {name: monobank, provider: stripe, credentials: {secrets: [whsec_second_0123456789abcdef]}}
  - {name: github, provider: github, credentials: {secrets: [github_0123456789abcdef]}}
`

// gateway is one running `penstock serve` that all tests share: each looks at deliveries
// of its own.
type gateway struct {
	bin, dir, conf, ingest, admin string
	log                           *bytes.Buffer
	mu                            *sync.Mutex
	stops                         []func()
}

var shared struct {
	once sync.Once
	g    *gateway
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.g != nil {
		shared.g.stop()
	}
	if browser.stop != nil {
		browser.stop()
	}
	os.Exit(code)
}

func theGateway(t *testing.T) *gateway {
	t.Helper()
	shared.once.Do(func() { shared.g, shared.err = start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.g
}

func start() (_ *gateway, err error) {
	dir, err := os.MkdirTemp("", "penstock-browser")
	if err != nil {
		return nil, err
	}
	g := &gateway{bin: filepath.Join(dir, "penstock"), dir: dir, conf: filepath.Join(dir, "penstock.yaml"), log: &bytes.Buffer{}, mu: &sync.Mutex{}}
	g.stops = append(g.stops, func() { os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	cmd := exec.Command("go", "build", "-o", g.bin, "penstock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	redis, kafka := os.Getenv("PENSTOCK_REDIS"), os.Getenv("PENSTOCK_KAFKA")
	if redis == "" || kafka == "" {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") != "" {
			return nil, errors.New("PENSTOCK_REDIS and PENSTOCK_KAFKA are not set, and PENSTOCK_REQUIRE_REAL is: run `make services`")
		}
		if redis, kafka, err = g.dev(); err != nil {
			return nil, err
		}
	}
	g.ingest, g.admin = freeAddr(), freeAddr()
	name := "browser-" + strings.ToLower(rand.Text()[:8]) // services outlive the test
	if err := os.WriteFile(g.conf, fmt.Appendf(nil, configuration, g.ingest, g.admin, dir, redis, kafka, name), 0o600); err != nil {
		return nil, err
	}
	if err := g.run("serve", "-c", g.conf); err != nil {
		return nil, err
	}
	return g, wait("the gateway is ready", func() error {
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

// dev starts `penstock dev` for the Redis and the Kafka inside it.
func (g *gateway) dev() (redis, kafka string, err error) {
	dir := filepath.Join(g.dir, "dev")
	kafka = freeAddr()
	if err := g.run("dev", "--dir", dir, "--ingest", freeAddr(), "--admin", freeAddr(), "--kafka", kafka); err != nil {
		return "", "", err
	}
	err = wait("penstock dev is ready", func() error {
		b, err := os.ReadFile(filepath.Join(dir, "penstock.yaml"))
		if err != nil {
			return err
		}
		_, rest, ok := strings.Cut(string(b), "redis:")
		at := strings.Index(rest, "127.0.0.1:")
		if !ok || at < 0 {
			return errors.New("its configuration names no Redis yet")
		}
		redis = rest[at : at+strings.IndexAny(rest[at:]+"\n", "\n ,]\"'")]
		for _, addr := range []string{redis, kafka} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
	return redis, kafka, err
}

// run starts the binary until stop.
func (g *gateway) run(args ...string) error {
	cmd := exec.Command(g.bin, args...)
	cmd.Stdout, cmd.Stderr = g, g
	if err := cmd.Start(); err != nil {
		return err
	}
	g.stops = append(g.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	})
	return nil
}

// Write collects what the processes say.
func (g *gateway) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(b)
}

func (g *gateway) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

func (g *gateway) stop() {
	for i := len(g.stops) - 1; i >= 0; i-- {
		g.stops[i]()
	}
}

func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func wait(what string, f func() error) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("not within %v: %s: %w", patience, what, err)
}

// payment is a LiqPay callback; the signer shares no code with the product.
type payment map[string]any

// pay sends a callback and gives the delivery's id. header are pairs.
func (g *gateway) pay(t *testing.T, key string, p payment, header ...string) string {
	t.Helper()
	id := rand.Text()
	doc := payment{"version": 3, "action": "pay", "payment_id": id, "transaction_id": id, "status": "success", "public_key": "i00000000", "type": "buy",
		"amount": 1250.5, "currency": "UAH", "description": "test", "end_date": time.Now().UnixMilli()}
	for k, v := range p {
		doc[k] = v
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString(b)
	sum := sha1.Sum([]byte(key + data + key))
	body := url.Values{"data": {data}, "signature": {base64.StdEncoding.EncodeToString(sum[:])}}.Encode()
	return g.post(t, "/in/liqpay", body, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

// post sends raw bytes: no client corrects what a stranger writes.
func (g *gateway) post(t *testing.T, target, body string, header ...string) (id string) {
	t.Helper()
	c, err := net.Dial("tcp", g.ingest)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n", target, g.ingest, len(body))
	for i := 0; i+1 < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
	}
	if _, err := io.WriteString(c, b.String()+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(answer), "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(name, "Penstock-Delivery-Id") {
			id = value
		}
	}
	return id
}

// send runs `penstock send`, as the docs tell people to.
func (g *gateway) send(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, g.bin, append([]string{"send", "-c", g.conf}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("send %v: %v\n%s", args, err, out)
	}
}
