package verify

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// fault is one thing that goes wrong between a provider and us.
type fault struct {
	name string
	of   string // provider; "" = github
	sent string // the body that the provider signs
	as   func(r *provider.Request)
	want []string // words of the hints
}

func body(text string) func(*provider.Request) {
	return func(r *provider.Request) { r.Body = []byte(text) }
}

func header(name, value string) func(*provider.Request) {
	return func(r *provider.Request) { *r = *with(r, name, value) }
}

func both(list ...func(*provider.Request)) func(*provider.Request) {
	return func(r *provider.Request) {
		for _, f := range list {
			f(r)
		}
	}
}

func noHeader(name string) func(*provider.Request) {
	return func(r *provider.Request) { *r = *without(r, name) }
}

// TestBodyHints: who altered the body is named, in words that say what to do.
func TestBodyHints(t *testing.T) {
	for _, f := range []fault{
		{"newline trimmed", "", "{\"a\": 1}\n", body(`{"a": 1}`), []string{"with a newline at the end", "trimmed the body"}},
		{"crlf trimmed", "", "{\"a\": 1}\r\n", body(`{"a": 1}`), []string{"CRLF at the end", "trimmed"}},
		{"newline added", "", `{"a": 1}`, body("{\"a\": 1}\n"), []string{"appended a newline"}},
		{"blanks in front", "", `{"a": 1}`, body("\n {\"a\": 1}"), []string{"blanks in front"}},
		{"pretty-printed", "", `{"a":1,"b":[1,2]}`, body("{\n  \"a\": 1,\n  \"b\": [1, 2]\n}"), []string{"re-serialised", "pretty-printed", "raw body"}},
		{"compacted", "", "{\n  \"a\": 1\n}", body(`{"a":1}`), []string{"two spaces", "compacted"}},
		{"compacted from four", "", "{\n    \"a\": 1\n}", body(`{"a":1}`), []string{"four spaces", "compacted"}},
		{"compacted from tabs", "", "{\n\t\"a\": 1\n}", body(`{"a":1}`), []string{"tabs"}},
		{"python blanks lost", "", `{"a": 1, "b": ["x, y", 2]}`, body(`{"a":1,"b":["x, y",2]}`), []string{"blank after every colon", "Python"}},
		{"keys sorted back", "", `{"a":1,"b":2,"c":{"d":3,"e":4}}`, body(`{"b":2,"c":{"e":4,"d":3},"a":1}`), []string{"alphabetical order", "key order changed"}},
		{"keys sorted on the way", "", `{"z":1,"b":2,"c":3,"a":4,"e":5,"d":6}`, body(`{"a":4,"b":2,"c":3,"d":6,"e":5,"z":1}`), []string{"every object's keys stand in alphabetical order", "order that was signed is lost"}},
		{"bom added", "", `{}`, body("\xef\xbb\xbf{}"), []string{"without the byte order mark"}},
		{"bom lost", "", "\xef\xbb\xbf{}", body(`{}`), []string{"with a byte order mark"}},
		{"crlf to lf", "", "{\r\n\"a\":1}", body("{\n\"a\":1}"), []string{"CRLF instead of LF"}},
		{"lf to crlf", "", "{\n\"a\":1}", body("{\r\n\"a\":1}"), []string{"LF instead of CRLF"}},
		{"latin1 to utf8", "", "{\"a\":\"caf\xe9\"}", body(`{"a":"café"}`), []string{"charset ISO-8859-1", "UTF-8"}},
		{"utf8 twice", "", `{"a":"café"}`, body(`{"a":"cafÃ©"}`), []string{"encoded UTF-8 twice"}},
		{"utf8 to latin1", "", `{"a":"café"}`, body("{\"a\":\"caf\xe9\"}"), []string{"charset UTF-8", "converted the body to ISO-8859-1"}},
		{"charset lost", "", "{\"a\":\"caf\xe9\"}", body("{\"a\":\"caf\ufffd\"}"), []string{"U+FFFD", "wrong charset"}},
		{"escapes written out", "", `{"a":"caf\u00e9 \ud83d\ude00"}`, body(`{"a":"café 😀"}`), []string{`\u escapes in lower case`}},
		{"escapes in upper case", "", `{"a":"caf\u00E9"}`, body(`{"a":"café"}`), []string{`\u escapes in upper case`}},
		{"letters escaped", "", `{"a":"café 😀"}`, body(`{"a":"caf\u00e9 \ud83d\ude00"}`), []string{`\u escapes written out`}},
		{"php slashes lost", "", `{"a":"https:\/\/x"}`, body(`{"a":"https://x"}`), []string{`slashes as \/`, "PHP"}},
		{"php slashes added", "", `{"a":"https://x"}`, body(`{"a":"https:\/\/x"}`), []string{"plain slashes", "json_encode"}},
		{"html escaped", "", `{"a":"<b>&"}`, body(`{"a":"\u003cb\u003e\u0026"}`), []string{"json.Marshal"}},
		{"html unescaped", "", `{"a":"\u003cb"}`, body(`{"a":"<b"}`), []string{`< > & as \u003c`}},
		{"all of it at once", "", "{\n  \"a\": \"caf\\u00e9\"\n}\n", body(`{"a":"café"}`), []string{"two spaces", `\u escapes`, "newline at the end"}},
		{"form blanks to plus", "slack", "text=a%20b&x=1", body("text=a+b&x=1"), []string{"as %20", "re-encoded as +"}},
		{"form blanks to percent", "slack", "text=a+b&x=1", body("text=a%20b&x=1"), []string{"as +", "re-encoded as %20"}},
		{"form escapes", "slack", "text=a%2fb&x=1", body("text=a%2Fb&x=1"), []string{"lower case", "upper case"}},
		{"form escapes lowered", "slack", "text=a%2Fb&x=1", body("text=a%2fb&x=1"), []string{"escapes in upper case"}},
		{"form order", "slack", "a=1&b=2&c=3", body("c=3&a=1&b=2"), []string{"fields in alphabetical order"}},
		{"length", "", `{"a":1}`, both(header("Content-Length", "7"), body(`{"a":1,"added":true}`)), []string{"Content-Length says 7", "has 20", "altered after it was sent"}},
		{"decompressed", "", "\x1f\x8bxxxx", both(header("Content-Encoding", "gzip"), body(`{"a":1}`)), []string{"Content-Encoding says gzip", "decompressed"}},
		{"emptied", "", `{"a":1}`, body(""), []string{"the body is empty"}},
		{"standard webhooks too", "standard_webhooks", "{\"a\": 1}\n", body(`{"a": 1}`), []string{"trimmed the body"}},
		{"something else", "", `{"a":1}`, body(`{"a":2}`), []string{"most likely another secret", "fingerprints"}},
	} {
		f.check(t, Surroundings{}, SignatureMismatch)
	}
}

