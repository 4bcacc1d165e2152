package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/provider"
)

// hints says what probably happened and what to do about it. Every guess that can be
// tried is tried: a hint that begins with "it verifies" was seen to hold.
func (v *Verifier) hints(r *provider.Request, now time.Time, around Surroundings, e *Explanation) {
	add := func(format string, args ...any) { e.Hints = append(e.Hints, fmt.Sprintf(format, args...)) }
	known := len(e.Hints) > 0
	v.methodHints(r, around, add)
	if known && (e.Reason == SignatureMismatch || e.Reason == KeyUnavailable) {
		return // the scheme itself knows better
	}
	switch e.Reason {
	case TimestampOutsideTolerance:
		v.clockHints(now, e, add)
	case TimestampMissing:
		v.timestampMissing(r, add)
	case SignatureMissing:
		v.missingHints(r, e, add)
	case SignatureMalformed:
		v.malformedHints(r, e, add)
	case DuplicateHeader:
		v.duplicateHints(r, add)
	case MerchantMismatch:
		add("the signature is right, but the delivery names another merchant than the source is configured for: another shop's deliveries arrive here, or the id in the configuration is mistyped")
	case KeyUnavailable:
		add("the key to verify it with could not be had, and nothing says that the delivery is wrong: look whether this machine may reach the provider (or whether its handshake has been), then re-verify")
	case Policy:
		if v.signs("url") && v.url == "" && r.PublicURL == "" {
			add("the scheme signs the URL, and none is known: set public_url in ingest or in this source to what was entered at the provider")
		} else {
			add("the signature is right, but a signed value has a form that it must not have (a sum, a currency): the joined text could be read in two ways")
		}
	case SignatureMismatch:
		v.mismatchHints(r, now, around, e, add)
	}
	if e.Reason != SignatureMismatch && e.Reason != TimestampOutsideTolerance {
		v.neighbourHints(r, now, around, add)
	}
}

type addHint func(format string, args ...any)

func (v *Verifier) mismatchHints(r *provider.Request, now time.Time, around Surroundings, e *Explanation, add addHint) {
	if v.kind == primToken || v.kind == primBasic {
		v.tokenHints(r, add)
		v.neighbourHints(r, now, around, add)
		if len(e.Hints) == 0 {
			add("the text that came is not one that is configured: compare the fingerprints, and copy it again")
		}
		return
	}
	v.bodyHints(r, now, add)
	v.urlHints(r, now, add)
	v.secretHints(r, now, add)
	v.algorithmHints(r, add)
	v.neighbourHints(r, now, around, add)
	tried := len(e.Hints) > 0
	v.bodyMarks(r, add)
	if tried {
		return
	}
	v.livemodeHints(around, add)
	if v.s.Key != "" || len(v.keys) > 0 && !v.keys[0].public {
		add("most likely another secret: no usual change of the body explains it. Copy the secret of this very endpoint again (each endpoint has its own) and compare the fingerprints")
	} else {
		add("most likely another public key: no usual change of the body explains it. Compare the key with the one that the provider publishes for this account and mode")
	}
}

// methodHints: what a redirect leaves of a POST.
func (v *Verifier) methodHints(r *provider.Request, around Surroundings, add addHint) {
	methods := around.Methods
	if len(methods) == 0 {
		methods = []string{"POST"}
	}
	switch {
	case r.Method == "GET" && len(r.Body) == 0 && slices.Contains(methods, "POST"):
		add("it arrived as GET without a body: something on the way redirects (http to https, a slash at the end), and a redirect turns POST into GET. Enter the final URL at the provider")
	case r.Method != "" && !slices.Contains(methods, r.Method):
		add("it arrived as %s; the provider sends %s", r.Method, strings.Join(methods, ", "))
	case len(r.Body) == 0 && r.Method == "POST" && (v.signs("body") || v.kind == primStandard):
		add("the body is empty: something on the way consumed or dropped it")
	}
}

