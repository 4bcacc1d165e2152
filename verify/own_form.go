package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"penstock/provider"
)

// twilioRequest is the URL and behind it the form, sorted, each name with its value.
// Of a repeated name each value counts once. A body that is no form is named by the
// URL's bodySHA256, and the URL alone is signed. Twilio's code tries the URL with and
// without the port, so there are three spellings of it.
// Sources: twilio/twilio-python twilio/request_validator.py and its tests,
// twilio/twilio-go client/request_validator.go.
func twilioRequest(v *Verifier, r *provider.Request, sc *scratch, n int) string {
	u, ok := v.publicURL(r)
	if !ok {
		return Policy
	}
	if n > 0 {
		if u, ok = otherPort(u, n == 1); !ok {
			return skipVariant
		}
	}
	sc.parts = append(sc.parts, sc.keep(u))
	query, ok := sc.loadQuery(r)
	if !ok {
		return SignatureMalformed
	}
	switch want, n := find(query, "bodySHA256"); {
	case n > 1:
		return SignatureMalformed
	case n == 1:
		sum := sha256.Sum256(r.Body)
		got, err := hex.DecodeString(string(want))
		if err != nil {
			return SignatureMalformed
		}
		if !hmac.Equal(got, sum[:]) {
			return SignatureMismatch
		}
		return ""
	}
	if b := bytes.TrimLeft(r.Body, " \t\r\n"); len(b) > 0 && (b[0] == '{' || b[0] == '[') {
		return SignatureMalformed // nothing proves this body
	}
	pairs, ok := sc.bodyForm(r)
	if !ok {
		return SignatureMalformed
	}
	for i, p := range pairs {
		if i > 0 && comparePairs(p, pairs[i-1]) == 0 {
			continue
		}
		sc.parts = append(sc.parts, p.name, p.value)
	}
	return ""
}

// otherPort takes the port out of a URL, or puts in the scheme's own.
func otherPort(u string, without bool) (string, bool) {
	scheme, rest, _ := strings.Cut(u, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, tail := rest[:end], rest[end:]
	colon := strings.LastIndexByte(host, ':')
	if colon <= strings.LastIndexByte(host, ']') {
		colon = -1 // of an IPv6 address
	}
	switch {
	case without && colon >= 0:
		return scheme + "://" + host[:colon] + tail, true
	case without || colon >= 0:
		return "", false
	case scheme == "https":
		return scheme + "://" + host + ":443" + tail, true
	}
	return scheme + "://" + host + ":80" + tail, true
}

// bodyForm is the form in the body, sorted by name and then by value.
func (sc *scratch) bodyForm(r *provider.Request) ([]pair, bool) {
	var err error
	sc.form, sc.arena, err = parseForm(r.Body, sc.form[:0], sc.arena)
	slices.SortFunc(sc.form, comparePairs)
	return sc.form, err == nil
}

// comparePairs orders by name and value.
func comparePairs(a, b pair) int {
	if c := strings.Compare(string(a.name), string(b.name)); c != 0 {
		return c
	}
	return strings.Compare(string(a.value), string(b.value))
}

// plivoURL is the URL of Plivo's version 2: without its query.
// Source: plivo/plivo-python plivo/utils/__init__.py, validate_signature.
func plivoURL(v *Verifier, r *provider.Request, sc *scratch, _ int) string {
	u, ok := v.publicURL(r)
	if !ok {
		return Policy
	}
	u, _, _ = strings.Cut(u, "?")
	sc.parts = append(sc.parts, sc.keep(u))
	return ""
}

var questionMark, equals, ampersand = []byte{'?'}, []byte{'='}, []byte{'&'}

// plivoRequest is the URL, "?" and its sorted query where there is a query or a form, "."
// where there are both, and the sorted form without any separator.
// Source: plivo/plivo-python plivo/utils/signature_v3.py.
func plivoRequest(v *Verifier, r *provider.Request, sc *scratch, n int) string {
	if reason := plivoURL(v, r, sc, n); reason != "" {
		return reason
	}
	query, ok := sc.loadQuery(r)
	if !ok {
		return SignatureMalformed
	}
	form, ok := sc.bodyForm(r)
	if !ok {
		return SignatureMalformed
	}
	if len(query)+len(form) > 0 {
		sc.parts = append(sc.parts, questionMark)
	}
	query = slices.SortedFunc(slices.Values(query), comparePairs)
	for i, p := range query {
		if i > 0 {
			sc.parts = append(sc.parts, ampersand)
		}
		sc.parts = append(sc.parts, p.name, equals, p.value)
	}
	if len(query) > 0 && len(form) > 0 {
		sc.parts = append(sc.parts, dot)
	}
	for _, p := range form {
		sc.parts = append(sc.parts, p.name, p.value)
	}
	return ""
}
