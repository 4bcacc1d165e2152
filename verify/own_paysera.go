package verify

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/provider"
)

// paysera sends everything in the query: data (a form in URL-safe base64) with up to three
// signatures over its text, of which the strongest that a key is there for must hold: ss3
// (RSA-SHA256), ss2 (RSA-SHA1), ss1 (md5 with the password behind). Without any, data is
// sealed with AES-256-GCM under the password, which proves it as well as ss1.
// Source: paysera/lib-webtopay CallbackValidator.php, SSOpenSslSignChecker.php, Util.php.
type paysera struct {
	v       *Verifier
	secrets []key
	public  []key
	least   int // 1..3: nothing weaker than ss<least>
}

func newPaysera(v *Verifier) (ownScheme, error) {
	p := &paysera{v: v, least: 1}
	for _, k := range v.keys {
		if !k.public {
			p.secrets = append(p.secrets, k)
		} else if k.rsa != nil {
			p.public = append(p.public, k)
		}
	}
	return p, nil
}

func (p *paysera) configure(settings map[string]string) error {
	if i := slices.Index([]string{"ss1", "ss2", "ss3"}, settings["require"]); i >= 0 {
		p.least = i + 1
	}
	if p.least > 1 && len(p.public) == 0 {
		return &ConfigError{Provider: p.v.name, Setting: "require", Err: errors.New("ss2 and ss3 need Paysera's public key: give credential public_keys")}
	}
	return nil
}

func (p *paysera) authenticate(r *provider.Request, _ time.Time, sc *scratch) (by, reason string) {
	pairs, ok := sc.loadQuery(r)
	if !ok {
		return "", SignatureMalformed
	}
	var sent [4][]byte
	data, n := find(pairs, "data")
	for i := 1; i <= 3; i++ {
		var m int
		sent[i], m = find(pairs, fmt.Sprintf("ss%d", i))
		n = max(n, m)
	}
	switch {
	case n > 1:
		return "", SignatureMalformed
	case len(data) == 0:
		return "", SignatureMissing
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(string(data), "="))
	if err != nil {
		return "", SignatureMalformed
	}
	if by, reason, text = p.prove(data, text, &sent); reason != "" {
		return "", reason
	}
	sc.loaded, sc.source = true, sourceNone
	sc.loadForm(text) // the merchant is looked for in here
	if sc.source == sourceNone {
		return "", SignatureMalformed
	}
	for i := range sc.form {
		if _, n := find(sc.form, string(sc.form[i].name)); n > 1 {
			return "", SignatureMalformed
		}
	}
	return by, ""
}

// prove takes the strongest signature there is a key for, and gives the form's text.
func (p *paysera) prove(data, text []byte, sent *[4][]byte) (by, reason string, form []byte) {
	level := 0
	for i := 1; i <= 3; i++ {
		if len(sent[i]) > 0 && (i == 1 || len(p.public) > 0) {
			level = i
		}
	}
	switch {
	case level == 0 && len(sent[1])+len(sent[2])+len(sent[3]) > 0:
		return "", SignatureMissing, nil // ss2 or ss3 alone, and no public key here
	case max(level, 1) < p.least:
		return "", Policy, nil // a downgrade
	case level == 0:
		for i := range p.secrets {
			if plain, ok := provider.OpenPrefixed(p.secrets[i].secret, text); ok {
				return p.secrets[i].by, "", plain
			}
		}
	case level == 1:
		sum, err := hex.DecodeString(string(sent[1]))
		if err != nil {
			return "", SignatureMalformed, nil
		}
		for i := range p.secrets {
			if hmac.Equal(md5Of(data, p.secrets[i].secret), sum) {
				return p.secrets[i].by, "", text
			}
		}
	default:
		sig, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(string(sent[level]), "="))
		if err != nil {
			return "", SignatureMalformed, nil
		}
		for i := range p.public {
			if p.holds(&p.public[i], level, data, sig) {
				return p.public[i].by, "", text
			}
		}
	}
	return "", SignatureMismatch, nil
}

func (p *paysera) holds(k *key, level int, data, sig []byte) bool {
	if level == 2 {
		sum := sha1.Sum(data)
		return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA1, sum[:], sig) == nil
	}
	sum := sha256.Sum256(data)
	return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, sum[:], sig) == nil
}

// sign sends what can be signed: ss1 with the password, ss2 and ss3 with signing_key.
func (p *paysera) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	pairs, _ := sc.loadQuery(r)
	data, n := find(pairs, "data")
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(data), "="))
	if n != 1 || err != nil {
		return fmt.Errorf("%s: cannot sign this request: the query has no data in URL-safe base64", p.v.name)
	}
	for i := range p.v.merchants {
		m := &p.v.merchants[i]
		text = formWith(text, m.c.Field, m.values[0])
	}
	path, _ := cutByte(r.Target, '?')
	signed := []byte(base64.URLEncoding.EncodeToString(text))
	r.Target = setQuery(bytes.Clone(path), "data", string(signed))
	r.Target = setQuery(r.Target, "ss1", hex.EncodeToString(md5Of(signed, p.secrets[0].secret)))
	if p.v.signing == nil {
		return nil
	}
	one, two := sha1.Sum(signed), sha256.Sum256(signed)
	for name, sum := range map[string][]byte{"ss2": one[:], "ss3": two[:]} {
		alg := crypto.SHA256
		if name == "ss2" {
			alg = crypto.SHA1
		}
		sig, err := p.v.signing.signer.Sign(rand.Reader, sum, alg)
		if err != nil {
			return fmt.Errorf("%s: sign: %w", p.v.name, err)
		}
		r.Target = setQuery(r.Target, name, base64.URLEncoding.EncodeToString(sig))
	}
	return nil
}
