package provider

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// maxText bounds one field of an event in bytes; longer ones are cut and reported.
const maxText = 1024

// reading is the state of one call of Events. It is pooled: the parser's memory is what
// makes reading cheap.
type reading struct {
	d    *Definition
	r    *Request
	p    fastjson.Parser
	root *fastjson.Value // nil: there is no document
	item *fastjson.Value
	up   *fastjson.Value

	reader   Reader
	doc      []byte // the document as JSON text
	payload  []byte
	isJSON   bool
	form     []pair // of the body, where it is one
	query    []pair
	gotQuery bool
	claims   *fastjson.Value // of the token, where the scheme has one

	gotClaims bool
	doubled   []string // names that stand twice where it matters
	masked    []string

	problems []string
	typeOpen bool // the canonical type hangs on a place that is not signed
	scratch  []byte
	arena    []byte // texts of numbers and flags
	scanned  bool
	loose    bool   // fastjson takes the document, RFC 8259 does not
	sealed   bool   // a part of the document could not be opened
	unread   bool   // the body is none of what the definition reads
	spans    []span // secret fields of the document
	captured bool   // the document is read by its slots, without a tree
	slots    []slot
}

// span is a part of the document that must not leave.
type span struct {
	from, to int
	path     string
}

var readings = sync.Pool{New: func() any { return new(reading) }}

func (c *reading) reset(d *Definition, r *Request) {
	c.d, c.r = d, r
	c.root, c.item, c.up = nil, nil, nil
	c.reader, c.doc, c.payload, c.isJSON = Reader{}, nil, nil, false
	c.form, c.query, c.gotQuery = nil, nil, false
	c.claims, c.gotClaims = nil, false
	c.doubled, c.masked, c.problems, c.typeOpen = nil, nil, nil, false
	c.arena, c.scanned, c.loose, c.sealed, c.unread, c.spans = c.arena[:0], false, false, false, false, c.spans[:0]
	c.captured = false
}

// release drops every reference to foreign memory before the reading goes back.
func (c *reading) release() {
	c.reset(nil, nil)
	readings.Put(c)
}

var errNoDocument = errors.New("the body is none of what the definition reads")

// open finds the document. What was proved is never dropped: a body that is none of what
// the definition reads goes out as it is, with its content as its identity, and nobody
// books by it unasked.
func (c *reading) open() {
	err := c.openDocument()
	if err == nil {
		return
	}
	c.root, c.doc, c.form, c.query = nil, nil, nil, nil
	c.reader, c.payload, c.isJSON = Reader{Kind: "none"}, c.r.Body, false
	c.loose, c.unread = true, true
	c.problem("the document cannot be read: " + err.Error())
}

func (c *reading) openDocument() error {
	var first error
	for _, rd := range c.d.prog.readers {
		err := c.openAs(rd)
		if err == nil {
			c.reader = rd
			if err := c.unseal(); err != nil { // what is open can still be read
				c.problem("the document is sealed: " + err.Error())
				c.sealed = true
			}
			return nil
		}
		if first == nil && !errors.Is(err, errNoDocument) {
			first = err
		}
	}
	if first == nil {
		first = errNoDocument
	}
	return first
}

func (c *reading) openAs(rd Reader) error {
	body := c.r.Body
	switch rd.Kind {
	case "json":
		if rd.Form != "" {
			return c.openInside(rd.Form)
		}
		if c.capture(body) {
			return nil
		}
		return c.openJSON(body, body)
	case "form":
		return c.openForm(rd)
	case "form-name":
		return c.openFormName()
	case "query":
		if rd.Query != "" {
			return c.openQueryField(rd)
		}
		if c.query = c.parseQuery(); len(c.query) == 0 || len(bytes.TrimSpace(body)) > 0 {
			return errNoDocument
		}
		return c.openObject(c.query)
	case "multipart":
		pairs, err := parseMultipart(c.r)
		if err != nil {
			return err
		}
		c.form = pairs
		if rd.Form == "" {
			return c.openObject(pairs)
		}
		value, n := lookup(pairs, rd.Form)
		if n != 1 {
			return fmt.Errorf("the form has %d fields %q", n, rd.Form)
		}
		return c.openJSON(value, value)
	case "xml":
		text, err := xmlWithLists(body, c.d.prog.lists)
		if err != nil {
			return err
		}
		return c.openJSON(text, body)
	case "none":
		c.payload, c.isJSON = body, false
		return nil
	}
	return errNoDocument
}

// openJSON parses text; payload is what the consumer is given.
func (c *reading) openJSON(text, payload []byte) error {
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	if len(trimmed) == 0 {
		return errNoDocument
	}
	v, err := c.p.ParseBytes(text)
	if err != nil {
		if trimmed[0] != '{' && trimmed[0] != '[' {
			return errNoDocument
		}
		return fmt.Errorf("parse the body as JSON: %w", err)
	}
	c.root, c.doc, c.payload = v, text, payload
	c.isJSON = &text[0] == &payload[0] && utf8.Valid(payload) // and strict, says findDoubled
	return nil
}

