package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/x509"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// primitive is what a scheme computes.
type primitive uint8

const (
	primNone primitive = iota
	primHMAC
	primHash
	primRSA
	primECDSA
	primEd25519
	primStandard
	primToken
	primBasic
	primOwn // code of its own: Verifier.own
)

// algorithm is a hash; the order is that of strength, for min_algorithm.
type algorithm uint8

const (
	algNone algorithm = iota
	algMD5
	algSHA1
	algSHA256
	algSHA3
	algSHA384
	algSHA512
	numAlgorithms
)

func parseAlgorithm(s string) (algorithm, bool) {
	switch s {
	case "":
		return algNone, true
	case "md5":
		return algMD5, true
	case "sha1":
		return algSHA1, true
	case "sha256":
		return algSHA256, true
	case "sha3-256":
		return algSHA3, true
	case "sha384":
		return algSHA384, true
	case "sha512":
		return algSHA512, true
	}
	return algNone, false
}

func (a algorithm) String() string {
	return [numAlgorithms]string{"", "md5", "sha1", "sha256", "sha3-256", "sha384", "sha512"}[a]
}

func (a algorithm) new() hash.Hash {
	switch a {
	case algMD5:
		return md5.New()
	case algSHA1:
		return sha1.New()
	case algSHA3:
		return sha3.New256()
	case algSHA384:
		return sha512.New384()
	case algSHA512:
		return sha512.New()
	}
	return sha256.New()
}

// key is one credential value, ready to compute with.
type key struct {
	name   string // of the credential
	fp     string // fingerprint
	by     string // Result.VerifiedBy
	id     string // under which a request names it
	jwa    string // the one algorithm that its key set says it is for
	secret []byte
	text   string // as configured, for Explain alone
	public bool   // an asymmetric key
	macs   [numAlgorithms]*macState
	rsa    *rsa.PublicKey
	ec     *ecdsa.PublicKey
	ed     ed25519.PublicKey
	digest [sha256.Size]byte // of a token: both sides are hashed, so that a length tells nothing
}

// fingerprint names a credential in events, rows and logs. It is keyed with a fixed label
// over the value, so that it cannot be looked up in a table of hashes.
func fingerprint(value string) string {
	m := hmac.New(sha256.New, []byte("penstock credential fingerprint 1"))
	m.Write([]byte(value))
	return hex.EncodeToString(m.Sum(nil)[:4])
}

func newSecretKey(name, value, scheme, kind string) (key, error) {
	if strings.TrimSpace(value) == "" {
		return key{}, errors.New("is empty: an empty secret would verify anybody's signature")
	}
	secret, err := secretBytes(value, kind)
	if err != nil {
		return key{}, err
	}
	if len(secret) == 0 {
		return key{}, errors.New("decodes to nothing: an empty secret would verify anybody's signature")
	}
	k := key{name: name, fp: fingerprint(value), secret: secret, text: value, digest: sha256.Sum256(secret)}
	k.by = scheme + ":" + k.fp
	return k, nil
}

// macState is what HMAC's two hashes are after the key's block (RFC 2104): it is computed
// once per key and loaded into a hash that all keys share, so that neither the key schedule
// is paid again nor a working memory kept for each of ten thousand keys.
type macState struct{ inner, outer []byte }

// prepare makes the state of an algorithm.
func (k *key) prepare(a algorithm) {
	h := a.new()
	secret := k.secret
	if len(secret) > h.BlockSize() {
		h.Write(secret)
		secret = h.Sum(nil)
	}
	k.macs[a] = &macState{inner: stateAfter(a, secret, 0x36), outer: stateAfter(a, secret, 0x5c)}
}

func stateAfter(a algorithm, secret []byte, pad byte) []byte {
	h := a.new()
	block := make([]byte, h.BlockSize())
	copy(block, secret)
	for i := range block {
		block[i] ^= pad
	}
	h.Write(block)
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil { // every hash of the standard library gives its state
		panic(fmt.Sprintf("BUG: %s has no state: %v", a, err))
	}
	return state
}

func loadState(h hash.Hash, state []byte) {
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(fmt.Sprintf("BUG: the state of a key cannot be loaded: %v", err))
	}
}

