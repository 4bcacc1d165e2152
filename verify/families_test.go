package verify

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"penstock/provider"
)

// families are schemes of the engine that no built-in definition uses yet: the catalogue
// to come, and users' own. what lists changes of a signed request that must not verify.
var families = []struct {
	name, scheme string
	what         map[string]func(*provider.Request) *provider.Request
}{
	{name: "base64 key, tail timestamp in ms", scheme: `
scheme: hmac
algorithm: sha512
key: base64
signed: "{body}{ts}"
signature: {header: X-Sig, encoding: base64}
timestamp: {header: X-Ts, unit: ms}
tolerance: 60s`, what: changes("X-Ts", "1780000000001")},
	{name: "hex key, rfc3339, required version", scheme: `
scheme: hmac
algorithm: sha384
key: hex
signed: "{ts}{body}"
signature: {header: X-Sig, encoding: HEX}
timestamp: {header: X-Ts, unit: rfc3339}
tolerance: 60s
require: {X-Version: "1", X-Kind: ""}`, what: changes("X-Version", "2", "X-Kind", "", "X-Ts", "2026-05-28T20:26:41Z")},
	{name: "http date, url and method", scheme: `
scheme: hmac
algorithm: sha1
key: nfkd
signed: "{method}{url}{body}{ts}"
signature: {header: X-Sig, encoding: base64url}
timestamp: {header: Date, unit: http_date}
tolerance: 60s`, what: more(changes("Date", "Thu, 28 May 2026 20:26:41 GMT"), "url", func(r *provider.Request) *provider.Request {
		c := clone(r)
		c.PublicURL += "?"
		return c
	}, "method", func(r *provider.Request) *provider.Request {
		c := clone(r)
		c.Method = "PUT"
		return c
	})},
	{name: "header, query and path in the template, id", scheme: `
scheme: hmac
algorithm: md5
signed: "v1:{id}:{path}:{q:a}:{h:X-Extra}:{body}"
id: {header: X-Id, forbid: ":"}
require: {X-Extra: ""}
signature: {header: X-Sig, prefix: "hmac=", encoding: hex}`, what: changes("X-Id", "other", "X-Id", "a:b", "X-Extra", "y", "X-Sig", "00")},
	{name: "csv", scheme: `
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: X-Sig, format: csv, encoding: base64}`},
	{name: "words", scheme: `
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: X-Sig, format: words, key: v1, encoding: base64}`},
	{name: "numbered", scheme: `
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {header: "X-Sig-%d", numbered: 5, encoding: base64}`},
	{name: "signature in the query, time in the JSON", scheme: `
scheme: hmac
algorithm: sha256
signed: "{body}"
signature: {query: sig, encoding: hex}
timestamp: {json: at, unit: s}
tolerance: 60s`},
	{name: "rsa sha256", scheme: `
scheme: rsa
algorithm: sha256
signed: "{ts}.{body}"
signature: {header: X-Sig, encoding: base64}
timestamp: {header: X-Ts, unit: s}
tolerance: 60s`, what: changes("X-Ts", "1780000001")},
	{name: "ecdsa", scheme: `
scheme: ecdsa
algorithm: sha256
key: base64
signed: "{body}"
signature: {header: X-Sig, encoding: base64}`},
	{name: "ecdsa, doubly wrapped key", scheme: `
scheme: ecdsa
algorithm: sha256
key: base64_pem
signed: "{body}"
signature: {header: X-Sig, encoding: base64}`},
	{name: "ed25519 hex", scheme: `
scheme: ed25519
key: hex
signed: "{ts}{body}"
signature: {header: X-Sig, encoding: hex}
timestamp: {header: X-Ts, unit: s}`, what: changes("X-Ts", "1780000001")},
	{name: "ed25519 base64", scheme: `
scheme: ed25519
key: base64
signed: "{body}"
signature: {header: X-Sig, encoding: base64}`},
	{name: "token in a header", scheme: "scheme: token\ntoken: {header: X-Token}", what: changes("X-Token", "", "X-Token", "nope")},
	{name: "bearer", scheme: "scheme: token\ntoken: {header: Authorization, prefix: \"Bearer \"}", what: changes("Authorization", "Bearer", "Authorization", "Bearer ")},
	{name: "token in the query", scheme: "scheme: token\ntoken: {query: code}", what: more(nil, "target", func(r *provider.Request) *provider.Request {
		c := clone(r)
		c.Target = append(c.Target, "&code=x"...)
		return c
	})},
	{name: "token in the JSON", scheme: "scheme: token\ntoken: {field: passcode}"},
	{name: "basic", scheme: "scheme: basic", what: changes("Authorization", "Basic x", "Authorization", "Bearer x")},
	{name: "hash of a template, key first", scheme: `
scheme: hash
algorithm: sha256
key_position: prefix
signed: "{method}{url}{body}"
signature: {header: X-Sig, encoding: hex}`},
	{name: "hmac over fields", scheme: `
scheme: hmac
algorithm: sha512
fields: [id, {path: state, syntax: text}]
separator: ":"
signature: {field: sig, encoding: hex}`},
}

