package verify

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestConstantTime: in the files that compare MACs and tokens, bytes are compared by
// hmac.Equal, subtle and the crypto packages only; elsewhere bytes.Equal and string
// equality stand on texts of one request only, each place listed. (class 5)
func TestConstantTime(t *testing.T) {
	comparing := map[string]bool{"check.go": true, "standard.go": true, "token.go": true, "jws.go": true, "own_jwt.go": true}
	allowed := map[string]string{
		"readHeaders":  "two header values of one request",
		"parseList":    "the timestamps of two groups in one header",
		"joinFields":   "two spellings of one number",
		"phpSerialize": "names of form fields",
		"bodyHints":    "the body with itself, for the operator",
		"sameDocument": "two versions of a published document",
		"bodyMarks":    "the body with itself, for the operator",
		"sameKeys":     "a secret with itself, for the operator",

		"duplicateHints": "two headers of one request, for the operator",
		"receivedText":   "a header name",
		"walk":           "JSON names",
		"choose":         "names of algorithms",
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	constant := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		eachCall(f, func(fn, call string) {
			switch call {
			case "hmac.Equal", "subtle.ConstantTimeCompare":
				constant++
			case "bytes.Equal", "bytes.Compare", "bytes.EqualFold", "reflect.DeepEqual", "slices.Equal":
				if comparing[name] || allowed[fn] == "" {
					t.Errorf("%s: %s calls %s: MACs and tokens are compared in constant time", name, fn, call)
				}
			}
		})
		if comparing[name] {
			noByteStringEquality(t, name, f)
		}
	}
	if constant < 3 {
		t.Errorf("only %d constant-time comparisons found: is this test looking at the right files?", constant)
	}
}

// eachCall names every call of a package's function, and the function it stands in.
func eachCall(f *ast.File, visit func(fn, call string)) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
					if pkg, ok := sel.X.(*ast.Ident); ok {
						visit(fn.Name.Name, pkg.Name+"."+sel.Sel.Name)
					}
				}
			}
			return true
		})
	}
}

// noByteStringEquality refuses `string(a) == b` but for labels, which are constants.
func noByteStringEquality(t *testing.T, name string, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		b, ok := n.(*ast.BinaryExpr)
		if !ok || b.Op != token.EQL && b.Op != token.NEQ {
			return true
		}
		for _, pair := range [][2]ast.Expr{{b.X, b.Y}, {b.Y, b.X}} {
			call, ok := pair[0].(*ast.CallExpr)
			if !ok {
				continue
			}
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "string" {
				if _, constant := pair[1].(*ast.BasicLit); !constant {
					t.Errorf("%s: compares text that came in with ==", name)
				}
			}
		}
		return true
	})
}
