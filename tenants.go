package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock/admin"
	"penstock/config"
	"penstock/provider"
	"penstock/vault"
	"penstock/verify"
)

// errNoVault is what everything that must be kept is refused with.
var errNoVault = errors.New("nothing can be kept: give archive.encryption.key in the configuration (openssl rand -hex 32 makes one) and restart")

// many gives a source with many merchants and what verifies it; the caller holds p.changing.
func (o operator) many(name string) (*config.Source, *verify.Tenants, error) {
	s, l := o.source(name), o.live[name]
	if s == nil || l == nil {
		return nil, nil, fmt.Errorf("%w: no source is called %q", admin.ErrNotFound, name)
	}
	t, ok := (*l.now.Load()).(*verify.Tenants)
	if !ok {
		return nil, nil, fmt.Errorf("%w: source %s has one merchant; for many say credentials: {tenants: {}} in the configuration", admin.ErrConflict, name)
	}
	return s, t, nil
}

// Tenants lists the merchants behind a source.
func (o operator) Tenants(_ context.Context, name string) ([]admin.Tenant, error) {
	o.changing.Lock()
	defer o.changing.Unlock()
	s, t, err := o.many(name)
	if err != nil {
		return nil, err
	}
	out := make([]admin.Tenant, 0, t.Len())
	for id := range s.Tenants {
		out = append(out, admin.Tenant{ID: id, From: admin.FromFile, Fingerprints: t.Fingerprints(id)})
	}
	if o.vault != nil {
		for _, e := range o.vault.List(name, vault.Tenant) {
			if _, file := s.Tenants[e.Name]; !file {
				out = append(out, admin.Tenant{ID: e.Name, From: admin.FromAPI, Fingerprints: t.Fingerprints(e.Name), At: &e.At, By: e.By})
			}
		}
	}
	slices.SortFunc(out, func(a, b admin.Tenant) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// PutTenant keeps a merchant's credentials and puts them in force.
func (o operator) PutTenant(_ context.Context, name, id string, creds map[string][]string, by string) (one admin.Tenant, created bool, err error) {
	o.changing.Lock()
	defer o.changing.Unlock()
	s, t, err := o.many(name)
	switch {
	case err != nil:
		return one, false, err
	case o.vault == nil:
		return one, false, fmt.Errorf("%w: %w", admin.ErrConflict, errNoVault)
	case s.Tenants[id] != nil:
		return one, false, fmt.Errorf("%w: tenant %q stands in the configuration: change it there", admin.ErrConflict, id)
	}
	if err := goodSecrets(s.Definition.(*provider.Definition), creds); err != nil {
		return one, false, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	next, err := t.With(id, creds)
	if err != nil {
		class := admin.ErrInvalid
		if errors.Is(err, verify.ErrSharedSecret) {
			class = admin.ErrConflict
		}
		return one, false, fmt.Errorf("%w: %w", class, err)
	}
	at := time.Now().UTC()
	if err := o.vault.Put(vault.Entry{Source: name, Kind: vault.Tenant, Name: id, Values: maps.Clone(creds), At: at, By: by}); err != nil {
		return one, false, fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	created = t.Fingerprints(id) == nil
	o.live[name].set(next)
	return admin.Tenant{ID: id, From: admin.FromAPI, Fingerprints: next.Fingerprints(id), At: &at, By: by}, created, nil
}

// leastSecret is CONTRACT's bound, as for the secrets of the configuration.
const leastSecret = 8

func goodSecrets(d *provider.Definition, creds map[string][]string) error {
	for _, spec := range d.CredentialSpecs() {
		for _, v := range creds[spec.Name] {
			if spec.Secret && len(v) < leastSecret {
				return fmt.Errorf("credential %s has %d bytes; a secret has at least %d", spec.Name, len(v), leastSecret)
			}
		}
	}
	return nil
}

// DeleteTenant takes a merchant that the API put away.
func (o operator) DeleteTenant(_ context.Context, name, id, _ string) error {
	o.changing.Lock()
	defer o.changing.Unlock()
	s, t, err := o.many(name)
	switch {
	case err != nil:
		return err
	case s.Tenants[id] != nil:
		return fmt.Errorf("%w: tenant %q stands in the configuration: remove it there", admin.ErrConflict, id)
	case o.vault == nil:
		return fmt.Errorf("%w: source %s has no tenant %q", admin.ErrNotFound, name, id)
	}
	there, err := o.vault.Delete(name, vault.Tenant, id)
	if err != nil {
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	if !there {
		return fmt.Errorf("%w: source %s has no tenant %q", admin.ErrNotFound, name, id)
	}
	o.live[name].set(t.Without(id))
	return nil
}

// capturing gives a source whose provider delivers a secret in its handshake.
func (o operator) capturing(name string) (*config.Source, string, error) {
	s := o.source(name)
	if s == nil {
		return nil, "", fmt.Errorf("%w: no source is called %q", admin.ErrNotFound, name)
	}
	credential := s.Definition.(*provider.Definition).Captures()
	if credential == "" {
		return nil, "", fmt.Errorf("%w: no handshake of %s delivers a secret", admin.ErrNotFound, s.Provider)
	}
	if o.vault == nil {
		return nil, "", fmt.Errorf("%w: %w", admin.ErrConflict, errNoVault)
	}
	return s, credential, nil
}

// Captured gives the secret that a handshake of the source delivered.
func (o operator) Captured(_ context.Context, name string) (admin.Captured, error) {
	_, credential, err := o.capturing(name)
	if err != nil {
		return admin.Captured{}, err
	}
	e, ok, err := o.vault.Get(name, vault.Captured, credential)
	switch {
	case err != nil:
		return admin.Captured{}, fmt.Errorf("%w: %w; clear it and let the provider shake hands again", admin.ErrConflict, err)
	case !ok:
		return admin.Captured{}, fmt.Errorf("%w: source %s has had no handshake yet", admin.ErrNotFound, name)
	}
	secret := e.Values[credential][0]
	return admin.Captured{Credential: credential, Secret: secret, Fingerprint: verify.Fingerprint(secret), At: e.At}, nil
}

// ClearCaptured forgets it, so that the next handshake is the first again.
func (o operator) ClearCaptured(_ context.Context, name, _ string) error {
	o.changing.Lock()
	defer o.changing.Unlock()
	_, credential, err := o.capturing(name)
	if err != nil {
		return err
	}
	there, err := o.vault.Delete(name, vault.Captured, credential)
	if err != nil {
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	if !there {
		return fmt.Errorf("%w: source %s keeps no captured secret", admin.ErrNotFound, name)
	}
	return o.renew(name)
}
