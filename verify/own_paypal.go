package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/provider"
)

// ownPayPal is PayPal's offline verification: RSA over id|time|webhook id|CRC32 of the
// body, by the certificate that a header names. CRC32 is no MAC: of the body nothing is
// proved but a checksum, so the definition marks every field of it as unverified.
type ownPayPal struct {
	v     *Verifier
	hosts []string
	certs *certificates
	roots *x509.CertPool // nil = those of the machine
}

// payPalHosts may publish certificates, and no other.
var payPalHosts = []string{"api.paypal.com", "api.sandbox.paypal.com"}

// payPalNames are the subjects of the certificates.
var payPalNames = []string{"messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"}

var payPalPath = regexp.MustCompile(`^/v1/notifications/certs/[A-Za-z0-9_-]{1,100}$`)

func newPayPal(v *Verifier) (ownScheme, error) {
	o := &ownPayPal{v: v, hosts: payPalHosts, certs: &certificates{v: v}}
	if list := splitList(v.settings["allowed_cert_hosts"]); len(list) > 0 {
		o.hosts = list
	}
	for _, h := range o.hosts {
		if !slices.Contains(payPalHosts, h) {
			return nil, &ConfigError{Provider: v.name, Setting: "allowed_cert_hosts", Err: fmt.Errorf("%q is not one of %s", h, strings.Join(payPalHosts, ", "))}
		}
	}
	return o, nil
}

// payPalHeaders are what must be there, each once: id, time, signature, certificate,
// algorithm.
var payPalHeaders = [5]string{"PAYPAL-TRANSMISSION-ID", "PAYPAL-TRANSMISSION-TIME", "PAYPAL-TRANSMISSION-SIG", "PAYPAL-CERT-URL", "PAYPAL-AUTH-ALGO"}

func (o *ownPayPal) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	var h [5][]byte
	for i, name := range payPalHeaders {
		value, n := r.Header.Get(name)
		switch {
		case n > 1:
			return "", DuplicateHeader
		case len(value) == 0 && i == 1:
			return "", TimestampMissing
		case len(value) == 0:
			return "", SignatureMissing
		}
		h[i] = value
	}
	sent, ok := parseTime(h[1], "rfc3339")
	if !ok || len(h[0]) > 256 || bytes.IndexByte(h[0], '|') >= 0 {
		return "", SignatureMalformed
	}
	at := len(sc.arena)
	if sc.arena, ok = o.v.appendDecoded(sc.arena, h[2], "base64"); !ok {
		return "", SignatureMalformed
	}
	sig := sc.arena[at:]
	if string(h[4]) != "SHA256withRSA" {
		return "", SignatureMismatch // the header must not choose a weaker one
	}
	u := plainURL(h[3])
	if u == nil || !slices.Contains(o.hosts, u.Hostname()) || !payPalPath.MatchString(u.EscapedPath()) || u.RawQuery != "" || u.ForceQuery {
		return "", SignatureMismatch
	}
	if by, reason = o.prove(u.String(), o.text(h[0], h[1], r.Body), sig, now); reason != "" {
		return "", reason
	}
	if o.v.tolerance > 0 {
		return by, within(sent, now, o.v.tolerance)
	}
	return by, ""
}

func (o *ownPayPal) prove(address string, text, sig []byte, now time.Time) (by, reason string) {
	keys := o.v.keys
	if bare, ok := o.v.source.(vectorKeys); ok {
		keys = bare.keysAt(address)
	} else if len(keys) == 0 {
		cert, reason := o.certs.at(address)
		if reason != "" {
			return "", reason
		}
		if !cert.trusted(now, o.roots, payPalNames) {
			return "", SignatureMismatch
		}
		keys = []key{cert.key}
	}
	if k := ownRSA(keys, algSHA256, text, sig); k != nil {
		return k.by, ""
	}
	return "", SignatureMismatch
}

// text is what is signed, the checksum in decimal digits.
func (o *ownPayPal) text(id, at, body []byte) []byte {
	b := append(append(append(bytes.Clone(id), '|'), at...), '|')
	b = append(append(b, o.v.named["webhook_id"]...), '|')
	return strconv.AppendUint(b, uint64(crc32.ChecksumIEEE(body)), 10)
}

func (o *ownPayPal) sign(r *provider.Request, now time.Time, _ *scratch) error {
	id, n := r.Header.Get(payPalHeaders[0])
	if n != 1 {
		id = bytes.TrimPrefix(madeUpID(), []byte("msg_"))
	}
	at := []byte(now.UTC().Format(time.RFC3339))
	sig, err := o.v.signRSA(o.text(id, at, r.Body))
	if err != nil {
		return err
	}
	for i, value := range []string{string(id), string(at), base64.StdEncoding.EncodeToString(sig), "https://" + o.hosts[0] + "/v1/notifications/certs/CERT-penstock", "SHA256withRSA"} {
		r.Header = setHeader(r.Header, payPalHeaders[i], value)
	}
	return nil
}
