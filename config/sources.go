package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// sources resolves each source's provider and credentials: what the catalogue must be
// asked for.
func (d *decoder) sources(c *Config, cat Catalogue) {
	for i := range c.Sources {
		s := &c.Sources[i]
		path := fmt.Sprintf("sources[%d]", i)
		at := d.where(path)
		s.Line, s.Col = at.line, at.col
		info, ok := d.provider(s, path, cat)
		if !ok {
			d.references(join(path, "credentials"))
			continue
		}
		s.Definition = info.Handle
		s.Provider = info.Name
		d.credentials(s, path, info)
		d.providerRules(c, s, path, info)
	}
}

func (d *decoder) provider(s *Source, path string, cat Catalogue) (ProviderInfo, bool) {
	path = join(path, "provider")
	raw, ok := d.raw[path]
	if !ok {
		return ProviderInfo{}, false // that it is missing was said
	}
	n, ok := d.unwrap(raw, path)
	if !ok {
		return ProviderInfo{}, false
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return d.inline(n, s, path, cat)
	case *ast.StringNode:
		name, _, ok := d.text(n, path)
		if !ok {
			return ProviderInfo{}, false
		}
		info, ok := cat.Provider(name)
		if !ok {
			cure := suggest(name, cat.Names())
			if cure == "" {
				cure = "`penstock providers` lists them; or write a definition here"
			}
			d.fail(placeOf(n), path, fmt.Sprintf("unknown provider %q", name), cure)
		}
		return info, ok
	}
	d.wrongType(n, path, "a provider's name or a definition")
	return ProviderInfo{}, false
}

func (d *decoder) inline(n ast.Node, s *Source, path string, cat Catalogue) (ProviderInfo, bool) {
	before := len(d.list)
	d.plainTree(n, path)
	if len(d.list) > before {
		return ProviderInfo{}, false
	}
	info, err := cat.Inline(n)
	if err != nil {
		d.inlineErrors(err, n, path)
		return ProviderInfo{}, false
	}
	s.Inline, s.inlineText = true, n.String()
	return info, true
}

// plainTree refuses what the decoder of definitions would read in its own way: repeated
// keys (the file was parsed with them allowed, to report all at once) and aliases.
func (d *decoder) plainTree(n ast.Node, path string) {
	if d.depth++; d.depth > maxDepth {
		d.fail(placeOf(n), path, "nested too deeply", "")
		d.depth--
		return
	}
	defer func() { d.depth-- }()
	switch m := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		d.entries(m, path, func(key string, _ place, value ast.Node) {
			if value != nil && !isNil(value) {
				d.plainTree(value, join(path, key))
			}
		})
	case *ast.SequenceNode:
		for i, v := range m.Values {
			d.plainTree(v, fmt.Sprintf("%s[%d]", path, i))
		}
	case *ast.AliasNode, *ast.AnchorNode, *ast.TagNode:
		d.fail(placeOf(n), path, "anchors, aliases and tags are not read in a definition", "write the value out")
	}
}

// placedMessage is an error that begins with its place, as a definition's compiler says it.
var placedMessage = regexp.MustCompile(`(?s)^(\d{1,9}):(\d{1,9}): (.*)$`)

func (d *decoder) inlineErrors(err error, n ast.Node, path string) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			d.inlineErrors(e, n, path)
		}
		return
	}
	at, msg := placeOf(n), err.Error()
	var ye yaml.Error
	if errors.As(err, &ye) {
		if p := placeOfToken(ye.GetToken()); p.line > 0 {
			at = p
		}
		msg = ye.GetMessage()
	} else if m := placedMessage.FindStringSubmatch(msg); m != nil {
		at.line, _ = strconv.Atoi(m[1])
		at.col, _ = strconv.Atoi(m[2])
		msg = m[3]
	}
	d.fail(at, path, strings.Join(strings.Fields(msg), " "), "")
}

func (d *decoder) credentials(s *Source, path string, info ProviderInfo) {
	path = join(path, "credentials")
	s.Credentials = map[string][]Secret{}
	given := map[string]bool{}
	if raw, ok := d.raw[path]; ok {
		if n, ok := d.unwrap(raw, path); ok {
			d.entries(n, path, func(key string, at place, value ast.Node) {
				p := join(path, key)
				d.at[p] = at
				if key == tenantsKey && !slices.ContainsFunc(info.Credentials, func(c CredentialSpec) bool { return c.Name == key }) {
					d.tenants(s, value, p, info)
					return
				}
				given[key] = true
				i := slices.IndexFunc(info.Credentials, func(c CredentialSpec) bool { return c.Name == key })
				if i < 0 {
					d.fail(at, p, fmt.Sprintf("%s has no such credential", info.Name), credentialCure(key, info))
					return
				}
				s.Credentials[key] = d.credential(value, p, info.Credentials[i], s.Mode)
			})
		}
	}
	if s.Tenants == nil || len(given) > 0 { // beside tenants: of deliveries that name no merchant
		d.missing(path, info, given)
	}
}