// clockHints: the signature holds, so it is the clock, or a replay.
func (v *Verifier) clockHints(now time.Time, e *Explanation, add addHint) {
	unit := "s"
	if v.ts != nil {
		unit = v.ts.t.Unit
	}
	if other := map[string]string{"s": "ms", "ms": "s"}[unit]; other != "" {
		if at, ok := parseTime([]byte(e.Timestamp), other); ok && within(at, now, max(e.Tolerance, 24*time.Hour)) == "" {
			long := map[string]string{"s": "seconds", "ms": "milliseconds"}
			add("the signature is right; the timestamp %s is written in %s where %s are expected: the sender's clock is right and its unit is wrong", e.Timestamp, long[other], long[unit])
			return
		}
	}
	age, direction := e.Age, "behind this clock (older)"
	if age < 0 {
		age, direction = -age, "ahead of this clock (in the future)"
	}
	age = age.Round(time.Second)
	what := "it is a replay, was sent again by hand, or waited in a queue"
	switch {
	case e.Age < 0:
		what = "one of the two clocks is wrong: look at NTP on this machine first"
	case age >= 30*time.Minute && nearWhole(age):
		what = "it is off by whole hours: a clock without its time zone, or a replay"
	case age < 30*time.Minute:
		what = "one of the clocks drifts (NTP), or a proxy held it back"
	}
	add("the signature is right; the timestamp is %s %s, %s are allowed: %s", age, direction, e.Tolerance, what)
}

// nearWhole says whether a distance is whole hours, give or take a minute.
func nearWhole(d time.Duration) bool {
	rest := d % time.Hour
	return d < 15*time.Hour && (rest < time.Minute || rest > 59*time.Minute)
}

func (v *Verifier) timestampMissing(r *provider.Request, add addHint) {
	place := "header " + v.timestampPlace()
	switch {
	case v.ts != nil && v.ts.t.Key != "":
		place = "the part " + v.ts.t.Key + "= of the signature header"
	case v.ts != nil && v.ts.t.Header == "" && v.kind != primStandard:
		place = "the field " + firstNamed("", v.ts.t.JSON, "", v.ts.t.Form, "", v.ts.t.Query)
	}
	add("the signature is there and its time is not: %s is missing. A proxy drops it, or this is another version of the scheme", place)
	v.droppedHeader(v.timestampPlace(), add)
}

func (v *Verifier) timestampPlace() string {
	switch {
	case v.kind == primStandard:
		return v.trios[0].ts
	case v.ts != nil:
		return v.ts.t.Header
	}
	return ""
}

// alike are words in the names of headers that carry signatures.
var alike = []string{"sign", "hmac", "hub", "digest", "svix", "webhook-", "token", "verif", "-auth", "authorization"}

func (v *Verifier) missingHints(r *provider.Request, e *Explanation, add addHint) {
	if v.otherLabels(e.Received, add) {
		return
	}
	add("no signature at %s: is a secret configured at the provider, and does a proxy drop the header?", e.Where)
	want := v.signatureHeaders()
	for _, h := range want {
		v.droppedHeader(h, add)
	}
	known := append(slices.Clone(want), v.timestampPlace())
	for _, t := range v.trios {
		known = append(known, t.id, t.ts)
	}
	var seen []string
	agent := ""
	r.Header.Each(func(k, val []byte) bool {
		name := strings.ToLower(string(k))
		if name == "user-agent" {
			agent = strings.ToLower(string(val))
		}
		for _, w := range alike {
			if strings.Contains(name, w) && !slices.Contains(seen, string(k)) && !slices.ContainsFunc(known, func(h string) bool { return strings.EqualFold(h, name) }) {
				seen = append(seen, string(k))
				break
			}
		}
		return true
	})
	switch {
	case len(seen) > 0 && len(want) > 0:
		add("there is %s instead: another version of the scheme, or another provider's delivery", strings.Join(seen, ", "))
	case strings.Contains(agent, "mozilla") || strings.Contains(agent, "curl") || strings.Contains(agent, "postman") || strings.Contains(agent, "insomnia"):
		add("it was sent by hand (User-Agent %s): `penstock send %s` signs as the provider does", strings.SplitN(agent, " ", 2)[0], v.name)
	}
}

