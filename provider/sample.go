package provider

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/valyala/fastjson"
)

//go:embed samples
var sampleFiles embed.FS

// Samples are realistic deliveries of a provider. Texts hold ${...} places: type,
// event_id, order_id, merchant, now, now_ms, now_rfc3339, now_datetime, now_beijing, now_local, amount_minor,
// amount_major, currency, currency_lower, livemode, test, test_num, and what is made of the order
// (order_hex, order_num, order_code) or of the event (event_hex, event_num, event_uuid).
// A body is written as JSON; the definition's first document reader, or As, says how it
// is wrapped.
type Samples struct {
	Method   string        `yaml:"method,omitempty"`
	Default  string        `yaml:"default,omitempty"`
	EventID  string        `yaml:"event_id,omitempty"` // where the caller names none
	Merchant string        `yaml:"merchant,omitempty"` // where the caller names none
	Currency string        `yaml:"currency,omitempty"` // the only one that the provider knows, whatever the caller names
	Headers  [][]string    `yaml:"headers,omitempty"`
	Envelope string        `yaml:"envelope,omitempty"` // ${object} is the event's body
	Events   []SampleEvent `yaml:"events,omitempty"`
}

// SampleEvent is one kind of delivery. Type is what it is asked for by: the provider's
// word, with a second word where one type comes in several kinds.
type SampleEvent struct {
	Type      string `yaml:"type"`
	EventType string `yaml:"event_type,omitempty"` // ${type}, where Type says more
	Is        string `yaml:"is,omitempty"`         // the canonical type that it becomes
	As        string `yaml:"as,omitempty"`         // form, json, or the name of the form field that holds the JSON
	Body      string `yaml:"body,omitempty"`
	// Like names another event whose body this one has, but for what Set puts at paths of
	// the whole document: one word of status is most of what tells two events apart.
	Like string         `yaml:"like,omitempty"`
	Set  map[string]any `yaml:"set,omitempty"`
}

// SampleParams says what a sample is about. Every zero value has a default, made of the
// others; equal parameters give equal bytes.
type SampleParams struct {
	OrderID     string    // the merchant's order; what belongs to one order hangs together
	EventID     string    // the provider's event id, where the provider has one
	Now         time.Time // default: 2026-01-01T00:00:00Z
	AmountMinor int64     // in ISO 4217 minor units; default 129900
	Currency    string    // default UAH
	Livemode    bool
	Merchant    string // merchant id, account, public key, shop
}

// SampleInfo names one sample.
type SampleInfo struct {
	Type      string
	Canonical string // "provider" where there is no canonical type
}

// SampleTypes lists the samples in their order; the default is first.
func (d *Definition) SampleTypes() []SampleInfo {
	var out []SampleInfo
	for _, e := range d.Samples.Events {
		info := SampleInfo{Type: e.Type, Canonical: e.Is}
		if e.Type == d.Samples.Default {
			out = append([]SampleInfo{info}, out...)
			continue
		}
		out = append(out, info)
	}
	return out
}

// Sample makes an unsigned delivery of that type ("" = the default one, a canonical type
// = the first sample that becomes it). package verify signs it.
func (d *Definition) Sample(typ string, p SampleParams) (*Request, error) {
	e, err := d.findSample(typ)
	if err != nil {
		return nil, err
	}
	values := d.sampleValues(e, &p)
	body := e.Body
	if e.Like != "" {
		if body, err = d.bodyLike(e.Like); err != nil {
			return nil, fmt.Errorf("sample %s of %s: %w", e.Type, d.Name, err)
		}
	}
	if d.Samples.Envelope != "" {
		body = strings.Replace(d.Samples.Envelope, "${object}", body, 1)
	}
	doc := []byte(expand(body, values, jsonInside))
	if len(e.Set) > 0 {
		if doc, err = setInside(doc, e.Set, values); err != nil {
			return nil, fmt.Errorf("sample %s of %s: %w", e.Type, d.Name, err)
		}
	}
	r := &Request{Method: firstOf(d.Samples.Method, "POST"), ReceivedAt: p.Now, Target: []byte("/in/" + d.Name)}
	var pairs [][2]string
	form := false
	if r.Body, r.Target, form, err = d.wrapSample(e, doc, r.Target); err != nil {
		return nil, fmt.Errorf("sample %s of %s: %w", e.Type, d.Name, err)
	}
	for _, h := range d.Samples.Headers {
		if form && strings.EqualFold(h[0], "content-type") {
			h = []string{h[0], "application/x-www-form-urlencoded"}
		}
		pairs = append(pairs, [2]string{h[0], expand(h[1], values, func(s string) string { return s })})
	}
	r.Header = MakeHeader(pairs)
	return r, nil
}

