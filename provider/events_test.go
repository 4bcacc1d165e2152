package provider

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

func parse(t testing.TB, text string) *Definition {
	t.Helper()
	d, err := Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func events(t testing.TB, d *Definition, body string, headers ...[2]string) []Event {
	t.Helper()
	evs, err := d.Events(&Request{Method: "POST", Target: []byte("/in/x"), Header: MakeHeader(headers), Body: []byte(body)})
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return evs
}

// inline is the definition of the named source in the shared example configuration.
func inline(t *testing.T, source string) ast.Node {
	t.Helper()
	text, err := os.ReadFile("../config/testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Docs[0].Body.(*ast.MappingNode).Values {
		if v.Key.GetToken().Value != "sources" {
			continue
		}
		for _, s := range v.Value.(*ast.SequenceNode).Values {
			m := s.(*ast.MappingNode)
			if m.Values[0].Value.GetToken().Value == source {
				return m.Values[1].Value
			}
		}
	}
	t.Fatalf("no source %s", source)
	return nil
}

func TestSkyrimpay(t *testing.T) {
	d, err := FromNode(inline(t, "skyrimpay"))
	if err != nil {
		t.Fatal(err)
	}
	e := events(t, d, `{"merchant_id":"M1","order_id":"ORD-1","amount":"1299.50","currency":"uah","status":"PAID","signature":"00"}`)[0]
	if e.ID != "ORD-1|PAID" || e.Type != "PAID" || e.Status != "PAID" || e.OrderID != "ORD-1" || e.Canonical != "payment.captured" {
		t.Errorf("read %+v", e)
	}
	if e.Amount == nil || *e.Amount != (Money{129950, "UAH", 2}) {
		t.Errorf("amount %v", e.Amount)
	}
	if want := []string{"type", "status", "id"}; !slices.Equal(e.UnverifiedFields, want) || !e.NeedsFetch {
		t.Errorf("unverified %v, needs fetch %v; the status is not signed", e.UnverifiedFields, e.NeedsFetch)
	}
	// The id is not proved, so the hash of what is signed stands beside it; what is
	// neither in the id nor signed changes nothing.
	same := events(t, d, `{"merchant_id":"M1","order_id":"ORD-1","amount":"1299.50","currency":"uah","status":"PAID","note":"x","signature":"01"}`)[0]
	if same.CEID != e.CEID || same.Content != e.Content {
		t.Errorf("an unsigned field changed the identity: %s, %s", e.CEID, same.CEID)
	}
	for _, other := range []string{
		`{"merchant_id":"M1","order_id":"ORD-1","amount":"1299.50","currency":"uah","status":"refunded"}`,
		`{"merchant_id":"M1","order_id":"ORD-1","amount":"1299.51","currency":"uah","status":"PAID"}`,
	} {
		if events(t, d, other)[0].CEID == e.CEID {
			t.Errorf("%s is the same event", other)
		}
	}
	form := events(t, d, "merchant_id=M1&order_id=ORD-1&amount=1299.50&currency=uah&status=PAID")[0]
	if form.CEID != e.CEID || string(form.Payload) != `{"merchant_id":"M1","order_id":"ORD-1","amount":"1299.50","currency":"uah","status":"PAID"}` || !form.PayloadJSON {
		t.Errorf("as a form: %s %s", form.CEID, form.Payload)
	}
}

// TestRoundTrip: the text that is kept beside the archive means the same as the original.
func TestRoundTrip(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		again, err := Parse(name, d.YAML())
		if err != nil {
			t.Fatalf("%v\n%s", err, d.YAML())
		}
		if string(again.YAML()) != string(d.YAML()) {
			t.Errorf("%s: written twice it differs", name)
		}
		for _, s := range d.SampleTypes() {
			r, err := d.Sample(s.Type, SampleParams{Now: sampleNow})
			if err != nil {
				t.Fatal(err)
			}
			a, _ := d.Events(r)
			b, err := again.Events(r)
			if err != nil {
				t.Fatalf("%s %s: %v", name, s.Type, err)
			}
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if string(x) != string(y) {
				t.Errorf("%s %s: other events after the round trip\n%s\n%s", name, s.Type, x, y)
			}
		}
	}
}