func (v *Verifier) signatureHeaders() []string {
	switch v.kind {
	case primStandard:
		var out []string
		for _, t := range v.trios {
			out = append(out, t.sig)
		}
		return out
	case primBasic:
		return []string{"Authorization"}
	case primToken:
		if v.token.t.Header != "" {
			return []string{v.token.t.Header}
		}
		return nil
	}
	return v.sig.headers
}

// droppedHeader: names with an underscore vanish in common proxies.
func (v *Verifier) droppedHeader(name string, add addHint) {
	switch {
	case strings.Contains(name, "_"):
		add("the name %s holds an underscore: nginx drops such headers unless underscores_in_headers is on", name)
	case strings.EqualFold(name, "Authorization"):
		add("Authorization is dropped or replaced by proxies that do a login of their own, and across redirects")
	}
}

// malformedHints: a signature is there and cannot be read as this scheme writes it.
func (v *Verifier) malformedHints(r *provider.Request, e *Explanation, add addHint) {
	g := &v.sig.s
	for _, text := range e.Received {
		text = strings.TrimSpace(text)
		switch {
		case g.Format != "list" && g.Format != "csv" && folded(text):
			add("two equal headers were folded into one (joined by a comma) by a proxy: it adds the header a second time")
		case v.otherLabels([]string{text}, add):
		case v.kind == primStandard:
			add("the header has %s; v1,<base64> (a shared secret) or v1a,<base64> (a public key) are expected: another version of the scheme", clip(text, 12))
		case g.Prefix != "" && !g.Bare && !strings.HasPrefix(text, g.Prefix):
			was, _, found := strings.Cut(text, "=")
			if found && len(was) < 12 {
				add("the signature begins with %s= and not with %s: another algorithm or an older version of the scheme", was, g.Prefix)
			} else {
				add("the signature lacks %s in front: another version of the scheme, or something on the way cut it", g.Prefix)
			}
		default:
			v.encodingHint(strings.TrimPrefix(text, g.Prefix), add)
		}
	}
	if len(e.Hints) == 0 {
		switch {
		case len(v.fields) > 0:
			add("the signed fields are not all there, each once and as text (%s): another kind of delivery, or a body that was parsed and written anew", e.Template)
		case len(v.s.Body) > 0:
			add("the body cannot be read as %s, or the signature stands in it twice: look at Content-Type and at who rewrites the body", v.s.Body)
		default:
			add("the signature is not written as this scheme writes it (%s, %s)", e.Where, firstNamed("", g.Encoding, "", "base64"))
		}
	}
}

// otherLabels tells of a list whose parts have other names than ours.
func (v *Verifier) otherLabels(received []string, add addHint) bool {
	g := &v.sig.s
	for _, text := range received {
		sep := string(v.sig.listSep)
		if g.Format == "list" && g.Key != "" && strings.Contains(text, "=") && !strings.Contains(sep+strings.ReplaceAll(text, " ", ""), sep+g.Key+"=") {
			add("the header has the parts %s and not %s: another version of the scheme", labels(text, sep), g.Key)
			return true
		}
	}
	return false
}

// encodingHint tells a signature of another length or alphabet.
func (v *Verifier) encodingHint(text string, add addHint) {
	want := v.s.Signature.Encoding
	isHex := len(text) > 0 && strings.Trim(text, "0123456789abcdefABCDEF") == ""
	switch {
	case strings.HasPrefix(want, "base64") && isHex:
		add("the signature is written in hex where %s is expected: another version of the scheme", want)
	case !strings.HasPrefix(want, "base64") && !isHex && len(text)%4 == 0:
		add("the signature is written in base64 where hex is expected: another version of the scheme")
	case isHex && v.alg != algNone && !strings.HasPrefix(want, "base64") && len(text) != 2*v.alg.new().Size():
		add("the signature has %d hex digits, %s makes %d: another algorithm, or it was cut off", len(text), v.alg, 2*v.alg.new().Size())
	}
}

