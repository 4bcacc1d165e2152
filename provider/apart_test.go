package provider

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// apart is two changes of equal sum that a provider tells in two deliveries. Where a
// retry is rendered anew, retry is the first one as it comes again.
type apart struct {
	name, what string
	is         string // canonical type of both
	a, b       string
	retry      string
	query      string    // of both, "?data.id=1"
	headers    [2]string // a header's name and its value in a; in b it is the value with "2"
}

// in makes a body of a template: #1 to #4 are replaced by values.
func in(template string, values ...string) string {
	for i, v := range values {
		template = strings.ReplaceAll(template, "#"+string(rune('1'+i)), v)
	}
	return template
}

// TestEqualSumsAreTwo: for every payment provider two partial refunds, two captures, two
// attempts of a subscription of equal sum are two events, and a retry of one is that one.
func TestEqualSumsAreTwo(t *testing.T) {
	cat := builtins(t)
	for _, c := range append(pairsOfCards(), pairsOfOthers()...) {
		d, ok := cat.Get(c.name)
		if !ok {
			t.Errorf("no provider %s", c.name)
			continue
		}
		read := func(body, mark string) Event { return c.read(t, d, body, mark) }
		a, b, again := read(c.a, ""), read(c.b, "2"), read(firstOf(c.retry, c.a), "")
		if a.Canonical != c.is || b.Canonical != c.is {
			t.Errorf("%s: a %s is %s and %s, want %s", c.name, c.what, a.Canonical, b.Canonical, c.is)
		}
		if a.CEID == b.CEID {
			t.Errorf("%s: two changes by %s are one event %q", c.name, c.what, a.CEID)
		}
		if a.State != "" && a.State == b.State {
			t.Errorf("%s: two changes by %s are one state %q", c.name, c.what, a.State)
		}
		if again.CEID != a.CEID || again.State != a.State {
			t.Errorf("%s: a retry of a %s is another event: %q, %q", c.name, c.what, a.CEID, again.CEID)
		}
		if c.retry != "" && again.Content != a.Content && !a.Rerendered {
			t.Errorf("%s: a retry of a %s has other content, and goes out again as a conflict", c.name, c.what)
		}
	}
}

// read is one delivery of the pair; mark ends the header that tells the two apart.
func (c *apart) read(t *testing.T, d *Definition, body, mark string) Event {
	t.Helper()
	kind := "application/json"
	if !strings.HasPrefix(body, "{") {
		kind = "application/x-www-form-urlencoded"
	}
	h := [][2]string{{"Content-Type", kind}}
	if c.headers[0] != "" {
		h = append(h, [2]string{c.headers[0], c.headers[1] + mark})
	}
	if c.name == "shopify" {
		h = append(h, [2]string{"X-Shopify-Topic", "refunds/create"})
	}
	if c.name == "woocommerce" {
		h = append(h, [2]string{"X-WC-Webhook-Topic", "order.updated"})
	}
	r := &Request{Method: "POST", Header: MakeHeader(h), Target: []byte("/in/x" + c.query), Body: []byte(wrapped(d, body))}
	if slices.Contains(d.Methods(), "GET") && !slices.Contains(d.Methods(), "POST") {
		r.Method, r.Target, r.Body = "GET", []byte("/in/x?"+wrapped(d, body)), nil
	}
	evs, err := d.Events(r)
	if err != nil || len(evs) != 1 {
		t.Fatalf("%s: %d events, %v", c.name, len(evs), err)
	}
	return evs[0]
}

// cannotTell says of payment providers why no two deliveries of equal sum can be held
// against each other.
var cannotTell = map[string]string{
	"mollie_classic": "an id and nothing else: every delivery is an event, a repeat too, and the fetch tells what changed (TestThinEvents)",
}

// cannotRepeat says of payment providers without a rule of once why a state that is said
// again under another identity cannot be known for one, or does not occur.
var cannotRepeat = map[string]string{
	"adyen":               "pspReference, eventCode and success are the identity: the same state is the same event",
	"cashfree":            "payment and status are the identity: the same state is the same event",
	"comgate":             "the status is not signed, and transId with it are part of the identity",
	"generic_hash_concat": "the status is not signed, so nobody may have a later event taken for its repeat",
	"iyzico":              "payment and status are the identity: the same state is the same event",
	"midtrans":            "the word of the transaction is not signed, so nobody may have a later event taken for its repeat",
	"opennode":            "the status is not signed, so nobody may have a later event taken for its repeat",
	"paymob":              "transaction and flags are the identity: the same state is the same event",
	"paypal":              "of the body a CRC is signed and nothing else, so nobody may have a later event taken for its repeat",
	"payu_india":          "order and status are the identity: the same state is the same event",
	"revolut":             "order and event are the identity: the same state is the same event",
	"robokassa":           "it tells of a paid invoice and of nothing else, and the invoice is the identity",
	"shopify":             "the topic is an unsigned header, so nobody may have a later event taken for its repeat",
	"wayforpay":           "all that is signed is the identity: the same state is the same event",
}

// paysOut says that a provider's deliveries tell of money.
func paysOut(d *Definition) bool {
	plans := []*plan{d.prog.base}
	for _, s := range d.prog.shapes {
		plans = append(plans, s.plan)
	}
	for _, pl := range plans {
		if !pl.PaymentID.IsZero() || !pl.Amount.Path.IsZero() {
			return true
		}
	}
	for _, e := range d.CanonicalEvents() {
		if !strings.HasPrefix(e.Type, "subscription.") {
			return true
		}
	}
	return false
}

// TestEveryPayerHasAPair: no payment provider comes without a pair above or the reason why
// it cannot have one, and none without a rule of once or the reason why.
func TestEveryPayerHasAPair(t *testing.T) {
	cat := builtins(t)
	paired := map[string]bool{}
	for _, c := range append(pairsOfCards(), pairsOfOthers()...) {
		paired[c.name] = true
	}
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		if !paysOut(d) {
			if paired[name] || cannotTell[name] != "" || cannotRepeat[name] != "" {
				t.Errorf("%s tells of no money, so it needs neither a pair nor a reason", name)
			}
			continue
		}
		if paired[name] == (cannotTell[name] != "") {
			t.Errorf("%s: two changes of equal sum need a pair in the table or a reason in cannotTell, one of the two", name)
		}
		// A provider without a canonical type has no state that a consumer books on.
		if len(d.CanonicalEvents()) > 0 && (len(d.Once) > 0) == (cannotRepeat[name] != "") {
			t.Errorf("%s: a state said again needs once in the definition or a reason in cannotRepeat, one of the two", name)
		}
	}
	for _, reasons := range []map[string]string{cannotTell, cannotRepeat} {
		for name := range reasons {
			if _, ok := cat.Get(name); !ok {
				t.Errorf("no provider %s", name)
			}
		}
	}
}

// wrapped puts a document into the form that its provider sends it in.
func wrapped(d *Definition, doc string) string {
	for _, r := range d.Document {
		switch r.As {
		case "base64-xml":
			return r.Form + "=" + url.QueryEscape(inLines([]byte(doc)))
		case "base64-form":
			return r.Query + "=" + url.QueryEscape(base64.URLEncoding.EncodeToString([]byte(doc)))
		}
		if r.Kind == "json" && r.As == "base64-json" {
			return `{"` + r.Form + `":"` + base64.StdEncoding.EncodeToString([]byte(doc)) + `"}`
		}
		if r.Form != "" && r.As == "base64-json" {
			return r.Form + "=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(doc))) + "&signature=x"
		}
	}
	return doc
}
