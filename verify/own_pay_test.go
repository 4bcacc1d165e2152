package verify

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// sample is a signed delivery of that type.
func sample(t *testing.T, v *Verifier, name, typ string) *provider.Request {
	t.Helper()
	r, err := get(t, name).Sample(typ, provider.SampleParams{Now: testNow, OrderID: "ORD-1"})
	if err != nil {
		t.Fatal(err)
	}
	r.PublicURL = "https://hooks.example.com/in/" + name
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEverySampleVerifies: each sample of these providers, not the default one alone, is
// signed as the scheme wants it.
func TestEverySampleVerifies(t *testing.T) {
	for _, name := range []string{"alipay", "braintree", "mercadopago", "nowpayments", "payfast", "paysera", "przelewy24", "tpay", "trustly", "vipps", "wechatpay"} {
		v, creds := devVerifier(t, get(t, name))
		for _, info := range get(t, name).SampleTypes() {
			r := sample(t, v, name, info.Type)
			wantReason(t, name+" "+info.Type, v.Verify(r, testNow), "")
			r.Secrets = creds
			evs, err := get(t, name).Events(r)
			if err != nil || len(evs[0].Problems) > 0 {
				t.Errorf("%s %s: %v %v", name, info.Type, err, evs[0].Problems)
			}
		}
	}
}

func TestMercadoPago(t *testing.T) {
	v := mustNew(t, get(t, "mercadopago"), provider.Credentials{"secret": {testSecret}}, Options{})
	request := func(query, id, signed string) *provider.Request {
		r := &provider.Request{Method: "POST", Target: []byte("/in/mercadopago" + query), Body: []byte(`{"action":"payment.updated"}`)}
		if id != "" {
			r.Header = setHeader(r.Header, "x-request-id", id)
		}
		r.Header = setHeader(r.Header, "x-signature", "ts=1780000000000,v1="+hexMAC(testSecret, signed))
		return r
	}
	for _, c := range []struct{ name, query, id, signed, reason string }{
		{"as sent", "?data.id=ORD1", "r-1", "id:ORD1;request-id:r-1;ts:1780000000000;", ""},
		{"signed in small letters", "?data.id=ORD1", "r-1", "id:ord1;request-id:r-1;ts:1780000000000;", ""},
		{"signed in capitals", "?data.id=ord1", "r-1", "id:ORD1;request-id:r-1;ts:1780000000000;", SignatureMismatch},
		{"no id", "", "r-1", "request-id:r-1;ts:1780000000000;", ""},
		{"no request id", "?data.id=1", "", "id:1;ts:1780000000000;", ""},
		{"the request id inside the id", "?data.id=1%3Brequest-id:r-1", "", "id:1;request-id:r-1;ts:1780000000000;", SignatureMalformed},
		{"the id dropped", "", "r-1", "id:1;request-id:r-1;ts:1780000000000;", SignatureMismatch},
		{"the id twice", "?data.id=1&data.id=2", "r-1", "id:1;request-id:r-1;ts:1780000000000;", SignatureMalformed},
	} {
		wantReason(t, c.name, v.Verify(request(c.query, c.id, c.signed), testNow), c.reason)
	}
}

func TestPayFast(t *testing.T) {
	def := get(t, "payfast")
	v := mustNew(t, def, provider.Credentials{"passphrase": {"pass phrase"}}, Options{})
	r := sample(t, v, "payfast", "")
	wantReason(t, "as sent", v.Verify(r, testNow), "")
	for name, change := range map[string]func(b string) string{
		"a field behind the signature": func(b string) string { return b + "&amount_gross2=1" },
		"another order":                func(b string) string { i := strings.IndexByte(b, '&'); return b[i+1:] + "&" + b[:i] },
		"an empty field dropped":       func(b string) string { return strings.Replace(b, "&item_description=", "", 1) },
		"a field twice":                func(b string) string { return "amount_gross=1&" + b },
		"no signature":                 func(b string) string { return b[:strings.Index(b, "&signature")] },
	} {
		c := clone(r)
		c.Body = []byte(change(string(r.Body)))
		wantReason(t, name, v.Verify(c, testNow), "*")
	}
	var ce *ConfigError
	if _, err := New(def, provider.Credentials{}, Options{}); !errors.As(err, &ce) || ce.Credential != "passphrase" {
		t.Errorf("no passphrase, and not said so: %v", err)
	}
	bare := Options{Settings: map[string]string{"without_passphrase": "true"}}
	if _, err := New(def, provider.Credentials{"passphrase": {"x"}}, bare); err == nil {
		t.Error("a passphrase and none were taken")
	}
	wantReason(t, "a passphrase where there is none", mustNew(t, def, provider.Credentials{}, bare).Verify(r, testNow), SignatureMismatch)
}

func TestVippsAddress(t *testing.T) {
	def, creds := get(t, "vipps"), provider.Credentials{"secret": {testSecret}}
	v := mustNew(t, def, creds, Options{})
	r := sample(t, v, "vipps", "")
	for _, c := range []struct{ name, url, reason string }{
		{"as sent", "https://hooks.example.com/in/vipps", ""},
		{"another host", "https://other.example.com/in/vipps", SignatureMismatch},
		{"another path", "https://hooks.example.com/in/other", SignatureMismatch},
		{"a query", "https://hooks.example.com/in/vipps?a=1", SignatureMismatch},
		{"nobody knows the address", "", Policy},
	} {
		other := clone(r)
		other.PublicURL = c.url
		wantReason(t, c.name, v.Verify(other, testNow), c.reason)
		registered := mustNew(t, def, creds, Options{Settings: map[string]string{"notification_url": "https://hooks.example.com/in/vipps"}})
		wantReason(t, c.name+", the registered address given", registered.Verify(other, testNow), "")
	}
}

func TestPrzelewy24Kinds(t *testing.T) {
	v := mustNew(t, get(t, "przelewy24"), provider.Credentials{"crc": {`cr"c/ż`}, "merchant_id": {"12345"}}, Options{})
	tx, refund := sample(t, v, "przelewy24", "transaction"), sample(t, v, "przelewy24", "refund")
	for _, c := range []struct {
		name, from, to string
		r              *provider.Request
		reason         string
	}{
		{"a transaction made a refund", `{`, `{"refundsUuid":"x","status":0,`, tx, SignatureMismatch},
		{"a refund's request id, which is not signed", `"requestId":"`, `"requestId":"0`, refund, ""},
		{"a refund's status", `"status":0`, `"status":1`, refund, SignatureMismatch},
		{"a name twice", `{`, `{"amount":1,`, tx, SignatureMalformed},
	} {
		other := clone(c.r)
		other.Body = bytes.Replace(other.Body, []byte(c.from), []byte(c.to), 1)
		if bytes.Equal(other.Body, c.r.Body) {
			t.Fatalf("%s: nothing was changed in %s", c.name, other.Body)
		}
		wantReason(t, c.name, v.Verify(other, testNow), c.reason)
	}
}

// authority signs certificates for tests.
func authority(t *testing.T, name string) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return key, issue(t, tmpl, tmpl, key, key)
}

