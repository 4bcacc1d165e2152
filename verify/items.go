package verify

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// skipField says that a field is left out together with its separator.
const skipField = "\x00skip field"

// maxItems bounds the elements of a list that are verified one by one.
const maxItems = 10000

// checkItems is Scheme.Each: every element of the list carries its own signature over its
// own fields. One that fails refuses the delivery, and so does a list without elements.
func (v *Verifier) checkItems(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	if !v.load(r, sc) || sc.source != sourceJSON {
		return "", SignatureMissing
	}
	list, f := walk(sc.doc, v.s.Each)
	if f != foundText || list.Type() != fastjson.TypeArray {
		return "", SignatureMissing
	}
	items, err := list.Array()
	if err != nil || len(items) == 0 {
		return "", SignatureMissing
	}
	if len(items) > maxItems {
		return "", Policy
	}
	whole := sc.doc
	defer func() { sc.doc = whole }()
	for _, item := range items {
		sc.doc, sc.nsig = item, 0
		if by, reason = v.checkSigned(r, now, sc); reason != "" {
			return "", reason
		}
	}
	return by, ""
}

// firstItem makes the first element the document, where each carries its own signature:
// an explanation is of that one.
func (v *Verifier) firstItem(r *provider.Request, sc *scratch) {
	if v.s.Each == "" || !v.load(r, sc) || sc.source != sourceJSON {
		return
	}
	if list, f := walk(sc.doc, v.s.Each); f == foundText {
		if items, err := list.Array(); err == nil && len(items) > 0 {
			sc.doc = items[0]
		}
	}
}

// signItems signs every element.
func (v *Verifier) signItems(r *provider.Request) error {
	doc, err := fastjson.ParseBytes(r.Body)
	if err != nil {
		return fmt.Errorf("%s: sign: the body is no JSON: %w", v.name, err)
	}
	items := doc.GetArray(strings.Split(v.s.Each, ".")...)
	if len(items) == 0 {
		return fmt.Errorf("%s: sign: the body has no list %s", v.name, v.s.Each)
	}
	for _, item := range items {
		for i := range v.merchants {
			if m := &v.merchants[i]; m.c.Inside == "" {
				if err := setJSON(item, m.c.Field, m.values[0]); err != nil {
					return err
				}
			}
		}
		sc := &scratch{doc: item, source: sourceJSON, loaded: true, alg: v.alg}
		if reason := v.message(r, sc, 0); reason != "" {
			return fmt.Errorf("%s: cannot sign this request (%s): the signed fields are not all there", v.name, reason)
		}
		sig, err := v.signature(sc)
		if err != nil {
			return err
		}
		if err := setJSON(item, v.s.Signature.Field, encode(sig, v.s.Signature.Encoding)); err != nil {
			return err
		}
	}
	r.Body = doc.MarshalTo(nil)
	if _, n := r.Header.Get("Content-Type"); n == 0 {
		r.Header = setHeader(r.Header, "Content-Type", "application/json")
	}
	return nil
}

// markKey puts the place of the secret among the parts. What stands there is for people.
func (sc *scratch) markKey() {
	sc.parts = append(sc.parts, sc.keep("<key>"))
	sc.keyAt = len(sc.parts)
}

func (sc *scratch) between(separator []byte, joined bool) {
	if joined && len(separator) > 0 {
		sc.parts = append(sc.parts, separator)
	}
}

// allFields appends what {all} stands for. A name that is there twice is refused: two
// readers would read two things.
func (v *Verifier) allFields(r *provider.Request, sc *scratch) string {
	if !v.load(r, sc) {
		return SignatureMalformed
	}
	a := v.s.All
	list, ok := sc.topFields(a)
	if !ok {
		return SignatureMalformed
	}
	if a.KeyAs != "" {
		for _, p := range list {
			if string(p.name) == a.KeyAs {
				return SignatureMalformed // the sender does not send its secret
			}
		}
		list = append(list, pair{name: []byte(a.KeyAs)})
	}
	slices.SortFunc(list, func(x, y pair) int { return strings.Compare(string(x.name), string(y.name)) })
	first := true
	for i, p := range list {
		if i > 0 && strings.EqualFold(string(p.name), string(list[i-1].name)) {
			return SignatureMalformed
		}
		isKey := a.KeyAs != "" && string(p.name) == a.KeyAs
		if a.SkipEmpty && len(p.value) == 0 && !isKey {
			continue
		}
		n := len(sc.arena)
		if !first {
			sc.arena = append(sc.arena, a.Separator...)
		}
		first = false
		sc.arena = append(sc.arena, a.Lead...)
		if a.Pair != "value" {
			sc.arena = appendEncoded(sc.arena, p.name, a.Encode)
			if a.Pair != "namevalue" {
				sc.arena = append(sc.arena, '=')
			}
		}
		if isKey {
			sc.parts = append(sc.parts, sc.arena[n:len(sc.arena):len(sc.arena)])
			sc.markKey()
			continue
		}
		sc.arena = appendEncoded(sc.arena, p.value, a.Encode)
		sc.parts = append(sc.parts, sc.arena[n:len(sc.arena):len(sc.arena)])
	}
	return ""
}

