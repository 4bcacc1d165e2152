package verify

import (
	"encoding/json"
	"reflect"
	"testing"

	"penstock/provider"
)

func sortedText(t testing.TB, body string) (string, string) {
	t.Helper()
	v := mustNew(t, get(t, "nowpayments"), provider.Credentials{"ipn_secret": {testSecret}}, Options{})
	text, reason := v.jsonSorted(&provider.Request{Body: []byte(body)}, &scratch{})
	return string(text), reason
}

// TestJSONSorted: what JSON.stringify gives for the same document with its names sorted
// (read off Node 20).
func TestJSONSorted(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":{"d":[3,{"z":1,"y":2}],"c":null}}`:   `{"a":{"c":null,"d":[3,{"y":2,"z":1}]},"b":1}`,
		` { "a" : 1.50 , "b" : 1e-5 , "c":0.00000001 } `: `{"a":1.50,"b":1e-5,"c":0.00000001}`, // numbers stay as they came
		`{"a":"\u0437\/<&>\u2028\u007f\u0001\b\n\"\\"}`:  "{\"a\":\"з/<&>\u2028\u007f\\u0001\\b\\n\\\"\\\\\"}",
		`{"10":1,"9":2,"b":3,"01":4}`:                    `{"9":2,"10":1,"01":4,"b":3}`,
		`{"Z":1,"a":2,"":3}`:                             `{"":3,"Z":1,"a":2}`,
	} {
		if got, reason := sortedText(t, in); got != want || reason != "" {
			t.Errorf("%s becomes %s (%s), want %s", in, got, reason, want)
		}
	}
	for _, bad := range []string{`{"a":1,"a":2}`, `{"x":{"a":1,"a":2}}`, `{"a":1`, ``, `a=1`} {
		if got, reason := sortedText(t, bad); reason == "" {
			t.Errorf("%s becomes %s", bad, got)
		}
	}
}

// FuzzJSONSorted: what is written is the same document.
func FuzzJSONSorted(f *testing.F) {
	f.Add(`{"b":1,"a":{"d":[3,{"z":1,"y":"\u0001"}],"c":null}}`)
	f.Fuzz(func(t *testing.T, body string) {
		got, reason := sortedText(t, body)
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
		if again, _ := sortedText(t, got); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
	})
}
