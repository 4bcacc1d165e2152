package config

import (
	"reflect"
	"strings"
	"testing"
)

const routesAround = `archive: {dir: ./data}
forward:
  kafka: {brokers: ["127.0.0.1:9092"]}
  routes:
    - {when: 'type == "a"', topic: "t.{family}", key: "{tenant}:{entity}"}
    - {name: noise, when: "true", drop: true}
sources:
  - {name: gh, provider: github, credentials: {secrets: [0123456789abcdef]}, routes: []}
  - {name: hub, provider: github, credentials: {secrets: [0123456789abcdef]}}
`

func TestRoutes(t *testing.T) {
	c, err := Parse("p.yaml", []byte(routesAround), providers())
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{{When: `type == "a"`, Topic: "t.{family}", Key: "{tenant}:{entity}"}, {Name: "noise", When: "true", Drop: true}}
	if !reflect.DeepEqual(c.Forward.Routes, want) {
		t.Errorf("%+v", c.Forward.Routes)
	}
	if c.Sources[0].Routes == nil || c.Sources[1].Routes != nil {
		t.Errorf("an empty list of a source is one, and none is none: %v %v", c.Sources[0].Routes == nil, c.Sources[1].Routes == nil)
	}
}

// TestRouteMistakes: each is named at its place, inside of an expression or a template too.
func TestRouteMistakes(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{when: 'a == wrong', topic: t}`, `p.yaml:5:20: forward.routes[0].when: unknown name wrong`},
		{`{when: a == wrong, topic: t}`, `p.yaml:5:19: forward.routes[0].when: unknown name wrong`},
		{`{when: "a\tb wrong", topic: t}`, `p.yaml:5:14: forward.routes[0].when: unknown name wrong (line 1, column 5 of the expression)`},
		{`{when: "", topic: t}`, `p.yaml:5:14: forward.routes[0].when: is empty`},
		{`{topic: t}`, `forward.routes[0].when: is missing`},
		{`{when: "true"}`, `forward.routes[0]: says neither topic nor drop`},
		{`{when: "true", topic: t, drop: true}`, `p.yaml:5:29: forward.routes[0].topic: and drop exclude each other`},
		{`{when: "true", drop: true, key: k}`, `forward.routes[0].key: has no effect beside drop`},
		{`{when: "true", topic: "a.{tennant}"}`, `p.yaml:5:32: forward.routes[0].topic: unknown placeholder {tennant}`},
		{`{when: "true", topic: "a.{entity}"}`, `forward.routes[0].topic: unknown placeholder {entity}`},
		{`{when: "true", topic: "a.{type"}`, `p.yaml:5:32: forward.routes[0].topic: a { has no }`},
		{`{when: "true", topic: "a b"}`, `forward.routes[0].topic: "a b" is no topic name`},
		{`{when: "true", topic: webhooks.dead}`, `forward.routes[0].topic: is the dead letter topic`},
		{`{when: "true", topic: t, key: "{order}"}`, `p.yaml:5:38: forward.routes[0].key: unknown placeholder {order}`},
		{`{when: "true", topic: t, key: ""}`, `forward.routes[0].key: "" is no key`},
		{`{when: "true", topic: t, to: x}`, `forward.routes[0].to: unknown key`},
	} {
		text := strings.Replace(routesAround, `{when: 'type == "a"', topic: "t.{family}", key: "{tenant}:{entity}"}`, c.line, 1)
		_, err := Parse("p.yaml", []byte(text), providers())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.line, err, c.want)
		}
	}
	twice := strings.Replace(routesAround, `{when: 'type`, `{name: noise, when: 'type`, 1)
	if _, err := Parse("p.yaml", []byte(twice), providers()); err == nil || !strings.Contains(err.Error(), `"noise" is the name of forward.routes[0] too`) {
		t.Errorf("two of one name: %v", err)
	}
	many := strings.Replace(routesAround, "    - {name: noise", strings.Repeat("    - {when: \"true\", topic: t}\n", 100)+"    - {name: noise", 1)
	if _, err := Parse("p.yaml", []byte(many), providers()); err == nil || !strings.Contains(err.Error(), "has more than 100 routes") {
		t.Errorf("too many: %v", err)
	}
}

func TestGroups(t *testing.T) {
	f := func(first, second, want string) {
		t.Helper()
		text := strings.NewReplacer("routes: []}", first+"}", "{name: hub, provider: github, credentials: {secrets: [0123456789abcdef]}}", second).Replace(routesAround)
		c, err := Parse("p.yaml", []byte(text), providers())
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join(c.Warnings, "\n")
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	hub := "{name: hub, provider: github, credentials: {secrets: [0123456789abcdef]}, dedupe: {group: move%s}}"
	f("dedupe: {group: move}", strings.Replace(hub, "%s", "", 1), "")
	f("dedupe: {group: move}", strings.Replace(hub, "%s", "d", 1), `sources[0].dedupe.group: no other source is of the group "move"`)
	f("dedupe: {group: move}", strings.Replace(hub, "%s", ", identity: body", 1), `sources[1].dedupe.group: source gh and this one differ in dedupe.identity`)
	f("dedupe: {group: move}", "{name: s, provider: stripe, credentials: {secrets: [0123456789abcdef]}, dedupe: {group: move}}", `p.yaml:9:93: sources[1].dedupe.group: "move" holds github (source gh) and stripe`)
}

func TestTemplatesOfSources(t *testing.T) {
	text := strings.Replace(routesAround, "routes: []", `topic: "x.{typ}", key: "{provider"`, 1)
	_, err := Parse("p.yaml", []byte(text), providers())
	for _, want := range []string{`sources[0].topic: unknown placeholder {typ}`, `sources[0].key: a { has no }`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