func (d *Definition) findSample(typ string) (*SampleEvent, error) {
	if typ == "" {
		typ = d.Samples.Default
	}
	for i := range d.Samples.Events {
		if e := &d.Samples.Events[i]; e.Type == typ || typ == "" {
			return e, nil
		}
	}
	for i := range d.Samples.Events {
		if e := &d.Samples.Events[i]; e.Is == typ || e.EventType == typ {
			return e, nil
		}
	}
	if len(d.Samples.Events) == 0 {
		return nil, fmt.Errorf("the definition of %s has no samples", d.Name)
	}
	return nil, fmt.Errorf("%s has no sample %q", d.Name, typ)
}

// wrapSample turns the JSON document into the bytes that the provider sends.
func (d *Definition) wrapSample(e *SampleEvent, doc, target []byte) (body, to []byte, form bool, err error) {
	rd := d.prog.readers[0]
	switch {
	case e.As == "form":
		rd = Reader{Kind: "form"}
	case e.As == "json":
		rd = Reader{Kind: "json"}
	case e.As != "":
		rd = Reader{Kind: "form", Form: e.As, As: "json"}
	}
	switch {
	case rd.Kind == "query" && rd.Query != "":
		text, err := encodeForm(doc)
		if err != nil {
			return nil, nil, false, err
		}
		return nil, fmt.Appendf(target, "?%s=%s", rd.Query, url.QueryEscape(base64.URLEncoding.EncodeToString(text))), false, nil
	case rd.Kind == "form" && rd.As == "base64-xml":
		return []byte(url.QueryEscape(rd.Form) + "=" + url.QueryEscape(inLines(doc))), target, true, nil
	case rd.Kind == "form" && rd.Form != "":
		if rd.As == "base64-json" {
			doc = []byte(base64.StdEncoding.EncodeToString(doc))
		}
		return []byte(url.QueryEscape(rd.Form) + "=" + url.QueryEscape(string(doc))), target, true, nil
	case rd.Kind == "form" || rd.Kind == "query":
		text, err := encodeForm(doc)
		if err != nil {
			return nil, nil, false, err
		}
		if rd.Kind == "query" {
			return nil, append(append(target, '?'), text...), false, nil
		}
		return text, target, true, nil
	case rd.Kind == "json" && rd.Form != "":
		doc = fmt.Appendf(nil, "{%q:%q}", rd.Form, base64.StdEncoding.EncodeToString(doc))
		return doc, target, false, nil
	case rd.Kind == "json" || rd.Kind == "form-name" || rd.Kind == "xml" || rd.Kind == "multipart" && rd.Form != "":
		return doc, target, false, nil // verify.Sign puts it into a multipart form
	case rd.Kind == "none":
		return nil, target, false, nil // everything is in the headers
	}
	return nil, nil, false, fmt.Errorf("a document of kind %s cannot be made", rd.Kind)
}

// inLines is base64 in lines of 60, each ended, as Ruby writes it.
func inLines(doc []byte) string {
	text := base64.StdEncoding.EncodeToString(doc)
	var b strings.Builder
	for len(text) > 60 {
		b.WriteString(text[:60] + "\n")
		text = text[60:]
	}
	return b.String() + text + "\n"
}

func encodeForm(doc []byte) ([]byte, error) {
	var p fastjson.Parser
	v, err := p.ParseBytes(doc)
	if err != nil {
		return nil, fmt.Errorf("parse the fields of a form: %w", err)
	}
	o, err := v.Object()
	if err != nil {
		return nil, fmt.Errorf("parse the fields of a form: %w", err)
	}
	var out []byte
	o.Visit(func(k []byte, v *fastjson.Value) {
		if len(out) > 0 {
			out = append(out, '&')
		}
		out = append(append(append(out, url.QueryEscape(string(k))...), '='), url.QueryEscape(string(text(v)))...)
	})
	return out, nil
}

