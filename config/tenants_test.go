package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func tenantsConfig(ref string) string {
	return "archive: {dir: ./data}\nsources:\n  - name: pay\n    provider: wayforpay\n    credentials:\n      tenants: " + ref + "\n"
}

func parsed(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return Parse("p.yaml", []byte(text), providers())
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTenants: one file, a file for each, or in place; the name stands for the credential
// that names the merchant, and every secret may be a reference.
func TestTenants(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SHOP_2_SECRET", "the secret of the second shop")
	file := filepath.Join(dir, "merchants.yaml")
	writeFile(t, file, "shop_1:\n  secret_key: the secret of the first shop\nshop_2: {secret_key: [env:SHOP_2_SECRET, the old secret of the second]}\n")
	each := filepath.Join(dir, "each")
	if err := os.Mkdir(each, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(each, "shop_1.yaml"), "secret_key: the secret of the first shop\n")
	writeFile(t, filepath.Join(each, "shop_2.yaml"), "secret_key: [env:SHOP_2_SECRET, the old secret of the second]\n")
	writeFile(t, filepath.Join(each, ".hidden.yaml"), "secret_key: [")
	writeFile(t, filepath.Join(each, "README"), "not a merchant")
	for _, ref := range []string{"file:" + file, "dir:" + each, "file:" + each,
		"{shop_1: {secret_key: the secret of the first shop}, shop_2: {secret_key: [\"env:SHOP_2_SECRET\", the old secret of the second]}}"} {
		c, err := parsed(t, tenantsConfig(ref))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		s := &c.Sources[0]
		if len(s.Tenants) != 2 || len(s.Credentials) != 0 || len(s.Tenants["shop_2"]["secret_key"]) != 2 ||
			s.Tenants["shop_2"]["secret_key"][0].Reveal() != "the secret of the second shop" {
			t.Errorf("%s: %d tenants, %d credentials", ref, len(s.Tenants), len(s.Credentials))
		}
		if strings.Contains(fmt.Sprintf("%+v %#v", s.Tenants, s.Tenants), "first shop") {
			t.Error("a secret can be printed")
		}
	}
	c, err := parsed(t, tenantsConfig("{}"))
	if err != nil || c.Sources[0].Tenants == nil || len(c.Warnings) != 1 {
		t.Errorf("tenants by the API alone: %v, %v", err, c)
	}
}

// TestTenantMistakes: each by its place in the file where it stands.
func TestTenantMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "merchants.yaml")
	for text, want := range map[string]string{
		"shop_1:\n  secret_kee: the secret of the first shop\n": ":2:3: shop_1.secret_kee: wayforpay has no such credential; did you mean",
		"shop_1: {}\n":                                    ":1:1: shop_1.secret_key: is missing",
		"shop_1: {secret_key: short}\n":                   ":1:22: shop_1.secret_key: has 5 bytes",
		"shop_1: {secret_key: env:NOT_SET_AT_ALL}\n":      ":1:22: shop_1.secret_key: environment variable NOT_SET_AT_ALL is not set",
		"a: {secret_key: 0123456789}\na: {secret_key: 1}": ":2:1: a: key is there twice",
		"shop_1:\n":              ":1:9: shop_1: has no value",
		"- shop_1\n":             ":1:1: expected a mapping",
		"":                       ":1:1: is empty, or was half written",
		"shop_1: {secret_key: [": ":1:22: is no YAML",
	} {
		writeFile(t, file, text)
		_, err := parsed(t, tenantsConfig("file:"+file))
		if err == nil || !strings.Contains(err.Error(), file+want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		tenantsConfig("file:/nowhere/merchants.yaml"):                      "p.yaml:6:16: sources[0].credentials.tenants: file /nowhere/merchants.yaml does not exist",
		tenantsConfig("dir:/nowhere"):                                      "directory /nowhere cannot be read",
		tenantsConfig("merchants.yaml"):                                    "write file:PATH for one file",
		tenantsConfig("[a, b]"):                                            "expected file:PATH, dir:PATH or a mapping",
		strings.Replace(tenantsConfig("{}"), "wayforpay", "asana", 1):      "no field of asana names a merchant",
		tenantsConfig("{}") + "      secret_key: of nobody's deliveries\n": "sources[0].credentials.merchant_account: is missing",
		"archive: {dir: d}\nsources: [{name: asana, provider: asana}]\n":   "give archive.encryption.key",
		"archive: {dir: d, encryption: {key: not-32-bytes}}\nsources: [{name: s, provider: stripe, credentials: {secrets: a-long-enough-secret}}]\n": "archive.encryption.key: is no key of 32 bytes",
	} {
		if _, err := parsed(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%v\nwant %s", text, err, want)
		}
	}
	key := strings.Repeat("0f", 32)
	if _, err := parsed(t, "archive: {dir: d, encryption: {key: "+key+", previous: ["+key+"]}}\nsources: [{name: asana, provider: asana}]\n"); err != nil {
		t.Error(err)
	}
}