func changes(pairs ...string) map[string]func(*provider.Request) *provider.Request {
	out := map[string]func(*provider.Request) *provider.Request{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[fmt.Sprintf("%s: %q", pairs[i], pairs[i+1])] = func(r *provider.Request) *provider.Request { return with(r, pairs[i], pairs[i+1]) }
	}
	return out
}

func more(m map[string]func(*provider.Request) *provider.Request, rest ...any) map[string]func(*provider.Request) *provider.Request {
	out := map[string]func(*provider.Request) *provider.Request{}
	for k, f := range m {
		out[k] = f
	}
	for i := 0; i+1 < len(rest); i += 2 {
		out[rest[i].(string)] = rest[i+1].(func(*provider.Request) *provider.Request)
	}
	return out
}

func TestFamilies(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			def := schemeDef(t, f.scheme)
			v, _ := devVerifier(t, def)
			stranger, _ := devVerifier(t, def)
			r := delivery("x")
			r.Target, r.PublicURL = []byte("/in/x?a=1"), "https://hooks.example.com/in/x?a=1"
			r.Header = setHeader(setHeader(r.Header, "X-Extra", "x"), "X-Kind", "k")
			if err := v.Sign(r, testNow); err != nil {
				t.Fatal(err)
			}
			wantReason(t, "signed", v.Verify(r, testNow), "")
			wantReason(t, "unsigned", v.Verify(delivery("x"), testNow), "*")
			wantReason(t, "another source", stranger.Verify(r, testNow), SignatureMismatch)
			if v.ts != nil && v.tolerance > 0 {
				wantReason(t, "stale", v.Verify(r, testNow.Add(62*time.Second)), TimestampOutsideTolerance)
				wantReason(t, "future", v.Verify(r, testNow.Add(-62*time.Second)), TimestampOutsideTolerance)
			}
			for name, change := range f.what {
				wantReason(t, name, v.Verify(change(r), testNow), "*")
			}
			flips(t, v, r)
		})
	}
}

func TestTokenInEveryElement(t *testing.T) {
	v := mustNew(t, schemeDef(t, "scheme: token\ntoken: {field: value.*.clientState}"), provider.Credentials{"tokens": {"a-client-state", "an-older-state"}}, Options{})
	for body, reason := range map[string]string{
		`{"value":[{"clientState":"a-client-state"},{"clientState":"an-older-state"}]}`: "",
		`{"value":[{"clientState":"a-client-state"},{"clientState":"x"}]}`:              SignatureMismatch,
		`{"value":[{"clientState":"a-client-state"},{}]}`:                               SignatureMissing,
		`{"value":[]}`: SignatureMissing,
		`{"value":{"0":{"clientState":"a-client-state"}}}`: SignatureMissing,
		`{}`: SignatureMissing,
		``:   SignatureMissing,
		`{"value":[{"clientState":"x","clientState":"a-client-state"}]}`: SignatureMissing,
	} {
		r := delivery("x")
		r.Body = []byte(body)
		wantReason(t, body, v.Verify(r, testNow), reason)
	}
}

func TestBasic(t *testing.T) {
	v := mustNew(t, schemeDef(t, "scheme: basic"), provider.Credentials{"usernames": {"user"}, "passwords": {"pass:word", "older-password"}}, Options{})
	enc := base64.StdEncoding.EncodeToString
	for value, reason := range map[string]string{
		"Basic " + enc([]byte("user:pass:word")):      "",
		"basic " + enc([]byte("user:older-password")): "",
		"Basic " + enc([]byte("user:")):               SignatureMismatch,
		"Basic " + enc([]byte("user:pass")):           SignatureMismatch,
		"Basic " + enc([]byte(":pass:word")):          SignatureMismatch,
		"Basic " + enc([]byte("USER:pass:word")):      SignatureMismatch,
		"Basic " + enc([]byte("user")):                SignatureMalformed,
		"Basic user:pass:word":                        SignatureMalformed,
		"Basic ":                                      SignatureMalformed,
		"Bearer " + enc([]byte("user:pass:word")):     SignatureMalformed,
		enc([]byte("user:pass:word")):                 SignatureMalformed,
		"":                                            SignatureMissing,
	} {
		wantReason(t, value, v.Verify(with(delivery("x"), "Authorization", value), testNow), reason)
	}
}

