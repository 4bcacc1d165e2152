package verify

import (
	"bytes"
	"slices"
	"strings"

	"penstock/provider"
)

// publicURL is what the provider was told to call, with the query of this delivery; ok is
// false where nobody said under which address the gateway is known.
func (v *Verifier) publicURL(r *provider.Request) (string, bool) {
	u := r.PublicURL
	if v.url != "" {
		u = v.url
	}
	if u == "" {
		return "", false
	}
	if _, q, ok := bytes.Cut(r.Target, []byte{'?'}); ok && !strings.Contains(u, "?") {
		u += "?" + string(q)
	}
	return u, true
}

// hubspotURL is the URL with twelve escapes written out, in either letter case, as
// HubSpot's version 3 wants it before it is signed; all others stay.
// Source: HubSpot's page on validating requests, "decode URI".
func hubspotURL(v *Verifier, r *provider.Request, sc *scratch, _ int) string {
	u, ok := v.publicURL(r)
	if !ok {
		return Policy
	}
	n := len(sc.arena)
	for i := 0; i < len(u); i++ {
		if u[i] == '%' && i+2 < len(u) && unhex(u[i+1]) >= 0 && unhex(u[i+2]) >= 0 {
			if c := byte(unhex(u[i+1])<<4 | unhex(u[i+2])); strings.IndexByte(":/?@!$'()*,;", c) >= 0 {
				sc.arena = append(sc.arena, c)
				i += 2
				continue
			}
		}
		sc.arena = append(sc.arena, u[i])
	}
	sc.parts = append(sc.parts, sc.arena[n:len(sc.arena):len(sc.arena)])
	return ""
}

// contentfulPath is the path and the query of the URL as Contentful encodes them: the
// query as one component, then the whole as a URI, so that a percent sign becomes %25.
// Source: contentful/node-apps-toolkit src/requests/utils.ts, getNormalizedEncodedURI.
func contentfulPath(v *Verifier, r *provider.Request, sc *scratch, _ int) string {
	u, ok := v.publicURL(r)
	if !ok {
		return Policy
	}
	path, query, _ := strings.Cut(targetOf(u), "?")
	if strings.Contains(query, "?") {
		return SignatureMalformed // what stands behind a second one is not signed
	}
	const unreserved = "-_.!~*'()"
	n := len(sc.arena)
	sc.arena = appendEscaped(sc.arena, path, unreserved+";,/?:@&=+$#")
	if query != "" {
		sc.arena = append(sc.arena, '?')
		sc.arena = appendEscaped(sc.arena, string(appendEscaped(nil, query, unreserved)), unreserved+";,/?:@&=+$#")
	}
	sc.parts = append(sc.parts, sc.arena[n:len(sc.arena):len(sc.arena)])
	return ""
}

// appendEscaped writes every byte but letters, digits and those of keep as %XX.
func appendEscaped(dst []byte, s, keep string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(keep, c) >= 0 {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// maxSignedHeaders bounds the headers that a delivery says are signed.
const maxSignedHeaders = 64

// contentfulHeaders are the headers that X-Contentful-Signed-Headers names, "name:value",
// sorted and joined by ";". The list and the time must be among them, else whoever holds
// one delivery chooses what else counts.
func contentfulHeaders(v *Verifier, r *provider.Request, sc *scratch, _ int) string {
	list, n := r.Header.Get("X-Contentful-Signed-Headers")
	switch {
	case n > 1:
		return DuplicateHeader
	case len(list) == 0:
		return SignatureMissing
	}
	names := strings.Split(strings.ToLower(string(list)), ",")
	if len(names) > maxSignedHeaders {
		return SignatureMalformed
	}
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if !slices.Contains(names, "x-contentful-signed-headers") || !slices.Contains(names, "x-contentful-timestamp") {
		return SignatureMalformed
	}
	at := len(sc.arena)
	for _, name := range names {
		value, n := r.Header.Get(name)
		switch {
		case n > 1:
			return DuplicateHeader
		case n == 0:
			continue
		}
		if len(sc.arena) > at {
			sc.arena = append(sc.arena, ';')
		}
		sc.arena = append(append(append(sc.arena, name...), ':'), value...)
	}
	sc.parts = append(sc.parts, sc.arena[at:len(sc.arena):len(sc.arena)])
	return ""
}
