package verify

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// request is a delivery to a public URL.
func request(method, address, body string, headers ...string) *provider.Request {
	var pairs [][2]string
	for i := 0; i+1 < len(headers); i += 2 {
		pairs = append(pairs, [2]string{headers[i], headers[i+1]})
	}
	return &provider.Request{Method: method, Target: []byte(targetOf(address)), PublicURL: address, Header: provider.MakeHeader(pairs), Body: []byte(body), ReceivedAt: testNow}
}

func verifierOf(t *testing.T, name string, creds provider.Credentials, settings map[string]string) *Verifier {
	t.Helper()
	return mustNew(t, get(t, name), creds, Options{Settings: settings})
}

// TestHandshakes: the handshakes of providers that sign nothing, or not their handshake,
// are answered to the byte for who was named, and for nobody else.
func TestHandshakes(t *testing.T) {
	adobe := verifierOf(t, "adobe_sign", provider.Credentials{"client_ids": {"CBJours"}}, nil)
	ce := verifierOf(t, "cloudevents", provider.Credentials{"tokens": {"tok"}, "allowed_origins": {"events.example.com"}}, nil)
	closed := verifierOf(t, "cloudevents", provider.Credentials{"tokens": {"tok"}}, nil)
	grid := verifierOf(t, "azure_event_grid", provider.Credentials{"tokens": {"code-of-length"}}, nil)
	strava := verifierOf(t, "strava", provider.Credentials{"subscription_ids": {"120475"}, "verify_token": {"STRAVA"}}, nil)
	hub := verifierOf(t, "youtube", provider.Credentials{"secrets": {"s3cret"}, "topics": {"https://yt.example/feed?channel_id=UC1"}}, nil)
	lark := verifierOf(t, "feishu", provider.Credentials{"encrypt_keys": {"old key", "test key"}, "verification_tokens": {"vtok"}}, nil)
	topic := url.QueryEscape("https://yt.example/feed?channel_id=UC1")
	for _, c := range []struct {
		name   string
		v      *Verifier
		r      *provider.Request
		status int    // 0: refused
		body   string // of the answer
		header string // "Name: value" of the answer
	}{
		{"adobe", adobe, request("GET", "https://h/in/a", "", "X-AdobeSign-ClientId", "CBJours"), 200, `{"xAdobeSignClientId":"CBJours"}`, "X-AdobeSign-ClientId: CBJours"},
		{"adobe, another application", adobe, request("GET", "https://h/in/a", "", "X-AdobeSign-ClientId", "CBJother"), 0, "", ""},
		{"adobe, two ids", adobe, request("GET", "https://h/in/a", "", "X-AdobeSign-ClientId", "CBJours", "X-AdobeSign-ClientId", "CBJours"), 0, "", ""},
		{"OPTIONS", ce, request("OPTIONS", "https://h/in/c", "", "WebHook-Request-Origin", "events.example.com", "WebHook-Request-Rate", "120"), 200, "", "WebHook-Allowed-Rate: 120"},
		{"OPTIONS, origin", ce, request("OPTIONS", "https://h/in/c", "", "WebHook-Request-Origin", "events.example.com"), 200, "", "WebHook-Allowed-Origin: events.example.com"},
		{"OPTIONS, no rate", ce, request("OPTIONS", "https://h/in/c", "", "WebHook-Request-Origin", "events.example.com", "WebHook-Request-Rate", "<b>"), 200, "", "WebHook-Allowed-Rate: *"},
		{"OPTIONS from elsewhere", ce, request("OPTIONS", "https://h/in/c", "", "WebHook-Request-Origin", "evil.example.com"), 0, "", ""},
		{"OPTIONS, nobody listed", closed, request("OPTIONS", "https://h/in/c", "", "WebHook-Request-Origin", "events.example.com"), 0, "", ""},
		{"OPTIONS of Event Grid", grid, request("OPTIONS", "https://h/in/g?code=code-of-length", "", "WebHook-Request-Origin", "eventgrid.azure.net"), 200, "", "WebHook-Allowed-Origin: eventgrid.azure.net"},
		{"OPTIONS of Event Grid, another's", grid, request("OPTIONS", "https://h/in/g?code=guess", "", "WebHook-Request-Origin", "eventgrid.azure.net"), 0, "", ""},
		{"strava", strava, request("GET", "https://h/in/s?hub.mode=subscribe&hub.verify_token=STRAVA&hub.challenge=15f7d1a91c1f40f8", ""), 200, `{"hub.challenge":"15f7d1a91c1f40f8"}`, ""},
		{"strava, wrong token", strava, request("GET", "https://h/in/s?hub.mode=subscribe&hub.verify_token=STRAVa&hub.challenge=1", ""), 0, "", ""},
		{"websub", hub, request("GET", "https://h/in/y?hub.mode=subscribe&hub.challenge=77&hub.lease_seconds=1&hub.topic="+topic, ""), 200, "77", ""},
		{"websub, another feed", hub, request("GET", "https://h/in/y?hub.mode=subscribe&hub.challenge=77&hub.topic="+topic+"x", ""), 0, "", ""},
		{"websub, an end that nobody asked for", hub, request("GET", "https://h/in/y?hub.mode=unsubscribe&hub.challenge=77&hub.topic="+topic, ""), 0, "", ""},
		{"websub, denied", hub, request("GET", "https://h/in/y?hub.mode=denied&hub.topic="+topic, ""), 200, "", ""},
		{"feishu", lark, request("POST", "https://h/in/f", `{"challenge":"ajls384kdjx98XX","token":"vtok","type":"url_verification"}`), 200, `{"challenge":"ajls384kdjx98XX"}`, ""},
		{"feishu, encrypted", lark, request("POST", "https://h/in/f", larkBody("test key", `{"challenge":"c1","token":"vtok","type":"url_verification"}`)), 200, `{"challenge":"c1"}`, ""},
		{"feishu, encrypted, wrong token", lark, request("POST", "https://h/in/f", larkBody("test key", `{"challenge":"c1","token":"other","type":"url_verification"}`)), 0, "", ""},
		{"feishu, encrypted, an event", lark, request("POST", "https://h/in/f", larkBody("test key", `{"challenge":"c1","token":"vtok","type":"url_verification","event":{}}`)), 0, "", ""},
		{"feishu, another's key", lark, request("POST", "https://h/in/f", larkBody("stranger", `{"challenge":"c1","token":"vtok","type":"url_verification"}`)), 0, "", ""},
		{"feishu, no cipher text", lark, request("POST", "https://h/in/f", `{"encrypt":"AAAA"}`), 0, "", ""},
	} {
		res := c.v.Verify(c.r, testNow)
		if c.status == 0 {
			wantReason(t, c.name, res, "*")
			if res.Reply != nil && (len(res.Reply.Body) > 0 || len(res.Reply.Header) > 0) {
				t.Errorf("%s: the refusal says %+v", c.name, res.Reply)
			}
			continue
		}
		if res.Verdict != Challenge || res.Reply.Status != c.status || string(res.Reply.Body) != c.body || !strings.Contains(fmt.Sprint(res.Reply.Header), strings.Replace(c.header, ": ", " ", 1)) {
			t.Errorf("%s: %+v %+v", c.name, res, res.Reply)
		}
	}
}

