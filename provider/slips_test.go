package provider

import (
	"strings"
	"testing"
)

// TestSlips: every mistyped key of a definition is named, at once, with what was meant.
func TestSlips(t *testing.T) {
	_, err := Parse("x.yaml", []byte(`name: x
shceme: hmac
scheme: hmac
algorithm: sha25
signed: "{bod}"
signature: {header: X, encodng: hex}
credentials:
  - {name: secrets, rle: key}
event: {id: id, type: type, currncy: c, amount: {path: a, unti: minor}}
shapes:
  - {nam: s, when: {type: {isnt: a}}, event: {satus: s}}
canonical:
  - {type: a, si: payment.captured}
`))
	if err == nil {
		t.Fatal("it loads")
	}
	for _, want := range []string{
		`x.yaml:2:1: unknown field "shceme"; did you mean "scheme"?`, `6:24: unknown field "encodng"; did you mean "encoding"?`,
		`8:21: unknown field "rle"; did you mean "role"?`, `9:29: unknown field "currncy"; did you mean "currency"?`, `9:59: unknown field "unti"; did you mean "unit"?`,
		`11:6: unknown field "nam"; did you mean "name"?`, `11:28: unknown field "isnt"; did you mean "is"?`, `11:47: unknown field "satus"; did you mean "status"?`, `13:15: unknown field "si"; did you mean "is"?`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in\n%v", want, err)
		}
	}
	if _, err := Parse("x.yaml", []byte("name: x\nscheme: hmac\nalgorithm: sha25\nsigned: \"{bod}\"\nsignature: {header: X, encoding: hx}\n")); err == nil || strings.Count(err.Error(), "did you mean") < 3 {
		t.Errorf("values: %v", err)
	}
}

func TestEditDistance(t *testing.T) {
	f := func(a, b string, want int) {
		t.Helper()
		if got := editDistance(a, b); got != want {
			t.Errorf("%s, %s: %d, want %d", a, b, got, want)
		}
	}
	f("", "", 0)
	f("a", "", 1)
	f("scheme", "shceme", 1)
	f("type", "typ", 1)
	f("unit", "united", 2)
	f("is", "si", 1)
}
