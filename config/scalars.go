package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// text gives a scalar's text as it stands in the file, with env: resolved. quotedKind is
// what it is without quotes, so that `level: true` is not taken for text unnoticed.
func (d *decoder) text(n ast.Node, path string) (s, kind string, ok bool) {
	switch m := n.(type) {
	case *ast.StringNode:
		s, kind = m.Value, "text"
	case *ast.LiteralNode:
		s, kind = m.Value.Value, "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return strings.TrimSpace(n.GetToken().Value), kindOf(n), true
	default:
		d.wrongType(n, path, "a single value")
		return "", "", false
	}
	if strings.HasPrefix(s, "env:") {
		r := resolve(s)
		if r.err != nil {
			d.fail(placeOf(n), path, r.err.Error(), r.cure)
			return "", "", false
		}
		d.depends(r.value)
		return r.value, "env", true
	}
	return s, kind, true
}

func (d *decoder) scalar(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	if v.Type() == secretType {
		least := leastSecret
		if f.Tag.Get("short") == "true" {
			least = 1
		}
		if s, ok := d.secret(n, path, least); ok {
			v.SetString(string(s))
		}
		return
	}
	s, kind, ok := d.text(n, path)
	if !ok {
		return
	}
	if want, fits := fits(v, kind); !fits {
		d.fail(placeOf(n), path, "expected "+want+", got "+kind, quoteCure(want))
		return
	}
	if cure, err := setScalar(v, s); err != nil {
		d.fail(placeOf(n), path, err.Error(), cure)
		return
	}
	d.rules(n, path, v, f)
}

func quoteCure(want string) string {
	if want == "text" {
		return "put it in quotes"
	}
	return ""
}

// fits says whether a YAML scalar of that kind may stand for v's type.
func fits(v reflect.Value, kind string) (want string, ok bool) {
	switch {
	case v.Type() == durationType, v.Type() == sizeType:
		return "text such as 10s or 10MiB", kind != "true or false"
	case v.Kind() == reflect.String:
		return "text", kind == "text" || kind == "env"
	case v.Kind() == reflect.Bool:
		return "true or false", kind == "true or false" || kind == "env"
	}
	return "a number", kind == "a number" || kind == "env"
}

// setScalar reads s as v's type; the string is a cure.
func setScalar(v reflect.Value, s string) (string, error) {
	switch {
	case v.Type() == durationType:
		x, err := ParseDuration(s)
		v.SetInt(int64(x))
		return "write 500ms, 30s, 10m, 12h, 8d or 2w", err
	case v.Type() == sizeType:
		x, err := ParseSize(s)
		v.SetInt(int64(x))
		return "write 512B, 64KiB, 10MiB, 200GiB or 1TiB", err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		x, err := strconv.ParseBool(s)
		if err != nil {
			return "", fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(x)
	case reflect.Int:
		x, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return "", fmt.Errorf("%q is no whole number", s)
		}
		v.SetInt(x)
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || x != x {
			return "", fmt.Errorf("%q is no number", s)
		}
		v.SetFloat(x)
	default:
		return "", errors.New("BUG: no decoder for " + v.Type().String())
	}
	return "", nil
}

// rules checks what the field's tags ask: enum, min, max, check.
func (d *decoder) rules(n ast.Node, path string, v reflect.Value, f reflect.StructField) {
	if enum := f.Tag.Get("enum"); enum != "" {
		words := strings.Split(enum, "|")
		for _, w := range words {
			if v.String() == w {
				return
			}
		}
		cure := suggest(v.String(), words)
		if cure == "" {
			cure = "one of " + strings.Join(words, ", ")
		}
		d.fail(placeOf(n), path, fmt.Sprintf("%q is not known here", v.String()), cure)
		return
	}
	for _, tag := range []string{"min", "max"} {
		if bound := f.Tag.Get(tag); bound != "" && beyond(v, bound, tag) {
			word := map[string]string{"min": "least", "max": "most"}[tag]
			d.fail(placeOf(n), path, fmt.Sprintf("%s is out of range", shown(v)), "at "+word+" "+bound)
			return
		}
	}
	if v.Kind() != reflect.String {
		return
	}
	if check := f.Tag.Get("check"); check == "pem" {
		d.pem(n, path, v)
	} else if check == "when" {
		d.raw[path] = n // a later pass reads it: the catalogue knows what it may say
	} else if check != "" {
		if cure, err := checks[check](v.String()); err != nil {
			d.failWithin(n, path, v.String(), err, cure)
		}
	} else if v.String() == "" {
		d.fail(placeOf(n), path, "is empty", "give a value, or remove the key")
	}
}

