package verify

import (
	"fmt"
	"testing"

	"penstock/provider"
)

// TestDiscordPing: the number 1 is a PING of interactions and an event of webhook events;
// the event member tells them apart, and nothing unsigned is answered.
func TestDiscordPing(t *testing.T) {
	v, _ := devVerifier(t, get(t, "discord"))
	for _, c := range []struct {
		body, reply string
		status      int // 0: a delivery
	}{
		{`{"type":1}`, `{"type":1}`, 200},
		{`{"version":1,"application_id":"1","type":0}`, "", 204},
		{`{"version":1,"application_id":"1","type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}`, "", 0},
		{`{"type":1,"event":null}`, "", 0},
		{`{"type":2,"id":"1"}`, "", 0},
		{`{"type":"10"}`, "", 0},
	} {
		r := delivery("discord")
		r.Body = []byte(c.body)
		if res := v.Verify(r, testNow); res.Verdict != Rejected {
			t.Errorf("%s: unsigned: %+v", c.body, res)
		}
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		res := v.Verify(r, testNow)
		switch {
		case c.status == 0 && res.Verdict != Accepted:
			t.Errorf("%s: %+v, want a delivery", c.body, res)
		case c.status != 0 && (res.Verdict != Challenge || res.Reply == nil || res.Reply.Status != c.status || string(res.Reply.Body) != c.reply || res.Reply.ContentType != "application/json"):
			t.Errorf("%s: %+v", c.body, res)
		}
	}
	s := provider.Scheme{Scheme: "none", Challenge: []provider.Challenge{{Method: "POST", Header: map[string]string{"X": ""}, Without: []string{"event"}}}}
	if len(s.Validate()) == 0 {
		t.Error("without is taken although no JSON is asked for")
	}
}

// TestNumberedSignatures: DocuSign signs with up to 100 keys; whichever number ours has
// is found, one beyond is not looked at, and each number stands once.
func TestNumberedSignatures(t *testing.T) {
	v, _ := devVerifier(t, get(t, "docusign"))
	other, _ := devVerifier(t, get(t, "docusign"))
	right, wrong := signed(t, v, "docusign"), signed(t, other, "docusign")
	sig, _ := right.Header.Get("X-DocuSign-Signature-1")
	bad, _ := wrong.Header.Get("X-DocuSign-Signature-1")
	at := func(ours, all int) *provider.Request {
		r := without(right, "X-DocuSign-Signature-1")
		for n := 1; n <= all; n++ {
			text := string(bad)
			if n == ours {
				text = string(sig)
			}
			r = added(r, fmt.Sprintf("X-DocuSign-Signature-%d", n), text)
		}
		return r
	}
	for _, n := range []int{1, 8, 9, 42, 100} {
		wantReason(t, fmt.Sprintf("number %d of 100", n), v.Verify(at(n, 100), testNow), "")
	}
	wantReason(t, "none of 100", v.Verify(at(0, 100), testNow), SignatureMismatch)
	wantReason(t, "number 101", v.Verify(at(101, 101), testNow), SignatureMismatch)
	wantReason(t, "number 2 alone", v.Verify(added(without(right, "X-DocuSign-Signature-1"), "X-DocuSign-Signature-2", string(sig)), testNow), "")
	wantReason(t, "one number twice", v.Verify(added(right, "X-DocuSign-Signature-1", string(sig)), testNow), DuplicateHeader)
}

// TestVectorVariant: a case goes to the definition of its scheme, and to no other
// provider's.
func TestVectorVariant(t *testing.T) {
	cat := builtin(t)
	for _, c := range []struct {
		c    Case
		want string
	}{
		{Case{Provider: "buildkite"}, "buildkite"},
		{Case{Provider: "buildkite", Variant: "buildkite_token"}, "buildkite_token"},
		{Case{Provider: "buildkite", Secrets: map[string]any{"mode": "token"}}, "buildkite_token"},
		{Case{Provider: "buildkite", Secrets: map[string]any{"mode": "signature"}}, "buildkite"},
		{Case{Provider: "gitlab", Secrets: map[string]any{"secret": "x"}}, "gitlab"},
		{Case{Provider: "gitlab", Secrets: map[string]any{"secret": "x", "signing_token": "y"}}, "gitlab_signed"},
		{Case{Provider: "gitea", Variant: "no such row"}, "gitea"},
	} {
		if d, ok := variant(cat, &c.c); !ok || d.Name != c.want {
			t.Errorf("%+v goes to %v, want %s", c.c, d, c.want)
		}
	}
}
