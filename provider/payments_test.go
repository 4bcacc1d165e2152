package provider

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPartsAreTwo: two partial refunds or captures are two events, a repeat is one.
func TestPartsAreTwo(t *testing.T) {
	cat := builtins(t)
	for _, c := range []struct{ name, a, b string }{
		{"monobank",
			`{"invoiceId":"i","status":"success","amount":900,"ccy":980,"modifiedDate":"2026-05-28T20:26:38Z","cancelList":[{"status":"success","amount":100,"extRef":"r1"}]}`,
			`{"invoiceId":"i","status":"success","amount":900,"ccy":980,"modifiedDate":"2026-05-28T20:26:38Z","cancelList":[{"status":"success","amount":100,"extRef":"r1"},{"status":"success","amount":100,"extRef":"r2"}]}`},
		{"adyen",
			`{"notificationItems":[{"NotificationRequestItem":{"pspReference":"R1","originalReference":"P","amount":{"currency":"EUR","value":100},"eventCode":"REFUND","success":"true"}}]}`,
			`{"notificationItems":[{"NotificationRequestItem":{"pspReference":"R2","originalReference":"P","amount":{"currency":"EUR","value":100},"eventCode":"REFUND","success":"true"}}]}`},
		{"paystack",
			`{"event":"refund.processed","data":{"transaction_reference":"t","refund_reference":"r1","amount":100,"currency":"NGN"}}`,
			`{"event":"refund.processed","data":{"transaction_reference":"t","refund_reference":"r2","amount":100,"currency":"NGN"}}`},
		{"fondy",
			`{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"100"}`,
			`{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"200"}`},
		{"tbank",
			`{"TerminalKey":"T","OrderId":"o","Status":"PARTIAL_REFUNDED","PaymentId":1,"Amount":100,"Success":true}`,
			`{"TerminalKey":"T","OrderId":"o","Status":"PARTIAL_REFUNDED","PaymentId":1,"Amount":200,"Success":true}`},
		{"cashfree",
			`{"type":"REFUND_STATUS_WEBHOOK","data":{"refund":{"cf_refund_id":"1","refund_status":"SUCCESS","refund_amount":1,"refund_currency":"INR"}}}`,
			`{"type":"REFUND_STATUS_WEBHOOK","data":{"refund":{"cf_refund_id":"2","refund_status":"SUCCESS","refund_amount":1,"refund_currency":"INR"}}}`},
		{"vipps",
			`{"msn":"1","reference":"o","pspReference":"1","name":"REFUNDED","amount":{"currency":"NOK","value":100},"success":true}`,
			`{"msn":"1","reference":"o","pspReference":"2","name":"REFUNDED","amount":{"currency":"NOK","value":100},"success":true}`},
		{"przelewy24",
			`{"orderId":1,"sessionId":"o","merchantId":1,"refundsUuid":"r1","amount":100,"currency":"PLN","status":0}`,
			`{"orderId":1,"sessionId":"o","merchantId":1,"refundsUuid":"r2","amount":100,"currency":"PLN","status":0}`},
		{"alipay",
			"notify_type=trade_status_sync&notify_id=n1&trade_no=1&out_trade_no=o&trade_status=TRADE_SUCCESS&total_amount=9.00&refund_fee=1.00&out_biz_no=r1",
			"notify_type=trade_status_sync&notify_id=n2&trade_no=1&out_trade_no=o&trade_status=TRADE_SUCCESS&total_amount=9.00&refund_fee=2.00&out_biz_no=r2"},
		{"trustly",
			`{"method":"debit","params":{"data":{"amount":"1.00","currency":"EUR","messageid":"o","orderid":"1","notificationid":"1"}}}`,
			`{"method":"debit","params":{"data":{"amount":"1.00","currency":"EUR","messageid":"o","orderid":"1","notificationid":"2"}}}`},
		{"wechatpay",
			`{"id":"EV-1","event_type":"REFUND.SUCCESS","resource":{"out_trade_no":"o","transaction_id":"1","refund_id":"r1","refund_status":"SUCCESS","amount":{"total":900,"refund":100}}}`,
			`{"id":"EV-2","event_type":"REFUND.SUCCESS","resource":{"out_trade_no":"o","transaction_id":"1","refund_id":"r2","refund_status":"SUCCESS","amount":{"total":900,"refund":100}}}`},
		{"nowpayments",
			`{"payment_id":1,"payment_status":"partially_paid","price_amount":9,"price_currency":"usd","actually_paid":0.1,"order_id":"o"}`,
			`{"payment_id":1,"payment_status":"partially_paid","price_amount":9,"price_currency":"usd","actually_paid":0.2,"order_id":"o"}`},
	} {
		d, _ := cat.Get(c.name)
		a, again, b := events(t, d, c.a)[0], events(t, d, c.a)[0], events(t, d, c.b)[0]
		if a.CEID != again.CEID {
			t.Errorf("%s: a repeat is another event", c.name)
		}
		if a.CEID == b.CEID {
			t.Errorf("%s: two parts are one event %q", c.name, a.CEID)
		}
		if a.Canonical == "payment.captured" || b.Canonical == "payment.captured" {
			t.Errorf("%s: a refund books as %s, %s", c.name, a.Canonical, b.Canonical)
		}
	}
}

