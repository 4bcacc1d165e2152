package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// conforms is as much of JSON Schema as Schema uses.
func conforms(n *schemaNode, v any, path string) error {
	if len(n.AnyOf) > 0 {
		var last error
		for _, a := range n.AnyOf {
			if last = conforms(a, v, path); last == nil {
				return nil
			}
		}
		return last
	}
	switch n.Type {
	case "object":
		return conformsObject(n, v, path)
	case "array":
		list, ok := v.([]any)
		if !ok || len(list) < n.MinItems {
			return fmt.Errorf("%s: no list of %d", path, n.MinItems)
		}
		for i, item := range list {
			if err := conforms(n.Items, item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case "string":
		s, ok := v.(string)
		if !ok || n.Pattern != "" && !regexp.MustCompile(n.Pattern).MatchString(s) {
			return fmt.Errorf("%s: %v is no such text", path, v)
		}
		if n.Enum != nil && !strings.Contains("|"+strings.Join(n.Enum, "|")+"|", "|"+s+"|") {
			return fmt.Errorf("%s: %v is none of %v", path, v, n.Enum)
		}
	case "integer", "number":
		if _, ok := v.(float64); !ok {
			return fmt.Errorf("%s: %v is no number", path, v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return fmt.Errorf("%s: %v is no boolean", path, v)
		}
	}
	return nil
}

func conformsObject(n *schemaNode, v any, path string) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %v is no object", path, v)
	}
	for k, x := range m {
		p, known := n.Properties[k]
		if extra, ok := n.Additional.(*schemaNode); !known && ok {
			p, known = extra, true
		}
		if !known && n.Additional == false {
			return fmt.Errorf("%s.%s: unknown", path, k)
		}
		if known {
			if err := conforms(p, x, path+"."+k); err != nil {
				return err
			}
		}
	}
	for _, r := range n.Required {
		if _, ok := m[r]; !ok {
			return fmt.Errorf("%s.%s: missing", path, r)
		}
	}
	return nil
}

func TestSchema(t *testing.T) {
	check := func(text string) error {
		t.Helper()
		b, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		return conforms(schemaOf(reflect.TypeFor[Config](), reflect.StructField{}), v, "")
	}
	if err := check(strings.ReplaceAll(string(example(t)), "[env:GITHUB_WEBHOOK_SECRET]", `["env:GITHUB_WEBHOOK_SECRET"]`)); err != nil {
		t.Errorf("example.yaml: %v", err)
	}
	for _, bad := range []string{
		least + "logg: {}\n", least + "log: {level: loud}\n", least + "ingest: {max_body: lots}\n", "sources: []\narchive: {dir: d}\n",
		least + "dedupe: {window: long}\n", least + "ingest: {max_connections: [1]}\n",
	} {
		if check(bad) == nil {
			t.Errorf("the schema takes what Load refuses:\n%s", bad)
		}
		if _, err := Parse("x.yaml", []byte(bad), providers()); err == nil {
			t.Errorf("Load takes\n%s", bad)
		}
	}
	var doc map[string]any
	if err := json.Unmarshal(Schema(), &doc); err != nil {
		t.Fatal(err)
	}
}

// TestReferenceIsComplete: every field that the decoder fills is a key with a sentence,
// and every bound, default and check is one that works.
func TestReferenceIsComplete(t *testing.T) {
	var walk func(ty reflect.Type, path string)
	walk = func(ty reflect.Type, path string) {
		for ty.Kind() == reflect.Pointer || ty.Kind() == reflect.Slice {
			ty = ty.Elem()
		}
		if ty.Kind() != reflect.Struct {
			return
		}
		setDefaults(reflect.New(ty).Elem()) // panics on a bad default
		for i := range ty.NumField() {
			f := ty.Field(i)
			name := f.Tag.Get("yaml")
			if !f.IsExported() || name == "-" {
				continue
			}
			p := join(path, name)
			if name == "" || f.Tag.Get("doc") == "" && p != "archive" {
				t.Errorf("%s.%s has no key or no doc", path, f.Name)
			}
			if c := f.Tag.Get("check"); c != "" && c != "pem" && c != "when" && checks[c] == nil {
				t.Errorf("%s: no check %q", p, c)
			}
			for _, b := range []string{"min", "max"} {
				if f.Tag.Get(b) != "" {
					ft := f.Type
					if ft.Kind() == reflect.Pointer {
						ft = ft.Elem()
					}
					beyond(reflect.New(ft).Elem(), f.Tag.Get(b), b)
				}
			}
			walk(f.Type, p)
		}
	}
	walk(reflect.TypeFor[Config](), "")
}

// TestReference: the table names every key that the schema names.
func TestReference(t *testing.T) {
	table := string(Reference())
	var walk func(n *schemaNode, path string)
	walk = func(n *schemaNode, path string) {
		for k, p := range n.Properties {
			key := join(path, k)
			if p.Type == "array" {
				key += "[]"
				walk(p.Items, key)
			}
			if !strings.Contains(table, "| `"+key+"` |") {
				t.Errorf("no row for %s", key)
			}
			walk(p, key)
		}
	}
	walk(schemaOf(reflect.TypeFor[Config](), reflect.StructField{}), "")
	if n := strings.Count(table, "\n"); n < 90 {
		t.Errorf("%d lines", n)
	}
}
