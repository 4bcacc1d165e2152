package verify

import (
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

// TestZoomChallenge: the answer holds an HMAC under the signing secret, so it is given to
// none but Zoom, with the key that Zoom signed with, and never for a text worth signing.
func TestZoomChallenge(t *testing.T) {
	const old, fresh = "the-secret-of-yesterday", "the-secret-of-today"
	v := mustNew(t, get(t, "zoom"), provider.Credentials{"secrets": {fresh, old}}, Options{})
	sender := mustNew(t, get(t, "zoom"), provider.Credentials{"secrets": {old}}, Options{})
	build := func(token string) *provider.Request {
		r := delivery("zoom")
		r.Body = []byte(`{"payload":{"plainToken":` + string(jsonText(token)) + `},"event_ts":1,"event":"endpoint.url_validation"}`)
		return r
	}
	r := build("qgg8vlvZRS6UYooatFL8Aw")
	wantReason(t, "unsigned", v.Verify(r, testNow), SignatureMissing)
	if err := sender.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	res := v.Verify(r, testNow)
	want := `{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"` + hmacHex(old, "qgg8vlvZRS6UYooatFL8Aw") + `"}`
	if res.Verdict != Challenge || res.Reply.Status != 200 || res.Reply.ContentType != "application/json" || string(res.Reply.Body) != want {
		t.Errorf("challenge: %+v %s", res, res.Reply.Body)
	}
	for _, token := range []string{`v0:1780000000:{"event":"x"}`, "v0:1780000000:a", `{"event":"x"}`, "", "a b", strings.Repeat("a", 600)} {
		r := build(token)
		if err := sender.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		wantReason(t, "token "+token, v.Verify(r, testNow), Policy)
	}
}

func hmacHex(secret, text string) string {
	k, err := newSecretKey("s", secret, "hmac", "utf8")
	if err != nil {
		panic(err)
	}
	k.prepare(algSHA256)
	v := &Verifier{kind: primHMAC, pools: &pools{}}
	return encode(v.sumWith(&k, algSHA256, &scratch{parts: [][]byte{[]byte(text)}}), "hex")
}

// TestCRC: X asks unsigned, so what is answered must be of no use as a signed event.
func TestCRC(t *testing.T) {
	v := mustNew(t, get(t, "x"), provider.Credentials{"secrets": {"consumer-secret-of-the-app"}}, Options{})
	ask := func(query string) Result {
		return v.Verify(&provider.Request{Method: "GET", Target: []byte("/in/x?" + query)}, testNow)
	}
	res := ask("crc_token=9b4507b3-9040&nonce=abc")
	if res.Verdict != Challenge || !strings.HasPrefix(string(res.Reply.Body), `{"response_token":"sha256=`) || res.Reply.ContentType != "application/json" {
		t.Fatalf("CRC: %+v", res)
	}
	for _, token := range []string{`{"for_user_id":"1"}`, `["a"]`, `"a"`, "a:b", "a\n"} {
		wantReason(t, token, ask("crc_token="+url.QueryEscape(token)), Policy)
	}
	wantReason(t, "twice", ask("crc_token=a&crc_token=b"), "*")
	// The answer is the signature of a body equal to the token: no such body is a delivery.
	forged := delivery("x")
	forged.Body = []byte("1234567890")
	answer := strings.TrimSuffix(strings.TrimPrefix(string(ask("crc_token=1234567890").Reply.Body), `{"response_token":"`), `"}`)
	wantReason(t, "signed by the CRC", v.Verify(with(forged, "x-twitter-webhooks-signature", answer), testNow), Policy)
	post := &provider.Request{Method: "POST", Target: []byte("/in/x?crc_token=a"), Body: []byte(`{}`)}
	wantReason(t, "as a POST", v.Verify(post, testNow), SignatureMissing)
}

// TestChallengeBody: a handshake that is told by its body never swallows an event.
func TestChallengeBody(t *testing.T) {
	woo, _ := devVerifier(t, get(t, "woocommerce"))
	ping := func(body string) Result {
		return woo.Verify(&provider.Request{Method: "POST", Target: []byte("/in/woocommerce"), Body: []byte(body)}, testNow)
	}
	if res := ping("webhook_id=12"); res.Verdict != Challenge || res.Reply.Status != 200 || len(res.Reply.Body) != 0 {
		t.Errorf("ping: %+v", res)
	}
	for _, body := range []string{"webhook_id=12\n", "webhook_id=", "webhook_id=a", "webhook_id=1&a=b", "x\nwebhook_id=1", ""} {
		wantReason(t, body, ping(body), SignatureMissing)
	}
	ring := mustNew(t, get(t, "ringcentral"), provider.Credentials{"tokens": {"some-token-or-other"}}, Options{})
	r := &provider.Request{Method: "POST", Header: provider.MakeHeader([][2]string{{"Validation-Token", "abc"}, {"Verification-Token", "some-token-or-other"}}), Body: []byte(`{"uuid":"1"}`)}
	wantReason(t, "an event with the handshake's header", ring.Verify(r, testNow), "")
	r.Body = nil
	if res := ring.Verify(r, testNow); res.Verdict != Challenge || res.Reply.ContentType != "application/json" || res.Reply.Header[0] != [2]string{"Validation-Token", "abc"} {
		t.Errorf("validation: %+v", res)
	}
}

// TestOktaVerification: the GET carries the configured header like every event.
func TestOktaVerification(t *testing.T) {
	v := mustNew(t, get(t, "okta"), provider.Credentials{"tokens": {"okta-token-or-other"}}, Options{})
	ask := func(h ...[2]string) Result {
		return v.Verify(&provider.Request{Method: "GET", Target: []byte("/in/okta"), Header: provider.MakeHeader(h)}, testNow)
	}
	auth := [2]string{"Authorization", "okta-token-or-other"}
	if res := ask(auth, [2]string{"X-Okta-Verification-Challenge", "c7f1a3"}); res.Verdict != Challenge || string(res.Reply.Body) != `{"verification":"c7f1a3"}` {
		t.Errorf("verification: %+v", res)
	}
	wantReason(t, "no challenge", ask(auth), Policy)
	wantReason(t, "no token", ask([2]string{"X-Okta-Verification-Challenge", "c7f1a3"}), SignatureMissing)
}

// TestMerchantHeader: a header names the key whose secret signs; it selects, it proves
// nothing.
func TestMerchantHeader(t *testing.T) {
	v := mustNew(t, get(t, "pusher"), provider.Credentials{"secrets": {"secret-of-the-app-key"}, "app_key": {"key1", "key2"}}, Options{})
	r := signed(t, v, "pusher")
	res := v.Verify(r, testNow)
	if res.Verdict != Accepted || res.Tenant != "key1" {
		t.Errorf("signed: %+v", res)
	}
	wantReason(t, "another key", v.Verify(with(r, "X-Pusher-Key", "key3"), testNow), MerchantMismatch)
	wantReason(t, "no key", v.Verify(without(r, "X-Pusher-Key"), testNow), SignatureMissing)
	wantReason(t, "two keys", v.Verify(added(r, "X-Pusher-Key", "key1"), testNow), DuplicateHeader)
}

// TestReplyMistakes: what a challenge must not be.
func TestReplyMistakes(t *testing.T) {
	const head = "scheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X-Sig, encoding: hex}\nchallenge:\n"
	for _, text := range []string{
		"  - {method: GET, query: {a: \"\"}, echo: {query: a}, reply: {charset: printable, mac: {json: b, encoding: hex}}}",
		"  - {method: GET, query: {a: \"\"}, echo: {query: a}, reply: {mac: {json: b, encoding: hex}}}\nstrict_json: true",
		"  - {method: GET, query: {a: \"\"}, reply: {mac: {json: b, encoding: hex}}}",
		"  - {method: GET, query: {a: \"\"}, echo: {query: a}, reply: {mac: {json: b}}}",
		"  - {method: POST, body: \"(\"}",
	} {
		if _, err := provider.Parse("x", []byte("name: x\n"+head+text+"\n")); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

// TestFormDocument: a document that is given alone is wrapped as the provider wraps it.
func TestFormDocument(t *testing.T) {
	for name, field := range map[string]string{"travis_ci": "payload", "liqpay": "data"} {
		v, _ := devVerifier(t, get(t, name))
		r := signed(t, v, name)
		if !strings.Contains(string(r.Body), field+"=") {
			t.Errorf("%s: %s", name, r.Body)
		}
		if _, err := get(t, name).Events(r); err != nil {
			t.Errorf("%s: what was signed cannot be read: %v", name, err)
		}
	}
}
