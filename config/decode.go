package config

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder walks the syntax tree beside the types and notes every mistake. goccy's own
// decoder stops at the first, which makes a config a guessing game.
type decoder struct {
	file     string
	list     []Error
	warnings []Error
	files    []string
	anchors  map[string]ast.Node
	at       map[string]place    // path -> where its value stands
	sum      hash.Hash           // over the text and what it refers to
	raw      map[string]ast.Node // nodes that a later pass reads: provider, credentials
	depth    int
}

// place is a position in the file, from 1.
type place struct{ line, col int }

// maxDepth is far beyond what the format nests, and bounds aliases that point at
// themselves.
const maxDepth = 32

func newDecoder(file string) *decoder {
	return &decoder{
		file: file, anchors: map[string]ast.Node{},
		at: map[string]place{}, raw: map[string]ast.Node{}, sum: sha256.New(),
	}
}

func (d *decoder) fail(p place, path, message, cure string) {
	if len(d.list) < maxErrors {
		d.list = append(d.list, Error{d.file, p.line, p.col, path, message, cure})
	}
}

func (d *decoder) warn(p place, path, message, cure string) {
	d.warnings = append(d.warnings, Error{d.file, p.line, p.col, path, message, cure})
}

// depends notes content that the configuration depends on beside its own text.
func (d *decoder) depends(content string) {
	_, _ = fmt.Fprintf(d.sum, "%d:%s", len(content), content)
}

// where is the place of path, else of the nearest part of it that the file has.
func (d *decoder) where(path string) place {
	for {
		if p, ok := d.at[path]; ok || path == "" {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			i = 0
		}
		path = path[:i]
	}
}

func placeOf(n ast.Node) place {
	if n == nil || isNil(n) {
		return place{}
	}
	tk := n.GetToken()
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			tk = n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		tk = n.Key.GetToken()
	}
	return placeOfToken(tk)
}

func placeOfToken(tk *token.Token) place {
	if tk == nil || tk.Position == nil {
		return place{}
	}
	return place{tk.Position.Line, tk.Position.Column}
}

func isNil(n ast.Node) bool {
	v := reflect.ValueOf(n)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// unwrap follows anchors and aliases to the node that holds the value.
func (d *decoder) unwrap(n ast.Node, path string) (ast.Node, bool) {
	for range maxDepth {
		switch m := n.(type) {
		case *ast.AnchorNode:
			n = m.Value
		case *ast.AliasNode:
			name := m.Value.GetToken().Value
			to, ok := d.anchors[name]
			if !ok {
				d.fail(placeOf(m), path, fmt.Sprintf("alias *%s has no anchor", name), "write &"+name+" before the value it stands for")
				return nil, false
			}
			n = to
		case *ast.TagNode:
			d.fail(placeOf(m), path, "YAML tags are not used here", "remove "+m.Start.Value)
			return nil, false
		default:
			if n == nil || isNil(n) {
				return nil, false
			}
			return n, true
		}
	}
	d.fail(placeOf(n), path, "aliases point at each other", "write the value out")
	return nil, false
}

// pairs gives a mapping's entries; false and an error when n is no mapping.
func (d *decoder) pairs(n ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	d.wrongType(n, path, "a mapping (key: value)")
	return nil, false
}

func (d *decoder) wrongType(n ast.Node, path, want string) {
	if _, ok := n.(*ast.NullNode); ok {
		d.fail(placeOf(n), path, "has no value; expected "+want, "give a value, or remove the key")
		return
	}
	d.fail(placeOf(n), path, "expected "+want+", got "+kindOf(n), "")
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	}
	return "text"
}

// keyText is a mapping key as text, "" for what is no plain key.
func keyText(k ast.MapKeyNode) string {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value
	case *ast.MergeKeyNode:
		return "<<"
	}
	if k == nil || isNil(k) || k.GetToken() == nil {
		return ""
	}
	return k.GetToken().Value
}