// TestNoneIsSpelledOut: a scheme that verifies nothing exists only by its name. (class 3)
func TestNoneIsSpelledOut(t *testing.T) {
	if errs := (&provider.Scheme{}).Validate(); len(errs) == 0 {
		t.Error("a definition without a scheme is valid")
	}
	if errs := (&provider.Scheme{Scheme: "noop"}).Validate(); len(errs) == 0 {
		t.Error("an unknown scheme is valid")
	}
	if _, err := New(&provider.Definition{Name: "x"}, nil, Options{}); err == nil {
		t.Error("a definition without a scheme compiles")
	}
	v := mustNew(t, schemeDef(t, "scheme: none"), nil, Options{})
	if res := v.Verify(delivery("x"), testNow); res.Verdict != Accepted || res.VerifiedBy != "none" {
		t.Errorf("%+v", res)
	}
}

// TestBadSchemes: mistakes of a definition are found at load, each by its path.
func TestBadSchemes(t *testing.T) {
	for path, s := range map[string]provider.Scheme{
		"algorithm":           {Scheme: "hmac", Signed: "{body}", Signature: provider.Signature{Header: "X", Encoding: "hex"}},
		"signed":              {Scheme: "hmac", Algorithm: "sha256", Signature: provider.Signature{Header: "X", Encoding: "hex"}},
		"signature":           {Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: provider.Signature{Encoding: "hex"}},
		"signature.encoding":  {Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: provider.Signature{Header: "X"}},
		"timestamp":           {Scheme: "hmac", Algorithm: "sha256", Signed: "{ts}", Signature: provider.Signature{Header: "X", Encoding: "hex"}},
		"signature.key":       {Scheme: "hmac", Algorithm: "sha256", Signed: "{body}", Signature: provider.Signature{Header: "X", Encoding: "hex", Format: "list"}},
		"required_signed[0]":  {Scheme: "hash_concat", Algorithm: "md5", Fields: []provider.SignedField{{Path: "a"}}, RequiredSigned: []string{"b"}, Signature: provider.Signature{Field: "s", Encoding: "hex"}},
		"fields[1]":           {Scheme: "hash_concat", Algorithm: "md5", Fields: []provider.SignedField{{Path: "a"}, {Path: "a"}}, Signature: provider.Signature{Field: "s", Encoding: "hex"}},
		"fields":              {Scheme: "hash_concat", Algorithm: "md5", Signature: provider.Signature{Field: "s", Encoding: "hex"}},
		"token":               {Scheme: "token"},
		"prefixes":            {Scheme: "standard_webhooks"},
		"challenge[0].token":  {Scheme: "none", Challenge: []provider.Challenge{{Method: "GET", Query: map[string]string{"a": ""}, Token: &provider.FromWhere{Query: "t"}}}},
		"challenge[0].method": {Scheme: "none", Challenge: []provider.Challenge{{Method: "BREW", Query: map[string]string{"a": ""}}}},
		"ack.builder":         {Scheme: "none", Ack: &provider.Answer{Builder: "x"}},
		"ack.status":          {Scheme: "none", Ack: &provider.Answer{Status: 302}},
		"refusal.status":      {Scheme: "none", Refusal: &provider.Answer{Status: 200}},
		"settings.x":          {Scheme: "none", Settings: map[string][]string{"x": nil}},
		"key":                 {Scheme: "none", Key: "rot13"},
	} {
		found := false
		for _, err := range s.Validate() {
			if se := (*provider.SchemeError)(nil); errors.As(err, &se) && se.Path == path {
				found = true
			}
		}
		if !found {
			t.Errorf("no error at %s: %v", path, s.Validate())
		}
	}
}

// TestDevCredentialsAreFresh: two sets have nothing secret in common.
func TestDevCredentialsAreFresh(t *testing.T) {
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		a, err1 := DevCredentials(def, rand.Reader)
		b, err2 := DevCredentials(def, rand.Reader)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for _, spec := range def.CredentialSpecs() {
			if spec.Secret && len(a[spec.Name]) > 0 && (a[spec.Name][0] == b[spec.Name][0] || len(a[spec.Name][0]) < 16) {
				t.Errorf("%s: %s is short or not fresh", name, spec.Name)
			}
		}
	}
}
