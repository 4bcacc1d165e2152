package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"penstock/provider"
)

// signs says whether the template has a piece of that kind.
func (v *Verifier) signs(kind string) bool {
	return slices.ContainsFunc(v.pieces, func(p piece) bool { return p.kind == kind })
}

// holds asks for the signature alone: the clock is the delivery's own.
func (v *Verifier) holds(r *provider.Request, now time.Time) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	sc := &scratch{}
	switch v.kind {
	case primOwn:
		_, reason := v.own.authenticate(r, now, sc)
		return reason == "" || reason == TimestampOutsideTolerance || reason == MerchantMismatch
	case primToken:
		_, reason := v.checkToken(r, sc)
		return reason == ""
	case primBasic:
		_, reason := v.checkBasic(r, sc)
		return reason == ""
	case primStandard:
		list, reason := v.readTrio(r, sc)
		if reason != "" {
			return false
		}
		sc.parts = [][]byte{sc.id, dot, sc.ts, dot, r.Body}
		_, reason = v.matchWords(list, sc)
		return reason == ""
	}
	if v.s.Each != "" {
		_, reason := v.checkItems(r, now, sc)
		return reason == ""
	}
	v.firstItem(r, sc)
	if v.readSignature(r, sc) != "" || v.readTimestamp(r, sc) != "" {
		return false
	}
	_, reason := v.match(r, sc)
	return reason == ""
}

// sibling is v with other keys and another URL, for trying out.
func (v *Verifier) sibling(keys []key, at string) *Verifier {
	other := &Verifier{
		name: v.name, s: v.s, kind: v.kind, alg: v.alg, minAlg: v.minAlg, words: v.words, pieces: v.pieces,
		fields: v.fields, variants: v.variants, separator: v.separator, sig: v.sig, ts: v.ts, b64: v.b64, b64url: v.b64url,
		named: v.named, url: at, keyInside: v.keyInside, trios: v.trios, keys: keys, tolerance: v.tolerance, source: v.source, published: v.published, require: v.require, bodyRule: v.bodyRule,
		signing: v.signing, tokens: v.tokens, token: v.token, settings: v.settings, pools: v.pools,
	}
	if other.compileOwn() != nil {
		return nil
	}
	return other
}

func (v *Verifier) keyKind() string {
	if v.kind == primStandard && v.s.Key == "" {
		return "whsec"
	}
	return v.s.Key
}

// withTexts is v with these secrets, read as kind; nil where none can be read so.
func (v *Verifier) withTexts(texts []string, kind string) *Verifier {
	if v.kind != primHMAC && v.kind != primHash && v.kind != primStandard && v.kind != primOwn {
		return nil
	}
	name := "secrets"
	if len(v.keys) > 0 {
		name = v.keys[0].name
	}
	var keys []key
	for _, text := range texts {
		k, err := newSecretKey(name, text, v.s.Scheme, kind)
		if err != nil {
			continue
		}
		keys = append(keys, k)
	}
	other := v.sibling(nil, v.url)
	if len(keys) == 0 || other == nil {
		return nil
	}
	for i := range keys {
		other.prepareKey(&keys[i])
	}
	other.keys = keys
	if other.compileOwn() != nil {
		return nil
	}
	return other
}

// reading is one way in which a secret is put down wrongly.
type reading struct {
	hint string
	text func(string) string // what it should have been
	kind string              // how it is to be decoded; "" = as the definition says
}

func same(s string) string { return s }

var readings = []reading{
	{"with the secret without the blanks or the newline around it: they were pasted with it; write it again, or cut them off in the file", strings.TrimSpace, ""},
	{"with the secret without the quotation marks around it: they were pasted with it", func(s string) string { return strings.Trim(strings.TrimSpace(s), "\"'`") }, ""},
	{"with whsec_ in front of the secret: the prefix is part of it and was left out", func(s string) string { return "whsec_" + s }, ""},
	{"with the secret without its prefix whsec_: here the prefix is no part of it", func(s string) string { return strings.TrimPrefix(s, "whsec_") }, ""},
	{"with the secret decoded from base64: the sender decodes it before it signs, and this definition takes its text", same, "base64"},
	{"with the secret's part after whsec_ decoded from base64: the sender decodes it, and this definition takes its text", same, "whsec"},
	{"with the secret decoded from hex: the sender decodes it before it signs, and this definition takes its text", same, "hex"},
	{"with the secret's text as it stands: the sender does not decode it, and this definition does", same, "utf8"},
	{"with the secret in lower case: it was copied in upper case", strings.ToLower, ""},
	{"with the secret in upper case: it was copied in lower case", strings.ToUpper, ""},
}