// larkBody encrypts as Feishu does: the initial vector in front, PKCS#7.
func larkBody(key, text string) string {
	sum := sha256.Sum256([]byte(key))
	pad := aes.BlockSize - len(text)%aes.BlockSize
	plain := append([]byte(text), []byte(strings.Repeat(string(rune(pad)), pad))...)
	out := make([]byte, aes.BlockSize+len(plain))
	copy(out, "0123456789abcdef")
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err)
	}
	cipher.NewCBCEncrypter(block, out[:aes.BlockSize]).CryptBlocks(out[aes.BlockSize:], plain)
	return `{"encrypt":"` + base64.StdEncoding.EncodeToString(out) + `"}`
}

// TestNoOracle: no handshake of the catalogue computes with the signing key for who has
// not signed, but X's, whose answer TestCRC shows to be of no use.
func TestNoOracle(t *testing.T) {
	macs := 0
	for _, name := range builtin(t).Names() {
		for _, c := range get(t, name).Challenge {
			if c.Reply.MAC == nil {
				continue
			}
			macs++
			if !c.Signed && name != "x" {
				t.Errorf("%s signs what anybody sends", name)
			}
		}
	}
	if macs < 2 {
		t.Errorf("only %d handshakes with a MAC were looked at", macs)
	}
}