// references looks whether the credentials of an unknown provider can be read at all, so
// that an unset variable is named in the same run as the misspelt provider.
func (d *decoder) references(path string) {
	raw, ok := d.raw[path]
	if !ok {
		return
	}
	n, ok := d.unwrap(raw, path)
	if !ok {
		return
	}
	d.entries(n, path, func(key string, _ place, value ast.Node) {
		if key == tenantsKey {
			return
		}
		d.credential(value, join(path, key), CredentialSpec{Name: key}, "")
	})
}

func credentialCure(key string, info ProviderInfo) string {
	var names []string
	for _, c := range info.Credentials {
		names = append(names, c.Name)
	}
	if cure := suggest(key, names); cure != "" {
		return cure
	}
	if len(names) == 0 {
		return "it needs none"
	}
	return "it knows " + strings.Join(names, ", ")
}

// credential reads one value or a list of them.
func (d *decoder) credential(n ast.Node, path string, spec CredentialSpec, mode string) []Secret {
	n, ok := d.unwrap(n, path)
	if !ok {
		return nil
	}
	values := []ast.Node{n}
	paths := []string{path}
	if seq, ok := n.(*ast.SequenceNode); ok {
		values, paths = seq.Values, nil
		for i := range values {
			paths = append(paths, fmt.Sprintf("%s[%d]", path, i))
		}
		if len(values) == 0 {
			d.fail(placeOf(n), path, "is an empty list", "without a credential nothing can be verified")
		}
	}
	least := 1
	if spec.Secret {
		least = leastSecret
	}
	var out []Secret
	for i, v := range values {
		v, ok := d.unwrap(v, paths[i])
		if !ok {
			continue
		}
		secret, ok := d.secret(v, paths[i], least)
		if !ok {
			continue
		}
		if slices.Contains(out, secret) {
			d.warn(placeOf(v), paths[i], "is the same as one before it", "remove it")
			continue
		}
		d.sample(v, paths[i], secret, mode)
		out = append(out, secret)
	}
	return out
}

func (d *decoder) sample(n ast.Node, path string, s Secret, mode string) {
	from, ok := sampleSecrets[s.Reveal()]
	switch {
	case ok && mode == "test":
		d.warn(placeOf(n), path, "is the public sample of "+from, "everybody can sign with it")
	case ok:
		d.fail(placeOf(n), path, "is the public sample of "+from, "use your own, or say mode: test in this source")
	}
}

func (d *decoder) missing(path string, info ProviderInfo, given map[string]bool) {
	groups, has := map[string][]string{}, map[string]bool{}
	for _, c := range info.Credentials {
		if c.Required && c.AnyOf == "" && !given[c.Name] {
			d.fail(d.where(path), join(path, c.Name), "is missing", c.About)
		}
		if c.AnyOf != "" {
			groups[c.AnyOf] = append(groups[c.AnyOf], c.Name)
			has[c.AnyOf] = has[c.AnyOf] || given[c.Name]
		}
	}
	for g, names := range groups {
		if !has[g] {
			d.fail(d.where(path), path, info.Name+" needs one of "+strings.Join(names, ", "), "")
		}
	}
}

// providerRules checks a source against what its provider documents, and fills in what
// depends on it.
func (d *decoder) providerRules(c *Config, s *Source, path string, info ProviderInfo) {
	for i, a := range s.AllowIPs {
		if p := fmt.Sprintf("%s.allow_ips[%d]", path, i); a == "provider" && !info.HasIPs {
			d.fail(d.where(p), p, info.Name+" publishes no list of addresses", "write the networks out")
		}
	}
	sealed := c.Archive.Encryption != nil
	if name := info.Captures; name != "" && s.Tenants == nil && len(s.Credentials[name]) == 0 && !sealed {
		d.fail(d.where(join(path, "credentials")), join(path, "credentials."+name),
			fmt.Sprintf("is missing, and what %s delivers in its handshake cannot be kept: it is kept sealed", info.Name),
			"give archive.encryption.key (openssl rand -hex 32 makes one), or the secret itself")
	}
	if s.Tenants != nil && len(s.Tenants) == 0 && !sealed {
		d.warn(d.where(join(path, "credentials")), join(path, "credentials."+tenantsKey), "holds no merchant, and none can be put by the API",
			"give archive.encryption.key (openssl rand -hex 32 makes one), or a file")
	}
	if s.MaxBody == 0 {
		s.MaxBody = c.Ingest.MaxBody
		if _, set := d.at["ingest.max_body"]; !set && Size(info.MaxBody) > s.MaxBody {
			s.MaxBody = Size(info.MaxBody)
		}
	}
	window := s.Dedupe.Window
	if window == 0 {
		window = c.Dedupe.Window
	}
	if info.RetryHorizon > window {
		d.warn(d.where(path), join(path, "dedupe.window"),
			fmt.Sprintf("%s is shorter than %s repeats (%s)", FormatDuration(window), info.Name, FormatDuration(info.RetryHorizon)),
			"a late repeat would be published again")
	}
}