// secretHints tries the secrets as if they had been copied badly, or were read otherwise.
func (v *Verifier) secretHints(r *provider.Request, now time.Time, add addHint) {
	for _, w := range readings {
		kind := w.kind
		if kind == "" {
			kind = v.keyKind()
		}
		var texts []string
		for i := range v.keys {
			old := v.keys[i].text
			if text := w.text(old); old != "" && text != "" && (text != old || kind != v.keyKind()) {
				texts = append(texts, text)
			}
		}
		other := v.withTexts(texts, kind)
		if other == nil || v.sameKeys(other) {
			continue
		}
		if other.holds(r, now) {
			add("it verifies %s", w.hint)
			return
		}
	}
	if v.kind == primHMAC {
		empty := v.sibling([]key{{name: "empty", by: "empty"}}, v.url)
		empty.prepareKey(&empty.keys[0])
		if empty.holds(r, now) {
			add("it verifies with an empty secret: the sender has none set, and anybody can sign so; set one at the provider")
		}
	}
}

func (v *Verifier) sameKeys(other *Verifier) bool {
	for i := range other.keys {
		if !slices.ContainsFunc(v.keys, func(k key) bool { return bytes.Equal(k.secret, other.keys[i].secret) }) {
			return false
		}
	}
	return true
}

// algorithmHints looks whether the received text is the MAC of another algorithm or in
// another encoding: another version of the scheme.
func (v *Verifier) algorithmHints(r *provider.Request, add addHint) {
	if v.kind != primHMAC && v.kind != primHash {
		return
	}
	sc := &scratch{}
	if v.readSignature(r, sc) != "" || v.readTimestamp(r, sc) != "" || v.message(r, sc, 0) != "" {
		return
	}
	received := strings.Join(v.receivedText(r, sc), " ")
	for alg := algMD5; alg < numAlgorithms; alg++ {
		if alg == sc.alg {
			continue
		}
		for i := range v.keys {
			k := v.keys[i]
			if k.public {
				continue
			}
			k.macs = [numAlgorithms]*macState{}
			k.prepare(alg)
			sum := bytes.Clone(v.sumWith(&k, alg, sc))
			for _, text := range []string{hex.EncodeToString(sum), base64.StdEncoding.EncodeToString(sum)} {
				if strings.Contains(strings.ToLower(received), strings.ToLower(text)) {
					add("it verifies with %s instead of %s: the endpoint is set to another version of the scheme; change it there, or the setting algorithm here where the provider has one", alg, sc.alg)
					return
				}
			}
		}
	}
}

// tokenHints: a shared text that differs by what comes of copying.
func (v *Verifier) tokenHints(r *provider.Request, add addHint) {
	if v.kind != primToken || v.token.each != "" {
		return
	}
	text, reason := v.tokenText(r, &scratch{})
	if reason != "" {
		return
	}
	for i := range v.keys {
		own := v.keys[i].text
		switch got := strings.TrimPrefix(string(text), v.token.t.Prefix); {
		case own == "" || got == own:
		case strings.TrimSpace(got) == strings.TrimSpace(own):
			add("the token differs by blanks or a newline at its ends: it was pasted with them, here or at the provider")
		case strings.EqualFold(got, own):
			add("the token differs by upper and lower case alone")
		case strings.EqualFold(strings.TrimPrefix(got, "Bearer "), own) || strings.EqualFold(got, "Bearer "+own):
			add("the token is right but for the word Bearer in front of it")
		case strings.Trim(got, "\"'`") == own || strings.Trim(own, "\"'`") == got:
			add("the token differs by quotation marks around it")
		}
	}
}

