package verify

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"penstock/provider"
)

var testNow = time.Unix(1780000000, 0)

// schemeDef makes a definition of a scheme alone.
func schemeDef(t testing.TB, text string) *provider.Definition {
	t.Helper()
	def := &provider.Definition{Name: "test"}
	if err := yaml.UnmarshalWithOptions([]byte(text), &def.Scheme, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for _, err := range def.Scheme.Validate() {
		t.Fatal(err)
	}
	return def
}

func mustNew(t testing.TB, def *provider.Definition, creds provider.Credentials, opts Options) *Verifier {
	t.Helper()
	v, err := New(def, creds, opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func get(t testing.TB, name string) *provider.Definition {
	t.Helper()
	def, ok := builtin(t).Get(name)
	if !ok {
		t.Fatalf("no definition %s", name)
	}
	return def
}

// devVerifier is a verifier of a built-in provider with made-up credentials.
func devVerifier(t testing.TB, def *provider.Definition) (*Verifier, provider.Credentials) {
	t.Helper()
	creds, err := DevCredentials(def, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return mustNew(t, def, creds, Options{}), creds
}

// bodies are unsigned deliveries that each scheme can sign.
var bodies = map[string]string{
	"microsoft_graph":     `{"value":[{"id":"1","changeType":"created"},{"id":"2","changeType":"updated"}]}`,
	"liqpay":              `{"action":"pay","payment_id":1,"status":"success","order_id":"o1","amount":10.5,"currency":"UAH"}`,
	"wayforpay":           `{"merchantAccount":"x","orderReference":"o1","amount":10.5,"currency":"UAH","authCode":"1","cardPan":"4111****1111","transactionStatus":"Approved","reasonCode":1100}`,
	"paddle_classic":      "alert_id=1&alert_name=payment_succeeded&sale_gross=10.50&currency=EUR&passthrough=",
	"generic_hash_concat": `{"merchant_id":"M1","order_id":"o1","amount":"10.50","currency":"EUR","status":"paid"}`,
}

func delivery(name string) *provider.Request {
	body := bodies[name]
	if r := sampleFor(name); body == "" && r != nil {
		return r
	}
	if body == "" {
		body = `{"id":"evt_1","type":"thing.happened","value":[1,2,3],"state":"x"}`
	}
	return &provider.Request{
		Method: "POST", Target: []byte("/in/" + name), PublicURL: "https://hooks.example.com/in/" + name,
		Header: provider.MakeHeader([][2]string{{"Host", "hooks.example.com"}, {"User-Agent", "test"}}),
		Body:   []byte(body), ReceivedAt: testNow,
	}
}

// sampleFor is the provider's own sample where the scheme signs single fields, which a
// delivery of anything does not have.
func sampleFor(name string) *provider.Request {
	cat, err := loadOnce()
	if err != nil {
		return nil
	}
	def, ok := cat.Get(name)
	if !ok || def.Body != "xml" && len(def.Fields) == 0 && !provider.IsOwnScheme(def.Scheme.Scheme) && !strings.Contains(def.Signed, ":") && !strings.Contains(def.Signed, "{all}") || len(def.SampleTypes()) == 0 {
		return nil
	}
	r, err := def.Sample("", provider.SampleParams{Now: testNow})
	if err != nil {
		return nil
	}
	r.PublicURL = "https://hooks.example.com/in/" + name
	return r
}

func signed(t testing.TB, v *Verifier, name string) *provider.Request {
	t.Helper()
	r := delivery(name)
	if err := v.Sign(r, testNow); err != nil {
		t.Fatalf("%s: sign: %v", name, err)
	}
	return r
}

func wantReason(t testing.TB, what string, res Result, reason string) {
	t.Helper()
	switch {
	case reason == "" && res.Verdict != Accepted:
		t.Errorf("%s: refused (%s), want accepted", what, res.Reason)
	case reason != "" && res.Verdict != Rejected:
		t.Errorf("%s: %s, want rejected (%s)", what, res.Verdict, reason)
	case reason != "" && reason != "*" && res.Reason != reason:
		t.Errorf("%s: reason %s, want %s", what, res.Reason, reason)
	}
}

func clone(r *provider.Request) *provider.Request {
	c := *r
	c.Body, c.Header, c.Target = bytes.Clone(r.Body), bytes.Clone(r.Header), bytes.Clone(r.Target)
	return &c
}

func with(r *provider.Request, name, value string) *provider.Request {
	c := clone(r)
	c.Header = setHeader(c.Header, name, value)
	return c
}

func added(r *provider.Request, name, value string) *provider.Request {
	c := clone(r)
	c.Header = append(c.Header, fmt.Sprintf("%s: %s\r\n", name, value)...)
	return c
}

func without(r *provider.Request, name string) *provider.Request {
	c := clone(r)
	var h provider.Header
	r.Header.Each(func(k, v []byte) bool {
		if !bytes.EqualFold(k, []byte(name)) {
			h = append(h, fmt.Sprintf("%s: %s\r\n", k, v)...)
		}
		return true
	})
	c.Header = h
	return c
}