// secretBytes turns a secret's text into the key, as the scheme's docs say.
func secretBytes(value, kind string) ([]byte, error) {
	switch kind {
	case "", "utf8":
		return []byte(value), nil
	case "nfkd":
		return norm.NFKD.Bytes([]byte(value)), nil
	case "hex":
		b, err := hex.DecodeString(value)
		if err != nil {
			return nil, errors.New("is not hexadecimal, as this scheme's key must be")
		}
		return b, nil
	case "base64":
		return base64Key(value)
	case "whsec_or_text":
		if !strings.HasPrefix(value, "whsec_") {
			return []byte(value), nil
		}
		return base64Key(value[len("whsec_"):])
	case "whsec":
		value = strings.TrimPrefix(strings.TrimPrefix(value, "v1,"), "whsec_")
		if strings.HasPrefix(value, "whpk_") || strings.HasPrefix(value, "whsk_") {
			return nil, errors.New("is an asymmetric key: a public key must never be used as a shared secret (use public_keys)")
		}
		return base64Key(value)
	}
	return nil, fmt.Errorf("has the unknown key format %q", kind)
}

func base64Key(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("is not base64, as this scheme's key must be")
	}
	return b, nil
}

func newPublicKey(name, value, kind string, prim primitive, scheme string) (key, error) {
	if strings.TrimSpace(value) == "" {
		return key{}, errors.New("is empty")
	}
	k := key{name: name, fp: fingerprint(strings.TrimSpace(value)), public: true}
	k.by = scheme + ":" + k.fp
	raw, err := publicBytes(value, kind)
	if err != nil {
		return key{}, err
	}
	if prim == primEd25519 || prim == primStandard {
		if len(raw) == ed25519.PublicKeySize {
			k.ed = ed25519.PublicKey(raw)
			return k, nil
		}
	}
	pub, err := parsePublic(raw)
	if err != nil {
		return key{}, err
	}
	switch p := pub.(type) {
	case *rsa.PublicKey:
		if (prim == primRSA || prim == primOwn) && p.N.BitLen() >= 1024 {
			k.rsa = p
			return k, nil
		}
	case *ecdsa.PublicKey:
		if prim == primECDSA || prim == primOwn {
			k.ec = p
			return k, nil
		}
	case ed25519.PublicKey:
		if prim == primEd25519 || prim == primStandard || prim == primOwn {
			k.ed = p
			return k, nil
		}
	}
	return key{}, fmt.Errorf("is a %T (or too short), which scheme %s does not verify with", pub, scheme)
}

// namedPublicKey parts "id:key"; a certificate alone is named by its serial number, in
// hexadecimal capitals.
func namedPublicKey(value string) (id, key string, err error) {
	value = strings.TrimSpace(value)
	if !strings.HasPrefix(value, "-----BEGIN") {
		id, key, ok := strings.Cut(value, ":")
		if !ok || strings.TrimSpace(id) == "" {
			return "", "", errors.New("is not written id:key, the key's id and the key, and is no certificate")
		}
		return strings.TrimSpace(id), strings.TrimSpace(key), nil
	}
	block, _ := pem.Decode([]byte(value))
	if block == nil || block.Type != "CERTIFICATE" {
		return "", "", errors.New("is a key without its id: write it id:key (a certificate brings its own)")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", "", errors.New("is no certificate that can be read")
	}
	return strings.ToUpper(cert.SerialNumber.Text(16)), value, nil
}

// publicBytes is the DER of a key, or the 32 raw bytes of an Ed25519 one.
func publicBytes(value, kind string) ([]byte, error) {
	value = strings.TrimSpace(value)
	switch kind {
	case "hex":
		b, err := hex.DecodeString(value)
		if err != nil {
			return nil, errors.New("is not hexadecimal, as this provider's public key must be")
		}
		return b, nil
	case "base64":
		return base64Key(value)
	case "base64_pem":
		if strings.HasPrefix(value, "-----BEGIN") {
			break // unwrapped already
		}
		b, err := base64Key(value)
		if err != nil {
			return nil, err
		}
		value = string(b)
	case "whpk", "whsec", "whsec_or_text":
		if strings.HasPrefix(value, "whsk_") {
			return nil, errors.New("is a private key (whsk_): give the public one (whpk_)")
		}
		return base64Key(strings.TrimPrefix(value, "whpk_"))
	}
	block, _ := pem.Decode([]byte(value))
	if block == nil {
		// Alipay, Paysera and others show the key without its first and last line.
		if der, err := base64Key(strings.Join(strings.Fields(value), "")); err == nil {
			return der, nil
		}
		return nil, errors.New("is not PEM (-----BEGIN PUBLIC KEY-----)")
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return nil, errors.New("is a private key: give the public one")
	}
	return block.Bytes, nil
}

func parsePublic(der []byte) (any, error) {
	if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
		return pub, nil
	}
	if pub, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return pub, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("is neither a public key nor a certificate")
	}
	return cert.PublicKey, nil
}
