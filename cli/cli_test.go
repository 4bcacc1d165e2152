package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
	"go.uber.org/goleak"

	"penstock/config"
	"penstock/forward"
	"penstock/notify"
	"penstock/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// realCatalogue is the catalogue as main hands it in.
type realCatalogue struct{ c *provider.Catalogue }

func (r realCatalogue) Provider(name string) (config.ProviderInfo, bool) {
	d, ok := r.c.Get(name)
	if !ok {
		return config.ProviderInfo{}, false
	}
	return r.info(d), true
}

func (r realCatalogue) Names() []string { return r.c.Names() }

func (r realCatalogue) Route(when string) error { return forward.CheckRoute(when) }

func (r realCatalogue) Where(where string) error { return notify.CheckWhere(where) }

func (r realCatalogue) Inline(n ast.Node) (config.ProviderInfo, error) {
	d, err := provider.FromNode(n)
	if err != nil {
		return config.ProviderInfo{}, err
	}
	return r.info(d), nil
}

func (r realCatalogue) info(d *provider.Definition) config.ProviderInfo {
	ranges, _ := d.IPRanges()
	info := config.ProviderInfo{Name: d.Name, MaxBody: d.MaxBody(), RetryHorizon: d.RetryHorizon(), HasIPs: len(ranges) > 0, Handle: d}
	for _, c := range d.CredentialSpecs() {
		info.Credentials = append(info.Credentials, config.CredentialSpec{Name: c.Name, Secret: c.Secret, Required: c.Required, About: c.About, AnyOf: c.AnyOf})
	}
	return info
}

// world is one run of the program.
type world struct {
	t      *testing.T
	env    map[string]string
	stdin  string
	wiring Wiring
	out    bytes.Buffer
	err    bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, env: map[string]string{}, wiring: Wiring{Version: "v0.0.0-test", Providers: c, Catalogue: realCatalogue{c}}}
}

func (w *world) run(ctx context.Context, args ...string) int {
	w.t.Helper()
	w.out.Reset()
	w.err.Reset()
	return Run(ctx, Env{Args: args, Stdin: strings.NewReader(w.stdin), Stdout: &w.out, Stderr: &w.err,
		Getenv: func(k string) string { return w.env[k] }}, w.wiring)
}

// want runs a command line and checks its exit code and what it prints.
func (w *world) want(code int, contains string, args ...string) {
	w.t.Helper()
	got := w.run(w.t.Context(), args...)
	if all := w.out.String() + w.err.String(); got != code || !strings.Contains(all, contains) {
		w.t.Errorf("penstock %s: exit %d (want %d), want %q in\n%s", strings.Join(args, " "), got, code, contains, all)
	}
}

func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

const goodConfig = `archive: {dir: ./data}
sources:
  - {name: hub, provider: github, credentials: {secrets: [0123456789abcdef0123]}}
  - {name: shop, provider: stripe, credentials: {secrets: [whsec_0123456789abcdef]}}
`

func TestUsage(t *testing.T) {
	w := newWorld(t)
	w.want(exitUsage, "Usage: penstock COMMAND")
	w.want(exitOK, "Usage: penstock COMMAND", "--help")
	w.want(exitUsage, `unknown command "srve"`, "srve")
	w.want(exitUsage, "unexpected argument", "serve", "x")
	w.want(exitUsage, "flag provided but not defined: -nope", "check", "--nope")
	w.want(exitOK, "v0.0.0-test", "version")
	w.want(exitOK, "v0.0.0-test", "--version")
	w.want(exitOK, `"version": "v0.0.0-test"`, "version", "--json")
	w.want(exitUsage, "name one provider", "send")
	w.want(exitOK, `"$schema": "https://json-schema.org`, "schema")
	w.want(exitOK, "| `archive.retention.age` | duration | `0s` |", "schema", "--markdown")
	w.want(exitUsage, "unknown command", "deliveries", "lst")
}

// TestHelp: every command has --help, on standard output, with code 0; the texts are
// pinned. PENSTOCK_UPDATE=1 writes them.
func TestHelp(t *testing.T) {
	w := newWorld(t)
	var all strings.Builder
	var walk func(c *command, path []string)
	walk = func(c *command, path []string) {
		if code := w.run(t.Context(), append(path, "--help")...); code != exitOK || w.err.Len() > 0 {
			t.Errorf("penstock %s --help: exit %d, %s", strings.Join(path, " "), code, w.err.String())
		}
		all.WriteString("$ penstock " + strings.Join(append(append([]string{}, path...), "--help"), " ") + "\n" + w.out.String() + "\n")
		for _, s := range c.sub {
			walk(s, append(append([]string{}, path...), s.name))
		}
	}
	walk(commands(), nil)
	const golden = "testdata/help.txt"
	if os.Getenv("PENSTOCK_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if all.String() != string(want) {
		t.Errorf("--help differs from %s; PENSTOCK_UPDATE=1 writes it. Got\n%s", golden, all.String())
	}
}

// weakConfig is valid, and its scheme leaves room between two fields.
const weakConfig = `archive: {dir: d}
sources:
  - name: sky
    provider:
      name: sky
      scheme: hash_concat
      algorithm: sha256
      fields: [merchant_id, amount, currency, order_id]
      required_signed: [order_id, amount, currency]
      signature: {field: signature, encoding: hex}
      event: {id: [order_id, status], type: status, order_id: order_id, amount: {path: amount, unit: major}, currency: currency}
    credentials: {private_key: skyrimkeyskyrimkey123}
`

