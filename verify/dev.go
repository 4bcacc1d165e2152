package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"penstock/provider"
)

// DevCredentials makes up fresh, good credentials of the right shape for a provider, key
// pairs included. They serve New and Sign alike; `penstock dev` writes them into its
// config. rnd is crypto/rand.Reader, or a fixed stream in tests (key pairs are random).
func DevCredentials(def *provider.Definition, rnd io.Reader) (provider.Credentials, error) {
	out := provider.Credentials{}
	groups := map[string]bool{}
	var pair *keyPair
	if own, ok := ownDev[def.Scheme.Scheme]; ok {
		if err := own(def, out); err != nil {
			return nil, fmt.Errorf("make credentials for %s: %w", def.Name, err)
		}
	}
	for _, c := range def.EffectiveCredentials() {
		if _, ok := out[c.Name]; ok {
			continue
		}
		if c.AnyOf != "" {
			if groups[c.AnyOf] {
				continue
			}
			groups[c.AnyOf] = true
		}
		if c.Role == "public_key" || c.Role == "signing_key" {
			if c.Role == "signing_key" && pair == nil {
				continue // nothing public beside it: a shared secret signs
			}
			if pair == nil {
				var err error
				if pair, err = newKeyPair(&def.Scheme, rnd); err != nil {
					return nil, fmt.Errorf("make credentials for %s: %w", def.Name, err)
				}
			}
			out[c.Name] = []string{pair.public}
			if def.KeyID != nil && def.Key != "jwks" {
				out[c.Name] = []string{"DEV0000000000001:" + pair.public}
			}
			if c.Role == "signing_key" {
				out[c.Name] = []string{pair.private}
			}
			continue
		}
		value, err := devValue(def, c, rnd)
		if err != nil {
			return nil, fmt.Errorf("make credential %s for %s: %w", c.Name, def.Name, err)
		}
		out[c.Name] = []string{value}
	}
	return out, nil
}

// devValue fills the sample's "#" with hex digits and "!" with decimal ones, or follows the key's format.
func devValue(def *provider.Definition, c provider.Credential, rnd io.Reader) (string, error) {
	var raw [32]byte
	if _, err := io.ReadFull(rnd, raw[:]); err != nil {
		return "", err
	}
	text := hex.EncodeToString(raw[:])
	if c.Sample != "" {
		i := 0
		return strings.Map(func(r rune) rune {
			switch r {
			case '#':
				i++
				return rune(text[(i-1)%len(text)])
			case '!':
				i++
				return rune('0' + raw[(i-1)%len(raw)]%10)
			}
			return r
		}, c.Sample), nil
	}
	if c.Role != "key" {
		return "dev_" + text[:24], nil
	}
	kind := def.Key
	if def.Scheme.Scheme == "standard_webhooks" && kind == "" {
		kind = "whsec"
	}
	switch kind {
	case "base64":
		return base64.StdEncoding.EncodeToString(raw[:]), nil
	case "whsec", "whsec_or_text":
		return "whsec_" + base64.StdEncoding.EncodeToString(raw[:]), nil
	}
	return text, nil
}

type keyPair struct{ public, private string }

// pairKind is the primitive whose keys a scheme has; of scheme jwt by its algorithm.
func pairKind(s *provider.Scheme) string {
	if s.JWT == nil {
		return s.Scheme
	}
	for _, alg := range s.JWT.Algorithms {
		switch alg[:2] {
		case "RS", "PS":
			return "rsa"
		case "ES":
			return "ecdsa" + alg[2:]
		case "Ed":
			return "ed25519"
		}
	}
	return s.Scheme
}

func newKeyPair(s *provider.Scheme, rnd io.Reader) (*keyPair, error) {
	var public, private any
	switch kind := pairKind(s); kind {
	case "rsa":
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		public, private = &k.PublicKey, k
	case "ecdsa", "ecdsa256", "ecdsa384", "ecdsa512":
		curve := elliptic.P256()
		switch kind {
		case "ecdsa384":
			curve = elliptic.P384()
		case "ecdsa512":
			curve = elliptic.P521()
		}
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			return nil, err
		}
		public, private = &k.PublicKey, k
	case "ed25519", "standard_webhooks":
		pub, priv, err := ed25519.GenerateKey(rnd)
		if err != nil {
			return nil, err
		}
		public, private = pub, priv
	default:
		return nil, fmt.Errorf("scheme %s has no key pairs", s.Scheme)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	privDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	p := &keyPair{private: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privDER}))}
	raw, isEd := public.(ed25519.PublicKey)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	switch {
	case s.Scheme == "standard_webhooks":
		p.public = "whpk_" + base64.StdEncoding.EncodeToString(raw)
	case isEd && s.Key == "hex":
		p.public = hex.EncodeToString(raw)
	case isEd && s.Key == "base64":
		p.public = base64.StdEncoding.EncodeToString(raw)
	case s.Key == "base64":
		p.public = base64.StdEncoding.EncodeToString(der)
	case s.Key == "hex":
		p.public = hex.EncodeToString(der)
	case s.Key == "jwks":
		if p.public, err = devJWKS(public); err != nil {
			return nil, err
		}
	case s.Key == "base64_pem":
		p.public = base64.StdEncoding.EncodeToString([]byte(text))
	default:
		p.public = text
	}
	return p, nil
}
