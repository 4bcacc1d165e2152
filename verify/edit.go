package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// setHeader gives h with exactly one header called name.
func setHeader(h provider.Header, name, value string) provider.Header {
	var out provider.Header
	h.Each(func(k, v []byte) bool {
		if !strings.EqualFold(string(k), name) {
			out = append(out, k...)
			out = append(append(append(out, ": "...), v...), "\r\n"...)
		}
		return true
	})
	return append(out, name+": "+value+"\r\n"...)
}

// setQuery gives the target with exactly one parameter called name.
func setQuery(target []byte, name, value string) []byte {
	path, q := cutByte(target, '?')
	out := bytes.Clone(path)
	q = formWith(q, name, value)
	return append(append(out, '?'), q...)
}

// formWith drops every field called name from an encoded form and appends a new one.
func formWith(form []byte, name, value string) []byte {
	var kept []string
	for _, item := range strings.Split(string(form), "&") {
		k, _, _ := strings.Cut(item, "=")
		if u, err := url.QueryUnescape(k); item == "" || err == nil && u == name {
			continue
		}
		kept = append(kept, item)
	}
	kept = append(kept, url.QueryEscape(name)+"="+url.QueryEscape(value))
	return []byte(strings.Join(kept, "&"))
}

// isJSON says whether a body reads as JSON under a body rule.
func isJSON(body []byte, rule string) bool {
	b := bytes.TrimLeft(body, " \t\r\n")
	return rule == "json" || rule != "form" && len(b) > 0 && b[0] == '{'
}

// setField sets one field of a JSON or form body, or of the query.
func setField(r *provider.Request, rule, path, value string) error {
	switch {
	case rule == "query":
		r.Target = setQuery(r.Target, path, value)
	case rule == "xml":
		body, err := xmlWith(r.Body, path, value)
		if err != nil {
			return err
		}
		r.Body = body
	case isJSON(r.Body, rule):
		body, err := jsonWith(r.Body, path, value)
		if err != nil {
			return err
		}
		r.Body = body
	default:
		r.Body = formWith(r.Body, path, value)
	}
	return nil
}

// xmlWith replaces the text of the first element that is called like the path's last step.
func xmlWith(body []byte, path, value string) ([]byte, error) {
	leaf := path[strings.LastIndexByte(path, '.')+1:]
	at := regexp.MustCompile(`(<(?:[\w.-]+:)?` + regexp.QuoteMeta(leaf) + `>)[^<]*`).FindSubmatchIndex(body)
	if at == nil {
		return nil, fmt.Errorf("set %s: the body has no such element", path)
	}
	var out bytes.Buffer
	out.Write(body[:at[3]])
	if err := xml.EscapeText(&out, []byte(value)); err != nil {
		return nil, fmt.Errorf("set %s: %w", path, err)
	}
	out.Write(body[at[1]:])
	return out.Bytes(), nil
}

// jsonWith sets a string at a dotted path; numbers keep their spelling.
func jsonWith(body []byte, path, value string) ([]byte, error) {
	return jsonWithRaw(body, path, jsonText(value))
}

// jsonWithRaw sets a value that is JSON text already.
func jsonWithRaw(body []byte, path string, value []byte) ([]byte, error) {
	doc, err := fastjson.ParseBytes(body)
	if err != nil {
		return nil, fmt.Errorf("set %s: the body is no JSON: %w", path, err)
	}
	if err := setRawJSON(doc, path, value); err != nil {
		return nil, err
	}
	return doc.MarshalTo(nil), nil
}

func setJSON(doc *fastjson.Value, path, value string) error {
	return setRawJSON(doc, path, jsonText(value))
}

func setRawJSON(doc *fastjson.Value, path string, value []byte) error {
	parsed, err := fastjson.ParseBytes(value)
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	steps := strings.Split(path, ".")
	at := doc
	for _, s := range steps[:len(steps)-1] {
		next := at.Get(s)
		if next == nil {
			next = fastjson.MustParse("{}")
			at.Set(s, next)
		}
		at = next
	}
	if t := at.Type(); t != fastjson.TypeObject && t != fastjson.TypeArray {
		return fmt.Errorf("set %s: its parent is a %s", path, t)
	}
	at.Set(steps[len(steps)-1], parsed)
	return nil
}

func setEach(r *provider.Request, list, leaf, value string) error {
	doc, err := fastjson.ParseBytes(r.Body)
	if err != nil {
		return fmt.Errorf("set %s: the body is no JSON: %w", list, err)
	}
	items := doc.GetArray(strings.Split(list, ".")...)
	if len(items) == 0 {
		return fmt.Errorf("set %s: the body has no such list", list)
	}
	for _, item := range items {
		if err := setJSON(item, leaf, value); err != nil {
			return err
		}
	}
	r.Body = doc.MarshalTo(nil)
	return nil
}

// prepareBody brings the body into the form that the scheme signs and names the
// configured merchants in it.
func (v *Verifier) prepareBody(r *provider.Request) error {
	inner := ""
	for _, p := range v.pieces {
		if p.kind == "form" {
			inner = p.name
		}
	}
	if b := bytes.TrimLeft(r.Body, " \t\r\n"); inner != "" && len(b) > 0 && b[0] == '{' {
		text := string(r.Body)
		if !v.plainField {
			text = base64.StdEncoding.EncodeToString(r.Body)
		}
		r.Body = formWith(nil, inner, text)
	}
	if v.sealed != nil && v.readingKey != "" {
		body, err := v.sealed.Seal(r.Body, []byte(v.readingKey))
		if err != nil {
			return err
		}
		r.Body = body
	}
	for i := range v.merchants {
		if err := v.setMerchant(r, &v.merchants[i]); err != nil {
			return err
		}
	}
	if _, n := r.Header.Get("Content-Type"); n == 0 && len(r.Body) > 0 {
		kind := "application/x-www-form-urlencoded"
		if isJSON(r.Body, v.s.Body) {
			kind = "application/json"
		}
		r.Header = setHeader(r.Header, "Content-Type", kind)
	}
	return nil
}

func (v *Verifier) setMerchant(r *provider.Request, m *merchant) error {
	if name, ok := strings.CutPrefix(m.c.Field, "header:"); ok {
		r.Header = setHeader(r.Header, name, m.values[0])
		return nil
	}
	if m.c.Inside == "" {
		return setField(r, v.s.Body, m.c.Field, m.values[0])
	}
	text, err := outerText(r.Body, v.s.Body, m.c.Inside)
	if err != nil {
		return fmt.Errorf("name the merchant: %w", err)
	}
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !isJSON(inner, "auto") {
		return nil // not a document: the signature alone is wanted
	}
	doc, err := fastjson.ParseBytes(inner)
	if err != nil {
		return fmt.Errorf("name the merchant: %s holds no JSON: %w", m.c.Inside, err)
	}
	if string(doc.GetStringBytes(strings.Split(m.c.Field, ".")...)) == m.values[0] {
		return nil
	}
	if err := setJSON(doc, m.c.Field, m.values[0]); err != nil {
		return err
	}
	return setField(r, v.s.Body, m.c.Inside, base64.StdEncoding.EncodeToString(doc.MarshalTo(nil)))
}

// outerText is a text member of a JSON body, or a field of a form.
func outerText(body []byte, rule, name string) (string, error) {
	if isJSON(body, rule) {
		doc, err := fastjson.ParseBytes(body)
		if err != nil {
			return "", err
		}
		return string(doc.GetStringBytes(strings.Split(name, ".")...)), nil
	}
	form, err := url.ParseQuery(string(body))
	return form.Get(name), err
}