func TestWayForPayIdentity(t *testing.T) {
	d, _ := builtins(t).Get("wayforpay")
	base := `{"merchantAccount":"shop","orderReference":"O1","amount":250.0,"currency":"UAH","authCode":"1","cardPan":"41****8217","transactionStatus":"Refunded","reasonCode":1100,"processingDate":1779999996}`
	e := events(t, d, base)[0]
	change := func(from, to string) Event { return events(t, d, strings.Replace(base, from, to, 1))[0] }
	for _, c := range [][2]string{
		{`1779999996`, `1779999997`},          // not signed: anyone may change it
		{`250.0`, `250.00`}, {`250.0`, `250`}, // the signature takes each of these spellings
		{`1100`, `"1100"`},
	} {
		if got := change(c[0], c[1]); got.CEID != e.CEID {
			t.Errorf("%s for %s makes another event: %s, %s", c[1], c[0], got.CEID, e.CEID)
		}
	}
	for _, c := range [][2]string{{`250.0`, `125.0`}, {`Refunded`, `Approved`}, {`"O1"`, `"O2"`}, {`"1"`, `"2"`}, {`8217`, `1111`}} {
		if got := change(c[0], c[1]); got.CEID == e.CEID {
			t.Errorf("%s for %s is the same event", c[1], c[0])
		}
	}
	if e.ID != "O1|Refunded|1779999996" || !strings.HasPrefix(e.CEID, "O1|Refunded-") {
		t.Errorf("id %q, ce_id %q", e.ID, e.CEID)
	}
	if !slices.Contains(e.UnverifiedFields, "occurred_at") || slices.Contains(e.UnverifiedFields, "status") || e.NeedsFetch {
		t.Errorf("unverified %v, fetch %v", e.UnverifiedFields, e.NeedsFetch)
	}
	auth := change(`"Refunded"`, `"Approved","transactionType":"AUTH"`)
	if auth.Canonical != "payment.authorized" || !slices.Contains(auth.UnverifiedFields, "type") {
		t.Errorf("%s %v: the kind of transaction is not signed", auth.Canonical, auth.UnverifiedFields)
	}
}

func TestLiqPayPartialRefunds(t *testing.T) {
	d, _ := builtins(t).Get("liqpay")
	send := func(doc string) Event {
		body := "data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(doc))) + "&signature=x"
		return events(t, d, body)[0]
	}
	one := `{"payment_id":9007199254740993,"action":"pay","status":"reversed","order_id":"O","amount":100,"refund_amount":10,"refund_date_last":1779999998456,"currency":"UAH","public_key":"i1"}`
	e := send(one)
	if e.PaymentID != "9007199254740993" || e.Amount.Minor != 1000 || e.PaymentAmount.Minor != 10000 || string(e.Payload) != one || *e.Livemode != true {
		t.Errorf("read %+v", e)
	}
	if again := send(one); again.CEID != e.CEID {
		t.Error("a repeat is another event")
	}
	if two := send(strings.Replace(one, "8456", "9999", 1)); two.CEID == e.CEID {
		t.Error("two equal partial refunds are one event although their times are signed")
	}
	if two := send(strings.Replace(one, `"refund_amount":10`, `"refund_amount":20`, 1)); two.CEID == e.CEID {
		t.Error("two partial refunds of other sums are one event")
	}
	for _, body := range []string{"data=e30&signature=x", "data=e30%3D%0A", "data=e30=&data=e30=", "data=%%%", "signature=x", "data=bm90IGpzb24="} {
		wantUnread(t, d, body)
	}
}

// wantUnread: what cannot be read is not dropped. It goes out as bytes, identified by
// them, and nobody books by it unasked.
func wantUnread(t *testing.T, d *Definition, body string) {
	t.Helper()
	evs, err := d.Events(&Request{Body: []byte(body)})
	if err != nil || len(evs) != 1 {
		t.Errorf("%.40q: %d events, %v", body, len(evs), err)
		return
	}
	e := evs[0]
	// With secret fields somewhere in it, nobody can say where, nothing of it goes out.
	if len(d.SecretFields) > 0 {
		body = string(e.Payload)
		if strings.Contains(body, "json") {
			t.Errorf("an unread body with secrets went out: %q", body)
		}
	}
	if e.PayloadJSON && len(d.SecretFields) == 0 || string(e.Payload) != body || !e.NeedsFetch || len(e.Problems) == 0 || e.Amount != nil || e.Canonical != d.Name+".event" {
		t.Errorf("%.40q was read as %+v", body, e)
	}
	if other, err := d.Events(&Request{Body: []byte(body + " ")}); err != nil || other[0].CEID == e.CEID {
		t.Errorf("%.40q and another body are one event", body)
	}
}

