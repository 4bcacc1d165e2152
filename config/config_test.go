package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// catalogue is what the tests know of providers: enough to be a peer of the real one.
type catalogue map[string]ProviderInfo

func (c catalogue) Provider(name string) (ProviderInfo, bool) { p, ok := c[name]; return p, ok }

func (c catalogue) Names() []string {
	var out []string
	for n := range c {
		out = append(out, n)
	}
	return out
}

// Route refuses what holds "wrong", at its place.
func (c catalogue) Where(where string) error { return c.Route(where) }

func (c catalogue) Route(when string) error {
	if i := strings.Index(when, "wrong"); i >= 0 {
		return fmt.Errorf("1:%d: unknown name wrong", i+1)
	}
	return nil
}

func (c catalogue) Inline(n ast.Node) (ProviderInfo, error) {
	var v struct {
		Name, Scheme, Algorithm string
		Fields                  []string
		RequiredSigned          []string `yaml:"required_signed"`
		Signature               map[string]string
		Event                   map[string]any
	}
	if err := yaml.NodeToValue(n, &v, yaml.Strict()); err != nil {
		return ProviderInfo{}, err
	}
	if v.Scheme == "none" {
		p := n.GetToken().Position
		return ProviderInfo{}, errors.Join(fmt.Errorf("%d:%d: scheme none", p.Line, p.Column), errors.New("and no place"))
	}
	return ProviderInfo{Name: v.Name, Credentials: []CredentialSpec{
		{Name: "private_key", Secret: true, Required: true, About: "the merchant's key"},
	}, Handle: v.Name}, nil
}

func providers() catalogue {
	list := []CredentialSpec{{Name: "secrets", Secret: true, Required: true, About: "signing secrets of the endpoint"}}
	c := catalogue{}
	for _, p := range []ProviderInfo{
		{Name: "stripe", Credentials: list, RetryHorizon: 72 * time.Hour},
		{Name: "github", Credentials: list, MaxBody: 25 << 20, HasIPs: true},
		{Name: "asana", Credentials: []CredentialSpec{{Name: "secrets", Secret: true}}, Captures: "secrets", TenantError: "no field of asana names a merchant"},
		{Name: "liqpay", Tenant: "public_key", Credentials: []CredentialSpec{{Name: "public_key"}, {Name: "private_key", Secret: true, Required: true, About: "private key of the shop"}}},
		{Name: "wayforpay", Credentials: []CredentialSpec{
			{Name: "merchant_account", Required: true, About: "account of the shop"},
			{Name: "secret_key", Secret: true, Required: true, About: "secret key of the shop"}}, Tenant: "merchant_account"},
		{Name: "standard_webhooks", Credentials: []CredentialSpec{
			{Name: "secrets", Secret: true, AnyOf: "key"}, {Name: "public_keys", AnyOf: "key"}}},
	} {
		p.Handle = p.Name
		c[p.Name] = p
	}
	return c
}

// environment sets what example.yaml refers to.
func environment(t testing.TB) {
	for _, name := range []string{"PENSTOCK_ADMIN_TOKEN", "STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET_OLD",
		"LIQPAY_PUBLIC_KEY", "LIQPAY_PRIVATE_KEY", "WAYFORPAY_ACCOUNT", "WAYFORPAY_SECRET", "GITHUB_WEBHOOK_SECRET", "SKYRIMPAY_KEY"} {
		t.Setenv(name, "value-of-"+name)
	}
}