func (f *fault) check(t *testing.T, around Surroundings, reason string) {
	t.Helper()
	name := f.of
	if name == "" {
		name = "github"
	}
	v, creds := devVerifier(t, get(t, name))
	r := delivery(name)
	if f.sent != "" {
		r.Body = []byte(f.sent)
	}
	if err := v.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	if res := v.Verify(r, testNow); res.Verdict != Accepted {
		t.Fatalf("%s: refused before anything went wrong: %s", f.name, res.Reason)
	}
	r = clone(r)
	f.as(r)
	f.demand(t, v.ExplainAmong(r, testNow, around), reason)
	_ = creds
}

func (f *fault) demand(t *testing.T, e Explanation, reason string) {
	t.Helper()
	if e.Verdict != Rejected || reason != "" && e.Reason != reason {
		t.Errorf("%s: %s %s, want %s", f.name, e.Verdict, e.Reason, reason)
	}
	text := strings.Join(e.Hints, "\n")
	for _, w := range f.want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: no %q in the hints:\n%s", f.name, w, text)
		}
	}
}

// TestHeaderHints: a header that is missing, there twice, or of another version.
func TestHeaderHints(t *testing.T) {
	type of = fault
	for reason, list := range map[string][]of{
		SignatureMissing: {
			{"stripe test scheme", "stripe", "", header("Stripe-Signature", "t=1780000000,v0=aabb"), []string{"the parts t, v0 and not v1", "another version of the scheme"}},
			{"dropped", "stripe", "", noHeader("Stripe-Signature"), []string{"no signature at header Stripe-Signature", "proxy drop"}},
			{"older version", "", "", both(noHeader("X-Hub-Signature-256"), header("X-Hub-Signature", "sha1=00")), []string{"there is X-Hub-Signature instead", "another version"}},
			{"by hand", "", "", both(noHeader("X-Hub-Signature-256"), header("User-Agent", "curl/8.5.0")), []string{"sent by hand", "penstock send github"}},
			{"redirected", "", "", both(noHeader("X-Hub-Signature-256"), body(""), func(r *provider.Request) { r.Method = "GET" }), []string{"arrived as GET", "redirect"}},
			{"other svix prefix", "standard_webhooks", "", both(noHeader("webhook-signature"), header("x-signature", "v1,aaaa")), []string{"there is x-signature instead"}},
		},
		DuplicateHeader: {
			{"twice the same", "", "", func(r *provider.Request) {
				text, _ := r.Header.Get("X-Hub-Signature-256")
				*r = *added(r, "X-Hub-Signature-256", string(text))
			}, []string{"X-Hub-Signature-256 comes 2 times with the same value", "proxy"}},
			{"twice another", "", "", func(r *provider.Request) { *r = *added(r, "X-Hub-Signature-256", "sha256=00") }, []string{"different values", "smuggles"}},
			{"timestamp twice", "slack", "", func(r *provider.Request) { *r = *added(r, "X-Slack-Request-Timestamp", "1") }, []string{"X-Slack-Request-Timestamp comes 2 times"}},
		},
		SignatureMalformed: {
			{"sha1", "", "", header("X-Hub-Signature-256", "sha1=0011"), []string{"begins with sha1= and not with sha256=", "version"}},
			{"no prefix", "", "", header("X-Hub-Signature-256", strings.Repeat("ab", 32)), []string{"lacks sha256= in front"}},
			{"folded", "", "", header("X-Hub-Signature-256", "sha256=aa, sha256=aa"), []string{"folded into one", "comma"}},
			{"base64 for hex", "", "", header("X-Hub-Signature-256", "sha256=q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="), []string{"base64 where hex is expected"}},
			{"hex for base64", "shopify", "", header("X-Shopify-Hmac-Sha256", strings.Repeat("zb", 8)+"!"), []string{"not written as this scheme writes it"}},
			{"v2", "standard_webhooks", "", header("webhook-signature", "v2,aaaa"), []string{"v1,<base64>", "another version"}},
		},
		TimestampMissing: {
			{"no time", "slack", "", noHeader("X-Slack-Request-Timestamp"), []string{"X-Slack-Request-Timestamp is missing"}},
			{"no time in the list", "stripe", "", header("Stripe-Signature", "v1="+strings.Repeat("ab", 32)), []string{"the part t= of the signature header"}},
			{"no time of standard webhooks", "standard_webhooks", "", noHeader("webhook-timestamp"), []string{"webhook-timestamp is missing"}},
		},
	} {
		for _, f := range list {
			f.check(t, Surroundings{}, reason)
		}
	}
	under := mustNew(t, schemeDef(t, "scheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X_Sign, encoding: hex}"), provider.Credentials{"secrets": {"0123456789abcdef"}}, Options{})
	f := fault{name: "underscore", want: []string{"underscores_in_headers"}}
	f.demand(t, under.Explain(delivery("github"), testNow), SignatureMissing)
}

