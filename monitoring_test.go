package main

import (
	"encoding/json"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// promtool is Prometheus' own checker; where the suite demands real parts it must be there.
func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") != "" {
			t.Fatal("promtool is not installed (Debian: prometheus), and PENSTOCK_REQUIRE_REAL is set")
		}
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	return path
}

// TestAlertRules: the rules are sound, and each that has a test fires when it should and
// only then.
func TestAlertRules(t *testing.T) {
	tool := promtool(t)
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml", "alerts_week_test.yaml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = "deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestMetricNames: what /metrics answers is named and told as Prometheus' conventions have it.
func TestMetricNames(t *testing.T) {
	tool := promtool(t)
	r := newRig(t, stripe)
	rec := httptest.NewRecorder()
	r.p.admin.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := rec.Body.String()
	if rec.Code != 200 || strings.Count(text, "\n# TYPE penstock_") < 40 {
		t.Fatalf("/metrics answers %d:\n%s", rec.Code, text)
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestDashboardQueries: every query of the dashboard is one that Prometheus can read.
func TestDashboardQueries(t *testing.T) {
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/penstock.json")), &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			rules = append(rules, rule{"dashboard:query", strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$source", ".*").Replace(target.Expr)})
		}
	}
	if len(rules) < 20 {
		t.Fatalf("%d queries found", len(rules))
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool(t), "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestMonitoringNamesMetrics: what rules and dashboard ask for is what the code registers.
// A renamed metric would leave an alert that never fires.
func TestMonitoringNamesMetrics(t *testing.T) {
	name := regexp.MustCompile(`penstock_[a-z_]+[a-z]`)
	registered := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, quoted := range regexp.MustCompile(`"penstock_[a-z_]+"`).FindAllString(read(t, path), -1) {
			registered[strings.Trim(quoted, `"`)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, path := range []string{"deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml", "deploy/prometheus/alerts_week_test.yaml", "deploy/grafana/penstock.json"} {
		for _, m := range name.FindAllString(read(t, path), -1) {
			asked++
			base := m
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !registered[m] && !registered[base] {
				t.Errorf("%s asks for %s, which nothing registers", path, m)
			}
		}
	}
	if asked < 50 {
		t.Errorf("only %d metrics asked for", asked)
	}
}

// TestCountersBeginAtZero: alerts that are about a single occurrence look at counters that are there
// before it: of a series that begins at 1 Prometheus cannot tell that it grew.
func TestCountersBeginAtZero(t *testing.T) {
	r := newRig(t, stripe+"notify:\n  channels: [{name: ops, type: slack, url: 'https://chat.example/x'}]\n")
	rec := httptest.NewRecorder()
	r.p.admin.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, series := range []string{`penstock_dead_letters_total{reason="unreadable"}`, `penstock_dead_letters_total{reason="target_gave_no_2xx"}`,
		`penstock_notifications_total{channel="ops",result="failed"}`, `penstock_notifications_total{channel="ops",result="dropped"}`,
		`penstock_deliveries_total{reason="key_unavailable",source="shop",verdict="rejected"}`, `penstock_archive_corrupt_total{log="deliveries"}`} {
		if !strings.Contains(rec.Body.String(), "\n"+series+" 0\n") {
			t.Errorf("%s is not there from the start", series)
		}
	}
}
