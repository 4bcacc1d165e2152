package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzForm: reads what net/url reads, and an object of what it read is JSON that loses
// nothing.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=%41+b&a=&a", "&&=&", "%zz=1", "a;b=1", "a=%", "a=\xff&a#2=1&a=2", strings.Repeat("a=1&", 300)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		pairs, err := parseForm(text)
		if !bytes.Equal(before, text) {
			t.Fatal("wrote into its input")
		}
		want, wantErr := url.ParseQuery(string(text))
		if err != nil {
			return
		}
		if wantErr != nil && !bytes.ContainsRune(text, ';') {
			t.Fatalf("reads %q, net/url does not: %v", text, wantErr)
		}
		for name, values := range want {
			if value, n := lookup(pairs, name); wantErr == nil && (n != len(values) || string(value) != values[0]) {
				t.Fatalf("%q: %q is %q (%d), want %q", text, name, value, n, values)
			}
		}
		object, _ := formObject(pairs)
		var read map[string]string
		if err := json.Unmarshal(object, &read); err != nil {
			t.Fatalf("%q of %q: %v", object, text, err)
		}
		for _, p := range pairs {
			if !utf8.Valid(p.name) {
				return // such names may fall together where they are written as JSON
			}
		}
		if len(read) != len(pairs) {
			t.Fatalf("%q of %q: %d fields of %d", object, text, len(read), len(pairs))
		}
	})
}

// FuzzXML: what is written of a document is one JSON object.
func FuzzXML(f *testing.F) {
	for _, s := range []string{"<a>1</a>", `<?xml version="1.0"?><a b="c">x<d/><d>2</d></a>`, "<!DOCTYPE a><a/>", "<a>&lt;&#65;</a>", "<a><a>", "\ufeff<a/>", "<a xmlns:x='y'><x:b/></a>", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := XMLToJSON(body)
		if err != nil {
			return
		}
		var read map[string]any
		if err := json.Unmarshal(text, &read); err != nil || len(read) != 1 {
			t.Fatalf("%q is written %q: %v", body, text, err)
		}
	})
}

// FuzzMultipart: whatever the boundary and the parts.
func FuzzMultipart(f *testing.F) {
	body, kind := MultipartForm("data", []byte(`{"a":1}`))
	f.Add(kind, body)
	f.Add("multipart/form-data; boundary=\"", body)
	f.Add("multipart/form-data; boundary=a", []byte("--a\r\n\r\n\r\n--a--"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		if strings.ContainsAny(kind, "\r\n") {
			return
		}
		r := &Request{Method: "POST", Target: []byte("/"), Header: MakeHeader([][2]string{{"Content-Type", kind}}), Body: body}
		pairs, err := parseMultipart(r)
		if err != nil && len(pairs) > 0 || len(pairs) > maxPairs {
			t.Fatalf("%d fields, %v", len(pairs), err)
		}
		FormField(r, "data")
	})
}

// FuzzDefinition: a user's own definition; an error names its file, and what is taken can
// read any delivery.
func FuzzDefinition(f *testing.F) {
	for _, s := range []string{"name: x\nscheme: none\n", "name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: A, encoding: hex}\n",
		asymmetric + "published: {hosts: [a.example], url: \"https://a.example/k\"}\n", "a: &a [*a]\n", "name: x\nscheme: none\nitems: events[*]\nevent: {id: ^.a, amount: {path: b, unit: minor}}\n",
		"name: x\nscheme: jwt\njwt: {header: A, algorithms: [RS256], claims: [{claim: a, sha256: body}]}\n", "name: x\nip_ranges: {date: \"2026-01-01\", ranges: [1.2.3.4]}\n"} {
		f.Add([]byte(s))
	}
	r := &Request{Method: "POST", Target: []byte("/x?a=1"), Header: MakeHeader([][2]string{{"Content-Type", "application/json"}}), Body: []byte(`{"a":1,"events":[{"a":"x","b":12}]}`)}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse("f.yaml", text)
		if (d == nil) == (err == nil) {
			t.Fatalf("%v, %v", d, err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "f.yaml:") {
				t.Fatalf("%q: the error has no place: %v", text, err)
			}
			return
		}
		d.Events(r)
	})
}

// FuzzTemplate: the pieces of a template are what it says.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{ts}.{body}", "{form:payload}", "{header:A}{", "}", "{{}}", "{own:x}a{json:a.b}", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pieces, err := ParseTemplate(text)
		if err != nil {
			return
		}
		n := 0
		for _, p := range pieces {
			n += len(p.Arg)
		}
		if n > len(text) {
			t.Fatalf("%q gives %+v", text, pieces)
		}
	})
}

// FuzzSealed: nothing opens without the key, whatever is sealed.
func FuzzSealed(f *testing.F) {
	key := []byte(strings.Repeat("k", 32))
	for _, s := range []string{"", strings.Repeat("A", 64), base64.StdEncoding.EncodeToString(make([]byte, 64)), "=", "\x00"} {
		f.Add([]byte(s), []byte("nonce-nonce-"))
	}
	f.Fuzz(func(t *testing.T, sealed, nonce []byte) {
		if plain, err := openGCM(key, nonce, sealed, nil); err == nil {
			t.Fatalf("%q was opened: %q", sealed, plain)
		}
		if plain, ok := OpenPrefixed(key, sealed); ok {
			t.Fatalf("%q was opened: %q", sealed, plain)
		}
		if plain, ok := OpenCBC(key, sealed); ok && (plain[0] != '{' || plain[len(plain)-1] != '}') { // it has no proof: what is inside must look like a document
			t.Fatalf("%q was opened: %q", sealed, plain)
		}
		OpenWeChat([]byte(strings.Repeat("k", 43)), sealed) // no proof either: msg_signature is
		replaceMember(sealed, "a", []byte("1"))
	})
}

// FuzzMoment: a time that is read is one that RFC 3339 can write, or none.
func FuzzMoment(f *testing.F) {
	for _, s := range []string{"1780000000", "1780000000000", "1.78e9", "-1", "2026-05-28T20:26:40Z", "99999999999999999999", "28.05.2026", "1e400", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, unit := range []string{"s", "ms", "us", "auto", "rfc3339", "02.01.2006"} {
			at := parseMoment(text, unit, time.UTC)
			if at.IsZero() {
				continue
			}
			if y := at.UTC().Year(); unit == "auto" && (y < -1 || y > 9999) {
				t.Fatalf("%q in %s is %s", text, unit, at)
			}
		}
		flag(text)
	})
}

// FuzzHeader: the lines of a header block, however they are broken.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{"A: b\r\n", "A:b\nC", "A", ":\r\n", "A: b\r\n c\r\nA: d\r\n", "\r\n\r\n", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		n := 0
		Header(block).Each(func(name, value []byte) bool {
			n++
			if bytes.ContainsRune(name, '\n') || bytes.ContainsRune(value, '\n') || n > len(block)+1 {
				t.Fatalf("%q: %q %q", block, name, value)
			}
			if v, times := Header(block).Get(string(name)); times == 0 && len(name) > 0 {
				t.Fatalf("%q: %q is there and is not found (%q)", block, name, v)
			}
			return true
		})
	})
}