// TestClockHints: by how much, in which direction, in which unit.
func TestClockHints(t *testing.T) {
	v, _ := devVerifier(t, get(t, "stripe"))
	for _, c := range []struct {
		off  time.Duration
		want []string
	}{
		{10 * time.Minute, []string{"the signature is right", "10m0s behind this clock (older)", "5m0s are allowed", "drifts"}},
		{-10 * time.Minute, []string{"10m0s ahead of this clock (in the future)", "NTP"}},
		{3 * time.Hour, []string{"3h0m0s behind", "whole hours"}},
		{50 * time.Hour, []string{"50h0m0s behind", "replay"}},
	} {
		f := fault{name: c.off.String(), want: c.want}
		f.demand(t, v.Explain(signed(t, v, "stripe"), testNow.Add(c.off)), TimestampOutsideTolerance)
	}
	// Signed with milliseconds where seconds are meant, and the other way round.
	r := delivery("stripe")
	if err := v.Sign(r, time.Unix(testNow.UnixMilli(), 0)); err != nil {
		t.Fatal(err)
	}
	f := fault{name: "ms", want: []string{"written in milliseconds where seconds are expected", "unit is wrong"}}
	f.demand(t, v.Explain(r, testNow), TimestampOutsideTolerance)
	ms := mustNew(t, schemeDef(t, "scheme: hmac\nalgorithm: sha256\nsigned: \"{ts}.{body}\"\nsignature: {header: X-Sign, encoding: hex}\ntimestamp: {header: X-Time, unit: ms}\ntolerance: 5m"), provider.Credentials{"secrets": {"0123456789abcdef"}}, Options{})
	r = delivery("github")
	if err := ms.Sign(r, time.UnixMilli(testNow.Unix())); err != nil {
		t.Fatal(err)
	}
	f = fault{name: "s", want: []string{"written in seconds where milliseconds are expected"}}
	f.demand(t, ms.Explain(r, testNow), TimestampOutsideTolerance)
}