func example(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExample(t *testing.T) {
	environment(t)
	c, err := Load("testdata/example.yaml", providers())
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	f("listen", c.Ingest.Listen, "127.0.0.1:8080")
	f("max_body", c.Ingest.MaxBody, Size(10<<20))
	f("proxies", c.Ingest.TrustedProxies, []string{"127.0.0.0/8"})
	f("token", c.Admin.Tokens[0].Token.Reveal(), "value-of-PENSTOCK_ADMIN_TOKEN")
	f("role", c.Admin.Tokens[0].Role, "operator")
	f("age", c.Archive.Retention.Age, 90*24*time.Hour)
	f("size", c.Archive.Retention.Size, Size(200<<30))
	f("quarantine", c.Archive.Quarantine.Size, Size(1<<30))
	f("window", c.Dedupe.Window, 8*24*time.Hour)
	f("redis", c.Dedupe.Redis.Addresses, []string{"127.0.0.1:6379"})
	f("brokers", c.Forward.Kafka.Brokers, []string{"127.0.0.1:9092"})
	f("topic", c.Forward.Kafka.Topic, "webhooks.{provider}")
	f("create", *c.Forward.Kafka.CreateTopics, CreateTopics{Partitions: 6, Replication: 1})
	f("sources", len(c.Sources), 5)
	f("secrets", len(c.Sources[0].Credentials["secrets"]), 2)
	f("path", c.Sources[0].Path, "/in/stripe")
	f("url", c.Sources[0].URL(), "https://hooks.example.com/in/stripe")
	f("inherited window", c.Sources[0].Dedupe.Window, 8*24*time.Hour)
	f("allow", c.Sources[3].AllowIPs, []string{"provider", "203.0.113.0/24"})
	f("own window", c.Sources[3].Dedupe.Window, 3*24*time.Hour)
	f("ingest.max_body is set, so it holds", c.Sources[3].MaxBody, Size(10<<20))
	f("inline", c.Sources[4].Provider, "skyrimpay")
	f("inline handle", c.Sources[4].Definition, any("skyrimpay"))
	f("line", c.Sources[4].Line, 43)
	f("warnings", c.Warnings, []string(nil))
}

func TestExampleIsThePapers(t *testing.T) {
	theirs, err := os.ReadFile("../../shared/example.yaml")
	if err != nil {
		t.Skip("../../shared/example.yaml is not there")
	}
	if string(theirs) != string(example(t)) {
		t.Error("testdata/example.yaml differs from ../../shared/example.yaml: copy it")
	}
}

const least = "archive: {dir: ./data}\nsources:\n  - {name: gh, provider: github, credentials: {secrets: [0123456789abcdef]}}\n"

// TestDefaults: every key that example.yaml shows has a default but three.
func TestDefaults(t *testing.T) {
	c, err := Parse("least.yaml", []byte(least), providers())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Sources[0].MaxBody; got != 25<<20 {
		t.Errorf("max_body unset: got %v, want the provider's documented 25MiB", got)
	}
	if c.Ingest.MaxBody != 10<<20 || c.Ingest.MaxInFlight != 256<<20 || c.Ingest.Listen != "127.0.0.1:8080" || c.Ingest.TrustedProxies != nil {
		t.Errorf("ingest defaults: %+v", c.Ingest)
	}
	if c.Archive.Retention != (Retention{}) || c.Archive.Quarantine.Size != 1<<30 || c.Archive.Reserve != 5 {
		t.Errorf("archive defaults: %+v", c.Archive)
	}
	if c.Forward != nil || c.Dedupe.Redis != nil || c.Dedupe.Window != 8*24*time.Hour {
		t.Errorf("forward %v, dedupe %+v", c.Forward, c.Dedupe)
	}
	c, err = Parse("k.yaml", []byte(least+"forward: {kafka: {brokers: [\"b:9092\"]}}\n"), providers())
	if err != nil {
		t.Fatal(err)
	}
	k := c.Forward.Kafka
	if c.Forward.Start != "oldest" || k.Topic != "webhooks.{provider}" || k.DeadLetterTopic != "webhooks.dead" || k.Compression != "zstd" || k.CreateTopics != nil {
		t.Errorf("kafka defaults: %+v", k)
	}
}

// TestBad compares every testdata/bad/*.yaml with the errors in the comment at its end
// (lines "#! "). PENSTOCK_UPDATE=1 writes them.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad configs: %v", err)
	}
	t.Setenv("EMPTY", "")
	t.Setenv("SHORT", "seven77")
	t.Setenv("GOOD", "0123456789abcdef")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body, want, _ := strings.Cut(string(b), "#! ")
			_, err = Parse(filepath.Base(file), []byte(body), providers())
			if err == nil {
				t.Fatal("it was accepted")
			}
			got := "#! " + strings.ReplaceAll(err.Error(), "\n", "\n#! ") + "\n"
			if os.Getenv("PENSTOCK_UPDATE") != "" {
				if err := os.WriteFile(file, []byte(body+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if want = "#! " + want; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestAllAtOnce: one run names every mistake of a file.
func TestAllAtOnce(t *testing.T) {
	_, err := Parse("x.yaml", []byte("ingest: {lsten: 1, max_body: ten}\narchive: {dir: d}\nsources:\n- {name: A, provider: strip}\n"), providers())
	var es *Errors
	if !errors.As(err, &es) || len(es.List) != 4 {
		t.Fatalf("want 4 errors, got %v", err)
	}
	for i, want := range []string{"ingest.lsten", "ingest.max_body", "sources[0].name", "sources[0].provider"} {
		if es.List[i].Path != want {
			t.Errorf("error %d is of %s, want %s", i, es.List[i].Path, want)
		}
	}
}

func TestSecretsNeverShow(t *testing.T) {
	const canary = "canary-5f1d9b7a2c"
	t.Setenv("CANARY", canary)
	text := least + "admin: {tokens: [{name: a, token: " + canary + "}]}\n" +
		"forward: {kafka: {brokers: [\"b:1\"], sasl: {username: u, password: env:CANARY}}}\n"
	c, err := Parse("x.yaml", []byte(text), providers())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{c, *c, c.Admin, c.Admin.Tokens[0].Token, c.Forward.Kafka.SASL, *c.Forward.Kafka.SASL} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, canary) || strings.Contains(out, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T shows a secret", verb, v)
			}
		}
	}
	// Nor in an error, however wrong the file is around it.
	f := func(text string) {
		t.Helper()
		_, err := Parse("x.yaml", []byte(text), providers())
		if err == nil {
			t.Fatal("it was accepted")
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("an error shows a secret: %v", err)
		}
	}
	f("admin: {tokens: [{name: a, token: " + canary + "}]}\narchive: [\n")
	f("admin:\n  tokens: {name: a, token: " + canary + "}\n")
	f("admin:\n  tokens:\n  - {name: a, token: [" + canary + "]}\n")
	f("admin:\n  tokens:\n  - name: a\n    token: canary\n   x: y\n")
	f(strings.Replace(least, "0123456789abcdef", "canary", 1))
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	f := func(content, want string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Parse("x.yaml", []byte(strings.Replace(least, "0123456789abcdef", `"file:`+path+`"`, 1)), providers())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Sources[0].Credentials["secrets"][0].Reveal(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !reflect.DeepEqual(c.Files, []string{"x.yaml", path}) {
			t.Errorf("files: %v", c.Files)
		}
	}
	f("0123456789abcdef", "0123456789abcdef")
	f("0123456789abcdef\n", "0123456789abcdef")
	f("0123456789abcdef\r\n", "0123456789abcdef")
	f("0123456789abcdef\n\n", "0123456789abcdef\n")
}

func TestWarnings(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		c, err := Parse("x.yaml", []byte(text), providers())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Warnings, "\n"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f(strings.Replace(least, "0123456789abcdef", "0123456789", 1),
		"x.yaml:3:58: sources[0].credentials.secrets[0]: has only 10 bytes; 16 or more are safe against guessing")
	f(strings.Replace(least, "0123456789abcdef", `"0123456789abcdef "`, 1),
		"x.yaml:3:58: sources[0].credentials.secrets[0]: begins or ends with blanks; they count as part of the secret")
	f("archive: {dir: d}\nsources:\n  - {name: w, mode: test, provider: wayforpay, credentials: {merchant_account: abc, secret_key: flk3409refn54t54t*FNJRET}}\n",
		"x.yaml:3:97: sources[0].credentials.secret_key: is the public sample of WayForPay's documentation (test_merch_n1); everybody can sign with it")
	f("archive: {dir: d}\ndedupe: {window: 1d}\nsources:\n  - {name: s, provider: stripe, credentials: {secrets: 0123456789abcdef}}\n",
		"x.yaml:4:5: sources[0].dedupe.window: 1d is shorter than stripe repeats (3d); a late repeat would be published again")
}

func FuzzParse(f *testing.F) {
	f.Add(example(f))
	f.Add([]byte(least))
	f.Add([]byte("a: &a [*a]\nsources: *a\n"))
	f.Add([]byte("sources: &s\n- *s\n"))
	f.Add([]byte("? {a: b}\n: - c\n"))
	f.Add([]byte("archive: !!map {dir: !x y}\nsources:\n- provider: {<<: {a: b}}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("f.yaml", b, providers())
		var es *Errors
		if (c == nil) == (err == nil) || err != nil && (!errors.As(err, &es) || len(es.List) == 0) {
			t.Fatalf("got %v, %v", c, err)
		}
	})
}

// TestReferencesInBraces: goccy takes [env:A] inside braces for a mapping.
func TestReferencesInBraces(t *testing.T) {
	t.Setenv("ONE", "0123456789abcdef-1")
	t.Setenv("TWO", "0123456789abcdef-2")
	c, err := Parse("x.yaml", []byte("archive: {dir: d}\nforward: {kafka: {brokers: [localhost:9092, b:9093]}}\n"+
		"sources: [{name: gh, provider: github, credentials: {secrets: [env:ONE, env:TWO, a:b:0123456789abcdef]}}]\n"), providers())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range c.Sources[0].Credentials["secrets"] {
		got = append(got, s.Reveal())
	}
	if want := []string{"0123456789abcdef-1", "0123456789abcdef-2", "a:b:0123456789abcdef"}; !reflect.DeepEqual(got, want) {
		t.Errorf("secrets: got %q, want %q", got, want)
	}
	if want := []string{"localhost:9092", "b:9093"}; !reflect.DeepEqual(c.Forward.Kafka.Brokers, want) {
		t.Errorf("brokers: got %q", c.Forward.Kafka.Brokers)
	}
	if _, err := Parse("x.yaml", []byte("archive: {dir: d}\nsources: [{name: gh, provider: github, credentials: {secrets: [env: ONE]}}]\n"), providers()); err == nil {
		t.Error("a mapping was taken for a reference")
	}
}

// TestDeep: an accident of nesting is refused at once, whatever the parser would do.
func TestDeep(t *testing.T) {
	for _, s := range []string{"[", "{a: ", "- ", "? ", "&a "} {
		if _, err := Parse("x.yaml", []byte(strings.Repeat(s, 500_000)), providers()); err == nil {
			t.Errorf("500000 times %q was accepted", s)
		}
	}
}

func TestScalars(t *testing.T) {
	d := func(s string, want time.Duration, ok bool) {
		t.Helper()
		got, err := ParseDuration(s)
		if (err == nil) != ok || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v", s, got, err)
		}
		if back, err := ParseDuration(FormatDuration(got)); ok && (err != nil || back != got) {
			t.Errorf("%q does not come back: %v", s, err)
		}
	}
	const day = 24 * time.Hour
	d("90d", 90*day, true)
	d("8d12h", 8*day+12*time.Hour, true)
	d("1.5h", 90*time.Minute, true)
	d("100ms", 100*time.Millisecond, true)
	d("2w", 14*day, true)
	d("0", 0, true)
	for _, bad := range []string{"", "5", "d", "-1d", "1 d", "1y", "1e3s", "..s", "99999999999d", "1dd", "NaNs"} {
		d(bad, 0, false)
	}
	s := func(s string, want Size, ok bool) {
		t.Helper()
		got, err := ParseSize(s)
		if (err == nil) != ok || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", s, got, err)
		}
		if back, err := ParseSize(got.String()); ok && (err != nil || back != got) {
			t.Errorf("%q does not come back: %v", s, err)
		}
	}
	s("10MiB", 10<<20, true)
	s("200GiB", 200<<30, true)
	s("10MB", 10_000_000, true)
	s("1.5KiB", 1536, true)
	s("512", 512, true)
	s("512B", 512, true)
	for _, bad := range []string{"", "MiB", "-1B", "10M", "10mib", "9e9GiB", "99999999TiB", "1..2B"} {
		s(bad, 0, false)
	}
}

// TestURLOf: the query of a delivery is part of what was called.
func TestURLOf(t *testing.T) {
	s := &Source{Path: "/in/a", PublicURL: "https://h.example"}
	for target, want := range map[string]string{"/in/a": "https://h.example/in/a", "/in/a?x=1&y": "https://h.example/in/a?x=1&y"} {
		if got := s.URLOf(target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	if s.PublicURL = ""; s.URLOf("/in/a?x=1") != "" {
		t.Error("a URL without an origin")
	}
}
