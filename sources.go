package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"penstock/cli"
	"penstock/config"
	"penstock/forward"
	"penstock/ingest"
	"penstock/iplist"
	"penstock/notify"
	"penstock/provider"
	"penstock/vault"
	"penstock/verify"
)

// catalogue answers config's questions about providers.
type catalogue struct{ builtin *provider.Catalogue }

func (c catalogue) Provider(name string) (config.ProviderInfo, bool) {
	d, ok := c.builtin.Get(name)
	if !ok {
		return config.ProviderInfo{}, false
	}
	return providerInfo(d), true
}

func (c catalogue) Names() []string { return c.builtin.Names() }

func (c catalogue) Route(when string) error { return forward.CheckRoute(when) }

func (c catalogue) Where(where string) error { return notify.CheckWhere(where) }

func (c catalogue) Inline(node ast.Node) (config.ProviderInfo, error) {
	d, err := provider.FromNode(node)
	if err != nil {
		return config.ProviderInfo{}, err
	}
	return providerInfo(d), nil
}

func providerInfo(d *provider.Definition) config.ProviderInfo {
	ranges, _ := d.IPRanges()
	info := config.ProviderInfo{Name: d.Name, MaxBody: d.MaxBody(), RetryHorizon: d.RetryHorizon(), HasIPs: len(ranges) > 0, Captures: d.Captures(), Handle: d}
	places, err := d.TenantPlaces()
	switch {
	case err != nil:
		info.TenantError = err.Error()
	case places.Credential != nil:
		info.Tenant = places.Credential.Name
	}
	for _, s := range d.CredentialSpecs() {
		info.Credentials = append(info.Credentials, config.CredentialSpec{Name: s.Name, Secret: s.Secret, Required: s.Required, About: s.About, AnyOf: s.AnyOf})
	}
	return info
}

// epoch is what a delivery must be published by, whatever becomes of its source's
// configuration: it stands in the archive beside the deliveries, and holds no secret.
type epoch struct {
	Source     string          `json:"source"`
	Provider   string          `json:"provider"`
	Definition string          `json:"definition"` // YAML
	Topic      string          `json:"topic"`      // filled in; "" while no sink is configured
	Key        string          `json:"key,omitempty"`
	Routes     []forward.Route `json:"routes,omitempty"`
	Window     time.Duration   `json:"window_ns"`
	Group      string          `json:"group,omitempty"`
	Identity   string          `json:"identity,omitempty"`
	Mode       string          `json:"mode,omitempty"`
	Tenants    bool            `json:"tenants,omitempty"`
	Target     string          `json:"target,omitempty"`   // of forward.http
	NoKafka    bool            `json:"no_kafka,omitempty"` // forward.kafka: false
}

func epochOf(s *config.Source, f *config.Forward) ([]byte, error) {
	d := s.Definition.(*provider.Definition)
	e := epoch{Source: s.Name, Provider: d.Name, Definition: string(d.YAML()), Window: s.Dedupe.Window, Group: s.Dedupe.Group, Identity: s.Dedupe.Identity, Mode: s.Mode, Tenants: s.Tenants != nil}
	if f != nil {
		e.Topic, e.Target, e.NoKafka = topicOf(s, f, d.Name), targetName(s, f), !s.Forward.Kafka
	}
	e.Key, e.Routes = keyOf(s, f), routesOf(s, f)
	return json.Marshal(e)
}

// keyOf and routesOf are what stands in force of a source: its own, else everybody's.
func keyOf(s *config.Source, f *config.Forward) string {
	if s.Key == "" && f != nil && f.Kafka != nil {
		return f.Kafka.Key
	}
	return s.Key
}

func routesOf(s *config.Source, f *config.Forward) (out []forward.Route) {
	list := s.Routes
	if list == nil && f != nil {
		list = f.Routes
	}
	for _, r := range list {
		out = append(out, forward.Route{Name: r.Name, When: r.When, Topic: r.Topic, Key: r.Key, Drop: r.Drop})
	}
	return out
}

func topicOf(s *config.Source, f *config.Forward, providerName string) string {
	t := s.Topic
	switch {
	case f.Kafka == nil:
		return ""
	case t == "":
		t = f.Kafka.Topic
	}
	return strings.NewReplacer("{provider}", providerName, "{source}", s.Name).Replace(t)
}

// endpoints makes what the edge serves out of the configured sources. Every mistake is
// reported with the place of its source.
func endpoints(c *config.Config, kept *vault.Vault, keys cli.KeysOf, lists *iplist.Keeper, register func(source string, doc []byte) uint64) (out []ingest.Source, warnings []string, err error) {
	var errs []error
	for i := range c.Sources {
		s := &c.Sources[i]
		place := fmt.Sprintf("%s:%d:%d: source %s", c.Path, s.Line, s.Col, s.Name)
		e, weak, err := endpoint(s, kept, keys, lists)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		for _, w := range weak {
			warnings = append(warnings, place+": "+w)
		}
		doc, err := epochOf(s, c.Forward)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e.Epoch = register(s.Name, doc)
		out = append(out, e)
	}
	return out, warnings, errors.Join(errs...)
}

func endpoint(s *config.Source, kept *vault.Vault, keys cli.KeysOf, lists *iplist.Keeper) (e ingest.Source, warnings []string, err error) {
	d := s.Definition.(*provider.Definition)
	v, err := cli.NewVerifier(s, kept, keys)
	if err != nil {
		return e, nil, err
	}
	e = ingest.Source{Name: s.Name, Provider: d.Name, Path: s.Path, Methods: d.Methods(), Verifier: newLive(v), MaxBody: int64(s.MaxBody), PublicURL: s.URL()}
	if s.Rate != nil {
		e.Rate, e.Burst = s.Rate.PerSecond, s.Rate.Burst
	}
	if len(s.AllowIPs) > 0 {
		if e.Allow, err = allowed(s.AllowIPs, d, lists); err != nil {
			return e, nil, err
		}
		e.AllowTry = s.AllowMode == "shadow"
	}
	if s.ClientCA != "" {
		if e.ClientCA, err = certPool(s.ClientCA); err != nil {
			return e, nil, err
		}
	}
	return e, v.Warnings(), nil
}

// keysOf opens what providers publish at the hosts of a source, and fetches ahead what will
// be needed from the first delivery on.
func (p *program) keysOf(hosts, ahead []string) (verify.KeySource, error) {
	view := p.keys.For(hosts...)
	for _, url := range ahead {
		if err := view.Prefetch(url); err != nil {
			return nil, err
		}
	}
	return view, nil
}

func allowed(list []string, d *provider.Definition, lists *iplist.Keeper) (ingest.Allower, error) {
	var own []netip.Prefix
	var published *iplist.List
	for _, a := range list {
		if a == "provider" {
			published = lists.List(d)
			continue
		}
		p, err := parsePrefix(a)
		if err != nil {
			return nil, err
		}
		own = append(own, p)
	}
	switch {
	case published == nil:
		return verify.NewAllowlist(own), nil
	case len(own) == 0:
		return published, nil
	}
	return either{verify.NewAllowlist(own), published}, nil
}

// either allows what one of two lists allows: the networks written out, and the
// provider's, which changes under way.
type either struct {
	own       *verify.Allowlist
	published *iplist.List
}

// Contains asks both.
func (e either) Contains(ip netip.Addr) bool { return e.own.Contains(ip) || e.published.Contains(ip) }

// parsePrefix reads a CIDR or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no CIDR: %w", s, err)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func parsePrefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func certPool(path string) (*x509.CertPool, error) {
	path = strings.TrimPrefix(path, "file:")
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}
