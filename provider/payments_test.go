package provider

import (
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
	for _, name := range []string{"mollie_classic", "opennode", "xendit", "chargebee", "comgate", "flutterwave_v3", "midtrans", "gocardless", "recurly", "revolut", "dwolla", "iyzico", "btcpay", "wise", "authorize_net"} {
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
