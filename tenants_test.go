package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// edge is a gateway that listens: its own edge and its own API.
type edge struct {
	t    *testing.T
	p    *program
	dir  string
	head string
	url  string
	stop func()
}

// write writes the configuration anew.
func (e *edge) write(sources string) {
	e.t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, "p.yaml"), []byte(e.head+sources), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

const sealedHead = "ingest: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\narchive: {dir: %s%s}\nsources:\n"

func newEdge(t *testing.T, dir string, sealed bool, sources string) *edge {
	t.Helper()
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	key := ""
	if sealed {
		key = ", encryption: {key: " + strings.Repeat("0f", 32) + "}"
	}
	path := filepath.Join(dir, "p.yaml")
	e := &edge{t: t, dir: dir, head: fmt.Sprintf(sealedHead, filepath.Join(dir, "data"), key)}
	e.write(sources)
	cat := catalogue{builtin}
	conf, err := config.Load(path, cat)
	if err != nil {
		t.Fatal(err)
	}
	if e.p, err = build(conf, zap.NewNop(), cat, false); err != nil {
		t.Fatal(err)
	}
	ln, err := e.p.ingest.Listen()
	if err != nil {
		t.Fatal(err)
	}
	e.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = e.p.ingest.RunOn(ctx, ln) })
	parts.Go(func() { e.p.watch(ctx, nil) })
	e.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		if err := e.p.close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

