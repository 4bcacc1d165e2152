package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Reference gives the keys, their types, defaults and meanings as a table in Markdown,
// from the same tags as the decoder: docs/configuration.md is made of it.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString("| key | type | default | meaning |\n| --- | --- | --- | --- |\n")
	referenceRows(&b, reflect.TypeFor[Config](), "")
	return b.Bytes()
}

func writeReference(b *bytes.Buffer, f reflect.StructField, path string) {
	t, list := f.Type, ""
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			list = "[]"
		}
		t = t.Elem()
	}
	def := ""
	switch text, ok := f.Tag.Lookup("default"); {
	case ok:
		def = "`" + text + "`"
	case f.Tag.Get("required") == "true":
		def = "required"
	}
	doc := f.Tag.Get("doc")
	if e := f.Tag.Get("enum"); e != "" {
		doc += " (`" + strings.ReplaceAll(e, "|", "`, `") + "`)"
	}
	lo, hi := f.Tag.Get("min"), f.Tag.Get("max")
	switch {
	case lo != "" && hi != "":
		doc += fmt.Sprintf("; %s to %s", lo, hi)
	case lo != "":
		doc += "; at least " + lo
	}
	if f.Tag.Get("live") != "true" && t.Kind() != reflect.Struct && !strings.HasPrefix(path, "sources[]") && !strings.HasPrefix(path, "admin.tokens[]") {
		doc += "; restart"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", path+list, typeName(t, f), def, strings.TrimPrefix(doc, "; "))
	if f.Tag.Get("raw") == "credentials" {
		fmt.Fprintf(b, "| `%s` | text or mapping |  | credentials of many merchants behind the source: `file:PATH`, `dir:PATH`, or written here |\n", join(path, tenantsKey))
	}
	if t.Kind() == reflect.Struct {
		referenceRows(b, t, path+list)
	}
}

func referenceRows(b *bytes.Buffer, t reflect.Type, path string) {
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			writeReference(b, t.Field(i), join(path, name))
		}
	}
}

func typeName(t reflect.Type, f reflect.StructField) string {
	switch {
	case f.Tag.Get("raw") == "provider":
		return "name or definition"
	case t == secretType, f.Tag.Get("raw") == "credentials":
		return "secret"
	case t == sizeType:
		return "size"
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "mapping"
	case t.Kind() == reflect.Bool:
		return "true, false"
	case t.Kind() == reflect.String:
		return "text"
	}
	return "number"
}
