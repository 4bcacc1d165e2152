package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// There is no container engine where this project is built, so what the image and the
// compose file promise is checked here as far as it can be without one.

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBinaryIsStatic(t *testing.T) {
	// As the contract says it, and as the image builds it.
	for _, env := range [][]string{nil, {"CGO_ENABLED=0"}} {
		bin := filepath.Join(t.TempDir(), "penstock")
		cmd := exec.Command("go", "build", "-o", bin, ".")
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build %v: %v\n%s", env, err, out)
		}
		f, err := elf.Open(bin)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Errorf("%v: the binary asks for a dynamic loader, which the empty image does not have", env)
			}
		}
		if libs, _ := f.ImportedLibraries(); len(libs) > 0 {
			t.Errorf("%v: the binary wants %v", env, libs)
		}
		f.Close()
	}
}

func TestDockerfile(t *testing.T) {
	d := read(t, "Dockerfile")
	for want, why := range map[string]string{
		"FROM scratch":                    "the second stage holds nothing but the binary",
		"CGO_ENABLED=0":                   "the binary must be static",
		"\nUSER 65532:65532":              "not root",
		"\nVOLUME /data":                  "the archive outlives the container",
		"\nEXPOSE 8080 8081":              "the contract's two ports",
		`CMD ["/penstock", "healthcheck"`: "the health check needs no shell",
	} {
		if !strings.Contains(d, want) {
			t.Errorf("Dockerfile lacks %q: %s", want, why)
		}
	}
}

func TestComposeMatchesConfig(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			User        string            `yaml:"user"`
			Ports       []string          `yaml:"ports"`
			Command     []string          `yaml:"command"`
			Environment map[string]string `yaml:"environment"`
			Volumes     []string          `yaml:"volumes"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/compose.yaml")), &compose); err != nil {
		t.Fatalf("deploy/compose.yaml: %v", err)
	}
	var conf struct {
		Ingest  struct{ Listen string } `yaml:"ingest"`
		Admin   struct{ Listen string } `yaml:"admin"`
		Archive struct{ Dir string }    `yaml:"archive"`
	}
	text := read(t, "deploy/penstock.yaml")
	if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
		t.Fatalf("deploy/penstock.yaml: %v", err)
	}
	p := compose.Services["penstock"]
	if p.User != "65532:65532" || !strings.Contains(strings.Join(p.Ports, " "), conf.Ingest.Listen[strings.LastIndex(conf.Ingest.Listen, ":"):]) {
		t.Errorf("compose user %q, ports %v do not fit the config's %s", p.User, p.Ports, conf.Ingest.Listen)
	}
	if !strings.HasPrefix(strings.Join(p.Volumes, " "), "archive:"+conf.Archive.Dir+" ") {
		t.Errorf("the archive volume %v is not at archive.dir %s", p.Volumes, conf.Archive.Dir)
	}
	for _, ref := range strings.Split(text, "env:")[1:] {
		name := strings.FieldsFunc(ref, func(r rune) bool { return strings.ContainsRune(",]} \n", r) })[0]
		if _, ok := p.Environment[name]; !ok {
			t.Errorf("the config wants %s, which compose does not set", name)
		}
	}
	redis := strings.Join(compose.Services["redis"].Command, " ")
	if !strings.Contains(redis, "--appendonly yes") || !strings.Contains(redis, "--maxmemory-policy noeviction") {
		t.Errorf("redis runs as %q: it must be append-only and never evict", redis)
	}
	if k := compose.Services["kafka"].Environment; k["KAFKA_PROCESS_ROLES"] != "broker,controller" {
		t.Errorf("kafka is not in KRaft mode: %v", k["KAFKA_PROCESS_ROLES"])
	}
}