// TestSecretHints: what people do to a secret on its way into the configuration.
func TestSecretHints(t *testing.T) {
	hub, whsec := get(t, "github"), get(t, "standard_webhooks")
	const text = "whsec_c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg="
	asIs := func(key string) *provider.Definition {
		return schemeDef(t, "scheme: hmac\nalgorithm: sha256\nkey: "+key+"\nsigned: \"{body}\"\nsignature: {header: X-Hub-Signature-256, prefix: \"sha256=\", encoding: hex}")
	}
	for _, c := range []struct {
		name        string
		theirs      *provider.Definition
		theirSecret string
		ours        *provider.Definition
		ourSecret   string
		want        string
	}{
		{"newline", hub, "0123456789abcdef", hub, "0123456789abcdef\n", "without the blanks or the newline"},
		{"blank", hub, "0123456789abcdef", hub, " 0123456789abcdef", "without the blanks or the newline"},
		{"quoted", hub, "0123456789abcdef", hub, `"0123456789abcdef"`, "quotation marks"},
		{"prefix left out", hub, text, hub, text[6:], "with whsec_ in front"},
		{"prefix too much", hub, text[6:], hub, text, "without its prefix whsec_"},
		{"decoded by them", asIs("base64"), "c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg=", hub, "c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg=", "decoded from base64"},
		{"decoded after whsec_", asIs("whsec"), text, hub, text, "after whsec_ decoded from base64"},
		{"hex decoded by them", asIs("hex"), "00112233445566778899", hub, "00112233445566778899", "decoded from hex"},
		{"decoded by us", hub, "c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg=", asIs("base64"), "c2VjcmV0IG9mIGEgZ29vZCBsZW5ndGg=", "the sender does not decode it"},
		{"upper case", hub, "0123456789abcdef", hub, "0123456789ABCDEF", "in lower case"},
		{"standard webhooks' text", schemeDef(t, "scheme: standard_webhooks\nkey: utf8\nprefixes: [webhook]"), text, whsec, text, "the sender does not decode it"},
	} {
		theirs := mustNew(t, c.theirs, provider.Credentials{"secrets": {c.theirSecret}}, Options{})
		ours := mustNew(t, c.ours, provider.Credentials{"secrets": {c.ourSecret}}, Options{})
		r := delivery("github")
		if err := theirs.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		e := ours.Explain(r, testNow)
		f := fault{name: c.name, want: []string{"it verifies", c.want}}
		f.demand(t, e, SignatureMismatch)
		if s := strings.Join(e.Hints, " "); strings.Contains(s, strings.TrimSpace(c.ourSecret)) || strings.Contains(s, c.theirSecret) {
			t.Errorf("%s: a hint shows a secret: %s", c.name, s)
		}
	}
	// No secret at all at the sender, and another algorithm.
	v, creds := devVerifier(t, hub)
	r := signed(t, v, "github")
	empty := &Verifier{}
	*empty = Verifier{name: v.name, pools: &pools{}, s: v.s, kind: v.kind, alg: v.alg, pieces: v.pieces, variants: 1, sig: v.sig, keys: []key{{name: "empty"}}}
	empty.prepareKey(&empty.keys[0])
	bare := clone(r)
	if err := empty.Sign(bare, testNow); err != nil {
		t.Fatal(err)
	}
	f := fault{name: "empty", want: []string{"empty secret", "set one at the provider"}}
	f.demand(t, v.Explain(bare, testNow), SignatureMismatch)
	sha512 := schemeDef(t, "scheme: hmac\nalgorithm: sha512\nsigned: \"{body}\"\nsignature: {header: X-Sign, encoding: base64}")
	sha256 := schemeDef(t, "scheme: hmac\nalgorithm: sha256\nsigned: \"{body}\"\nsignature: {header: X-Sign, encoding: base64}")
	r = delivery("github")
	if err := mustNew(t, sha512, provider.Credentials{"secrets": creds["secrets"]}, Options{}).Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	f = fault{name: "sha512", want: []string{"it verifies with sha512 instead of sha256"}}
	f.demand(t, mustNew(t, sha256, provider.Credentials{"secrets": creds["secrets"]}, Options{}).Explain(r, testNow), SignatureMismatch)
}

