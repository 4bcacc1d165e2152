package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// schemaNode is the part of JSON Schema (2020-12) that the reference needs.
type schemaNode struct {
	Schema      string                 `json:"$schema,omitempty"`
	Title       string                 `json:"title,omitempty"`
	Description string                 `json:"description,omitempty"`
	Type        string                 `json:"type,omitempty"`
	Default     any                    `json:"default,omitempty"`
	Enum        []string               `json:"enum,omitempty"`
	Pattern     string                 `json:"pattern,omitempty"`
	Minimum     *float64               `json:"minimum,omitempty"`
	Maximum     *float64               `json:"maximum,omitempty"`
	MinItems    int                    `json:"minItems,omitempty"`
	Items       *schemaNode            `json:"items,omitempty"`
	Properties  map[string]*schemaNode `json:"properties,omitempty"`
	Required    []string               `json:"required,omitempty"`
	Additional  any                    `json:"additionalProperties,omitempty"`
	AnyOf       []*schemaNode          `json:"anyOf,omitempty"`
}

// Patterns of what a scalar may be beside its own type, and of its text forms.
const (
	envPattern      = `^env:[A-Za-z0-9_]+$`
	durationPattern = `^([0-9.]+(ns|us|ms|s|m|h|d|w))+$|^0$`
	sizePattern     = `^[0-9.]+ ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`
)

// Schema gives the JSON Schema of the file, for editors and for generators. It is made
// from the same tags as the decoder, so it knows every key and no other.
func Schema() []byte {
	root := schemaOf(reflect.TypeFor[Config](), reflect.StructField{})
	root.Schema, root.Title = "https://json-schema.org/draft/2020-12/schema", "Penstock"
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("BUG: the schema has no JSON: " + err.Error())
	}
	return append(b, '\n')
}

func schemaOf(t reflect.Type, f reflect.StructField) *schemaNode {
	n := &schemaNode{}
	switch {
	case f.Tag.Get("raw") == "provider":
		n.AnyOf = []*schemaNode{{Type: "string"}, {Type: "object"}}
	case f.Tag.Get("raw") == "credentials":
		one := []*schemaNode{{Type: "string"}, {Type: "number"}}
		list := &schemaNode{Type: "array", MinItems: 1, Items: &schemaNode{AnyOf: one}}
		n.Type, n.Additional = "object", &schemaNode{AnyOf: append(one, list)}
		n.Properties = map[string]*schemaNode{tenantsKey: {AnyOf: []*schemaNode{{Type: "string"}, {Type: "object"}, list}}}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), f)
	case t.Kind() == reflect.Struct:
		structSchema(n, t)
	case t.Kind() == reflect.Slice:
		item := f
		item.Tag = reflect.StructTag(strings.ReplaceAll(string(f.Tag), "doc:", "nodoc:"))
		n.Type, n.Items = "array", schemaOf(t.Elem(), item)
		if f.Tag.Get("required") == "true" {
			n.MinItems = 1
		}
	case t.Kind() == reflect.Map:
		n.Type, n.Additional = "object", &schemaNode{AnyOf: []*schemaNode{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
	default:
		n = scalarSchema(t, f)
	}
	n.Description = f.Tag.Get("doc")
	return n
}

func structSchema(n *schemaNode, t reflect.Type) {
	n.Type, n.Additional, n.Properties = "object", false, map[string]*schemaNode{}
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		n.Properties[name] = schemaOf(f.Type, f)
		if f.Tag.Get("required") == "true" {
			n.Required = append(n.Required, name)
		}
	}
}

func scalarSchema(t reflect.Type, f reflect.StructField) *schemaNode {
	var n *schemaNode
	text, hasDefault := f.Tag.Lookup("default")
	var def any
	if hasDefault {
		def = text
	}
	switch {
	case t == secretType:
		return &schemaNode{AnyOf: []*schemaNode{{Type: "string"}, {Type: "number"}}}
	case t == durationType:
		n = &schemaNode{Type: "string", Pattern: durationPattern}
	case t == sizeType:
		return &schemaNode{Default: def, AnyOf: []*schemaNode{{Type: "string", Pattern: sizePattern}, {Type: "string", Pattern: envPattern}, {Type: "integer"}}}
	case t.Kind() == reflect.Bool:
		n = &schemaNode{Type: "boolean"}
		def = hasDefault && text == "true"
	case t.Kind() == reflect.String:
		n = &schemaNode{Type: "string"}
		if enum := f.Tag.Get("enum"); enum != "" {
			n.Enum = strings.Split(enum, "|")
		} else {
			n.Default = def
			return n
		}
	default:
		n = &schemaNode{Type: map[bool]string{true: "integer", false: "number"}[t.Kind() == reflect.Int]}
		n.Minimum, n.Maximum = bound(f, "min"), bound(f, "max")
		if v := bound(f, "default"); v != nil {
			def = *v
		}
	}
	return &schemaNode{Default: def, AnyOf: []*schemaNode{n, {Type: "string", Pattern: envPattern}}}
}

func bound(f reflect.StructField, tag string) *float64 {
	if v, err := strconv.ParseFloat(f.Tag.Get(tag), 64); err == nil {
		return &v
	}
	return nil
}