// entries calls f for every key that is not repeated.
func (d *decoder) entries(n ast.Node, path string, f func(key string, at place, value ast.Node)) bool {
	pairs, ok := d.pairs(n, path)
	if !ok {
		return false
	}
	first := map[string]place{}
	for _, p := range pairs {
		key, at := keyText(p.Key), placeOf(p.Key)
		switch seen, dup := first[key]; {
		case key == "<<":
			d.fail(at, path, "merge keys (<<) are not supported", "write the keys out")
			continue
		case key == "":
			d.fail(at, path, "this is no key", "write name: value")
			continue
		case dup:
			d.fail(at, join(path, key), fmt.Sprintf("key is there twice, first in line %d", seen.line), "remove one of them")
			continue
		}
		first[key] = at
		f(key, at, p.Value)
	}
	return true
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var (
	secretType   = reflect.TypeFor[Secret]()
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[time.Duration]()
)

// value decodes n into v. f carries the tags of the field that v is.
func (d *decoder) value(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	if d.depth++; d.depth > maxDepth {
		d.fail(placeOf(n), path, "nested too deeply", "")
	} else {
		d.inner(n, path, v, f)
	}
	d.depth--
}

func (d *decoder) inner(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	if n, ok := d.unwrap(n, path); ok {
		if p := placeOf(n); p.line > 0 {
			d.at[path] = p
		}
		switch {
		case v.Kind() == reflect.Pointer:
			d.pointer(n, path, v, f)
		case v.Kind() == reflect.Struct:
			d.structure(n, path, v)
		case v.Kind() == reflect.Slice:
			d.slice(n, path, v, f)
		case v.Kind() == reflect.Map:
			d.stringMap(n, path, v)
		default:
			d.scalar(n, path, v, f)
		}
	}
}

func (d *decoder) pointer(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	to := reflect.New(v.Type().Elem())
	before := len(d.list)
	d.value(n, path, to.Elem(), f)
	// A block that is wrong is still there: what depends on its presence must not
	// add errors of its own.
	if v.Type().Elem().Kind() == reflect.Struct || len(d.list) == before {
		v.Set(to)
	}
}

func (d *decoder) structure(n ast.Node, path string, v reflect.Value) {
	setDefaults(v)
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = i
			names = append(names, name)
		}
	}
	there := map[string]bool{}
	ok := d.entries(n, path, func(key string, at place, value ast.Node) {
		i, known := fields[key]
		if !known {
			cure := suggest(key, names)
			if cure == "" {
				cure = "known here: " + strings.Join(names, ", ")
			}
			d.fail(at, join(path, key), "unknown key", cure)
			return
		}
		there[key] = true
		d.field(value, at, join(path, key), v.Field(i), v.Type().Field(i))
	})
	for _, name := range names {
		if ok && !there[name] && v.Type().Field(fields[name]).Tag.Get("required") == "true" {
			f := v.Type().Field(fields[name])
			d.fail(d.where(path), join(path, name), "is missing", f.Tag.Get("doc"))
		}
	}
}

func (d *decoder) field(n ast.Node, at place, path string, v reflect.Value, f reflect.StructField) {
	d.at[path] = at
	if n == nil || isNil(n) {
		d.fail(at, path, "has no value", "give a value, or remove the key")
		return
	}
	if f.Tag.Get("raw") != "" {
		if p := placeOf(n); p.line > 0 {
			d.at[path] = p
		}
		d.raw[path] = n
		return
	}
	if _, null := n.(*ast.NullNode); null {
		d.fail(at, path, "has no value", "give a value, or remove the key")
		return
	}
	d.value(n, path, v, f)
}

// maxItems bounds every list; nobody writes ten thousand sources by hand, and those who
// generate them may.
const maxItems = 10000

func (d *decoder) slice(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, path, "a list")
		return
	}
	if len(seq.Values) > maxItems {
		d.fail(placeOf(n), path, fmt.Sprintf("has more than %d items", maxItems), "")
		return
	}
	if len(seq.Values) == 0 && f.Tag.Get("required") == "true" {
		d.fail(placeOf(n), path, "is empty", f.Tag.Get("doc"))
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		d.value(item, fmt.Sprintf("%s[%d]", path, i), out.Index(i), f)
	}
	v.Set(out)
}

func (d *decoder) stringMap(n ast.Node, path string, v reflect.Value) {
	out := reflect.MakeMap(v.Type())
	d.entries(n, path, func(key string, at place, value ast.Node) {
		p := join(path, key)
		d.at[p] = at
		if m, ok := d.unwrap(value, p); ok {
			if s, _, ok := d.text(m, p); ok {
				out.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(s))
			}
		}
	})
	v.Set(out)
}

// setDefaults fills v and the structs inside it from their default tags.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || f.Tag.Get("yaml") == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			setDefaults(v.Field(i))
			continue
		}
		if text, ok := f.Tag.Lookup("default"); ok {
			if _, err := setScalar(v.Field(i), text); err != nil {
				panic("BUG: default of " + f.Name + ": " + err.Error())
			}
		}
	}
}
