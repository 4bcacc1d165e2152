package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

const jwtScheme = `
scheme: jwt
jwt:
  header: Authorization
  prefix: "Bearer "
  algorithms: [HS256, RS256, PS256, ES256, ES384, ES512, EdDSA]
  require: [exp]
  claims:
    - {claim: hash, sha256: body, encoding: hex}
credentials:
  - {name: secrets, role: key, optional: true}
  - {name: public_keys, role: public_key, optional: true}
  - {name: signing_key, role: signing_key, optional: true}
published: {hosts: [keys.example.com], url: "https://keys.example.com/set"}
`

// rawToken is a token of any header and claims, signed by sign.
func rawToken(header, claims string, sign func(signed []byte) []byte) string {
	signed := composeJWS([]byte(header), []byte(claims))
	return string(signed) + "." + base64.RawURLEncoding.EncodeToString(sign(signed))
}

func hs256(secret []byte) func([]byte) []byte {
	return func(signed []byte) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write(signed)
		return m.Sum(nil)
	}
}

func bearer(token string) *provider.Request {
	r := delivery("test")
	r.Header = setHeader(r.Header, "Authorization", "Bearer "+token)
	return r
}

func goodClaims(extra string) string {
	sum := sha256.Sum256(delivery("test").Body)
	return fmt.Sprintf(`{"exp":%d,"hash":"%x"%s}`, testNow.Unix()+60, sum, extra)
}

// No algorithm of the sender's choice, no header that is not understood, no second way to
// write a token.
func TestJWTForgeries(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	v := mustNew(t, schemeDef(t, jwtScheme), provider.Credentials{"secrets": {string(secret)}}, Options{})
	good := rawToken(`{"alg":"HS256"}`, goodClaims(""), hs256(secret))
	wantReason(t, "good", v.Verify(bearer(good), testNow), "")
	parts := strings.Split(good, ".")
	empty := func([]byte) []byte { return nil }
	for what, token := range map[string]string{
		"none":                 rawToken(`{"alg":"none"}`, goodClaims(""), empty),
		"None":                 rawToken(`{"alg":"None"}`, goodClaims(""), hs256(secret)),
		"none with a MAC":      rawToken(`{"alg":"none"}`, goodClaims(""), hs256(secret)),
		"no alg":               rawToken(`{}`, goodClaims(""), hs256(secret)),
		"alg no text":          rawToken(`{"alg":["HS256"]}`, goodClaims(""), hs256(secret)),
		"alg twice":            rawToken(`{"alg":"HS256","alg":"HS256"}`, goodClaims(""), hs256(secret)),
		"alg not allowed":      rawToken(`{"alg":"HS512"}`, goodClaims(""), hs256(secret)),
		"alg of another kind":  rawToken(`{"alg":"RS256"}`, goodClaims(""), hs256(secret)),
		"crit":                 rawToken(`{"alg":"HS256","crit":["exp"]}`, goodClaims(""), hs256(secret)),
		"b64":                  rawToken(`{"alg":"HS256","b64":false}`, goodClaims(""), hs256(secret)),
		"kid no text":          rawToken(`{"alg":"HS256","kid":1}`, goodClaims(""), hs256(secret)),
		"header no object":     rawToken(`["HS256"]`, goodClaims(""), hs256(secret)),
		"claims no object":     rawToken(`{"alg":"HS256"}`, `[]`, hs256(secret)),
		"claims no JSON":       rawToken(`{"alg":"HS256"}`, `{"exp":}`, hs256(secret)),
		"claim twice":          rawToken(`{"alg":"HS256"}`, goodClaims(`,"hash":"x"`), hs256(secret)),
		"padded":               parts[0] + "." + parts[1] + "=." + parts[2],
		"two parts":            parts[0] + "." + parts[1],
		"four parts":           good + ".x",
		"no signature":         parts[0] + "." + parts[1] + ".",
		"blank":                good + " x",
		"standard base64":      parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+",
		"signature cut":        good[:len(good)-4],
		"too long":             rawToken(`{"alg":"HS256"}`, goodClaims(`,"x":"`+strings.Repeat("x", maxJWS)+`"`), hs256(secret)),
		"empty secret":         rawToken(`{"alg":"HS256"}`, goodClaims(""), hs256(nil)),
		"exp missing":          rawToken(`{"alg":"HS256"}`, `{"hash":"x"}`, hs256(secret)),
		"exp as text":          rawToken(`{"alg":"HS256"}`, strings.Replace(goodClaims(""), `"exp":`, `"exp":"9",`+`"x":`, 1), hs256(secret)),
		"exp endless":          rawToken(`{"alg":"HS256"}`, strings.Replace(goodClaims(""), `"exp":`, `"exp":1e300,"x":`, 1), hs256(secret)),
		"not before":           rawToken(`{"alg":"HS256"}`, goodClaims(fmt.Sprintf(`,"nbf":%d`, testNow.Unix()+61)), hs256(secret)),
		"issued in the future": rawToken(`{"alg":"HS256"}`, goodClaims(fmt.Sprintf(`,"iat":%d`, testNow.Unix()+120)), hs256(secret)),
	} {
		wantReason(t, what, v.Verify(bearer(token), testNow), "*")
	}
	wantReason(t, "expired", v.Verify(bearer(good), testNow.Add(time.Minute)), TimestampOutsideTolerance)
	wantReason(t, "twice", v.Verify(added(bearer(good), "authorization", "Bearer "+good), testNow), DuplicateHeader)
	wantReason(t, "no prefix", v.Verify(with(bearer(good), "Authorization", good), testNow), SignatureMalformed)
	wantReason(t, "other word", v.Verify(with(bearer(good), "Authorization", "JWT "+good), testNow), SignatureMalformed)
	wantReason(t, "absent", v.Verify(delivery("test"), testNow), SignatureMissing)
	changed := bearer(good)
	changed.Body = append(bytes.Clone(changed.Body), ' ')
	wantReason(t, "another body", v.Verify(changed, testNow), SignatureMismatch)
	if hints := strings.Join(v.Explain(changed, testNow).Hints, " "); !strings.Contains(hints, "hash of another body") {
		t.Errorf("hints %q", hints)
	}
}