// topFields are the scalar fields at the top of the document that {all} takes.
func (sc *scratch) topFields(a *provider.AllFields) (list []pair, ok bool) {
	if sc.source == sourceForm {
		for _, p := range sc.form {
			if a.Takes(string(p.name)) {
				list = append(list, p)
			}
		}
		return list, true
	}
	o, err := sc.doc.Object()
	if err != nil {
		return nil, false
	}
	o.Visit(func(k []byte, x *fastjson.Value) {
		if !a.Takes(string(k)) {
			return
		}
		if text, f := sc.text(x); f == foundText {
			list = append(list, pair{name: k, value: text})
		}
	})
	return list, true
}

// appendEncoded appends text as it is, or as PHP's urlencode writes it: letters, digits
// and -_. stand for themselves, a blank is "+".
func appendEncoded(dst, text []byte, encode string) []byte {
	if encode != "php" {
		return append(dst, text...)
	}
	const hexDigits = "0123456789ABCDEF"
	for _, c := range text {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			dst = append(dst, c)
		case c == ' ':
			dst = append(dst, '+')
		default:
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// base64Without is the base64 of the body's text with one member of its object cut out,
// as a sender has it before it adds the signature. The rest stays byte for byte: nobody
// else writes JSON exactly as the sender's language does.
func (v *Verifier) base64Without(name string, r *provider.Request, sc *scratch) ([]byte, string) {
	if !v.load(r, sc) || sc.source != sourceJSON {
		return nil, SignatureMalformed
	}
	if _, f := sc.lookup(name); f != foundText {
		return nil, SignatureMissing
	}
	from, to, ok := memberSpan(r.Body, name)
	if !ok {
		return nil, SignatureMalformed
	}
	n := len(sc.arena)
	sc.arena = append(append(sc.arena, r.Body[:from]...), r.Body[to:]...)
	text := sc.arena[n:len(sc.arena):len(sc.arena)]
	n = len(sc.arena)
	sc.arena = base64.StdEncoding.AppendEncode(sc.arena, text)
	return sc.arena[n:len(sc.arena):len(sc.arena)], ""
}

// memberSpan finds a member of the outermost object, with the comma that parts it from
// its neighbour. The text is valid JSON and has the name once.
func memberSpan(b []byte, name string) (from, to int, ok bool) {
	depth, comma, start, found := 0, -1, -1, false
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			end := i + 1
			for end < len(b) && b[end] != '"' {
				if b[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(b) {
				return 0, 0, false
			}
			if depth == 1 && start >= 0 && !found && string(b[i+1:end]) == name {
				if from = start; comma >= 0 {
					from = comma
				}
				found = true
			}
			start = -1
			i = end
		case '{', '[':
			if depth++; depth == 1 {
				start = i + 1
			}
		case '}', ']':
			if depth--; depth == 0 && found {
				return from, i, true
			}
		case ',':
			if depth != 1 {
				continue
			}
			if found {
				if comma < 0 { // the first member: its comma stands behind it
					return from, i + 1, true
				}
				return from, i, true
			}
			comma, start = i, i+1
		}
	}
	return 0, 0, false
}

// hasSyntax holds a signed value to what it must look like, so that joined text has one
// reading only. Empty fits where the definition allows an empty value at all.
func hasSyntax(b []byte, syntax string) bool {
	switch syntax {
	case "bool":
		return len(b) == 0 || string(b) == "true" || string(b) == "false"
	case "digits":
		for _, c := range b {
			if c < '0' || c > '9' {
				return false
			}
		}
		return len(b) <= 32
	case "word":
		for _, c := range b {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte("-_.", c) < 0 {
				return false
			}
		}
		return true
	}
	const layout = "2006-01-02T15:04:05"
	if len(b) < len(layout) {
		return false
	}
	_, err := time.Parse(layout, string(b[:len(layout)]))
	return err == nil
}

// ackTemplate makes {name} a field piece.
func ackTemplate(body string) string { return strings.ReplaceAll(body, "{", "{form:") }

// ackWithFields writes signed fields into the answer. What is not a plain word is left
// out, so that no answer carries markup or JSON out of a request.
func (v *Verifier) ackWithFields(r *provider.Request, sc *scratch) Reply {
	reply := v.ack
	reply.Body = nil
	v.load(r, sc)
	for _, p := range v.ackFields {
		if p.Kind == "" {
			reply.Body = append(reply.Body, p.Arg...)
			continue
		}
		if val, f := sc.lookup(p.Arg); f == foundText && len(val) <= 64 && hasSyntax(val, "word") {
			reply.Body = append(reply.Body, val...)
		}
	}
	return reply
}
