package main

import (
	"strings"
	"testing"
	"time"

	"penstock/admin"
	"penstock/archive"
	"penstock/verify"
)

// The age of a secret is kept, and a new one begins at its own.
func TestSecretsHaveAges(t *testing.T) {
	r := newRig(t, stripe+github)
	o := operator{r.p}
	secrets := func() map[string]time.Time {
		t.Helper()
		list, err := o.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]time.Time{}
		for _, s := range list {
			for _, one := range s.Secrets {
				if one.Since == nil {
					t.Fatalf("source %s: the age of %s is not known", s.Name, one.Fingerprint)
				}
				out[one.Fingerprint] = *one.Since
			}
			if strings.Contains(strings.Join(s.Fingerprints, " "), "0123456789abcdef") {
				t.Fatalf("a secret stands among the fingerprints: %v", s.Fingerprints)
			}
		}
		return out
	}
	shop := verify.Fingerprint("whsec_0123456789abcdef")
	first := secrets()
	if len(first) != 2 || first[shop].IsZero() {
		t.Fatalf("secrets %v", first)
	}
	if err := r.p.noteSecrets(r.p.conf.Load(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if again := secrets(); !again[shop].Equal(first[shop]) {
		t.Fatalf("seen first at %v, later at %v", first[shop], again[shop])
	}
}

// The page reads a delivery by the definition that it came under: masked for what is
// published and for viewers, decoded for an operator.
func TestReadForPeople(t *testing.T) {
	r := newRig(t, stripe)
	body := `{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","object":"payment_intent","amount":1000,"currency":"eur",` +
		`"metadata":{"order_id":"7","note":"4242424242424242"}}}}`
	doc, err := epochOf(operator{r.p}.source("shop"), nil)
	if err != nil {
		t.Fatal(err)
	}
	epoch := r.p.archive.RegisterEpoch("shop", doc)
	// An epoch is on record beside the first delivery that uses it.
	first := archive.Delivery{ReceivedAt: time.Now(), Source: "shop", Provider: "stripe", Verdict: archive.Accepted, Method: "POST", Target: []byte("/in/shop"), Body: []byte("{}"), Epoch: epoch}
	if err := r.p.archive.Append(&first); err != nil {
		t.Fatal(err)
	}
	read := func(body string) (admin.Reading, error) {
		d := &archive.Delivery{ReceivedAt: time.Now(), Source: "shop", Provider: "stripe", Verdict: archive.Accepted, Method: "POST", Target: []byte("/in/shop"),
			Header: []byte("Content-Type: application/json\r\n"), Body: []byte(body), Epoch: epoch, Seq: first.Seq}
		return operator{r.p}.Read(t.Context(), d)
	}
	got, err := read(body)
	if err != nil || got.Total != 1 || len(got.Events) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	e := got.Events[0]
	if !strings.Contains(string(e.Payload), "424242******4242") || strings.Contains(string(e.Payload), "4242424242424242") || len(e.Masked) != 1 || !e.PayloadJSON {
		t.Errorf("payload %s, masked %v", e.Payload, e.Masked)
	}
	if strings.Contains(string(e.Value), "payload") || !strings.Contains(string(e.Value), `"type":"payment.captured"`) {
		t.Errorf("value %s", e.Value)
	}
	if string(got.Document) != body {
		t.Errorf("document %s", got.Document)
	}
	if got, err := read("\x00\xff not json"); err == nil && got.Document != nil {
		t.Errorf("bytes that are no document: %+v", got)
	}
}
