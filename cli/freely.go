package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"penstock/provider"
	"penstock/verify"
)

// aimFreely signs for a server that is not configured here: the provider is one of the
// catalogue, the secret is given, and what else the scheme wants is made up.
func (a *app) aimFreely(f *sendFlags, l *load) (*provider.Definition, int) {
	def, ok := a.w.Providers.Get(f.provider)
	if !ok {
		return nil, a.fail(exitUsage, "%v", unknownProvider(f.provider, a.w.Providers.Names()))
	}
	if f.to == "" {
		return nil, a.usageError("send", "--secret without -c or --dir wants --to URL")
	}
	to := f.to
	if !strings.Contains(to, "://") {
		to = "http://" + to
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, a.usageError("send", "--to: %q is no http or https URL", f.to)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	creds, err := verify.DevCredentials(def, randomReader)
	if err == nil {
		err = putSecret(def, creds, f.secret)
	}
	if err != nil {
		return nil, a.usageError("send", "--secret: %v", err)
	}
	if l.verifier, err = verify.New(def, creds, verify.Options{}); err != nil {
		return nil, a.fail(exitUsage, "%s: %v", def.Name, err)
	}
	l.to, l.signURL, l.free = u, u.String(), true
	return def, a.arm(l, def, creds, verify.Options{})
}

// putSecret puts the one given secret into its place among the credentials.
func putSecret(def *provider.Definition, creds provider.Credentials, text string) error {
	secret, err := readSecret(text)
	if err != nil {
		return err
	}
	for _, role := range []string{"key", "password"} {
		for _, c := range def.EffectiveCredentials() {
			if c.Role == role {
				creds[c.Name] = []string{secret}
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not signed with a shared secret; its private key is the credential signing_key of a source in -c FILE", def.Name)
}

// readSecret reads a value, or where it stands: a secret on the command line is seen by
// every process of the machine.
func readSecret(text string) (string, error) {
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		v := os.Getenv(name)
		if v == "" {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return v, nil
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text = strings.TrimRight(string(b), "\r\n")
	}
	if text == "" {
		return "", errors.New("it is empty")
	}
	return text, nil
}

// listSamples prints what can be sent.
func (a *app) listSamples(f *sendFlags) int {
	def, ok := a.w.Providers.Get(f.provider)
	if !ok || f.file != "" {
		cfg, code := a.sendConfig(f)
		if cfg == nil {
			if !ok {
				return a.fail(exitUsage, "%v", unknownProvider(f.provider, a.w.Providers.Names()))
			}
			return code
		}
		s, err := findSource(cfg, f.source, f.provider)
		if err != nil {
			return a.fail(exitUsage, "%v", err)
		}
		def = s.Definition.(*provider.Definition)
	}
	rows := [][]string{}
	out := []map[string]any{}
	for i, s := range def.SampleTypes() {
		becomes := s.Canonical
		if becomes == "provider" || becomes == "" {
			becomes = def.Name + ".<type>"
		}
		note := ""
		if i == 0 {
			note = "default"
		}
		rows = append(rows, []string{s.Type, becomes, note})
		out = append(out, map[string]any{"type": s.Type, "becomes": becomes, "default": i == 0})
	}
	if f.json {
		return a.printJSON(map[string]any{"provider": def.Name, "samples": out})
	}
	if len(rows) == 0 {
		return a.fail(exitFound, "the definition of %s has no samples; send --body FILE", def.Name)
	}
	a.table(a.Stdout, []string{"TYPE", "BECOMES", ""}, rows, nil)
	return exitOK
}

func unknownProvider(name string, names []string) error {
	for _, n := range names {
		if strings.EqualFold(n, name) || len(name) > 2 && (strings.HasPrefix(n, name) || strings.Contains(n, name) || strings.Contains(name, n)) || strings.ReplaceAll(strings.ToLower(name), "-", "_") == n || oneOff(name, n) {
			return fmt.Errorf("there is no provider %q in the catalogue; did you mean %s? `penstock providers` lists them", name, n)
		}
	}
	return fmt.Errorf("there is no provider %q in the catalogue; `penstock providers` lists them, and one of your own is written into the configuration", name)
}

// oneOff says whether one letter was mistyped, left out, put in, or swapped with its
// neighbour.
func oneOff(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 || len(a) < 3 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) < len(b) {
		return a[i:] == b[i+1:]
	}
	rest := min(i+1, len(a))
	swapped := i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
	return a[rest:] == b[rest:] || swapped
}
