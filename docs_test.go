package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/config"
	"penstock/provider"
)

var update = flag.Bool("update", false, "write the generated pages of docs/ anew")

// TestGeneratedDocs holds the pages that are made from the code to the code. After a
// change: go test -run TestGeneratedDocs -update .
func TestGeneratedDocs(t *testing.T) {
	pages := map[string]string{"docs/configuration.md": configurationPage()}
	catalogue, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range catalogue.Names() {
		d, _ := catalogue.Get(name)
		pages["docs/providers/"+name+".md"] = d.Markdown()
	}
	pages["docs/providers/README.md"] = catalogue.Markdown()
	for path, want := range pages {
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what the code says (%v): go test -run TestGeneratedDocs -update .", path, err)
		}
	}
	old, err := filepath.Glob("docs/providers/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if _, ok := pages[filepath.ToSlash(path)]; !ok {
			t.Errorf("%s is of no provider in the catalogue", path)
		}
	}
}

func configurationPage() string {
	return "# Configuration\n\nOne YAML file, read strictly: an unknown key, a wrong type, a duplicate key is an error with line and column, and every\nmistake is named at once (`penstock check -c FILE`). Secrets are `env:NAME`, `file:PATH` or plain text. SIGHUP or a changed file (a\nsecret file too) reloads; a bad one changes nothing. `penstock schema` prints a JSON Schema for editors.\n\n" + string(config.Reference())
}

// TestReadmeConfiguration: the configuration that the README shows is one that loads.
func TestReadmeConfiguration(t *testing.T) {
	text := read(t, "README.md")
	_, text, ok := strings.Cut(text, "```yaml\n")
	text, _, end := strings.Cut(text, "```")
	if !ok || !end {
		t.Fatal("README.md shows no configuration")
	}
	t.Setenv("STRIPE_WEBHOOK_SECRET", "whsec_0123456789abcdef")
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("README.md", []byte(text), catalogue{builtin}); err != nil {
		t.Error(err)
	}
}
