package provider

import (
	"strings"
	"testing"
)

// TestOnce: the same state under a new id is one state, a true change is another, and
// what is no state of that kind is none.
func TestOnce(t *testing.T) {
	cat := builtins(t)
	square := func(id, typ, status, fee string) string {
		return `{"event_id":"` + id + `","type":"` + typ + `","data":{"object":{"payment":{"id":"p","status":"` + status +
			`","amount_money":{"amount":100,"currency":"USD"},"processing_fee":[` + fee + `]}}}}`
	}
	mono := func(at, entries string) string {
		return `{"invoiceId":"i","status":"success","amount":900,"ccy":980,"modifiedDate":"` + at + `","cancelList":[` + entries + `]}`
	}
	fondy := func(status, reversed, time string) string {
		return `{"payment_id":1,"order_id":"o","order_status":"` + status + `","amount":"900","currency":"UAH","reversal_amount":"` + reversed + `","order_time":"` + time + `"}`
	}
	lemon := func(typ, at, refunded string) string {
		return `{"meta":{"event_name":"` + typ + `"},"data":{"type":"orders","id":"1","attributes":{"status":"x","total":900,"currency":"EUR","refunded_amount":` +
			refunded + `,"ends_at":"e","updated_at":"` + at + `"}}}`
	}
	paddle := func(id, typ, obj, status string) string {
		return `{"event_id":"` + id + `","event_type":"` + typ + `","data":{"id":"` + obj + `","action":"refund","status":"` + status + `","transaction_id":"t"}}`
	}
	wise := func(id, state, at string) string {
		return `{"subscription_id":"s","event_type":"transfers#state-change","data":{"resource":{"id":` + id + `,"type":"transfer"},"current_state":"` + state + `","occurred_at":"` + at + `"}}`
	}
	mollie := func(id, typ, entity string) string {
		return `{"id":"` + id + `","type":"` + typ + `","entityId":"` + entity + `"}`
	}
	stripe := func(id, typ, obj string) string {
		return `{"id":"` + id + `","type":"` + typ + `","data":{"object":{` + obj + `}}}`
	}
	type pair struct{ name, is, a, b string }
	for _, c := range []pair{ // one state
		{"square", "payment.captured", square("1", "payment.created", "COMPLETED", ""), square("2", "payment.updated", "COMPLETED", `{"a":1}`)},
		{"monobank", "payment.captured", mono("2026-05-28T20:26:38Z", ""), mono("2026-05-28T20:27:38Z", "")},
		{"monobank", "refund.succeeded", mono("2026-05-28T20:26:38Z", `{"status":"success","amount":100,"extRef":"r"}`), mono("2026-05-28T20:27:38Z", `{"status":"success","amount":100,"extRef":"r"}`)},
		{"fondy", "payment.captured", fondy("approved", "0", "1"), fondy("approved", "0", "2")},
		{"fondy", "refund.succeeded", fondy("approved", "100", "1"), fondy("approved", "100", "2")},
		{"lemonsqueezy", "payment.captured", lemon("order_created", "1", "0"), lemon("order_created", "2", "0")},
		{"lemonsqueezy", "refund.succeeded", lemon("order_refunded", "1", "100"), lemon("order_refunded", "2", "100")},
		{"lemonsqueezy", "subscription.canceled", lemon("subscription_cancelled", "1", "0"), lemon("subscription_expired", "2", "0")},
		{"paddle_billing", "refund.succeeded", paddle("1", "adjustment.created", "adj_1", "approved"), paddle("2", "adjustment.updated", "adj_1", "approved")},
		{"wise", "payout.queued", wise("1", "processing", "1"), wise("1", "funds_converted", "2")},
		{"wise", "payout.failed", wise("1", "cancelled", "1"), wise("1", "funds_refunded", "2")},
		{"mollie", "refund.pending", mollie("1", "refund.queued", "re_1"), mollie("2", "refund.processing", "re_1")},
		{"stripe", "refund.failed", stripe("1", "refund.failed", `"id":"re_1","status":"failed"`), stripe("2", "refund.created", `"id":"re_1","status":"failed"`)},
		{"stripe", "payment.captured", stripe("1", "payment_intent.succeeded", `"id":"pi_1","amount_received":5`), stripe("2", "payment_intent.succeeded", `"id":"pi_1","amount_received":5,"x":1`)},
		{"coinbase_commerce", "payment.captured", `{"event":{"id":"1","type":"charge:confirmed","data":{"id":"c"}}}`, `{"event":{"id":"2","type":"charge:resolved","data":{"id":"c"}}}`},
		{"payu_eu", "payment.captured", `{"order":{"orderId":"o","status":"COMPLETED","totalAmount":"1"}}`, `{"order":{"orderId":"o","status":"COMPLETED","totalAmount":"1"},"properties":[]}`},
		{"worldline", "payment.pending", `{"id":"1","type":"payment.pending_payment","payment":{"id":"p"}}`, `{"id":"2","type":"payment.capture_requested","payment":{"id":"p"}}`},
		{"omise", "payment.captured", `{"id":"1","key":"charge.capture","data":{"id":"c","status":"successful"}}`, `{"id":"2","key":"charge.complete","data":{"id":"c","status":"successful"}}`},
	} {
		d, _ := cat.Get(c.name)
		a, b := events(t, d, c.a)[0], events(t, d, c.b)[0]
		if a.Canonical != c.is || b.Canonical != c.is {
			t.Errorf("%s: %s and %s, want %s", c.name, a.Canonical, b.Canonical, c.is)
		}
		if a.State == "" || a.State != b.State {
			t.Errorf("%s %s: states %q and %q", c.name, c.is, a.State, b.State)
		}
		if !strings.HasPrefix(a.OwnType, firstOf(d.Family, c.name)+".") {
			t.Errorf("%s: as a repeat it is called %q", c.name, a.OwnType)
		}
	}
	for _, c := range []pair{ // two changes
		{"monobank", "refund.succeeded", mono("2026-05-28T20:26:38Z", `{"status":"success","amount":100,"extRef":"r"}`), mono("2026-05-28T20:26:38Z", `{"status":"success","amount":100,"extRef":"r2"}`)},
		{"monobank", "refund.succeeded", mono("2026-05-28T20:26:38Z", `{"status":"success","amount":100,"createdDate":"1"}`), mono("2026-05-28T20:26:38Z", `{"status":"success","amount":100,"createdDate":"2"}`)},
		{"fondy", "refund.succeeded", fondy("approved", "100", "1"), fondy("approved", "200", "1")},
		{"lemonsqueezy", "refund.succeeded", lemon("order_refunded", "1", "100"), lemon("order_refunded", "1", "200")},
		{"paddle_billing", "refund.succeeded", paddle("1", "adjustment.updated", "adj_1", "approved"), paddle("2", "adjustment.updated", "adj_2", "approved")},
		{"mollie", "refund.pending", mollie("1", "refund.queued", "re_1"), mollie("2", "refund.queued", "re_2")},
		{"stripe", "refund.succeeded", stripe("1", "charge.refunded", `"id":"ch_1","amount_refunded":1`), stripe("2", "charge.refunded", `"id":"ch_1","amount_refunded":2`)},
		{"wise", "payout.failed", wise("1", "cancelled", "1"), wise("2", "cancelled", "1")},
	} {
		d, _ := cat.Get(c.name)
		a, b := events(t, d, c.a)[0], events(t, d, c.b)[0]
		if c.name == "stripe" { // canonical for old API versions only
			if a.State != "" && a.State == b.State {
				t.Errorf("stripe: two refunds are one state %q", a.State)
			}
			continue
		}
		if a.Canonical != c.is || b.Canonical != c.is || a.State == "" || a.State == b.State {
			t.Errorf("%s: %s %q and %s %q are one state, want two of %s", c.name, a.Canonical, a.State, b.Canonical, b.State, c.is)
		}
	}
	// A payment may fail often, and what is no money of ours has no state.
	for name, body := range map[string]string{
		"paddle_billing": `{"event_id":"1","event_type":"transaction.payment_failed","data":{"id":"t","status":"ready"}}`,
		"fondy":          fondy("declined", "0", "1"),
		"stripe":         stripe("1", "charge.updated", `"id":"ch_1"`),
		"midtrans":       `{"order_id":"o","status_code":"200","gross_amount":"1.00","transaction_status":"settlement"}`,
	} {
		d, _ := cat.Get(name)
		if e := events(t, d, body)[0]; e.State != "" {
			t.Errorf("%s: %s has a state %q", name, e.Canonical, e.State)
		}
	}
}

