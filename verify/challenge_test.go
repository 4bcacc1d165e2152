package verify

import (
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

func metaGET(query string) *provider.Request {
	return &provider.Request{Method: "GET", Target: []byte("/in/meta?" + query), PublicURL: "https://h/in/meta?" + query}
}

func TestMetaChallenge(t *testing.T) {
	v := mustNew(t, get(t, "meta"), provider.Credentials{"secrets": {"app-secret-of-length"}, "verify_token": {"meatyhamhock", "second-token"}}, Options{})
	for _, c := range []struct {
		name, query, body string
		status            int
	}{
		{"as sent", "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock", "1158201444", 200},
		{"second token", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=second-token", "1", 200},
		{"wrong token", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=meatyhamhocK", "", 403},
		{"no token", "hub.mode=subscribe&hub.challenge=1", "", 403},
		{"empty token", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=", "", 403},
		{"token twice", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=meatyhamhock&hub.verify_token=x", "", 403},
		{"challenge twice", "hub.mode=subscribe&hub.challenge=1&hub.challenge=2&hub.verify_token=meatyhamhock", "", 403},
		{"no challenge", "hub.mode=subscribe&hub.verify_token=meatyhamhock", "", 403},
		{"markup", "hub.mode=subscribe&hub.challenge=%3Cscript%3E&hub.verify_token=meatyhamhock", "", 403},
		{"JSON", "hub.mode=subscribe&hub.challenge=" + url.QueryEscape(`{"a":"b"}`) + "&hub.verify_token=meatyhamhock", "", 403},
		{"CRLF", "hub.mode=subscribe&hub.challenge=a%0d%0ab&hub.verify_token=meatyhamhock", "", 403},
		{"too long", "hub.mode=subscribe&hub.verify_token=meatyhamhock&hub.challenge=" + strings.Repeat("1", 513), "", 403},
		{"longest", "hub.mode=subscribe&hub.verify_token=meatyhamhock&hub.challenge=" + strings.Repeat("1", 512), strings.Repeat("1", 512), 200},
		{"no mode", "hub.challenge=1&hub.verify_token=meatyhamhock", "", 0},
		{"other mode", "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=meatyhamhock", "", 0},
		{"mode twice", "hub.mode=subscribe&hub.mode=subscribe&hub.challenge=1&hub.verify_token=meatyhamhock", "", 0},
	} {
		res := v.Verify(metaGET(c.query), testNow)
		if c.status == 200 {
			if res.Verdict != Challenge || res.Reply == nil || string(res.Reply.Body) != c.body || res.Reply.ContentType != "text/plain" || res.Reply.Status != 200 {
				t.Errorf("%s: %+v", c.name, res)
			}
			continue
		}
		wantReason(t, c.name, res, "*")
		if got := res.Reply; c.status != 0 && (got == nil || got.Status != c.status || len(got.Body) > 0) {
			t.Errorf("%s: reply %+v", c.name, got)
		}
	}
	post := metaGET("hub.mode=subscribe&hub.challenge=1&hub.verify_token=meatyhamhock")
	post.Method = "POST"
	wantReason(t, "as a POST", v.Verify(post, testNow), SignatureMissing)
	silent := mustNew(t, get(t, "meta"), provider.Credentials{"secrets": {"app-secret-of-length"}}, Options{})
	wantReason(t, "no token configured", silent.Verify(metaGET("hub.mode=subscribe&hub.challenge=1&hub.verify_token="), testNow), "*")
}

// TestSlackChallenge: signed like the rest, and no oracle: what is echoed can be neither
// markup nor another text that we would sign.
func TestSlackChallenge(t *testing.T) {
	v, _ := devVerifier(t, get(t, "slack"))
	build := func(body string) *provider.Request {
		r := delivery("slack")
		r.Body = []byte(body)
		return r
	}
	ok := build(`{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`)
	wantReason(t, "unsigned", v.Verify(ok, testNow), SignatureMissing)
	if err := v.Sign(ok, testNow); err != nil {
		t.Fatal(err)
	}
	res := v.Verify(ok, testNow)
	if res.Verdict != Challenge || string(res.Reply.Body) != "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P" || res.Reply.ContentType != "text/plain" || res.Reply.Status != 200 {
		t.Errorf("challenge: %+v", res)
	}
	wantReason(t, "stale challenge", v.Verify(ok, testNow.Add(301e9)), TimestampOutsideTolerance)
	for name, body := range map[string]string{
		"markup":           `{"challenge":"<script>","type":"url_verification"}`,
		"no challenge":     `{"type":"url_verification"}`,
		"challenge object": `{"challenge":{},"type":"url_verification"}`,
		"challenge twice":  `{"challenge":"a","challenge":"b","type":"url_verification"}`,
		"too long":         `{"challenge":"` + strings.Repeat("a", 600) + `","type":"url_verification"}`,
	} {
		r := build(body)
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name, v.Verify(r, testNow), Policy)
	}
	event := build(`{"type":"event_callback","event":{"type":"message","text":"url_verification"},"event_id":"Ev1"}`)
	if err := v.Sign(event, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "an event that speaks of it", v.Verify(event, testNow), "")
}

// TestChallengeShapes: the other shapes of the engine, as data.
func TestChallengeShapes(t *testing.T) {
	def := schemeDef(t, `
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: X-Sig, encoding: hex}
challenge:
  - {method: GET, header: {X-Okta-Verification-Challenge: ""}, echo: {header: X-Okta-Verification-Challenge}, reply: {json: verification}}
  - {method: POST, header: {Validation-Token: ""}, echo: {header: Validation-Token}, reply: {header: Validation-Token, body: ""}}
  - {method: POST, query: {validationToken: ""}, echo: {query: validationToken}, reply: {charset: printable}}
  - {method: POST, json: {challenge: ""}, echo: {json: challenge}, reply: {json: challenge}}
  - {method: HEAD}
`)
	v := mustNew(t, def, provider.Credentials{"secrets": {"some-secret-or-other"}}, Options{})
	header := func(n, val string) provider.Header { return provider.MakeHeader([][2]string{{n, val}}) }
	for _, c := range []struct {
		r         *provider.Request
		kind      string
		body, hdr string
	}{
		{&provider.Request{Method: "GET", Header: header("x-okta-verification-challenge", "abc")}, "application/json", `{"verification":"abc"}`, ""},
		{&provider.Request{Method: "POST", Header: header("Validation-Token", "abc")}, "", "", "abc"},
		{&provider.Request{Method: "POST", Target: []byte("/x?validationToken=Validation%3A+a+b%3Cc%3E")}, "text/plain", "Validation: a b<c>", ""},
		{&provider.Request{Method: "POST", Body: []byte(`{"challenge":"a-b"}`)}, "application/json", `{"challenge":"a-b"}`, ""},
		{&provider.Request{Method: "HEAD"}, "", "", ""},
	} {
		res := v.Verify(c.r, testNow)
		if res.Verdict != Challenge || res.Reply.Status != 200 || res.Reply.ContentType != c.kind || string(res.Reply.Body) != c.body {
			t.Errorf("%s %s: %+v", c.r.Method, c.r.Target, res)
			continue
		}
		if c.hdr != "" && res.Reply.Header[0][1] != c.hdr {
			t.Errorf("header %v", res.Reply.Header)
		}
	}
	evil := &provider.Request{Method: "POST", Header: header("Validation-Token", "a b")}
	wantReason(t, "blank in an echoed header", v.Verify(evil, testNow), Policy)
}
