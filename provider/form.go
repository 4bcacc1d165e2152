package provider

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPairs bounds the fields of a form or a query.
const maxPairs = 4096

// pair is one field of a form or a query, decoded.
type pair struct {
	name, value []byte
	bare        bool // there was no "="
}

// parseForm decodes an urlencoded form from its raw bytes: "+" is a space, %XX a byte.
func parseForm(b []byte) ([]pair, error) {
	var out []pair
	for len(b) > 0 {
		field := b
		if i := bytes.IndexByte(b, '&'); i >= 0 {
			field, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(field) == 0 {
			continue
		}
		if len(out) == maxPairs {
			return nil, fmt.Errorf("a form of more than %d fields", maxPairs)
		}
		name, value, ok := bytes.Cut(field, []byte{'='})
		n, err := unescapeForm(name)
		if err != nil {
			return nil, err
		}
		v, err := unescapeForm(value)
		if err != nil {
			return nil, err
		}
		out = append(out, pair{name: n, value: v, bare: !ok})
	}
	return out, nil
}

var errPercent = errors.New("a percent sign without two hex digits in a form")

func unescapeForm(b []byte) ([]byte, error) {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b, nil
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(b) {
				return nil, errPercent
			}
			h, l := unhex(b[i+1]), unhex(b[i+2])
			if h < 0 || l < 0 {
				return nil, errPercent
			}
			out = append(out, byte(h<<4|l))
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return out, nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// lookup gives the first field called name and how many there are.
func lookup(pairs []pair, name string) (value []byte, n int) {
	for i := range pairs {
		if string(pairs[i].name) == name {
			if n == 0 {
				value = pairs[i].value
			}
			n++
		}
	}
	return value, n
}

// FormField gives the one field called name of a form, multipart or urlencoded; of a body
// that is no form but begins like a JSON object, the body itself. ok is false where the
// field stands twice or is not there.
func FormField(r *Request, name string) (value []byte, ok bool) {
	if b := bytes.TrimLeft(r.Body, " \t\r\n"); len(b) > 0 && b[0] == '{' {
		return b, true
	}
	pairs, err := parseMultipart(r)
	if errors.Is(err, errNoDocument) {
		pairs, err = parseForm(r.Body)
	}
	if err != nil {
		return nil, false
	}
	value, n := lookup(pairs, name)
	return value, n == 1
}

// formObject writes fields as a JSON object of strings in their order. A name that comes
// again gets "#2", "#3": nothing is lost, and no name stands twice.
func formObject(pairs []pair) (text []byte, repeated []string) {
	seen := make(map[string]int, len(pairs))
	text = append(text, '{')
	for i, p := range pairs {
		name := string(p.name)
		seen[name]++
		if n := seen[name]; n > 1 {
			if n == 2 {
				repeated = append(repeated, name)
			}
			for {
				name = string(p.name) + "#" + strconv.Itoa(n)
				if seen[name] == 0 {
					break
				}
				n++
			}
			seen[name]++
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = appendJSONString(text, []byte(name))
		text = append(text, ':')
		text = appendJSONString(text, p.value)
	}
	return append(text, '}'), repeated
}

// appendJSONString quotes b as JSON text; what is no UTF-8 becomes U+FFFD.
func appendJSONString(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(b) > 0 {
		c := b[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRune(b)
			dst = utf8.AppendRune(dst, r)
			b = b[n:]
			continue
		}
		b = b[1:]
	}
	return append(dst, '"')
}

// urlBase64 decodes the URL's alphabet, with or without padding.
func urlBase64(b []byte) ([]byte, error) {
	out, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(string(b), "="))
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return out, nil
}

// lineBase64 decodes base64 in lines, as mail and Ruby write it.
func lineBase64(b []byte) ([]byte, error) {
	out, err := base64.StdEncoding.DecodeString(string(b)) // passes over line ends
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return out, nil
}

// strictBase64 decodes the standard alphabet with its padding, nothing else.
func strictBase64(b []byte) ([]byte, error) {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	if bytes.ContainsAny(b, "\r\n") {
		return nil, errors.New("a line break in base64")
	}
	n, err := base64.StdEncoding.Strict().Decode(out, b)
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return out[:n], nil
}
