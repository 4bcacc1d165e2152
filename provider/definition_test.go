package provider

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

const head = "name: x\nscheme: none\n"

// TestMistakes: every mistake of a definition is found at load, and where it stands.
// asymmetric is a scheme whose keys may be published.
const asymmetric = "name: x\nscheme: ed25519\nsigned: '{body}'\nsignature: {header: A, encoding: hex}\n"

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, at, says string }{
		{head + "evnt: {}\n", "3:1", "unknown field"},
		{head + "event: {ordr_id: a}\n", "3:9", "unknown field"},
		{head + "name: y\n", "3:1", "already defined"},
		{head + "event: {type: a..b}\n", "3:15", "bad path"},
		{head + "event:\n  order_id: [a, 'b[c]']\n", "4:17", "bad path"},
		{head + "event: {order_id: \"header:\"}\n", "3:19", "bad path"},
		{head + "event: {order_id: \"a{b\"}\n", "3:19", "braces"},
		{head + "event: {amount: total}\n", "3:17", "unit"},
		{head + "event: {amount: {path: total, unit: cents}}\n", "3:17", "minor or major"},
		{head + "event: {occurred_at: {path: t, unit: days}}\n", "3:9", "days"},
		{head + "event: {occurred_at: {path: t}}\n", "3:9", "unit"},
		{head + "event: {id: ^.a}\n", "3:1", "items"},
		{head + "canonical: [{type: a, is: payment.capturd}]\n", "3:27", "payment.capturd"},
		{head + "canonical:\n  - {type: a, is: provider}\n  - {type: a, is: payment.captured}\n", "5:6", "never reached"},
		{head + "canonical:\n  - {is: payment.captured}\n", "4:6", "fits everything"},
		{head + "canonical: []\n", "3:1", "empty"},
		{head + "canonical:\n  - {type: a, when: {b: {}}, is: provider}\n", "4:6", "no condition"},
		{head + "failure: {code: c, reasons: {poor: a}}\n", "3:30", "vocabulary"},
		{head + "failure: {code: c, reasons: {other: a, do_not_honor: a}}\n", "3:", "code a means"},
		{head + "failure: {reasons: {other: a}}\n", "3:1", "without code"},
		{head + "identity: hash\n", "3:11", "identity"},
		{head + "identity: [status]\n", "3:1", "not signed"},
		{head + "items: [events]\n", "3:9", "ends in"},
		{head + "document: [yaml]\n", "3:12", "document"},
		{head + "document: [{form: data, as: hex}]\n", "3:1", "base64-json"},
		{head + "max_body: lots\n", "3:11", "size"},
		{head + "ip_ranges: {ranges: [1.2.3]}\n", "3:1", ""},
		{head + "ip_ranges: {date: \"2026-01-01\", ranges: [1.2.3.4/99]}\n", "3:1", "no address range"},
		{head + "exponents: {eur: 2}\n", "3:13", "upper case"},
		{head + "retry: {horizon: 72h}\nwindow: 1h\n", "4:1", "shorter"},
		{head + "shapes: [{name: a, when: {type: b}}]\n", "3:", "before its shape"},
		{head + "secret_fields: [\"header:X\"]\n", "3:1", "no place"},
		{head + "samples: {events: [{type: a, body: \"${nope}\"}]}\n", "3:", "unknown"},
		{head + "methods: [POTS]\n", "3:1", "POTS"},
		{"scheme: none\n", "1:1", "name is missing"},
		{"name: X\nscheme: none\n", "1:1", "small letters"},
		{"name: x\nscheme: hmca\n", "2:1", "hmca"},
		{"name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: A, encoding: hexx}\n", "5:", "hexx"},
		{asymmetric + "published: {hosts: [a.example]}\n", "5:", "where the keys stand"},
		{asymmetric + "published: {hosts: [a.example], url: \"http://a.example/k\"}\n", "5:", "https:// only"},
		{asymmetric + "published: {hosts: [b.example], url: \"https://a.example/k\"}\n", "5:", "never be asked"},
		{asymmetric + "published: {hosts: [a.example], url: \"https://a.example/k\", format: xml}\n", "5:", "xml"},
		{asymmetric + "published: {hosts: [a.example], url: \"https://a.example/k\", format: json}\n", "5:", "where in the document"},
		{asymmetric + "published: {hosts: [a.example], url: \"https://a.example/k\", path: x}\n", "5:", "goes with format json"},
		{asymmetric + "published: {hosts: [a.example], url: \"https://a.example/k\", format: pem}\nkey_id: {header: K}\n", "5:", "key_id asks for one"},
		{"name: x\nscheme: hmac\nalgorithm: sha256\nsigned: '{body}'\nsignature: {header: A, encoding: hex}\npublished: {hosts: [a.example], url: \"https://a.example/k\"}\n", "6:", "shared secret"},
		{"- a\n", "1:1", ""}, {"", "1:1", ""}, {"a: b: c\n", "1:", ""},
	} {
		_, err := Parse("f.yaml", []byte(c.text))
		if err == nil {
			t.Errorf("%q was taken", c.text)
			continue
		}
		if !strings.Contains(err.Error(), "f.yaml:"+c.at) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v; want %s and %q", c.text, err, c.at, c.says)
		}
	}
	_, err := Parse("f.yaml", []byte("name: X\nscheme: hmca\nwindow: -1h\n"))
	if n := len(regexp.MustCompile(`(?m)\d+:\d+: `).FindAllString(err.Error(), -1)); n < 3 {
		t.Errorf("not all mistakes are named at once: %v", err)
	}
}

