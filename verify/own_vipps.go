package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"penstock/provider"
)

// vipps signs the request line, three headers and through one of them, the body's hash,
// the body. Which headers are signed is fixed here: a sender that names fewer is refused.
// Source: developer.vippsmobilepay.com, Webhooks API, request authentication.
type vipps struct{ v *Verifier }

const (
	vippsHash = "x-ms-content-sha256"
	vippsAuth = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
)

func newVipps(v *Verifier) (ownScheme, error) { return &vipps{v}, nil }

func (p *vipps) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	v := p.v
	if reason := v.readSignature(r, sc); reason != "" {
		return "", reason
	}
	if reason := v.readTimestamp(r, sc); reason != "" {
		return "", reason
	}
	hash, n := r.Header.Get(vippsHash)
	switch {
	case n > 1:
		return "", DuplicateHeader
	case n == 0:
		return "", SignatureMissing
	}
	sum := sha256.Sum256(r.Body)
	if !hmac.Equal(hash, []byte(base64.StdEncoding.EncodeToString(sum[:]))) {
		return "", SignatureMismatch
	}
	host, pathQuery, ok := p.address(r)
	if !ok {
		return "", Policy // nothing to compare with: a source that signs its host needs its public_url
	}
	k := p.match(r.Method, pathQuery, host, hash, sc)
	if k == nil {
		return "", SignatureMismatch
	}
	if v.tolerance > 0 {
		if reason := v.ts.check(sc.ts, now, v.tolerance); reason != "" {
			return "", reason
		}
	}
	return k.by, ""
}

// address is the host and the path with its query that the provider calls.
func (p *vipps) address(r *provider.Request) (host, pathQuery string, ok bool) {
	text := p.v.url
	if text == "" {
		text = r.PublicURL
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "", "", false
	}
	_, rest, _ := strings.Cut(text, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return u.Host, rest[i:], true
	}
	return u.Host, "/", true
}

func (p *vipps) match(method, pathQuery, host string, hash []byte, sc *scratch) *key {
	for i := range p.v.keys {
		want := p.sum(&p.v.keys[i], method, pathQuery, host, sc.ts, hash)
		for _, sig := range sc.sigs[:sc.nsig] {
			if hmac.Equal(want, sig) {
				return &p.v.keys[i]
			}
		}
	}
	return nil
}

func (p *vipps) sum(k *key, method, pathQuery, host string, ts, hash []byte) []byte {
	mac := hmac.New(sha256.New, k.secret)
	mac.Write(vippsText(method, pathQuery, host, ts, hash))
	return mac.Sum(nil)
}

func vippsText(method, pathQuery, host string, ts, hash []byte) []byte {
	return append([]byte(method+"\n"+pathQuery+"\n"), bytes.Join([][]byte{ts, []byte(host), hash}, []byte(";"))...)
}

func (p *vipps) sign(r *provider.Request, now time.Time, _ *scratch) error {
	sum := sha256.Sum256(r.Body)
	hash := base64.StdEncoding.EncodeToString(sum[:])
	ts := formatTime(now, "http_date")
	host, pathQuery, ok := p.address(r)
	if !ok {
		host, pathQuery = "localhost", string(r.Target)
	}
	r.Header = setHeader(r.Header, vippsHash, hash)
	r.Header = setHeader(r.Header, "x-ms-date", ts)
	sig := p.sum(&p.v.keys[0], r.Method, pathQuery, host, []byte(ts), []byte(hash))
	r.Header = setHeader(r.Header, "Authorization", vippsAuth+base64.StdEncoding.EncodeToString(sig))
	return nil
}
