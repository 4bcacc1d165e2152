package verify

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// found is what a path led to.
type found uint8

const (
	foundAbsent    found = iota
	foundNull            // JSON null
	foundText            // a string, or the raw token of a number or a boolean
	foundDuplicate       // the name is there twice: two readers would read two things
	foundOther           // an object or an array
)

// load reads the body as the scheme wants it, once per verification: from its bytes, never
// by Content-Type, which providers get wrong.
func (v *Verifier) load(r *provider.Request, sc *scratch) bool {
	if sc.loaded {
		return sc.source != sourceNone
	}
	sc.loaded = true
	if v.s.JSONField != "" {
		if text, ok := provider.FormField(r, v.s.JSONField); ok {
			sc.loadJSON(text)
		}
		return sc.source != sourceNone
	}
	switch v.s.Body {
	case "json":
		sc.loadJSON(r.Body)
	case "xml":
		if text, err := provider.XMLToJSON(r.Body); err == nil {
			sc.loadJSON(text)
		}
	case "form":
		sc.loadForm(r.Body)
	case "query":
		if pairs, ok := sc.loadQuery(r); ok {
			sc.form, sc.source = append(sc.form[:0], pairs...), sourceForm
		}
	case "any":
		if len(r.Body) == 0 {
			if pairs, ok := sc.loadQuery(r); ok && len(pairs) > 0 {
				sc.form, sc.source = append(sc.form[:0], pairs...), sourceForm
			}
			break
		}
		fallthrough
	default:
		if b := bytes.TrimLeft(r.Body, " \t\r\n"); len(b) > 0 && (b[0] == '{' || b[0] == '[') {
			sc.loadJSON(r.Body)
		} else {
			sc.loadForm(r.Body)
		}
	}
	if sc.source == sourceForm && v.s.JSONInForm && len(sc.form) == 1 {
		for _, text := range [][]byte{sc.form[0].name, sc.form[0].value} {
			if len(text) > 0 && text[0] == '{' {
				sc.source = sourceNone
				sc.loadJSON(text)
				break
			}
		}
	}
	return sc.source != sourceNone
}

// loadJSON is strict first (json.Valid), then fast.
func (sc *scratch) loadJSON(text []byte) {
	if !json.Valid(text) {
		return
	}
	sc.parsed = max(sc.parsed, len(text))
	doc, err := sc.parser.ParseBytes(text)
	if err != nil {
		return
	}
	sc.doc, sc.source = doc, sourceJSON
}

func (sc *scratch) loadForm(text []byte) {
	var err error
	sc.form, sc.arena, err = parseForm(text, sc.form[:0], sc.arena)
	if err == nil && len(sc.form) > 0 {
		sc.source = sourceForm
	}
}

// loadQuery decodes the query of the raw target.
func (sc *scratch) loadQuery(r *provider.Request) ([]pair, bool) {
	if sc.queried {
		return sc.query, sc.queryOK
	}
	sc.queried = true
	_, q, _ := bytes.Cut(r.Target, []byte{'?'})
	var err error
	sc.query, sc.arena, err = parseForm(q, sc.query[:0], sc.arena)
	sc.queryOK = err == nil
	return sc.query, sc.queryOK
}

// lookup finds a signed value in the loaded document.
func (sc *scratch) lookup(path string) ([]byte, found) {
	switch sc.source {
	case sourceForm:
		value, n := find(sc.form, path)
		switch n {
		case 0:
			return nil, foundAbsent
		case 1:
			return value, foundText
		}
		return nil, foundDuplicate
	case sourceJSON:
		return sc.lookupJSON(sc.doc, path)
	}
	return nil, foundAbsent
}

func (sc *scratch) lookupJSON(v *fastjson.Value, path string) ([]byte, found) {
	v, f := walk(v, path)
	if f != foundText {
		return nil, f
	}
	return sc.text(v)
}

// text is a scalar's text: of a string what it says, of a number its raw token.
func (sc *scratch) text(v *fastjson.Value) ([]byte, found) {
	switch v.Type() {
	case fastjson.TypeNull:
		return nil, foundNull
	case fastjson.TypeString:
		b, err := v.StringBytes()
		if err != nil {
			return nil, foundOther
		}
		return b, foundText
	case fastjson.TypeNumber, fastjson.TypeTrue, fastjson.TypeFalse:
		n := len(sc.arena)
		sc.arena = v.MarshalTo(sc.arena)
		return sc.arena[n:len(sc.arena):len(sc.arena)], foundText
	}
	return nil, foundOther
}

// walk follows a dotted path. A name that stands twice at any step, even in another
// letter case, is a duplicate: some readers would take the other one.
func walk(v *fastjson.Value, path string) (*fastjson.Value, found) {
	for path != "" {
		step := path
		if i := indexByte(path, '.'); i >= 0 {
			step, path = path[:i], path[i+1:]
		} else {
			path = ""
		}
		switch v.Type() {
		case fastjson.TypeObject:
			o, err := v.Object()
			if err != nil {
				return nil, foundOther
			}
			var next *fastjson.Value
			same := 0
			o.Visit(func(k []byte, x *fastjson.Value) {
				if string(k) == step {
					next = x
				}
				if len(k) == len(step) && bytes.EqualFold(k, []byte(step)) {
					same++
				}
			})
			if next == nil {
				return nil, foundAbsent
			}
			if same > 1 {
				return nil, foundDuplicate
			}
			v = next
		case fastjson.TypeArray:
			i, err := strconv.Atoi(step)
			a, err2 := v.Array()
			if err != nil || err2 != nil || i < 0 || i >= len(a) {
				return nil, foundAbsent
			}
			v = a[i]
		default:
			return nil, foundAbsent
		}
	}
	return v, foundText
}

func indexByte(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
	}
	return -1
}