func issue(t *testing.T, tmpl, parent *x509.Certificate, key, by *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pemOfDER(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func TestTpayCertificates(t *testing.T) {
	rootKey, root := authority(t, "root")
	otherKey, otherRoot := authority(t, "another root")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "jws"}, NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour)}
	old := *leaf
	old.NotAfter = testNow.Add(-time.Minute)
	good := pemOfDER(issue(t, leaf, root, key, rootKey))
	at := func(cert string) keysAt {
		return keysAt{tpayLive + tpayRoot: pemOfDER(root), "https://secure.tpay.com/x509/notifications-jws.pem": cert,
			"https://secure.tpay.com.evil.example/x509/a.pem": cert, "https://secure.tpay.com/x509/../a.pem": cert, "https://secure.tpay.com/x509/a.pem?x=1": cert}
	}
	creds := provider.Credentials{"security_code": {"code"}}
	signer := mustNew(t, get(t, "tpay"), creds, Options{Keys: at(good)})
	signer.signing = &signingKey{key}
	form, token := sample(t, signer, "tpay", ""), sample(t, signer, "tpay", "tokenization")
	wantReason(t, "as sent", signer.Verify(form, testNow), "")
	wantReason(t, "JSON", signer.Verify(token, testNow), "")
	if got := signer.Ack(token, testNow); string(got.Body) != `{"result":true}` {
		t.Errorf("answer to JSON: %s", got.Body)
	}
	for _, c := range []struct {
		name string
		keys KeySource
	}{
		{"nobody fetches", nil}, {"nothing there", keysAt{}}, {"no root", keysAt{"https://secure.tpay.com/x509/notifications-jws.pem": good}},
		{"another root's", at(pemOfDER(issue(t, leaf, otherRoot, key, otherKey)))}, {"an expired one", at(pemOfDER(issue(t, &old, root, key, rootKey)))}, {"no certificate", at("nonsense")},
	} {
		v := mustNew(t, get(t, "tpay"), creds, Options{Keys: c.keys})
		wantReason(t, c.name, v.Verify(form, testNow), KeyUnavailable)
	}
	sandbox := mustNew(t, get(t, "tpay"), creds, Options{Keys: at(good), Settings: map[string]string{"livemode": "false"}})
	wantReason(t, "the live host for the sandbox", sandbox.Verify(form, testNow), Policy)
	for x5u, reason := range map[string]string{
		"https://secure.tpay.com/x509/notifications-jws.pem": "", "https://secure.tpay.com.evil.example/x509/a.pem": Policy,
		"https://secure.tpay.com/x509/../a.pem": Policy, "https://secure.tpay.com/x509/a.pem?x=1": Policy, "http://secure.tpay.com/x509/a.pem": Policy, "": Policy,
	} {
		wantReason(t, x5u, signer.Verify(makeJWS(t, form, key, `{"alg":"RS256","x5u":"`+x5u+`"}`), testNow), reason)
	}
	for _, head := range []string{`{"alg":"none","x5u":"https://secure.tpay.com/x509/notifications-jws.pem"}`, `{"alg":"HS256","x5u":"https://secure.tpay.com/x509/notifications-jws.pem"}`, `[]`, `{"alg":"RS256","crit":["b64"],"x5u":"https://secure.tpay.com/x509/notifications-jws.pem"}`} {
		wantReason(t, head, signer.Verify(makeJWS(t, form, key, head), testNow), SignatureMalformed)
	}
}

