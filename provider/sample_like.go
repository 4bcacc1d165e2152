package provider

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"
)

// bodyLike is the body of the event that another one is like.
func (d *Definition) bodyLike(typ string) (string, error) {
	for i := range d.Samples.Events {
		if e := &d.Samples.Events[i]; e.Type == typ && e.Body != "" {
			return e.Body, nil
		}
	}
	return "", fmt.Errorf("there is no sample %q with a body to be like", typ)
}

// setInside puts values at paths of a JSON document: "data.object.status", "items.0.id".
// Texts may hold ${...} places; one that begins with "=" is JSON and not a text.
func setInside(doc []byte, set map[string]any, values map[string]string) ([]byte, error) {
	var p fastjson.Parser
	v, err := p.ParseBytes(doc)
	if err != nil {
		return nil, fmt.Errorf("parse the body to set %s: %w", strings.Join(sortedKeysOf(set), ", "), err)
	}
	for _, path := range sortedKeysOf(set) {
		text, err := sampleValue(set[path], values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		value, err := fastjson.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		parts := strings.Split(path, ".")
		at := v
		for _, part := range parts[:len(parts)-1] {
			next := at.Get(part)
			if next == nil || next.Type() != fastjson.TypeObject && next.Type() != fastjson.TypeArray {
				if next, err = fastjson.Parse("{}"); err != nil {
					return nil, err
				}
				at.Set(part, next)
				next = at.Get(part)
			}
			at = next
		}
		last := parts[len(parts)-1]
		if i, err := strconv.Atoi(last); err == nil && at.Type() == fastjson.TypeArray {
			at.SetArrayItem(i, value)
			continue
		}
		at.Set(last, value)
	}
	return v.MarshalTo(nil), nil
}

func sampleValue(v any, values map[string]string) (string, error) {
	if s, ok := v.(string); ok {
		if raw, ok := strings.CutPrefix(s, "="); ok {
			return expand(raw, values, jsonInside), nil
		}
		return string(appendJSONString(nil, []byte(expand(s, values, func(s string) string { return s })))), nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
