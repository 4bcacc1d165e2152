package verify

import (
	"bytes"
	"slices"
	"strconv"

	"penstock/provider"
)

// skipVariant says that a spelling does not exist for these values.
const skipVariant = "\x00skip"

// piece is a part of the signed template.
type piece struct {
	kind string
	text []byte // of a literal
	name string
}

// field is one of the signed fields.
type field struct {
	f      provider.SignedField
	syntax string
}

// message rebuilds the n-th spelling of the signed bytes into sc.parts.
func (v *Verifier) message(r *provider.Request, sc *scratch, n int) string {
	sc.parts, sc.keyAt = sc.parts[:0], 0
	if len(v.fields) > 0 {
		return v.joinFields(r, sc, n)
	}
	for i := range v.pieces {
		p := &v.pieces[i]
		switch p.kind {
		case "key":
			sc.markKey()
			continue
		case "json_sorted":
			text, reason := v.jsonSorted(r, sc, n)
			if reason != "" {
				return reason
			}
			sc.parts = append(sc.parts, text)
			continue
		case "all":
			if reason := v.allFields(r, sc); reason != "" {
				return reason
			}
			continue
		case "own":
			if reason := ownPieces[p.name](v, r, sc, n); reason != "" {
				return reason
			}
			continue
		}
		text, reason := v.pieceText(p, r, sc)
		if reason != "" {
			return reason
		}
		sc.parts = append(sc.parts, text)
	}
	return ""
}

func (v *Verifier) pieceText(p *piece, r *provider.Request, sc *scratch) ([]byte, string) {
	switch p.kind {
	case "":
		return p.text, ""
	case "body":
		return r.Body, ""
	case "ts":
		return sc.ts, ""
	case "id":
		return sc.id, ""
	case "url":
		if v.url != "" {
			return sc.keep(v.url), ""
		}
		if r.PublicURL == "" {
			return nil, Policy // nothing to compare with: a source that signs URLs needs its public_url
		}
		return sc.keep(r.PublicURL), ""
	case "method":
		return sc.keep(r.Method), ""
	case "path":
		path, _ := cutByte(r.Target, '?')
		return path, ""
	case "query":
		_, q := cutByte(r.Target, '?')
		return q, ""
	case "h":
		val, n := r.Header.Get(p.name)
		if n > 1 {
			return nil, DuplicateHeader
		}
		if n == 0 {
			return nil, SignatureMissing
		}
		return val, ""
	case "q":
		pairs, ok := sc.loadQuery(r)
		val, n := find(pairs, p.name)
		if !ok || n > 1 {
			return nil, SignatureMalformed
		}
		if n == 0 {
			return nil, SignatureMissing
		}
		return val, ""
	case "php_serialize":
		return v.phpSerialize(r, sc)
	case "base64_without":
		return v.base64Without(p.name, r, sc)
	}
	if !v.load(r, sc) {
		return nil, SignatureMissing
	}
	val, f := sc.lookup(p.name)
	switch {
	case f == foundAbsent || f == foundNull || f == foundText && len(val) == 0:
		return nil, SignatureMissing
	case f != foundText:
		return nil, SignatureMalformed
	}
	return val, ""
}

// joinFields joins the signed fields. A field that is absent, null, an object or there
// twice is refused unless the definition says what stands for it.
func (v *Verifier) joinFields(r *provider.Request, sc *scratch, n int) string {
	if !v.load(r, sc) {
		return SignatureMalformed
	}
	sc.amounts = sc.amounts[:0]
	changed := n == 0
	joined := false
	for i := range v.fields {
		f := &v.fields[i]
		if f.f.Path == "{key}" {
			sc.between(v.separator, joined)
			sc.markKey()
			joined = true
			continue
		}
		val, reason := v.fieldText(f, sc)
		if reason == skipField {
			continue
		}
		if reason != "" {
			return reason
		}
		if f.syntax != "text" {
			sc.amounts = append(sc.amounts, amountSeen{f.syntax, val})
		}
		if form := formOf(f, n); form != "raw" {
			spelt, ok := sc.spell(val, form)
			if !ok {
				return skipVariant
			}
			changed = changed || !bytes.Equal(spelt, val)
			val = spelt
		}
		if len(v.separator) > 0 && !v.s.SeparatorInValues && bytes.Contains(val, v.separator) {
			return SignatureMalformed
		}
		sc.between(v.separator, joined)
		joined = true
		if f.f.Label != "" {
			sc.parts = append(sc.parts, sc.keep(f.f.Label))
		}
		sc.parts = append(sc.parts, val)
	}
	if !changed {
		return skipVariant
	}
	return ""
}