func makeJWS(t *testing.T, r *provider.Request, key *rsa.PrivateKey, head string) *provider.Request {
	t.Helper()
	h := base64.RawURLEncoding.EncodeToString([]byte(head))
	sum := sha256.Sum256([]byte(h + "." + base64.RawURLEncoding.EncodeToString(r.Body)))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return with(r, "X-JWS-Signature", h+".."+base64.RawURLEncoding.EncodeToString(sig))
}

func TestPaysera(t *testing.T) {
	def := get(t, "paysera")
	creds, err := DevCredentials(def, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := mustNew(t, def, creds, Options{})
	r := sample(t, v, "paysera", "")
	strict := mustNew(t, def, creds, Options{Settings: map[string]string{"require": "ss3"}})
	drop := func(names ...string) *provider.Request {
		c := clone(r)
		path, q, _ := strings.Cut(string(r.Target), "?")
		values, _ := url.ParseQuery(q)
		for _, n := range names {
			values.Del(n)
		}
		c.Target = []byte(path + "?" + values.Encode())
		return c
	}
	wantReason(t, "all three", strict.Verify(r, testNow), "")
	wantReason(t, "ss2 and ss1", v.Verify(drop("ss3"), testNow), "")
	wantReason(t, "ss2 where ss3 is asked for", strict.Verify(drop("ss3"), testNow), Policy)
	wantReason(t, "ss1", v.Verify(drop("ss3", "ss2"), testNow), "")
	wantReason(t, "none, and not sealed", v.Verify(drop("ss3", "ss2", "ss1"), testNow), SignatureMismatch)
	bad := clone(r)
	i := bytes.Index(bad.Target, []byte("ss3=")) + 4
	bad.Target[i] = 'A' + (bad.Target[i]+1)%26
	wantReason(t, "a wrong ss3 beside a right ss1", v.Verify(bad, testNow), "*")

	sealed := drop("ss3", "ss2", "ss1")
	seal(t, sealed, creds["sign_password"][0], "projectid="+creds["project_id"][0]+"&orderid=ORD-9&amount=100&currency=EUR&status=1&requestid=7&test=0")
	wantReason(t, "sealed", v.Verify(sealed, testNow), "")
	wantReason(t, "sealed where ss3 is asked for", strict.Verify(sealed, testNow), Policy)
	sealed.Secrets = creds
	if evs, err := def.Events(sealed); err != nil || evs[0].OrderID != "ORD-9" || evs[0].Canonical != "payment.captured" {
		t.Errorf("%v %+v", err, evs)
	}
	seal(t, sealed, creds["sign_password"][0], "projectid=1&orderid=ORD-9")
	wantReason(t, "another project's", v.Verify(sealed, testNow), MerchantMismatch)
	seal(t, sealed, strings.Repeat("0", 32), "projectid="+creds["project_id"][0])
	wantReason(t, "sealed by another", v.Verify(sealed, testNow), SignatureMismatch)
	if _, err := New(def, provider.Credentials{"sign_password": {"x"}, "project_id": {"1"}}, Options{Settings: map[string]string{"require": "ss3"}}); err == nil {
		t.Error("ss3 is asked for, and there is no key for it")
	}
}

func seal(t *testing.T, r *provider.Request, password, text string) {
	t.Helper()
	block, err := aes.NewCipher([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	r.Target = setQuery([]byte("/in/paysera"), "data", base64.URLEncoding.EncodeToString(gcm.Seal(nil, nil, []byte(text), nil)))
}

// TestBraintreeOracle: what a challenge makes us sign never passes as an event, and the
// challenge is answered for nothing else.
func TestBraintreeOracle(t *testing.T) {
	v := mustNew(t, get(t, "braintree"), provider.Credentials{"private_key": {"priv"}, "public_key": {"pub", "old"}}, Options{})
	for text, ok := range map[string]bool{
		"0123456789abcdef0123": true, strings.Repeat("a", 32): true, strings.Repeat("a", 19): false, strings.Repeat("a", 33): false,
		"0123456789ABCDEF0123": false, "PG5vdGlmaWNhdGlvbj4=": false, "": false,
	} {
		res := v.Verify(&provider.Request{Method: "GET", Target: []byte("/in/braintree?bt_challenge=" + url.QueryEscape(text))}, testNow)
		if (res.Verdict == Challenge) != ok {
			t.Errorf("challenge %q: %s", text, res.Verdict)
		}
		if res.Verdict != Challenge {
			continue
		}
		for _, payload := range []string{text, text + "\n"} {
			body := url.Values{"bt_signature": {string(res.Reply.Body)}, "bt_payload": {payload}}.Encode()
			r := &provider.Request{Method: "POST", Target: []byte("/in/braintree"), Body: []byte(body)}
			wantReason(t, "an answered challenge as an event", v.Verify(r, testNow), Policy)
		}
	}
	r := sample(t, v, "braintree", "")
	form, _ := url.ParseQuery(string(r.Body))
	form.Set("bt_signature", "other|00&"+form.Get("bt_signature")+"&old|"+strings.Repeat("0", 40))
	r.Body = []byte(form.Encode())
	wantReason(t, "among others' pairs", v.Verify(r, testNow), "")
	form.Set("bt_signature", strings.Repeat("pub|00&", 20))
	r.Body = []byte(form.Encode())
	wantReason(t, "too many pairs", v.Verify(r, testNow), SignatureMalformed)
}

func TestWeChatPayKeys(t *testing.T) {
	def := get(t, "wechatpay")
	creds, err := DevCredentials(def, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := mustNew(t, def, creds, Options{})
	r := sample(t, v, "wechatpay", "")
	wantReason(t, "as sent", v.Verify(r, testNow), "")
	wantReason(t, "another serial", v.Verify(with(r, "Wechatpay-Serial", "PUB_KEY_ID_2"), testNow), SignatureMismatch)
	wantReason(t, "no serial", v.Verify(without(r, "Wechatpay-Serial"), testNow), SignatureMissing)
	sig, _ := r.Header.Get("Wechatpay-Signature")
	wantReason(t, "a probe", v.Verify(with(r, "Wechatpay-Signature", "WECHATPAY/SIGNTEST/"+string(sig)), testNow), "*")
	wantReason(t, "299 s old", v.Verify(r, testNow.Add(299*time.Second)), "")
	wantReason(t, "300 s old", v.Verify(r, testNow.Add(300*time.Second)), TimestampOutsideTolerance)
	if bytes.Contains(r.Body, []byte("ORD-1")) {
		t.Error("the resource was sent unsealed")
	}

	key, root := authority(t, "platform")
	byCert := mustNew(t, def, provider.Credentials{"platform_keys": {pemOfDER(root)}, "apiv3_key": creds["apiv3_key"]}, Options{})
	byCert.signing = &signingKey{key}
	r = sample(t, byCert, "wechatpay", "")
	if serial, _ := r.Header.Get("Wechatpay-Serial"); string(serial) != "1" {
		t.Errorf("serial %q", serial)
	}
	wantReason(t, "a certificate named by its serial number", byCert.Verify(r, testNow), "")
	_, bare, _ := strings.Cut(creds["platform_keys"][0], ":")
	for name, c := range map[string]provider.Credentials{
		"a key without an id": {"platform_keys": {bare}, "apiv3_key": creds["apiv3_key"]},
		"a short APIv3 key":   {"platform_keys": creds["platform_keys"], "apiv3_key": {"short"}},
	} {
		if _, err := New(def, c, Options{}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestTrustlyReadings: the other readings of a signed text are refused, and the answer is
// signed over what was asked.
func TestTrustlyReadings(t *testing.T) {
	v, _ := devVerifier(t, get(t, "trustly"))
	r := sample(t, v, "trustly", "")
	for _, c := range []struct{ name, from, to, reason string }{
		{"the name into the value", `"currency":"UAH","attributes":{},`, `"attributes":{},"currency":"UAH",`, ""}, // the order of names is not signed
		{"a value's end into the next name", `"amount":"1299",`, `"amount1299":"",`, Policy},
		{"a name into the value before", `"amount":"1299","currency":"UAH","attributes":{},`, `"amount":"1299attributescurrencyUAH",`, Policy},
		{"a name twice", `"amount":"1299",`, `"amount":"1299","amount":"1299",`, SignatureMalformed},
		{"another sum", `"1299"`, `"1298"`, SignatureMismatch},
	} {
		other := clone(r)
		other.Body = []byte(strings.Replace(string(r.Body), c.from, c.to, 1))
		if bytes.Equal(other.Body, r.Body) {
			t.Fatalf("%s: nothing was changed in %s", c.name, r.Body)
		}
		wantReason(t, c.name, v.Verify(other, testNow), c.reason)
	}
	var answer struct {
		Result struct {
			Signature, UUID, Method string
			Data                    struct{ Status string }
		}
	}
	reply := v.Ack(r, testNow)
	if err := json.Unmarshal(reply.Body, &answer); err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(answer.Result.Signature)
	sum := sha1.Sum(trustlyAckText("credit", answer.Result.UUID))
	if err != nil || rsa.VerifyPKCS1v15(&v.own.(*trustly).answer.PublicKey, crypto.SHA1, sum[:], sig) != nil || answer.Result.Data.Status != "OK" || answer.Result.Method != "credit" {
		t.Errorf("%v %s", err, reply.Body)
	}
}