// TestChargesOfSubscriptions: charges of one subscription, equal in their sum, are events
// of their own, and so are the orders of a combined payment.
func TestChargesOfSubscriptions(t *testing.T) {
	cat := builtins(t)
	for name, c := range map[string]struct{ text, part, other string }{
		"payfast":   {"m_payment_id=o&pf_payment_id=11&payment_status=COMPLETE&amount_gross=15.00&merchant_id=1&token=t", "=11", "=12"},
		"braintree": {"<notification><timestamp type=\"datetime\">2026-05-28T20:26:40Z</timestamp><kind>subscription_charged_successfully</kind><subject><subscription><id>s</id><transactions type=\"array\"><transaction><id>t1</id><amount>9.00</amount><currency-iso-code>EUR</currency-iso-code></transaction></transactions></subscription></subject></notification>", ">t1<", ">t2<"},
		"vipps":     {`{"agreementId":"a","chargeId":"c1","eventType":"recurring.charge-captured.v1","amount":100,"amountCaptured":100,"currency":"NOK","occurred":"2026-05-28T20:26:40Z"}`, "c1", "c2"},
	} {
		d, _ := cat.Get(name)
		read := func(text string) Event {
			if name == "braintree" {
				text = "bt_payload=" + url.QueryEscape(inLines([]byte(text)))
			}
			return events(t, d, text)[0]
		}
		a, b := read(c.text), read(strings.Replace(c.text, c.part, c.other, 1))
		if a.CEID == b.CEID || a.CEID != read(c.text).CEID || a.Canonical != "payment.captured" || a.Amount == nil {
			t.Errorf("%s: %+v and %+v", name, a, b)
		}
	}
	d, _ := cat.Get("wechatpay")
	r, err := d.Sample("combined", SampleParams{OrderID: "ORD-1"})
	if err != nil {
		t.Fatal(err)
	}
	evs, err := d.Events(r)
	if err != nil || len(evs) != 2 || evs[0].OrderID != "ORD-1" || evs[1].OrderID != "ORD-1-2" || evs[0].CEID == evs[1].CEID || evs[1].Amount.Minor != 100 {
		t.Errorf("%v %+v", err, evs)
	}
}

