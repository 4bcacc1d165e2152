package provider

import (
	"strings"
	"testing"
	"time"
)

const signedHead = "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X, encoding: hex}\n"

// TestShapeIdentity: a shape with an id of its own states its identity; what the
// definition says of the others is neither taken over nor forgotten in silence.
func TestShapeIdentity(t *testing.T) {
	base := signedHead + "event: {id: id, type: type}\nidentity: [charge, type]\nshapes:\n  - name: refund\n    when: {type: refund}\n    event: {id: refund}\n"
	if _, err := Parse("f.yaml", []byte(base)); err == nil || !strings.Contains(err.Error(), `"refund" has an id of its own`) || !strings.HasPrefix(err.Error(), "f.yaml:") {
		t.Errorf("%v", err)
	}
	d := parse(t, base+"    identity: [refund, charge]\n")
	a := events(t, d, `{"id":"1","type":"refund","refund":"r","charge":"c1"}`)[0]
	b := events(t, d, `{"id":"1","type":"refund","refund":"r","charge":"c2"}`)[0]
	if a.CEID == b.CEID || a.ID != "r" {
		t.Errorf("two charges are one event %q of %q", a.CEID, a.ID)
	}
	if again := parse(t, string(d.YAML())); events(t, again, `{"id":"1","type":"refund","refund":"r","charge":"c1"}`)[0].CEID != a.CEID {
		t.Error("the archived text has another identity")
	}
	// Without an identity of the definition the rule of the scheme holds for both.
	parse(t, signedHead+"event: {id: id, type: type}\nshapes: [{name: refund, when: {type: refund}, event: {id: refund}}]\n")
}

// TestNoIdentityAtAll: a delivery that has none of the fields that tell events apart is
// told apart by what is signed of it, and does not become one event with all others of
// its kind.
func TestNoIdentityAtAll(t *testing.T) {
	for name, text := range map[string]string{
		"fields":   "event: {id: id, type: type}\nidentity: [charge, refund]\n",
		"parts":    "event: {id: [id, status], type: type}\n",
		"one id":   "event: {id: id, type: type}\n",
		"no field": "event: {type: type}\n",
	} {
		d := parse(t, signedHead+text)
		a := events(t, d, `{"type":"x","status":"paid","sum":1}`)[0]
		b := events(t, d, `{"type":"x","status":"paid","sum":2}`)[0]
		if a.CEID == b.CEID || a.CEID != events(t, d, `{"type":"x","status":"paid","sum":1}`)[0].CEID {
			t.Errorf("%s: %q and %q", name, a.CEID, b.CEID)
		}
	}
}

// TestTwoOrdersAreTwo: of every sample of every provider, two orders are two events, also
// where a shape reads it; one that says nothing of an order is told apart by its id.
func TestTwoOrdersAreTwo(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		for _, info := range d.SampleTypes() {
			read := func(order string) Event {
				t.Helper()
				r, err := d.Sample(info.Type, SampleParams{OrderID: order, Now: sampleNow})
				r.ReceivedAt = r.ReceivedAt.Add(time.Duration(order[4]) * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				evs, err := d.Events(r)
				if err != nil || len(evs) == 0 {
					t.Fatalf("%s %s: %v", name, info.Type, err)
				}
				return evs[0]
			}
			a, b := read("ORD-1"), read("ORD-2")
			if a.CEID == b.CEID && !sameForAll[name+" "+info.Type] {
				t.Errorf("%s: two orders by %s are one event %q", name, info.Type, a.CEID)
			}
			if a.CEID != b.CEID && sameForAll[name+" "+info.Type] {
				t.Errorf("%s: %s does tell orders apart by now", name, info.Type)
			}
			if a.State != "" && a.State == b.State {
				t.Errorf("%s: two orders by %s are one state %q", name, info.Type, a.State)
			}
		}
	}
}

// sameForAll are samples that tell of no order: of one moment they are one event.
var sameForAll = map[string]bool{
	"asana heartbeat":       true,
	"braintree check":       true,
	"line verify":           true,
	"sendbird user:block":   true,
	"strava athlete.update": true,
	"webflow site_publish":  true,
}
