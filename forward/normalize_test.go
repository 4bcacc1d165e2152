package forward

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/archive"
	"penstock/provider"
)

// TestGolden compares whole messages, headers and value, with files in testdata;
// PENSTOCK_UPDATE=1 writes them anew.
func TestGolden(t *testing.T) {
	cat, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 5, 28, 20, 26, 41, 123456789, time.UTC)
	f := func(name, prov, contentType, body string, want ...string) {
		t.Helper()
		def, ok := cat.Get(prov)
		if !ok {
			t.Fatalf("there is no provider %s", prov)
		}
		p := testPump(t)
		p.o.Source = func(uint64, uint64) (*SourceInfo, error) {
			return &SourceInfo{Name: prov + "-ua", Provider: prov, Definition: def}, nil
		}
		d := &archive.Delivery{Seq: 7, ID: "01J00000000000000000000007", ReceivedAt: at, Source: prov + "-ua", Provider: prov,
			Verdict: archive.Accepted, VerifiedBy: "hmac:1a2b", Method: "POST", Target: []byte("/in/" + prov),
			Header: []byte("Content-Type: " + contentType + "\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"),
			Body:   []byte(body)}
		evs := p.read(d, nil)
		if len(evs) != 1 || evs[0].msg == nil {
			t.Fatalf("%s: %d events, first %+v", name, len(evs), evs[0])
		}
		m := evs[0].msg
		if !json.Valid(m.Value) {
			t.Errorf("%s: value is no JSON: %s", name, m.Value)
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "topic %s\nkey %s\n", m.Topic, m.Key)
		for _, h := range m.headers() {
			fmt.Fprintf(&b, "%s: %s\n", h.Key, h.Value)
		}
		fmt.Fprintf(&b, "\n%s\n", m.Value)
		golden(t, name, b.Bytes())
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: no %s in\n%s", name, w, b.String())
			}
		}
	}
	// Blanks, order and escapes of the payload must come out as they went in.
	stripe := `{ "id":"evt_1", "object":"event","type":"payment_intent.succeeded","created":1779999999,"livemode":true, "x":"\u00e9/\/<",` +
		`"data":{"object":{"id":"pi_1","object":"payment_intent","amount":9232,"amount_received":9232,"currency":"eur","status":"succeeded",` +
		`"metadata":{"order_id":"o-1"}}}}`
	f("stripe", "stripe", "application/json", stripe, `"payload":`+stripe+"}", `"type":"payment.captured"`, `"minor":9232`)
	liqpay := `{"payment_id":2450,"action":"pay","status":"success","order_id":"order:672626","amount":92.32,"currency":"EUR",` +
		`"sender_card_mask2":"535528*78","end_date":1779999999000,"public_key":"i12345678901"}`
	form := url.Values{"data": {base64.StdEncoding.EncodeToString([]byte(liqpay))}, "signature": {"x"}}.Encode()
	f("liqpay", "liqpay", "application/x-www-form-urlencoded", form, `"payload":`+liqpay, `"minor":9232,"currency":"EUR","exponent":2`)
	classic := url.Values{"alert_name": {"payment_succeeded"}, "alert_id": {"77"}, "order_id": {"9-1"}, "sale_gross": {"12.50"},
		"currency": {"USD"}, "event_time": {"2026-05-28 20:26:40"}, "p_signature": {"x"}}.Encode()
	f("form", "paddle_classic", "application/x-www-form-urlencoded", classic, `"alert_id":"77"`)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if os.Getenv("PENSTOCK_UPDATE") == "1" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs. got:\n%s\nwant:\n%s", path, got, want)
	}
}

// testPump is a pump that only renders.
func testPump(t *testing.T) *Pump {
	r := newRig(t, nil)
	o := Options{Archive: FromArchive(r.a), Dedupe: nopDedupe{}, Source: func(uint64, uint64) (*SourceInfo, error) { return nil, nil }, sink: &fakeSink{k: r.k}}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.sinkName = "kafka:test"
	return p
}