// TestLongNumericIDs: the ce_id is the provider's own id also where its digits are as many
// as a card's; a card number never becomes one.
func TestLongNumericIDs(t *testing.T) {
	stripe, _ := builtins(t).Get("stripe")
	for id, own := range map[string]bool{"evt_1779999998456": true, "1779999998469": true, "evt_1795300451265_0": true, "4111111111111111": false, "evt 4111 1111 1111 1111": false} {
		e := events(t, stripe, `{"id":"`+id+`","type":"payment_intent.succeeded"}`)[0]
		if (e.CEID == id) != own || strings.Contains(e.CEID, "4111") {
			t.Errorf("id %s becomes ce_id %s", id, e.CEID)
		}
	}
}

func TestUnsignedIDs(t *testing.T) {
	cat := builtins(t)
	gh, _ := cat.Get("github")
	id := [2]string{"X-GitHub-Delivery", "guid-1"}
	a := events(t, gh, `{"action":"opened"}`, id, [2]string{"X-GitHub-Event", "issues"})[0]
	b := events(t, gh, `{"action":"closed"}`, id, [2]string{"X-GitHub-Event", "issues"})[0]
	if a.ID != "guid-1" || a.CEID == b.CEID || !strings.HasPrefix(a.CEID, "guid-1-") {
		t.Errorf("an unsigned id alone made the identity: %q %q", a.CEID, b.CEID)
	}
	if !slices.Contains(a.UnverifiedFields, "id") || !slices.Contains(a.UnverifiedFields, "type") || a.NeedsFetch {
		t.Errorf("unverified %v", a.UnverifiedFields)
	}
	form := events(t, gh, "payload="+url.QueryEscape(`{"action":"opened"}`), id)[0]
	if form.Status != "opened" || string(form.Payload) != `{"action":"opened"}` {
		t.Errorf("as a form: %+v", form)
	}
	sw, _ := cat.Get("standard_webhooks")
	s := events(t, sw, `{"type":"a"}`, [2]string{"Webhook-Id", "msg_1"})[0]
	if s.CEID != "msg_1" || len(s.UnverifiedFields) != 0 {
		t.Errorf("a signed id: %q %v", s.CEID, s.UnverifiedFields)
	}
	for _, text := range []string{
		"name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: X-S, encoding: hex}\nevent: {id: header:X-Id}\nidentity: id\n",
		"name: x\nscheme: hash_concat\nalgorithm: sha256\nfields: [a, b]\nsignature: {field: s, encoding: hex}\nevent: {id: a}\nidentity: [a, status]\n",
	} {
		if _, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), "sign") {
			t.Errorf("an identity that is not signed was taken: %v", err)
		}
	}
}

func TestMetaBatch(t *testing.T) {
	d, _ := builtins(t).Get("meta")
	msg := func(id string) string {
		return `{"from":"1555","id":"` + id + `","timestamp":"1767225600","type":"text"}`
	}
	body := `{"object":"whatsapp_business_account","entry":[{"id":"E","changes":[{"value":{"metadata":{"phone_number_id":"77"},"messages":[` + msg("m1") + `, ` + msg("m2") + `]},"field":"messages"},{"value":{"x":1},"field":"account_update"}]},{"id":"P","messaging":[{"sender":{"id":"9"},"timestamp":1767225600123,"message":{"mid":"mid1"}}]}]}`
	evs := events(t, d, body)
	var ids, types []string
	for i, e := range evs {
		ids, types = append(ids, e.CEID), append(types, e.Type)
		if e.Item != i || e.Items != 4 || string(e.Payload) != body {
			t.Errorf("item %d of %d, payload %s", e.Item, e.Items, e.Payload)
		}
	}
	if len(evs) != 4 || ids[0] != "m1" || ids[1] != "m2" || !strings.HasPrefix(ids[2], "content-") || ids[3] != "mid1" {
		t.Fatalf("ids %q", ids)
	}
	if !slices.Equal(types, []string{"messages", "messages", "account_update", "message"}) || evs[0].Tenant != "77" || evs[3].Tenant != "P" {
		t.Errorf("types %q, tenants %q %q", types, evs[0].Tenant, evs[3].Tenant)
	}
	alone := events(t, d, `{"object":"whatsapp_business_account","entry":[{"id":"E","changes":[{"value":{"messages":[`+msg("m2")+`]},"field":"messages"}]}]}`)
	if alone[0].CEID != "m2" || alone[0].Content != evs[1].Content {
		t.Error("the same message in another batch is another event")
	}
	if evs := events(t, d, `{"entry":[]}`); len(evs) != 1 {
		t.Errorf("an empty batch gave %d events; nothing may be dropped", len(evs))
	}
}

