package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"penstock/provider"
)

// change is one way in which a body is altered: back gives what the sender signed, nil
// where that cannot be.
type change struct {
	hint string
	back func([]byte) []byte
}

// maxTried bounds the bodies that are put together anew in every combination.
const maxTried = 256 << 10

// bodyHints tries what usually happens to a body on the way and names what would have
// verified: first single changes, then, for JSON, all that a re-serialisation does at once.
func (v *Verifier) bodyHints(r *provider.Request, now time.Time, add addHint) {
	if len(r.Body) == 0 || v.s.Each != "" {
		return
	}
	try := func(body []byte) bool {
		if body == nil || bytes.Equal(body, r.Body) {
			return false
		}
		changed := *r
		changed.Body = body
		return v.holds(&changed, now)
	}
	found := 0
	for _, list := range [][]change{endChanges, textChanges, shapeChanges, escapeChanges, formChanges} {
		for _, c := range list {
			if found < 2 && try(c.back(r.Body)) {
				add("it verifies %s", c.hint)
				found++
			}
		}
	}
	if found > 0 || len(r.Body) > maxTried || !json.Valid(r.Body) {
		return
	}
	same := change{"", func(b []byte) []byte { return b }}
	for _, shape := range append([]change{same}, shapeChanges...) {
		for _, escape := range append([]change{same}, escapeChanges...) {
			body := escape.back(shape.back(r.Body))
			for _, end := range append([]change{same}, endChanges...) {
				if body != nil && try(end.back(body)) {
					add("it verifies %s", joinHints(shape.hint, escape.hint, end.hint))
					return
				}
			}
		}
	}
}

func joinHints(hints ...string) string {
	var out []string
	for _, h := range hints {
		if h != "" {
			out = append(out, h)
		}
	}
	return strings.Join(out, "; and ")
}

var endChanges = []change{
	{"with the blanks at the end cut off: something on the way appended a newline", func(b []byte) []byte { return bytes.TrimRight(b, " \t\r\n") }},
	{"with a newline at the end: something on the way trimmed the body", func(b []byte) []byte { return append(bytes.Clone(b), '\n') }},
	{"with CRLF at the end: something on the way trimmed the body", func(b []byte) []byte { return append(bytes.Clone(b), "\r\n"...) }},
	{"with the blanks in front cut off: something on the way put them there", func(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }},
}

var bom = []byte("\xef\xbb\xbf")

var textChanges = []change{
	{"without the byte order mark: something on the way put one in front", func(b []byte) []byte { return bytes.TrimPrefix(b, bom) }},
	{"with a byte order mark in front: something on the way took it off", func(b []byte) []byte { return append(bytes.Clone(bom), b...) }},
	{"with line ends LF instead of CRLF: something on the way converted the text", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }},
	{"with line ends CRLF instead of LF: something on the way converted the text", func(b []byte) []byte {
		return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	}},
	{"in the charset ISO-8859-1: something on the way converted the body to UTF-8, or encoded UTF-8 twice; pass the bytes on as they are", toLatin1},
	{"in the charset UTF-8: something on the way converted the body to ISO-8859-1; pass the bytes on as they are", fromLatin1},
}

// toLatin1 gives nil where a letter has no place in that charset.
func toLatin1(b []byte) []byte {
	if !utf8.Valid(b) {
		return nil
	}
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		if r > 0xff {
			return nil
		}
		out = append(out, byte(r))
	}
	return out
}

func fromLatin1(b []byte) []byte {
	out := make([]byte, 0, len(b)+16)
	for _, c := range b {
		out = utf8.AppendRune(out, rune(c))
	}
	return out
}

// rewritten is who re-serialises bodies, in words that every hint of this kind shares.
const rewritten = "something on the way parsed the JSON and wrote it anew (a body parser, an API gateway's mapping): pass the raw body on"

var shapeChanges = []change{
	{"as compact JSON: the body was re-serialised (pretty-printed); " + rewritten, func(b []byte) []byte {
		var out bytes.Buffer
		if json.Compact(&out, b) != nil {
			return nil
		}
		return out.Bytes()
	}},
	{"as JSON indented by two spaces: the body was re-serialised (compacted); " + rewritten, indented("  ")},
	{"as JSON indented by four spaces: the body was re-serialised (compacted); " + rewritten, indented("    ")},
	{"as JSON indented by tabs: the body was re-serialised (compacted); " + rewritten, indented("\t")},
	{"as JSON with a blank after every colon and comma (as Python writes it): the body was re-serialised; " + rewritten, spaced},
	{"with the keys in alphabetical order: the body was re-serialised and the key order changed; " + rewritten, sortedKeys},
	{"with the keys in alphabetical order and blanks after colon and comma: the body was re-serialised and the key order changed; " + rewritten, func(b []byte) []byte { return spaced(sortedKeys(b)) }},
}

func indented(by string) func([]byte) []byte {
	return func(b []byte) []byte {
		var out bytes.Buffer
		if json.Indent(&out, bytes.TrimSpace(b), "", by) != nil {
			return nil
		}
		return out.Bytes()
	}
}

// outside calls f for every byte of JSON text that stands outside of its strings.
func outside(b []byte, out func(c byte, inside bool)) {
	inside, escaped := false, false
	for _, c := range b {
		switch {
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
			out(c, true)
			continue
		}
		out(c, inside)
	}
}