// TestSumsSoFar: a refund whose delivery names the sum of all refunds says so.
func TestSumsSoFar(t *testing.T) {
	cat := builtins(t)
	for name, body := range map[string]string{
		"fondy":        `{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"100"}`,
		"lemonsqueezy": `{"meta":{"event_name":"order_refunded"},"data":{"type":"orders","id":"1","attributes":{"status":"partial_refund","total":900,"currency":"EUR","refunded_amount":100}}}`,
	} {
		d, _ := cat.Get(name)
		e := events(t, d, body)[0]
		if e.Canonical != "refund.succeeded" || !e.NeedsFetch || e.Amount == nil || e.Amount.Minor != 100 || e.PaymentAmount == nil || e.PaymentAmount.Minor != 900 {
			t.Errorf("%s: %s needs fetch %v, amount %+v of %+v", name, e.Canonical, e.NeedsFetch, e.Amount, e.PaymentAmount)
		}
	}
}

// TestOnceProved: nobody who can change a delivery may have a later one taken for its
// repeat, so what is not signed names no state.
func TestOnceProved(t *testing.T) {
	signedFields := `name: p
scheme: hmac
algorithm: sha256
key: utf8
separator: ";"
fields: [id, status]
signature: {field: sig, encoding: hex_lower}
credentials:
  - {name: secrets, role: key}
event: {id: id, status: status, type: status}
canonical: [{status: a, when: {kind: x}, is: payment.captured}, {status: b, is: payment.captured}]
`
	d := parse(t, signedFields+"once: [{is: \"payment.*\", per: [id]}]\n")
	if e := events(t, d, `{"id":"1","status":"b","kind":"x"}`)[0]; e.State == "" {
		t.Error("a signed status has no state")
	}
	if e := events(t, d, `{"id":"1","status":"a","kind":"x"}`)[0]; e.Canonical != "payment.captured" || e.State != "" {
		t.Errorf("%s by an unsigned place has the state %q", e.Canonical, e.State)
	}
	if again := parse(t, string(d.YAML())); len(again.Once) != 1 || events(t, again, `{"id":"1","status":"b"}`)[0].State == "" {
		t.Errorf("not in the text of the definition:\n%s", d.YAML())
	}
	for bad, want := range map[string]string{
		"once: [{is: payment.captured, per: [other]}]":                    "is not signed",
		"once: [{is: payment.captured, when: {other: \"1\"}, per: [id]}]": "is not signed",
		"once: [{is: payment.captured}]":                                  "is and per are wanted",
		"once: [{is: paymnt.captured, per: [id]}]":                        "fits no canonical type",
		"once: [{is: payment.captured, when: {id: {is: []}}, per: [id]}]": "no condition",
	} {
		if _, err := Parse("f.yaml", []byte(signedFields+bad+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}
