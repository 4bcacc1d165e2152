package verify

import (
	"bytes"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// FuzzParseForm: never panics, never writes to its input, and reads what net/url reads.
func FuzzParseForm(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=%41+b&a=", "&&=&", "%zz=1", "a;b=1", strings.Repeat("a&", 2000), "a=%", "a=%4"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		pairs, _, err := parseForm(text, nil, nil)
		if !bytes.Equal(before, text) {
			t.Fatal("wrote into its input")
		}
		want, wantErr := url.ParseQuery(string(text))
		if err == nil && wantErr != nil {
			t.Fatalf("reads %q, net/url does not: %v", text, wantErr)
		}
		if err != nil {
			return
		}
		n := 0
		for name, values := range want {
			n += len(values)
			if value, count := find(pairs, name); count != len(values) || string(value) != values[0] {
				t.Fatalf("%q: %q is %q (%d), want %q", text, name, value, count, values)
			}
		}
		if n != len(pairs) {
			t.Fatalf("%q: %d pairs, want %d", text, len(pairs), n)
		}
	})
}

// FuzzTime: what parses is exactly what prints.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"1780000000", "+1", "-1", " 1", "1.0", "00", "9223372036854775808", "2026-05-28T20:26:40Z", "Thu, 28 May 2026 20:26:40 GMT"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, unit := range []string{"s", "ms", "s_or_ms", "rfc3339", "http_date"} {
			at, ok := parseTime(text, unit)
			if !ok || unit == "rfc3339" || unit == "http_date" {
				continue
			}
			for _, c := range text {
				if c < '0' || c > '9' {
					t.Fatalf("%q is %s in %s", text, at, unit)
				}
			}
		}
	})
}

// fuzzed are verifiers of every kind, with a good delivery each.
func fuzzed(t testing.TB) (vs []*Verifier, good []*provider.Request) {
	for _, name := range builtin(t).Names() {
		v, _ := devVerifier(t, get(t, name))
		vs, good = append(vs, v), append(good, signed(t, v, name))
	}
	for _, fam := range families {
		v, _ := devVerifier(t, schemeDef(t, fam.scheme))
		r := delivery("x")
		r.Target = []byte("/in/x?a=1")
		r.Header = setHeader(setHeader(r.Header, "X-Extra", "x"), "X-Kind", "k")
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		vs, good = append(vs, v), append(good, r)
	}
	return vs, good
}

// FuzzSignatureHeader: whatever stands in the place of the signature, nothing panics (the
// recover of Verify is not in the way) and nothing but the signature itself verifies.
func FuzzSignatureHeader(f *testing.F) {
	vs, good := fuzzed(f)
	for i, v := range vs {
		if len(v.sig.headers) > 0 {
			text, _ := good[i].Header.Get(v.sig.headers[0])
			f.Add(uint8(i), string(text))
		}
	}
	f.Add(uint8(0), "t=1780000000,v1=00,v1=,t=,=,")
	f.Add(uint8(0), "v1,,v1,AAAA v1a,AAAA")
	f.Fuzz(func(t *testing.T, i uint8, text string) {
		if strings.ContainsAny(text, "\r\n") {
			return
		}
		n := int(i) % len(vs)
		v, name := vs[n], ""
		switch {
		case len(v.sig.headers) > 0:
			name = v.sig.headers[0]
		case v.kind == primStandard:
			name = v.trios[0].sig
		case v.kind == primBasic:
			name = "Authorization"
		case v.kind == primToken && v.token.t.Header != "":
			name = v.token.t.Header
		default:
			return
		}
		want, _ := good[n].Header.Get(name)
		r := with(good[n], name, text)
		if res := v.verify(r, testNow, v.get()); res.Verdict == Accepted && !strings.Contains(strings.ToLower(text), strings.ToLower(mainSignature(string(want)))) {
			t.Fatalf("%s: %q verifies, the signature is %q", v.s.Scheme, text, want)
		}
	})
}

// mainSignature is the longest run of a value that could be the signature.
func mainSignature(value string) string {
	longest := ""
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune("=,; ", r) }) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// FuzzVerify: any method, target, headers and body under every scheme: no panic, no
// write to the request, nothing accepted that was not signed.
func FuzzVerify(f *testing.F) {
	vs, good := fuzzed(f)
	for i := range vs {
		f.Add(uint8(i), good[i].Method, string(good[i].Target), []byte(good[i].Header), good[i].Body)
	}
	f.Add(uint8(0), "GET", "/x?hub.mode=subscribe&hub.challenge=%", []byte("a: b\r\n"), []byte(`{"type":"url_verification","challenge":1}`))
	strangers := make([]*Verifier, len(vs))
	names := builtin(f).Names()
	for i := range vs {
		def := (*provider.Definition)(nil)
		if i < len(names) {
			def = get(f, names[i])
		} else {
			def = schemeDef(f, families[i-len(names)].scheme)
		}
		creds, err := DevCredentials(def, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		strangers[i] = mustNew(f, def, creds, Options{})
	}
	f.Fuzz(func(t *testing.T, i uint8, method, target string, header, body []byte) {
		n := int(i) % len(vs)
		r := &provider.Request{Method: method, Target: []byte(target), Header: header, Body: body, PublicURL: "https://h" + target}
		before := clone(r)
		v := strangers[n]
		if res := v.verify(r, testNow, v.get()); res.Verdict == Accepted {
			t.Fatalf("%s: accepted what nobody signed: %+v", v.s.Scheme, r)
		}
		vs[n].verify(r, testNow, vs[n].get())
		vs[n].Ack(r, testNow)
		vs[n].Explain(r, testNow)
		if !bytes.Equal(before.Body, r.Body) || !bytes.Equal(before.Header, r.Header) || !bytes.Equal(before.Target, r.Target) {
			t.Fatal("wrote into the request")
		}
	})
}

// TestWorkIsBounded: the largest silly inputs cost what their size costs. (class 29)
func TestWorkIsBounded(t *testing.T) {
	vs, _ := fuzzed(t)
	inputs := map[string][]byte{
		"distinct keys": []byte("{" + strings.Repeat(`"k":1,`, 100000) + `"z":1}`),
		"deep":          []byte(strings.Repeat(`{"a":`, 200000) + "1" + strings.Repeat("}", 200000)),
		"form":          []byte(strings.Repeat("a=1&", 300000)),
		"percent":       []byte("data=" + strings.Repeat("%41", 300000)),
	}
	for name, body := range inputs {
		for _, v := range vs {
			r := delivery("x")
			r.Body, r.Target = body, []byte("/x?"+strings.Repeat("q=1&", 10000))
			done := make(chan struct{})
			go func() {
				defer close(done)
				v.verify(r, testNow, v.get())
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: %s hangs", name, v.s.Scheme)
			}
		}
	}
}
