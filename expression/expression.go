// Package expression compiles the conditions that stand in a configuration: of routes and of
// notifications. They are short, end soon whatever they are given, and touch nothing but
// the names that they were compiled with.
package expression

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// maxBytes bounds an expression: what no person reads is no rule, and its time is bounded by
// its length.
const maxBytes = 1000

// words are the functions that an expression may call. None takes longer than its
// arguments are long, and none makes something larger than they are.
var words = [...]string{"lower", "upper", "trim", "len"}

// Program is a compiled condition. It is immutable.
type Program struct {
	vm    *vm.Program
	names map[string]bool
}

// Compile compiles a condition over the fields of env, a struct whose tags name them. The
// message of an error begins with its place in the expression, "line:column: ".
func Compile(text string, env any) (*Program, error) {
	if n := len(text); n > maxBytes {
		return nil, fmt.Errorf("1:1: has %d bytes; an expression has at most %d", n, maxBytes)
	}
	opts := []expr.Option{expr.Env(env), expr.AsBool(), expr.DisableAllBuiltins()}
	for _, w := range words {
		opts = append(opts, expr.EnableBuiltin(w))
	}
	b := bounded{names: map[string]bool{}}
	// Looked at before it is compiled: folding constants would build what is refused here.
	if tree, err := parser.Parse(text); err == nil {
		ast.Walk(&tree.Node, &b)
		if b.err != nil {
			return nil, Placed(b.err.Bind(tree.Source))
		}
	}
	prog, err := expr.Compile(text, opts...)
	if err != nil {
		return nil, Placed(err)
	}
	return &Program{prog, b.names}, nil
}

// Run says whether the condition holds; env is of the type that it was compiled with.
func (p *Program) Run(env any) (bool, error) {
	out, err := expr.Run(p.vm, env)
	holds, _ := out.(bool)
	return holds, err
}

// Uses reports whether the condition looks at a name.
func (p *Program) Uses(name string) bool { return p.names[name] }

// bounded refuses what can run long or grow: loops, ranges, and patterns made at run time.
type bounded struct {
	err   *file.Error
	names map[string]bool
}

// Visit looks at one node; children come before their parents.
func (b *bounded) Visit(n *ast.Node) {
	say := ""
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		b.names[n.Value] = true
	case *ast.BuiltinNode:
		if !slices.Contains(words[:], n.Name) {
			say = "there is no function " + n.Name + " here; there are " + strings.Join(words[:], ", ")
		}
	case *ast.BinaryNode:
		_, constant := n.Right.(*ast.StringNode)
		switch {
		case n.Operator == "..":
			say = "ranges (..) are not used here; compare with < and >"
		case n.Operator == "matches" && !constant:
			say = "a pattern of matches must stand here in quotes"
		}
	}
	if say != "" && b.err == nil {
		b.err = &file.Error{Location: (*n).Location(), Message: say}
	}
}

// Placed puts an error of the expression's compiler as "line:column: message".
func Placed(err error) error {
	var fe *file.Error
	if !errors.As(err, &fe) {
		return fmt.Errorf("1:1: %w", err)
	}
	return fmt.Errorf("%d:%d: %s", max(fe.Line, 1), fe.Column+1, fe.Message)
}
