package provider

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// redacted stands in the place of a secret field.
const redacted = `"[redacted]"`

// maxListed bounds the paths that an event lists as masked; everything is masked.
const maxListed = 1000

// strictJSON: what is put into the event unchanged must be JSON for everybody, and JSON
// is UTF-8 (RFC 8259 section 8.1), which json.Valid does not look at.
func strictJSON(b []byte) bool {
	s := scanner{b: b}
	return s.whole(nil) == nil && utf8.Valid(b)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// maybePAN finds out fast that there is no card number: nowhere 13 digits in a row, with
// single blanks or hyphens among them.
func maybePAN(b []byte) bool {
	return longRun(b, 0) >= 0 || bytes.Contains(b, []byte(`\u003`)) // digits written as escapes
}

// longRun looks, from i on, for 13 digits, blanks and hyphens in a row and gives where they
// end; -1: there are none. It looks at every 13th byte and at what is around a hit.
func longRun(b []byte, i int) int {
	for i += 12; i < len(b); {
		j := i
		for j > i-13 && runOn(b[j]) {
			j--
		}
		if j == i-13 {
			return i + 1
		}
		i = j + 13
	}
	return -1
}

func runOn(c byte) bool { return digit(c) || c == ' ' || c == '-' }

// mayHide says that the JSON text b has to be searched token by token for card numbers.
// Clocks in milliseconds, long ids and indentation make many a text look like one that holds
// a card: a look at those places spares it the walk, half of what reading an event costs.
// Where something is escaped, a token is not what stands there.
func mayHide(b []byte) bool {
	if !maybePAN(b) {
		return false
	}
	if bytes.IndexByte(b, '\\') >= 0 {
		return true
	}
	for end := longRun(b, 0); end >= 0; end = longRun(b, end) {
		i := end - 13
		for i > 0 && runOn(b[i-1]) {
			i--
		}
		for end < len(b) && runOn(b[end]) {
			end++
		}
		for i < end {
			if digit(b[i]) && (i == 0 || !glued(b, i)) {
				if _, _, ok := findPAN(b, i); ok {
					return true
				}
			}
			for i < end && digit(b[i]) {
				i++
			}
			for i < end && !digit(b[i]) {
				i++
			}
		}
	}
	return false
}

// holdsPAN: an id of many digits is still the provider's id unless they are a card number.
func holdsPAN(b []byte) bool {
	if !maybePAN(b) {
		return false
	}
	_, ok := maskPANs(b)
	return ok
}

// MaskCards hides the middle of every card number in a text that no definition speaks of.
func MaskCards(s string) string {
	if hidden, ok := maskPANs([]byte(s)); ok {
		return string(hidden)
	}
	return s
}

// maskPANs hides the middle of every card number in b, in a copy.
func maskPANs(b []byte) ([]byte, bool) {
	var out []byte
	for i := 0; i < len(b); {
		if !digit(b[i]) || i > 0 && glued(b, i) {
			i++
			continue
		}
		if from, to, ok := findPAN(b, i); ok {
			if out == nil {
				out = append([]byte(nil), b...)
			}
			hide(out[from:to])
			i = to
			continue
		}
		for i < len(b) && digit(b[i]) {
			i++
		}
	}
	return out, out != nil
}

// glued: a digit that belongs to a word (a hash, an id) or to a decimal number.
func glued(b []byte, i int) bool {
	c := b[i-1]
	return word(c) || c == '.' && i > 1 && digit(b[i-2])
}

func word(c byte) bool {
	return digit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

// findPAN looks from i, the start of a group of digits, to the ends of the groups that
// follow after single separators, 19 digits far.
func findPAN(b []byte, i int) (from, to int, ok bool) {
	var num [19]byte
	n := 0
	for j := i; j < len(b); j++ {
		if !digit(b[j]) {
			if b[j] != ' ' && b[j] != '-' || j+1 == len(b) || !digit(b[j+1]) {
				return 0, 0, false
			}
			continue
		}
		if n == len(num) {
			return 0, 0, false
		}
		num[n] = b[j]
		n++
		if j+1 < len(b) && digit(b[j+1]) {
			continue
		}
		last := j+1 == len(b) || !word(b[j+1]) && (b[j+1] != '.' || j+2 == len(b) || !digit(b[j+2]))
		if last && n >= 13 && cardPrefix(num[:n]) && luhn(num[:n]) {
			return i, j + 1, true
		}
	}
	return 0, 0, false
}

// hide keeps the first six and the last four digits.
func hide(b []byte) {
	total := 0
	for _, c := range b {
		if digit(c) {
			total++
		}
	}
	n := 0
	for i, c := range b {
		if digit(c) {
			if n >= 6 && n < total-4 {
				b[i] = '*'
			}
			n++
		}
	}
}

func luhn(num []byte) bool {
	sum := 0
	for i := range num {
		d := int(num[len(num)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// cardPrefix: one number in ten satisfies Luhn, so a millisecond clock or an order number
// would be taken for a card every few seconds. The issuer ranges of ISO/IEC 7812 and the
// lengths they come in tell most of them apart.
func cardPrefix(num []byte) bool {
	p := 0
	for _, c := range num[:4] {
		p = p*10 + int(c-'0')
	}
	n := len(num)
	switch {
	case p/1000 == 4: // Visa; its 13 digits are history, and today they are ids
		return n == 16 || n == 19
	case p/100 >= 51 && p/100 <= 55, p >= 2221 && p <= 2720: // Mastercard
		return n == 16
	case p/100 == 34, p/100 == 37: // American Express
		return n == 15
	case p/10 >= 300 && p/10 <= 305, p/100 == 36, p/100 == 38, p/100 == 39, p == 3095: // Diners
		return n == 14 || n == 16
	case p/100 == 65, p/100 == 60, p/100 == 81, p/100 == 82, p/10 >= 644 && p/10 <= 649, p == 9792: // Discover, RuPay, Troy
		return n == 16
	case p >= 3528 && p <= 3589, p >= 2200 && p <= 2204, // JCB, Mir
		p/100 == 50, p/100 >= 56 && p/100 <= 58, p/100 == 62, p/100 == 63, p/100 == 67, p/100 == 68: // Maestro, UnionPay
		return n >= 16
	}
	return false
}

// cover hides card numbers and secret fields in the JSON text b, each in its place. It
// gives b itself where nothing had to be hidden.
func (c *reading) cover(b []byte) []byte {
	pans := mayHide(b)
	if !pans && !c.d.prog.hidden {
		return b
	}
	if !pans && c.scanned && len(b) == len(c.doc) && &b[0] == &c.doc[0] {
		return c.coverSpans(b)
	}
	var out []byte
	done := 0
	put := func(from, to int, path, with []byte) {
		if out == nil {
			out = make([]byte, 0, len(b)+64)
		}
		out = append(append(out, b[done:from]...), with...)
		done = to
		c.listMasked(string(path))
	}
	s := scanner{b: b}
	s.secret = func(from, to int, path []byte) {
		if string(b[from:to]) != "null" && string(b[from:to]) != `""` {
			put(from, to, path, []byte(redacted))
		}
	}
	if pans {
		s.scalar = func(from, to int, path []byte) {
			if with, ok := coverScalar(b[from:to]); ok {
				put(from, to, path, with)
			}
		}
	}
	if err := s.value(c.d.prog.secrets); err != nil {
		c.problem("the payload could not be searched for what has to be hidden")
		return nil
	}
	if out == nil {
		return b
	}
	return append(out, b[done:]...)
}

// coverSpans hides the secret fields that were found when the document was opened. It is
// apart from the walk because that one's closures cost seven allocations.
func (c *reading) coverSpans(b []byte) []byte {
	var out []byte
	done := 0
	for i := range c.spans {
		sp := &c.spans[i]
		if v := b[sp.from:sp.to]; string(v) == "null" || string(v) == `""` {
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(b)+64)
		}
		out = append(append(out, b[done:sp.from]...), redacted...)
		done = sp.to
		c.listMasked(sp.path)
	}
	if out == nil {
		return b
	}
	return append(out, b[done:]...)
}

func (c *reading) listMasked(path string) {
	if len(c.masked) < maxListed {
		c.masked = append(c.masked, strings.ToValidUTF8(path, "\uFFFD"))
	}
}

// minBarePAN is the least length of a bare JSON number that is looked at: cards stand in
// strings, and numbers of 13 and 14 digits are the ids of the large shops.
const minBarePAN = 15

func coverScalar(token []byte) ([]byte, bool) {
	if token[0] != '"' {
		if len(token) < minBarePAN {
			return nil, false
		}
		if with, ok := maskPANs(token); ok {
			return appendJSONString(nil, with), true
		}
		return nil, false
	}
	inside := token[1 : len(token)-1]
	if bytes.IndexByte(inside, '\\') < 0 {
		with, ok := maskPANs(inside)
		if !ok {
			return nil, false
		}
		return append(append([]byte{'"'}, with...), '"'), true
	}
	var p fastjson.Parser
	v, err := p.ParseBytes(token)
	if err != nil {
		return nil, false
	}
	plain, err := v.StringBytes()
	if err != nil {
		return nil, false
	}
	if with, ok := maskPANs(plain); ok {
		return appendJSONString(nil, with), true
	}
	return nil, false
}