// post delivers and gives status and body.
func (e *edge) post(source string, r *provider.Request) (int, string, http.Header) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, e.url+"/in/"+source, bytes.NewReader(r.Body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Each(func(k, v []byte) bool { req.Header.Add(string(k), string(v)); return true })
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

// api asks the admin listener.
func (e *edge) api(method, path, body string) (int, string) {
	e.t.Helper()
	req := httptest.NewRequest(method, "http://localhost/api/v1/sources/"+path, strings.NewReader(body))
	w := httptest.NewRecorder()
	e.p.admin.Handler().ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func (e *edge) row(h http.Header) archive.Row {
	e.t.Helper()
	row, err := e.p.archive.Row(h.Get("Penstock-Delivery-Id"))
	if err != nil {
		e.t.Fatal(err)
	}
	return row
}

func liqpay(t *testing.T, order, merchant, key string) *provider.Request {
	t.Helper()
	return liqpayOf(t, "", order, merchant, key)
}

// liqpayOf is a delivery of a type, "" = the usual one.
func liqpayOf(t *testing.T, typ, order, merchant, key string) *provider.Request {
	t.Helper()
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	def, _ := builtin.Get("liqpay")
	v, err := verify.New(def, provider.Credentials{"public_key": {merchant}, "private_key": {key}}, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := def.Sample(typ, provider.SampleParams{Now: time.Now(), OrderID: order})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Sign(r, time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

const many = "  - {name: pay, provider: liqpay, credentials: {tenants: {i1: {private_key: the private key of i1}}}}\n"

// TestTenantsThroughTheEdge: put by the API, in force at once, in the row, after a restart,
// and gone when taken away.
func TestTenantsThroughTheEdge(t *testing.T) {
	dir := t.TempDir()
	e := newEdge(t, dir, true, many)
	status, body, h := e.post("pay", liqpay(t, "o1", "i1", "the private key of i1"))
	if status != 200 || e.row(h).Tenant != "i1" {
		t.Fatalf("a merchant of the file: %d %s", status, body)
	}
	unknown, shown, h := e.post("pay", liqpay(t, "o1", "i2", "the private key of i2"))
	if row := e.row(h); unknown != 401 || row.Reason != verify.MerchantMismatch {
		t.Errorf("an unknown merchant: %d, %s", unknown, row.Reason)
	}
	wrong, told, h := e.post("pay", liqpay(t, "o1", "i1", "the private key of i2"))
	if row := e.row(h); wrong != unknown || told != shown || row.Reason != verify.SignatureMismatch || row.Tenant != "i1" {
		t.Errorf("the answers tell who is a merchant here: %d %s, %d %s", wrong, told, unknown, shown)
	}

	const put = `{"credentials":{"private_key":["the private key of i2"]}}`
	if status, body := e.api("PUT", "pay/tenants/i2", put); status != 201 || strings.Contains(body, "private key of i2") || !strings.Contains(body, `"from":"api"`) {
		t.Fatalf("put: %d %s", status, body)
	}
	if status, body := e.api("PUT", "pay/tenants/i2", put); status != 200 {
		t.Errorf("put again: %d %s", status, body)
	}
	if status, _, h := e.post("pay", liqpay(t, "o1", "i2", "the private key of i2")); status != 200 || e.row(h).Tenant != "i2" {
		t.Errorf("the merchant that was put: %d", status)
	}
	if status, body := e.api("GET", "pay/tenants", ""); status != 200 || strings.Contains(body, "the private key") || strings.Count(body, `"id"`) != 2 || !strings.Contains(body, `"total":2`) {
		t.Errorf("list: %d %s", status, body)
	}
	for path, want := range map[string]int{"pay/tenants/i1": 409, "pay/tenants/i3": 409, "none/tenants/i3": 404} { // the file's; i2's key; no source
		if status, body := e.api("PUT", path, put); status != want || strings.Contains(body, "the private key") {
			t.Errorf("put %s: %d %s", path, status, body)
		}
	}
	for _, bad := range []string{``, `{}`, `{"credentials":{"private_key":7}}`, `{"credentials":{"private_key":"short"}}`, `{"credentials":{"secret_key":"a key of another name"}}`, put + put} {
		if status, body := e.api("PUT", "pay/tenants/i4", bad); status != 400 {
			t.Errorf("put %s: %d %s", bad, status, body)
		}
	}

	e.stop()
	e = newEdge(t, dir, true, many)
	if status, _, _ := e.post("pay", liqpay(t, "o2", "i2", "the private key of i2")); status != 200 {
		t.Errorf("after a restart: %d", status)
	}
	if status, body := e.api("DELETE", "pay/tenants/i2", ""); status != 204 {
		t.Errorf("delete: %d %s", status, body)
	}
	if status, _ := e.api("DELETE", "pay/tenants/i2", ""); status != 404 {
		t.Errorf("delete again: %d", status)
	}
	if status, _, _ := e.post("pay", liqpay(t, "o3", "i2", "the private key of i2")); status != 401 {
		t.Errorf("after it was taken away: %d", status)
	}
}

// TestTenantsWithoutKey: what cannot be kept is refused with the cure.
func TestTenantsWithoutKey(t *testing.T) {
	e := newEdge(t, t.TempDir(), false, many)
	status, body := e.api("PUT", "pay/tenants/i2", `{"credentials":{"private_key":"the private key of i2"}}`)
	if status != 409 || !strings.Contains(body, "archive.encryption.key") {
		t.Errorf("put: %d %s", status, body)
	}
	if _, err := os.Stat(filepath.Join(e.dir, "data", "vault")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a vault: %v", err)
	}
}

// TestTenantsWhileReloading: a merchant that was put stays in force through reloads and
// other merchants' changes; nobody is refused meanwhile.
func TestTenantsWhileReloading(t *testing.T) {
	e := newEdge(t, t.TempDir(), true, many)
	if status, body := e.api("PUT", "pay/tenants/i2", `{"credentials":{"private_key":"the private key of i2"}}`); status != 201 {
		t.Fatal(body)
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		for range 20 {
			if err := e.p.askReload(t.Context()); err != nil {
				t.Error(err)
			}
		}
		done.Store(true)
	})
	wg.Go(func() {
		for n := 0; !done.Load(); n++ {
			id := fmt.Sprintf("x%d", n%5)
			if status, body := e.api("PUT", "pay/tenants/"+id, fmt.Sprintf(`{"credentials":{"private_key":"the private key of %s, %d"}}`, id, n)); status >= 300 {
				t.Errorf("put: %d %s", status, body)
			}
		}
	})
	for _, id := range []string{"i1", "i2"} {
		r := liqpay(t, "o1", id, "the private key of "+id)
		wg.Go(func() {
			for !done.Load() {
				if status, body, _ := e.post("pay", r); status != 200 {
					t.Errorf("%s: %d %s", id, status, body)
					return
				}
			}
		})
	}
	wg.Wait()
}

func asana(secret, signature, body string) *provider.Request {
	headers := [][2]string{{"Content-Type", "application/json"}}
	if secret != "" {
		headers = append(headers, [2]string{"X-Hook-Secret", secret})
	}
	if signature != "" {
		headers = append(headers, [2]string{"X-Hook-Signature", signature})
	}
	return &provider.Request{Method: "POST", Header: provider.MakeHeader(headers), Body: []byte(body)}
}

// TestCaptureThroughTheEdge: the first handshake's secret is in force at once and after a
// restart, no other replaces it, and an operator may clear it.
func TestCaptureThroughTheEdge(t *testing.T) {
	const source = "  - {name: tasks, provider: asana}\n"
	// From the vectors: the secret and the signature of this body.
	const secret, signature = "9bdcf8fd2dec1f47fef74d5ac673fac0", "beb83e09c0916d2ceccec9212748f15ca8deffc30eee33073fd74f506f53883c"
	delivery := asana("", signature, `{"events":[]}`)
	dir := t.TempDir()
	e := newEdge(t, dir, true, source)
	if status, _, h := e.post("tasks", delivery); status != 503 || e.row(h).Reason != verify.KeyUnavailable {
		t.Errorf("before the handshake: %d, %s", status, e.row(h).Reason)
	}
	if status, _, h := e.post("tasks", asana(secret, "", "")); status != 200 || h.Get("X-Hook-Secret") != secret {
		t.Fatalf("handshake: %d %v", status, h)
	}
	check := func(when string) {
		t.Helper()
		if status, _, _ := e.post("tasks", delivery); status != 200 {
			t.Errorf("%s: a delivery is answered %d", when, status)
		}
		if status, _, _ := e.post("tasks", asana("chosen-by-somebody-else", "", "")); status != 403 {
			t.Errorf("%s: another handshake is answered %d", when, status)
		}
		if status, _, _ := e.post("tasks", asana(secret, "", "")); status != 200 {
			t.Errorf("%s: the same handshake again is answered %d", when, status)
		}
	}
	check("at once")
	if err := e.p.askReload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after a reload")
	e.stop()
	// As the terminal sees it, beside the gateway or without it.
	conf := e.p.conf.Load()
	key, _, err := cli.VaultKeys(conf)
	if err != nil || key == nil {
		t.Fatal(err)
	}
	e = newEdge(t, dir, true, source)
	check("after a restart")
	status, body := e.api("GET", "tasks/captured", "")
	var c struct{ Credential, Secret, Fingerprint string }
	if json.Unmarshal([]byte(body), &c) != nil || status != 200 || c.Secret != secret || c.Fingerprint != verify.Fingerprint(secret) {
		t.Errorf("captured: %d %s", status, body)
	}
	if status, body := e.api("DELETE", "tasks/captured", ""); status != 204 {
		t.Fatalf("clear: %d %s", status, body)
	}
	if status, _, _ := e.post("tasks", delivery); status != 503 {
		t.Errorf("after it was cleared: %d", status)
	}
	if status, _, _ := e.post("tasks", asana("the-secret-of-a-new-webhook", "", "")); status != 200 {
		t.Errorf("the first handshake after: %d", status)
	}
}

// TestCaptureNotKept: where the disk does not take the secret nothing is answered 2xx, and
// the handshake that comes again finds nothing kept.
func TestCaptureNotKept(t *testing.T) {
	dir := t.TempDir()
	e := newEdge(t, dir, true, "  - {name: tasks, provider: asana}\n")
	// A file stands where the vault's directory would be made.
	blocked := filepath.Join(dir, "data", "vault")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, h := e.post("tasks", asana("the-secret-of-the-handshake", "", "")); status != 503 || h.Get("X-Hook-Secret") != "" {
		t.Errorf("a handshake that was not kept is answered %d", status)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := e.post("tasks", asana("another-secret-of-the-provider", "", "")); status != 200 {
		t.Errorf("the handshake after: %d", status)
	}
}
