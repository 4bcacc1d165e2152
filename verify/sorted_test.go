package verify

import (
	"encoding/json"
	"reflect"
	"testing"

	"penstock/provider"
)

func sortedText(t testing.TB, body string, n int) (string, string) {
	t.Helper()
	v := mustNew(t, get(t, "nowpayments"), provider.Credentials{"ipn_secret": {testSecret}}, Options{})
	text, reason := v.jsonSorted(&provider.Request{Body: []byte(body)}, &scratch{}, n)
	return string(text), reason
}

// TestJSONSorted: what JSON.stringify gives for the same document with its names sorted
// (read off Node 20).
func TestJSONSorted(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":{"d":[3,{"z":1,"y":2}],"c":null}}`:  `{"a":{"c":null,"d":[3,{"y":2,"z":1}]},"b":1}`,
		`{"a":"\u0437\/<&>\u2028\u007f\u0001\b\n\"\\"}`: "{\"a\":\"з/<&>\u2028\u007f\\u0001\\b\\n\\\"\\\\\"}",
		`{"10":1,"9":2,"b":3,"01":4}`:                   `{"9":2,"10":1,"01":4,"b":3}`,
		`{"Z":1,"a":2,"":3}`:                            `{"":3,"Z":1,"a":2}`,
	} {
		if got, reason := sortedText(t, in, 0); got != want || reason != "" {
			t.Errorf("%s becomes %s (%s), want %s", in, got, reason, want)
		}
	}
	numbers := ` { "a" : 1.50 , "b" : 1e-5 , "c":0.00000001, "d":1e21, "e":5 } `
	for n, want := range []string{`{"a":1.50,"b":1e-5,"c":0.00000001,"d":1e21,"e":5}`, `{"a":1.5,"b":0.00001,"c":1e-8,"d":1e+21,"e":5}`} {
		if got, reason := sortedText(t, numbers, n); got != want || reason != "" {
			t.Errorf("spelling %d is %s (%s), want %s", n, got, reason, want)
		}
	}
	if _, reason := sortedText(t, `{"a":1.5}`, 1); reason != skipVariant {
		t.Errorf("there is no other spelling, and %q", reason)
	}
	for _, bad := range []string{`{"a":1,"a":2}`, `{"x":{"a":1,"a":2}}`, `{"a":1`, ``, `a=1`} {
		if got, reason := sortedText(t, bad, 0); reason == "" {
			t.Errorf("%s becomes %s", bad, got)
		}
	}
}

// FuzzJSONSorted: what is written is the same document.
func FuzzJSONSorted(f *testing.F) {
	f.Add(`{"b":1,"a":{"d":[3,{"z":1,"y":"\u0001"}],"c":null}}`)
	f.Fuzz(func(t *testing.T, body string) {
		got, reason := sortedText(t, body, 0)
		if reason != "" {
			return
		}
		var before, after any
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatalf("%q becomes %q: %v", body, got, err)
		}
		if json.Unmarshal([]byte(body), &before) == nil && !reflect.DeepEqual(before, after) {
			t.Fatalf("%q becomes %q", body, got)
		}
		if again, _ := sortedText(t, got, 0); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
	})
}
