package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"penstock/admin"
)

// TestRealAnswersAreDescribed: what main puts into answers, which the tests of package admin do not
// see, is named in openapi.yaml.
func TestRealAnswersAreDescribed(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal(admin.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, stripe)
	for path, fields := range map[string]int{"/api/v1/stats": 15, "/api/v1/overview": 25, "/api/v1/sources": 6, "/api/v1/sources?measured=true": 10, "/api/v1/counts": 6, "/api/v1/sources/shop/setup": 5} {
		rec := httptest.NewRecorder()
		r.p.admin.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "http://localhost"+path, nil))
		var answer any
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != 200 {
			t.Fatalf("%s answers %d %s: %v", path, rec.Code, rec.Body, err)
		}
		route, _, _ := strings.Cut(strings.Replace(path, "/shop/", "/{name}/", 1), "?")
		d := described{t, doc, 0}
		d.check(path, d.node(doc, "paths", route, "get", "responses", "200", "content", "application/json", "schema"), answer)
		if d.seen < fields {
			t.Errorf("%s: only %d fields were looked at", path, d.seen)
		}
	}
	d := described{t, doc, 0}
	d.check("", d.node(doc, "components", "schemas", "Paused"), map[string]any{"name": "x", "paused": true})
	if d.missing(d.node(doc, "components", "schemas", "Paused"), "more") != true {
		t.Error("the check finds nothing")
	}
}

// described compares an answer's names with those of a schema.
type described struct {
	t    *testing.T
	doc  map[string]any
	seen int
}

// node follows names, and references at each step.
func (d *described) node(v any, steps ...string) map[string]any {
	m, _ := v.(map[string]any)
	if ref, ok := m["$ref"].(string); ok {
		m = d.node(d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	if len(steps) == 0 {
		return m
	}
	return d.node(m[steps[0]], steps[1:]...)
}

func (d *described) missing(schema map[string]any, name string) bool {
	return d.node(schema, "properties", name) == nil && schema["additionalProperties"] == nil
}

func (d *described) check(at string, schema map[string]any, v any) {
	d.t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			d.seen++
			if d.missing(schema, name) {
				d.t.Errorf("openapi.yaml does not know %s.%s", at, name)
				continue
			}
			next := d.node(schema, "properties", name)
			if next == nil {
				next = d.node(schema, "additionalProperties")
			}
			d.check(at+"."+name, next, value)
		}
	case []any:
		for i, value := range v {
			d.check(fmt.Sprint(at, "[", i, "]"), d.node(schema, "items"), value)
		}
	}
}
