package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// tokenReader is where a shared token stands.
type tokenReader struct {
	t    provider.Token
	each string // with "value.*.clientState": the list's path
	leaf string
}

func newTokenReader(t provider.Token) *tokenReader {
	tr := &tokenReader{t: t}
	if list, leaf, ok := strings.Cut(t.Field, ".*."); ok {
		tr.each, tr.leaf = list, leaf
	}
	return tr
}

// equalToken compares in constant time and hashes both sides first, so that not even the
// length of the secret shows.
func equalToken(keys []key, text []byte) *key {
	got := sha256.Sum256(text)
	var match *key
	for i := range keys {
		if subtle.ConstantTimeCompare(got[:], keys[i].digest[:]) == 1 {
			match = &keys[i]
		}
	}
	return match
}

func (v *Verifier) checkToken(r *provider.Request, sc *scratch) (by, reason string) {
	if v.token.each != "" {
		return v.checkEach(r, sc)
	}
	text, reason := v.tokenText(r, sc)
	bare := false
	if q := v.token.t.OrQuery; q != "" && reason == "" {
		other, reason := v.queryToken(r, sc, q)
		switch {
		case reason != "":
			return "", reason
		case len(other) > 0 && len(text) > 0:
			return "", SignatureMalformed // which of them counts nobody can say
		case len(other) > 0:
			text, bare = other, true
		}
	}
	if reason != "" {
		return "", reason
	}
	if len(text) == 0 {
		return "", SignatureMissing
	}
	if p := v.token.t.Prefix; p != "" && !bare {
		if len(text) <= len(p) || !strings.EqualFold(string(text[:len(p)]), p) {
			return "", SignatureMalformed
		}
		text = text[len(p):]
	}
	if k := equalToken(v.keys, text); k != nil {
		return k.by, ""
	}
	return "", SignatureMismatch
}

// queryToken is a token in a query parameter, exactly once.
func (v *Verifier) queryToken(r *provider.Request, sc *scratch, name string) ([]byte, string) {
	pairs, ok := sc.loadQuery(r)
	text, n := find(pairs, name)
	if !ok || n > 1 {
		return nil, SignatureMalformed
	}
	return text, ""
}

func (v *Verifier) tokenText(r *provider.Request, sc *scratch) ([]byte, string) {
	t := &v.token.t
	switch {
	case t.Header != "":
		text, n := r.Header.Get(t.Header)
		if n > 1 {
			return nil, DuplicateHeader
		}
		return text, ""
	case t.Query != "":
		return v.queryToken(r, sc, t.Query)
	}
	if !v.load(r, sc) {
		return nil, SignatureMissing
	}
	text, f := sc.lookup(t.Field)
	if f == foundDuplicate || f == foundOther {
		return nil, SignatureMalformed
	}
	if t.Number && f == foundText {
		if val, _ := walk(sc.doc, t.Field); val == nil || val.Type() != fastjson.TypeNumber {
			return nil, SignatureMalformed
		}
	}
	return text, ""
}

// checkEach wants the token in every element of a list that is not empty.
func (v *Verifier) checkEach(r *provider.Request, sc *scratch) (by, reason string) {
	if !v.load(r, sc) || sc.source != sourceJSON {
		return "", SignatureMissing
	}
	list, f := walk(sc.doc, v.token.each)
	if f != foundText || list.Type() != fastjson.TypeArray {
		return "", SignatureMissing
	}
	items, err := list.Array()
	if err != nil || len(items) == 0 {
		return "", SignatureMissing
	}
	for _, item := range items {
		text, f := sc.lookupJSON(item, v.token.leaf)
		if f != foundText || len(text) == 0 {
			return "", SignatureMissing
		}
		k := equalToken(v.keys, text)
		if k == nil {
			return "", SignatureMismatch
		}
		by = k.by
	}
	return by, ""
}

// eachToken lists the tokens of a batch, at most ten, for an explanation.
func (v *Verifier) eachToken(r *provider.Request, sc *scratch) (out [][]byte) {
	if !v.load(r, sc) || sc.source != sourceJSON {
		return nil
	}
	list, _ := walk(sc.doc, v.token.each)
	if list == nil {
		return nil
	}
	items, err := list.Array()
	if err != nil {
		return nil
	}
	for i := 0; i < len(items) && i < 10; i++ {
		text, _ := sc.lookupJSON(items[i], v.token.leaf)
		out = append(out, text)
	}
	return out
}

// checkBasic is HTTP Basic authentication (RFC 7617): the scheme word in any case, the
// rest exact. Without password credentials the password must be empty.
func (v *Verifier) checkBasic(r *provider.Request, sc *scratch) (by, reason string) {
	user, pass, reason := v.basicText(r, sc)
	if reason != "" {
		return "", reason
	}
	u, p := equalToken(v.usernames, user), equalToken(v.passwords, pass)
	switch {
	case len(v.passwords) == 0 && len(pass) == 0 && u != nil:
		return u.by, ""
	case u != nil && p != nil, len(v.usernames) == 0 && p != nil:
		return p.by, ""
	}
	return "", SignatureMismatch
}

// basicText is what stands before and behind the first colon.
func (v *Verifier) basicText(r *provider.Request, sc *scratch) (user, pass []byte, reason string) {
	text, n := r.Header.Get("Authorization")
	switch {
	case n > 1:
		return nil, nil, DuplicateHeader
	case len(text) == 0:
		return nil, nil, SignatureMissing
	case len(text) < 7 || !strings.EqualFold(string(text[:6]), "basic ") || len(text) > 2048:
		return nil, nil, SignatureMalformed
	}
	at := len(sc.arena)
	var ok bool
	if sc.arena, ok = v.appendDecoded(sc.arena, bytes.TrimLeft(text[6:], " "), "base64"); !ok {
		return nil, nil, SignatureMalformed
	}
	if user, pass, ok = bytes.Cut(sc.arena[at:], []byte{':'}); !ok {
		return nil, nil, SignatureMalformed
	}
	return user, pass, ""
}
