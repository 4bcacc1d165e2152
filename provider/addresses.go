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
	// "items.*.cidr". None: the document is the list.
	Paths []string `yaml:"paths,omitempty"`
}

func (p *AddressList) validate() error {
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil:
		return fmt.Errorf("%q is no https URL", p.URL)
	case p.Format != "text" && p.Format != "json":
		return fmt.Errorf("format %q is neither text nor json", p.Format)
	case p.Format == "text" && len(p.Paths) > 0:
		return errors.New("a text has no paths")
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
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	paths := p.Paths
	if len(paths) == 0 {
		paths = []string{""}
	}
	for _, path := range paths {
		at := []*fastjson.Value{v}
		for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' }) {
			at = descend(at, part)
		}
		found := len(texts)
		for _, v := range descend(at, "*") {
			if s, err := v.StringBytes(); err == nil {
				texts = append(texts, string(s))
			}
		}
		for _, v := range at {
			if s, err := v.StringBytes(); err == nil {
				texts = append(texts, string(s))
			}
		}
		if len(texts) == found {
			return nil, fmt.Errorf("it has no addresses at %q: its form has changed", path)
		}
	}
	return readRanges(texts)
}

// descend goes one part down a path; * is every element of a list.
func descend(at []*fastjson.Value, part string) (out []*fastjson.Value) {
	for _, v := range at {
		if part != "*" {
			if x := v.Get(part); x != nil {
				out = append(out, x)
			}
			continue
		}
		if list, err := v.Array(); err == nil {
			out = append(out, list...)
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
