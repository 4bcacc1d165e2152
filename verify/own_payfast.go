package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"time"

	"penstock/provider"
)

// payFast hashes the fields in the order in which they came, up to the one called
// signature, each as PHP's urlencode writes it, empty ones too, and the passphrase behind
// them. Nothing may stand behind the signature: it would not be covered.
// Source: Payfast/payfast-php-sdk lib/Notification.php.
type payFast struct {
	v    *Verifier
	bare bool // the account has no passphrase: the hash is a checksum
}

func newPayFast(v *Verifier) (ownScheme, error) { return &payFast{v: v}, nil }

func (p *payFast) configure(settings map[string]string) error {
	p.bare = settings["without_passphrase"] == "true"
	switch {
	case p.bare && len(p.v.keys) > 0:
		return &ConfigError{Provider: p.v.name, Setting: "without_passphrase", Err: errors.New("there is a passphrase: give one of the two")}
	case !p.bare && len(p.v.keys) == 0:
		return p.v.fail("passphrase", errors.New("is missing (an account without one cannot be told from anybody: set a passphrase at PayFast, or options: {without_passphrase: \"true\"} and an IP allowlist)"))
	}
	return nil
}

func (p *payFast) authenticate(r *provider.Request, _ time.Time, sc *scratch) (by, reason string) {
	text, sent, reason := p.signed(r, sc)
	if reason != "" {
		return "", reason
	}
	if p.bare {
		if hmac.Equal(p.sum(text, nil), sent) {
			return "payfast:none", ""
		}
		return "", SignatureMismatch
	}
	for i := range p.v.keys {
		if hmac.Equal(p.sum(text, &p.v.keys[i]), sent) {
			return p.v.keys[i].by, ""
		}
	}
	return "", SignatureMismatch
}

// signed is the text that the hash is over, without the passphrase, and the hash sent.
func (p *payFast) signed(r *provider.Request, sc *scratch) (text, sent []byte, reason string) {
	if !p.v.load(r, sc) || sc.source != sourceForm {
		return nil, nil, SignatureMissing
	}
	for i := range sc.form {
		if _, n := find(sc.form, string(sc.form[i].name)); n > 1 {
			return nil, nil, SignatureMalformed
		}
	}
	last := sc.form[len(sc.form)-1]
	if string(last.name) != "signature" {
		if _, n := find(sc.form, "signature"); n > 0 {
			return nil, nil, Policy // what stands behind the signature is not covered
		}
		return nil, nil, SignatureMissing
	}
	if sent, ok := p.v.appendDecoded(nil, last.value, "hex"); ok && len(sent) == md5.Size {
		return appendPairs(nil, sc.form[:len(sc.form)-1]), sent, ""
	}
	return nil, nil, SignatureMalformed
}

func appendPairs(text []byte, pairs []pair) []byte {
	for i, f := range pairs {
		if i > 0 {
			text = append(text, '&')
		}
		text = append(appendEncoded(text, f.name, "php"), '=')
		text = appendEncoded(text, f.value, "php")
	}
	return text
}

func (p *payFast) sum(text []byte, k *key) []byte {
	h := md5.New()
	h.Write(text)
	if k != nil {
		h.Write([]byte("&passphrase="))
		h.Write(appendEncoded(nil, bytes.TrimSpace(k.secret), "php"))
	}
	return h.Sum(nil)
}

func (p *payFast) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	sc.loadForm(r.Body)
	var pairs []pair
	for _, f := range sc.form {
		if string(f.name) != "signature" {
			pairs = append(pairs, f)
		}
	}
	var k *key
	if !p.bare {
		k = &p.v.keys[0]
	}
	text := appendPairs(nil, pairs)
	r.Body = append(bytes.Clone(text), "&signature="+hex.EncodeToString(p.sum(text, k))...)
	return nil
}
