package verify

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"penstock/provider"
)

// TestExplain: the signed bytes, the expected signature next to the received one, and
// never a secret. (class 31)
func TestExplain(t *testing.T) {
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		v, creds := devVerifier(t, def)
		r := signed(t, v, name)
		e := v.Explain(r, testNow)
		if _, says := v.own.(ownExplain); v.kind == primOwn && !says {
			continue // its verdict is all that there is
		}
		if e.Verdict != Accepted || len(e.Keys) == 0 || !e.Keys[0].Match || len(e.Signed) == 0 && v.kind != primToken && v.kind != primBasic || len(e.Received) == 0 {
			t.Errorf("%s: %+v", name, e)
		}
		if k := e.Keys[0]; k.Expected != "" && !strings.Contains(e.Received[0], k.Expected) {
			t.Errorf("%s: expected %q is not in the received %q", name, k.Expected, e.Received[0])
		}
		bad := clone(r)
		bad.Body = append(bad.Body, '\n')
		for _, x := range []Explanation{e, v.Explain(bad, testNow), v.Explain(delivery(name), testNow), v.Explain(&provider.Request{}, testNow)} {
			text := fmt.Sprintf("%+v %s", x, x.Signed)
			for _, spec := range def.CredentialSpecs() {
				if spec.Secret && len(creds[spec.Name]) > 0 && strings.Contains(text, creds[spec.Name][0]) {
					t.Errorf("%s: the explanation shows the secret %s", name, spec.Name)
				}
			}
		}
	}
}

// TestHints: what happened on the way is named.
func TestHints(t *testing.T) {
	v, good := stripe(t)
	mk := func(body string) *provider.Request {
		r := clone(good)
		r.Body = []byte(body)
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct{ sent, received, hint string }{
		{"{\"a\": 1}\n", `{"a": 1}`, "trimmed"},
		{`{"a": 1}`, "{\"a\": 1}\n", "appended a newline"},
		{`{"a":1}`, "{\n \"a\": 1}", "pretty-printed"},
		{"{\n  \"a\": 1\n}", `{"a":1}`, "compacted"},
		{"{}", "\xef\xbb\xbf{}", "byte order mark"},
		{"{}", "[]", "another secret"},
	} {
		r := mk(c.sent)
		r.Body = []byte(c.received)
		e := v.Explain(r, testNow)
		if len(e.Hints) == 0 || !strings.Contains(strings.Join(e.Hints, "\n"), c.hint) {
			t.Errorf("%q for %q: hints %q, want %q", c.received, c.sent, e.Hints, c.hint)
		}
	}
	if e := v.Explain(good, testNow.Add(1e12)); !strings.Contains(strings.Join(e.Hints, " "), "clock") {
		t.Errorf("stale: %q", e.Hints)
	}
	decoded := mustNew(t, schemeDef(t, "scheme: hmac\nalgorithm: sha256\nkey: base64\nsigned: \"{body}\"\nsignature: {header: X-Hub-Signature-256, prefix: \"sha256=\", encoding: hex}"),
		provider.Credentials{"secrets": {"c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg="}}, Options{})
	text := mustNew(t, get(t, "github"), provider.Credentials{"secrets": {"c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg="}}, Options{})
	r := signed(t, decoded, "github")
	if e := text.Explain(r, testNow); !strings.Contains(strings.Join(e.Hints, " "), "base64") {
		t.Errorf("encoded secret: %q", e.Hints)
	}
}

// TestFingerprint tells credentials apart and nothing about them.
func TestFingerprint(t *testing.T) {
	seen := map[string]string{}
	for i := range 200 {
		s := fmt.Sprintf("secret-%d", i)
		f := fingerprint(s)
		if len(f) != 8 || seen[f] != "" || bytes.Contains([]byte(f), []byte(s)) {
			t.Errorf("fingerprint %q of %q", f, s)
		}
		seen[f] = s
	}
}

// TestURLHintsOfProviders: what a proxy did to a signed URL is named, for every provider that signs
// one, and nothing is said where the URL explains nothing.
func TestURLHintsOfProviders(t *testing.T) {
	for _, name := range []string{"twilio", "trello", "mandrill", "hubspot", "plivo", "square"} {
		v, _ := devVerifier(t, get(t, name))
		r := delivery(name)
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		sent := r.PublicURL
		for _, seen := range []string{strings.Replace(sent, "https", "http", 1), sent + "/", strings.Replace(sent, "hooks.", "www.hooks.", 1), sent + "?added=1"} {
			changed := clone(r)
			changed.PublicURL = seen
			_, query, _ := strings.Cut(seen, "?")
			changed.Target = []byte(strings.TrimSuffix("/in/"+name+"?"+query, "?"))
			hints := strings.Join(v.Explain(changed, testNow).Hints, " ")
			if query == "" && !strings.Contains(hints, "URL "+sent+";") {
				t.Errorf("%s: %s was called: %q", name, seen, hints)
			}
		}
	}
}
