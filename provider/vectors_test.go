package provider

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vector is the part of a verification vector that normalization is checked against.
type vector struct {
	Provider, Name, Expect, Level, Variant string
	Now                                    int64
	Secrets                                map[string]any
	Request                                struct {
		Method, URL string
		Headers     [][2]string
		BodyB64     string `json:"body_b64"`
	}
	EventID       *string `json:"event_id"`
	EventType     *string `json:"event_type"`
	OrderID       *string `json:"order_id"`
	Status        *string
	AmountMinor   *int64 `json:"amount_minor"`
	Currency      *string
	CanonicalType *string `json:"canonical_type"`
	FailureReason *string `json:"failure_reason"`
	Livemode      *bool
}

func (v *vector) request(t *testing.T) *Request {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(v.Request.BodyB64)
	if err != nil {
		t.Fatal(err)
	}
	target := "/in/" + v.Provider
	if _, q, ok := strings.Cut(v.Request.URL, "?"); ok {
		target += "?" + q
	}
	return &Request{Method: v.Request.Method, Target: []byte(target), Header: MakeHeader(v.Request.Headers), Body: body, ReceivedAt: time.Unix(v.Now, 0)}
}

// TestVectors: what the vectors state of accepted deliveries is what Events reads. The
// generated ones stand beside package verify, the published ones are read where they
// are and never copied.
func TestVectors(t *testing.T) {
	cat := builtins(t)
	cases := 0
	for _, dir := range []string{"../verify/testdata/vectors", "../../shared/vectors", "../../shared/vectors/official"} {
		for _, name := range cat.Names() {
			text, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var list []vector
			if err := json.Unmarshal(text, &list); err != nil {
				t.Fatalf("%s/%s: %v", dir, name, err)
			}
			d, _ := cat.Get(name)
			for i := range list {
				if v := &list[i]; v.Expect == "accept" && v.Level == "" && !disputed[name+"/"+v.Name] {
					cases++
					checkVector(t, v.variant(cat, d), v)
				}
			}
		}
	}
	if cases == 0 {
		t.Fatal("no vectors found: those of verify/testdata are part of the project")
	}
	t.Logf("%d cases", cases)
}

// disputed are cases that package verify disputes, with their reasons.
var disputed = map[string]bool{"xero/valid INVOICE.CREATE": true, "ably/valid channel.presence": true}

// variant is the definition of the scheme that the case is about.
func (v *vector) variant(cat *Catalogue, d *Definition) *Definition {
	name := v.Variant
	if scheme, ok := v.Secrets["scheme"].(string); ok && name == "" && strings.HasPrefix(scheme, v.Provider+"-") {
		name = strings.ReplaceAll(scheme, "-", "_")
	}
	if v.Secrets["signing_token"] != nil {
		name = v.Provider + "_signed"
	}
	if of, ok := cat.Get(name); ok && of.Family == v.Provider {
		return of
	}
	return d
}

func checkVector(t *testing.T, d *Definition, v *vector) {
	t.Helper()
	stated := v.EventID != nil || v.EventType != nil || v.Status != nil || v.CanonicalType != nil
	r := v.request(t)
	for _, name := range d.ReadingCredentials() {
		if secret, ok := v.Secrets[name].(string); ok {
			r.Secrets = Credentials{name: {secret}}
		}
	}
	evs, err := d.Events(r)
	if err != nil {
		if stated {
			t.Errorf("%s %s: %v", v.Provider, v.Name, err)
		}
		return
	}
	e := evs[0]
	text := func(field string, want *string, got string) {
		if want != nil && *want != got {
			t.Errorf("%s %s: %s is %q, the vector says %q", v.Provider, v.Name, field, got, *want)
		}
	}
	text("event_id", v.EventID, e.ID)
	text("event_type", v.EventType, e.Type)
	text("order_id", v.OrderID, e.OrderID)
	text("status", v.Status, e.Status)
	text("currency", v.Currency, e.Currency)
	text("canonical_type", v.CanonicalType, e.Canonical)
	text("failure_reason", v.FailureReason, e.FailureReason)
	if v.AmountMinor != nil && (e.Amount == nil || e.Amount.Minor != *v.AmountMinor) {
		t.Errorf("%s %s: amount is %v, the vector says %d", v.Provider, v.Name, e.Amount, *v.AmountMinor)
	}
	if v.Livemode != nil && (e.Livemode == nil || *e.Livemode != *v.Livemode) {
		t.Errorf("%s %s: livemode is not %v", v.Provider, v.Name, *v.Livemode)
	}
	if e.CEID == "" {
		t.Errorf("%s %s: no ce_id", v.Provider, v.Name)
	}
}

func builtins(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
