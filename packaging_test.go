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

// TestSystemdUnits: the sockets are named as serve wants them, at the addresses that the
// configuration has by default, and belong to the service.
func TestSystemdUnits(t *testing.T) {
	service := read(t, "deploy/systemd/penstock.service")
	for name, unit := range map[string]string{"ingest": "penstock.socket", "admin": "penstock-admin.socket"} {
		text := read(t, "deploy/systemd/"+unit)
		port := map[string]string{"ingest": ":8080", "admin": ":8081"}[name]
		for _, want := range []string{"\nFileDescriptorName=" + name + "\n", port + "\n", "\nService=penstock.service\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", unit, want)
			}
		}
		if strings.Count(text, "ListenStream=") != 1 || strings.Contains(text, "Accept=yes") {
			t.Errorf("%s: serve takes one listening socket of each name", unit)
		}
		for _, key := range []string{"Requires=", "After=", "Sockets="} {
			if _, rest, _ := strings.Cut(service, "\n"+key); !strings.Contains(strings.SplitN(rest, "\n", 2)[0], unit) {
				t.Errorf("penstock.service: %s lacks %s", key, unit)
			}
		}
	}
	if !strings.Contains(service, "ExecReload=/bin/kill -HUP $MAINPID\n") || !strings.Contains(service, "/penstock serve -c ") {
		t.Error("penstock.service: it does not start or reload the gateway")
	}
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for _, unit := range []string{"penstock.socket", "penstock-admin.socket", "penstock.service"} {
		text := strings.ReplaceAll(read(t, "deploy/systemd/"+unit), "/usr/local/bin/penstock", "/bin/true")
		if err := os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It speaks of the machine's own units as well; what it says of ours names their place.
	if out, _ := exec.Command(tool, "verify", "--man=no", filepath.Join(dir, "penstock.service")).CombinedOutput(); strings.Contains(string(out), dir) {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
