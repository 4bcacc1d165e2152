package verify

import (
	"bytes"
	"slices"
	"time"

	"penstock/provider"
)

// explain shows the token's signature; the token itself would let anybody in who reads it
// for as long as it lives, so neither it nor its signature stands there in whole.
func (o *ownJWT) explain(r *provider.Request, now time.Time, e *Explanation) {
	sc := &scratch{}
	e.Where = firstNamed("header ", o.j.Header, "query parameter ", o.j.Query, "body field ", o.j.JSON)
	e.Template = "<header>.<claims>"
	token, reason := o.token(r, sc)
	if reason != "" {
		return
	}
	t, ok := o.v.parseJWS(token, false, sc)
	if !ok {
		e.Received = []string{"(no JSON Web Token)"}
		return
	}
	e.Algorithm = t.alg
	e.Received = []string{"(a token signed with " + printable(t.alg) + ", key id " + printable(t.kid) + ")"}
	e.Signed = append(append(bytes.Clone(printableBytes(t.header.MarshalTo(nil))), '.'), printableBytes(t.payload)...)
	for i := range o.v.keys {
		k := &o.v.keys[i]
		e.Keys = append(e.Keys, ExplainKey{Credential: k.name, Fingerprint: k.fp, Match: k.by == e.VerifiedBy})
	}
	if o.asked != nil {
		e.Keys = append(e.Keys, ExplainKey{Credential: "key asked of " + o.asked.url, Match: e.VerifiedBy != ""})
	}
	if o.published != nil {
		e.Keys = append(e.Keys, ExplainKey{Credential: "published keys of " + o.published.url, Match: e.VerifiedBy != ""})
	}
	claims := parseObject(&sc.jose, t.payload)
	if claims == nil {
		return
	}
	for _, name := range []string{"iat", "nbf", "exp"} {
		if at, there, ok := claimTime(claims, name); there && ok {
			e.Timestamp, e.Age = name+" "+at.UTC().Format(time.RFC3339), now.Sub(at)
			break
		}
	}
	if e.Verdict == Rejected {
		sc.claims = claims
		o.explainClaims(r, &t, now, e, sc)
	}
}

// explainClaims says which claim does not hold of a token that is signed well.
func (o *ownJWT) explainClaims(r *provider.Request, t *jws, now time.Time, e *Explanation, sc *scratch) {
	switch _, reason := o.prove(t, now); {
	case !slices.Contains(o.j.Algorithms, t.alg):
		e.Hints = append(e.Hints, "the token is signed with "+printable(t.alg)+", which this provider does not use")
	case reason == KeyUnavailable:
		e.Hints = append(e.Hints, "the provider's published keys could not be had; nothing says that the delivery is wrong")
	case reason == "":
		for _, name := range o.j.Require {
			if !sc.claims.Exists(name) {
				e.Hints = append(e.Hints, "the signature is right; the claim "+name+" is missing")
			}
		}
		for i := range o.j.Claims {
			if c := &o.j.Claims[i]; !o.holds(c, r, sc) {
				what := "is not what it must be"
				switch {
				case c.SHA256 == "body":
					what = "is the hash of another body: something on the way changed it, or the token belongs to another delivery"
				case c.SHA256 != "" || c.Equals == "url":
					what = "is about another URL than " + o.url(r) + ": set the URL as the provider calls it"
				}
				e.Hints = append(e.Hints, "the signature is right; the claim "+c.Claim+" "+what)
			}
		}
	}
}

// printable is a short text of a token, as it may stand on a terminal.
func printable(s string) string {
	if s == "" {
		return "none"
	}
	return string(printableBytes([]byte(s[:min(len(s), 64)])))
}

func printableBytes(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, b)
}