func TestValue(t *testing.T) {
	no := false
	minor := func(n int64, c string, e int) *provider.Money {
		return &provider.Money{Minor: n, Currency: c, Exponent: e}
	}
	d := &archive.Delivery{ID: "D", Source: "s\"\x01\xff", ReceivedAt: time.Unix(0, 0), Tenant: "m1"}
	f := func(e provider.Event, live bool, want ...string) {
		t.Helper()
		info := &SourceInfo{Provider: "p", LiveOnly: live}
		x := rendering{d: d, info: info, e: &e, typ: typeOf(info, &e)}
		m := x.render("t")
		var v map[string]any
		if err := json.Unmarshal(m.Value, &v); err != nil {
			t.Fatalf("%v: %s", err, m.Value)
		}
		for _, w := range want {
			if !bytes.Contains(m.Value, []byte(w)) {
				t.Errorf("no %s in %s", w, m.Value)
			}
		}
	}
	f(provider.Event{Canonical: "refund.succeeded", ObjectID: "r", PaymentID: "pay", Status: "done", Amount: minor(5, "JPY", 0), PaymentAmount: minor(9, "JPY", 0)},
		false, `"refund":{"id":"r","order_id":null,"payment_id":"pay","status":"succeeded","provider_status":"done","amount":{"minor":5,"currency":"JPY","exponent":0},"payment_amount":{"minor":9,`, `"livemode":null`, `"payload_base64":""`, `"occurred_at":null`, `"tenant":"m1"`)
	f(provider.Event{Canonical: "payment.failed", FailureReason: "other", Livemode: &no}, true,
		`"type":"test.payment.failed"`, `"failure":{"reason":"other","provider_code":null}`, `"livemode":false`, `"references":{}`)
	f(provider.Event{Canonical: "payment.failed", Livemode: &no}, false, `"type":"payment.failed"`)
	f(provider.Event{Canonical: "p.charge.updated", Payload: []byte("\x00\x01"), Masked: []string{"a.b"}, UnverifiedFields: []string{"x", "y"}, NeedsFetch: true, CardMask: "4*1"},
		false, `"payload_base64":"AAE="`, `"masked":["a.b"]`, `"unverified_fields":["x","y"]`, `"needs_fetch":true`, `"source":"s\"\u0001`+"\ufffd"+`"`)
	f(provider.Event{Canonical: "payment.captured", PaymentID: "x", References: map[string]string{"b": "2", "a": "1"}}, false,
		`"payment":{"id":"x"`, `"references":{"a":"1","b":"2"}`)
}

// TestIdentity: parts do not run together, and each of them counts.
func TestIdentity(t *testing.T) {
	seen := map[archive.Identity]string{}
	for _, c := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "b", "d"}, {"x", "b", "c"}} {
		id := identity(c[0], c[1], c[2])
		if other, ok := seen[id]; ok {
			t.Errorf("%v and %s have one identity", c, other)
		}
		seen[id] = fmt.Sprint(c)
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("a\"\\\n\x00\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(appendJSON(nil, s), &back); err != nil {
			t.Fatal(err)
		}
		if back != strings.ToValidUTF8(s, "\ufffd") && len(back) == 0 {
			t.Errorf("%q came back as %q", s, back)
		}
	})
}

// TestContentIdentity: where the id is an unsigned header, a source may ask that the same
// signed content under a new id is the same event.
func TestContentIdentity(t *testing.T) {
	catalogue, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	github, _ := catalogue.Get("github")
	ceID := func(byContent bool, id, body string) string {
		t.Helper()
		d := &archive.Delivery{Source: "s", Provider: "github", Method: "POST", Target: []byte("/in/s"), Body: []byte(body),
			Header: provider.MakeHeader([][2]string{{"Content-Type", "application/json"}, {"X-GitHub-Event", "push"}, {"X-GitHub-Delivery", id}})}
		evs, err := readEvents(&SourceInfo{Name: "s", Provider: "github", Definition: github, ByContent: byContent}, d)
		if err != nil || len(evs) != 1 {
			t.Fatalf("%d events, %v", len(evs), err)
		}
		return evs[0].CEID
	}
	if ceID(false, "id-1", `{"a":1}`) == ceID(false, "id-2", `{"a":1}`) {
		t.Error("two ids are one event although nobody asked for that")
	}
	if ceID(true, "id-1", `{"a":1}`) != ceID(true, "id-2", `{"a":1}`) {
		t.Error("identity: body tells the same content under two ids apart")
	}
	if ceID(true, "id-1", `{"a":1}`) == ceID(true, "id-1", `{"a":2}`) {
		t.Error("identity: body takes other content for the same event")
	}
}
