package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"penstock/cli"
	"penstock/config"
	"penstock/ingest"
	"penstock/provider"
	"penstock/vault"
	"penstock/verify"
)

// live is the verifier of a source in force. A tenant or a captured secret replaces it
// whole, without a reload: deliveries in flight are finished by the one they began with.
type live struct {
	now atomic.Pointer[cli.SourceVerifier]
}

func newLive(v cli.SourceVerifier) *live {
	l := &live{}
	l.set(v)
	return l
}

func (l *live) set(v cli.SourceVerifier) { l.now.Store(&v) }

func (l *live) Verify(r *provider.Request, now time.Time) verify.Result {
	return (*l.now.Load()).Verify(r, now)
}

func (l *live) Ack(r *provider.Request, now time.Time) verify.Reply {
	return (*l.now.Load()).Ack(r, now)
}

// openVault opens the vault of the archive, nil where no key is configured. What is
// damaged in it is told, and keeps nobody else from being served.
func openVault(conf *config.Config, log *zap.Logger) (*vault.Vault, error) {
	key, previous, err := cli.VaultKeys(conf)
	if key == nil {
		return nil, err
	}
	v, err := vault.Open(cli.VaultDir(conf.Archive.Dir), key, previous...)
	if err != nil {
		return nil, err
	}
	for _, d := range v.Damaged() {
		log.Error("a secret that is kept cannot be read: its deliveries are refused until it is put again", zap.String("file", d))
	}
	return v, nil
}

// captures lets the sources keep what their handshakes deliver.
func (p *program) captures(list []ingest.Source) map[string]*live {
	lives := make(map[string]*live, len(list))
	for i := range list {
		name := list[i].Name
		lives[name], _ = list[i].Verifier.(*live)
		if p.vault != nil {
			list[i].Capture = func(c *verify.Capture, now time.Time) error { return p.capture(name, c, now) }
		}
	}
	return lives
}

// capture keeps a secret that a handshake delivered and puts it in force. It returns when
// both are done: the answer to the handshake promises it.
func (p *program) capture(source string, c *verify.Capture, now time.Time) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	err := p.vault.Capture(source, c.Credential, c.Secret, now.UTC())
	if errors.Is(err, vault.ErrKept) {
		return fmt.Errorf("%w: %w", ingest.ErrKept, err)
	}
	if err != nil {
		return err
	}
	p.log.Info("a handshake delivered a secret, which is kept", zap.String("source", source), zap.String("credential", c.Credential),
		zap.String("fingerprint", verify.Fingerprint(c.Secret)))
	return p.renew(source)
}

// renew compiles a source again with what is kept now; the caller holds p.changing.
func (p *program) renew(source string) error {
	s, l := operator{p}.source(source), p.live[source]
	if s == nil || l == nil {
		return nil // removed meanwhile; it is kept for when the source comes back
	}
	v, err := cli.NewVerifier(s, p.vault, p.keysOf)
	if err != nil {
		return err
	}
	l.set(v)
	return nil
}