func (v *Verifier) fieldText(f *field, sc *scratch) ([]byte, string) {
	if f.f.IsPart() {
		return v.named[f.f.PartName()], ""
	}
	val, found := sc.lookup(f.f.Path)
	if found == foundAbsent && f.f.Or != "" {
		val, found = sc.lookup(f.f.Or)
	}
	rule := ""
	switch found {
	case foundText:
		return val, ""
	case foundAbsent:
		rule = f.f.Absent
	case foundNull:
		rule = f.f.Null
	default:
		return nil, SignatureMalformed
	}
	switch rule {
	case "", "refuse":
		return nil, SignatureMalformed
	case "empty":
		return nil, ""
	case "skip":
		return nil, skipField
	}
	return sc.keep(rule), ""
}

func formOf(f *field, n int) string {
	if len(f.f.Forms) == 0 {
		return "raw"
	}
	return f.f.Forms[min(n, len(f.f.Forms)-1)]
}

// spell writes a plain decimal as another writer would: the same number, so nothing is
// given away by trying. trimmed is how PHP prints a float (250.0 -> 250).
func (sc *scratch) spell(val []byte, form string) ([]byte, bool) {
	if !isAmount(val) {
		return nil, false
	}
	whole, fraction := cutByte(val, '.')
	fraction = bytes.TrimRight(fraction, "0")
	n := len(sc.arena)
	sc.arena = append(sc.arena, whole...)
	switch form {
	case "trimmed":
		if len(fraction) > 0 {
			sc.arena = append(append(sc.arena, '.'), fraction...)
		}
	case "two_decimals":
		if len(fraction) > 2 {
			return nil, false
		}
		sc.arena = append(append(sc.arena, '.'), fraction...)
		for i := len(fraction); i < 2; i++ {
			sc.arena = append(sc.arena, '0')
		}
	}
	return sc.arena[n:len(sc.arena):len(sc.arena)], true
}

// isAmount: digits, at most one point with digits on both sides, no sign, no exponent,
// no leading zero that could have been another field's last digit.
func isAmount(b []byte) bool {
	whole, fraction := cutByte(b, '.')
	if len(whole) == 0 || len(whole) > 18 || len(fraction) > 18 {
		return false
	}
	if len(whole) > 1 && whole[0] == '0' || len(fraction) == 0 && bytes.IndexByte(b, '.') >= 0 {
		return false
	}
	for _, part := range [2][]byte{whole, fraction} {
		for _, c := range part {
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	return true
}

// checkSyntax holds signed values to their syntax after the hash was right: joined text
// has other readings with the same hash ("M1"+"01.00" is "M10"+"1.00").
func (v *Verifier) checkSyntax(sc *scratch) string {
	for i := range sc.amounts {
		switch a := &sc.amounts[i]; a.syntax {
		case "amount":
			if !isAmount(a.value) {
				return Policy
			}
		case "currency":
			if !provider.KnownCurrency(string(a.value)) {
				return Policy
			}
		case "digits", "bool", "word", "datetime":
			if !hasSyntax(a.value, a.syntax) {
				return Policy
			}
		}
	}
	return ""
}

// phpSerialize writes every form field but the signature as PHP's serialize() writes a
// key-sorted array of strings; lengths count bytes.
func (v *Verifier) phpSerialize(r *provider.Request, sc *scratch) ([]byte, string) {
	if !v.load(r, sc) || sc.source != sourceForm {
		return nil, SignatureMalformed
	}
	slices.SortFunc(sc.form, func(a, b pair) int { return bytes.Compare(a.name, b.name) })
	count := 0
	for i := range sc.form {
		if i > 0 && bytes.Equal(sc.form[i].name, sc.form[i-1].name) {
			return nil, SignatureMalformed
		}
		if string(sc.form[i].name) != v.sig.s.Field {
			count++
		}
	}
	n := len(sc.arena)
	b := append(sc.arena, "a:"...)
	b = strconv.AppendInt(b, int64(count), 10)
	b = append(b, ":{"...)
	for _, p := range sc.form {
		if string(p.name) != v.sig.s.Field {
			b = appendPHPString(appendPHPString(b, p.name), p.value)
		}
	}
	sc.arena = append(b, '}')
	return sc.arena[n:len(sc.arena):len(sc.arena)], ""
}

func appendPHPString(b, s []byte) []byte {
	b = append(b, "s:"...)
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, `:"`...)
	b = append(b, s...)
	return append(b, `";`...)
}