// urlHints tries the URLs that the provider may have called where the scheme signs it.
func (v *Verifier) urlHints(r *provider.Request, now time.Time, add addHint) {
	if !v.signs("url") && !v.signs("own") && v.kind != primOwn {
		return
	}
	configured := v.url
	if configured == "" {
		configured = r.PublicURL
	}
	u, err := url.Parse(configured)
	if err != nil || u.Host == "" {
		return
	}
	other := v.sibling(v.keys, "")
	if other == nil {
		return
	}
	for _, candidate := range urlsOf(u, r) {
		if candidate == configured {
			continue
		}
		changed := *r
		changed.PublicURL = candidate
		if other.holds(&changed, now) {
			add("it verifies with the URL %s; this source says %s (%s): set public_url to what was entered at the provider, and let the proxy keep it", candidate, configured, differs(u, candidate))
			return
		}
	}
}

// urlsOf are the addresses that may stand for u behind a proxy.
func urlsOf(u *url.URL, r *provider.Request) []string {
	hosts := []string{u.Host, u.Hostname(), u.Hostname() + ":443", u.Hostname() + ":80", u.Hostname() + ":8080", u.Hostname() + ":8443"}
	for _, h := range []string{"X-Forwarded-Host", "X-Original-Host", "Host"} {
		if text, n := r.Header.Get(h); n == 1 && len(text) > 0 {
			host := string(text)
			bare, _, _ := strings.Cut(host, ":")
			hosts = append(hosts, host, bare)
		}
	}
	if w, ok := strings.CutPrefix(u.Hostname(), "www."); ok {
		hosts = append(hosts, w)
	} else {
		hosts = append(hosts, "www."+u.Hostname())
	}
	path := u.EscapedPath()
	target, query, _ := strings.Cut(string(r.Target), "?")
	paths := []string{path, strings.TrimSuffix(path, "/"), strings.TrimSuffix(path, "/") + "/", target}
	for _, h := range []string{"X-Forwarded-Prefix", "X-Script-Name"} {
		if text, n := r.Header.Get(h); n == 1 {
			paths = append(paths, strings.TrimSuffix(string(text), "/")+path)
		}
	}
	for _, h := range []string{"X-Original-Uri", "X-Original-Url", "X-Rewrite-Url"} {
		if text, n := r.Header.Get(h); n == 1 {
			p, q, _ := strings.Cut(string(text), "?")
			paths, query = append(paths, p), firstNamed("", query, "", q)
		}
	}
	queries := []string{u.RawQuery, "", query, sortedQuery(u.RawQuery), sortedQuery(query)}
	var out []string
	for _, scheme := range []string{u.Scheme, "https", "http"} {
		for _, host := range hosts {
			for _, p := range paths {
				for _, q := range queries {
					text := scheme + "://" + host + p
					if q != "" {
						text += "?" + q
					}
					if !slices.Contains(out, text) {
						out = append(out, text)
					}
				}
			}
		}
	}
	return out
}

func sortedQuery(q string) string {
	parts := strings.Split(q, "&")
	sort.Strings(parts)
	return strings.Join(parts, "&")
}

// differs names the parts in which two URLs differ.
func differs(a *url.URL, text string) string {
	b, err := url.Parse(text)
	if err != nil {
		return "another URL"
	}
	var out []string
	say := func(differ bool, what string) {
		if differ {
			out = append(out, what)
		}
	}
	say(a.Scheme != b.Scheme, "another scheme: TLS ends at a proxy")
	say(a.Hostname() != b.Hostname(), "another host")
	say(a.Port() != b.Port(), "another port")
	pa, pb := a.EscapedPath(), b.EscapedPath()
	slash := pa != pb && strings.TrimSuffix(pa, "/") == strings.TrimSuffix(pb, "/")
	say(slash, "a slash at the end")
	say(pa != pb && !slash, "another path")
	order := a.RawQuery != b.RawQuery && sortedQuery(a.RawQuery) == sortedQuery(b.RawQuery)
	say(order, "another order of the query")
	say(a.RawQuery != b.RawQuery && !order, "another query")
	return strings.Join(out, ", ")
}
