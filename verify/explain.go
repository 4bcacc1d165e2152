package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"penstock/provider"
)

// Explanation says why a delivery was accepted or refused, so that a person can fix it.
// It holds no secret: credentials are named by fingerprint, tokens are not shown.
type Explanation struct {
	Verdict    Verdict
	Reason     string
	VerifiedBy string
	Provider   string
	Scheme     string
	Algorithm  string
	Where      string        // where the signature is looked for
	Template   string        // what is signed, in the definition's words
	Signed     []byte        // the signed bytes; where a plain hash takes the key, <key> stands
	Received   []string      // as received
	Keys       []ExplainKey  // what each credential makes of the signed bytes
	Timestamp  string        // as received
	Age        time.Duration // our clock minus the timestamp
	Tolerance  time.Duration // 0 = not checked
	Hints      []string      // what would have verified, and so who probably changed what
}

// ExplainKey is what one credential expects.
type ExplainKey struct {
	Credential  string // its name
	Fingerprint string
	Expected    string // the signature it makes; empty for public keys and tokens
	Match       bool
}

// Explain verifies r at now and tells everything that the refusal itself must not say.
func (v *Verifier) Explain(r *provider.Request, now time.Time) Explanation {
	res := v.Verify(r, now)
	e := Explanation{
		Verdict: res.Verdict, Reason: res.Reason, VerifiedBy: res.VerifiedBy,
		Provider: v.name, Scheme: v.s.Scheme, Algorithm: v.alg.String(), Where: v.where(),
		Template: v.template(), Tolerance: v.tolerance,
	}
	func() {
		defer func() { _ = recover() }() // the verdict stands without the rest
		if own, ok := v.own.(ownExplain); ok {
			own.explain(r, now, &e)
			return
		}
		v.explainKeys(r, now, &e)
	}()
	if res.Verdict == Rejected {
		v.hints(r, &e)
	}
	return e
}

func (v *Verifier) where() string {
	switch v.kind {
	case primNone:
		return "nothing is verified"
	case primBasic:
		return "header Authorization (Basic)"
	case primStandard:
		return "header " + v.trios[0].sig
	case primToken:
		t := v.token.t
		return firstNamed("header ", t.Header, "query parameter ", t.Query, "body field ", t.Field)
	}
	return firstNamed("header ", v.sig.s.Header, "query parameter ", v.sig.s.Query, "body field ", v.sig.s.Field)
}

func firstNamed(pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			return pairs[i] + pairs[i+1]
		}
	}
	return ""
}

func (v *Verifier) template() string {
	text := v.s.Signed
	if v.kind == primStandard {
		text = "{id}.{ts}.{body}"
	}
	for i, f := range v.fields {
		if i > 0 {
			text += v.s.Separator
		}
		if f.f.IsPart() {
			text += f.f.Label + f.f.Path
			continue
		}
		text += f.f.Label + "{" + f.f.Path + "}"
	}
	return v.aroundKey(text)
}

// aroundKey shows where a plain hash takes the key.
func (v *Verifier) aroundKey(text string) string {
	if v.kind != primHash || v.keyInside {
		return text
	}
	if v.s.KeyPosition == "prefix" || v.s.KeyPosition == "both" {
		text = "<key>" + v.s.Separator + text
	}
	if v.s.KeyPosition != "prefix" {
		text += v.s.Separator + "<key>"
	}
	return text
}

func (v *Verifier) explainKeys(r *provider.Request, now time.Time, e *Explanation) {
	sc := &scratch{}
	switch v.kind {
	case primToken, primBasic:
		for _, list := range [][]key{v.keys, v.usernames, v.passwords} {
			for i := range list {
				e.Keys = append(e.Keys, ExplainKey{Credential: list[i].name, Fingerprint: list[i].fp, Match: list[i].by == e.VerifiedBy})
			}
		}
		v.explainShared(r, sc, e)
		return
	case primNone:
		return
	case primStandard:
		list, reason := v.readTrio(r, sc)
		if reason != "" {
			return
		}
		sc.alg = algSHA256
		sc.parts = [][]byte{sc.id, dot, sc.ts, dot, r.Body}
		e.Received = []string{string(list)}
	default:
		v.firstItem(r, sc)
		e.Received = v.receivedText(r, sc)
		v.readSignature(r, sc)
		v.readTimestamp(r, sc)
		if v.message(r, sc, 0) != "" {
			return
		}
	}
	v.explainTime(sc, now, e)
	e.Signed = []byte(v.aroundKey(string(bytes.Join(sc.parts, nil))))
	for name, value := range v.named {
		e.Signed = bytes.ReplaceAll(e.Signed, value, []byte("<"+name+">"))
	}
	encoding := v.s.Signature.Encoding
	if v.kind == primStandard {
		encoding = "base64"
	}
	for i := range v.keys {
		k := &v.keys[i]
		x := ExplainKey{Credential: k.name, Fingerprint: k.fp, Match: k.by == e.VerifiedBy}
		if !k.public && sc.alg != algNone {
			x.Expected = encode(v.sumWith(k, sc.alg, sc), encoding)
		}
		e.Keys = append(e.Keys, x)
	}
}