func (d *Definition) sampleValues(e *SampleEvent, p *SampleParams) map[string]string {
	if p.Now.IsZero() {
		p.Now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if p.AmountMinor == 0 {
		p.AmountMinor = 129900
	}
	p.Currency = strings.ToUpper(firstOf(d.Samples.Currency, p.Currency, "UAH"))
	p.OrderID = firstOf(p.OrderID, "ORD-"+hexOf(p.EventID, p.Now.String())[:8])
	order, event := hexOf("order", p.OrderID), hexOf("event", p.EventID, p.OrderID, e.Type)
	if p.EventID != "" {
		event = hexOf("event", p.EventID)
	}
	v := map[string]string{
		"type":         firstOf(e.EventType, e.Type),
		"order_id":     p.OrderID,
		"merchant":     firstOf(p.Merchant, d.Samples.Merchant),
		"now":          strconv.FormatInt(p.Now.Unix(), 10),
		"now_ms":       strconv.FormatInt(p.Now.UnixMilli(), 10),
		"now_rfc3339":  p.Now.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		"now_datetime": p.Now.UTC().Format("2006-01-02 15:04:05"),
		"now_beijing":  p.Now.UTC().Add(8 * time.Hour).Format("2006-01-02 15:04:05"),
		"now_local":    p.Now.UTC().Format("2006-01-02T15:04:05.000"),
		"currency":     p.Currency, "currency_lower": strings.ToLower(p.Currency),
		"livemode": strconv.FormatBool(p.Livemode), "test": strconv.FormatBool(!p.Livemode),
		"test_num":  map[bool]string{true: "0", false: "1"}[p.Livemode],
		"order_hex": order[:24], "event_hex": event[:24], "order_code": strings.ToUpper(order[:26]),
		"order_num": numberOf(order), "event_num": numberOf(event),
		"event_uuid": event[:8] + "-" + event[8:12] + "-4" + event[13:16] + "-a" + event[17:20] + "-" + event[20:32],
	}
	if allDigits(p.EventID) {
		v["event_num"] = p.EventID
	}
	v["amount_minor"], v["amount_major"] = d.sampleAmount(p)
	v["event_id"] = firstOf(p.EventID, expand(d.Samples.EventID, v, func(s string) string { return s }))
	return v
}

// sampleAmount writes the sum as the provider does: in its own minor units, and as a
// decimal number.
func (d *Definition) sampleAmount(p *SampleParams) (minor, major string) {
	exp, ok := currencyExponent(p.Currency)
	if !ok {
		exp = 2
	}
	own, ok := d.Exponents[p.Currency]
	if !ok {
		own = exp
	}
	n, _ := parseDecimal(strconv.AppendInt(nil, p.AmountMinor, 10))
	n.scale += exp
	major = string(n.append(nil))
	if d.prog.base.Amount.Exponent != nil {
		own = *d.prog.base.Amount.Exponent
	}
	n.scale -= own
	return string(n.append(nil)), major
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return s != "" && len(s) < 19
}

func hexOf(parts ...string) string {
	h := sha256.New()
	for _, s := range parts {
		put(h, []byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// numberOf makes ten digits, the first of them a 2: short enough to be no card number.
func numberOf(hexText string) string {
	b, err := hex.DecodeString(hexText[:18])
	if err != nil {
		return "2000000000"
	}
	out := []byte{'2'}
	for _, c := range b {
		out = append(out, '0'+c%10)
	}
	return string(out)
}

func jsonInside(s string) string {
	q := appendJSONString(nil, []byte(s))
	return string(q[1 : len(q)-1])
}

// expand puts values into the ${...} places of a text. compileSamples has checked that
// there are no others.
func expand(s string, values map[string]string, quote func(string) string) string {
	return os.Expand(s, func(name string) string { return quote(values[name]) })
}

func (d *Definition) compileSamples() error {
	s := &d.Samples
	known := d.sampleValues(&SampleEvent{}, &SampleParams{})
	known["object"] = ""
	var errs []error
	check := func(at, text string) {
		os.Expand(text, func(name string) string {
			if _, ok := known[name]; !ok {
				errs = append(errs, mistake("samples."+at, fmt.Errorf("${%s} is unknown", name)))
			}
			return ""
		})
	}
	check("event_id", s.EventID)
	check("envelope", s.Envelope)
	for i, h := range s.Headers {
		if len(h) != 2 {
			errs = append(errs, mistake(fmt.Sprintf("samples.headers[%d]", i), errors.New("a header is [name, value]")))
			continue
		}
		check(fmt.Sprintf("headers[%d]", i), h[1])
	}
	for i, e := range s.Events {
		at := fmt.Sprintf("events[%d]", i)
		if e.Type == "" || (e.Body == "") == (e.Like == "") {
			errs = append(errs, mistake("samples."+at, errors.New("a sample needs type and one of body and like")))
		}
		if e.Is != "" && e.Is != "provider" && !canonicalTypes[e.Is] {
			errs = append(errs, mistake("samples."+at+".is", fmt.Errorf("%q is no canonical type", e.Is)))
		}
		check(at+".body", e.Body)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i := range s.Events {
		r, err := d.Sample(s.Events[i].Type, SampleParams{})
		if err != nil {
			errs = append(errs, mistake(fmt.Sprintf("samples.events[%d]", i), err))
		} else if b := bytes.TrimSpace(r.Body); len(b) > 0 && b[0] == '{' && !json.Valid(b) {
			errs = append(errs, mistake(fmt.Sprintf("samples.events[%d].body", i), errors.New("no JSON")))
		}
	}
	return errors.Join(errs...)
}

// builtinSamples reads samples/<name>.yaml; they stand apart so that a definition can be
// read at one go.
func builtinSamples(name string) (Samples, error) {
	var s Samples
	file := "samples/" + name + ".yaml"
	text, err := sampleFiles.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.Strict()); err != nil {
		return s, fmt.Errorf("%s:%w", file, located(err))
	}
	return s, nil
}