func (c *reading) openForm(rd Reader) error {
	if err := c.parseBodyForm(); err != nil {
		return err
	}
	if rd.Form == "" {
		return c.openObject(c.form)
	}
	value, n := lookup(c.form, rd.Form)
	switch {
	case n == 0:
		return errNoDocument
	case n > 1:
		return fmt.Errorf("the form has %d fields %q", n, rd.Form)
	}
	if rd.As == "base64-xml" {
		text, err := lineBase64(value)
		if err != nil {
			return fmt.Errorf("form field %q: %w", rd.Form, err)
		}
		doc, err := xmlToJSON(text)
		if err != nil {
			return err
		}
		return c.openJSON(doc, doc)
	}
	if rd.As == "base64-json" {
		inner, err := strictBase64(value)
		if err != nil {
			return fmt.Errorf("form field %q: %w", rd.Form, err)
		}
		value = inner
	}
	if c.capture(value) {
		return nil
	}
	return c.openJSON(value, value)
}

// openQueryField reads the form in a parameter of the query, which may be sealed under a
// credential of the source (Paysera).
func (c *reading) openQueryField(rd Reader) error {
	c.query = c.parseQuery()
	value, n := lookup(c.query, rd.Query)
	switch {
	case n == 0:
		return errNoDocument
	case n > 1:
		return fmt.Errorf("the query has %d parameters %q", n, rd.Query)
	}
	text, err := urlBase64(value)
	if err != nil {
		return fmt.Errorf("parameter %q: %w", rd.Query, err)
	}
	for _, secret := range c.r.Secrets[rd.Key] {
		if plain, ok := OpenPrefixed([]byte(secret), text); ok {
			text = plain
			break
		}
	}
	if !utf8.Valid(text) {
		return fmt.Errorf("parameter %q: %w", rd.Query, errSealed)
	}
	pairs, err := parseForm(text)
	if err != nil {
		return err
	}
	return c.openObject(pairs)
}

// openInside reads the base64 JSON document in a member of the body.
func (c *reading) openInside(name string) error {
	if err := c.openJSON(c.r.Body, c.r.Body); err != nil {
		return err
	}
	inner, err := strictBase64(text(c.root.Get(name)))
	if err != nil || len(inner) == 0 {
		return errNoDocument
	}
	return c.openJSON(inner, inner)
}

// openFormName reads a form whose only name, or only value, is the JSON document. PHP
// receivers know both. A "=" inside the document ends the "name"; it is put back.
func (c *reading) openFormName() error {
	if bytes.IndexByte(c.r.Body, '&') >= 0 {
		return errNoDocument
	}
	whole, err := unescapeForm(c.r.Body)
	if err != nil {
		return err
	}
	whole = bytes.TrimSpace(whole)
	if len(whole) > 0 && whole[0] != '{' {
		if _, value, ok := bytes.Cut(whole, []byte{'='}); ok {
			whole = value
		}
	} else if n := len(whole); n > 1 && whole[n-1] == '=' {
		whole = whole[:n-1] // "{...}=" is a name with an empty value
	}
	if len(whole) == 0 || whole[0] != '{' {
		return errNoDocument
	}
	return c.openJSON(whole, whole)
}

func (c *reading) parseBodyForm() error {
	if c.form != nil {
		return nil
	}
	b := bytes.TrimSpace(c.r.Body)
	if len(b) == 0 || b[0] == '{' || b[0] == '[' || b[0] == '<' || bytes.IndexByte(b, '=') < 0 {
		return errNoDocument
	}
	// The blanks belong to the fields: what is read is what was verified.
	pairs, err := parseForm(c.r.Body)
	if err != nil {
		return err
	}
	c.form = pairs
	return nil
}

// openObject makes the document of fields.
func (c *reading) openObject(pairs []pair) error {
	text, repeated := formObject(pairs)
	if err := c.openJSON(text, text); err != nil {
		return err
	}
	watched := c.d.prog.base.watch
	for _, name := range repeated {
		if kid, n := watched.find([]byte(name)); n >= 0 && kid != nil {
			c.doubled = append(c.doubled, name)
		}
	}
	return nil
}

func (c *reading) parseQuery() []pair {
	if !c.gotQuery {
		c.gotQuery = true
		if _, q, ok := bytes.Cut(c.r.Target, []byte{'?'}); ok {
			c.query, _ = parseForm(q)
		}
	}
	return c.query
}

// --- places ---