// TestSharedID: an id that belongs to the delivery gets "#n" for its later events.
func TestSharedID(t *testing.T) {
	d := parse(t, "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: S, encoding: hex}\nitems: [events.*]\nmax_items: 3\nevent: {id: $.id, type: t}\n")
	evs := events(t, d, `{"id":"d1","events":[{"t":"a"},{"t":"b"},{"t":"c"}]}`)
	if len(evs) != 3 || evs[0].CEID != "d1" || evs[1].CEID != "d1#2" || evs[2].CEID != "d1#3" || evs[2].Canonical != "x.c" {
		t.Errorf("%+v", evs)
	}
	if _, err := d.Events(&Request{Body: []byte(`{"id":"d1","events":[1,2,3,4]}`)}); err == nil {
		t.Error("a batch above its bound was cut or taken")
	}
}

func TestBigBatchPayload(t *testing.T) {
	d := parse(t, "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: S, encoding: hex}\nitems: [events.*]\nevent: {id: id}\n")
	one := `{"id":"a","pad":"` + strings.Repeat("x", 4096) + `"}`
	body := `{"events":[` + strings.TrimSuffix(strings.Repeat(one+",", 500), ",") + `]}`
	evs := events(t, d, body)
	if len(evs) != 500 || !evs[7].PayloadItem || string(evs[7].Payload) != one {
		t.Errorf("%d events, payload of %d bytes", len(evs), len(evs[7].Payload))
	}
}

func TestStripeReading(t *testing.T) {
	d, _ := builtins(t).Get("stripe")
	event := func(typ, version, object, previous string) Event {
		return events(t, d, `{"id":"evt_1","api_version":"`+version+`","type":"`+typ+`","livemode":false,"data":{"object":`+object+`,"previous_attributes":`+previous+`}}`)[0]
	}
	e := event("charge.refunded", "2024-06-20", `{"id":"ch","amount":1000,"amount_refunded":700,"currency":"eur"}`, `{"amount_refunded":300}`)
	if e.Canonical != "refund.succeeded" || e.Amount.Minor != 400 || e.PaymentAmount.Minor != 1000 || e.PaymentID != "ch" || *e.Livemode {
		t.Errorf("an old charge.refunded: %+v", e)
	}
	if e = event("charge.refunded", "2024-10-28.acacia", `{"id":"ch","amount":1000,"amount_refunded":700,"currency":"eur"}`, `{}`); e.Canonical != "stripe.charge.refunded" {
		t.Errorf("a new charge.refunded is %s", e.Canonical)
	}
	if e = event("charge.succeeded", "x", `{"id":"ch","amount":5000,"currency":"isk","captured":false}`, `null`); e.Canonical != "payment.authorized" || *e.Amount != (Money{50, "ISK", 0}) {
		t.Errorf("%s %v", e.Canonical, e.Amount)
	}
	if e = event("charge.succeeded", "x", `{"id":"ch","amount":5001,"currency":"isk"}`, `null`); e.Amount != nil || !e.NeedsFetch || len(e.Problems) != 1 {
		t.Errorf("a sum that is no whole number of minor units: %v %v", e.Amount, e.Problems)
	}
	if e = event("refund.updated", "x", `{"id":"re","status":"succeeded","amount":1,"currency":"eur"}`, `{"status":"pending"}`); e.Canonical != "refund.succeeded" {
		t.Errorf("%s", e.Canonical)
	}
	if e = event("payment_intent.payment_failed", "x", `{"id":"pi","last_payment_error":{"code":"card_declined","decline_code":"new_code"}}`, `null`); e.FailureReason != "other" || e.FailureCode != "new_code" {
		t.Errorf("reason %q code %q", e.FailureReason, e.FailureCode)
	}
	if e = event("payment_intent.payment_failed", "x", `{"id":"pi","last_payment_error":{"code":"card_declined"}}`, `null`); e.FailureReason != "do_not_honor" {
		t.Errorf("reason %q", e.FailureReason)
	}
	if e = event("brand.new", "x", `{"id":"o"}`, `null`); e.Canonical != "stripe.brand.new" || e.Subject != "o" || !e.Rerendered {
		t.Errorf("an unknown type: %+v", e)
	}
	if e = event("payment_intent.succeeded", "x", `{"id":"pi","amount":1,"amount":2,"currency":"eur"}`, `null`); !e.NeedsFetch || !slices.Equal(e.Problems, []string{"data.object.amount stands twice"}) {
		t.Errorf("a sum that stands twice: %v", e.Problems)
	}
}
