package verify

import (
	"bytes"
	"fmt"

	"penstock/provider"
)

// maxSignatureText bounds one signature as written; RSA with 8192 bits is 1368 in base64.
const maxSignatureText = 4096

type sigReader struct {
	s       provider.Signature
	headers []string // the header, its alternatives, or the numbered ones
	listSep byte
	limit   int
}

type algorithmWord struct {
	word string
	alg  algorithm
}

func newSigReader(s provider.Signature) sigReader {
	g := sigReader{s: s, listSep: ',', limit: max(maxSignatures, s.Numbered)}
	if s.Separator != "" {
		g.listSep = s.Separator[0]
	}
	if s.Header == "" {
		return g
	}
	if s.Numbered > 0 {
		for n := 1; n <= s.Numbered; n++ {
			g.headers = append(g.headers, fmt.Sprintf(s.Header, n))
		}
		return g
	}
	g.headers = append([]string{s.Header}, s.Alternatives...)
	return g
}

// readSignature finds the signatures of r and decodes them into sc.sigs.
func (v *Verifier) readSignature(r *provider.Request, sc *scratch) string {
	sc.alg = v.alg
	if v.s.KeyID != nil {
		id, n := r.Header.Get(v.s.KeyID.Header)
		switch {
		case n > 1:
			return DuplicateHeader
		case len(id) == 0:
			return SignatureMissing
		}
		sc.keyID = id
	}
	if len(v.sig.headers) > 0 {
		return v.readHeaders(r, sc)
	}
	text, reason := v.bodySignature(r, sc)
	if reason != "" {
		return reason
	}
	if len(text) == 0 {
		return SignatureMissing
	}
	return v.parseSignatures(text, sc)
}

func (v *Verifier) readHeaders(r *provider.Request, sc *scratch) string {
	var first []byte
	present, reason := 0, ""
	for _, h := range v.sig.headers {
		val, n := r.Header.Get(h)
		if n > 1 {
			return DuplicateHeader
		}
		if n == 0 {
			continue
		}
		present++
		switch {
		case v.sig.s.Numbered > 0 || v.sig.s.Several == "any":
			if len(val) > 0 {
				reason = v.parseSignatures(val, sc)
			}
			if reason != "" && reason != SignatureMalformed {
				return reason
			}
		case present == 1:
			first = val
		case v.sig.s.Several == "first":
		case !bytes.Equal(first, val): // texts of one request, no secret in them
			return DuplicateHeader
		}
	}
	if sc.nsig > 0 {
		return ""
	}
	if reason != "" {
		return reason
	}
	if len(first) == 0 {
		return SignatureMissing
	}
	return v.parseSignatures(first, sc)
}

// bodySignature is a signature in a body field or a query parameter, exactly once.
func (v *Verifier) bodySignature(r *provider.Request, sc *scratch) ([]byte, string) {
	if q := v.sig.s.Query; q != "" {
		pairs, ok := sc.loadQuery(r)
		if !ok {
			return nil, SignatureMalformed
		}
		text, n := find(pairs, q)
		if n > 1 {
			return nil, SignatureMalformed
		}
		return text, ""
	}
	if !v.load(r, sc) {
		return nil, SignatureMissing
	}
	text, f := sc.lookup(v.sig.s.Field)
	switch f {
	case foundDuplicate, foundOther:
		return nil, SignatureMalformed
	}
	return text, ""
}

// parseSignatures splits a value by the scheme's format and decodes what it holds. What
// does not decode is passed over (a rotation may bring kinds that we do not know); if
// nothing is left the value is malformed.
func (v *Verifier) parseSignatures(text []byte, sc *scratch) string {
	before, seen := sc.nsig, 0
	switch v.sig.s.Format {
	case "list":
		n, reason := v.parseList(text, sc)
		if reason != "" {
			return reason
		}
		seen = n
	case "words", "csv":
		if v.ts != nil && v.ts.t.First {
			sc.ts, text = cutByte(text, ',')
			if len(text) == 0 {
				return SignatureMalformed
			}
		}
		sep, tag := byte(' '), v.sig.s.Key
		if v.sig.s.Format == "csv" {
			sep, tag = ',', ""
		}
		for len(text) > 0 {
			var item []byte
			item, text = cutByte(text, sep)
			if item = bytes.Trim(item, " "); len(item) == 0 {
				continue
			}
			if tag != "" {
				t, rest, ok := bytes.Cut(item, []byte{','})
				if !ok || string(t) != tag {
					continue
				}
				item = rest
			}
			if seen++; seen > maxSignatures {
				return SignatureMalformed
			}
			v.decode(item, sc)
		}
	case "tagged":
		tag, sig := cutByte(text, '=')
		if len(sig) == 0 {
			return SignatureMalformed
		}
		if reason := v.choose(tag, sc); reason != "" {
			return reason
		}
		seen = 1
		v.decode(sig, sc)
	default:
		seen = 1
		v.decode(text, sc)
	}
	switch {
	case seen == 0:
		return SignatureMissing
	case sc.nsig == before, v.sig.s.One && seen > 1, sc.nsig > v.sig.limit:
		return SignatureMalformed
	}
	return ""
}

