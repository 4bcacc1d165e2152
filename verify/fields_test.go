package verify

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

func concatSig(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// TestHashConcatHoles: texts joined without separators have several readings; each one
// but the sender's is refused although its hash is right.
func TestHashConcatHoles(t *testing.T) {
	const key = "pk_0123456789abcdef"
	v := mustNew(t, get(t, "generic_hash_concat"), provider.Credentials{"merchant_id": {"M10001"}, "private_key": {key}}, Options{})
	sig := concatSig("M10001", "1299.50", "UAH", "ORD-1", key)
	for _, c := range []struct{ name, body, reason string }{
		{"as sent", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":"S"}`, ""},
		{"number token", `{"merchant_id":"M10001","amount":1299.50,"currency":"UAH","order_id":"ORD-1","signature":"S"}`, ""},
		{"form", `merchant_id=M10001&amount=1299.50&currency=UAH&order_id=ORD-1&signature=S`, ""},
		{"merchant to amount", `{"merchant_id":"M1000","amount":"11299.50","currency":"UAH","order_id":"ORD-1","signature":"S"}`, MerchantMismatch},
		{"amount to merchant", `{"merchant_id":"M100011","amount":"299.50","currency":"UAH","order_id":"ORD-1","signature":"S"}`, MerchantMismatch},
		{"amount to currency", `{"merchant_id":"M10001","amount":"1299.5","currency":"0UAH","order_id":"ORD-1","signature":"S"}`, Policy},
		{"currency to order", `{"merchant_id":"M10001","amount":"1299.50","currency":"UA","order_id":"HORD-1","signature":"S"}`, Policy},
		{"order to currency", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAHO","order_id":"RD-1","signature":"S"}`, Policy},
		{"currency to amount", `{"merchant_id":"M10001","amount":"1299.50U","currency":"AHO","order_id":"RD-1","signature":"S"}`, Policy},
		{"all in one", `{"merchant_id":"M10001","amount":"1299.50UAHORD-1","currency":"","order_id":"","signature":"S"}`, Policy},
		{"absent field", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","signature":"S"}`, SignatureMalformed},
		{"null field", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":null,"signature":"S"}`, SignatureMalformed},
		{"object field", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":{"x":"ORD-1"},"signature":"S"}`, SignatureMalformed},
		{"duplicate field", `{"merchant_id":"M10001","amount":"1299.50","amount":"1.00","currency":"UAH","order_id":"ORD-1","signature":"S"}`, SignatureMalformed},
		{"duplicate in another case", `{"merchant_id":"M10001","amount":"1299.50","Amount":"1.00","currency":"UAH","order_id":"ORD-1","signature":"S"}`, SignatureMalformed},
		{"duplicate by escape", `{"merchant_id":"M10001","amount":"1299.50","\u0061mount":"1.00","currency":"UAH","order_id":"ORD-1","signature":"S"}`, SignatureMalformed},
		{"duplicate signature", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":"S","signature":"x"}`, SignatureMalformed},
		{"duplicate form field", `merchant_id=M10001&amount=1299.50&amount=1&currency=UAH&order_id=ORD-1&signature=S`, SignatureMalformed},
		{"semicolon in the form", `merchant_id=M10001&amount=1299.50;x=1&currency=UAH&order_id=ORD-1&signature=S`, SignatureMissing},
		{"bad escape in the form", `merchant_id=M10001&amount=1299.50&currency=UAH&order_id=ORD-1&signature=S&x=%zz`, SignatureMissing},
		{"no signature", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1"}`, SignatureMissing},
		{"null signature", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":null}`, SignatureMissing},
		{"list signature", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":["S"]}`, SignatureMalformed},
		{"raw control character", "{\"x\":\"\t\",\"merchant_id\":\"M10001\",\"amount\":\"1299.50\",\"currency\":\"UAH\",\"order_id\":\"ORD-1\",\"signature\":\"S\"}", SignatureMissing},
		{"number that is none", `{"x":1-2,"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":"S"}`, SignatureMissing},
		{"trailing garbage", `{"merchant_id":"M10001","amount":"1299.50","currency":"UAH","order_id":"ORD-1","signature":"S"}}`, SignatureMissing},
		{"empty", ``, SignatureMissing},
		{"query", `?merchant_id=M10001&amount=1299.50&currency=UAH&order_id=ORD-1&signature=S`, ""},
		{"array", `[]`, SignatureMissing},
		{"100,000 deep", strings.Repeat("[", 100000), SignatureMissing},
	} {
		r := delivery("generic_hash_concat")
		r.Body = []byte(strings.ReplaceAll(c.body, `S"`, sig+`"`))
		if strings.HasPrefix(c.body, "merchant") {
			r.Body = []byte(strings.ReplaceAll(c.body, "=S", "="+sig))
		}
		if strings.HasPrefix(c.body, "?") {
			r.Target, r.Body = []byte("/in/x"+strings.ReplaceAll(c.body, "=S", "="+sig)), nil
		}
		res := v.Verify(r, testNow)
		wantReason(t, c.name, res, c.reason)
		if c.reason == "" && res.Tenant != "M10001" {
			t.Errorf("%s: tenant %q", c.name, res.Tenant)
		}
	}
}

// TestAmountSyntax: what is signed and is no plain decimal is refused all the same.
func TestAmountSyntax(t *testing.T) {
	const key = "pk_0123456789abcdef"
	v := mustNew(t, get(t, "generic_hash_concat"), provider.Credentials{"private_key": {key}}, Options{})
	for amount, ok := range map[string]bool{
		"1": true, "0": true, "0.01": true, "1299.50": true, "999999999999999999": true, "0.000000000000000001": true,
		"01": false, "00.1": false, "1.": false, ".1": false, "1.2.3": false, "+1": false, "-1": false, "1e3": false, "1,5": false,
		" 1": false, "1 ": false, "": false, "NaN": false, "1_000": false, "١": false, "9999999999999999999": false,
	} {
		r := delivery("generic_hash_concat")
		r.Body = []byte(fmt.Sprintf(`{"merchant_id":"M","amount":%q,"currency":"UAH","order_id":"o","signature":%q}`, amount, concatSig("M", amount, "UAH", "o", key)))
		reason := ""
		if !ok {
			reason = Policy
		}
		wantReason(t, amount, v.Verify(r, testNow), reason)
	}
}

// TestPublishedSecret: a secret that stands in public documentation is refused at load.
func TestPublishedSecret(t *testing.T) {
	def := schemeDef(t, "scheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X-Sig, encoding: hex}\nrefused_credentials: [published-test-secret]")
	if _, err := New(def, provider.Credentials{"secrets": {"a-good-secret-of-ours", "published-test-secret"}}, Options{}); err == nil {
		t.Error("a published secret is taken")
	}
}

// TestHashConcatSettings: the source's settings change the construction, and what they do
// not prove is refused at load.
func TestHashConcatSettings(t *testing.T) {
	def := get(t, "generic_hash_concat")
	creds := provider.Credentials{"private_key": {"pk_0123456789abcdef"}}
	for _, s := range []map[string]string{
		{"algorithm": "md5"}, {"algorithm": "sha512", "encoding": "HEX"}, {"separator": "|"}, {"key_position": "prefix"},
		{"key_position": "both", "separator": ":"}, {"encoding": "base64"}, {"signature_field": "sign"}, {"body": "form"}, {"body": "query"},
		{"fields": "order_id,amount,currency,status", "required_signed": "status,amount"},
	} {
		v := mustNew(t, def, creds, Options{Settings: s})
		plain := mustNew(t, def, creds, Options{})
		r := delivery("generic_hash_concat")
		if s["body"] != "" {
			r.Body = []byte("x=1")
			form := "merchant_id=M1&order_id=o1&amount=10.50&currency=EUR"
			if s["body"] == "form" {
				r.Body = []byte(form)
			} else {
				r.Target = []byte("/in/x?" + form)
			}
		}
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		wantReason(t, fmt.Sprint(s), v.Verify(r, testNow), "")
		if s["body"] != "form" {
			wantReason(t, fmt.Sprint(s, " under the defaults"), plain.Verify(r, testNow), "*")
		}
	}
	for _, s := range []map[string]string{
		{"required_signed": "status"}, {"fields": "amount", "required_signed": "currency"}, {"algorithm": "crc32"}, {"algorithm": ""},
		{"encoding": "rot13"}, {"min_algorithm": "md5"}, {"nonsense": "1"}, {"fields": ""}, {"key_position": "middle"}, {"fields": "a,a"},
	} {
		if _, err := New(def, creds, Options{Settings: s}); err == nil {
			t.Errorf("settings %v load", s)
		}
	}
}

// TestSeparatorInValues: a value that holds the separator has two readings.
func TestSeparatorInValues(t *testing.T) {
	def := get(t, "generic_hash_concat")
	v := mustNew(t, def, provider.Credentials{"private_key": {"pk_0123456789abcdef"}}, Options{Settings: map[string]string{"separator": "|", "fields": "order_id,description", "required_signed": ""}})
	sig := concatSig("a|b", "|", "c", "|", "pk_0123456789abcdef")
	r := delivery("generic_hash_concat")
	r.Body = []byte(`{"order_id":"a|b","description":"c","signature":"` + sig + `"}`)
	wantReason(t, "separator in a value", v.Verify(r, testNow), SignatureMalformed)
}

func TestWayForPay(t *testing.T) {
	const key = "flk3409refn54t54tFNJRET0"
	v := mustNew(t, get(t, "wayforpay"), provider.Credentials{"merchant_account": {"shop"}, "secret_key": {key}}, Options{})
	sum := func(text string) string {
		m := hmac.New(md5.New, []byte(key))
		m.Write([]byte(text))
		return hex.EncodeToString(m.Sum(nil))
	}
	build := func(account, amount, auth, text string) *provider.Request {
		r := delivery("wayforpay")
		r.Body = []byte(`{"merchantAccount":"` + account + `","orderReference":"o\u0447/1","merchantSignature":"` + sum(text) +
			`","amount":` + amount + `,"currency":"UAH",` + auth + `"cardPan":"41****17","transactionStatus":"Approved","reasonCode":1100}`)
		return r
	}
	for _, c := range []struct{ name, account, amount, auth, text, reason string }{
		{"raw", "shop", "250.0", `"authCode":"1",`, "shop;oч/1;250.0;UAH;1;41****17;Approved;1100", ""},
		{"php float", "shop", "250.0", `"authCode":"1",`, "shop;oч/1;250;UAH;1;41****17;Approved;1100", ""},
		{"two decimals", "shop", "250", `"authCode":"1",`, "shop;oч/1;250.00;UAH;1;41****17;Approved;1100", ""},
		{"another number", "shop", "250.01", `"authCode":"1",`, "shop;oч/1;250;UAH;1;41****17;Approved;1100", SignatureMismatch},
		{"exponent", "shop", "25e1", `"authCode":"1",`, "shop;oч/1;250;UAH;1;41****17;Approved;1100", SignatureMismatch},
		{"signed exponent", "shop", "25e1", `"authCode":"1",`, "shop;oч/1;25e1;UAH;1;41****17;Approved;1100", Policy},
		{"negative", "shop", "-5", `"authCode":"1",`, "shop;oч/1;-5;UAH;1;41****17;Approved;1100", Policy},
		{"null auth", "shop", "250", `"authCode":null,`, "shop;oч/1;250;UAH;;41****17;Approved;1100", ""},
		{"absent auth signed as 0", "shop", "250", ``, "shop;oч/1;250;UAH;0;41****17;Approved;1100", ""},
		{"absent auth signed as empty", "shop", "250", ``, "shop;oч/1;250;UAH;;41****17;Approved;1100", SignatureMismatch},
		{"other merchant", "other", "250", `"authCode":"1",`, "other;oч/1;250;UAH;1;41****17;Approved;1100", MerchantMismatch},
	} {
		r := build(c.account, c.amount, c.auth, c.text)
		res := v.Verify(r, testNow)
		wantReason(t, c.name, res, c.reason)
		if c.reason != "" {
			continue
		}
		ack := v.Ack(r, testNow)
		var got struct {
			OrderReference, Status, Signature string
			Time                              int64
		}
		if err := json.Unmarshal(ack.Body, &got); err != nil {
			t.Fatal(err)
		}
		want := `{"orderReference":"oч/1","status":"accept","time":1780000000,"signature":"` + sum("oч/1;accept;1780000000") + `"}`
		if string(ack.Body) != want || ack.Status != 200 || ack.ContentType != "application/json" {
			t.Errorf("%s: ack %d %s %s\nwant %s", c.name, ack.Status, ack.ContentType, ack.Body, want)
		}
	}
}

// TestAckUsesTheSendersSecret: in a rotation the answer is signed with the secret that
// signed the question, whichever place it has in the config.
func TestAckUsesTheSendersSecret(t *testing.T) {
	one := mustNew(t, get(t, "wayforpay"), provider.Credentials{"merchant_account": {"shop"}, "secret_key": {"old-secret-of-the-shop"}}, Options{})
	both := mustNew(t, get(t, "wayforpay"), provider.Credentials{"merchant_account": {"shop"}, "secret_key": {"new-secret-of-the-shop", "old-secret-of-the-shop"}}, Options{})
	r := signed(t, one, "wayforpay")
	if a, b := string(one.Ack(r, testNow).Body), string(both.Ack(r, testNow).Body); a != b || a == "" {
		t.Errorf("acks differ:\n%s\n%s", a, b)
	}
}

func TestLiqPayMerchantAndTransport(t *testing.T) {
	creds := provider.Credentials{"public_key": {"i1"}, "private_key": {"private-key-of-shop"}}
	v := mustNew(t, get(t, "liqpay"), creds, Options{})
	other := mustNew(t, get(t, "liqpay"), provider.Credentials{"public_key": {"i2"}, "private_key": creds["private_key"]}, Options{})
	r := signed(t, v, "liqpay")
	res := v.Verify(r, testNow)
	wantReason(t, "own shop", res, "")
	if res.Tenant != "i1" {
		t.Errorf("tenant %q", res.Tenant)
	}
	wantReason(t, "another shop's callback", other.Verify(r, testNow), MerchantMismatch)
	sha3 := mustNew(t, get(t, "liqpay"), creds, Options{Settings: map[string]string{"algorithm": "sha3-256"}})
	wantReason(t, "sha1 under sha3-256: never both", sha3.Verify(r, testNow), SignatureMismatch)

	moved := clone(r)
	moved.Target, moved.Body = append([]byte("/in/liqpay?"), r.Body...), nil
	wantReason(t, "in the query", v.Verify(moved, testNow), SignatureMissing)
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"data twice":      "data=x&" + string(r.Body),
		"signature twice": string(r.Body) + "&signature=" + url.QueryEscape(form.Get("signature")),
		"plus as blank":   strings.ReplaceAll("data="+form.Get("data")+"&signature="+form.Get("signature")+"+", "%", ""),
		"newline in it":   "data=" + url.QueryEscape(form.Get("data")) + "&signature=" + url.QueryEscape(form.Get("signature")) + "%0A",
		"blank in it":     "data=" + url.QueryEscape(form.Get("data")) + "&signature=" + url.QueryEscape(form.Get("signature")) + "%20",
	} {
		c := clone(r)
		c.Body = []byte(body)
		wantReason(t, name, v.Verify(c, testNow), "*")
	}
}

// TestPaddleClassicDuplicate: a field that stands twice is refused even where the sender
// signed both: PHP reads the last one, others the first.
func TestPaddleClassicDuplicate(t *testing.T) {
	v, _ := devVerifier(t, get(t, "paddle_classic"))
	text := `a:3:{s:8:"alert_id";s:1:"1";s:10:"sale_gross";s:1:"1";s:10:"sale_gross";s:1:"9";}`
	sc := &scratch{alg: algSHA1, parts: [][]byte{[]byte(text)}}
	sig, err := v.signature(sc)
	if err != nil {
		t.Fatal(err)
	}
	r := delivery("paddle_classic")
	r.Body = []byte("alert_id=1&sale_gross=1&sale_gross=9&p_signature=" + url.QueryEscape(encode(sig, "base64")))
	wantReason(t, "signed twice", v.Verify(r, testNow), SignatureMalformed)

	text = `a:2:{s:8:"alert_id";s:1:"1";s:10:"sale_gross";s:5:"1 é+";}`
	text = strings.Replace(text, "s:5:\"1 é+\"", fmt.Sprintf("s:%d:\"1 é+\"", len("1 é+")), 1)
	sc.parts = [][]byte{[]byte(text)}
	if sig, err = v.signature(sc); err != nil {
		t.Fatal(err)
	}
	r.Body = []byte("sale_gross=1+%C3%A9%2B&p_signature=" + url.QueryEscape(encode(sig, "base64")) + "&alert_id=1")
	wantReason(t, "bytes are counted, keys sorted", v.Verify(r, testNow), "")
}

// TestUsersOwnProvider: the inline definition of the example config, as it stands there.
func TestUsersOwnProvider(t *testing.T) {
	def, err := provider.Parse("skyrimpay", []byte(`
name: skyrimpay
scheme: hash_concat
algorithm: sha256
fields: [merchant_id, amount, currency, order_id]
required_signed: [order_id, amount, currency]
signature: {field: signature, encoding: hex}
event: {id: [order_id, status], type: status, order_id: order_id, amount: {path: amount, unit: major}, currency: currency}
`))
	if err != nil {
		t.Fatal(err)
	}
	const key = "skyrim-private-key"
	v := mustNew(t, def, provider.Credentials{"private_key": {key}}, Options{})
	r := delivery("skyrimpay")
	r.Body = []byte(`{"merchant_id":"M1","amount":"10.50","currency":"EUR","order_id":"o1","status":"paid","signature":"` + concatSig("M1", "10.50", "EUR", "o1", key) + `"}`)
	wantReason(t, "signed", v.Verify(r, testNow), "")
	if w := v.Warnings(); len(w) != 1 || !strings.Contains(w[0], "merchant_id") {
		t.Errorf("warnings %q", w)
	}
	pinned := mustNew(t, def, provider.Credentials{"private_key": {key}, "merchant_id": {"M1"}}, Options{})
	if w := pinned.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	bad := strings.Replace(string(def.YAML()), "order_id, amount, currency]", "status]", 1)
	if bad != string(def.YAML()) {
		if _, err := provider.Parse("skyrimpay", []byte(bad)); err == nil {
			t.Error("required_signed that is not signed parses")
		}
	}
}