func TestCheck(t *testing.T) {
	w := newWorld(t)
	good := w.file("good.yaml", goodConfig)
	w.want(exitOK, "is good: 2 sources", "check", "-c", good)
	bad := w.file("bad.yaml", "archive: {dirr: d}\nsources:\n  - {name: a, provider: githb}\n")
	w.want(exitFound, "bad.yaml:1:11: archive.dirr: unknown key; did you mean \"dir\"?", "check", "-c", bad)
	w.want(exitFound, "bad.yaml:3:25: sources[0].provider: unknown provider \"githb\"; did you mean \"github\"?", "check", "-c", bad)
	w.want(exitFound, "does not exist", "check", "-c", "no-such.yaml")
	// A key that no verifier can use is a mistake of the configuration too.
	key := w.file("key.yaml", "archive: {dir: d}\nsources:\n  - {name: std, provider: standard_webhooks, credentials: {public_keys: [whpk_not-a-key]}}\n")
	w.want(exitFound, "key.yaml:3:5: source std", "check", "-c", key)
	// What a verifier finds weak is said here too, and is no mistake.
	weak := w.file("weak.yaml", weakConfig)
	w.want(exitOK, "is good: 1 sources", "check", "-c", weak)
	const warning = "weak.yaml:3:5: source sky: sky: give merchant_id"
	if !strings.Contains(w.err.String(), "warning: ") || !strings.Contains(w.err.String(), warning) {
		t.Errorf("no warning of the verifier in %q", w.err.String())
	}
	w.want(exitOK, warning, "check", "-c", weak, "--json")
	if code := w.run(t.Context(), "check", "-c", bad, "--json"); code != exitFound {
		t.Errorf("exit %d", code)
	}
	var out struct {
		OK     bool
		Errors []struct {
			Line, Col int
			Path      string
		}
	}
	if err := json.Unmarshal(w.out.Bytes(), &out); err != nil || out.OK || len(out.Errors) != 3 || out.Errors[0].Line != 1 || out.Errors[1].Col != 11 {
		t.Errorf("%v: %s", err, w.out.String())
	}
}

func TestServe(t *testing.T) {
	w := newWorld(t)
	served := 0
	w.wiring.Serve = func(_ context.Context, c *config.Config, o ServeOptions) error {
		served++
		if len(c.Sources) != 2 || o.Dev {
			t.Errorf("serve got %d sources, dev %v", len(c.Sources), o.Dev)
		}
		return nil
	}
	w.want(exitOK, "", "serve", "-c", w.file("good.yaml", goodConfig))
	w.want(exitFound, "unknown key", "serve", "-c", w.file("bad.yaml", "x: 1\n"+goodConfig))
	if served != 1 {
		t.Errorf("served %d times: a bad configuration must not get so far", served)
	}
	w.wiring.Serve = func(context.Context, *config.Config, ServeOptions) error { return os.ErrPermission }
	w.want(exitFound, "permission denied", "serve", "-c", w.file("good.yaml", goodConfig))
}

func TestProviders(t *testing.T) {
	w := newWorld(t)
	w.want(exitOK, "wayforpay", "providers")
	w.want(exitFound, `no provider "strpe"`, "providers", "show", "strpe")
	w.run(t.Context(), "providers", "--json")
	var list struct{ Providers []providerRow }
	if err := json.Unmarshal(w.out.Bytes(), &list); err != nil || len(list.Providers) != len(w.wiring.Providers.Names()) {
		t.Errorf("%v: %d providers", err, len(list.Providers))
	}
	for _, p := range list.Providers {
		w.want(exitOK, "provider: "+p.Name, "providers", "show", p.Name)
		for _, c := range p.Credentials {
			w.want(exitOK, c.Name+": env:", "providers", "show", p.Name)
		}
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	w.want(exitOK, `"deliveries list") words=`, "completion", "bash")
	w.want(exitOK, "#compdef penstock", "completion", "zsh")
	w.want(exitOK, "__fish_seen_subcommand_from providers", "completion", "fish")
	w.want(exitUsage, "no completion for", "completion", "csh")
	w.run(t.Context(), "completion", "bash")
	for _, want := range []string{"--duplicates", "wayforpay", "--order-id", "healthcheck"} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("bash completion knows no %s", want)
		}
	}
}

// TestTable: what strangers sent cannot draw on the terminal, and colour is for terminals.
func TestTable(t *testing.T) {
	a := &app{}
	var b bytes.Buffer
	a.table(&b, []string{"A", "B"}, [][]string{{"x\x1b[2Jy\r\n", "1"}, {"ыы", "2"}}, func(int, int) string { return red })
	if got := b.String(); strings.ContainsAny(got, "\x1b\r") || got != "A         B\nx�[2Jy��  1\nыы        2\n" {
		t.Errorf("got %q", got)
	}
	a.Color = true
	b.Reset()
	a.table(&b, []string{"A"}, [][]string{{"x"}}, func(int, int) string { return red })
	if !strings.Contains(b.String(), red+"x"+plain) {
		t.Errorf("no colour: %q", b.String())
	}
}
