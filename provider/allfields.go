package provider

import (
	"slices"
	"strings"
)

// AllFields says which fields the piece {all} of a template stands for, and how they are
// written: every scalar field at the document's top, sorted by name (bytewise).
type AllFields struct {
	// Prefix: only names that begin so, in any letter case ("vnp_", "Shp_").
	Prefix string   `yaml:"prefix,omitempty"`
	Except []string `yaml:"except,omitempty"`
	// SkipEmpty leaves out what is empty; null is left out always.
	SkipEmpty bool `yaml:"skip_empty,omitempty"`
	// Pair is "name=value" (default), "namevalue" or "value".
	Pair string `yaml:"pair,omitempty"`
	// Separator stands between them, Lead in front of each.
	Separator string `yaml:"separator,omitempty"`
	Lead      string `yaml:"lead,omitempty"`
	// Encode is "" (as decoded) or php: PHP's urlencode of name and value.
	Encode string `yaml:"encode,omitempty"`
	// KeyAs is the name under which the secret is sorted in among the fields.
	KeyAs string `yaml:"key_as,omitempty"`
}

// Takes says whether a field of that name is among them.
func (a *AllFields) Takes(name string) bool {
	if len(name) < len(a.Prefix) || !strings.EqualFold(name[:len(a.Prefix)], a.Prefix) {
		return false
	}
	return !slices.Contains(a.Except, name)
}

// proves says whether {all} covers a place in the document.
func (a *AllFields) proves(r *Ref) bool {
	return a != nil && len(r.steps) == 1 && !r.steps[0].star && r.steps[0].selector == "" && a.Takes(r.steps[0].key)
}

func (c *schemeCheck) all() {
	s := c.s
	used, keys := false, 0
	pieces, _ := ParseTemplate(s.Signed)
	for _, p := range pieces {
		used = used || p.Kind == "all" || p.Kind == "own" && p.Arg == "twilio" && s.All != nil
		if p.Kind == "key" {
			keys++
		}
	}
	for _, f := range s.Fields {
		if f.Path == "{key}" {
			keys++
		}
		if f.IsPart() && f.Path != "{key}" && !c.hasPart(f.PartName()) {
			c.add("fields", "%s: no credential of the role part has this name", f.Path)
		}
	}
	if used != (s.All != nil) {
		c.add("all", "all and the piece {all} of signed belong together")
	}
	if s.All != nil {
		if s.All.KeyAs != "" {
			keys++
		}
		c.oneOf("all.pair", s.All.Pair, []string{"value", "namevalue", "name=value"}, false)
		c.oneOf("all.encode", s.All.Encode, []string{"php"}, false)
		if s.Signature.Field != "" && s.All.Takes(s.Signature.Field) || s.Signature.Query != "" && s.All.Takes(s.Signature.Query) {
			c.add("all.except", "the signature does not sign itself: leave it out")
		}
	}
	if keys > 1 || keys == 1 && s.Scheme != "hmac" && s.Scheme != "hash" && s.Scheme != "hash_concat" {
		c.add("signed", "{key} stands once, and in hmac, hash and hash_concat only")
	}
	if keys == 1 && s.KeyPosition != "" {
		c.add("key_position", "{key} says already where the key stands")
	}
	if s.Each != "" && (len(s.Fields) == 0 || s.Signature.Field == "") {
		c.add("each", "needs fields and signature.field, which stand in every element")
	}
	if s.KeyID != nil && s.KeyID.Header == "" {
		c.add("key_id.header", "missing")
	}
}

func (c *schemeCheck) hasPart(name string) bool {
	for _, cr := range c.s.EffectiveCredentials() {
		if cr.Role == "part" && cr.Name == name {
			return true
		}
	}
	return false
}

// KeyInside says that the secret stands within the signed bytes at a named place.
func (s *Scheme) KeyInside() bool {
	if strings.Contains(s.Signed, "{key}") || s.All != nil && s.All.KeyAs != "" {
		return true
	}
	for _, f := range s.Fields {
		if f.Path == "{key}" {
			return true
		}
	}
	return false
}

// IsPart says that the field is no field of the document but {key} or a credential's value.
func (f *SignedField) IsPart() bool { return strings.HasPrefix(f.Path, "{") }

// PartName is the credential's name, or "key".
func (f *SignedField) PartName() string { return strings.Trim(f.Path, "{}") }