// explainShared names what came in place of a shared text by its fingerprint.
func (v *Verifier) explainShared(r *provider.Request, sc *scratch, e *Explanation) {
	received := func(what string, text []byte) {
		if len(text) > 0 {
			e.Received = append(e.Received, "("+what+" with the fingerprint "+fingerprint(string(text))+")")
		}
	}
	switch {
	case v.kind == primBasic:
		user, pass, reason := v.basicText(r, sc)
		if reason != "" {
			return
		}
		received("a user name", user)
		received("a password", pass)
		// Result.VerifiedBy names the password alone.
		if u := equalToken(v.usernames, user); u != nil {
			for i := range e.Keys {
				e.Keys[i].Match = e.Keys[i].Match || e.Keys[i].Credential == u.name && e.Keys[i].Fingerprint == u.fp
			}
		}
	case v.token.each != "":
		for _, text := range v.eachToken(r, sc) {
			received("a token", text)
		}
	default:
		if text, reason := v.tokenText(r, sc); reason == "" {
			received("a token", bytes.TrimPrefix(text, []byte(v.token.t.Prefix)))
		}
	}
}

func (v *Verifier) explainTime(sc *scratch, now time.Time, e *Explanation) {
	unit := "s"
	if v.ts != nil {
		unit = v.ts.t.Unit
	}
	if at, ok := parseTime(sc.ts, unit); ok && len(sc.ts) > 0 {
		e.Timestamp, e.Age = string(sc.ts), now.Sub(at)
	}
}

func (v *Verifier) receivedText(r *provider.Request, sc *scratch) []string {
	var out []string
	for _, h := range v.sig.headers {
		r.Header.Each(func(k, val []byte) bool {
			if len(k) == len(h) && bytes.EqualFold(k, []byte(h)) {
				out = append(out, string(val))
			}
			return true
		})
	}
	if len(v.sig.headers) == 0 {
		if text, reason := v.bodySignature(r, sc); reason == "" && len(text) > 0 {
			out = append(out, string(text))
		}
	}
	return out
}

// hints tries what usually goes wrong on the way and names what would have verified.
func (v *Verifier) hints(r *provider.Request, e *Explanation) {
	switch e.Reason {
	case TimestampOutsideTolerance:
		e.Hints = append(e.Hints, fmt.Sprintf("the signature is right; the timestamp is %s from this clock, %s are allowed: check the clocks, or this is a replay", e.Age.Round(time.Second), e.Tolerance))
	case SignatureMissing:
		e.Hints = append(e.Hints, "no signature at "+e.Where+": is a secret configured at the provider, and does a proxy drop headers?")
	case KeyUnavailable:
		if len(e.Hints) == 0 {
			e.Hints = append(e.Hints, "the key to verify it with could not be had; nothing says that the delivery is wrong")
		}
	case MerchantMismatch:
		e.Hints = append(e.Hints, "the signature is right, but the delivery names another merchant than the source is configured for")
	case SignatureMismatch:
		if len(e.Hints) > 0 {
			return // the scheme itself knows better
		}
		for _, c := range bodyChanges {
			if body := c.change(r.Body); body != nil && !bytes.Equal(body, r.Body) {
				changed := *r
				changed.Body = body
				if v.signatureHolds(&changed) {
					e.Hints = append(e.Hints, c.hint)
				}
			}
		}
		e.Hints = append(e.Hints, v.urlHints(r)...)
		e.Hints = append(e.Hints, v.secretHints(r)...)
		if len(e.Hints) == 0 {
			e.Hints = append(e.Hints, "no usual change of the body explains it: most likely another secret (compare the fingerprints), or another endpoint's")
		}
	}
}

