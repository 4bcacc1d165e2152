package provider

import (
	"errors"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// mistake is an error of a definition with the YAML path at which it stands.
func mistake(path string, err error) error {
	var deeper *SchemeError
	if errors.As(err, &deeper) {
		return err
	}
	return &SchemeError{Path: path, Message: err.Error()}
}

// atNode gives every mistake in err its line and column below node.
func atNode(node ast.Node, err error) error {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range list.Unwrap() {
			out = append(out, atNode(node, e))
		}
		return errors.Join(out...)
	}
	var at *placed
	if errors.As(err, &at) {
		return err
	}
	var m *SchemeError
	if errors.As(err, &m) {
		return placeAt(tokenAt(node, m.Path), "%s", m.Error())
	}
	return placeAt(tokenAt(node, ""), "%s", err)
}

// tokenAt finds where "signature.encoding" or "canonical[3].is" stands; what is not
// written itself is placed at the innermost part that is.
func tokenAt(node ast.Node, path string) *token.Token {
	at := firstToken(node)
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := ast.Node(nil)
		switch n := node.(type) {
		case *ast.MappingNode:
			for _, v := range n.Values {
				if v.Key.GetToken().Value == part {
					next, at = v.Value, v.Key.GetToken()
				}
			}
		case *ast.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Values) {
				next, at = n.Values[i], firstToken(n.Values[i])
			}
		}
		if next == nil {
			return at
		}
		node = next
	}
	return at
}

func firstToken(node ast.Node) *token.Token {
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return node.GetToken()
}
