package provider

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Definition is one provider as data: how its deliveries are proved (Scheme), what they
// say (the rest). It is compiled by Parse or FromNode and immutable afterwards; all its
// methods are safe for concurrent use.
type Definition struct {
	Name  string `yaml:"name"`
	Title string `yaml:"title,omitempty"`
	// Family is the provider's name in its own event types, where one provider has several
	// definitions; unset: Name.
	Family string `yaml:"family,omitempty"`
	Docs   string `yaml:"docs,omitempty"` // address of the provider's own documentation
	// Setup says where at the provider the URL is entered and the secret is found.
	Setup string `yaml:"setup,omitempty"`
	// Weaknesses are what the scheme does not protect from, for `providers show`.
	Weaknesses []string `yaml:"weaknesses,omitempty"`

	Scheme `yaml:",inline"`

	// HTTPMethods are the methods of deliveries and challenges; default POST.
	HTTPMethods []string `yaml:"methods,omitempty"`
	// BodyLimit is the provider's documented maximum of a body; 0 = not documented.
	BodyLimit Size `yaml:"max_body,omitempty"`
	// Retry is how the provider repeats itself.
	Retry Retry `yaml:"retry,omitempty"`
	// Window is the dedupe window that the definition suggests; 0 = from Retry.Horizon.
	Window time.Duration `yaml:"window,omitempty"`
	// Addresses are the provider's own published sender addresses, dated.
	Addresses Addresses `yaml:"ip_ranges,omitempty"`

	// Document says how the document is found in the request: the first reader that
	// fits is taken. Unset: json, form, query.
	Document []Reader `yaml:"document,omitempty"`
	// Decrypt opens a sealed member of the document with a credential of the source.
	Decrypt *Decrypt `yaml:"decrypt,omitempty"`
	// Items are the paths of the batch, "entry.*.changes.*": one event per element. Of
	// several, all that are there count, in this order. Unset: the document is the item.
	Items []ItemPath `yaml:"items,omitempty"`
	// MaxItems bounds a batch; more is an error, never a cut. Default 10000.
	MaxItems int `yaml:"max_items,omitempty"`

	// SignedItems is "first" where the signature covers the first item of a batch alone:
	// the others are marked unverified, and their identity takes their content.
	SignedItems string `yaml:"signed_items,omitempty"`

	// Event says where the fields of the event stand; Shapes replace single fields where
	// their condition holds (the first that does).
	Event  Fields  `yaml:"event,omitempty"`
	Shapes []Shape `yaml:"shapes,omitempty"`
	// Identity is the dedupe identity; unset it follows from what the scheme signs.
	Identity Identity `yaml:"identity,omitempty"`
	// Rerendered: retries are rendered anew, other bytes under one id are the same event.
	Rerendered bool `yaml:"rerendered,omitempty"`
	// Exponents are the provider's own decimals where they differ from ISO 4217.
	Exponents map[string]int `yaml:"exponents,omitempty"`

	// IgnoreCase compares types and statuses without regard to case.
	IgnoreCase bool `yaml:"ignore_case,omitempty"`
	// Canonical maps to the canonical types: the first row that fits. Unset (not empty):
	// the suggested map of canonical.md section 7, by status.
	Canonical []Row `yaml:"canonical,omitempty"`
	// Once names the states that this provider may say again under a new id: per what
	// they name the canonical type goes out once, later ones as the provider's own.
	Once []Once `yaml:"once,omitempty"`
	// Failure explains failures.
	Failure Failure `yaml:"failure,omitempty"`

	// SecretFields are paths whose values never leave the archive.
	SecretFields []Ref `yaml:"secret_fields,omitempty"`
	// UnverifiedFields are event fields that are not proved although they stand in the
	// signed bytes' neighbourhood; what the scheme's template leaves out is found alone.
	UnverifiedFields []string `yaml:"unverified_fields,omitempty"`
	// NeedsFetch: nobody books before asking the provider. Unset: where type, status,
	// amount or currency stand in the document unsigned.
	NeedsFetch *bool `yaml:"needs_fetch,omitempty"`

	// Samples are realistic deliveries for `penstock send`, one per type.
	Samples Samples `yaml:"samples,omitempty"`

	prog *program
}

