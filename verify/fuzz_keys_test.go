package verify

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"net/url"
	"strings"
	"testing"

	"penstock/provider"
)

// FuzzPublishedKeys: whatever stands at a provider's address, nothing panics, and what is
// read are public keys of the scheme's own kind. An answer without keys is never kept.
func FuzzPublishedKeys(f *testing.F) {
	var sets []*keySet
	for _, s := range []provider.Published{{Format: "jwks"}, {Format: "pem"}, {Format: "json", Path: "config.key"}} {
		for _, name := range []string{"shipstation", "google_pubsub", "wise"} {
			def := get(f, name)
			creds, err := DevCredentials(def, bytes.NewReader(bytes.Repeat([]byte{7}, 1<<16)))
			if err != nil {
				f.Fatal(err)
			}
			sets = append(sets, &keySet{v: mustNew(f, def, creds, Options{}), format: s.Format, path: s.Path})
		}
	}
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	ec, err := devJWKS(k.Public())
	if err != nil {
		f.Fatal(err)
	}
	text := publicPEM(f, rsaKey(f))
	for i := range sets {
		for _, doc := range []string{ec, text, text + text, privatePEM(f, crypto.Signer(k)), `{"config":{"key":"-----BEGIN PUBLIC KEY-----"}}`, `{"keys":[]}`, `{"key":{}}`, "<html>", "",
			`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`} {
			f.Add(uint8(i), []byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, doc []byte) {
		s := sets[int(i)%len(sets)]
		kept := PublishedDocument(doc)
		keys, err := s.read(doc)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("%d keys and no error", len(keys))
		}
		if kept != nil {
			t.Fatalf("%q holds keys and would not be kept: %v", doc, kept)
		}
		for i := range keys {
			k := &keys[i]
			if !k.public || len(k.secret) > 0 || k.rsa == nil && k.ec == nil && k.ed == nil || s.v.kind == primRSA && k.rsa == nil {
				t.Fatalf("%q gives the key %+v", doc, k)
			}
		}
		s.last.Store(nil)
	})
}

// FuzzPublicKey: the text of a credential in each of its forms.
func FuzzPublicKey(f *testing.F) {
	kinds := []string{"", "pem", "hex", "base64", "base64_pem", "whpk"}
	prims := []primitive{primRSA, primECDSA, primEd25519, primStandard, primOwn}
	for i := range kinds {
		for _, s := range []string{publicPEM(f, rsaKey(f)), "id:" + publicPEM(f, ed25519.NewKeyFromSeed(make([]byte, 32))), "whpk_AAAA", strings.Repeat("00", 32), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""} {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, text string) {
		if id, key, err := namedPublicKey(text); err == nil && (id == "" || key == "") && !strings.Contains(text, ":") {
			t.Fatalf("%q is named %q: %q", text, id, key)
		}
		prim := prims[int(i)%len(prims)]
		k, err := newPublicKey("x", text, kinds[int(i)%len(kinds)], prim, "x")
		if err != nil {
			return
		}
		if !k.public || k.rsa == nil && k.ec == nil && k.ed == nil || k.ed != nil && len(k.ed) != ed25519.PublicKeySize {
			t.Fatalf("%q gives the key %+v", text, k)
		}
	})
}

// FuzzCertificate: a document at a certificate's address, and the address itself.
func FuzzCertificate(f *testing.F) {
	_, cert := testCertificate(f, "sns.amazonaws.com", testNow)
	for _, s := range []string{cert, cert + cert, strings.Repeat("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 20), "", snsCert, "https://a@b/", "https://sns.us-east-1.amazonaws.com:443/x.pem#y", "https://a\n/"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if u := plainURL(doc); u != nil && (u.Scheme != "https" || u.User != nil || u.Port() != "" || u.Fragment != "" || u.Host == "" || u.String() == "") {
			t.Fatalf("%q is no plain address: %+v", doc, u)
		}
		p, err := parseChain(doc, "x")
		if err != nil {
			return
		}
		if len(p.chain) == 0 || len(p.chain) > maxChain || p.key.rsa == nil || p.key.rsa.N.BitLen() < 2048 {
			t.Fatalf("a chain of %d with the key %+v", len(p.chain), p.key)
		}
		p.valid(testNow)
		p.trusted(testNow, nil, []string{"sns.amazonaws.com"})
	})
}

// FuzzAskedKey: the answer of an API that is asked for one key, and the id that it is
// asked by.
func FuzzAskedKey(f *testing.F) {
	def := get(f, "plaid")
	v := mustNew(f, def, provider.Credentials{"client_id": {"client-1"}, "api_secret": {"secret-1"}}, Options{})
	a, err := newAskedKeys(v)
	if err != nil {
		f.Fatal(err)
	}
	set, err := devJWKS(ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	if err != nil {
		f.Fatal(err)
	}
	one := strings.TrimSuffix(strings.TrimPrefix(set, `{"keys":[`), "]}")
	for _, s := range []string{`{"key":` + one + `}`, `{"key":` + strings.Replace(one, "{", `{"expired_at":1,`, 1) + `}`, `{"key":null}`, `{"key":[]}`, "", "kid-1", "../x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if plainID(string(doc)) && url.PathEscape(string(doc)) != string(doc) {
			t.Fatalf("%q is no plain id", doc)
		}
		if k, err := a.parse(doc); err == nil && (!k.key.public || k.key.rsa == nil && k.key.ec == nil && k.key.ed == nil) {
			t.Fatalf("%q gives %+v", doc, k)
		}
		a.last.Store(nil)
	})
}

// FuzzCase: what `penstock verify` is given.
func FuzzCase(f *testing.F) {
	for _, s := range []string{`{"name":"a","request":{"method":"POST","url":"https://a/b","headers":[["A","b"]],"body_b64":"AA=="},"now":1780000000.5}`,
		`{"method":"GET","url":"/"}`, `{"request":{"method":"GET","url":"x://?"},"now":1e300}`, "{}", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCase(text)
		if err != nil {
			return
		}
		if _, err := c.At(); err != nil {
			return
		}
		r, err := c.Delivery(testNow)
		if err == nil && (r.Method == "" || r.PublicURL == "") {
			t.Fatalf("%q gives %+v", text, r)
		}
	})
}

// FuzzQueryHash: Atlassian's canonical query is one line of printable ASCII and does not
// depend on the order of the parameters' names.
func FuzzQueryHash(f *testing.F) {
	for _, s := range []string{"", "a=1&b=2", "b=2&a=1&a=0", "jwt=x&a=%20", "a=%zz", "a+b=c%2Bd", "&&=", "a=1;b=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := canonicalQuery(query)
		if strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is written %q", query, got)
		}
		a, b, two := strings.Cut(query, "&")
		if name := func(s string) string { n, _, _ := strings.Cut(s, "="); return queryText(n) }; two && !strings.Contains(b, "&") && name(a) != name(b) {
			if swapped := canonicalQuery(b + "&" + a); swapped != got {
				t.Fatalf("%q: %q, in the other order %q", query, got, swapped)
			}
		}
	})
}