// TestBuiltin: what a definition of a provider has to say.
func TestBuiltin(t *testing.T) {
	cat := builtins(t)
	if len(cat.Names()) < 12 {
		t.Fatalf("only %v", cat.Names())
	}
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		if d.Title == "" || d.Setup == "" || d.Docs == "" && name != "generic_hash_concat" {
			t.Errorf("%s: title, setup or docs is missing", name)
		}
		if len(d.CredentialSpecs()) == 0 {
			t.Errorf("%s needs no credentials", name)
		}
		for i, r := range d.Canonical {
			if r.Source == "" {
				t.Errorf("%s: row %d of the mapping has no source", name, i+1)
			}
		}
		if w, h := d.DedupeWindow(), d.RetryHorizon(); w < h || w < 24*time.Hour && name != "generic_hash_concat" {
			t.Errorf("%s: window %s, horizon %s", name, w, h)
		}
	}
	gh, _ := cat.Get("github")
	if ranges, date := gh.IPRanges(); len(ranges) != 9 || date == "" {
		t.Errorf("github: %v of %q", ranges, date)
	}
	if m, _ := cat.Get("meta"); strings.Join(m.Methods(), " ") != "POST GET" {
		t.Errorf("meta: methods %v", m.Methods())
	}
	if gh.MaxBody() != 25<<20 {
		t.Errorf("github: body up to %d", gh.MaxBody())
	}
}

// TestMarkdown: the page names every row, every credential and no template of a secret.
func TestMarkdown(t *testing.T) {
	cat := builtins(t)
	for _, name := range cat.Names() {
		d, _ := cat.Get(name)
		page := d.Markdown()
		if page != d.Markdown() {
			t.Errorf("%s: two pages differ", name)
		}
		for _, s := range d.CredentialSpecs() {
			if !strings.Contains(page, "| `"+s.Name+"` |") {
				t.Errorf("%s: %s is not on the page", name, s.Name)
			}
		}
		if got := strings.Count(page, "` | "+""); got < len(d.Canonical) {
			t.Errorf("%s: %d rows for %d", name, got, len(d.Canonical))
		}
		for _, r := range d.Canonical {
			for _, w := range r.Type {
				if !strings.Contains(page, w) {
					t.Errorf("%s: %s is not on the page", name, w)
				}
			}
		}
	}
}

