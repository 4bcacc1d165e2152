package verify

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"penstock/provider"
)

// payments are the providers whose samples must all be signed as they are sent.
var payments = strings.Fields(`adyen adyen_header monobank gocardless mollie mollie_classic checkout_com square razorpay paystack
	coinbase_commerce lemonsqueezy btcpay worldline authorize_net flutterwave flutterwave_v3 xendit chargebee recurly omise
	paymongo revolut airwallex cashfree wise dwolla midtrans payu_india paymob robokassa iyzico iyzico_callback cryptomus
	opennode comgate fondy fondy_v2 tbank cloudpayments momo vnpay`)

// TestPaymentSamples: every sample of a payment provider signs, verifies, is refused by
// another source, and becomes events.
func TestPaymentSamples(t *testing.T) {
	for _, name := range payments {
		def := get(t, name)
		v, _ := devVerifier(t, def)
		other, _ := devVerifier(t, def)
		if len(def.SampleTypes()) < 2 {
			t.Errorf("%s has fewer than two samples", name)
		}
		for _, info := range def.SampleTypes() {
			r, err := def.Sample(info.Type, provider.SampleParams{Now: testNow})
			if err != nil {
				t.Fatal(err)
			}
			r.PublicURL = "https://hooks.example.com/in/" + name
			if err := v.Sign(r, testNow); err != nil {
				t.Errorf("%s %s: %v", name, info.Type, err)
				continue
			}
			wantReason(t, name+" "+info.Type, v.Verify(r, testNow), "")
			wantReason(t, name+" "+info.Type+" elsewhere", other.Verify(r, testNow), "*")
			if _, err := def.Events(r); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestItems: every element of a batch is proved, and what could slide is pinned.
func TestItems(t *testing.T) {
	v, creds := devVerifier(t, get(t, "adyen"))
	item := `{"NotificationRequestItem":{"additionalData":{},"amount":{"currency":"EUR","value":100},"eventCode":"CAPTURE","merchantReference":"a:1","originalReference":"P","pspReference":"C%d","success":"true"}}`
	body := strings.ReplaceAll(`{"live":"true","notificationItems":[`+item+`,`+item+`]}`, "%d", "7")
	r := delivery("github")
	r.Body = []byte(body)
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "two items", v.Verify(r, testNow), "")
	second := clone(r)
	i := bytes.LastIndex(second.Body, []byte(`"value":100`))
	second.Body[i+len(`"value":1`)] = '9'
	wantReason(t, "the second item changed", v.Verify(second, testNow), SignatureMismatch)
	account := creds["merchant_accounts"][0]
	slid := clone(r)
	slid.Body = bytes.ReplaceAll(slid.Body, []byte(`"pspReference":"C7"`), []byte(`"pspReference":"C7:P"`))
	slid.Body = bytes.ReplaceAll(slid.Body, []byte(`"originalReference":"P"`), []byte(`"originalReference":"`+account+`"`))
	slid.Body = bytes.ReplaceAll(slid.Body, []byte(`"merchantAccountCode":"`+account+`"`), []byte(`"merchantAccountCode":"a"`))
	slid.Body = bytes.ReplaceAll(slid.Body, []byte(`"merchantReference":"a:1"`), []byte(`"merchantReference":"1"`))
	wantReason(t, "the same text, cut elsewhere", v.Verify(slid, testNow), Policy)
	for _, empty := range []string{`{"notificationItems":[]}`, `{}`, `[]`, `{"notificationItems":{}}`} {
		e := clone(r)
		e.Body = []byte(empty)
		wantReason(t, empty, v.Verify(e, testNow), SignatureMissing)
	}
}

// TestKeyIDs: the delivery says which key, and only that one counts.
func TestKeyIDs(t *testing.T) {
	def := get(t, "worldline")
	v := mustNew(t, def, provider.Credentials{"keys": {"a:first", "b:second:with:colons"}}, Options{})
	r := delivery("worldline")
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "key a", v.Verify(r, testNow), "")
	wantReason(t, "key a under the name b", v.Verify(with(r, "X-GCS-KeyId", "b"), testNow), SignatureMismatch)
	wantReason(t, "no name", v.Verify(without(r, "X-GCS-KeyId"), testNow), SignatureMissing)
	if _, err := New(def, provider.Credentials{"keys": {"without an id"}}, Options{}); err == nil {
		t.Error("a key without its id is taken")
	}
}

// TestFixedURL: the notification URL of the source is signed, whatever was called.
func TestFixedURL(t *testing.T) {
	creds, err := DevCredentials(get(t, "square"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Settings: map[string]string{"notification_url": "https://shop.example.com/hook?x=%7Ey"}}
	v := mustNew(t, get(t, "square"), creds, opts)
	r := signed(t, v, "square")
	r.PublicURL = "http://10.0.0.7:8080/hook?x=~y"
	wantReason(t, "called otherwise", v.Verify(r, testNow), "")
	wantReason(t, "without the setting", mustNew(t, get(t, "square"), creds, Options{}).Verify(r, testNow), SignatureMismatch)
}

// TestModes: a live source does not look at the test signature and the other way round.
func TestModes(t *testing.T) {
	def := get(t, "paymongo")
	creds := provider.Credentials{"secrets": {"whsk_x"}}
	live := mustNew(t, def, creds, Options{Settings: map[string]string{"livemode": "true"}})
	test := mustNew(t, def, creds, Options{Settings: map[string]string{"livemode": "false"}})
	r := signed(t, test, "paymongo")
	wantReason(t, "test", test.Verify(r, testNow), "")
	wantReason(t, "test at live", live.Verify(r, testNow), "*")
	wantReason(t, "live at test", test.Verify(signed(t, live, "paymongo"), testNow), "*")
}

// TestAllFields: what is signed as a whole, field by field: nothing may be added, taken
// or changed, and the order of the fields carries no meaning.
func TestAllFields(t *testing.T) {
	v := mustNew(t, get(t, "robokassa"), provider.Credentials{"password2": {"p2"}}, Options{})
	r := delivery("github")
	r.Body = []byte("OutSum=10.500000&InvId=7&Shp_b=2&Shp_a=1")
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "as signed", v.Verify(r, testNow), "")
	reply := v.Ack(r, testNow)
	if string(reply.Body) != "OK7" || reply.ContentType != "text/plain" {
		t.Errorf("ack %q", reply.Body)
	}
	for from, to := range map[string]string{"Shp_b=2&Shp_a=1": "Shp_a=1&Shp_b=2"} {
		c := clone(r)
		c.Body = bytes.Replace(c.Body, []byte(from), []byte(to), 1)
		wantReason(t, "in another order", v.Verify(c, testNow), "")
	}
	for _, add := range []string{"&Shp_c=3", "&shp_c=3", "&SHP_A=1", "&OutSum=1", "&InvId=8"} {
		c := clone(r)
		c.Body = append(c.Body, add...)
		wantReason(t, add, v.Verify(c, testNow), "*")
	}
}

// TestAckFields: what goes back out of a request is a plain word or nothing.
func TestAckFields(t *testing.T) {
	v := mustNew(t, get(t, "robokassa"), provider.Credentials{"password2": {"p2"}}, Options{})
	r := delivery("github")
	r.Body = []byte("OutSum=1&InvId=%3Cscript%3E")
	if got := string(v.Ack(r, testNow).Body); got != "OK" {
		t.Errorf("ack %q", got)
	}
}

// TestMemberSpan: one member is cut out, the rest stays byte for byte.
func TestMemberSpan(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"sign":"x"}`:                          `{"a":1}`,
		`{"sign":"x","a":1}`:                          `{"a":1}`,
		`{"a":1,"sign":"x","b":{"sign":2}}`:           `{"a":1,"b":{"sign":2}}`,
		`{"a":"sign","b":[",\"sign\":1"],"sign":"x"}`: `{"a":"sign","b":[",\"sign\":1"]}`,
		`{"sign":"x"}`:                                `{}`,
		`{"b":{"sign":2},"sign":{"c":[1,2]}}`:         `{"b":{"sign":2}}`,
	} {
		from, to, ok := memberSpan([]byte(text), "sign")
		if got := text[:from] + text[to:]; !ok || got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if _, _, ok := memberSpan([]byte(`{"a":{"sign":1}}`), "sign"); ok {
		t.Error("a member of an inner object was cut out")
	}
}

// TestSyntaxes: what pins the boundaries of joined text.
func TestSyntaxes(t *testing.T) {
	for syntax, cases := range map[string]map[string]bool{
		"bool":     {"true": true, "false": true, "": true, "True": false, "truefalse": false},
		"digits":   {"12": true, "": true, "1a": false, "-1": false, strings.Repeat("1", 33): false},
		"word":     {"A-b_1.c": true, "": true, "a:b": false, "a b": false, "<": false},
		"datetime": {"2024-06-13T11:33:44.592345": true, "02024-06-13T11:33:44": false, "2024-13-13T11:33:44": false, "": false},
	} {
		for text, want := range cases {
			if got := hasSyntax([]byte(text), syntax); got != want {
				t.Errorf("%s %q: %v", syntax, text, got)
			}
		}
	}
}
