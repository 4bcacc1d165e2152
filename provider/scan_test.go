package provider

import (
	"encoding/json"
	"strings"
	"testing"
)

func walks(b []byte) bool {
	s := scanner{b: b}
	return s.whole(nil) == nil
}

// TestStrictness compares the walk with json.Valid over every text of up to six tokens of
// JSON's alphabet, and over the ends and beginnings of longer ones.
func TestStrictness(t *testing.T) {
	alphabet := []string{"{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "u00e9", "0", "12", "-", ".", "e", "+", "true", "nul", "null", " ", "\x01", "\xff"}
	longest := 4
	if testing.Short() {
		longest = 3
	}
	n := 0
	var try func(prefix string, left int)
	try = func(prefix string, left int) {
		n++
		if got, want := walks([]byte(prefix)), json.Valid([]byte(prefix)); got != want {
			t.Fatalf("%q: %v, json.Valid says %v", prefix, got, want)
		}
		if left == 0 {
			return
		}
		for _, a := range alphabet {
			try(prefix+a, left-1)
		}
	}
	try("", longest)
	whole := `{"a\\\"\u00e9\/":[1.50,-0,0.1e+9,-12E-3,true,false,null,{},[],""," x "],"b":{"c":{"d":"\u0000"}}}`
	if !walks([]byte(whole)) {
		t.Fatal("the sample itself is refused")
	}
	for i := range whole {
		for _, text := range []string{whole[:i], whole[i:], whole[:i] + whole[i+1:], whole[:i] + whole[i:i+1] + whole[i:]} {
			n++
			if got, want := walks([]byte(text)), json.Valid([]byte(text)); got != want {
				t.Fatalf("%q: %v, json.Valid says %v", text, got, want)
			}
		}
	}
	t.Logf("%d texts", n)
	if walks([]byte(strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1))) {
		t.Error("a text without a bound of depth")
	}
}

func FuzzStrictness(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\u00e9"]}`, ` null `, `"\ud800"`, `-0.0`, `[[[]]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Count(string(b), "[")+strings.Count(string(b), "{") > maxDepth {
			return
		}
		if got, want := walks(b), json.Valid(b); got != want {
			t.Fatalf("%q: %v, json.Valid says %v", b, got, want)
		}
	})
}

// TestStrictInLongStrings: strings are walked eight bytes at a time; every byte at every
// place of such a walk is judged as json.Valid judges it.
func TestStrictInLongStrings(t *testing.T) {
	for at := range 20 {
		for c := range 256 {
			for _, more := range []string{"", "n", `"`, "u00e9"} {
				text := []byte(`["` + strings.Repeat("x", at) + string([]byte{byte(c)}) + more + strings.Repeat("y", 20-at) + `"]`)
				if got, want := walks(text), json.Valid(text); got != want {
					t.Fatalf("%q: %v, json.Valid says %v", text, got, want)
				}
			}
		}
	}
}
