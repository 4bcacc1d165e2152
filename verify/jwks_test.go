package verify

import (
	"strings"
	"testing"

	"penstock/provider"
)

// TestJWKS: the request names the key, only that one counts, and a set that cannot verify
// is refused at load.
func TestJWKS(t *testing.T) {
	def := get(t, "shipstation")
	v, creds := devVerifier(t, def)
	r := signed(t, v, "shipstation")
	wantReason(t, "signed", v.Verify(r, testNow), "")
	const id = "X-ShipEngine-RSA-SHA256-Key-ID"
	wantReason(t, "another key named", v.Verify(with(r, id, "kid-9"), testNow), SignatureMismatch)
	wantReason(t, "no key named", v.Verify(without(r, id), testNow), SignatureMissing)
	wantReason(t, "two keys named", v.Verify(added(r, id, "dev"), testNow), DuplicateHeader)

	good := creds["jwks"][0]
	one := strings.TrimSuffix(strings.TrimPrefix(good, `{"keys":[`), `]}`)
	for _, value := range []string{good, one, " " + good + "\n", `{"keys":[{"kty":"EC","crv":"P-256","kid":"e"},{"kty":"oct","kid":"o"},` + one + `]}`} {
		v := mustNew(t, def, provider.Credentials{"jwks": {value}}, Options{})
		wantReason(t, value[:20], v.Verify(r, testNow), "")
	}
	for name, value := range map[string]string{
		"empty set":  `{"keys":[]}`,
		"no set":     `[]`,
		"no JSON":    "-----BEGIN PUBLIC KEY-----",
		"empty":      "",
		"encryption": `{"keys":[` + strings.Replace(one, `"use":"sig"`, `"use":"enc"`, 1) + `]}`,
		"private":    `{"keys":[` + strings.Replace(one, `"use":"sig"`, `"d":"AQAB"`, 1) + `]}`,
		"twice":      `{"keys":[` + one + "," + one + `]}`,
		"short":      `{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`,
		"exponent":   strings.Replace(good, `"e":"AQAB"`, `"e":"AQ"`, 1),
		"padding":    strings.Replace(good, `"e":"AQAB"`, `"e":"AQAB="`, 1),
	} {
		if _, err := New(def, provider.Credentials{"jwks": {value}}, Options{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