// TestHubSpotVersions: the URL is signed with twelve escapes written out; an older version
// counts only where no newer one is sent, and its plain hash cannot be continued.
func TestHubSpotVersions(t *testing.T) {
	const secret, body = "yyyyyyyy-yyyy", `[{"eventId":1}]`
	v := verifierOf(t, "hubspot", provider.Credentials{"secrets": {secret}}, nil)
	sum := func(text string) string { s := sha256.Sum256([]byte(secret + text)); return hex.EncodeToString(s[:]) }
	address := "https://h/in/hubspot?u=https%3a%2F%2Fa.example%2Fx&n=a%20b"
	r := request("POST", address, body)
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "v3", v.Verify(r, testNow), "")
	ts, _ := r.Header.Get("X-HubSpot-Request-Timestamp")
	sig, _ := r.Header.Get("X-HubSpot-Signature-v3")
	k, err := newSecretKey("s", secret, "hmac", "utf8")
	if err != nil {
		t.Fatal(err)
	}
	k.prepare(algSHA256)
	want := (&Verifier{kind: primHMAC, pools: &pools{}}).sumWith(&k, algSHA256, &scratch{parts: [][]byte{[]byte("POSThttps://h/in/hubspot?u=https://a.example/x&n=a%20b" + body), ts}})
	if encode(want, "base64") != string(sig) {
		t.Error("the signed URL is not the one of HubSpot's table")
	}
	older := func(version, body, sig string, more ...string) Result {
		return v.Verify(request("POST", address, body, append([]string{"X-HubSpot-Signature-Version", version, "X-HubSpot-Signature", sig}, more...)...), testNow)
	}
	wantReason(t, "v1", older("v1", body, sum(body)), "")
	wantReason(t, "v2", older("v2", body, sum("POST"+address+body)), "")
	wantReason(t, "v1 called v2", older("v2", body, sum(body)), SignatureMismatch)
	wantReason(t, "no such version", older("v0", body, sum(body)), SignatureMissing)
	wantReason(t, "v1 beside an empty v3", older("v1", body, sum(body), "X-HubSpot-Signature-v3", ""), SignatureMissing)
	wantReason(t, "v1 beside a wrong v3", older("v1", body, sum(body), "X-HubSpot-Signature-v3", "AAAA", "X-HubSpot-Request-Timestamp", string(ts)), SignatureMismatch)
	wantReason(t, "a continued hash", older("v1", body+"\x80\x00\x00 more", sum(body+"\x80\x00\x00 more")), Policy)
}

// TestTwilioURL: with and without the port, never with another one; and a body that the
// URL does not name is not taken.
func TestTwilioURL(t *testing.T) {
	v := verifierOf(t, "twilio", provider.Credentials{"secrets": {"12345"}}, nil)
	const form = "To=%2B1&From=%2B2&Digits=1&Digits=0"
	sent := func(address, body string) string {
		r := request("POST", address, body)
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		sig, _ := r.Header.Get("X-Twilio-Signature")
		return string(sig)
	}
	for _, c := range []struct {
		signed, called, reason string
	}{
		{"https://a.example/x?b=1", "https://a.example/x?b=1", ""},
		{"https://a.example:443/x", "https://a.example/x", ""},
		{"https://a.example/x", "https://a.example:8443/x", ""},
		{"http://a.example:80/x", "http://a.example/x", ""},
		{"https://a.example:8443/x", "https://a.example/x", SignatureMismatch},
		{"https://a.example/x", "http://a.example/x", SignatureMismatch},
		{"https://a.example/x", "https://a.example/x/", SignatureMismatch},
		{"https://[2001:db8::1]/x", "https://[2001:db8::1]:443/x", ""},
	} {
		wantReason(t, c.signed+" at "+c.called, v.Verify(request("POST", c.called, form, "X-Twilio-Signature", sent(c.signed, form)), testNow), c.reason)
	}
	empty := sent("https://a.example/x", "")
	wantReason(t, "GET", v.Verify(request("GET", "https://a.example/x", "", "X-Twilio-Signature", empty), testNow), "")
	wantReason(t, "JSON that the URL does not name", v.Verify(request("POST", "https://a.example/x", `{"a":1}`, "X-Twilio-Signature", empty), testNow), SignatureMalformed)
	sum := sha256.Sum256([]byte(`{"a":1}`))
	named := "https://a.example/x?bodySHA256=" + hex.EncodeToString(sum[:])
	sig := sent(named, `{"a":1}`)
	wantReason(t, "JSON", v.Verify(request("POST", named, `{"a":1}`, "X-Twilio-Signature", sig), testNow), "")
	wantReason(t, "other JSON", v.Verify(request("POST", named, `{"a":2}`, "X-Twilio-Signature", sig), testNow), SignatureMismatch)
	wantReason(t, "the hash twice", v.Verify(request("POST", named+"&bodySHA256=00", `{"a":1}`, "X-Twilio-Signature", sig), testNow), SignatureMalformed)
	rewritten := verifierOf(t, "twilio", provider.Credentials{"secrets": {"12345"}}, map[string]string{"notification_url": "https://public.example/hook"})
	wantReason(t, "behind a proxy", rewritten.Verify(request("POST", "http://inside/in/twilio?b=1", form, "X-Twilio-Signature", sent("https://public.example/hook?b=1", form)), testNow), "")
}