func pemOf(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Every kind of key signs with its own algorithms only; a public key is never a secret.
func TestJWTKeyKinds(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"RS256": rsaKey, "PS256": rsaKey, "EdDSA": ed25519.NewKeyFromSeed(make([]byte, 32))}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		if keys[alg], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	for alg, k := range keys {
		set, err := devJWKS(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		text := pemOf(t, k.Public())
		signer := &Verifier{name: "test", pools: &pools{}, signing: &signingKey{k}}
		sign := func(signed []byte) []byte {
			sig, err := signer.signJWS(alg, signed)
			if err != nil {
				t.Fatal(err)
			}
			return sig
		}
		for form, value := range map[string]string{"PEM": text, "JWKS": set} {
			v := mustNew(t, schemeDef(t, jwtScheme), provider.Credentials{"public_keys": {value}}, Options{})
			wantReason(t, alg+" by "+form, v.Verify(bearer(rawToken(`{"alg":"`+alg+`"}`, goodClaims(""), sign)), testNow), "")
			for other := range jwas {
				if other != alg {
					wantReason(t, alg+" signature called "+other, v.Verify(bearer(rawToken(`{"alg":"`+other+`"}`, goodClaims(""), sign)), testNow), "*")
				}
			}
			for _, secret := range []string{text, strings.TrimSpace(text), set, ""} {
				wantReason(t, "HS256 under the public key", v.Verify(bearer(rawToken(`{"alg":"HS256"}`, goodClaims(""), hs256([]byte(secret)))), testNow), "*")
			}
		}
		if strings.HasPrefix(alg, "ES") {
			v := mustNew(t, schemeDef(t, jwtScheme), provider.Credentials{"public_keys": {text}}, Options{})
			der := func(signed []byte) []byte {
				h := jwas[alg].hash
				sig, err := k.Sign(rand.Reader, digestOf(h, signed), h)
				if err != nil {
					t.Fatal(err)
				}
				return sig
			}
			wantReason(t, "ASN.1", v.Verify(bearer(rawToken(`{"alg":"`+alg+`"}`, goodClaims(""), der)), testNow), "*")
			zero := func([]byte) []byte { return make([]byte, 2*((jwas[alg].bits+7)/8)) }
			wantReason(t, "r = s = 0", v.Verify(bearer(rawToken(`{"alg":"`+alg+`"}`, goodClaims(""), zero)), testNow), "*")
		}
	}
}

// shelf is a KeySource of the test: documents by address, and what a refresh brings.
type shelf struct {
	docs, newer map[string]string
	fetched     []string
	refreshed   int
	visited     []string
	posted      []string
}

var errAway = errors.New("away")

func (s *shelf) Fetch(url string) ([]byte, error) {
	s.fetched = append(s.fetched, url)
	if doc, ok := s.docs[url]; ok {
		return []byte(doc), nil
	}
	return nil, errAway
}

func (s *shelf) Refresh(url string) ([]byte, error) {
	s.refreshed++
	if doc, ok := s.newer[url]; ok {
		return []byte(doc), nil
	}
	return nil, errAway
}

// Post answers by what the body holds.
func (s *shelf) Post(url string, body []byte) ([]byte, error) {
	s.posted = append(s.posted, url+" "+string(body))
	if doc, ok := s.docs[string(body)]; ok {
		return []byte(doc), nil
	}
	return nil, errAway
}

func (s *shelf) Visit(url string) error {
	s.visited = append(s.visited, url)
	if _, ok := s.docs[url]; !ok {
		return errAway
	}
	return nil
}

func setOf(t *testing.T, kids map[string]crypto.Signer) string {
	t.Helper()
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for kid, k := range kids {
		text, err := devJWKS(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		var one struct{ Keys []jwk }
		if err := json.Unmarshal([]byte(text), &one); err != nil {
			t.Fatal(err)
		}
		one.Keys[0].Kid = kid
		set.Keys = append(set.Keys, one.Keys...)
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Keys that are not to be had are never a mismatch; a new key id asks once for a newer set.
func TestPublishedKeys(t *testing.T) {
	const set = "https://keys.example.com/set"
	oldKey, newKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	token := func(kid string, k ed25519.PrivateKey) *provider.Request {
		return bearer(rawToken(`{"alg":"EdDSA","kid":"`+kid+`"}`, goodClaims(""), func(signed []byte) []byte { return ed25519.Sign(k, signed) }))
	}
	before, after := setOf(t, map[string]crypto.Signer{"old": oldKey}), setOf(t, map[string]crypto.Signer{"old": oldKey, "new": newKey})
	for _, c := range []struct {
		what   string
		source KeySource
		r      *provider.Request
		reason string
	}{
		{"published", &shelf{docs: map[string]string{set: before}}, token("old", oldKey), ""},
		{"nobody fetches", nil, token("old", oldKey), KeyUnavailable},
		{"nothing kept, provider away", &shelf{}, token("old", oldKey), KeyUnavailable},
		{"no key set", &shelf{docs: map[string]string{set: "<html>"}}, token("old", oldKey), KeyUnavailable},
		{"forged under a known id", &shelf{docs: map[string]string{set: before}}, token("old", newKey), SignatureMismatch},
		{"new id, provider away", &shelf{docs: map[string]string{set: before}}, token("new", newKey), KeyUnavailable},
		{"new id, in the newer set", &shelf{docs: map[string]string{set: before}, newer: map[string]string{set: after}}, token("new", newKey), ""},
		{"made-up id", &shelf{docs: map[string]string{set: before}, newer: map[string]string{set: after}}, token("x", newKey), SignatureMismatch},
		{"malformed, nothing fetched", &shelf{}, bearer("x"), SignatureMalformed},
		{"alg of no key", &shelf{}, bearer(rawToken(`{"alg":"none"}`, goodClaims(""), hs256(nil))), SignatureMismatch},
	} {
		v := mustNew(t, schemeDef(t, jwtScheme), nil, Options{Keys: c.source})
		for range 2 {
			wantReason(t, c.what, v.Verify(c.r, testNow), c.reason)
		}
		s, ok := c.source.(*shelf)
		if !ok {
			continue
		}
		for _, url := range s.fetched {
			if url != set {
				t.Errorf("%s: fetched %s", c.what, url)
			}
		}
		if strings.Contains(c.what, "forged") && s.refreshed > 0 {
			t.Errorf("%s: refreshed %d times: a known id that fails needs no newer set", c.what, s.refreshed)
		}
	}
	v := mustNew(t, schemeDef(t, jwtScheme), provider.Credentials{"secrets": {"0123456789abcdef"}}, Options{Keys: &shelf{docs: map[string]string{set: before}}})
	wantReason(t, "a source with keys of its own does not look at published ones", v.Verify(token("old", oldKey), testNow), SignatureMismatch)
}

// Plaid: a key is asked for by the id that the delivery names, with credentials, from
// Plaid's own host; one that has ended is not taken.
func TestAskedKeys(t *testing.T) {
	def := get(t, "plaid")
	v, creds := devVerifier(t, def)
	r := delivery("plaid")
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []json.RawMessage }
	unmarshal(t, creds["jwks"][0], &set)
	const body = `{"client_id":"client-1","key_id":"dev","secret":"secret-1"}`
	answer := func(end string) *shelf {
		return &shelf{docs: map[string]string{body: `{"key":` + strings.Replace(string(set.Keys[0]), "{", `{"expired_at":`+end+`,`, 1) + `,"request_id":"x"}`}}
	}
	open := func(s KeySource, settings map[string]string) *Verifier {
		return mustNew(t, def, provider.Credentials{"client_id": {"client-1"}, "api_secret": {"secret-1"}}, Options{Keys: s, Settings: settings})
	}
	s := answer("null")
	wantReason(t, "asked", open(s, nil).Verify(r, testNow), "")
	if want := "https://production.plaid.com/webhook_verification_key/get " + body; len(s.posted) != 1 || s.posted[0] != want {
		t.Errorf("posted %q", s.posted)
	}
	s = answer("null")
	wantReason(t, "in the sandbox", open(s, map[string]string{"environment": "sandbox"}).Verify(r, testNow), "")
	if !strings.HasPrefix(s.posted[0], "https://sandbox.plaid.com/") {
		t.Errorf("posted %q", s.posted)
	}
	wantReason(t, "still good", open(answer(fmt.Sprint(testNow.Unix()+1)), nil).Verify(r, testNow), "")
	wantReason(t, "ended", open(answer(fmt.Sprint(testNow.Unix())), nil).Verify(r, testNow), SignatureMismatch)
	wantReason(t, "no end that can be read", open(answer(`"x"`), nil).Verify(r, testNow), KeyUnavailable)
	wantReason(t, "nothing to be had", open(&shelf{}, nil).Verify(r, testNow), KeyUnavailable)
	wantReason(t, "nobody fetches", open(nil, nil).Verify(r, testNow), KeyUnavailable)
	wantReason(t, "no key", open(&shelf{docs: map[string]string{body: `{"key":{}}`}}, nil).Verify(r, testNow), KeyUnavailable)
	s = answer("null")
	for _, kid := range []string{"", "../x", `a\"b`, strings.Repeat("x", 200)} {
		bad := delivery("plaid")
		bad.Header = setHeader(bad.Header, "Plaid-Verification", rawToken(`{"alg":"ES256","kid":"`+kid+`"}`, "{}", hs256(nil)))
		wantReason(t, "kid "+kid, open(s, nil).Verify(bad, testNow), "*")
	}
	if len(s.posted) > 0 {
		t.Errorf("asked for %q", s.posted)
	}
	for _, incomplete := range []provider.Credentials{{}, {"client_id": {"client-1"}}, {"api_secret": {"secret-1"}}} {
		if _, err := New(def, incomplete, Options{}); err == nil {
			t.Errorf("a source with %v alone can verify nothing", incomplete)
		}
	}
}

func TestPublishedDocument(t *testing.T) {
	_, cert := testCertificate(t, "x", testNow)
	for doc, good := range map[string]bool{
		`{"keys":[{"kty":"RSA"}]}`: true, `{"key":{"kty":"EC"}}`: true, cert: true,
		"": false, "<html>": false, `{"keys":[]}`: false, `{"error":"x"}`: false, "null": false, "[]": false,
	} {
		if err := PublishedDocument([]byte(doc)); (err == nil) != good {
			t.Errorf("%.40q: %v", doc, err)
		}
	}
}

// The examples of Atlassian's documentation of the canonical request.
func TestQueryString(t *testing.T) {
	for target, want := range map[string]string{
		"/": "GET&/&",
		"/path/to/service?zee_last=param&repeated=parameter+1&first=param&repeated=parameter+2&repeated=Parameter+2": "GET&/path/to/service&first=param&repeated=Parameter%202,parameter%201,parameter%202&zee_last=param",
		"/a&b/":                     "GET&/a%26b&",
		"/p?jwt=x&a=%7e*&A":         "GET&/p&A=&a=~%2A",
		"/p?a=%F0%9F%98%80&a=x%2Cy": "GET&/p&a=x%2Cy,%F0%9F%98%80",
		"/base/p?x=1":               "GET&/base/p&x=1",
	} {
		if got := string(queryString(&provider.Request{Method: "GET", Target: []byte(target)}, "")); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	if got := string(queryString(&provider.Request{Method: "post", Target: []byte("/base/p?x=1")}, "/base")); got != "POST&/p&x=1" {
		t.Errorf("below a base path: %s", got)
	}
}

// FuzzJWS: whatever stands in the place of a token, nothing panics, nothing is verified
// that was not signed, and what parses is written in one way only.
func FuzzJWS(f *testing.F) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	good := rawToken(`{"alg":"HS256"}`, goodClaims(""), hs256(secret))
	for _, s := range []string{good, "..", "a.b.c", "", strings.Repeat(".", 100), rawToken(`{"alg":"none"}`, "{}", hs256(nil)), rawToken(`{"alg":"HS256","crit":[]}`, "{}", hs256(nil)), good + "\n", rawToken(`{"alg":"EdDSA"}`, `{"exp":1e99}`, hs256(nil))} {
		f.Add([]byte(s))
	}
	v, err := New(schemeDef(f, jwtScheme), provider.Credentials{"secrets": {string(secret)}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		before := bytes.Clone(token)
		for _, detached := range []bool{false, true} {
			sc := &scratch{}
			parsed, ok := v.parseJWS(token, detached, sc)
			if !ok {
				continue
			}
			enc := base64.RawURLEncoding
			again := string(parsed.signed) + "." + enc.EncodeToString(parsed.sig)
			if again != string(token) {
				t.Fatalf("%q parses, and is written %q", token, again)
			}
		}
		if !bytes.Equal(before, token) {
			t.Fatal("wrote into its input")
		}
		r := bearer(string(token))
		if !bytes.ContainsAny(token, "\r\n") && string(token) != good && v.Verify(r, testNow).Verdict == Accepted {
			parts := strings.Split(string(token), ".")
			if !hmac.Equal(hs256(secret)([]byte(parts[0]+"."+parts[1])), mustDecode(parts[2])) {
				t.Fatalf("%q verifies", token)
			}
		}
		v.Explain(r, testNow)
	})
}

func mustDecode(s string) []byte {
	b, _ := base64.RawURLEncoding.DecodeString(s)
	return b
}

func unmarshal(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

func enc64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
