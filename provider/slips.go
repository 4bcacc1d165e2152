package provider

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// unknownKeys finds every key that the format does not know, with its place and the name
// that was probably meant. The YAML package stops at the first and suggests nothing.
func unknownKeys(node ast.Node, t reflect.Type) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n := node.(type) {
	case *ast.MappingNode:
		return unknownIn(n.Values, t)
	case *ast.MappingValueNode:
		return unknownIn([]*ast.MappingValueNode{n}, t)
	case *ast.SequenceNode:
		var errs []error
		if t.Kind() == reflect.Slice {
			for _, v := range n.Values {
				errs = append(errs, unknownKeys(v, t.Elem())...)
			}
		}
		return errs
	}
	return nil
}

func unknownIn(values []*ast.MappingValueNode, t reflect.Type) (errs []error) {
	switch {
	case t.Kind() == reflect.Map:
		for _, v := range values {
			errs = append(errs, unknownKeys(v.Value, t.Elem())...)
		}
		return errs
	case t.Kind() != reflect.Struct:
		return nil // a list that is written as one mapping, or a mistake that decoding names
	}
	fields := map[string]reflect.Type{}
	keysOf(t, fields)
	names := sortedKeysOf(fields)
	if len(names) == 0 {
		return nil // read by code of its own
	}
	for _, v := range values {
		key := v.Key.GetToken()
		if f, ok := fields[key.Value]; ok {
			errs = append(errs, unknownKeys(v.Value, f)...)
			continue
		}
		errs = append(errs, placeAt(key, "unknown field %q%s", key.Value, meant(key.Value, names)))
	}
	return errs
}

// keysOf collects the keys of a struct, those of its inlined parts among them.
func keysOf(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		name, opts, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case opts == "inline":
			keysOf(t.Field(i).Type, into)
		case name != "" && name != "-":
			into[name] = t.Field(i).Type
		}
	}
}

// meant says which of the names a mistyped word was probably to be, or which there are.
func meant(word string, names []string) string {
	best, at := "", 3
	if len(word) < 4 {
		at = 2
	}
	for _, n := range names {
		if d := editDistance(strings.ToLower(word), n); d < at {
			best, at = n, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(names) <= 12:
		return "; there are " + strings.Join(names, ", ")
	}
	return ""
}

// editDistance counts the letters to put in, take out, replace or swap.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, row []int
	for j := range len(b) + 1 {
		row = append(row, j)
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := row[j-1]
			if a[i-1] != b[j-1] {
				cost++
			}
			next[j] = min(cost, row[j]+1, next[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