// TestNeighbourHints: the secret of another source, another provider's delivery, the other
// mode.
func TestNeighbourHints(t *testing.T) {
	mine, _ := devVerifier(t, get(t, "github"))
	twin, _ := devVerifier(t, get(t, "github"))
	shop, shopCreds := devVerifier(t, get(t, "shopify"))
	around := Surroundings{Neighbours: []Neighbour{{"self", "github", mine}, {"hub-test", "github", twin}, {"shop", "shopify", shop}}}
	f := fault{name: "swapped", want: []string{"credentials of source hub-test", "swapped"}}
	f.demand(t, mine.ExplainAmong(signed(t, twin, "github"), testNow, around), SignatureMismatch)
	f = fault{name: "wrong provider", want: []string{"a delivery of shopify", "source shop", "wrong provider"}}
	f.demand(t, mine.ExplainAmong(signed(t, shop, "shopify"), testNow, around), SignatureMissing)
	other := mustNew(t, get(t, "github"), provider.Credentials{"secrets": {firstValue(shopCreds)}}, Options{})
	f = fault{name: "the other's secret", want: []string{"the secret of source shop", "swapped"}}
	f.demand(t, mine.ExplainAmong(signed(t, other, "github"), testNow, around), SignatureMismatch)
	live, test := true, false
	f = fault{name: "test", want: []string{"of test mode", "secrets of their own"}}
	f.demand(t, mine.ExplainAmong(signed(t, twin, "github"), testNow, Surroundings{Livemode: &test}), SignatureMismatch)
	named := mustNew(t, get(t, "github"), provider.Credentials{"secrets": {"sk_test_0123456789abcdef"}}, Options{})
	f = fault{name: "named", want: []string{"of live mode", "looks like one of test mode"}}
	f.demand(t, named.ExplainAmong(signed(t, twin, "github"), testNow, Surroundings{Livemode: &live}), SignatureMismatch)
}

func firstValue(c provider.Credentials) string {
	for _, values := range c {
		return values[0]
	}
	return ""
}