// Retry is a provider's way of repeating deliveries.
type Retry struct {
	Horizon  time.Duration `yaml:"horizon,omitempty"`  // from the first attempt to the last
	Timeout  time.Duration `yaml:"timeout,omitempty"`  // how long it waits for an answer
	Schedule string        `yaml:"schedule,omitempty"` // in words
	Source   string        `yaml:"source,omitempty"`
}

// Addresses is a published list of sender addresses.
type Addresses struct {
	Date   string   `yaml:"date,omitempty"` // when it was read, 2006-01-02
	Source string   `yaml:"source,omitempty"`
	Ranges []string `yaml:"ranges,omitempty"` // CIDR or single addresses
	Test   []string `yaml:"test,omitempty"`   // the provider's sandbox
	// None says, where there is no list, why: that it is the sender's own server, or that
	// no list is known.
	None string `yaml:"none,omitempty"`
	// Refresh is where the provider publishes them, the sandbox's too; all of it together is
	// the list.
	Refresh []AddressList `yaml:"refresh,omitempty"`
}

// Parse reads a definition from YAML text. name is what errors call the text. Every
// mistake is found at load, with line and column.
func Parse(name string, text []byte) (*Definition, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, located(err))
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s:1:1: a definition is one YAML document", name)
	}
	d, err := FromNode(file.Docs[0].Body)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return d, nil
}

// FromNode compiles a definition that stands inside another document, a source's
// `provider:` mapping. Errors begin with "line:column: " of that document; several are
// joined, one a line.
func FromNode(node ast.Node) (*Definition, error) {
	var d Definition
	unknown := unknownKeys(node, reflect.TypeFor[Definition]())
	if err := yaml.NodeToValue(node, &d, decodeOptions(len(unknown) == 0)...); err != nil {
		if err = located(err); len(unknown) > 0 && strings.Contains(err.Error(), "unknown field") {
			return nil, errors.Join(unknown...) // one of them again, by a part that is read by code of its own
		}
		return nil, errors.Join(append(unknown, err)...)
	}
	errs := append(unknown, d.Validate()...)
	if err := d.compile(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, atNode(node, errors.Join(errs...))
	}
	return &d, nil
}

// decodeOptions: strict, unless the unknown keys were found already; what else is wrong is
// then named in the same run.
func decodeOptions(strict bool) []yaml.DecodeOption {
	if strict {
		return []yaml.DecodeOption{yaml.Strict()}
	}
	return nil
}

// YAML is the definition's canonical text: it holds no secret, it parses to the same
// behaviour, and it stands in the archive beside what was accepted under it. Samples
// and prose are left out.
func (d *Definition) YAML() []byte {
	c := *d
	c.Samples, c.Setup, c.Weaknesses, c.prog = Samples{}, "", nil, nil
	for i := range c.Canonical {
		if i == 0 {
			c.Canonical = append([]Row(nil), d.Canonical...)
		}
		c.Canonical[i].Source, c.Canonical[i].Note = "", ""
	}
	text, err := yaml.Marshal(&c)
	if err != nil { // a Definition holds plain data only, so this is a bug in its types
		panic(fmt.Sprintf("provider %s: write as yaml: %v", d.Name, err))
	}
	return text
}

// Methods are the HTTP methods that the provider uses, challenges included.
func (d *Definition) Methods() []string {
	out := append([]string(nil), d.HTTPMethods...)
	if len(out) == 0 {
		out = append(out, "POST")
	}
	for _, m := range d.ChallengeMethods() {
		if !contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// MaxBody is the provider's documented maximum of a body in bytes; 0 = not documented.
func (d *Definition) MaxBody() int64 { return int64(d.BodyLimit) }

// RetryHorizon is the time from a provider's first attempt to its last; 0 = unknown.
func (d *Definition) RetryHorizon() time.Duration { return d.Retry.Horizon }

// DedupeWindow is the dedupe window that the definition asks for: at least the retry
// horizon and time for a manual resend. 0 = no opinion.
func (d *Definition) DedupeWindow() time.Duration {
	if d.Window > 0 {
		return d.Window
	}
	return d.Retry.Horizon
}

// IPRanges is the provider's published list with the day it was read. Test addresses
// are among them: a sandbox signs with keys of its own.
func (d *Definition) IPRanges() ([]netip.Prefix, string) {
	return d.prog.ranges, d.Addresses.Date
}

func parseRanges(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		if strings.Contains(s, "/") {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("ip_ranges: %q is no address range", s)
			}
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("ip_ranges: %q is no address", s)
		}
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out, nil
}
