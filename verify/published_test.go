package verify

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"penstock/provider"
)

// publicPEM is the public half of k as providers print it.
func publicPEM(t testing.TB, k crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// publishedCase is one state of a publisher, and what a delivery comes to then.
type publishedCase struct {
	what      string
	source    KeySource
	r         *provider.Request
	reason    string
	refreshed bool // a newer document is asked for
}

// tryPublished verifies each delivery twice, and holds the fetches to url alone.
func tryPublished(t *testing.T, def *provider.Definition, url string, cases []publishedCase) {
	t.Helper()
	for _, c := range cases {
		v := mustNew(t, def, nil, Options{Keys: c.source})
		for range 2 {
			wantReason(t, def.Name+": "+c.what, v.Verify(c.r, testNow), c.reason)
		}
		s, ok := c.source.(*shelf)
		if !ok {
			continue
		}
		for _, asked := range s.fetched {
			if asked != url {
				t.Errorf("%s: %s: fetched %s", def.Name, c.what, asked)
			}
		}
		if (s.refreshed > 0) != c.refreshed {
			t.Errorf("%s: %s: asked %d times for a newer document", def.Name, c.what, s.refreshed)
		}
	}
}

// signedWith is a delivery that k signed, under the key id that the dev credentials give.
func signedWith(t *testing.T, def *provider.Definition, k *rsa.PrivateKey) *provider.Request {
	t.Helper()
	_, creds := devVerifier(t, def)
	creds["signing_key"] = []string{privatePEM(t, k)}
	return signed(t, mustNew(t, def, creds, Options{}), def.Name)
}

// ShipStation: a key set by key id, of a scheme that has no code of its own. No key to be
// had is never a mismatch, and a request names neither the address nor the key's bytes.
func TestPublishedSet(t *testing.T) {
	const set, header = "https://api.shipengine.com/jwks", "X-ShipEngine-RSA-SHA256-Key-ID"
	def := get(t, "shipstation")
	if hosts, ahead := PublishedHosts(def, nil, nil); len(hosts) != 1 || hosts[0] != "api.shipengine.com" || len(ahead) != 1 || ahead[0] != set {
		t.Errorf("hosts %q, ahead %q", hosts, ahead)
	}
	oldKey, newKey := rsaKey(t), rsaKey(t)
	from := func(kid string, k *rsa.PrivateKey) *provider.Request { return with(signedWith(t, def, k), header, kid) }
	before := setOf(t, map[string]crypto.Signer{"old": oldKey})
	after := setOf(t, map[string]crypto.Signer{"old": oldKey, "new": newKey})
	page := map[string]string{set: "<html>We'll be back</html>"}
	unsigned := delivery("x")
	tryPublished(t, def, set, []publishedCase{
		{"published", &shelf{docs: map[string]string{set: before}}, from("old", oldKey), "", false},
		{"nobody fetches", nil, from("old", oldKey), KeyUnavailable, false},
		{"nothing kept, provider away", &shelf{}, from("old", oldKey), KeyUnavailable, false},
		{"an error page", &shelf{docs: page}, from("old", oldKey), KeyUnavailable, false},
		{"a set of other kinds", &shelf{docs: map[string]string{set: `{"keys":[{"kty":"oct","k":"AAAA"}]}`}}, from("old", oldKey), KeyUnavailable, false},
		{"forged under a known id", &shelf{docs: map[string]string{set: before}}, from("old", newKey), SignatureMismatch, false},
		{"new id, provider away", &shelf{docs: map[string]string{set: before}}, from("new", newKey), KeyUnavailable, true},
		{"new id, in the newer set", &shelf{docs: map[string]string{set: before}, newer: map[string]string{set: after}}, from("new", newKey), "", true},
		{"made-up id", &shelf{docs: map[string]string{set: before}, newer: map[string]string{set: after}}, from("evil", newKey), SignatureMismatch, true},
		{"an address for an id", &shelf{docs: map[string]string{set: before}, newer: map[string]string{set: after}}, from("https://evil.example/jwks", newKey), SignatureMismatch, true},
		{"no id", &shelf{}, without(from("old", oldKey), header), SignatureMissing, false},
		{"no signature, nothing fetched", &shelf{}, unsigned, SignatureMissing, false},
	})
	own := &shelf{docs: map[string]string{set: after}}
	v := mustNew(t, def, provider.Credentials{"jwks": {before}}, Options{Keys: own})
	wantReason(t, "a source with keys of its own does not look at published ones", v.Verify(from("new", newKey), testNow), SignatureMismatch)
	if hosts, ahead := PublishedHosts(def, provider.Credentials{"jwks": {before}}, nil); len(hosts) != 1 || len(ahead) != 0 || len(own.fetched) != 0 {
		t.Errorf("hosts %q, ahead %q, fetched %q", hosts, ahead, own.fetched)
	}
}

// A document that cannot be read any more does not take the place of one that could.
func TestPublishedSetGoneBad(t *testing.T) {
	const set = "https://api.shipengine.com/jwks"
	def, k := get(t, "shipstation"), rsaKey(t)
	s := &shelf{docs: map[string]string{set: setOf(t, map[string]crypto.Signer{"dev": k})}}
	v, r := mustNew(t, def, nil, Options{Keys: s}), with(signedWith(t, def, k), "X-ShipEngine-RSA-SHA256-Key-ID", "dev")
	wantReason(t, "good", v.Verify(r, testNow), "")
	s.docs[set] = `{"keys":[]}`
	wantReason(t, "gone bad", v.Verify(r, testNow), "")
	e := v.Explain(r, testNow)
	if len(e.Keys) != 1 || !e.Keys[0].Match || !strings.Contains(e.Keys[0].Credential, set) {
		t.Errorf("explained as %+v", e.Keys)
	}
}

// Travis CI: one key without an id, inside a document. While the kept one is there a bad
// signature is a bad signature, whether or not a newer one can be had.
func TestPublishedKey(t *testing.T) {
	const address = "https://api.travis-ci.com/config"
	def, oldKey, newKey := get(t, "travis_ci"), rsaKey(t), rsaKey(t)
	doc := func(keys ...crypto.Signer) string {
		text := ""
		for _, k := range keys {
			text += publicPEM(t, k)
		}
		b, err := json.Marshal(map[string]any{"config": map[string]any{"notifications": map[string]any{"webhook": map[string]any{"public_key": text}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := PublishedDocument(b); err != nil && len(keys) > 0 {
			t.Errorf("would not be kept: %v", err)
		}
		return string(b)
	}
	at := func(text string) map[string]string { return map[string]string{address: text} }
	from := func(k *rsa.PrivateKey) *provider.Request { return signedWith(t, def, k) }
	tryPublished(t, def, address, []publishedCase{
		{"published", &shelf{docs: at(doc(oldKey))}, from(oldKey), "", false},
		{"two of them", &shelf{docs: at(doc(oldKey, newKey))}, from(newKey), "", false},
		{"nothing kept, provider away", &shelf{}, from(oldKey), KeyUnavailable, false},
		{"no key in it", &shelf{docs: at(doc())}, from(oldKey), KeyUnavailable, false},
		{"another document", &shelf{docs: at(`{"error":"down"}`)}, from(oldKey), KeyUnavailable, false},
		{"no JSON", &shelf{docs: at(publicPEM(t, oldKey))}, from(oldKey), KeyUnavailable, false},
		{"a private key by mistake", &shelf{docs: at(`{"config":{"notifications":{"webhook":{"public_key":` + quoted(t, privatePEM(t, oldKey)) + `}}}}`)}, from(oldKey), KeyUnavailable, false},
		{"changed at the provider", &shelf{docs: at(doc(oldKey)), newer: at(doc(newKey))}, from(newKey), "", true},
		{"forged", &shelf{docs: at(doc(oldKey)), newer: at(doc(oldKey))}, from(newKey), SignatureMismatch, true},
		{"forged, provider away", &shelf{docs: at(doc(oldKey))}, from(newKey), SignatureMismatch, true},
	})
}

func quoted(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The other two kinds of key, from PEM and from a set, and what a definition may not say.
func TestPublishedSchemes(t *testing.T) {
	const url = "https://keys.example.com/k"
	for _, scheme := range []string{"ecdsa", "ed25519"} {
		for _, format := range []string{"pem", "jwks"} {
			text := "scheme: " + scheme + "\nkey: pem\nsigned: \"{body}\"\nsignature: {header: X-Sig, encoding: base64}\n" +
				"published: {hosts: [keys.example.com], url: \"" + url + "\", format: " + format + "}\n" +
				"credentials:\n  - {name: keys, role: public_key, optional: true}\n  - {name: signing_key, role: signing_key, optional: true}\n"
			if scheme == "ecdsa" {
				text += "algorithm: sha256\n"
			}
			def := schemeDef(t, text)
			pair, err := newKeyPair(&provider.Scheme{Scheme: scheme, Key: map[string]string{"pem": "pem", "jwks": "jwks"}[format]}, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			signer := mustNew(t, def, provider.Credentials{"signing_key": {pair.private}}, Options{})
			r := delivery("x")
			if err := signer.Sign(r, testNow); err != nil {
				t.Fatal(err)
			}
			tampered := clone(r)
			tampered.Body = append(tampered.Body, ' ')
			tryPublished(t, def, url, []publishedCase{
				{format, &shelf{docs: map[string]string{url: pair.public}}, r, "", false},
				{format + ", tampered", &shelf{docs: map[string]string{url: pair.public}}, tampered, SignatureMismatch, true},
				{format + ", away", &shelf{}, r, KeyUnavailable, false},
			})
		}
	}
}