// TestPlivoVersions: V2 is a definition of its own, so that nobody can leave V3 away.
func TestPlivoVersions(t *testing.T) {
	creds := provider.Credentials{"secrets": {"plivo-auth-token"}}
	v3, v2 := verifierOf(t, "plivo", creds, nil), verifierOf(t, "plivo_v2", creds, nil)
	r := request("POST", "https://h/in/plivo?b=2&a=1", "To=1&From=2", "X-Plivo-Signature-V2-Nonce", "n", "X-Plivo-Signature-V3-Nonce", "n")
	if err := v2.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "V2", v2.Verify(r, testNow), "")
	wantReason(t, "V2 where V3 is wanted", v3.Verify(r, testNow), SignatureMissing)
	moved := clone(r)
	moved.PublicURL = "https://h/in/other"
	wantReason(t, "V2 at another path", v2.Verify(moved, testNow), SignatureMismatch)
	if err := v3.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "V3", v3.Verify(r, testNow), "")
	sig, _ := r.Header.Get("X-Plivo-Signature-V3")
	wantReason(t, "of the main account", v3.Verify(with(without(r, "X-Plivo-Signature-V3"), "X-Plivo-Signature-Ma-V3", "AAAA,"+string(sig)), testNow), "")
	swapped := clone(r)
	swapped.Target, swapped.PublicURL = []byte("/in/plivo?a=1&b=2"), "https://h/in/plivo?a=1&b=2"
	wantReason(t, "the query in another order", v3.Verify(swapped, testNow), "")
}

// TestMailgunTokens: a token goes with one body, and that as often as Mailgun likes.
func TestMailgunTokens(t *testing.T) {
	creds := provider.Credentials{"secrets": {"key-of-a-length"}}
	v := verifierOf(t, "mailgun", creds, nil)
	r := signed(t, v, "mailgun")
	wantReason(t, "first", v.Verify(r, testNow), "")
	wantReason(t, "again", v.Verify(r, testNow.Add(time.Minute)), "")
	forged := clone(r)
	forged.Body = []byte(strings.Replace(string(forged.Body), "delivered", "complained", 1))
	wantReason(t, "another event under the token", v.Verify(forged, testNow), Policy)
	wantReason(t, "an hour later", v.Verify(r, testNow.Add(time.Hour)), TimestampOutsideTolerance)
	own := v.own.(*mailgun)
	for i := range 3 * maxMailgunTokens {
		own.first(fmt.Sprint(i), nil, testNow)
	}
	if n := len(own.younger) + len(own.elder); n > 2*maxMailgunTokens {
		t.Errorf("%d tokens are kept", n)
	}
	form := request("POST", "https://h/in/mailgun", "event=opened&recipient=a%40b")
	if err := v.Sign(form, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a form", v.Verify(form, testNow), "")
	var parts strings.Builder
	fields, err := url.ParseQuery(string(form.Body))
	if err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		fmt.Fprintf(&parts, "--b\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", name, fields.Get(name))
	}
	mixed := request("POST", "https://h/in/mailgun", parts.String()+"--b--\r\n", "Content-Type", "multipart/form-data; boundary=b")
	wantReason(t, "the same as multipart", verifierOf(t, "mailgun", creds, nil).Verify(mixed, testNow), "")
	mixed.Body = []byte(strings.Replace(string(mixed.Body), "name=\"token\"", "name=\"other\"", 1))
	wantReason(t, "multipart without a token", v.Verify(mixed, testNow), SignatureMissing)
	form.Body = append(form.Body, "&token=x"...)
	wantReason(t, "two tokens", v.Verify(form, testNow), SignatureMalformed)
}