// at gives the text that stands at a place; nil when there is none, or when it is empty.
func (c *reading) at(r *Ref) []byte {
	switch r.root {
	case rootHeader:
		v, n := c.r.Header.Get(r.name)
		if n > 1 {
			c.problem("header " + r.name + " stands " + strconv.Itoa(n) + " times")
		}
		return v
	case rootQuery:
		v, _ := lookup(c.parseQuery(), r.name)
		return v
	case rootForm:
		if c.parseBodyForm() != nil {
			return nil
		}
		v, _ := lookup(c.form, r.name)
		return v
	case rootName:
		return c.memberName(r.name)
	case rootClaim:
		return c.claim(r.name)
	case rootTemplate:
		var b []byte
		for _, p := range r.parts {
			if p.ref == nil {
				b = append(b, p.text...)
				continue
			}
			v := c.at(p.ref)
			if len(v) == 0 {
				return nil
			}
			b = append(b, v...)
		}
		return b
	}
	if raw, ok := c.token(r); ok {
		return tokenText(raw)
	}
	return c.text(c.node(r))
}

// claim is one claim of the token that came with the delivery.
func (c *reading) claim(name string) []byte {
	if !c.gotClaims {
		c.gotClaims = true
		if b := c.d.JWT.payload(c.r); b != nil {
			c.claims, _ = fastjson.ParseBytes(b) // of a verified token; nil where it is none
		}
	}
	if c.claims == nil {
		return nil
	}
	return c.text(c.claims.Get(name))
}

// memberName is the name of the document's first member that fits the word, or with a
// "!" in front the first that does not (Telegram: everything but update_id).
func (c *reading) memberName(word string) (name []byte) {
	c.grow()
	if c.root == nil || c.root.Type() != fastjson.TypeObject {
		return nil
	}
	o, err := c.root.Object()
	if err != nil {
		return nil
	}
	word, not := strings.CutPrefix(word, "!")
	o.Visit(func(k []byte, _ *fastjson.Value) {
		if name == nil && c.d.fitsWord(word, string(k)) != not {
			name = k
		}
	})
	return name
}

// text is text without an allocation: what has no bytes in the parser's memory is
// written into the arena. When that moves, earlier texts stay in its old memory.
func (c *reading) text(v *fastjson.Value) []byte {
	if v == nil {
		return nil
	}
	n := len(c.arena)
	switch v.Type() {
	case fastjson.TypeString:
		b, err := v.StringBytes()
		if err != nil {
			return nil
		}
		return b
	case fastjson.TypeNumber, fastjson.TypeTrue, fastjson.TypeFalse:
		c.arena = v.MarshalTo(c.arena)
		return c.arena[n:len(c.arena):len(c.arena)]
	}
	return nil
}

// node gives the JSON value at a place in the document.
func (c *reading) node(r *Ref) *fastjson.Value {
	c.grow()
	switch r.root {
	case rootItem:
		return walk(c.item, r.steps)
	case rootDoc:
		return walk(c.root, r.steps)
	case rootParent:
		return walk(c.up, r.steps)
	}
	return nil
}

// value evaluates v; nil when there is nothing.
func (c *reading) value(v *Value) []byte {
	var b []byte
	for i := range v.Path {
		if b = c.at(&v.Path[i]); len(b) > 0 {
			break
		}
	}
	if len(b) == 0 {
		if v.Default == "" {
			return nil
		}
		return []byte(v.Default)
	}
	if v.Cut != "" {
		b, _, _ = bytes.Cut(b, []byte(v.Cut))
	}
	if v.After != "" {
		if i := bytes.LastIndex(b, []byte(v.After)); i >= 0 {
			b = b[i+len(v.After):]
		}
	}
	if v.Map != nil {
		if to, ok := v.Map[string(b)]; ok {
			return []byte(to)
		}
	}
	if v.Number {
		if n, ok := parseDecimal(b); ok {
			return n.append(nil)
		}
	}
	return b
}

// str is a value as a field of an event: its own memory, valid UTF-8, bounded, and
// without a card number.
func (c *reading) str(v *Value, name string) string {
	if len(v.Path) == 0 && v.Default == "" {
		return ""
	}
	return c.clean(c.value(v), name)
}

func (c *reading) clean(b []byte, name string) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > maxText {
		c.problem(name + " is longer than " + strconv.Itoa(maxText) + " bytes and was cut")
		b = b[:maxText]
		for len(b) > 0 && !utf8.RuneStart(b[len(b)-1]) {
			b = b[:len(b)-1]
		}
		if n := len(b); n > 0 && b[n-1] >= utf8.RuneSelf {
			b = b[:n-1]
		}
	}
	if maybePAN(b) {
		if hidden, ok := maskPANs(b); ok {
			b = hidden
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

func (c *reading) problem(s string) {
	for _, have := range c.problems {
		if have == s {
			return
		}
	}
	if len(c.problems) < 16 {
		c.problems = append(c.problems, s)
	}
}
