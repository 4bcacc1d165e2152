package verify

import (
	"bytes"
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

// Surroundings are what a refusal may come from although it stands outside the delivery.
type Surroundings struct {
	Neighbours []Neighbour // the other sources of the configuration
	Livemode   *bool       // what the delivery says of itself; nil = nothing
	Methods    []string    // the provider's own; none = POST
}

// Neighbour is another source: its secret may have been put into the wrong place, or its
// URL entered at the wrong provider.
type Neighbour struct {
	Source   string
	Provider string
	Verifier *Verifier
}

// Explain verifies r at now and tells everything that the refusal itself must not say.
func (v *Verifier) Explain(r *provider.Request, now time.Time) Explanation {
	return v.ExplainAmong(r, now, Surroundings{})
}

// ExplainAmong is Explain with a look at what stands around the source.
func (v *Verifier) ExplainAmong(r *provider.Request, now time.Time, around Surroundings) Explanation {
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
		v.hints(r, now, around, &e)
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
	if v.published != nil {
		e.Keys = append(e.Keys, ExplainKey{Credential: "published keys of " + v.published.url, Match: e.VerifiedBy != ""})
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