// folded says whether a text is the same thing twice with a comma between.
func folded(text string) bool {
	a, b, ok := strings.Cut(text, ",")
	return ok && a != "" && strings.TrimSpace(a) == strings.TrimSpace(b)
}

func labels(text, sep string) string {
	var out []string
	for _, part := range strings.Split(text, sep) {
		if k, _, ok := strings.Cut(strings.TrimSpace(part), "="); ok && len(k) < 12 {
			out = append(out, k)
		}
	}
	return strings.Join(out, ", ")
}

func clip(text string, n int) string {
	if len(text) > n {
		return text[:n] + "..."
	}
	return text
}

// duplicateHints names the header that came more than once.
func (v *Verifier) duplicateHints(r *provider.Request, add addHint) {
	names := slices.Clone(v.signatureHeaders())
	if p := v.timestampPlace(); p != "" {
		names = append(names, p)
	}
	if v.s.ID != nil {
		names = append(names, v.s.ID.Header)
	}
	for _, h := range names {
		first, n := r.Header.Get(h)
		if n < 2 {
			continue
		}
		equal := true
		r.Header.Each(func(k, val []byte) bool {
			equal = equal && (!strings.EqualFold(string(k), h) || bytes.Equal(val, first))
			return true
		})
		if equal {
			add("%s comes %d times with the same value: a proxy on the way adds it again; let it replace the header", h, n)
		} else {
			add("%s comes %d times with different values: a proxy adds one of its own, or somebody smuggles a second one", h, n)
		}
		return
	}
	add("two headers carry a signature and do not agree: a proxy renames or adds one")
}

// neighbourHints looks whether the delivery is meant for another source.
func (v *Verifier) neighbourHints(r *provider.Request, now time.Time, around Surroundings, add addHint) {
	for _, n := range around.Neighbours {
		if n.Verifier == nil || n.Verifier == v {
			continue
		}
		switch {
		case n.Verifier.kind != primNone && n.Verifier.holds(r, now):
			if n.Provider == v.name {
				add("it verifies with the credentials of source %s: the two secrets are swapped (test and live?), or the URL of that source was meant", n.Source)
			} else {
				add("it verifies as a delivery of %s with the credentials of source %s: this source's URL was entered at the wrong provider", n.Provider, n.Source)
			}
			return
		case v.sharesSecret(n.Verifier, r, now):
			add("it verifies with the secret of source %s: the secrets of the two sources are swapped", n.Source)
			return
		}
	}
}

// sharesSecret tries the neighbour's secrets in this scheme.
func (v *Verifier) sharesSecret(n *Verifier, r *provider.Request, now time.Time) bool {
	var texts []string
	for i := range n.keys {
		if n.keys[i].text != "" {
			texts = append(texts, n.keys[i].text)
		}
	}
	other := v.withTexts(texts, v.keyKind())
	return other != nil && other.holds(r, now)
}

func (v *Verifier) livemodeHints(around Surroundings, add addHint) {
	if around.Livemode == nil {
		return
	}
	mode, other := "test", "live"
	if *around.Livemode {
		mode, other = other, mode
	}
	for i := range v.keys {
		text := strings.ToLower(v.keys[i].text)
		if strings.Contains(text, other) || other == "test" && strings.Contains(text, "sandbox") || other == "live" && strings.Contains(text, "prod") {
			add("the delivery is of %s mode, and the configured secret looks like one of %s mode: test and live endpoints have secrets of their own", mode, other)
			return
		}
	}
	add("the delivery says that it is of %s mode: is the configured secret that of the %s endpoint? Test and live endpoints have secrets of their own", mode, mode)
}