// TestTokenHints: a shared text, pasted badly.
func TestTokenHints(t *testing.T) {
	def := get(t, "gitlab")
	for want, pair := range map[string][2]string{
		"blanks or a newline":  {"0123456789abcdef", "0123456789abcdef\n"},
		"upper and lower case": {"0123456789ABCDEF", "0123456789abcdef"},
		"word Bearer":          {"Bearer 0123456789abcdef", "0123456789abcdef"},
		"quotation marks":      {`"0123456789abcdef"`, "0123456789abcdef"},
		"is not one that":      {"abcdef0123456789", "0123456789abcdef"},
	} {
		name := def.CredentialSpecs()[0].Name
		theirs := mustNew(t, def, provider.Credentials{name: {pair[0]}}, Options{})
		ours := mustNew(t, def, provider.Credentials{name: {pair[1]}}, Options{})
		f := fault{name: want, want: []string{want}}
		f.demand(t, ours.Explain(signed(t, theirs, "gitlab"), testNow), SignatureMismatch)
	}
}

// TestURLHints: what a proxy does to the address that was signed.
func TestURLHints(t *testing.T) {
	v, _ := devVerifier(t, get(t, "square"))
	for _, c := range []struct{ sent, seen, host, want string }{
		{"https://hooks.example.com/in/square", "http://hooks.example.com/in/square", "", "another scheme: TLS ends at a proxy"},
		{"https://hooks.example.com/in/square", "https://10.0.0.7/in/square", "hooks.example.com", "another host"},
		{"https://hooks.example.com/in/square", "https://hooks.example.com:8443/in/square", "", "another port"},
		{"https://hooks.example.com/in/square/", "https://hooks.example.com/in/square", "", "a slash at the end"},
		{"https://hooks.example.com/in/square?b=2&a=1", "https://hooks.example.com/in/square?a=1&b=2", "target", "another order of the query"},
		{"https://hooks.example.com/in/square", "https://hooks.example.com/in/square?x=1", "", "another query"},
		{"http://www.hooks.example.com:8080/in/square/", "https://hooks.example.com/in/square", "www.hooks.example.com:8080", "another scheme: TLS ends at a proxy, another host, another port, a slash at the end"},
	} {
		r := delivery("square")
		r.PublicURL = c.sent
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		r = clone(r)
		r.PublicURL = c.seen
		switch c.host {
		case "":
		case "target":
			r.Target = []byte(strings.TrimPrefix(c.sent, "https://hooks.example.com"))
		default:
			r = with(r, "X-Forwarded-Host", c.host)
		}
		f := fault{name: c.seen, want: []string{"it verifies with the URL " + c.sent, c.want, "set public_url"}}
		f.demand(t, v.Explain(r, testNow), SignatureMismatch)
	}
	r := signed(t, v, "square")
	r.PublicURL = ""
	f := fault{name: "none", want: []string{"set public_url"}}
	f.demand(t, v.Explain(r, testNow), Policy)
}

// TestHintsOfEveryProvider: whatever is wrong with a delivery of any provider, there is
// something to read, it ends, and it holds no secret.
func TestHintsOfEveryProvider(t *testing.T) {
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		v, creds := devVerifier(t, def)
		stranger, _ := devVerifier(t, def)
		if v.kind == primNone {
			continue
		}
		for what, r := range map[string]*provider.Request{
			"a stranger's": signed(t, stranger, name), "unsigned": delivery(name), "nothing": {Method: "POST"}, "junk": {Method: "PUT", Body: bytes.Repeat([]byte("{\""), 500)},
		} {
			e := v.Explain(r, testNow)
			if e.Verdict == Rejected && len(e.Hints) == 0 {
				t.Errorf("%s, %s: refused (%s) without a word", name, what, e.Reason)
			}
			text := strings.Join(e.Hints, " ")
			for _, spec := range def.CredentialSpecs() {
				if spec.Secret && len(creds[spec.Name]) > 0 && strings.Contains(text, creds[spec.Name][0]) {
					t.Errorf("%s, %s: the hints show the secret %s", name, what, spec.Name)
				}
			}
		}
	}
}
