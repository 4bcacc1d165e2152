package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// maxJWKS bounds the text of a key set.
const maxJWKS = 64 << 10

// jwk is one key of a JSON Web Key Set (RFC 7517), the members that a public key has.
type jwk struct {
	Kty string `json:"kty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	D   string `json:"d,omitempty"`
}

// jwkCurves are the curves by their names in a key set.
var jwkCurves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// newJWKS reads a key set, or one key, as a credential: those of its keys that the scheme
// verifies with. Encryption keys and other kinds are passed over; none left is an error.
func newJWKS(name, value string, prim primitive, scheme string) ([]key, error) {
	if len(value) > maxJWKS {
		return nil, fmt.Errorf("is longer than %d bytes", maxJWKS)
	}
	var set struct {
		Keys []jwk `json:"keys"`
		jwk
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(value)), &set); err != nil {
		return nil, errors.New("is no JSON Web Key Set")
	}
	if set.Kty != "" {
		set.Keys = append(set.Keys, set.jwk)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("holds %d keys, at most %d", len(set.Keys), maxKeys)
	}
	var out []key
	ids := map[string]bool{}
	for i := range set.Keys {
		j := &set.Keys[i]
		if j.D != "" {
			return nil, errors.New("holds a private key: give the public ones")
		}
		k, ok, err := j.key(prim)
		if err != nil {
			return nil, err
		}
		if !ok || j.Use != "" && j.Use != "sig" {
			continue
		}
		if ids[j.Kid] {
			return nil, fmt.Errorf("holds the key id %q twice", j.Kid)
		}
		ids[j.Kid] = true
		k.name, k.id, k.public, k.fp = name, j.Kid, true, fingerprint(j.Kty+j.N+j.E+j.Crv+j.X+j.Y)
		k.by, k.jwa = scheme+":"+k.fp, j.Alg
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("holds no key that scheme %s verifies with", scheme)
	}
	return out, nil
}

// keyNamed says whether k may be asked: the request may name a key (key_id), and only
// that one counts then. Names of keys are no secrets.
func (v *Verifier) keyNamed(k *key, sc *scratch) bool {
	return v.s.KeyID == nil || k.id == string(sc.keyID)
}

// key is j for the primitive; false where it is of another kind.
func (j *jwk) key(prim primitive) (k key, ok bool, err error) {
	bad := fmt.Errorf("holds the malformed key %q", j.Kid)
	switch {
	case j.Kty == "RSA" && (prim == primRSA || prim == primOwn):
		n, e := j.number(j.N), j.number(j.E)
		if n == nil || e == nil || n.BitLen() < 1024 || n.BitLen() > 8192 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return k, false, bad
		}
		k.rsa = &rsa.PublicKey{N: n, E: int(e.Int64())}
	case j.Kty == "EC" && (j.Crv == "P-256" && prim == primECDSA || jwkCurves[j.Crv] != nil && prim == primOwn):
		curve := jwkCurves[j.Crv]
		n := (curve.Params().BitSize + 7) / 8
		x, y := leftPad(j.bytes(j.X), n), leftPad(j.bytes(j.Y), n)
		if len(x) != n || len(y) != n {
			return k, false, bad
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
		if err != nil {
			return k, false, bad
		}
		k.ec = pub
	case j.Kty == "OKP" && j.Crv == "Ed25519" && (prim == primEd25519 || prim == primOwn):
		x := j.bytes(j.X)
		if len(x) != ed25519.PublicKeySize {
			return k, false, bad
		}
		k.ed = ed25519.PublicKey(x)
	default:
		return k, false, nil
	}
	return k, true, nil
}

// leftPad gives a coordinate back the zeros in front that some publishers leave out.
func leftPad(b []byte, n int) []byte {
	if len(b) == 0 || len(b) >= n {
		return b
	}
	return append(make([]byte, n-len(b), n), b...)
}

func (j *jwk) bytes(s string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil
	}
	return b
}

func (j *jwk) number(s string) *big.Int {
	b := j.bytes(s)
	if len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

// devJWKS is the key set of a made-up key.
func devJWKS(public any) (string, error) {
	enc := base64.RawURLEncoding
	j := jwk{Use: "sig", Kid: "dev"}
	switch pub := public.(type) {
	case *rsa.PublicKey:
		j.Kty, j.N, j.E = "RSA", enc.EncodeToString(pub.N.Bytes()), enc.EncodeToString(big.NewInt(int64(pub.E)).Bytes())
	case *ecdsa.PublicKey:
		raw, err := pub.Bytes()
		if err != nil {
			return "", fmt.Errorf("write the key set: %w", err)
		}
		n := len(raw) / 2
		j.Kty, j.Crv, j.X, j.Y = "EC", pub.Params().Name, enc.EncodeToString(raw[1:1+n]), enc.EncodeToString(raw[1+n:])
	case ed25519.PublicKey:
		j.Kty, j.Crv, j.X = "OKP", "Ed25519", enc.EncodeToString(pub)
	default:
		return "", fmt.Errorf("no key set of a %T", public)
	}
	text, err := json.Marshal(map[string][]jwk{"keys": {j}})
	return string(text), err
}