// TestWeChatModes: where the cipher text is signed, that must hold as well, and a source
// may insist on it.
func TestWeChatModes(t *testing.T) {
	creds := provider.Credentials{"tokens": {"weixinToken123"}}
	plain, strict := verifierOf(t, "wechat", creds, nil), verifierOf(t, "wechat", creds, map[string]string{"encrypted": "true"})
	r := request("POST", "https://h/in/wechat", "<xml><ToUserName>a</ToUserName><Encrypt>Y2lwaGVy</Encrypt></xml>")
	if err := plain.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "encrypted", plain.Verify(r, testNow), "")
	wantReason(t, "encrypted and wanted", strict.Verify(r, testNow), "")
	other := clone(r)
	other.Body = []byte(strings.Replace(string(r.Body), "Y2lwaGVy", "b3RoZXIh", 1))
	wantReason(t, "other cipher text", plain.Verify(other, testNow), SignatureMismatch)
	other.Target = []byte(strings.Replace(string(r.Target), "msg_signature", "x", 1))
	wantReason(t, "its signature taken away", strict.Verify(other, testNow), SignatureMissing)
	get := clone(r)
	get.Method, get.Body = "GET", nil
	wantReason(t, "GET that asks nothing", plain.Verify(get, testNow), Policy)
	get.Target = append(get.Target, "&echostr=123"...)
	if res := strict.Verify(get, testNow); res.Verdict != Challenge || string(res.Reply.Body) != "123" {
		t.Errorf("the check of the URL: %+v", res)
	}
	get.Target = append(get.Target, "&echostr=456"...)
	wantReason(t, "two values to echo", plain.Verify(get, testNow), Policy)
}

// TestContentfulHeaders: what a delivery says is signed must hold the time and the list
// itself, and what it names stands once.
func TestContentfulHeaders(t *testing.T) {
	v := verifierOf(t, "contentful", provider.Credentials{"secrets": {strings.Repeat("f6", 32)}}, nil)
	const list = "x-contentful-timestamp, X-Contentful-Signed-Headers,x-contentful-topic,x-not-there"
	r := request("POST", "https://h/in/contentful?a=b%20c", `{"sys":{}}`, "X-Contentful-Topic", "T", "X-Contentful-Signed-Headers", list)
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "as sent", v.Verify(r, testNow), "")
	wantReason(t, "another topic", v.Verify(with(r, "X-Contentful-Topic", "U"), testNow), SignatureMismatch)
	wantReason(t, "two topics", v.Verify(added(r, "X-Contentful-Topic", "T"), testNow), DuplicateHeader)
	wantReason(t, "no list", v.Verify(without(r, "X-Contentful-Signed-Headers"), testNow), SignatureMissing)
	for _, short := range []string{"x-contentful-timestamp", "x-contentful-signed-headers", strings.Repeat("a,", 70) + list} {
		r := request("POST", "https://h/in/contentful", `{}`, "X-Contentful-Signed-Headers", short)
		if v.Sign(r, testNow) == nil {
			t.Errorf("the list %q was signed", short)
		}
	}
	var sc scratch
	if contentfulPath(v, request("GET", "https://h/a%20b/c?x=1&y=%20", ""), &sc, 0) != "" || string(sc.parts[0]) != "/a%2520b/c?x%253D1%2526y%253D%252520" {
		t.Errorf("path %q", sc.parts)
	}
}

