package provider

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/valyala/fastjson"
)

// AddressList is where a provider publishes its addresses, for a program to read.
type AddressList struct {
	URL    string `yaml:"url"`    // https; the host is the only one that is asked
	Format string `yaml:"format"` // text (one a line, # begins a comment) or json
	// Paths lead to the lists in a JSON document: "hooks", "data.ipv4_cidrs",
	// "items.*.cidr" ("*" is every element of a list, or every member of an object). None:
	// the document is the list.
	Paths []string `yaml:"paths,omitempty"`
	// Where keeps those of the objects that the last part of a path is a member of, by
	// their other members: a text that is equal, or a list that has it.
	Where map[string]string `yaml:"where,omitempty"`
}

func (p *AddressList) validate() error {
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil:
		return fmt.Errorf("%q is no https URL", p.URL)
	case p.Format != "text" && p.Format != "json":
		return fmt.Errorf("format %q is neither text nor json", p.Format)
	case p.Format == "text" && len(p.Paths)+len(p.Where) > 0:
		return errors.New("a text has no paths")
	case len(p.Where) > 0 && len(p.Paths) == 0:
		return errors.New("where needs paths: it chooses among the objects that they lead through")
	}
	return nil
}

// Read finds the addresses in the published document. What is no address is an error: a
// page that says that the list has moved must not pass for one.
func (p *AddressList) Read(doc []byte) ([]netip.Prefix, error) {
	var texts []string
	if p.Format == "text" {
		for line := range bytes.Lines(doc) {
			line, _, _ = bytes.Cut(line, []byte{'#'})
			if line = bytes.TrimSpace(line); len(line) > 0 {
				texts = append(texts, string(line))
			}
		}
		return readRanges(texts)
	}
	var parser fastjson.Parser
	v, err := parser.ParseBytes(doc)
	if err != nil {
		return nil, errors.New("it is no JSON: " + clipText(err.Error(), 200))
	}
	paths := p.Paths
	if len(paths) == 0 {
		paths = []string{""}
	}
	for _, path := range paths {
		at := []*fastjson.Value{v}
		parts := strings.FieldsFunc(path, func(r rune) bool { return r == '.' })
		for i, part := range parts {
			if i == len(parts)-1 {
				at = p.among(at)
			}
			at = descend(at, part)
		}
		found := len(texts)
		for _, v := range at {
			if v.Type() == fastjson.TypeArray {
				for _, element := range descend([]*fastjson.Value{v}, "*") {
					texts = appendText(texts, element)
				}
			}
			texts = appendText(texts, v)
		}
		if len(texts) == found {
			return nil, fmt.Errorf("it has no addresses at %q: its form has changed", path)
		}
	}
	return readRanges(texts)
}

func appendText(texts []string, v *fastjson.Value) []string {
	if s, err := v.StringBytes(); err == nil {
		texts = append(texts, string(s))
	}
	return texts
}

// among keeps the objects that Where fits.
func (p *AddressList) among(at []*fastjson.Value) (out []*fastjson.Value) {
	if len(p.Where) == 0 {
		return at
	}
	for _, v := range at {
		fits := true
		for name, want := range p.Where {
			fits = fits && says(v.Get(name), want)
		}
		if fits {
			out = append(out, v)
		}
	}
	return out
}

// says: a text that is want, or a list with it.
func says(v *fastjson.Value, want string) bool {
	if v == nil {
		return false
	}
	for _, x := range append(v.GetArray(), v) {
		if s, err := x.StringBytes(); err == nil && string(s) == want {
			return true
		}
	}
	return false
}

// descend goes one part down a path; * is every element of a list or member of an object.
func descend(at []*fastjson.Value, part string) (out []*fastjson.Value) {
	for _, v := range at {
		switch {
		case part != "*":
			if x := v.Get(part); x != nil {
				out = append(out, x)
			}
		case v.Type() == fastjson.TypeArray:
			out = append(out, v.GetArray()...)
		case v.Type() == fastjson.TypeObject:
			v.GetObject().Visit(func(_ []byte, x *fastjson.Value) { out = append(out, x) })
		}
	}
	return out
}

func readRanges(texts []string) ([]netip.Prefix, error) {
	list, err := parseRanges(texts)
	if err != nil {
		return nil, errors.New(clipText(strings.TrimPrefix(err.Error(), "ip_ranges: "), 200))
	}
	return list, nil
}

func clipText(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
