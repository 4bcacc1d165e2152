package provider

import (
	"bytes"
	"testing"
	"time"
)

var sampleNow = time.Date(2026, 5, 28, 20, 26, 40, 0, time.UTC)

// TestSamples: every sample is what its file says it is, carries the order, the sum and
// the event id that were asked for, and is the same bytes for the same parameters.
func TestSamples(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		if len(d.SampleTypes()) == 0 {
			t.Errorf("%s has no samples", name)
		}
		for _, info := range d.SampleTypes() {
			p := SampleParams{OrderID: "ORD-77", EventID: "", Now: sampleNow, AmountMinor: 123456, Currency: "EUR", Livemode: true}
			r, err := d.Sample(info.Type, p)
			if err != nil {
				t.Error(err)
				continue
			}
			again, _ := d.Sample(info.Type, p)
			if !bytes.Equal(r.Body, again.Body) || !bytes.Equal(r.Header, again.Header) {
				t.Errorf("%s %s: two samples of the same parameters differ", name, info.Type)
			}
			evs, err := d.Events(r)
			if err != nil {
				t.Errorf("%s %s: %v", name, info.Type, err)
				continue
			}
			checkSample(t, d, info, &evs[0])
		}
	}
}

func checkSample(t *testing.T, d *Definition, info SampleInfo, e *Event) {
	t.Helper()
	at := d.Name + " " + info.Type
	want := info.Canonical
	if want == "provider" {
		want = firstOf(d.Family, d.Name) + "." + e.Type
	}
	if e.Canonical != want {
		t.Errorf("%s becomes %s, want %s", at, e.Canonical, want)
	}
	if len(e.Problems) > 0 {
		t.Errorf("%s: %v", at, e.Problems)
	}
	if e.CEID == "" || e.Type == "" {
		t.Errorf("%s: ce_id %q, type %q", at, e.CEID, e.Type)
	}
	if !e.OccurredAt.IsZero() && !e.OccurredAt.Equal(sampleNow) {
		t.Errorf("%s: occurred at %s", at, e.OccurredAt)
	}
	money := info.Canonical == "payment.captured" || info.Canonical == "refund.succeeded"
	want123456 := Money{Minor: 123456, Currency: firstOf(d.Samples.Currency, "EUR")}
	want123456.Exponent, _ = currencyExponent(want123456.Currency)
	if money && !thin(d) && !(e.Amount == nil && e.NeedsFetch) && (e.Amount == nil || *e.Amount != want123456) {
		t.Errorf("%s: amount %v", at, e.Amount)
	}
	if money && (e.OrderID == "" && info.Canonical == "payment.captured" || e.PaymentID == "") && d.Name != "generic_hash_concat" {
		t.Errorf("%s: order %q, payment %q", at, e.OrderID, e.PaymentID)
	}
	if failed := e.FailureReason != ""; failed != (info.Canonical == "payment.failed" || info.Canonical == "refund.failed" || info.Canonical == "payout.failed") {
		t.Errorf("%s: failure reason %q", at, e.FailureReason)
	}
}

// thin says that a provider's events name no money at all: whoever books must ask.
func thin(d *Definition) bool {
	for _, s := range d.Shapes {
		if s.Event.Amount.Unit != "" {
			return false
		}
	}
	return d.Event.Amount.Unit == "" && d.NeedsFetch != nil && *d.NeedsFetch
}

// TestSampleEventID: the id that a sender names is the id that comes out.
func TestSampleEventID(t *testing.T) {
	cat := builtins(t)
	for name, id := range map[string]string{"stripe": "evt_42", "paddle_billing": "evt_42", "github": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "shopify": "wh-42", "slack": "Ev42", "standard_webhooks": "msg_42", "paddle_classic": "4242", "meta": "wamid.42"} {
		d, _ := cat.Get(name)
		r, err := d.Sample("", SampleParams{EventID: id})
		if err != nil {
			t.Fatal(err)
		}
		evs, err := d.Events(r)
		if err != nil {
			t.Fatal(err)
		}
		if evs[0].ID != id {
			t.Errorf("%s: event id %q, want %q", name, evs[0].ID, id)
		}
	}
	if d, _ := cat.Get("stripe"); d != nil {
		if _, err := d.Sample("no.such", SampleParams{}); err == nil {
			t.Error("a sample that is not there was made")
		}
		r, err := d.Sample("refund.succeeded", SampleParams{})
		if err != nil || !bytes.Contains(r.Body, []byte("refund.created")) {
			t.Errorf("a canonical type picks no sample: %v", err)
		}
	}
}