// TestSignatureTag: WebSub's hub names the algorithm; what is below the source's minimum
// is refused although it is right.
func TestSignatureTag(t *testing.T) {
	creds := provider.Credentials{"secrets": {"hub-secret"}}
	v, strong := verifierOf(t, "youtube", creds, nil), verifierOf(t, "youtube", creds, map[string]string{"min_algorithm": "sha384"})
	for _, word := range []string{"sha1", "sha256", "sha384", "sha512"} {
		alg, _ := parseAlgorithm(word)
		sum := v.sumWith(&v.keys[0], alg, &scratch{parts: [][]byte{[]byte("<feed/>")}})
		r := request("POST", "https://h/in/y", "<feed/>", "X-Hub-Signature", word+"="+hex.EncodeToString(sum))
		wantReason(t, word, v.Verify(r, testNow), "")
		reason := Policy
		if alg >= algSHA384 {
			reason = ""
		}
		wantReason(t, word+" where sha384 is the least", strong.Verify(r, testNow), reason)
		wantReason(t, word+" under another name", v.Verify(with(r, "X-Hub-Signature", "sha256="+hex.EncodeToString(sum)), testNow), map[bool]string{true: "", false: SignatureMismatch}[word == "sha256"])
	}
	for _, bad := range []string{"sha256", "sha256=", "=00", "md5=00", "sha256=zz"} {
		wantReason(t, bad, v.Verify(request("POST", "https://h/in/y", "<feed/>", "X-Hub-Signature", bad), testNow), SignatureMalformed)
	}
}

// TestTokenPlaces: a bearer token stands in the header or in the query, not in both; a
// number is a number.
func TestTokenPlaces(t *testing.T) {
	v := verifierOf(t, "cloudevents", provider.Credentials{"tokens": {"tok"}}, nil)
	wantReason(t, "header", v.Verify(request("POST", "https://h/c", "{}", "Authorization", "bearer tok"), testNow), "")
	wantReason(t, "query", v.Verify(request("POST", "https://h/c?access_token=tok", "{}"), testNow), "")
	wantReason(t, "both", v.Verify(request("POST", "https://h/c?access_token=tok", "{}", "Authorization", "Bearer tok"), testNow), SignatureMalformed)
	wantReason(t, "with the scheme in the query", v.Verify(request("POST", "https://h/c?access_token=Bearer%20tok", "{}"), testNow), SignatureMismatch)
	wantReason(t, "twice", v.Verify(request("POST", "https://h/c?access_token=tok&access_token=tok", "{}"), testNow), SignatureMalformed)
	s := verifierOf(t, "strava", provider.Credentials{"subscription_ids": {"120475"}}, nil)
	for body, reason := range map[string]string{
		`{"subscription_id":120475}`: "", `{"subscription_id":"120475"}`: SignatureMalformed, `{"subscription_id":120475.0}`: SignatureMismatch,
		`{"subscription_id":120475,"Subscription_id":1}`: SignatureMalformed, `{}`: SignatureMissing,
	} {
		wantReason(t, body, s.Verify(request("POST", "https://h/s", body), testNow), reason)
	}
}

// TestJSONField: the document stands in one field of a form, of either kind.
func TestJSONField(t *testing.T) {
	v := verifierOf(t, "dropbox_sign", provider.Credentials{"api_keys": {"api-key"}}, nil)
	r := signed(t, v, "dropbox_sign")
	wantReason(t, "multipart", v.Verify(r, testNow), "")
	text, ok := provider.FormField(r, "json")
	if !ok {
		t.Fatal("no field json")
	}
	encoded := request("POST", "https://h/d", "json="+url.QueryEscape(string(text)))
	wantReason(t, "urlencoded", v.Verify(encoded, testNow), "")
	encoded.Body = append(encoded.Body, "&json=%7B%7D"...)
	wantReason(t, "two documents", v.Verify(encoded, testNow), SignatureMissing)
	if ack := v.Ack(r, testNow); string(ack.Body) != "Hello API Event Received" {
		t.Errorf("answer %+v", ack)
	}
}

// TestOlderSchemes: an older scheme that could be chosen otherwise than by its headers
// does not load.
func TestOlderSchemes(t *testing.T) {
	header := provider.Signature{Header: "X-Sig", Encoding: "hex"}
	base := provider.Scheme{Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: header}
	for name, old := range map[string]provider.Scheme{
		"in the query": {Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: provider.Signature{Query: "sig", Encoding: "hex"}},
		"credentials":  {Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: header, Credentials: []provider.Credential{{Name: "a", Role: "key"}}},
		"no algorithm": {Scheme: "hmac", Signed: "{body}", Signature: header},
		"no such code": {Scheme: "hmac", Algorithm: "sha256", Signed: "{own:nobody}", Signature: header},
	} {
		s := base
		if s.Older = []provider.Scheme{old}; len(s.Validate()) == 0 {
			t.Errorf("%s: taken", name)
		}
	}
}