// TestConditions: what a condition can say.
func TestConditions(t *testing.T) {
	d := parse(t, head+`
event: {type: t, status: s}
canonical:
  - {type: above, when: {n: {above: "10"}}, is: payment.captured}
  - {type: below, when: {v: {below: "2024-10-28"}}, is: payment.captured}
  - {type: absent, when: {o: {present: false}}, is: payment.captured}
  - {type: there, when: {o: {present: true}}, is: payment.captured}
  - {type: not, when: {o: {not: [a, b*]}}, is: payment.captured}
  - {type: differs, when: {o: {differs: s}}, is: payment.captured}
  - {type: pre.*.post, is: payment.captured}
  - {type: is, status: [a, b], is: payment.captured}
`)
	for body, want := range map[string]bool{
		`{"t":"above","n":10.5}`: true, `{"t":"above","n":"9.99"}`: false, `{"t":"above","n":100}`: true, `{"t":"above"}`: false,
		`{"t":"below","v":"2024-06-20"}`: true, `{"t":"below","v":"2024-10-28.acacia"}`: false, `{"t":"below","v":null}`: false,
		`{"t":"absent"}`: true, `{"t":"absent","o":null}`: true, `{"t":"absent","o":""}`: true, `{"t":"absent","o":[]}`: true, `{"t":"absent","o":[1]}`: false, `{"t":"absent","o":0}`: false,
		`{"t":"there","o":{"a":1}}`: true, `{"t":"there","o":{}}`: false, `{"t":"there","o":false}`: true,
		`{"t":"not","o":"c"}`: true, `{"t":"not","o":"bb"}`: false, `{"t":"not"}`: true,
		`{"t":"differs","o":"x","s":"y"}`: true, `{"t":"differs","o":"x","s":"x"}`: false, `{"t":"differs","o":"x"}`: false,
		`{"t":"pre.a.post"}`: true, `{"t":"pre.post"}`: false, `{"t":"pre.a.posts"}`: false,
		`{"t":"is","s":"b"}`: true, `{"t":"is","s":"B"}`: false, `{"t":"is"}`: false,
	} {
		if got := events(t, d, body)[0].Canonical == "payment.captured"; got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
}

// FuzzEvents: nothing that a provider, or whoever holds its key, sends makes a reading
// panic, change the request, or give out what is no valid event.
func FuzzEvents(f *testing.F) {
	cat := builtins(f)
	for i, name := range cat.Names() {
		d, _ := cat.Get(name)
		for _, s := range d.SampleTypes() {
			r, err := d.Sample(s.Type, SampleParams{})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), []byte(r.Header), r.Body)
		}
	}
	names := cat.Names()
	f.Fuzz(func(t *testing.T, i uint8, header, body []byte) {
		d, _ := cat.Get(names[int(i)%len(names)])
		before := string(body)
		evs, err := d.Events(&Request{Method: "POST", Target: []byte("/in/x?a=b"), Header: header, Body: body})
		if err != nil {
			if strings.Contains(err.Error(), "internal error") {
				t.Fatal(err)
			}
			return
		}
		if string(body) != before {
			t.Fatal("the body was changed")
		}
		again, err := d.Events(&Request{Method: "POST", Target: []byte("/in/x?a=b"), Header: header, Body: body})
		if err != nil || len(again) != len(evs) {
			t.Fatalf("read twice: %v, %d and %d events", err, len(evs), len(again))
		}
		for k := range evs {
			checkFuzzed(t, &evs[k])
			if evs[k].CEID != again[k].CEID || evs[k].Content != again[k].Content {
				t.Fatal("the identity is not a function of the delivery")
			}
		}
	})
}

func checkFuzzed(t *testing.T, e *Event) {
	t.Helper()
	if e.CEID == "" || e.Canonical == "" {
		t.Fatalf("an event without identity or type: %+v", e)
	}
	if e.PayloadJSON && !json.Valid(e.Payload) {
		t.Fatalf("a payload that is no JSON: %q", e.Payload)
	}
	for _, s := range []string{e.ID, e.CEID, e.Type, e.Canonical, e.Subject, e.OrderID, e.PaymentID, e.Status, e.Currency, e.CardMask, e.Tenant, e.FailureCode} {
		if !strictText(s) {
			t.Fatalf("a field of %d bytes or no UTF-8: %q", len(s), s)
		}
		if _, ok := maskPANs([]byte(s)); ok {
			t.Fatalf("a card number in a field: %q", s)
		}
	}
}

func strictText(s string) bool { return len(s) <= 3*maxText+64 && strings.ToValidUTF8(s, "") == s }