// failWithin reports a mistake in a scalar, at its very place where that is known.
func (d *decoder) failWithin(n ast.Node, path, text string, err error, cure string) {
	at := placeOf(n)
	var in insideError
	if errors.As(err, &in) {
		if p, ok := within(n, text, 1, in.at+1); ok {
			at = p
		}
	}
	d.fail(at, path, err.Error(), cure)
}

func shown(v reflect.Value) string {
	if v.Type() == durationType {
		return FormatDuration(time.Duration(v.Int()))
	}
	return fmt.Sprint(v.Interface())
}

func beyond(v reflect.Value, bound, tag string) bool {
	b := reflect.New(v.Type()).Elem()
	if _, err := setScalar(b, bound); err != nil {
		panic("BUG: bound " + bound + ": " + err.Error())
	}
	x, y := number(v), number(b)
	return tag == "min" && x < y || tag == "max" && x > y
}

func number(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return v.Float()
}

// pem notes a certificate file so that a watcher follows it, and sees that it is there.
func (d *decoder) pem(n ast.Node, path string, v reflect.Value) {
	name := strings.TrimPrefix(v.String(), "file:")
	v.SetString(name)
	if name == "" {
		d.fail(placeOf(n), path, "is empty", "name a file in PEM")
		return
	}
	d.files = append(d.files, name)
	b, err := readBounded(name, maxSecretFile)
	if err != nil {
		d.fail(placeOf(n), path, describe(name, err).Error(), "create it, or correct the path (it is relative to the working directory)")
		return
	}
	d.depends(string(b))
	if !strings.Contains(string(b), "-----BEGIN ") {
		d.fail(placeOf(n), path, fmt.Sprintf("file %s holds no PEM block", name), "expected -----BEGIN ...-----")
	}
}

// secret reads one secret: env:NAME, file:PATH or the text itself. The value never gets
// into a message.
func (d *decoder) secret(n ast.Node, path string, least int) (Secret, bool) {
	var text string
	switch m := n.(type) {
	case *ast.StringNode:
		text = m.Value
	case *ast.LiteralNode:
		text = m.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = strings.TrimSpace(n.GetToken().Value)
	default:
		d.wrongType(n, path, "a single value")
		return "", false
	}
	r := resolve(text)
	if r.file != "" {
		d.files = append(d.files, r.file)
	}
	if r.err != nil {
		d.fail(placeOf(n), path, r.err.Error(), r.cure)
		return "", false
	}
	d.depends(r.value)
	return Secret(r.value), d.secretLength(placeOf(n), path, r, text, least)
}

func (d *decoder) secretLength(at place, path string, r reference, text string, least int) bool {
	from := ""
	if r.kind != "" {
		from = " (from " + text + ")"
	}
	size := len(strings.TrimSpace(r.value))
	switch {
	case size == 0:
		d.fail(at, path, "is empty"+from, "an empty secret would let everybody in")
		return false
	case size < least:
		d.fail(at, path, fmt.Sprintf("has %d bytes%s", size, from), fmt.Sprintf("a secret has at least %d", least))
		return false
	case least >= leastSecret && size < goodSecret:
		d.warn(at, path, fmt.Sprintf("has only %d bytes%s", size, from), fmt.Sprintf("%d or more are safe against guessing", goodSecret))
	}
	if size != len(r.value) && !strings.Contains(r.value, "-----BEGIN ") { // PEM ends in a newline
		d.warn(at, path, "begins or ends with blanks"+from, "they count as part of the secret")
	}
	return true
}
