package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// devDir is where `penstock dev` keeps everything unless told otherwise.
const devDir = "./.penstock"

// devConfig is the config in force of a dev directory.
func devConfig(dir string) string { return filepath.Join(dir, "penstock.yaml") }

// verifierOf builds what checks and signs deliveries of a source.
func verifierOf(s *config.Source) (*verify.Verifier, error) {
	d, ok := s.Definition.(*provider.Definition)
	if !ok {
		return nil, fmt.Errorf("BUG: source %s holds a %T for a definition", s.Name, s.Definition)
	}
	return verify.New(d, credentialsOf(s), verify.Options{Tolerance: s.Tolerance, Settings: s.Settings})
}

func credentialsOf(s *config.Source) provider.Credentials {
	creds := provider.Credentials{}
	for name, values := range s.Credentials {
		for _, v := range values {
			creds[name] = append(creds[name], v.Reveal())
		}
	}
	return creds
}

// findSource takes the source by name, or the one of a provider.
func findSource(c *config.Config, name, providerName string) (*config.Source, error) {
	var names []string
	for i := range c.Sources {
		s := &c.Sources[i]
		if name != "" && s.Name == name {
			if providerName != "" && s.Provider != providerName {
				return nil, fmt.Errorf("source %s is of provider %s, not %s", name, s.Provider, providerName)
			}
			return s, nil
		}
		if name == "" && s.Provider == providerName {
			return s, nil
		}
		names = append(names, s.Name)
	}
	if name != "" {
		return nil, fmt.Errorf("%s has no source %q; it has %s", c.Path, name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s has no source of provider %q; it has %s", c.Path, providerName, strings.Join(names, ", "))
}

// localClient reaches a listener of this machine. A certificate is made out for the
// public name, so on loopback, where nobody sits between, it is not compared.
func localClient(base string) *http.Client {
	t := &http.Transport{}
	if u, err := url.Parse(base); err == nil {
		if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() {
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // loopback only, see above
		}
	}
	return &http.Client{Transport: t, CheckRedirect: noRedirect}
}

// noRedirect: a gateway never redirects, so one that does is not the gateway.
func noRedirect(*http.Request, []*http.Request) error {
	return errors.New("it answered with a redirect")
}
