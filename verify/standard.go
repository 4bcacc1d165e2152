package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"time"

	"penstock/provider"
)

// trio is the three header names of Standard Webhooks under one prefix.
type trio struct{ id, ts, sig string }

// dot separates id, timestamp and body in the signed text.
var dot = []byte{'.'}

// checkStandard is Standard Webhooks: "{id}.{ts}.{body}", v1 = HMAC-SHA256 under a shared
// secret, v1a = Ed25519. Labels that we do not know are passed over.
// Source: standard-webhooks/standard-webhooks spec/standard-webhooks.md.
func (v *Verifier) checkStandard(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	list, reason := v.readTrio(r, sc)
	if reason != "" {
		return "", reason
	}
	at, ok := parseTime(sc.ts, "s")
	if !ok {
		return "", SignatureMalformed
	}
	sc.parts = append(sc.parts[:0], sc.id, dot, sc.ts, dot, r.Body)
	k, reason := v.matchWords(list, sc)
	if reason != "" {
		return "", reason
	}
	if v.tolerance > 0 {
		if reason := within(at, now, v.tolerance); reason != "" {
			return "", reason
		}
	}
	return k.by, v.checkMerchants(r, sc)
}

// readTrio takes the headers of the one prefix whose signature is there. Two prefixes at
// once are two signature headers.
func (v *Verifier) readTrio(r *provider.Request, sc *scratch) ([]byte, string) {
	var list []byte
	var t *trio
	for i := range v.trios {
		val, n := r.Header.Get(v.trios[i].sig)
		if n > 1 || n == 1 && t != nil {
			return nil, DuplicateHeader
		}
		if n == 1 {
			list, t = val, &v.trios[i]
		}
	}
	if len(list) == 0 {
		return nil, SignatureMissing
	}
	id, n := r.Header.Get(t.id)
	if reason := checkID(id, n, "."); reason != "" {
		return nil, reason
	}
	ts, n := r.Header.Get(t.ts)
	switch {
	case n > 1:
		return nil, DuplicateHeader
	case len(ts) == 0:
		return nil, TimestampMissing
	}
	sc.id, sc.ts = id, ts
	return list, ""
}

// matchWords tries the entries of the list, at most 8, each only against keys of its kind.
func (v *Verifier) matchWords(list []byte, sc *scratch) (*key, string) {
	readable := 0
	for n := 0; len(list) > 0; {
		var word []byte
		word, list = cutByte(list, ' ')
		if len(word) == 0 {
			continue
		}
		if n++; n > maxSignatures {
			return nil, SignatureMalformed
		}
		i := bytes.IndexByte(word, ',')
		if i < 0 {
			continue
		}
		tag := word[:i]
		symmetric := string(tag) == "v1"
		if !symmetric && string(tag) != "v1a" {
			continue
		}
		at := len(sc.arena)
		var ok bool
		if sc.arena, ok = v.appendDecoded(sc.arena, word[i+1:], "base64"); !ok {
			continue
		}
		readable++
		if k := v.matchWord(sc.arena[at:], symmetric, sc); k != nil {
			return k, ""
		}
	}
	if readable == 0 {
		return nil, SignatureMalformed
	}
	return nil, SignatureMismatch
}

func (v *Verifier) matchWord(sig []byte, symmetric bool, sc *scratch) *key {
	for i := range v.keys {
		k := &v.keys[i]
		switch {
		case symmetric && !k.public:
			if hmac.Equal(v.sumWith(k, algSHA256, sc), sig) {
				return k
			}
		case !symmetric && k.public:
			if len(sig) == ed25519.SignatureSize && ed25519.Verify(k.ed, sc.join(), sig) {
				return k
			}
		}
	}
	return nil
}
