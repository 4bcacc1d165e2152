package provider

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/valyala/fastjson"
)

// Ref is one place in a delivery, as a definition writes it:
//
//	data.object.id      a member of the item (the document, where there are no items)
//	.type               the same; the dot tells it from the word "type" in a condition
//	lines.0.id          an element of an array; -1 is the last
//	properties[name=PAYMENT_ID].value   the element whose member has that value
//	"a.b".c             a name with a dot in it
//	$.object            from the document's root
//	^.id                from the element that holds the innermost array of the items
//	header:X-Topic  query:id  form:data   outside of the document
//	claim:jti           of the signed token that came with it (scheme jwt)
//	name:*_events       the name of the document's first member that fits; name:!id that does not
//	order.{order.status}                  a text with places in braces
type Ref struct {
	text  string
	root  rootKind
	name  string // of a header, query or form field
	steps []step
	parts []part // of a text with places
	slot  int    // see capture.go; 0 = none
}

type rootKind uint8

const (
	rootItem rootKind = iota
	rootDoc
	rootParent
	rootHeader
	rootQuery
	rootForm
	rootName
	rootClaim
	rootTemplate
)

// step is one member (key), one element (index) or the first element whose member key
// equals val. star stands in the paths of items only.
type step struct {
	key      string
	index    int
	selector string
	isIndex  bool
	star     bool
}

type part struct {
	text string
	ref  *Ref
}

// String is the place as it was written.
func (r Ref) String() string { return r.text }

// IsZero says that no place is named.
func (r Ref) IsZero() bool { return r.text == "" }

// MarshalYAML writes the place's text.
func (r Ref) MarshalYAML() (any, error) { return r.text, nil }

// UnmarshalYAML reads and checks a place.
func (r *Ref) UnmarshalYAML(node ast.Node) error {
	s, ok := scalar(node)
	if !ok {
		return placeAt(node.GetToken(), "a place in the delivery is wanted here, such as data.object.id (inside brackets or braces one with a colon needs quotes)")
	}
	p, err := parseRef(s)
	if err != nil {
		return placeAt(node.GetToken(), "%s", err)
	}
	*r = p
	return nil
}

const maxSteps = 16

func parseRef(s string) (Ref, error) {
	r := Ref{text: s}
	switch {
	case s == "":
		return r, errors.New("an empty path")
	case strings.ContainsRune(s, '{'):
		parts, err := parseTemplate(s)
		r.root, r.parts = rootTemplate, parts
		return r, err
	}
	for prefix, root := range map[string]rootKind{"header:": rootHeader, "query:": rootQuery, "form:": rootForm, "name:": rootName, "claim:": rootClaim} {
		if name, ok := strings.CutPrefix(s, prefix); ok {
			if name == "" || strings.ContainsAny(name, " \t\r\n") {
				return r, fmt.Errorf("bad path %q: a name is wanted after %q", s, prefix)
			}
			r.root, r.name = root, name
			return r, nil
		}
	}
	rest := s
	switch {
	case strings.HasPrefix(s, "$"):
		r.root, rest = rootDoc, s[1:]
	case strings.HasPrefix(s, "^"):
		r.root, rest = rootParent, s[1:]
	}
	rest = strings.TrimPrefix(rest, ".")
	steps, err := parseSteps(rest)
	if err != nil {
		return r, fmt.Errorf("bad path %q: %w", s, err)
	}
	if len(steps) == 0 && r.root == rootItem {
		return r, fmt.Errorf("bad path %q", s)
	}
	r.steps = steps
	return r, nil
}

func parseTemplate(s string) ([]part, error) {
	var parts []part
	for rest := s; rest != ""; {
		i := strings.IndexByte(rest, '{')
		if i < 0 {
			if strings.IndexByte(rest, '}') >= 0 {
				return nil, fmt.Errorf("bad path %q: a brace closes that was not opened", s)
			}
			return append(parts, part{text: rest}), nil
		}
		j := strings.IndexByte(rest, '}')
		if j < i {
			return nil, fmt.Errorf("bad path %q: braces do not pair", s)
		}
		inner, err := parseRef(rest[i+1 : j])
		if err != nil {
			return nil, err
		}
		if inner.root == rootTemplate {
			return nil, fmt.Errorf("bad path %q: braces within braces", s)
		}
		if i > 0 {
			parts = append(parts, part{text: rest[:i]})
		}
		parts = append(parts, part{ref: &inner})
		rest = rest[j+1:]
	}
	return parts, nil
}

