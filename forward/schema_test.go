package forward

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"penstock/archive"
	published "penstock/event"
	"penstock/provider"
)

// TestSchema holds what is published to docs/schema and to package event, over every
// sample of every provider: the schema accepts it, the types know every field of it, and
// its headers are those that the documents list.
func TestSchema(t *testing.T) {
	schema := eventSchema(t)
	cat, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]bool{}
	n := 0
	for _, name := range cat.Names() {
		def, _ := cat.Get(name)
		for _, s := range def.SampleTypes() {
			r, err := def.Sample(s.Type, provider.SampleParams{Now: time.Unix(1780000000, 0)})
			if err != nil {
				t.Fatalf("%s %s: %v", name, s.Type, err)
			}
			d := &archive.Delivery{Seq: 7, ID: "01J00000000000000000000007", ReceivedAt: r.ReceivedAt, Source: name, Provider: name,
				Verdict: archive.Accepted, VerifiedBy: "x:1", Method: r.Method, Target: r.Target, Header: r.Header, Body: r.Body}
			info := &SourceInfo{Name: name, Provider: name, Definition: def}
			evs, err := readEvents(info, d)
			if err != nil {
				t.Errorf("%s %s: %v", name, s.Type, err)
			}
			for i := range evs {
				x := rendering{d: d, info: info, e: &evs[i], typ: typeOf(info, &evs[i]), verified: "x:1"}
				checkMessage(t, schema, name+" "+s.Type, x.render("t"))
				family, _ := familyOf(evs[i].Canonical)
				families[family] = true
				n++
			}
		}
	}
	ref := rendering{d: &archive.Delivery{ReceivedAt: time.Unix(1780000000, 0), ID: "1", Source: "s"}, info: &SourceInfo{Provider: "p"}, typ: "p.x", replay: "r", conflict: "2", repeats: "3", verified: "v",
		e: &provider.Event{CEID: "c", Type: "x", Canonical: "p.x"}, ref: &payloadRef{"https://admin.example/body", "n", time.Unix(1780000001, 0)}}
	checkMessage(t, schema, "payload_ref", ref.render("t"))
	for _, want := range []string{"", "payment", "refund", "payout", "dispute", "subscription"} {
		if !families[want] {
			t.Errorf("no sample became a %q event: the schema's block was not tried", want)
		}
	}
	t.Logf("%d events", n)
	for _, bad := range []string{`{}`, `{"payload":1}`, `{"provider":"p","source":"s","type":"t","provider_type":"t","livemode":null,"occurred_at":null,"received_at":"x"}`} {
		if doc, _ := jsonschema.UnmarshalJSON(strings.NewReader(bad)); schema.Validate(doc) == nil {
			t.Errorf("the schema takes %s", bad)
		}
	}
}

func eventSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../docs/schema/event.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("urn:penstock:event:1", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("urn:penstock:event:1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkMessage(t *testing.T, schema *jsonschema.Schema, what string, m Message) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Value))
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%s: %v\n%s", what, err, m.Value)
	}
	var e published.Event
	dec := json.NewDecoder(bytes.NewReader(m.Value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		t.Errorf("%s: package event: %v", what, err)
	}
	seen := map[string]int{}
	for _, h := range m.headers() {
		seen[h.Key]++
		if !slices.ContainsFunc(published.Headers, func(known published.Header) bool { return known.Name == h.Key }) {
			t.Errorf("%s: header %s is in no document", what, h.Key)
		}
	}
	for _, h := range published.Headers {
		if seen[h.Name] > 1 || h.Always && seen[h.Name] == 0 {
			t.Errorf("%s: header %s stands %d times", what, h.Name, seen[h.Name])
		}
	}
}
