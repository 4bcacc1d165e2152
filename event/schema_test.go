package event_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"

	"penstock/event"
)

var update = flag.Bool("update", false, "write docs/schema anew")

// schema is the JSON Schema of the value, made from the types.
func schema(t *testing.T) []byte {
	t.Helper()
	r := &jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, AllowAdditionalProperties: true}
	s := r.Reflect(&event.Event{})
	s.ID = "urn:penstock:event:1"
	s.Title = "Penstock event, version 1"
	s.Description = "The value of a message. Fields may be added; a reader passes over those that it does not know."
	one := func(name string) *jsonschema.Schema { return &jsonschema.Schema{Required: []string{name}} }
	s.OneOf = []*jsonschema.Schema{one("payload"), one("payload_base64"), one("payload_ref")}
	// Any JSON at all, not what reflection makes of a RawMessage.
	payload, ok := s.Properties.Get("payload")
	if !ok {
		t.Fatal("the schema has no payload")
	}
	s.Properties.Set("payload", &jsonschema.Schema{Description: payload.Description})
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// asyncAPI says the same for tools that read AsyncAPI 3.0.
func asyncAPI(t *testing.T) []byte {
	t.Helper()
	headers, required := yaml.MapSlice{}, []string{}
	for _, h := range event.Headers {
		headers = append(headers, yaml.MapItem{Key: h.Name, Value: yaml.MapSlice{{Key: "type", Value: "string"}, {Key: "description", Value: h.About}}})
		if h.Always {
			required = append(required, h.Name)
		}
	}
	m := func(pairs ...any) (out yaml.MapSlice) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, yaml.MapItem{Key: pairs[i].(string), Value: pairs[i+1]})
		}
		return out
	}
	doc := m(
		"asyncapi", "3.0.0",
		"info", m("title", "Penstock events", "version", "1", "description", "What the gateway publishes: one message for each thing that happened, in CloudEvents 1.0 binary mode."),
		"defaultContentType", "application/json",
		"channels", m("events", m("address", "webhooks.{provider}",
			"parameters", m("provider", m("description", "Name of the provider; a source may be routed to another topic.")),
			"messages", m("event", m("$ref", "#/components/messages/event")),
			"bindings", m("kafka", m("bindingVersion", "0.5.0")))),
		"operations", m("consume", m("action", "receive", "channel", m("$ref", "#/channels/events"))),
		"components", m("messages", m("event", m(
			"title", "One event",
			"headers", m("type", "object", "required", required, "properties", headers),
			"payload", m("schemaFormat", "application/schema+json;version=draft-2020-12", "schema", m("$ref", "event.v1.json")),
			"bindings", m("kafka", m("key", m("type", "string", "description", "The entity (ce_subject), else ce_id."), "bindingVersion", "0.5.0"))))),
	)
	out, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("# Made from package event: go test ./event -update\n"), out...)
}

// TestSchemaFiles holds docs/schema to the types.
func TestSchemaFiles(t *testing.T) {
	for name, want := range map[string][]byte{"event.v1.json": schema(t), "asyncapi.yaml": asyncAPI(t)} {
		path := filepath.Join("..", "docs", "schema", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say (%v): go test ./event -update", path, err)
		}
	}
}