// parseSteps reads "a.0.b[k=v].c". Names with other characters stand in quotes.
func parseSteps(s string) ([]step, error) {
	var steps []step
	for s != "" {
		if len(steps) == maxSteps {
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
		st, rest, err := parseStep(s)
		if err != nil {
			return nil, err
		}
		steps = append(steps, st)
		switch {
		case rest == "":
			return steps, nil
		case rest[0] == '[':
			s = rest
		case rest[0] == '.' && len(rest) > 1:
			s = rest[1:]
		default:
			return nil, fmt.Errorf("nothing follows at %q", rest)
		}
	}
	return steps, nil
}

func parseStep(s string) (step, string, error) {
	switch s[0] {
	case '"':
		end := strings.IndexByte(s[1:], '"')
		if end <= 0 {
			return step{}, "", errors.New("a quote is not closed")
		}
		return step{key: s[1 : end+1]}, s[end+2:], nil
	case '[':
		end := strings.IndexByte(s, ']')
		key, val, ok := strings.Cut(s[1:max(end, 1)], "=")
		if end < 0 || !ok || key == "" || val == "" {
			return step{}, "", errors.New("a selector is written [name=value]")
		}
		return step{key: key, selector: val}, s[end+1:], nil
	}
	end := strings.IndexAny(s, ".[")
	if end < 0 {
		end = len(s)
	}
	name := s[:end]
	if name == "" || strings.ContainsAny(name, " \t\r\n\"]}=|,") {
		return step{}, "", fmt.Errorf("%q is no name; put one with such characters in double quotes", name)
	}
	if name == "*" {
		return step{star: true}, s[end:], nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= -1 && n < 1<<16 {
		return step{key: name, index: n, isIndex: true}, s[end:], nil
	}
	return step{key: name}, s[end:], nil
}

func (r Ref) hasStar() bool {
	for _, s := range r.steps {
		if s.star {
			return true
		}
	}
	return false
}

// ofItem says that the place may differ from item to item.
func (r *Ref) ofItem() bool {
	for _, p := range r.parts {
		if p.ref != nil && p.ref.ofItem() {
			return true
		}
	}
	return r.root == rootItem || r.root == rootParent
}

// walk follows steps from v; nil when there is nothing.
func walk(v *fastjson.Value, steps []step) *fastjson.Value {
	for i := range steps {
		if v == nil {
			return nil
		}
		s := &steps[i]
		switch v.Type() {
		case fastjson.TypeObject:
			if s.selector != "" || s.star {
				return nil
			}
			v = v.Get(s.key)
		case fastjson.TypeArray:
			v = s.element(v)
		default:
			return nil
		}
	}
	return v
}

func (s *step) element(v *fastjson.Value) *fastjson.Value {
	list, err := v.Array()
	if err != nil {
		return nil
	}
	if s.selector != "" {
		for _, e := range list {
			if e.Type() == fastjson.TypeObject && string(text(e.Get(s.key))) == s.selector {
				return e
			}
		}
		return nil
	}
	i := s.index
	if !s.isIndex || len(list) == 0 {
		return nil
	}
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return nil
	}
	return list[i]
}

// text is a scalar's text: a string's characters, a number's own token, true, false.
// It is nil for what is not there, null, an object or an array. The bytes belong to the
// parser.
func text(v *fastjson.Value) []byte {
	if v == nil {
		return nil
	}
	switch v.Type() {
	case fastjson.TypeString:
		b, err := v.StringBytes()
		if err != nil {
			return nil
		}
		return b
	case fastjson.TypeNumber:
		return v.MarshalTo(nil)
	case fastjson.TypeTrue:
		return []byte("true")
	case fastjson.TypeFalse:
		return []byte("false")
	}
	return nil
}

func asPlaced(err error, at **placed) bool { return errors.As(err, at) }

func asYAML(err error) (yaml.Error, bool) {
	var y yaml.Error
	ok := errors.As(err, &y)
	return y, ok
}
