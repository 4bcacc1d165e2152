package verify

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"penstock/provider"
)

// tpay proves a notification twice: a detached JWS over the body, whose certificate stands
// at Tpay's own host, and in a form md5sum over five of its values. The host is compared
// whole: the official library compares the beginning of the address only, which
// https://secure.tpay.com.evil.example has too.
// Source: tpay-com/tpay-openapi-php src/Webhook/JWSVerifiedPaymentNotification.php.
type tpay struct {
	v       *Verifier
	host    string
	secrets []key // security codes
	public  []key // pinned keys; none = the certificate is fetched
}

const (
	tpayLive = "https://secure.tpay.com"
	tpayTest = "https://secure.sandbox.tpay.com"
	tpayPath = "/x509/"
	tpayRoot = "/x509/tpay-jws-root.pem"
)

func newTpay(v *Verifier) (ownScheme, error) {
	p := &tpay{v: v, host: tpayLive}
	for _, k := range v.keys {
		if k.public {
			p.public = append(p.public, k)
		} else {
			p.secrets = append(p.secrets, k)
		}
	}
	return p, nil
}

func (p *tpay) configure(settings map[string]string) error {
	if settings["livemode"] == "false" {
		p.host = tpayTest
	}
	return nil
}

func (p *tpay) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	text, n := r.Header.Get("X-JWS-Signature")
	switch {
	case n > 1:
		return "", DuplicateHeader
	case len(text) == 0:
		return "", SignatureMissing
	case len(text) > 2*maxSignatureText:
		return "", SignatureMalformed
	}
	head, rest, _ := bytes.Cut(text, []byte{'.'})
	payload, sig, ok := bytes.Cut(rest, []byte{'.'})
	var h struct {
		Alg  string   `json:"alg"`
		X5U  string   `json:"x5u"`
		Crit []string `json:"crit"`
	}
	raw, err := p.v.b64url.DecodeString(string(head))
	signature, err2 := p.v.b64url.DecodeString(string(sig))
	if !ok || err != nil || err2 != nil || len(payload) > 0 || json.Unmarshal(raw, &h) != nil || h.Alg != "RS256" || len(h.Crit) > 0 {
		return "", SignatureMalformed
	}
	by, reason = p.checkJWS(head, r.Body, signature, h.X5U, now)
	if reason != "" {
		return "", reason
	}
	if isJSON(r.Body, "auto") { // tokens and aliases: the JWS alone
		return by, ""
	}
	return p.checkMD5(r, sc)
}

func (p *tpay) checkJWS(head, body, sig []byte, x5u string, now time.Time) (by, reason string) {
	m := sha256.New()
	m.Write(head)
	m.Write([]byte{'.'})
	m.Write([]byte(base64.RawURLEncoding.EncodeToString(body)))
	sum := m.Sum(nil)
	if len(p.public) > 0 {
		for i := range p.public {
			if k := &p.public[i]; k.rsa != nil && rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, sum, sig) == nil {
				return k.by, ""
			}
		}
		return "", SignatureMismatch
	}
	name, ok := strings.CutPrefix(x5u, p.host+tpayPath)
	if !ok || !hasSyntax([]byte(name), "word") || strings.Contains(name, "..") {
		return "", Policy // a certificate from anywhere else proves nothing
	}
	pub, err := p.published(x5u, now)
	if err != nil {
		return "", KeyUnavailable
	}
	if rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum, sig) != nil {
		return "", SignatureMismatch
	}
	return "tpay:" + fingerprint(x5u), ""
}

// published is the key at x5u, of a certificate that Tpay's root has signed and that is
// valid now.
func (p *tpay) published(x5u string, now time.Time) (*rsa.PublicKey, error) {
	block, err := p.fetchPEM(x5u)
	if err != nil {
		return nil, err
	}
	if block.Type == "CERTIFICATE" {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate of Tpay: %w", err)
		}
		rootBlock, err := p.fetchPEM(p.host + tpayRoot)
		if err != nil {
			return nil, err
		}
		root, err := x509.ParseCertificate(rootBlock.Bytes)
		if err != nil {
			return nil, fmt.Errorf("root certificate of Tpay: %w", err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(root)
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return nil, fmt.Errorf("certificate of Tpay: %w", err)
		}
	}
	pub, err := parsePublic(block.Bytes)
	if err != nil {
		return nil, err
	}
	k, ok := pub.(*rsa.PublicKey)
	if !ok || k.N.BitLen() < 2048 {
		return nil, fmt.Errorf("certificate of Tpay: a %T, or too short", pub)
	}
	return k, nil
}

func (p *tpay) fetchPEM(url string) (*pem.Block, error) {
	if p.v.source == nil {
		return nil, errNoSource
	}
	text, err := p.v.source.Fetch(url)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", url)
	}
	return block, nil
}

// checkMD5: md5sum is over id, tr_id, tr_amount with two decimals, tr_crc and the code.
func (p *tpay) checkMD5(r *provider.Request, sc *scratch) (by, reason string) {
	text, reason := p.md5Text(r, sc)
	if reason != "" {
		return "", reason
	}
	sent, f := sc.lookup("md5sum")
	if f == foundAbsent {
		return "", SignatureMissing
	}
	sum, ok := p.v.appendDecoded(nil, sent, "hex")
	if f != foundText || !ok {
		return "", SignatureMalformed
	}
	for i := range p.secrets {
		if hmac.Equal(md5Of(text, p.secrets[i].secret), sum) {
			return p.secrets[i].by, ""
		}
	}
	return "", SignatureMismatch
}

func md5Of(parts ...[]byte) []byte {
	h := md5.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func (p *tpay) md5Text(r *provider.Request, sc *scratch) ([]byte, string) {
	if !p.v.load(r, sc) || sc.source != sourceForm {
		return nil, SignatureMalformed
	}
	for i := range sc.form { // the JWS covers the bytes, but two readers would read two things
		if _, n := find(sc.form, string(sc.form[i].name)); n > 1 {
			return nil, SignatureMalformed
		}
	}
	var text []byte
	for _, name := range []string{"id", "tr_id", "tr_amount", "tr_crc"} {
		value, f := sc.lookup(name)
		if f != foundText {
			return nil, SignatureMalformed
		}
		if name == "tr_amount" {
			spelt, ok := sc.spell(value, "two_decimals")
			if !ok {
				return nil, Policy
			}
			value = spelt
		}
		text = append(text, value...)
	}
	return text, ""
}

func (p *tpay) ack(r *provider.Request, _ time.Time, _ *scratch) Reply {
	if isJSON(r.Body, "auto") {
		return Reply{Status: 200, ContentType: "application/json", Body: []byte(`{"result":true}`)}
	}
	return p.v.ack
}

func (p *tpay) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	if !isJSON(r.Body, "auto") {
		text, reason := p.md5Text(r, sc)
		if reason != "" {
			return errSign(p.v.name, reason)
		}
		r.Body = formWith(r.Body, "md5sum", hex.EncodeToString(md5Of(text, p.secrets[0].secret)))
	}
	if p.v.signing == nil {
		return errNoSigningKey(p.v.name)
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","x5u":"` + p.host + tpayPath + `notifications-jws.pem"}`))
	sum := sha256.Sum256([]byte(head + "." + base64.RawURLEncoding.EncodeToString(r.Body)))
	sig, err := p.v.signing.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("%s: sign: %w", p.v.name, err)
	}
	r.Header = setHeader(r.Header, "X-JWS-Signature", head+".."+base64.RawURLEncoding.EncodeToString(sig))
	return nil
}
