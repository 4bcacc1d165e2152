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
	adyen := `{"live":"false","notificationItems":[{"NotificationRequestItem":{"pspReference":"#1","originalReference":"P","amount":{"currency":"EUR","value":100},"eventCode":"#2","success":"true","eventDate":"#3"}}]}`
	stripe := `{"id":"#1","object":"event","type":"#2","created":1,"pending_webhooks":#4,"api_version":"2024-10-28","data":{"object":{"id":"#3","amount":100,"currency":"eur","status":"succeeded","amount_received":100}}}`
	checkout := `{"id":"#1","type":"#2","data":{"id":"pay_1","action_id":"#3","amount":100,"currency":"EUR"}}`
	square := `{"event_id":"#1","type":"refund.updated","data":{"object":{"refund":{"id":"#2","payment_id":"p","status":"COMPLETED","amount_money":{"amount":100,"currency":"USD"}}}}}`
	lemon := `{"meta":{"event_name":"#1"},"data":{"type":"subscription-invoices","id":"#2","attributes":{"status":"x","billing_reason":"renewal","total":100,"currency":"EUR","refunded_amount":#3,"updated_at":"#4"}}}`
	rzp := `{"entity":"event","event":"refund.processed","payload":{"refund":{"entity":{"id":"#1","amount":100,"currency":"INR","payment_id":"p","status":"processed"}}}}`
	chargebee := `{"id":"#1","event_type":"#2","content":{"transaction":{"id":"#3","amount":100,"currency_code":"EUR","status":"success"}}}`
	airwallex := `{"id":"#1","name":"refund.settled","data":{"object":{"id":"#2","payment_intent_id":"i","amount":1.00,"currency":"EUR"}}}`
	worldline := `{"id":"#1","type":"#2","payment":{"id":"p","paymentOutput":{"amountOfMoney":{"amount":100,"currencyCode":"EUR"}}}}`
	for _, c := range []apart{
		{name: "stripe", what: "refund", is: "refund.succeeded", a: in(stripe, "evt_1", "refund.created", "re_1", "1"), b: in(stripe, "evt_2", "refund.created", "re_2", "1"), retry: in(stripe, "evt_1", "refund.created", "re_1", "0")},
		{name: "stripe", what: "subscription payment", is: "payment.captured", a: in(stripe, "evt_1", "payment_intent.succeeded", "pi_1", "1"), b: in(stripe, "evt_2", "payment_intent.succeeded", "pi_2", "1")},
		{name: "liqpay", what: "regular payment", is: "payment.captured", a: `{"payment_id":1,"action":"regular","status":"success","amount":1,"currency":"UAH","transaction_id":1,"end_date":1}`, b: `{"payment_id":1,"action":"regular","status":"success","amount":1,"currency":"UAH","transaction_id":2,"end_date":2}`},
		{name: "liqpay", what: "refund", is: "refund.succeeded", a: `{"payment_id":1,"action":"pay","status":"reversed","amount":3,"refund_amount":1,"currency":"UAH","refund_date_last":1}`, b: `{"payment_id":1,"action":"pay","status":"reversed","amount":3,"refund_amount":1,"currency":"UAH","refund_date_last":2}`},
		{name: "wayforpay", what: "regular payment", is: "payment.captured", a: `{"merchantAccount":"m","orderReference":"o","amount":1,"currency":"UAH","authCode":"1","cardPan":"4****1","transactionStatus":"Approved","reasonCode":1100}`, b: `{"merchantAccount":"m","orderReference":"o_WFPREG-1","amount":1,"currency":"UAH","authCode":"2","cardPan":"4****1","transactionStatus":"Approved","reasonCode":1100}`,
			retry: `{"merchantAccount":"m","orderReference":"o","amount":1.0,"currency":"UAH","authCode":"1","cardPan":"4****1","transactionStatus":"Approved","reasonCode":1100,"processingDate":9}`},
		{name: "wayforpay", what: "refund", is: "refund.succeeded", a: `{"merchantAccount":"m","orderReference":"o","amount":1,"currency":"UAH","authCode":"1","cardPan":"4****1","transactionStatus":"Refunded","reasonCode":1100}`, b: `{"merchantAccount":"m","orderReference":"o","amount":1,"currency":"UAH","authCode":"2","cardPan":"4****1","transactionStatus":"Refunded","reasonCode":1100}`},
		{name: "paddle_billing", what: "refund", is: "refund.succeeded", a: `{"event_id":"e1","notification_id":"n1","event_type":"adjustment.updated","data":{"id":"adj_1","action":"refund","status":"approved","transaction_id":"t","totals":{"total":"100"},"currency_code":"EUR"}}`, b: `{"event_id":"e2","notification_id":"n2","event_type":"adjustment.updated","data":{"id":"adj_2","action":"refund","status":"approved","transaction_id":"t","totals":{"total":"100"},"currency_code":"EUR"}}`},
		{name: "paddle_billing", what: "renewal", is: "payment.captured", a: `{"event_id":"e1","event_type":"transaction.completed","data":{"id":"txn_1","subscription_id":"s","details":{"totals":{"grand_total":"100"}},"currency_code":"EUR"}}`, b: `{"event_id":"e2","event_type":"transaction.completed","data":{"id":"txn_2","subscription_id":"s","details":{"totals":{"grand_total":"100"}},"currency_code":"EUR"}}`},
		{name: "payu_eu", what: "refund", is: "refund.succeeded", a: `{"orderId":"o","extOrderId":"x","refund":{"refundId":"1","amount":"100","currencyCode":"PLN","status":"FINALIZED"}}`, b: `{"orderId":"o","extOrderId":"x","refund":{"refundId":"2","amount":"100","currencyCode":"PLN","status":"FINALIZED"}}`},
		{name: "monobank", what: "refund", is: "refund.succeeded", a: `{"invoiceId":"i","status":"success","amount":900,"ccy":980,"modifiedDate":"2026-05-28T20:26:38Z","cancelList":[{"status":"success","amount":100,"createdDate":"1"}]}`, b: `{"invoiceId":"i","status":"success","amount":900,"ccy":980,"modifiedDate":"2026-05-28T20:26:38Z","cancelList":[{"status":"success","amount":100,"createdDate":"1"},{"status":"success","amount":100,"createdDate":"2"}]}`},
		{name: "fondy", what: "refund", is: "refund.succeeded", a: `{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"100"}`, b: `{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"200"}`},
		{name: "fondy", what: "regular payment", is: "payment.captured", a: `{"payment_id":1,"order_id":"o","order_status":"approved","amount":"100","currency":"UAH","reversal_amount":"0"}`, b: `{"payment_id":2,"order_id":"o","order_status":"approved","amount":"100","currency":"UAH","reversal_amount":"0"}`},
		{name: "adyen", what: "refund", is: "refund.succeeded", a: in(adyen, "R1", "REFUND", "2026-05-28T20:26:38+02:00"), b: in(adyen, "R2", "REFUND", "2026-05-28T20:26:38+02:00"), retry: in(adyen, "R1", "REFUND", "2026-05-28T20:27:38+02:00")},
		{name: "adyen", what: "capture", is: "payment.captured", a: in(adyen, "C1", "CAPTURE", "2026-05-28T20:26:38+02:00"), b: in(adyen, "C2", "CAPTURE", "2026-05-28T20:26:38+02:00")},
		{name: "mollie", what: "refund", is: "refund.succeeded", a: `{"id":"event_1","type":"refund.refunded","entityId":"re_1"}`, b: `{"id":"event_2","type":"refund.refunded","entityId":"re_2"}`},
		{name: "gocardless", what: "attempt", is: "payment.failed", a: `{"events":[{"id":"EV1","resource_type":"payments","action":"failed","links":{"payment":"PM1"}}],"meta":{"webhook_id":"W1"}}`, b: `{"events":[{"id":"EV2","resource_type":"payments","action":"failed","links":{"payment":"PM1"}}],"meta":{"webhook_id":"W2"}}`, retry: `{"events":[{"id":"EV1","resource_type":"payments","action":"failed","links":{"payment":"PM1"}}],"meta":{"webhook_id":"W3"}}`},
		{name: "worldline", what: "capture", is: "payment.captured", a: in(worldline, "1", "payment.captured"), b: in(worldline, "2", "payment.captured")},
		{name: "square", what: "refund", is: "refund.succeeded", a: in(square, "e1", "r1"), b: in(square, "e2", "r2")},
		{name: "checkout_com", what: "capture", is: "payment.captured", a: in(checkout, "evt_1", "payment_captured", "act_1"), b: in(checkout, "evt_2", "payment_captured", "act_2")},
		{name: "checkout_com", what: "refund", is: "refund.succeeded", a: in(checkout, "evt_1", "payment_refunded", "act_1"), b: in(checkout, "evt_2", "payment_refunded", "act_2")},
		{name: "authorize_net", what: "refund", is: "refund.succeeded", a: `{"notificationId":"n1","eventType":"net.authorize.payment.refund.created","payload":{"responseCode":1,"id":"1","authAmount":1.00}}`, b: `{"notificationId":"n2","eventType":"net.authorize.payment.refund.created","payload":{"responseCode":1,"id":"2","authAmount":1.00}}`},
		{name: "lemonsqueezy", what: "renewal", is: "payment.captured", a: in(lemon, "subscription_payment_success", "1", "0", "2026-05-28T20:26:38Z"), b: in(lemon, "subscription_payment_success", "2", "0", "2026-05-28T20:26:38Z")},
		{name: "lemonsqueezy", what: "refund", is: "refund.succeeded", a: in(lemon, "subscription_payment_refunded", "1", "50", "2026-05-28T20:26:38Z"), b: in(lemon, "subscription_payment_refunded", "1", "100", "2026-05-28T20:26:38Z")},
		{name: "recurly", what: "renewal", is: "payment.captured", a: `{"id":"p1","object_type":"payment","event_type":"succeeded","event_time":"2026-05-28T20:26:38Z","site_id":"s"}`, b: `{"id":"p2","object_type":"payment","event_type":"succeeded","event_time":"2026-05-28T20:26:38Z","site_id":"s"}`},
		{name: "chargebee", what: "renewal", is: "payment.captured", a: in(chargebee, "ev_1", "payment_succeeded", "t1"), b: in(chargebee, "ev_2", "payment_succeeded", "t2")},
		{name: "shopify", what: "refund", is: "refund.succeeded", headers: [2]string{"X-Shopify-Webhook-Id", "w1"}, a: `{"id":1,"order_id":9,"transactions":[{"amount":"1.00","currency":"EUR"}]}`, b: `{"id":2,"order_id":9,"transactions":[{"amount":"1.00","currency":"EUR"}]}`},
		{name: "airwallex", what: "refund", is: "refund.succeeded", a: in(airwallex, "e1", "r1"), b: in(airwallex, "e2", "r2")},
		{name: "razorpay", what: "refund", is: "refund.succeeded", headers: [2]string{"X-Razorpay-Event-Id", "e1"}, a: in(rzp, "r1"), b: in(rzp, "r2")},
		{name: "paystack", what: "renewal", is: "payment.captured", a: `{"event":"charge.success","data":{"id":1,"reference":"r1","amount":100,"currency":"NGN","status":"success","paid_at":"2026-05-28T20:26:38Z"}}`, b: `{"event":"charge.success","data":{"id":2,"reference":"r2","amount":100,"currency":"NGN","status":"success","paid_at":"2026-05-28T20:26:38Z"}}`},
		{name: "paystack", what: "refund", is: "refund.succeeded", a: `{"event":"refund.processed","data":{"transaction_reference":"t","refund_reference":"r1","amount":100,"currency":"NGN"}}`, b: `{"event":"refund.processed","data":{"transaction_reference":"t","refund_reference":"r2","amount":100,"currency":"NGN"}}`},
		{name: "flutterwave", what: "renewal", is: "payment.captured", a: `{"webhook_id":"w1","type":"charge.completed","data":{"id":"1","status":"succeeded","amount":1,"currency":"NGN"}}`, b: `{"webhook_id":"w2","type":"charge.completed","data":{"id":"2","status":"succeeded","amount":1,"currency":"NGN"}}`},
		{name: "flutterwave_v3", what: "renewal", is: "payment.captured", a: `{"event":"charge.completed","data":{"id":1,"tx_ref":"a","status":"successful","amount":1,"currency":"NGN"}}`, b: `{"event":"charge.completed","data":{"id":2,"tx_ref":"a","status":"successful","amount":1,"currency":"NGN"}}`},
		{name: "xendit", what: "refund", is: "refund.succeeded", headers: [2]string{"webhook-id", "w1"}, a: `{"event":"refund.succeeded","data":{"id":"rfd-1","amount":100,"currency":"IDR"}}`, b: `{"event":"refund.succeeded","data":{"id":"rfd-2","amount":100,"currency":"IDR"}}`},
		{name: "omise", what: "refund", is: "refund.succeeded", a: `{"id":"evnt_1","key":"refund.create","data":{"id":"rfnd_1","charge":"c","amount":100,"currency":"thb"}}`, b: `{"id":"evnt_2","key":"refund.create","data":{"id":"rfnd_2","charge":"c","amount":100,"currency":"thb"}}`},
		{name: "paymongo", what: "refund", is: "refund.succeeded", a: `{"data":{"id":"evt_1","attributes":{"type":"payment.refunded","data":{"id":"pay_1","attributes":{"amount":900,"currency":"PHP","refunds":[{"id":"ref_1","attributes":{"amount":100}}]}}}}}`, b: `{"data":{"id":"evt_2","attributes":{"type":"payment.refunded","data":{"id":"pay_1","attributes":{"amount":900,"currency":"PHP","refunds":[{"id":"ref_1","attributes":{"amount":100}},{"id":"ref_2","attributes":{"amount":100}}]}}}}}`},
		{name: "cashfree", what: "attempt", is: "payment.failed", a: `{"type":"PAYMENT_FAILED_WEBHOOK","data":{"order":{"order_id":"o"},"payment":{"cf_payment_id":1,"payment_status":"FAILED","payment_amount":1.00}}}`, b: `{"type":"PAYMENT_FAILED_WEBHOOK","data":{"order":{"order_id":"o"},"payment":{"cf_payment_id":2,"payment_status":"FAILED","payment_amount":1.00}}}`},
		{name: "tbank", what: "refund", is: "refund.succeeded", a: `{"TerminalKey":"T","OrderId":"o","Status":"PARTIAL_REFUNDED","PaymentId":1,"Amount":100,"Success":true}`, b: `{"TerminalKey":"T","OrderId":"o","Status":"PARTIAL_REFUNDED","PaymentId":1,"Amount":200,"Success":true}`},
		{name: "cloudpayments", what: "refund", is: "refund.succeeded", a: `{"TransactionId":2,"PaymentTransactionId":1,"OperationType":"Refund","Amount":"1.00","DateTime":"2026-05-28 20:26:38"}`, b: `{"TransactionId":3,"PaymentTransactionId":1,"OperationType":"Refund","Amount":"1.00","DateTime":"2026-05-28 20:26:38"}`},
		{name: "coinbase_commerce", what: "payment", is: "payment.captured", a: `{"id":"1","attempt_number":1,"event":{"id":"e1","type":"charge:confirmed","data":{"id":"c1"}}}`, b: `{"id":"2","attempt_number":1,"event":{"id":"e2","type":"charge:confirmed","data":{"id":"c2"}}}`, retry: `{"id":"3","attempt_number":2,"event":{"id":"e1","type":"charge:confirmed","data":{"id":"c1"}}}`},
		{name: "btcpay", what: "payment", is: "payment.captured", a: `{"deliveryId":"d1","originalDeliveryId":"d1","isRedelivery":false,"type":"InvoiceSettled","invoiceId":"i1"}`, b: `{"deliveryId":"d2","originalDeliveryId":"d2","isRedelivery":false,"type":"InvoiceSettled","invoiceId":"i2"}`, retry: `{"deliveryId":"d3","originalDeliveryId":"d1","isRedelivery":true,"type":"InvoiceSettled","invoiceId":"i1"}`},
		{name: "cryptomus", what: "payment", is: "payment.captured", a: `{"type":"payment","uuid":"u1","order_id":"o","status":"paid","amount":"1","currency":"USD","txid":"t1"}`, b: `{"type":"payment","uuid":"u2","order_id":"o","status":"paid","amount":"1","currency":"USD","txid":"t2"}`},
		{name: "momo", what: "payment", is: "payment.captured", a: `{"partnerCode":"P","orderId":"o","requestId":"r1","amount":1000,"transId":1,"resultCode":0,"responseTime":1}`, b: `{"partnerCode":"P","orderId":"o","requestId":"r2","amount":1000,"transId":2,"resultCode":0,"responseTime":2}`},
		{name: "wise", what: "sending", is: "payout.sent", a: `{"subscription_id":"s","event_type":"transfers#state-change","sent_at":"1","data":{"resource":{"id":1,"type":"transfer"},"current_state":"outgoing_payment_sent","occurred_at":"2026-05-28T20:26:38Z"}}`, b: `{"subscription_id":"s","event_type":"transfers#state-change","sent_at":"1","data":{"resource":{"id":2,"type":"transfer"},"current_state":"outgoing_payment_sent","occurred_at":"2026-05-28T20:26:38Z"}}`, retry: `{"subscription_id":"s","event_type":"transfers#state-change","sent_at":"2","data":{"resource":{"id":1,"type":"transfer"},"current_state":"outgoing_payment_sent","occurred_at":"2026-05-28T20:26:38Z"}}`},
		{name: "midtrans", what: "refund", is: "refund.succeeded", a: `{"order_id":"o","status_code":"200","gross_amount":"9.00","transaction_id":"t","transaction_status":"partial_refund","refunds":[{"refund_key":"k1","refund_amount":"1.00"}]}`, b: `{"order_id":"o","status_code":"200","gross_amount":"9.00","transaction_id":"t","transaction_status":"partial_refund","refunds":[{"refund_key":"k1","refund_amount":"1.00"},{"refund_key":"k2","refund_amount":"1.00"}]}`},
		{name: "cloudpayments", what: "past due", is: "subscription.past_due", a: `{"Id":"sc_1","Status":"PastDue","Interval":"Month","Period":1,"FailedTransactionsNumber":1}`, b: `{"Id":"sc_1","Status":"PastDue","Interval":"Month","Period":1,"FailedTransactionsNumber":2}`},
		{name: "paddle_classic", what: "refund", is: "refund.succeeded", a: `alert_name=payment_refunded&alert_id=1&order_id=o&gross_refund=1.00&currency=EUR`, b: `alert_name=payment_refunded&alert_id=2&order_id=o&gross_refund=1.00&currency=EUR`},
		{name: "paddle_classic", what: "attempt", is: "payment.failed", a: `alert_name=subscription_payment_failed&alert_id=1&subscription_id=s&amount=1.00&currency=EUR`, b: `alert_name=subscription_payment_failed&alert_id=2&subscription_id=s&amount=1.00&currency=EUR`},
		{name: "fondy_v2", what: "refund", is: "refund.succeeded", a: `{"order":{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"100"}}`, b: `{"order":{"payment_id":1,"order_id":"o","order_status":"approved","amount":"900","currency":"UAH","reversal_amount":"200"}}`},
		{name: "payu_india", what: "renewal", is: "payment.captured", a: `txnid=a&status=success&amount=1.00&key=k&mihpayid=1`, b: `txnid=b&status=success&amount=1.00&key=k&mihpayid=2`},
		{name: "robokassa", what: "renewal", is: "payment.captured", a: `InvId=1&OutSum=1.00&SignatureValue=x`, b: `InvId=2&OutSum=1.00&SignatureValue=x`},
		{name: "comgate", what: "payment", is: "payment.captured", a: `transId=1&refId=o&status=PAID&price=100&curr=CZK&secret=s`, b: `transId=2&refId=o&status=PAID&price=100&curr=CZK&secret=s`},
		{name: "paymob", what: "refund", is: "refund.succeeded", a: `{"type":"TRANSACTION","obj":{"id":1,"success":true,"pending":false,"is_refunded":true,"amount_cents":100,"currency":"EGP","created_at":"1","integration_id":1,"owner":1,"order":{"id":5}}}`, b: `{"type":"TRANSACTION","obj":{"id":2,"success":true,"pending":false,"is_refunded":true,"amount_cents":100,"currency":"EGP","created_at":"2","integration_id":1,"owner":1,"order":{"id":5}}}`},
		{name: "opennode", what: "payment", is: "payment.captured", a: `id=1&status=paid&order_id=o&hashed_order=x`, b: `id=2&status=paid&order_id=o&hashed_order=y`},
		{name: "vnpay", what: "payment", is: "payment.captured", a: `vnp_TransactionNo=1&vnp_TxnRef=a&vnp_ResponseCode=00&vnp_TransactionStatus=00&vnp_Amount=100&vnp_PayDate=20260528202638`, b: `vnp_TransactionNo=2&vnp_TxnRef=a&vnp_ResponseCode=00&vnp_TransactionStatus=00&vnp_Amount=100&vnp_PayDate=20260528202638`},
		{name: "revolut", what: "payment", is: "payment.captured", a: `{"event":"ORDER_COMPLETED","order_id":"1"}`, b: `{"event":"ORDER_COMPLETED","order_id":"2"}`},
	} {
		d, ok := cat.Get(c.name)
		if !ok {
			t.Errorf("no provider %s", c.name)
			continue
		}
		read := func(body, mark string) Event {
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
			r := &Request{Method: "POST", Header: MakeHeader(h), Body: []byte(wrapped(d, body))}
			if slices.Contains(d.Methods(), "GET") && !slices.Contains(d.Methods(), "POST") {
				r.Method, r.Target, r.Body = "GET", []byte("/in/x?"+body), nil
			}
			evs, err := d.Events(r)
			if err != nil || len(evs) != 1 {
				t.Fatalf("%s: %d events, %v", c.name, len(evs), err)
			}
			return evs[0]
		}
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

// wrapped puts a document into the form that its provider sends it in.
func wrapped(d *Definition, doc string) string {
	for _, r := range d.Document {
		if r.Kind == "json" && r.As == "base64-json" {
			return `{"` + r.Form + `":"` + base64.StdEncoding.EncodeToString([]byte(doc)) + `"}`
		}
		if r.Form != "" && r.As == "base64-json" {
			return r.Form + "=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(doc))) + "&signature=x"
		}
	}
	return doc
}
