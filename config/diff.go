package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
)

// Diff names the keys that differ and that a reload cannot change: they want a restart.
// The list is in the order of the reference, nil when a reload is enough.
func Diff(old, new *Config) []string {
	var out []string
	differences(reflect.ValueOf(*old), reflect.ValueOf(*new), "", &out)
	return out
}

func differences(a, b reflect.Value, path string, out *[]string) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" || f.Tag.Get("live") == "true" {
			continue
		}
		x, y, p := a.Field(i), b.Field(i), join(path, name)
		if x.Kind() == reflect.Pointer && x.Type().Elem().Kind() == reflect.Struct && !x.IsNil() && !y.IsNil() {
			x, y = x.Elem(), y.Elem()
		}
		switch {
		case x.Kind() == reflect.Struct:
			differences(x, y, p, out)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			*out = append(*out, p)
		}
	}
}

// SourceChanges names the sources that a reload adds, removes and changes, each list
// sorted. Rotating a credential is a change.
func SourceChanges(old, new *Config) (added, removed, changed []string) {
	before := map[string]Source{}
	for _, s := range old.Sources {
		before[s.Name] = s
	}
	for _, s := range new.Sources {
		was, ok := before[s.Name]
		switch {
		case !ok:
			added = append(added, s.Name)
		case !equalSources(was, s):
			changed = append(changed, s.Name)
		}
		delete(before, s.Name)
	}
	for name := range before {
		removed = append(removed, name)
	}
	slices.Sort(added)
	slices.Sort(removed)
	slices.Sort(changed)
	return added, removed, changed
}

// equalSources compares what the file says of two sources. A handle is compared by what
// it was made of: the provider's name, or the inline text.
func equalSources(a, b Source) bool {
	a.Definition, b.Definition = nil, nil
	a.Line, b.Line, a.Col, b.Col = 0, 0, 0, 0
	return reflect.DeepEqual(a, b)
}

// Digest is a short name of what a configuration says, for status and logs. No secret
// goes into it, so rotating one leaves it as it is.
func Digest(c *Config) string {
	var inline []string
	for _, s := range c.Sources {
		inline = append(inline, s.inlineText)
	}
	b, err := json.Marshal(struct {
		Config *Config
		Inline []string
	}{c, inline})
	if err != nil {
		panic("BUG: a config has no JSON: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}