// parseList reads "t=1,v1=ab,v1=cd": every pair has a "=", timestamp and algorithm stand
// exactly once, labels that we do not know are passed over, never accepted.
func (v *Verifier) parseList(text []byte, sc *scratch) (seen int, reason string) {
	times, words := 0, 0
	for len(text) > 0 {
		var item []byte
		item, text = v.cutItem(text)
		if len(item) == 0 {
			if len(text) == 0 {
				break
			}
			return 0, SignatureMalformed
		}
		i := bytes.IndexByte(item, '=')
		if i < 0 {
			return 0, SignatureMalformed
		}
		label, value := item[:i], item[i+1:]
		switch {
		case string(label) == v.sig.s.Key:
			if seen++; seen > maxSignatures {
				return 0, SignatureMalformed
			}
			v.decode(value, sc)
		case v.ts != nil && v.ts.t.Key != "" && string(label) == v.ts.t.Key:
			if times++; times > 1 && !(v.sig.s.Group != "" && bytes.Equal(sc.ts, value)) {
				return 0, SignatureMalformed
			}
			sc.ts = value
		case v.sig.s.AlgorithmKey != "" && string(label) == v.sig.s.AlgorithmKey:
			if words++; words > 1 {
				return 0, SignatureMalformed
			}
			if reason := v.choose(value, sc); reason != "" {
				return 0, reason
			}
		}
	}
	if v.sig.s.AlgorithmKey != "" && words == 0 {
		return 0, SignatureMalformed
	}
	return seen, ""
}

// cutItem cuts one pair off a list, at its separator or between groups of pairs.
func (v *Verifier) cutItem(text []byte) (item, rest []byte) {
	for i, c := range text {
		if c == v.sig.listSep || v.sig.s.Group != "" && c == v.sig.s.Group[0] {
			return bytes.Trim(text[:i], " "), bytes.TrimLeft(text[i+1:], " ")
		}
	}
	return bytes.Trim(text, " "), nil
}

// choose takes the algorithm that the request names, among those that the definition
// allows and not below the source's minimum.
func (v *Verifier) choose(word []byte, sc *scratch) string {
	for _, w := range v.words {
		if bytes.EqualFold(word, []byte(w.word)) { // an algorithm's name
			if w.alg < v.minAlg {
				return Policy
			}
			sc.alg = w.alg
			return ""
		}
	}
	return SignatureMalformed
}

// decode appends the signature's bytes to sc.sigs; nothing where it is not exactly of
// the scheme's prefix and encoding.
func (v *Verifier) decode(text []byte, sc *scratch) {
	if p := v.sig.s.Prefix; p != "" {
		if len(text) >= len(p) && string(text[:len(p)]) == p {
			text = text[len(p):]
		} else if !v.sig.s.Bare {
			return
		}
	}
	if sc.nsig >= v.sig.limit || len(text) == 0 || len(text) > maxSignatureText {
		return
	}
	n := len(sc.arena)
	var ok bool
	if sc.arena, ok = v.appendDecoded(sc.arena, text, v.sig.s.Encoding); !ok {
		return
	}
	if sc.nsig == len(sc.sigs) {
		sc.sigs = append(sc.sigs, nil)
	}
	sc.sigs[sc.nsig] = sc.arena[n:len(sc.arena):len(sc.arena)]
	sc.nsig++
}

// appendDecoded decodes strictly: no blanks, no line ends, no loose trailing bits.
func (v *Verifier) appendDecoded(dst, text []byte, encoding string) ([]byte, bool) {
	switch encoding {
	case "base64", "base64url":
		enc := v.b64
		if encoding == "base64url" {
			enc = v.b64url
		}
		if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
			return dst, false
		}
		n := len(dst)
		need := enc.DecodedLen(len(text))
		for cap(dst)-n < need {
			dst = append(dst[:cap(dst)], 0)
		}
		got, err := enc.Decode(dst[n:n+need], text)
		if err != nil || got == 0 {
			return dst[:n], false
		}
		return dst[:n+got], true
	}
	n := len(dst)
	if len(text)%2 != 0 {
		return dst, false
	}
	for i := 0; i < len(text); i += 2 {
		if !hexCase(text[i], encoding) || !hexCase(text[i+1], encoding) {
			return dst[:n], false
		}
		hi, lo := unhex(text[i]), unhex(text[i+1])
		if hi < 0 || lo < 0 {
			return dst[:n], false
		}
		dst = append(dst, byte(hi<<4|lo))
	}
	return dst, true
}

// hexCase holds a digit to the letter case of its encoding.
func hexCase(c byte, encoding string) bool {
	switch encoding {
	case "hex_lower":
		return c < 'A' || c > 'F'
	case "HEX":
		return c < 'a' || c > 'f'
	}
	return true
}

func cutByte(b []byte, c byte) (head, tail []byte) {
	if i := bytes.IndexByte(b, c); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}