// TestUnsignedBody: of what Mercado Pago does not sign, a forged body makes an event of
// its own and takes the place of no true one.
func TestUnsignedBody(t *testing.T) {
	d, _ := builtins(t).Get("mercadopago")
	read := func(id, body string) Event {
		evs, err := d.Events(&Request{Method: "POST", Target: []byte("/in/x?data.id=" + id), Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		return evs[0]
	}
	a := read("1", `{"action":"payment.updated","id":7,"data":{"id":"1"}}`)
	for name, b := range map[string]Event{
		"another body":    read("1", `{"action":"payment.updated","id":7,"data":{"id":"1"},"live_mode":true}`),
		"another payment": read("2", `{"action":"payment.updated","id":7,"data":{"id":"1"}}`),
	} {
		if a.CEID == b.CEID {
			t.Errorf("%s is the same event", name)
		}
	}
	if !a.NeedsFetch || a.OrderID != "1" || !slices.Contains(a.UnverifiedFields, "type") || slices.Contains(a.UnverifiedFields, "order_id") {
		t.Errorf("%+v", a)
	}
}

// TestSlidingDigits: where values are joined without a separator, a digit that slides
// from one into the next makes no other event of the same signed text.
func TestSlidingDigits(t *testing.T) {
	cat := builtins(t)
	d, _ := cat.Get("tbank")
	a := events(t, d, `{"TerminalKey":"T","Status":"CONFIRMED","PaymentId":1,"Amount":129950,"CardId":322264}`)[0]
	b := events(t, d, `{"TerminalKey":"T","Status":"CONFIRMED","PaymentId":1,"Amount":12995,"CardId":"0322264"}`)[0]
	if a.CEID != b.CEID {
		t.Errorf("tbank: %s and %s", a.CEID, b.CEID)
	}
	d, _ = cat.Get("paymob")
	body := `{"type":"TRANSACTION","obj":{"id":192036465,"integration_id":4097558,"order":{"id":217503754},"owner":302852,"amount_cents":100,"currency":"EGP","success":true,"pending":false,"created_at":"2024-06-13T11:33:44"}}`
	a = events(t, d, body)[0]
	b = events(t, d, strings.Replace(body, `192036465,"integration_id":4`, `1920364654,"integration_id":`, 1))[0]
	if a.CEID != b.CEID {
		t.Errorf("paymob: %s and %s", a.CEID, b.CEID)
	}
}

// TestThinEvents: what no delivery says must be asked.
func TestThinEvents(t *testing.T) {
	cat := builtins(t)
	for _, name := range []string{"mollie_classic", "opennode", "mercadopago", "xendit", "chargebee", "comgate", "flutterwave_v3", "midtrans", "gocardless", "recurly", "revolut", "dwolla", "iyzico", "btcpay", "wise", "authorize_net"} {
		d, _ := cat.Get(name)
		r, err := d.Sample("", SampleParams{})
		if err != nil {
			t.Fatal(err)
		}
		evs, err := d.Events(r)
		if err != nil || !evs[0].NeedsFetch {
			t.Errorf("%s: needs no fetch (%v)", name, err)
		}
	}
	// An id and nothing else: each delivery is an event.
	d, _ := cat.Get("mollie_classic")
	r, _ := d.Sample("", SampleParams{})
	r.ReceivedAt = time.Unix(1, 0)
	one, _ := d.Events(r)
	r.ReceivedAt = time.Unix(2, 0)
	two, _ := d.Events(r)
	if one[0].CEID == two[0].CEID {
		t.Error("mollie_classic: the second change of a payment is lost as a duplicate")
	}
}

// TestRows: rows of the tables that no sample shows.
func TestRows(t *testing.T) {
	cat := builtins(t)
	for _, c := range []struct{ name, body, is, reason string }{
		{"worldline", `{"id":"1","type":"refund.refund_requested","refund":{"id":"r"}}`, "refund.pending", ""},
		{"worldline", `{"id":"1","type":"payout.payout_credited","payout":{"id":"o"}}`, "payout.paid", ""},
		{"worldline", `{"id":"1","type":"payout.rejected","payout":{"id":"o"}}`, "payout.failed", "other"},
		{"xendit", `{"event":"ewallet.capture","data":{"id":"e","status":"SUCCEEDED","charge_amount":1,"currency":"IDR"}}`, "payment.captured", ""},
		{"xendit", `{"event":"qr.payment","data":{"id":"q","status":"FAILED"}}`, "payment.failed", "other"},
		{"chargebee", `{"id":"ev","event_type":"authorization_succeeded","content":{"transaction":{"id":"t"}}}`, "payment.authorized", ""},
		{"chargebee", `{"id":"ev","event_type":"refund_initiated","content":{"transaction":{"id":"t"}}}`, "refund.pending", ""},
		{"recurly", `{"id":"p","object_type":"payment","event_type":"processing"}`, "payment.pending", ""},
		{"authorize_net", `{"notificationId":"n","eventType":"net.authorize.customer.subscription.created","payload":{"id":"s","amount":1.00}}`, "subscription.created", ""},
		{"authorize_net", `{"notificationId":"n","eventType":"net.authorize.customer.subscription.suspended","payload":{"id":"s"}}`, "subscription.past_due", ""},
		{"authorize_net", `{"notificationId":"n","eventType":"net.authorize.customer.subscription.expired","payload":{"id":"s"}}`, "subscription.canceled", ""},
		{"cashfree", `{"type":"DISPUTE_CREATED","data":{"dispute":{"dispute_id":1,"dispute_status":"CHARGEBACK_CREATED"}}}`, "dispute.created", ""},
		{"cashfree", `{"type":"DISPUTE_CLOSED","data":{"dispute":{"dispute_id":1,"dispute_status":"CHARGEBACK_MERCHANT_WON"}}}`, "dispute.won", ""},
		{"shopify", `{"id":1,"financial_status":"paid"}`, "payment.captured", ""},
		{"shopify", `{"id":1,"financial_status":"pending"}`, "shopify.orders/paid", ""},
		{"paymob", `{"type":"TRANSACTION","obj":{"id":2,"success":true,"pending":false,"has_parent_transaction":true,"is_refund":true,"is_capture":false,"amount_cents":100,"currency":"EGP","order":{"id":5}}}`, "refund.succeeded", ""},
		{"paymob", `{"type":"TRANSACTION","obj":{"id":2,"success":true,"pending":false,"has_parent_transaction":true,"is_void":true,"is_capture":false,"amount_cents":100,"currency":"EGP","order":{"id":5}}}`, "payment.canceled", ""},
		{"paymob", `{"type":"TRANSACTION","obj":{"id":2,"success":true,"pending":false,"has_parent_transaction":true,"is_refund":false,"is_void":false,"is_capture":true,"amount_cents":100,"currency":"EGP","order":{"id":5}}}`, "payment.captured", ""},
		{"cloudpayments", `{"Id":"sc","Status":"Active","Interval":"Month"}`, "subscription.created", ""},
		{"cloudpayments", `{"Id":"sc","Status":"Rejected","Interval":"Month"}`, "subscription.canceled", ""},
	} {
		d, _ := cat.Get(c.name)
		if e := events(t, d, c.body, [2]string{"X-Shopify-Topic", "orders/paid"})[0]; e.Canonical != c.is || e.FailureReason != c.reason {
			t.Errorf("%s: %s is %s %q, want %s %q", c.name, c.body, e.Canonical, e.FailureReason, c.is, c.reason)
		}
	}
}
