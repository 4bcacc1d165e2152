package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"

	"github.com/valyala/fastjson"
)

// maxJWS bounds a token in its compact form.
const maxJWS = 16 << 10

// jws is one JSON Web Signature in compact form (RFC 7515), read strictly: base64url
// without padding, JSON with no name twice, and no header that we would have to understand
// and do not.
type jws struct {
	alg, kid string
	header   *fastjson.Value // lives as long as the scratch's inner parser
	payload  []byte          // decoded; nil of a detached one
	signed   []byte          // header.payload as it stands
	sig      []byte
}

// parseJWS reads a token. detached wants the middle part empty.
func (v *Verifier) parseJWS(token []byte, detached bool, sc *scratch) (t jws, ok bool) {
	if len(token) > maxJWS || bytes.Count(token, dot) != 2 {
		return t, false
	}
	last := bytes.LastIndexByte(token, '.')
	first := bytes.IndexByte(token, '.')
	t.signed = token[:last]
	head, okHead := v.part(token[:first], sc)
	payload, okPayload := v.part(token[first+1:last], sc)
	sig, okSig := v.part(token[last+1:], sc)
	if !okHead || !okPayload || !okSig || len(head) == 0 || len(sig) == 0 || (len(payload) == 0) != detached {
		return t, false
	}
	t.payload, t.sig = payload, sig
	if t.header = parseObject(&sc.inner, head); t.header == nil {
		return t, false
	}
	for _, name := range []string{"crit", "b64", "zip", "enc"} {
		if t.header.Exists(name) {
			return t, false
		}
	}
	var okAlg, okKid bool
	t.alg, okAlg = memberText(t.header, "alg", false)
	t.kid, okKid = memberText(t.header, "kid", true)
	return t, okAlg && okKid
}

// part decodes one part of a token into the arena.
func (v *Verifier) part(text []byte, sc *scratch) ([]byte, bool) {
	at := len(sc.arena)
	var ok bool
	sc.arena, ok = v.appendDecoded(sc.arena, text, "base64url")
	return sc.arena[at:len(sc.arena):len(sc.arena)], ok || len(text) == 0
}

// parseObject reads a JSON object in which no name stands twice; nil = it is none.
func parseObject(p *fastjson.Parser, text []byte) *fastjson.Value {
	if !json.Valid(text) {
		return nil
	}
	doc, err := p.ParseBytes(text)
	if err != nil || doc.Type() != fastjson.TypeObject {
		return nil
	}
	o, err := doc.Object()
	if err != nil {
		return nil
	}
	names := make([]string, 0, o.Len())
	o.Visit(func(k []byte, _ *fastjson.Value) { names = append(names, string(k)) })
	slices.Sort(names)
	if len(slices.Compact(names)) != o.Len() {
		return nil
	}
	return doc
}

// memberText is a member that must be a text, or may be absent.
func memberText(o *fastjson.Value, name string, optional bool) (string, bool) {
	x := o.Get(name)
	if x == nil {
		return "", optional
	}
	b, err := x.StringBytes()
	return string(b), err == nil
}

// jwa is what an algorithm of RFC 7518 computes; bits is the size of the hash, and of the
// curve that goes with it.
type jwa struct {
	family string // HS, RS, PS, ES, Ed
	hash   crypto.Hash
	bits   int
}

var jwas = map[string]jwa{
	"HS256": {"HS", crypto.SHA256, 256}, "HS384": {"HS", crypto.SHA384, 384}, "HS512": {"HS", crypto.SHA512, 512},
	"RS256": {"RS", crypto.SHA256, 256}, "RS384": {"RS", crypto.SHA384, 384}, "RS512": {"RS", crypto.SHA512, 512},
	"PS256": {"PS", crypto.SHA256, 256}, "PS384": {"PS", crypto.SHA384, 384}, "PS512": {"PS", crypto.SHA512, 512},
	"ES256": {"ES", crypto.SHA256, 256}, "ES384": {"ES", crypto.SHA384, 384}, "ES512": {"ES", crypto.SHA512, 521},
	"EdDSA": {"Ed", 0, 0},
}

// jwsHolds says whether k made sig over signed by alg. The kind of the key must be that of
// the algorithm: a public key is never the secret of an HMAC.
func jwsHolds(k *key, name string, signed, sig []byte) bool {
	a, known := jwas[name]
	if !known || k.jwa != "" && k.jwa != name {
		return false
	}
	switch {
	case a.family == "HS" && !k.public && len(k.secret) > 0:
		m := hmac.New(a.hash.New, k.secret)
		m.Write(signed)
		return hmac.Equal(m.Sum(nil), sig)
	case a.family == "RS" && k.rsa != nil:
		return rsa.VerifyPKCS1v15(k.rsa, a.hash, digestOf(a.hash, signed), sig) == nil
	case a.family == "PS" && k.rsa != nil:
		return rsa.VerifyPSS(k.rsa, a.hash, digestOf(a.hash, signed), sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case a.family == "ES" && k.ec != nil && k.ec.Params().BitSize == a.bits:
		n := (a.bits + 7) / 8
		if len(sig) != 2*n {
			return false
		}
		return ecdsa.Verify(k.ec, digestOf(a.hash, signed), new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
	case a.family == "Ed" && k.ed != nil:
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(k.ed, signed, sig)
	}
	return false
}

func digestOf(h crypto.Hash, text []byte) []byte {
	d := h.New()
	d.Write(text)
	return d.Sum(nil)
}

// signJWS signs as the provider would, for `penstock send` and tests.
func (v *Verifier) signJWS(name string, signed []byte) ([]byte, error) {
	a, known := jwas[name]
	if !known {
		return nil, fmt.Errorf("%s: cannot sign with %q", v.name, name)
	}
	if a.family == "HS" {
		for i := range v.keys {
			if k := &v.keys[i]; !k.public {
				m := hmac.New(a.hash.New, k.secret)
				m.Write(signed)
				return m.Sum(nil), nil
			}
		}
		return nil, fmt.Errorf("%s: signing needs a secret", v.name)
	}
	if v.signing == nil {
		return nil, fmt.Errorf("%s: signing needs the private key: give credential signing_key", v.name)
	}
	switch k := v.signing.signer.(type) {
	case *rsa.PrivateKey:
		if a.family == "PS" {
			return rsa.SignPSS(rand.Reader, k, a.hash, digestOf(a.hash, signed), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, k, a.hash, digestOf(a.hash, signed))
	case *ecdsa.PrivateKey:
		der, err := k.Sign(rand.Reader, digestOf(a.hash, signed), a.hash)
		if err != nil {
			return nil, err
		}
		return flatSignature(der, (a.bits+7)/8)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, signed), nil
	}
	return nil, fmt.Errorf("%s: a %T cannot sign %s", v.name, v.signing.signer, name)
}

// flatSignature writes r and s side by side, as JOSE has them.
func flatSignature(der []byte, n int) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	out := make([]byte, 2*n)
	rs.R.FillBytes(out[:n])
	rs.S.FillBytes(out[n:])
	return out, nil
}

// composeJWS is the header's text before the signature, and the whole token from it.
func composeJWS(header, payload []byte) []byte {
	enc := base64.RawURLEncoding
	return append(append([]byte(enc.EncodeToString(header)), '.'), enc.EncodeToString(payload)...)
}
