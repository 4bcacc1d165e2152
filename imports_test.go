package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows is the whole import graph of the project's own packages: who may import whom.
// What points against an arrow is an interface of the one who needs it, filled in main.
var arrows = map[string][]string{
	"config":   {},
	"event":    {},
	"provider": {},
	"archive":  {"threads"},
	"verify":   {"provider"},
	"keep":     {},
	"iplist":   {"verify", "provider", "keep"},
	"ingest":   {"verify", "archive", "provider"},
	"dedupe":   {"archive"},
	"vault":    {"keep"},
	"forward":  {"archive", "provider", "expression"},
	"admin":    {"archive", "threads"},
	"fetch":    {"keep"},
	"notify":   {"expression"},
	"trace":    {},
	"threads":  {},

	"expression": {},
}

// outside names the heavy libraries and the one package that may touch each.
var outside = map[string][]string{
	"github.com/valyala/fasthttp":        {"ingest", "bench"},
	"github.com/redis/go-redis/v9":       {"dedupe"},
	"github.com/segmentio/kafka-go":      {"forward", "bench", "examples"},
	"github.com/expr-lang/expr":          {"expression"},
	"github.com/parquet-go/parquet-go":   {"cli"},
	"github.com/cockroachdb/pebble/v2":   {"archive"},
	"github.com/alicebob/miniredis/v2":   {"cli"},
	"github.com/twmb/franz-go/pkg/kfake": {"cli"},
	"go.opentelemetry.io":                {"trace"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "penstock"), "/")
		seen[name] = true
		checkArrows(t, name, p.Imports)
	}
	for name := range arrows {
		if !seen[name] {
			t.Errorf("package %s is in the table and not in the tree", name)
		}
	}
}

func checkArrows(t *testing.T, name string, imports []string) {
	top, _, _ := strings.Cut(name, "/")
	for _, imp := range imports {
		if imp == "penstock" {
			t.Errorf("%s imports main", name)
		}
		own, ours := strings.CutPrefix(imp, "penstock/")
		if allowed, held := arrows[top]; ours && held {
			target, _, _ := strings.Cut(own, "/")
			if target != top && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s; it may import %v", name, own, allowed)
			}
		}
		for lib, who := range outside {
			if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(who, top) && top != "test" {
				t.Errorf("%s imports %s; only %v may", name, imp, who)
			}
		}
	}
}

// TestAckPathHasNoRedis: what answers a delivery is ingest with the packages below it. None
// of them knows Redis, Kafka, or the packages that talk to them, so no call of either can
// be reached before the answer, but through what ack.go hands in for sources that ask to be
// answered after publication.
func TestAckPathHasNoRedis(t *testing.T) {
	below := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", pkg, err)
		}
		return strings.Fields(string(out))
	}
	far := []string{"github.com/redis/go-redis/v9", "github.com/segmentio/kafka-go", "penstock/dedupe", "penstock/forward"}
	whole, ack := below("penstock"), below("penstock/ingest")
	for _, p := range far {
		if !slices.Contains(whole, p) && !slices.ContainsFunc(whole, func(q string) bool { return strings.HasPrefix(q, p+"/") }) {
			t.Errorf("the program does not use %s: this test looks for the wrong name", p)
		}
		for _, q := range ack {
			if q == p || strings.HasPrefix(q, p+"/") {
				t.Errorf("the ack path can reach %s", q)
			}
		}
	}
}
