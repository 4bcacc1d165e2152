package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/provider"
)

// ownTrueLayer is TrueLayer's request signature: a detached JWS by ES512 over method, path,
// the headers that its own header lists, and the body. The header may name a key set (jku),
// of which only TrueLayer's own are looked at.
type ownTrueLayer struct {
	v    *Verifier
	sets map[string]*keySet // by address
}

const (
	trueLayerHeader    = "Tl-Signature"
	trueLayerTimestamp = "X-Tl-Webhook-Timestamp"
)

// trueLayerSets are where TrueLayer publishes keys: in production, and of its sandbox, which
// signs whatever anybody makes up there.
var trueLayerSets = []string{"https://webhooks.truelayer.com/.well-known/jwks", "https://webhooks.truelayer-sandbox.com/.well-known/jwks"}

func newTrueLayer(v *Verifier) (ownScheme, error) {
	o := &ownTrueLayer{v: v, sets: map[string]*keySet{}}
	allowed := splitList(v.settings["allowed_jku"])
	if len(allowed) == 0 {
		allowed = trueLayerSets[:1]
	}
	for _, u := range allowed {
		if !slices.Contains(trueLayerSets, u) {
			return nil, &ConfigError{Provider: v.name, Setting: "allowed_jku", Err: fmt.Errorf("%q is not one of %s", u, strings.Join(trueLayerSets, ", "))}
		}
		o.sets[u] = newKeySet(v, u)
	}
	return o, nil
}

func (o *ownTrueLayer) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	token, n := r.Header.Get(trueLayerHeader)
	switch {
	case n > 1:
		return "", DuplicateHeader
	case len(token) == 0:
		return "", SignatureMissing
	}
	t, ok := o.v.parseJWS(token, true, sc)
	if !ok {
		return "", SignatureMalformed
	}
	version, okVersion := memberText(t.header, "tl_version", false)
	listed, okListed := memberText(t.header, "tl_headers", true)
	jku, okJKU := memberText(t.header, "jku", false)
	if !okVersion || !okListed || !okJKU {
		return "", SignatureMalformed
	}
	set := o.sets[jku]
	if t.alg != "ES512" || version != "2" || set == nil {
		return "", SignatureMismatch
	}
	headers, stamp, reason := signedHeaders(r, listed)
	if reason != "" {
		return "", reason
	}
	if by, reason = o.prove(set, &t, r, headers); reason != "" {
		return "", reason
	}
	sent, ok := parseTime(stamp, "rfc3339")
	if !ok {
		return "", SignatureMalformed
	}
	if o.v.tolerance > 0 {
		return by, within(sent, now, o.v.tolerance)
	}
	return by, ""
}

// prove tries the path as it was called, and with or without one slash at its end, as
// TrueLayer's own verifiers do.
func (o *ownTrueLayer) prove(set *keySet, t *jws, r *provider.Request, headers []byte) (by, reason string) {
	header := t.signed[:bytes.IndexByte(t.signed, '.')+1]
	path := pathOf(r)
	other := strings.TrimSuffix(path, "/")
	if other == path {
		other += "/"
	}
	for _, p := range []string{path, other} {
		t.signed = base64.RawURLEncoding.AppendEncode(bytes.Clone(header), o.text(r, p, headers))
		var k *key
		if len(o.v.keys) > 0 {
			if k, reason = signer(o.v.keys, t), SignatureMismatch; k != nil {
				reason = ""
			}
		} else {
			k, reason = set.prove(t)
		}
		if reason != SignatureMismatch {
			if k != nil {
				by = k.by
			}
			return by, reason
		}
	}
	return "", SignatureMismatch
}

// pathOf is the path that the provider called: of the public URL, where a proxy has another.
func pathOf(r *provider.Request) string {
	target := string(r.Target)
	if r.PublicURL != "" {
		target = targetOf(r.PublicURL)
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

func (o *ownTrueLayer) text(r *provider.Request, path string, headers []byte) []byte {
	b := append([]byte(strings.ToUpper(r.Method)+" "+path+"\n"), headers...)
	return append(b, r.Body...)
}

// signedHeaders are the lines of the listed headers, in the list's own order and letter
// case, and the timestamp, which must be among them.
func signedHeaders(r *provider.Request, listed string) (lines, stamp []byte, reason string) {
	if len(listed) > 1024 {
		return nil, nil, SignatureMalformed
	}
	for _, name := range strings.Split(listed, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		value, n := r.Header.Get(name)
		switch {
		case n > 1:
			return nil, nil, DuplicateHeader
		case n == 0:
			return nil, nil, SignatureMismatch
		}
		if strings.EqualFold(name, trueLayerTimestamp) {
			stamp = value
		}
		lines = append(append(append(append(lines, name...), ": "...), value...), '\n')
	}
	if stamp == nil {
		return nil, nil, TimestampMissing
	}
	return lines, stamp, ""
}

func (o *ownTrueLayer) sign(r *provider.Request, now time.Time, _ *scratch) error {
	r.Header = setHeader(r.Header, trueLayerTimestamp, now.UTC().Format(time.RFC3339))
	kid := ""
	if len(o.v.keys) > 0 {
		kid = o.v.keys[0].id
	}
	jku := ""
	for _, u := range trueLayerSets {
		if o.sets[u] != nil && jku == "" {
			jku = u
		}
	}
	head, err := json.Marshal(map[string]string{"alg": "ES512", "kid": kid, "tl_version": "2", "tl_headers": trueLayerTimestamp, "jku": jku})
	if err != nil {
		return err
	}
	headers, _, reason := signedHeaders(r, trueLayerTimestamp)
	if reason != "" {
		return errSign(o.v.name, reason)
	}
	sig, err := o.v.signJWS("ES512", composeJWS(head, o.text(r, pathOf(r), headers)))
	if err != nil {
		return err
	}
	r.Header = setHeader(r.Header, trueLayerHeader, base64.RawURLEncoding.EncodeToString(head)+".."+base64.RawURLEncoding.EncodeToString(sig))
	return nil
}

// devTrueLayer makes up a key set of TrueLayer's kind.
func devTrueLayer(_ *provider.Definition, into provider.Credentials) error {
	pair, err := newKeyPair(&provider.Scheme{Scheme: "jwt", Key: "jwks", JWT: &provider.JWT{Algorithms: []string{"ES512"}}}, nil)
	if err != nil {
		return err
	}
	into["jwks"], into["signing_key"] = []string{pair.public}, []string{pair.private}
	return nil
}
