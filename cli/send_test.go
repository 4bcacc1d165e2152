package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// fakeGateway verifies as the gateway does and answers so.
type fakeGateway struct {
	*httptest.Server
	mu     sync.Mutex
	bodies map[string]int
	seen   int
	spoil  func(w http.ResponseWriter) bool // answers in place of the gateway
}

func newFakeGateway(t *testing.T, c *config.Config) *fakeGateway {
	g := &fakeGateway{bodies: map[string]int{}}
	verifiers := map[string]*verify.Verifier{}
	urls := map[string]string{}
	for i := range c.Sources {
		v, err := signerOf(&c.Sources[i])
		if err != nil {
			t.Fatal(err)
		}
		verifiers[c.Sources[i].Path], urls[c.Sources[i].Path] = v, c.Sources[i].URL()
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := verifiers[r.URL.Path]
		if v == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		g.bodies[string(body)]++
		g.seen++
		spoiled := g.spoil != nil && g.spoil(w)
		g.mu.Unlock()
		if spoiled {
			return
		}
		var pairs [][2]string
		for k, vs := range r.Header {
			for _, x := range vs {
				pairs = append(pairs, [2]string{k, x})
			}
		}
		req := &provider.Request{Method: r.Method, Target: []byte(r.URL.RequestURI()), PublicURL: publicOf(urls[r.URL.Path], r), Header: provider.MakeHeader(pairs), Body: body, RemoteIP: netip.MustParseAddr("127.0.0.1")}
		res := v.Verify(req, time.Now())
		w.Header().Set("Penstock-Delivery-Id", "01TEST")
		if res.Verdict == verify.Rejected {
			status := http.StatusUnauthorized
			if res.Reply != nil {
				status = res.Reply.Status
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"code":%q}}`, res.Reason)
			return
		}
		ack := v.Ack(req, time.Now())
		w.WriteHeader(ack.Status)
		_, _ = w.Write(ack.Body)
	}))
	t.Cleanup(g.Close)
	return g
}

func publicOf(u string, r *http.Request) string {
	if u == "" {
		u = "http://" + r.Host + r.URL.Path
	}
	if r.URL.RawQuery != "" {
		u += "?" + r.URL.RawQuery
	}
	return u
}

// everyProvider is a configuration with made-up credentials for the whole catalogue.
func everyProvider(t *testing.T, w *world) (file string, c *config.Config) {
	t.Helper()
	var sources []yaml.MapSlice
	for _, name := range w.wiring.Providers.Names() {
		def, _ := w.wiring.Providers.Get(name)
		creds, err := verify.DevCredentials(def, randomReader)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, yaml.MapSlice{{Key: "name", Value: name}, {Key: "provider", Value: name}, {Key: "credentials", Value: creds}})
	}
	b, err := yaml.Marshal(yaml.MapSlice{{Key: "archive", Value: map[string]string{"dir": "d"}}, {Key: "sources", Value: sources}})
	if err != nil {
		t.Fatal(err)
	}
	file = w.file("all.yaml", string(b))
	if c, err = config.Load(file, w.wiring.Catalogue); err != nil {
		t.Fatal(err)
	}
	return file, c
}

// TestSendEveryProvider: every provider's sample, of every type, is signed so that its
// verifier takes it and the answer is the one that it wants; tampered it is refused.
func TestSendEveryProvider(t *testing.T) {
	w := newWorld(t)
	file, c := everyProvider(t, w)
	g := newFakeGateway(t, c)
	for _, name := range w.wiring.Providers.Names() {
		def, _ := w.wiring.Providers.Get(name)
		types := []string{""}
		for _, s := range def.SampleTypes() {
			types = append(types, s.Type)
		}
		for _, typ := range types {
			w.want(exitOK, "1 sent", "send", name, "-c", file, "--to", g.URL, "--type", typ)
		}
		w.want(exitOK, "  4", "send", name, // 401, or the provider's own word: GoCardless takes 498
			"-c", file, "--to", g.URL, "--tamper")
	}
}

func TestSendManyAndRepeats(t *testing.T) {
	w := newWorld(t)
	file, c := everyProvider(t, w)
	g := newFakeGateway(t, c)
	w.run(t.Context(), "send", "stripe", "-c", file, "--to", g.URL, "--count", "300", "--concurrency", "8", "--duplicates", "30%", "--json")
	var out sentJSON
	if err := json.Unmarshal(w.out.Bytes(), &out); err != nil {
		t.Fatalf("%v: %s", err, w.out.String())
	}
	if out.Sent != 300 || out.Unexpected != 0 || out.Statuses["200"] != 300 || out.DeliveryID != "01TEST" || out.LatencyMS["max"] < out.LatencyMS["p50"] {
		t.Errorf("%+v", out)
	}
	if g.seen != 300 || out.Repeats == 0 || len(g.bodies) != 300-out.Repeats {
		t.Errorf("%d seen, %d repeats said, %d different bodies", g.seen, out.Repeats, len(g.bodies))
	}
}

// TestSendUnexpected: an answer that is not the expected one is exit code 1.
func TestSendUnexpected(t *testing.T) {
	w := newWorld(t)
	file, c := everyProvider(t, w)
	g := newFakeGateway(t, c)
	g.spoil = func(rw http.ResponseWriter) bool { rw.WriteHeader(http.StatusServiceUnavailable); return true }
	w.want(exitFound, "status 503, expected 200", "send", "stripe", "-c", file, "--to", g.URL)
	// The status is right, the body that the provider prescribes is not.
	g.spoil = func(rw http.ResponseWriter) bool {
		fmt.Fprint(rw, `{"orderReference":"x","status":"accept","time":1,"signature":"00"}`)
		return true
	}
	w.want(exitFound, "not what the provider wants", "send", "wayforpay", "-c", file, "--to", g.URL)
	// A tampered one that is taken.
	g.spoil = func(http.ResponseWriter) bool { return true }
	w.want(exitFound, "was not refused", "send", "stripe", "-c", file, "--to", g.URL, "--tamper")
	g.spoil = func(rw http.ResponseWriter) bool { rw.Header().Set("Location", "/x"); rw.WriteHeader(302); return true }
	w.want(exitFound, "status 302", "send", "stripe", "-c", file, "--to", g.URL)
	w.want(exitFound, "no answer", "send", "stripe", "-c", file, "--to", "http://127.0.0.1:1")
	w.want(exitFound, "status 404", "send", "stripe", "-c", file, "--to", g.URL+"/elsewhere")
}

func TestSendAsked(t *testing.T) {
	w := newWorld(t)
	file := w.file("c.yaml", goodConfig)
	w.want(exitUsage, `no source of provider "paypal"; it has hub, shop`, "send", "paypal", "-c", file)
	w.want(exitUsage, `no source "nope"`, "send", "stripe", "--source", "nope", "-c", file)
	w.want(exitUsage, "source hub is of provider github", "send", "stripe", "--source", "hub", "-c", file)
	w.want(exitUsage, "is no share", "send", "stripe", "-c", file, "--duplicates", "2.5")
	w.want(exitUsage, "start penstock dev", "send", "stripe")
	w.want(exitUsage, "not both", "send", "stripe", "-c", file, "--dir", ".")
	w.want(exitUsage, "has no sample", "send", "stripe", "-c", file, "--type", "no.such")
	w.want(exitUsage, "no such file", "send", "stripe", "-c", file, "--body", "no-such")
}

// TestSendUsersOwn: a definition written in the configuration, without samples.
func TestSendUsersOwn(t *testing.T) {
	w := newWorld(t)
	file := w.file("c.yaml", `archive: {dir: d}
sources:
  - name: sky
    provider:
      name: skyrimpay
      scheme: hash_concat
      algorithm: sha256
      fields: [merchant_id, amount, currency, order_id]
      required_signed: [order_id, amount, currency]
      signature: {field: signature, encoding: hex}
      event: {id: [order_id, status], type: status, order_id: order_id, amount: {path: amount, unit: major}, currency: currency}
    credentials: {private_key: 0123456789abcdef}
`)
	c, err := config.Load(file, w.wiring.Catalogue)
	if err != nil {
		t.Fatal(err)
	}
	g := newFakeGateway(t, c)
	w.want(exitOK, "3 sent", "send", "skyrimpay", "-c", file, "--to", g.URL, "--count", "3")
	if len(g.bodies) != 3 {
		t.Errorf("%d different bodies", len(g.bodies))
	}
	w.want(exitOK, "401", "send", "skyrimpay", "-c", file, "--to", g.URL, "--tamper")
	body := w.file("body.json", `{"merchant_id":"m","amount":"1.00","currency":"EUR","order_id":"mine"}`)
	w.want(exitOK, "1 sent", "send", "skyrimpay", "-c", file, "--to", g.URL, "--body", body)
	found := false
	for b := range g.bodies {
		found = found || strings.Contains(b, `"mine"`)
	}
	if !found {
		t.Error("--body was not sent")
	}
}

func TestPercentile(t *testing.T) {
	var l []time.Duration
	for i := 1; i <= 100; i++ {
		l = append(l, time.Duration(i))
	}
	f := func(p float64, want time.Duration) {
		t.Helper()
		if got := percentile(l, p); got != want {
			t.Errorf("p%v = %d, want %d", p, got, want)
		}
	}
	f(50, 50)
	f(90, 90)
	f(99, 99)
	f(100, 100)
	f(0, 1)
	l = l[:1]
	f(50, 1)
	f(99, 1)
	l = nil
	f(50, 0)
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	file := w.file("c.yaml", goodConfig)
	c, err := config.Load(file, w.wiring.Catalogue)
	if err != nil {
		t.Fatal(err)
	}
	v, err := signerOf(&c.Sources[1])
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1779999000, 0)
	r := &provider.Request{Method: "POST", Target: []byte("/in/shop"), Body: []byte(`{"id":"evt_1"}`), Header: provider.MakeHeader([][2]string{{"Content-Type", "application/json"}})}
	if err := v.Sign(r, now); err != nil {
		t.Fatal(err)
	}
	request := func(body string) string {
		var pairs [][2]string
		r.Header.Each(func(k, v []byte) bool { pairs = append(pairs, [2]string{string(k), string(v)}); return true })
		b, err := json.Marshal(verify.CaseRequest{Method: "POST", URL: "https://h/in/shop", Headers: pairs, BodyB64: body})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := "eyJpZCI6ImV2dF8xIn0=" // {"id":"evt_1"}
	at := strconv.FormatInt(now.Unix(), 10)
	alone := w.file("r.json", request(good))
	w.want(exitOK, "accepted", "verify", "-c", file, "--source", "shop", alone, "--now", at)
	w.want(exitFound, "timestamp_outside_tolerance", "verify", "-c", file, "--source", "shop", alone, "--now", "1889999000")
	w.want(exitOK, "accepted", "verify", "-c", file, "--source", "shop", w.file("c.json", `{"now":`+at+`,"request":`+request(good)+`}`))
	w.stdin = request("eyJpZCI6ImV2dF8yIn0=")
	w.want(exitFound, `rejected: signature_mismatch`, "verify", "-c", file, "--source", "shop", "-", "--now", at)
	// The signed bytes, both signatures, and no secret.
	out := w.out.String()
	for _, want := range []string{at + `.{"id":"evt_2"}`, "received", "expected"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "whsec_0123456789abcdef") {
		t.Error("the secret is printed")
	}
	w.want(exitFound, `"verdict": "rejected"`, "verify", "-c", file, "--source", "shop", "-", "--now", at, "--json")
	w.want(exitUsage, `no source "nope"`, "verify", "-c", file, "--source", "nope", alone)
	w.want(exitUsage, "no such file", "verify", "-c", file, "--source", "shop", "no-such.json")
	w.want(exitUsage, "give --source NAME", "verify", "-c", file)
	w.want(exitOK, "vectors: 1 passed, 0 failed, 1 providers, 0 disputed", "verify", "--vectors", w.file("v.json", `[{"provider":"stripe","name":"one","secrets":{"signing_secrets":["whsec_0123456789abcdef"],"tolerance_s":300},"now":`+at+`,"expect":"accept","level":"signature","request":`+request(good)+`}]`))
	w.want(exitFound, "1 failed", "verify", "--vectors", w.file("v.json", `[{"provider":"stripe","name":"one","secrets":{"signing_secrets":["whsec_0123456789abcdef"],"tolerance_s":300},"now":`+at+`,"expect":"reject","level":"signature","request":`+request(good)+`}]`))
	w.want(exitUsage, "there is no vector", "verify", "--vectors", t.TempDir())
}