func spaced(b []byte) []byte {
	var compact bytes.Buffer
	if b == nil || json.Compact(&compact, b) != nil {
		return nil
	}
	var out []byte
	outside(compact.Bytes(), func(c byte, inside bool) {
		out = append(out, c)
		if !inside && (c == ':' || c == ',') {
			out = append(out, ' ')
		}
	})
	return out
}

func sortedKeys(b []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var doc any
	if d.Decode(&doc) != nil {
		return nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(doc) != nil {
		return nil
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}

var escapeChanges = []change{
	{"with letters beyond ASCII as \\u escapes in lower case: something on the way wrote them out; " + rewritten, func(b []byte) []byte { return escapeLetters(b, "%04x") }},
	{"with letters beyond ASCII as \\u escapes in upper case: something on the way wrote them out; " + rewritten, func(b []byte) []byte { return escapeLetters(b, "%04X") }},
	{"with \\u escapes written out as letters: something on the way escaped them; " + rewritten, unescapeLetters},
	{"with slashes as \\/ (as PHP writes them): something on the way wrote them plain; " + rewritten, func(b []byte) []byte {
		return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte(`\/`), []byte("/")), []byte("/"), []byte(`\/`))
	}},
	{"with plain slashes instead of \\/: something on the way (PHP's json_encode?) escaped them; " + rewritten, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`\/`), []byte("/")) }},
	{"with plain < > &: something on the way (Go's json.Marshal?) escaped them as \\u003c; " + rewritten, func(b []byte) []byte {
		return []byte(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(b)))
	}},
	{"with < > & as \\u003c: something on the way wrote them out; " + rewritten, func(b []byte) []byte {
		return []byte(strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(string(b)))
	}},
}

func escapeLetters(b []byte, format string) []byte {
	if !utf8.Valid(b) {
		return nil
	}
	var out strings.Builder
	for _, r := range string(b) {
		switch {
		case r < utf8.RuneSelf:
			out.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u`+format+`\u`+format, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u`+format, r)
		}
	}
	return []byte(out.String())
}

// unescapeLetters writes \u escapes beyond ASCII as the letters that they are.
func unescapeLetters(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); {
		n := 0
		for _, width := range []int{12, 6} { // a pair of surrogates first
			if i+width <= len(b) && b[i] == '\\' && b[i+1] == 'u' {
				if s, err := strconv.Unquote(`"` + string(b[i:i+width]) + `"`); err == nil && utf8.RuneCountInString(s) == 1 && s[0] >= utf8.RuneSelf {
					out, n = append(out, s...), width
					break
				}
				var s string
				if json.Unmarshal([]byte(`"`+string(b[i:i+width])+`"`), &s) == nil && utf8.RuneCountInString(s) == 1 && s[0] >= utf8.RuneSelf && s != "\ufffd" {
					out, n = append(out, s...), width
					break
				}
			}
		}
		if n == 0 {
			out, n = append(out, b[i]), 1
		}
		i += n
	}
	return out
}

const formWriter = "something on the way parsed the form and wrote it anew: pass the raw body on"

var formChanges = []change{
	{"with blanks of the form as +: they were re-encoded as %20; " + formWriter, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("%20"), []byte("+")) }},
	{"with blanks of the form as %20: they were re-encoded as +; " + formWriter, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("+"), []byte("%20")) }},
	{"with the form's escapes in lower case (%2f): they were re-encoded in upper case; " + formWriter, func(b []byte) []byte { return escapeCase(b, bytes.ToLower) }},
	{"with the form's escapes in upper case (%2F): they were re-encoded in lower case; " + formWriter, func(b []byte) []byte { return escapeCase(b, bytes.ToUpper) }},
	{"with the form's fields in alphabetical order: their order was changed (re-encoded); " + formWriter, func(b []byte) []byte {
		parts := strings.Split(string(b), "&")
		sort.Strings(parts)
		return []byte(strings.Join(parts, "&"))
	}},
}

func escapeCase(b []byte, to func([]byte) []byte) []byte {
	if !bytes.Contains(b, []byte("=")) {
		return nil
	}
	out := bytes.Clone(b)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i+1:], to(out[i+1:i+3]))
		}
	}
	return out
}

// bodyMarks are signs of an altered body whose original cannot be made again.
func (v *Verifier) bodyMarks(r *provider.Request, add addHint) {
	if !v.signs("body") && v.kind != primStandard {
		return
	}
	if text, n := r.Header.Get("Content-Length"); n == 1 {
		if want, err := strconv.Atoi(string(text)); err == nil && want != len(r.Body) {
			add("Content-Length says %d bytes and the body has %d: it was altered after it was sent", want, len(r.Body))
		}
	}
	if bytes.Contains(r.Body, []byte("\ufffd")) {
		add("the body holds replacement characters (U+FFFD): something on the way decoded it in a wrong charset, and what it was is lost")
	}
	if text, n := r.Header.Get("Content-Encoding"); n == 1 && bytes.EqualFold(text, []byte("gzip")) && !bytes.HasPrefix(r.Body, []byte{0x1f, 0x8b}) {
		add("Content-Encoding says gzip and the body is plain: a proxy decompressed it, and many providers sign the compressed bytes")
	}
	if b := bytes.TrimSpace(r.Body); len(b) > 0 && b[0] == '{' && !bytes.Equal(spaced(b), b) {
		if s := sortedKeys(b); s != nil && bytes.Equal(s, b) && bytes.Count(b, []byte(`":`)) >= 6 {
			add("every object's keys stand in alphabetical order: it looks re-serialised by something that sorts keys, and the order that was signed is lost; pass the raw body on")
		}
	}
}
