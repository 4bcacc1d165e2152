package provider

import (
	"strings"
	"testing"
)

// TestWords: every provider is told in words, whole and without a place left open.
func TestWords(t *testing.T) {
	cat := builtins(t)
	overview := cat.Markdown()
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		text := strings.Join(d.Verification(), "\n") + "\n" + d.RetrySchedule()
		switch {
		case len(d.Verification()) == 0, d.Answer() == "", d.RetrySchedule() == "":
			t.Errorf("%s: not a word", name)
		case strings.Contains(text, "%!"), strings.Contains(text, "  "), strings.HasPrefix(text, " "), strings.Contains(strings.ReplaceAll(text, "...", ""), " ."), strings.Contains(text, "in ."):
			t.Errorf("%s: a hole in\n%s", name, text)
		case !strings.Contains(overview, "]("+name+".md)"):
			t.Errorf("%s is not in the overview", name)
		}
		if d.Setup == "" || d.Docs == "" && name != "generic_hash_concat" {
			t.Errorf("%s does not say where it is set up", name)
		}
		for _, c := range d.CredentialSpecs() {
			if c.About == "" {
				t.Errorf("%s: credential %s is not explained", name, c.Name)
			}
		}
		for _, e := range d.CanonicalEvents() {
			if !canonicalTypes[e.Type] || len(e.From) == 0 {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}

// TestVerificationWords: the sentences say what the scheme does.
func TestVerificationWords(t *testing.T) {
	f := func(name string, want ...string) {
		t.Helper()
		d, _ := builtins(t).Get(name)
		text := strings.Join(d.Verification(), "\n") + "\n" + d.Answer() + "\n" + d.RetrySchedule()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, text)
			}
		}
	}
	f("stripe", `HMAC-SHA-256 over the timestamp + "." + the raw body`, "header Stripe-Signature in hex behind the label v1", "5 min", "200 with an empty body", "waits 20s")
	f("github", `after "sha256="`, "No time is checked")
	f("liqpay", "SHA-1 over field data with the secret in front and at the end", "body field signature in base64", "public_key")
	f("wayforpay", "merchantAccount, orderReference", `joined by ";"`, "Whatever else the body says is not proved", "computed and signed")
	f("gitlab", "Nothing is signed", "X-Gitlab-Token")
	f("standard_webhooks", "webhook-signature", "message id")
	f("adyen", "decoded from hex", "[accepted]")
	f("square", "the URL as it was entered at the provider + the raw body")
}
