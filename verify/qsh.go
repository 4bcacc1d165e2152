package verify

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"penstock/provider"
)

// queryString is Atlassian's canonical request, whose hash is the claim qsh: method, path
// below the app's base URL and the sorted query, joined by "&".
func queryString(r *provider.Request, basePath string) []byte {
	path, query, _ := bytes.Cut(r.Target, []byte{'?'})
	p := strings.TrimPrefix(string(path), basePath)
	if p = strings.TrimSuffix(p, "/"); p == "" {
		p = "/"
	}
	var b strings.Builder
	b.WriteString(strings.ToUpper(r.Method))
	b.WriteByte('&')
	b.WriteString(strings.ReplaceAll(p, "&", "%26"))
	b.WriteByte('&')
	b.WriteString(canonicalQuery(string(query)))
	return []byte(b.String())
}

// canonicalQuery sorts names and, of one name, values, encodes by RFC 3986 and joins the
// values of one name with a comma. The token itself is no part of it.
func canonicalQuery(query string) string {
	values := map[string][]string{}
	var names []string
	for _, pair := range strings.Split(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = queryText(name), queryText(value)
		if name == "jwt" {
			continue
		}
		if _, seen := values[name]; !seen {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(escape(a), escape(b)) })
	out := make([]string, 0, len(names))
	for _, name := range names {
		list := values[name]
		slices.Sort(list)
		for i := range list {
			list[i] = escape(list[i])
		}
		out = append(out, escape(name)+"="+strings.Join(list, ","))
	}
	return strings.Join(out, "&")
}

// queryText leaves what is not encoded well as it stands.
func queryText(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

// escape is percent-encoding of all but RFC 3986's unreserved characters.
func escape(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}