// TestTenantsFollowed: a changed file, a new one in the directory and a secret behind a
// reference are all seen, and half a file is not taken.
func TestTenantsFollowed(t *testing.T) {
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "merchants.yaml"), filepath.Join(dir, "secret")
	each := filepath.Join(dir, "each")
	if err := os.Mkdir(each, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, secret, "the secret of the first shop")
	whole := "shop_1: {secret_key: \"file:" + secret + "\"}\nshop_2: {secret_key: the secret of the second}\n"
	writeFile(t, file, whole)
	w := watch(t, tenantsConfig("file:"+file)+"  - name: each\n    provider: wayforpay\n    credentials: {tenants: \"dir:"+each+"\"}\n")

	w.write(secret, "another secret of the first shop")
	if c := w.next(); c.Sources[0].Tenants["shop_1"]["secret_key"][0].Reveal() != "another secret of the first shop" {
		t.Error("the changed secret is not in force")
	}
	w.write(filepath.Join(each, "shop_9.yaml"), "secret_key: the secret of the ninth\n")
	if c := w.next(); len(c.Sources[1].Tenants) != 1 {
		t.Errorf("the new file is not in force: %d tenants", len(c.Sources[1].Tenants))
	}
	w.write(file, whole[:strings.Index(whole, "shop_2")])
	if err := w.failure(); !strings.Contains(err.Error(), "half written") {
		t.Errorf("half a file: %v", err)
	}
	w.write(file, "# without shop_2\n"+whole[:strings.Index(whole, "shop_2")])
	if c := w.next(); len(c.Sources[0].Tenants) != 1 {
		t.Errorf("%d tenants, want 1", len(c.Sources[0].Tenants))
	}
}

// TestManyTenants: ten thousand merchants are read in the time of a reload, not of a tea.
func TestManyTenants(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "shop_%05d: {secret_key: the secret of shop %05d}\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "merchants.yaml")
	writeFile(t, file, b.String())
	began := time.Now()
	c, err := parsed(t, tenantsConfig("file:"+file))
	if err != nil || len(c.Sources[0].Tenants) != 10_000 {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("10,000 merchants in %s", took)
	if took > 30*time.Second {
		t.Errorf("10,000 merchants took %s", took)
	}
}

// FuzzTenantsFile: a merchants' file that somebody else writes; an error names the file,
// and no secret of it stands in a message.
func FuzzTenantsFile(f *testing.F) {
	for _, s := range []string{"shop_1: {secret_key: the secret of the first shop}\n", "shop_1:\n  secret_key: [env:NO, x]\n", "- a\n", "a: &a [*a]\n", "shop_1: {secret_key: {a: b}}\n", "{}", "", "? {a: b}\n: - c\n", "<<: {a: b}\n", "a: b: c\n"} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	file := filepath.Join(dir, "merchants.yaml")
	text := []byte(tenantsConfig("file:" + file))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Parse("p.yaml", text, providers())
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v, %v", c, err)
		}
		if err != nil && !strings.Contains(err.Error(), "merchants.yaml") && !strings.Contains(err.Error(), "p.yaml") {
			t.Fatalf("the error has no place: %v", err)
		}
	})
}