// TestBookedOnce: whatever events a provider sends about one payment, its money is booked
// once: at most one captured and one refunded sum per payment, in every subset of the
// events, because a row does not look at the others.
func TestBookedOnce(t *testing.T) {
	cat := builtins(t)
	lives := map[string][][]string{
		"stripe": {
			{"payment_intent.created", "payment_intent.requires_action", "payment_intent.processing", "charge.succeeded", "payment_intent.succeeded", "charge.updated", "checkout.session.completed", "invoice.paid", "invoice.payment_succeeded", "customer.subscription.created"},
			{"payment_intent.amount_capturable_updated", "charge.succeeded", "charge.captured", "payment_intent.succeeded"},
			{"charge.refunded", "refund.created", "refund.updated", "charge.refund.updated"},
		},
		"paddle_billing": {{"transaction.created", "transaction.paid", "transaction.completed", "subscription.created", "subscription.updated"}, {"adjustment.created", "adjustment.updated"}},
		"paddle_classic": {{"payment_succeeded", "locker_processed"}, {"subscription_created", "subscription_payment_succeeded"}, {"payment_refunded"}},
		"liqpay":         {{"pay processing", "pay 3ds_verify", "pay wait_accept", "pay success"}, {"hold hold_wait", "hold success"}, {"pay wait_reserve", "pay reversed"}},
		"wayforpay":      {{"Created", "InProcessing", "Pending", "WaitingAuthComplete", "Approved 5100", "Approved"}, {"RefundInProcessing", "Refunded"}},
		"payu_eu":        {{"order.PENDING", "order.WAITING_FOR_CONFIRMATION", "order.COMPLETED"}, {"refund.PENDING", "refund.FINALIZED"}},
		"alipay":         {{"waiting", "trade_status_sync", "finished"}, {"refund"}},
		"braintree":      {{"transaction_settled", "transaction_disbursed", "check"}, {"subscription_went_active", "subscription_charged_successfully"}},
		"nowpayments":    {{"waiting", "confirming", "partially_paid", "finished"}, {"payout processing", "payout sending", "payout finished"}},
		"paysera":        {{"macro.2", "macro.1", "macro.3"}, {"macro.5"}},
		"trustly":        {{"pending", "credit", "account"}, {"payoutconfirmation"}},
		"vipps":          {{"CREATED", "AUTHORIZED", "CAPTURED"}, {"recurring.agreement-activated.v1", "recurring.charge-reserved.v1", "recurring.charge-captured.v1"}},
		"shopify":        {{"orders/create", "orders/updated", "orders/paid"}, {"refunds/create"}},
	}
	for name, list := range lives {
		d, _ := cat.Get(name)
		for _, life := range list {
			booked := map[string][]string{}
			ids := map[string]string{}
			for _, typ := range life {
				r, err := d.Sample(typ, SampleParams{OrderID: "ORD-1", Now: sampleNow})
				if err != nil {
					t.Fatal(err)
				}
				evs, err := d.Events(r)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range evs {
					if old := ids[e.CEID]; old != "" {
						t.Errorf("%s: %s and %s are one event %q", name, old, typ, e.CEID)
					}
					ids[e.CEID] = typ
					switch e.Canonical {
					case "payment.captured", "refund.succeeded", "payout.paid":
						booked[e.Canonical] = append(booked[e.Canonical], typ)
					}
				}
			}
			total := 0
			for is, by := range booked {
				total += len(by)
				if len(by) > 1 {
					t.Errorf("%s: %v all book %s", name, by, is)
				}
			}
			if total != 1 {
				t.Errorf("%s: %v books %d sums, want 1", name, life, total)
			}
		}
	}
}
