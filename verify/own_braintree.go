package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"time"

	"penstock/provider"
)

// braintree signs the base64 text of a form field, line ends and all, with HMAC-SHA1 keyed
// with the SHA-1 of the private key. The signature field lists pairs "public key|hex"; the
// one with our public key counts. A GET asks for the HMAC of a challenge.
// Source: braintree/braintree_python webhook_notification_gateway.py.
type braintree struct {
	v      *Verifier
	public [][]byte // public keys
}

func newBraintree(v *Verifier) (ownScheme, error) {
	p := &braintree{v: v}
	for i := range v.merchants {
		for _, name := range v.merchants[i].values {
			p.public = append(p.public, []byte(name))
		}
	}
	if len(p.public) == 0 {
		return nil, v.fail("public_key", errors.New("is missing"))
	}
	v.merchants = nil // the public key is compared here, inside the signature
	return p, nil
}

func braintreeSum(k *key, text []byte) []byte {
	derived := sha1.Sum(k.secret)
	m := hmac.New(sha1.New, derived[:])
	m.Write(text)
	return m.Sum(nil)
}

func (p *braintree) authenticate(r *provider.Request, _ time.Time, sc *scratch) (by, reason string) {
	if !p.v.load(r, sc) || sc.source != sourceForm {
		return "", SignatureMissing
	}
	list, n := find(sc.form, "bt_signature")
	payload, m := find(sc.form, "bt_payload")
	switch {
	case n == 0 || m == 0 || len(list) == 0:
		return "", SignatureMissing
	case n > 1 || m > 1 || !braintreeText(payload):
		return "", SignatureMalformed
	case isBraintreeChallenge(bytes.TrimRight(payload, "\n")):
		return "", Policy // we sign such texts for whoever asks
	}
	return p.match(list, payload)
}

// match looks for a pair with our public key whose signature holds. The final line end is
// lost on the way now and then: one is put back.
func (p *braintree) match(list, payload []byte) (by, reason string) {
	if bytes.Count(list, []byte{'&'}) >= maxSignatures {
		return "", SignatureMalformed
	}
	longer := append(bytes.Clone(payload), '\n')
	reason = SignatureMissing // no pair is for us
	for _, one := range bytes.Split(list, []byte{'&'}) {
		name, text, ok := bytes.Cut(one, []byte{'|'})
		if !ok || !p.ours(name) {
			continue
		}
		sig, err := hex.DecodeString(string(text))
		if err != nil || len(sig) != sha1.Size {
			reason = SignatureMalformed
			continue
		}
		for i := range p.v.keys {
			k := &p.v.keys[i]
			if hmac.Equal(braintreeSum(k, payload), sig) || hmac.Equal(braintreeSum(k, longer), sig) {
				return k.by, ""
			}
		}
		reason = SignatureMismatch
	}
	return "", reason
}

func (p *braintree) ours(name []byte) bool {
	for _, ours := range p.public {
		if string(ours) == string(name) { // public keys are no secrets
			return true
		}
	}
	return false
}

// braintreeText: base64 in lines and nothing else.
func braintreeText(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '=', c == '\n':
		default:
			return false
		}
	}
	return len(b) > 0
}

// primitive is the comparison alone, for vectors that state no more.
func (p *braintree) primitive(r *provider.Request, sc *scratch) bool {
	sc.loadForm(r.Body)
	list, _ := find(sc.form, "bt_signature")
	payload, _ := find(sc.form, "bt_payload")
	_, reason := p.match(list, payload)
	return reason == ""
}

// isBraintreeChallenge: 20 to 32 hex digits in small letters.
func isBraintreeChallenge(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(b) >= 20 && len(b) <= 32
}

// handshake answers GET ?bt_challenge=. The answer is an HMAC over what the asker chose,
// so it is held to its form, and nothing of that form passes as an event.
func (p *braintree) handshake(r *provider.Request, _ time.Time, sc *scratch) (Result, bool) {
	if r.Method != "GET" {
		return Result{}, false
	}
	pairs, ok := sc.loadQuery(r)
	text, n := find(pairs, "bt_challenge")
	if !ok || n != 1 || !isBraintreeChallenge(text) {
		return p.v.reject(SignatureMalformed), true
	}
	answer := string(p.public[0]) + "|" + hex.EncodeToString(braintreeSum(&p.v.keys[0], text))
	return Result{Verdict: Challenge, Reply: &Reply{Status: 200, ContentType: "text/plain", Body: []byte(answer)}}, true
}

func (p *braintree) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	sc.loadForm(r.Body)
	payload, n := find(sc.form, "bt_payload")
	if n != 1 {
		return errSign(p.v.name, SignatureMissing)
	}
	sig := hex.EncodeToString(braintreeSum(&p.v.keys[0], payload))
	r.Body = formWith(r.Body, "bt_signature", string(p.public[0])+"|"+sig)
	return nil
}
