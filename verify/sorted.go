package verify

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// jsonSorted writes the document as JavaScript's JSON.stringify does after the names of
// every object were sorted: no blanks, text unescaped but for what must be. Numbers stand as
// they came, and in the second spelling as JavaScript writes them (1.50 is 1.5). A name
// that stands twice in one object is refused: the sender has one of them.
func (v *Verifier) jsonSorted(r *provider.Request, sc *scratch, n int) ([]byte, string) {
	if !v.load(r, sc) || sc.source != sourceJSON {
		return nil, SignatureMalformed
	}
	w := sortedWriter{spell: n > 0}
	from := len(sc.arena)
	arena, ok := w.value(sc.arena, sc.doc)
	if !ok {
		return nil, SignatureMalformed
	}
	sc.arena = arena
	if n > 0 && !w.spelt {
		return nil, skipVariant
	}
	return sc.arena[from:len(sc.arena):len(sc.arena)], ""
}

type sortedWriter struct {
	spell bool // numbers as JavaScript writes them
	spelt bool // one of them was written otherwise than it came
}

func (w *sortedWriter) value(dst []byte, v *fastjson.Value) ([]byte, bool) {
	switch v.Type() {
	case fastjson.TypeObject:
		o, err := v.Object()
		if err != nil {
			return dst, false
		}
		return w.object(dst, o)
	case fastjson.TypeArray:
		list, err := v.Array()
		if err != nil {
			return dst, false
		}
		dst = append(dst, '[')
		for i, e := range list {
			if i > 0 {
				dst = append(dst, ',')
			}
			var ok bool
			if dst, ok = w.value(dst, e); !ok {
				return dst, false
			}
		}
		return append(dst, ']'), true
	case fastjson.TypeString:
		text, err := v.StringBytes()
		return appendJSString(dst, text), err == nil
	}
	from := len(dst)
	dst = v.MarshalTo(dst)
	if w.spell && v.Type() == fastjson.TypeNumber {
		f, err := strconv.ParseFloat(string(dst[from:]), 64)
		if err != nil {
			return dst, false
		}
		text, err := json.Marshal(f) // of a float64 it is JavaScript's own rule
		if err != nil {
			return dst, false
		}
		w.spelt = w.spelt || string(text) != string(dst[from:])
		dst = append(dst[:from], text...)
	}
	return dst, true
}

type member struct {
	name  []byte
	value *fastjson.Value
}

func (w *sortedWriter) object(dst []byte, o *fastjson.Object) ([]byte, bool) {
	list := make([]member, 0, o.Len())
	o.Visit(func(k []byte, v *fastjson.Value) { list = append(list, member{k, v}) })
	slices.SortFunc(list, func(a, b member) int { return compareNames(a.name, b.name) })
	dst = append(dst, '{')
	for i, m := range list {
		if i > 0 {
			if compareNames(m.name, list[i-1].name) == 0 {
				return dst, false
			}
			dst = append(dst, ',')
		}
		dst = append(appendJSString(dst, m.name), ':')
		var ok bool
		if dst, ok = w.value(dst, m.value); !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

// compareNames is the order of a JavaScript object whose members were put in sorted:
// names that are array indexes come first and by their number, whoever sorts.
func compareNames(a, b []byte) int {
	x, isX := arrayIndex(a)
	y, isY := arrayIndex(b)
	switch {
	case isX && isY:
		return int(x - y)
	case isX:
		return -1
	case isY:
		return 1
	}
	return strings.Compare(string(a), string(b))
}

func arrayIndex(name []byte) (int64, bool) {
	n, ok := digits(name)
	if !ok || len(name) > 1 && name[0] == '0' || n >= 1<<32-1 {
		return 0, false
	}
	return n, true
}

// appendJSString quotes as JSON.stringify does: only what must be is escaped, in lower
// case, and a slash is not.
func appendJSString(dst, text []byte) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		default:
			if at := bytes.IndexByte([]byte("\b\t\n\f\r"), c); at >= 0 {
				dst = append(dst, '\\', "btnfr"[at])
				break
			}
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"')
}
