package verify

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestNoProviderInTheHotPath: what every delivery goes through knows no provider's name, so
// that none costs another a branch. A provider that needs code has a file of its own
// (own_*.go), which is reached through the definition's data; the tables that lead there
// are read when a source is compiled.
func TestNoProviderInTheHotPath(t *testing.T) {
	names := map[string]bool{}
	for _, n := range builtin(t).Names() {
		names[n] = true
	}
	for _, kind := range []string{"standard_webhooks", "generic_hash_concat"} { // schemes, beside the providers of that name
		delete(names, kind)
	}
	var files []string
	for _, pattern := range []string{"*.go", "../ingest/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	looked := 0
	for _, path := range files {
		base := filepath.Base(path)
		beside := strings.HasPrefix(base, "own") || strings.HasPrefix(base, "vectors") || strings.HasPrefix(base, "hints") || base == "ack.go"
		// (who is asked by the definition; the vectors' reader; the explanations; builders of answers)
		if strings.HasSuffix(base, "_test.go") || beside {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		looked++
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && names[text] {
					t.Errorf("%s knows the provider %q", path, text)
				}
			}
			if b, ok := n.(*ast.BinaryExpr); ok && (b.Op == token.EQL || b.Op == token.NEQ) {
				if sel, ok := b.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "name" {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "v" {
						t.Errorf("%s asks for a provider's name", path)
					}
				}
			}
			return true
		})
	}
	if looked < 40 {
		t.Errorf("%d files were looked at", looked)
	}
}
