package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxConfig bounds the file: ten thousand sources fit (0.8 MB), an accident does not.
const maxConfig = 4 << 20

// Load reads a configuration file. The error is an *Errors with every mistake in it.
// Relative paths in the file are relative to the working directory.
func Load(path string, cat Catalogue) (*Config, error) {
	b, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, &Errors{
			List:  []Error{{File: path, Message: describe(path, err).Error(), Cure: "name the file with -c"}},
			Files: []string{path},
		}
	}
	return Parse(path, b, cat)
}

// Parse reads a configuration from bytes; name stands in the errors. Secrets behind env:
// and file: are read here.
func Parse(name string, text []byte, cat Catalogue) (*Config, error) {
	d := newDecoder(name)
	c := &Config{Path: name}
	if body, ok := d.parse(text); ok {
		func() {
			// goccy's tree of a hostile file has surprised before; a config that cannot
			// be walked is a mistake in the file, never the end of a running process.
			defer func() {
				if r := recover(); r != nil {
					if s, bug := r.(string); bug && strings.HasPrefix(s, "BUG: ") {
						panic(r)
					}
					d.fail(place{}, "", fmt.Sprintf("cannot be read as YAML (%v)", r), "write it more plainly")
				}
			}()
			d.value(body, "", reflect.ValueOf(c).Elem(), reflect.StructField{})
			d.sources(c, cat)
			d.routes(c, cat)
			d.wheres(c, cat)
			d.validate(c)
		}()
	}
	files := append([]string{name}, d.files...)
	slices.Sort(files[1:])
	files = slices.Compact(files)
	sortErrors(d.list)
	if len(d.list) > 0 {
		return nil, &Errors{List: d.list, Files: files}
	}
	c.Files = files
	sortErrors(d.warnings)
	for _, w := range d.warnings {
		c.Warnings = append(c.Warnings, w.Error())
	}
	text = slices.Clone(text)
	d.depends(string(text))
	sum := [32]byte(d.sum.Sum(nil))
	c.text, c.sum = func() []byte { return text }, func() [32]byte { return sum }
	return c, nil
}

// parse gives the document's body.
func (d *decoder) parse(text []byte) (body ast.Node, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			d.fail(place{}, "", fmt.Sprintf("cannot be read as YAML (%v)", r), "")
			body, ok = nil, false
		}
	}()
	if i := slices.Index(text, 0); i >= 0 {
		d.fail(place{}, "", fmt.Sprintf("holds a zero byte at offset %d", i), "it is no YAML text, or was half written")
		return nil, false
	}
	if deep(text) {
		d.fail(place{}, "", "nested too deeply", "")
		return nil, false
	}
	f, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) {
			// GetMessage, not Error: the latter shows the lines around, secrets and all.
			d.fail(placeOfToken(ye.GetToken()), "", "is no YAML: "+ye.GetMessage(), "")
		} else {
			d.fail(place{}, "", "is no YAML", "")
		}
		return nil, false
	}
	var bodies []ast.Node
	for _, doc := range f.Docs {
		if _, comment := doc.Body.(*ast.CommentGroupNode); doc.Body != nil && !isNil(doc.Body) && !comment {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		d.fail(place{1, 1}, "", "is empty", "archive.dir and sources are the least")
		return nil, false
	case len(bodies) > 1:
		d.fail(placeOf(bodies[1]), "", "a second document", "one file holds one configuration")
		return nil, false
	}
	ast.Walk(prepare{d}, bodies[0])
	return bodies[0], true
}

// deep says whether text opens more brackets, or more list items in one line, than any
// config does. goccy's time grows with the square of the nesting (1000 levels: 3 ms,
// 100,000: a minute), and a reload must not hang on an accident.
func deep(text []byte) bool {
	const most = 500
	open, items := 0, 0
	for i, c := range text {
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open = max(0, open-1)
		case '-', '?', ':', '!', '&':
			if i+1 < len(text) && text[i+1] != c {
				items++
			}
		case '\n':
			items = 0
		}
		if open > most || items > 4*most {
			return true
		}
	}
	return false
}

// prepare walks the tree once before it is decoded: it notes the anchors, and mends
// `[env:A]` inside braces, which goccy reads as the mapping {env: A}. By the YAML
// specification (7.3.3) a colon without a blank after it is part of the text.
type prepare struct{ d *decoder }

// Visit is called by ast.Walk.
func (p prepare) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.AnchorNode:
		if n.Name != nil && n.Name.GetToken() != nil {
			p.d.anchors[n.Name.GetToken().Value] = n.Value
		}
	case *ast.SequenceNode:
		for i, v := range n.Values {
			if s, ok := plainPair(v); ok && n.IsFlowStyle {
				n.Values[i] = s
			}
		}
	}
	return p
}

// plainPair gives the text that a:b in a flow list is, where goccy made a mapping of it.
func plainPair(n ast.Node) (*ast.StringNode, bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok || m.IsFlowStyle || len(m.Values) != 1 {
		return nil, false
	}
	key, value := m.Values[0].Key.GetToken(), ast.Node(m.Values[0].Value)
	colon := m.Values[0].Start
	if _, scalar := value.(ast.ScalarNode); !scalar || key == nil || colon == nil || isNil(value) {
		return nil, false
	}
	rest := value.GetToken()
	kp, cp, vp := key.Position, colon.Position, rest.Position
	if kp.Line != vp.Line || cp.Column != kp.Column+utf8.RuneCountInString(key.Value) || vp.Column != cp.Column+1 {
		return nil, false
	}
	return ast.String(token.New(key.Value+":"+rest.Value, key.Value+":"+rest.Value, kp)), true
}

// AdminListen reads the admin address out of a file and nothing else: a health check runs
// every few seconds, beside the process and perhaps without its environment, and must not
// fail for a secret that it does not need.
func AdminListen(path string) (listen string, tls, ok bool) {
	b, err := readBounded(path, maxConfig)
	if err != nil {
		return "", false, false
	}
	var c Config
	setDefaults(reflect.ValueOf(&c).Elem())
	d := newDecoder(path)
	body, ok := d.parse(b)
	if !ok {
		return "", false, false
	}
	d.entries(body, "", func(key string, _ place, value ast.Node) {
		if key != "admin" {
			return
		}
		d.entries(value, key, func(key string, _ place, value ast.Node) {
			n, ok := d.unwrap(value, key)
			if key == "tls" {
				tls = ok
			}
			if key == "listen" && ok {
				if s, _, ok := d.text(n, key); ok {
					c.Admin.Listen = s
				}
			}
		})
	})
	return c.Admin.Listen, tls, true
}
