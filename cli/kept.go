package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"penstock/config"
	"penstock/provider"
	"penstock/vault"
	"penstock/verify"
)

// SourceVerifier is what verifies the deliveries of a source: of one merchant, or of many.
type SourceVerifier interface {
	Verify(r *provider.Request, now time.Time) verify.Result
	Ack(r *provider.Request, now time.Time) verify.Reply
	Explain(r *provider.Request, now time.Time) verify.Explanation
	ExplainAmong(r *provider.Request, now time.Time, around verify.Surroundings) verify.Explanation
	Warnings() []string
}

// KeysOf opens what providers publish at some hosts, for a verifier; ahead are addresses
// that are known before any delivery.
type KeysOf func(hosts, ahead []string) (verify.KeySource, error)

// NewVerifier compiles a source with what its configuration and the vault know; kept and
// keys may be nil: then published keys are unavailable. What the configuration says counts
// before what is kept.
func NewVerifier(s *config.Source, kept *vault.Vault, keys KeysOf) (SourceVerifier, error) {
	d, ok := s.Definition.(*provider.Definition)
	if !ok {
		return nil, fmt.Errorf("BUG: source %s holds a %T for a definition", s.Name, s.Definition)
	}
	opts := verify.Options{Tolerance: s.Tolerance, Settings: s.Settings}
	own := revealed(s.Credentials)
	if hosts, ahead := verify.PublishedHosts(d, own, s.Settings); len(hosts) > 0 && keys != nil {
		var err error
		if opts.Keys, err = keys(hosts, ahead); err != nil {
			return nil, err
		}
	}
	if s.Tenants != nil {
		return verify.NewTenants(d, own, tenantsOf(s, kept), opts)
	}
	if name := d.Captures(); name != "" && kept != nil && len(own[name]) == 0 {
		// One that is damaged is none: deliveries wait for an operator, and no handshake
		// replaces it.
		if e, ok, err := kept.Get(s.Name, vault.Captured, name); ok && err == nil {
			own[name] = e.Values[name]
		}
	}
	return verify.New(d, own, opts)
}

func revealed(creds map[string][]config.Secret) provider.Credentials {
	out := provider.Credentials{}
	for name, values := range creds {
		for _, v := range values {
			out[name] = append(out[name], v.Reveal())
		}
	}
	return out
}

func tenantsOf(s *config.Source, kept *vault.Vault) map[string]provider.Credentials {
	out := make(map[string]provider.Credentials, len(s.Tenants))
	if kept != nil {
		for _, e := range kept.List(s.Name, vault.Tenant) {
			out[e.Name] = e.Values
		}
	}
	for id, creds := range s.Tenants {
		out[id] = revealed(creds)
	}
	return out
}

// VaultDir is where the vault of an archive is.
func VaultDir(archive string) string { return filepath.Join(archive, "vault") }

// VaultKeys are the keys of the configuration, the one in force first; none = there is no
// vault.
func VaultKeys(c *config.Config) (key []byte, previous [][]byte, err error) {
	e := c.Archive.Encryption
	if e == nil {
		return nil, nil, nil
	}
	if key, err = e.Key.Key(); err != nil {
		return nil, nil, fmt.Errorf("archive.encryption.key: %w", err)
	}
	for i, s := range e.Previous {
		k, err := s.Key()
		if err != nil {
			return nil, nil, fmt.Errorf("archive.encryption.previous[%d]: %w", i, err)
		}
		previous = append(previous, k)
	}
	return key, previous, nil
}

// readVault looks into the vault beside a running gateway; nil where there is none.
func readVault(c *config.Config) (*vault.Vault, error) {
	key, previous, err := VaultKeys(c)
	if key == nil {
		return nil, err
	}
	return vault.Read(VaultDir(c.Archive.Dir), key, previous...)
}

// signerOf is a verifier that signs: where a source has many merchants, of the first.
func signerOf(s *config.Source) (*verify.Verifier, error) {
	v, err := NewVerifier(s, nil, nil)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *verify.Verifier:
		return v, nil
	case *verify.Tenants:
		if names := slices.Sorted(maps.Keys(s.Tenants)); len(names) > 0 {
			return v.Verifier(names[0]), nil
		}
	}
	return nil, fmt.Errorf("source %s has no merchant in its configuration to sign for", s.Name)
}
