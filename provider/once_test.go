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
	braintree := func(at, kind, subject string) string {
		return "<notification><timestamp>2026-05-28T20:26:0" + at + "Z</timestamp><kind>" + kind + "</kind><subject>" + subject + "</subject></notification>"
	}
	plaid := func(status string) string {
		return `{"webhook_type":"PAYMENT_INITIATION","webhook_code":"PAYMENT_STATUS_UPDATE","payment_id":"1","new_payment_status":"` + status + `"}`
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
		{"alipay", "payment.captured", "notify_id=1&trade_no=1&trade_status=TRADE_SUCCESS&total_amount=9.00", "notify_id=2&trade_no=1&trade_status=TRADE_SUCCESS&total_amount=9.00"},
		{"alipay", "refund.succeeded", "notify_id=1&trade_no=1&trade_status=TRADE_SUCCESS&total_amount=9.00&refund_fee=1.00", "notify_id=2&trade_no=1&trade_status=TRADE_CLOSED&total_amount=9.00&refund_fee=1.0"},
		{"braintree", "subscription.created", braintree("1", "subscription_went_active", "<subscription><id>s</id></subscription>"), braintree("2", "subscription_went_active", "<subscription><id>s</id></subscription>")},
		{"braintree", "dispute.lost", braintree("1", "dispute_lost", "<dispute><id>d</id></dispute>"), braintree("2", "dispute_expired", "<dispute><id>d</id></dispute>")},
		{"braintree", "payment.captured", braintree("1", "transaction_settled", "<transaction><id>t</id></transaction>"), braintree("1", "subscription_charged_successfully", "<subscription><id>s</id><transactions><transaction><id>t</id></transaction></transactions></subscription>")},
		{"checkout_com", "refund.succeeded", `{"id":"1","type":"payment_refunded","data":{"id":"p","action_id":"a"}}`, `{"id":"2","type":"payment_refunded","data":{"id":"p","action_id":"a"}}`},
		{"checkout_com", "dispute.won", `{"id":"1","type":"dispute_won","data":{"id":"d"}}`, `{"id":"2","type":"dispute_resolved","data":{"id":"d"}}`},
		{"flutterwave_v3", "payment.captured", `{"event":"charge.completed","data":{"id":1,"status":"successful","amount":1}}`, `{"event":"charge.completed","data":{"id":1,"status":"succeeded","amount":1}}`},
		{"gocardless", "refund.failed", `{"events":[{"id":"1","resource_type":"refunds","action":"failed","links":{"refund":"R"}}]}`, `{"events":[{"id":"2","resource_type":"refunds","action":"bounced","links":{"refund":"R"}}]}`},
		{"momo", "payment.captured", `{"orderId":"o","requestId":"1","amount":1,"transId":7,"resultCode":0,"responseTime":1}`, `{"orderId":"o","requestId":"1","amount":1,"transId":7,"resultCode":0,"responseTime":2}`},
		{"nowpayments", "payment.pending", `{"payment_id":1,"payment_status":"confirming","actually_paid":1}`, `{"payment_id":1,"payment_status":"sending","actually_paid":1.0}`},
		{"nowpayments", "payout.queued", `{"id":"1","batch_withdrawal_id":"b","status":"CREATING"}`, `{"id":"1","batch_withdrawal_id":"b","status":"PROCESSING"}`},
		{"paddle_classic", "payment.captured", "alert_name=payment_succeeded&alert_id=1&order_id=o&sale_gross=1.00", "alert_name=payment_succeeded&alert_id=2&order_id=o&sale_gross=1.00"},
		{"payfast", "payment.captured", "pf_payment_id=1&payment_status=COMPLETE&amount_gross=1.00", "pf_payment_id=1&payment_status=COMPLETE&amount_gross=1.00&billing_date=2026-05-28"},
		{"paysera", "payment.captured", "type=macro&status=1&requestid=1&projectid=9&orderid=o&amount=100&currency=EUR", "type=macro&status=1&requestid=1&projectid=9&orderid=o&amount=100&currency=EUR&payamount=100"},
		{"plaid", "payment.pending", plaid("PAYMENT_STATUS_INITIATED"), plaid("PAYMENT_STATUS_PROCESSING")},
		{"przelewy24", "refund.succeeded", `{"orderId":1,"refundsUuid":"r","amount":1,"status":0}`, `{"orderId":1,"refundsUuid":"r","amount":1,"status":0,"sessionId":"o"}`},
		{"recurly", "payment.captured", `{"id":"p","object_type":"payment","event_type":"succeeded","uuid":"u","event_time":"1"}`, `{"id":"p","object_type":"payment","event_type":"succeeded","uuid":"u","event_time":"2"}`},
		{"standard_webhooks", "subscription.created", `{"business_id":"b","type":"subscription.active","data":{"subscription_id":"s"}}`, `{"business_id":"b","type":"subscription.active","data":{"subscription_id":"s","x":1}}`},
		{"tpay", "payment.captured", "tr_id=1&tr_amount=1.00&tr_status=TRUE&tr_date=1", "tr_id=1&tr_amount=1.00&tr_status=TRUE&tr_date=2"},
		{"truelayer", "refund.succeeded", `{"type":"refund_executed","event_id":"1","refund_id":"r"}`, `{"type":"refund_executed","event_id":"2","refund_id":"r"}`},
		{"trustly", "payout.paid", `{"method":"payoutconfirmation","params":{"data":{"orderid":"1","notificationid":"1"}}}`, `{"method":"payoutconfirmation","params":{"data":{"orderid":"1","notificationid":"2"}}}`},
		{"vipps", "refund.succeeded", `{"pspReference":"1","name":"REFUNDED","success":true,"timestamp":"1"}`, `{"pspReference":"1","name":"REFUNDED","success":true,"timestamp":"2"}`},
		{"vnpay", "payment.captured", "vnp_TransactionNo=1&vnp_ResponseCode=00&vnp_TransactionStatus=00&vnp_PayDate=20260528202638", "vnp_TransactionNo=1&vnp_ResponseCode=00&vnp_TransactionStatus=00&vnp_PayDate=20260528202639"},
		{"wechatpay", "refund.succeeded", `{"id":"1","event_type":"REFUND.SUCCESS","resource":{"refund_id":"r"}}`, `{"id":"2","event_type":"REFUND.SUCCESS","resource":{"refund_id":"r"}}`},
		{"omise", "payment.captured", `{"id":"1","key":"charge.capture","data":{"id":"c","status":"successful"}}`, `{"id":"2","key":"charge.complete","data":{"id":"c","status":"successful"}}`},
	} {
		d, _ := cat.Get(c.name)
		p := &apart{name: c.name}
		a, b := p.read(t, d, c.a, ""), p.read(t, d, c.b, "")
		if a.CEID == b.CEID && c.name != "payu_eu" { // its order and status are the event's id besides
			t.Errorf("%s: the two deliveries of %s are one event, which shows nothing", c.name, c.is)
		}
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
		{"alipay", "refund.succeeded", "notify_id=1&trade_no=1&trade_status=TRADE_SUCCESS&total_amount=9.00&refund_fee=1.00", "notify_id=2&trade_no=1&trade_status=TRADE_SUCCESS&total_amount=9.00&refund_fee=2.00"},
		{"nowpayments", "payment.pending", `{"payment_id":1,"payment_status":"partially_paid","actually_paid":1}`, `{"payment_id":1,"payment_status":"partially_paid","actually_paid":2}`},
		{"vipps", "payment.captured", `{"pspReference":"1","name":"CAPTURED","success":true,"amount":{"value":1}}`, `{"pspReference":"2","name":"CAPTURED","success":true,"amount":{"value":1}}`},
		{"wise", "payout.failed", wise("1", "cancelled", "1"), wise("2", "cancelled", "1")},
	} {
		d, _ := cat.Get(c.name)
		p := &apart{name: c.name}
		a, b := p.read(t, d, c.a, ""), p.read(t, d, c.b, "")
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
		"gocardless":     `{"events":[{"id":"1","resource_type":"payments","action":"confirmed","links":{"payment":"P"}}]}`,
		"paypal":         `{"id":"1","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"c","status":"COMPLETED"}}`,
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
		"paymob":       `{"type":"TRANSACTION","obj":{"id":1,"success":true,"pending":false,"is_refunded":true,"refunded_amount_cents":100,"amount_cents":900,"currency":"EGP","order":{"id":5}}}`,
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