var bodyChanges = []struct {
	hint   string
	change func([]byte) []byte
}{
	{"it verifies with the blanks at the end cut off: something on the way appended a newline", func(b []byte) []byte { return bytes.TrimRight(b, " \t\r\n") }},
	{"it verifies with a newline at the end: something on the way trimmed the body", func(b []byte) []byte { return append(bytes.Clone(b), '\n') }},
	{"it verifies with CRLF at the end: something on the way trimmed the body", func(b []byte) []byte { return append(bytes.Clone(b), "\r\n"...) }},
	{"it verifies without the byte order mark: something on the way put one in front", func(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) }},
	{"it verifies as compact JSON: something on the way re-serialised (pretty-printed) the body", func(b []byte) []byte {
		var out bytes.Buffer
		if json.Compact(&out, b) != nil {
			return nil
		}
		return out.Bytes()
	}},
	{"it verifies as JSON indented by two spaces: something on the way re-serialised (compacted) the body", func(b []byte) []byte {
		var out bytes.Buffer
		if json.Indent(&out, b, "", "  ") != nil {
			return nil
		}
		return out.Bytes()
	}},
	{"it verifies with line ends LF instead of CRLF: something on the way converted the text", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }},
}

// urlHints tries what a proxy makes of a URL, where the scheme signs it.
func (v *Verifier) urlHints(r *provider.Request) (out []string) {
	base, ok := v.publicURL(r)
	if !ok || !strings.Contains(v.s.Signed, "url") && !strings.Contains(v.s.Signed, "{own:") {
		return nil
	}
	base, query, _ := strings.Cut(base, "?")
	scheme, rest, _ := strings.Cut(base, "://")
	host, path, _ := strings.Cut(rest, "/")
	other := map[string]string{"http": "https", "https": "http"}[scheme]
	asked := v.keyless()
	asked.keys, asked.url = v.keys, ""
	for _, u := range []string{
		other + "://" + rest, base + "/", strings.TrimSuffix(base, "/"), scheme + "://www." + rest,
		scheme + "://" + strings.TrimPrefix(rest, "www."), scheme + "://" + strings.ToLower(host) + "/" + path,
	} {
		for _, u := range []string{u, u + "?" + query} {
			changed := *r
			if changed.PublicURL = u; u != base && u != base+"?"+query && asked.signatureHolds(&changed) {
				out = append(out, "it verifies with the URL "+u+": public_url of the source (or its setting notification_url) is not what was entered at the provider")
				return out
			}
		}
	}
	return nil
}

// signatureHolds asks for the signature alone, without the clock.
func (v *Verifier) signatureHolds(r *provider.Request) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	sc := &scratch{}
	if v.kind == primOwn {
		_, reason := v.own.authenticate(r, time.Time{}, sc)
		return reason == "" || reason == TimestampOutsideTolerance
	}
	if v.kind == primStandard {
		list, reason := v.readTrio(r, sc)
		if reason != "" {
			return false
		}
		sc.parts = [][]byte{sc.id, dot, sc.ts, dot, r.Body}
		_, reason = v.matchWords(list, sc)
		return reason == ""
	}
	v.firstItem(r, sc)
	if v.readSignature(r, sc) != "" || v.readTimestamp(r, sc) != "" {
		return false
	}
	_, reason := v.match(r, sc)
	return reason == ""
}

// keyless is the same scheme without its keys.
func (v *Verifier) keyless() *Verifier {
	return &Verifier{
		name: v.name, s: v.s, kind: v.kind, alg: v.alg, minAlg: v.minAlg, words: v.words, pieces: v.pieces,
		fields: v.fields, variants: v.variants, separator: v.separator, sig: v.sig, ts: v.ts, b64: v.b64, b64url: v.b64url,
		named: v.named, url: v.url, keyInside: v.keyInside, pools: v.pools,
	}
}

// secretHints tries the secrets as if their text were encoded, or had been copied badly.
func (v *Verifier) secretHints(r *provider.Request) []string {
	if v.s.Key != "" && v.s.Key != "utf8" || v.kind != primHMAC && v.kind != primHash {
		return nil
	}
	var out []string
	for _, kind := range []string{"base64", "hex", "whsec", "trimmed"} {
		other := v.keyless()
		for i := range v.keys {
			secret, err := secretBytes(string(v.keys[i].secret), kind)
			if kind == "trimmed" {
				secret, err = bytes.TrimSpace(v.keys[i].secret), nil
			}
			if err == nil && len(secret) > 0 && !bytes.Equal(secret, v.keys[i].secret) {
				k := key{name: v.keys[i].name, fp: v.keys[i].fp, secret: secret}
				other.prepareKey(&k)
				other.keys = append(other.keys, k)
			}
		}
		if len(other.keys) > 0 && other.signatureHolds(r) {
			out = append(out, "it verifies with the secret read as "+kind+": the definition's key format does not fit this sender, or the secret was copied with blanks")
		}
	}
	return out
}
