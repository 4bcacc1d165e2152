package provider

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Fields says where the fields of an event stand. An empty one is not read.
type Fields struct {
	ID             Composed         `yaml:"id,omitempty"`         // several parts are joined by "|"
	Type           Value            `yaml:"type,omitempty"`       // the provider's word
	Status         Value            `yaml:"status,omitempty"`     // the provider's word
	OrderID        Value            `yaml:"order_id,omitempty"`   // the merchant's own number
	PaymentID      Value            `yaml:"payment_id,omitempty"` // of the payment, also for a refund or a dispute
	ObjectID       Value            `yaml:"object_id,omitempty"`  // of the object itself
	Subject        Value            `yaml:"subject,omitempty"`    // the entity, the Kafka key; default payment, order, object
	Amount         Amount           `yaml:"amount,omitempty"`
	PaymentAmount  Amount           `yaml:"payment_amount,omitempty"`
	Currency       Value            `yaml:"currency,omitempty"` // ISO 4217, letters or number
	OccurredAt     When             `yaml:"occurred_at,omitempty"`
	Livemode       Livemode         `yaml:"livemode,omitempty"`
	CardMask       Value            `yaml:"card_mask,omitempty"`
	References     map[string]Value `yaml:"references,omitempty"`
	Tenant         Value            `yaml:"tenant,omitempty"`
	RequestID      Value            `yaml:"request_id,omitempty"`
	IdempotencyKey Value            `yaml:"idempotency_key,omitempty"`
}

// Shape replaces fields of the event where its condition holds.
type Shape struct {
	Name     string     `yaml:"name"`
	When     Conditions `yaml:"when"`
	Event    Fields     `yaml:"event,omitempty"`
	Identity Identity   `yaml:"identity,omitempty"`
	// NeedsFetch: the delivery does not say what this change came to, such as a sum of all
	// changes so far.
	NeedsFetch bool `yaml:"needs_fetch,omitempty"`
}

// Row is one line of the canonical mapping. All that it states must fit.
type Row struct {
	Type   Words         `yaml:"type,omitempty"`
	Status Words         `yaml:"status,omitempty"`
	When   Conditions    `yaml:"when,omitempty"`
	Is     CanonicalType `yaml:"is"` // a canonical type, or "provider"
	Source string        `yaml:"source,omitempty"`
	Note   string        `yaml:"note,omitempty"`
}

// Once says what makes one change out of all deliveries that tell of it: the canonical
// types and, beside the type, the signed values that name the change. The first value
// must be there, or the event is no repeat of anything. The first rule that fits counts.
type Once struct {
	Is   Words      `yaml:"is"`
	When Conditions `yaml:"when,omitempty"`
	Per  Composed   `yaml:"per"`
}

// Failure finds the reason of a failure: the provider's code and what it means.
type Failure struct {
	Code    Value            `yaml:"code,omitempty"`
	Reasons map[string]Words `yaml:"reasons,omitempty"` // our word -> their codes
	Source  string           `yaml:"source,omitempty"`
}

// Value is read from the first of its places that has one. In YAML a place, a list of
// places, or a mapping. A place with braces is a text with places inside, and it has a
// value only when all of them have.
type Value struct {
	Path    []Ref             `yaml:"path,omitempty"`
	Map     map[string]string `yaml:"map,omitempty"`     // their word -> ours; what is not listed stays
	Default string            `yaml:"default,omitempty"` // when no place has one
	Cut     string            `yaml:"cut,omitempty"`     // keep what stands before it
	After   string            `yaml:"after,omitempty"`   // keep what stands behind the last of it
	Number  bool              `yaml:"number,omitempty"`  // a number: 250.00 and 250 are one
}

// Composed is a list of values that stand together.
type Composed []Value

// Amount is a sum of money. Unit says how it is written: minor (an integer of the
// smallest unit) or major (a decimal number).
type Amount struct {
	Path     Value  `yaml:"path,omitempty"`
	Minus    Value  `yaml:"minus,omitempty"` // subtracted when it is there
	Unit     string `yaml:"unit,omitempty"`
	Currency Value  `yaml:"currency,omitempty"` // default: the event's
	Exponent *int   `yaml:"exponent,omitempty"` // of a minor unit, whatever the currency
	Absolute bool   `yaml:"absolute,omitempty"` // the sign carries no meaning
}

// When is a moment. Unit: s, ms, us, auto (by magnitude), rfc3339, or a Go layout that is
// read in Zone ("+02:00", default UTC).
type When struct {
	Path Value  `yaml:"path,omitempty"`
	Unit string `yaml:"unit,omitempty"`
	Zone string `yaml:"zone,omitempty"`
}

// Livemode is a flag in the document, or rules of which the first that fits decides.
// Neither: unknown.
type Livemode struct {
	Path  Value          `yaml:"path,omitempty"`
	Rules []LivemodeRule `yaml:"rules,omitempty"`
}

// LivemodeRule is one rule; without a condition it always holds.
type LivemodeRule struct {
	When Conditions `yaml:"when,omitempty"`
	Is   bool       `yaml:"is"`
}

// Identity is the rule of the dedupe identity (DESIGN 6): "id" (it is proved),
// "id+content" (an unsigned id and the hash of the signed content), "content", or the
// list of the signed fields that tell two events apart; the first two are shown. The
// mapping {with_content: [...]} lists unsigned ones, beside which the hash must stand.
// "received" is for signals that say the same every time ("something changed", without
// id or time): each delivery is an event, a repeat too, and none is lost.
type Identity struct {
	Rule   string // id, id+content, content, received, fields, fields+content
	Fields Composed
}

// Words are texts to compare with; "*" stands for any run of characters.
type Words []string

// Conditions must all hold. A key is "type", "status" (as read) or a place.
type Conditions map[string]Match

// Match is what one value must be. In YAML a word, a list of words (any), or a mapping.
type Match struct {
	Is      Words  `yaml:"is,omitempty"`
	Not     Words  `yaml:"not,omitempty"`
	Present *bool  `yaml:"present,omitempty"` // there, not null, not empty
	Above   string `yaml:"above,omitempty"`   // numbers as numbers, else as text
	Below   string `yaml:"below,omitempty"`
	Differs Ref    `yaml:"differs,omitempty"` // from what stands there, which must be there
}

// CanonicalType is one of DESIGN 8's types, or "provider".
type CanonicalType string

// Size is a number of bytes, written 256KiB.
type Size int64

// Reader is one way to find the document. Kind: json, form, form-name (the JSON is the
// only name or the only value of a form), query, xml, multipart, none. Form names the
// form's field that holds the document, As how: json, base64-json or base64-xml. Query
// names a parameter that holds a form, as base64-form; Key the credential under which that
// may be sealed (AES-256-GCM, the nonce in front).
type Reader struct {
	Kind  string `yaml:"kind,omitempty"`
	Form  string `yaml:"form,omitempty"`
	Query string `yaml:"query,omitempty"`
	As    string `yaml:"as,omitempty"`
	Key   string `yaml:"key,omitempty"`
}

// ItemPath is the path of a batch. Unless names places of an element which say that
// another path finds it more finely.
type ItemPath struct {
	Path   Ref     `yaml:"path"`
	Unless refList `yaml:"unless,omitempty"`
}

// canonicalTypes are the types of DESIGN 8.
var canonicalTypes = map[string]bool{
	"payment.pending": true, "payment.requires_action": true, "payment.authorized": true, "payment.captured": true,
	"payment.failed": true, "payment.canceled": true, "payment.expired": true,
	"refund.pending": true, "refund.succeeded": true, "refund.failed": true,
	"payout.queued": true, "payout.sent": true, "payout.paid": true, "payout.failed": true,
	"dispute.created": true, "dispute.won": true, "dispute.lost": true,
	"subscription.created": true, "subscription.renewed": true, "subscription.past_due": true, "subscription.canceled": true,
}

// failureReasons is the vocabulary of DESIGN 8.
var failureReasons = map[string]bool{
	"insufficient_funds": true, "do_not_honor": true, "stolen_card": true, "expired_card": true, "limit_exceeded": true,
	"risk_decline": true, "bank_unavailable": true, "authentication_failed": true, "canceled_by_payer": true, "other": true,
}

// --- YAML forms ---

// placed is an error with its place in the YAML text.
type placed struct {
	line, col int
	msg       string
}

func (p *placed) Error() string { return fmt.Sprintf("%d:%d: %s", p.line, p.col, p.msg) }

func placeAt(t *token.Token, format string, args ...any) error {
	p := &placed{line: 1, col: 1, msg: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		p.line, p.col = t.Position.Line, t.Position.Column
	}
	return p
}

// located turns whatever the YAML package says into "line:column: message".
func located(err error) error {
	var at *placed
	if asPlaced(err, &at) {
		return at
	}
	if y, ok := asYAML(err); ok {
		return placeAt(y.GetToken(), "%s", y.GetMessage())
	}
	return err
}

func decodeStrict(node ast.Node, v any) error {
	return yaml.NodeToValue(node, v, yaml.Strict())
}

// scalar gives a node's text when it is a word, number or flag. Null is none.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func sequence(node ast.Node) ([]ast.Node, bool) {
	if n, ok := node.(*ast.SequenceNode); ok {
		return n.Values, true
	}
	return nil, false
}

// UnmarshalYAML reads a word or a list of words.
func (w *Words) UnmarshalYAML(node ast.Node) error {
	nodes, ok := sequence(node)
	if !ok {
		nodes = []ast.Node{node}
	}
	*w = (*w)[:0]
	for _, n := range nodes {
		s, ok := scalar(n)
		if !ok {
			return placeAt(n.GetToken(), "a word or a list of words is wanted here")
		}
		*w = append(*w, s)
	}
	return nil
}

// MarshalYAML writes one word as itself.
func (w Words) MarshalYAML() (any, error) {
	if len(w) == 1 {
		return w[0], nil
	}
	return []string(w), nil
}

// UnmarshalYAML checks the vocabulary.
func (c *CanonicalType) UnmarshalYAML(node ast.Node) error {
	s, ok := scalar(node)
	if !ok || (s != "provider" && !canonicalTypes[s]) {
		return placeAt(node.GetToken(), "%q is no canonical type (payment.captured, refund.succeeded, ...) and not \"provider\"%s", s, guess(s, sortedKeysOf(canonicalTypes)))
	}
	*c = CanonicalType(s)
	return nil
}

// UnmarshalYAML reads a place, a list of places, or a mapping.
func (v *Value) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.MappingNode); ok {
		type plain struct {
			Path    refList           `yaml:"path,omitempty"`
			Map     map[string]string `yaml:"map,omitempty"`
			Default string            `yaml:"default,omitempty"`
			Cut     string            `yaml:"cut,omitempty"`
			After   string            `yaml:"after,omitempty"`
			Number  bool              `yaml:"number,omitempty"`
		}
		var p plain
		if err := decodeStrict(node, &p); err != nil {
			return err
		}
		*v = Value{Path: p.Path, Map: p.Map, Default: p.Default, Cut: p.Cut, After: p.After, Number: p.Number}
		return nil
	}
	var l refList
	if err := l.UnmarshalYAML(node); err != nil {
		return err
	}
	*v = Value{Path: l}
	return nil
}

// MarshalYAML writes the shortest form.
func (v Value) MarshalYAML() (any, error) {
	if v.Map != nil || v.Default != "" || v.Cut != "" || v.After != "" || v.Number {
		type plain Value
		return plain(v), nil
	}
	if len(v.Path) == 1 {
		return v.Path[0], nil
	}
	return v.Path, nil
}

// IsZero says that the value is not read at all.
func (v Value) IsZero() bool { return len(v.Path) == 0 && v.Default == "" }

type refList []Ref

func (l *refList) UnmarshalYAML(node ast.Node) error {
	nodes, ok := sequence(node)
	if !ok {
		nodes = []ast.Node{node}
	}
	for _, n := range nodes {
		var r Ref
		if err := r.UnmarshalYAML(n); err != nil {
			return err
		}
		*l = append(*l, r)
	}
	return nil
}

// UnmarshalYAML reads one value or a list of them.
func (c *Composed) UnmarshalYAML(node ast.Node) error {
	nodes, ok := sequence(node)
	if !ok {
		nodes = []ast.Node{node}
	}
	for _, n := range nodes {
		var v Value
		if err := v.UnmarshalYAML(n); err != nil {
			return err
		}
		*c = append(*c, v)
	}
	return nil
}

// UnmarshalYAML wants the mapping form: an amount without its unit is a mistake.
func (a *Amount) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.MappingNode); !ok {
		return placeAt(node.GetToken(), "an amount needs its unit: {path: ..., unit: minor} or unit: major")
	}
	type plain Amount
	if err := decodeStrict(node, (*plain)(a)); err != nil {
		return err
	}
	switch {
	case a.Unit != "minor" && a.Unit != "major":
		return placeAt(node.GetToken(), "unit of an amount is minor or major, not %q", a.Unit)
	case len(a.Path.Path) == 0:
		return placeAt(node.GetToken(), "an amount needs a path")
	case a.Exponent != nil && (*a.Exponent < 0 || *a.Exponent > maxExponent || a.Unit != "minor"):
		return placeAt(node.GetToken(), "exponent is 0 to %d, for unit minor", maxExponent)
	}
	return nil
}

// UnmarshalYAML reads a place of a flag, or rules.
func (l *Livemode) UnmarshalYAML(node ast.Node) error {
	if m, ok := node.(*ast.MappingNode); ok {
		type plain Livemode
		_ = m
		return decodeStrict(node, (*plain)(l))
	}
	if nodes, ok := sequence(node); ok && len(nodes) > 0 {
		if _, ok := nodes[0].(*ast.MappingNode); ok {
			return decodeStrict(node, &l.Rules)
		}
	}
	return l.Path.UnmarshalYAML(node)
}

// UnmarshalYAML reads a rule or a list of fields.
func (i *Identity) UnmarshalYAML(node ast.Node) error {
	if s, ok := scalar(node); ok {
		switch s {
		case "id", "id+content", "content", "received":
			i.Rule = s
			return nil
		}
		return placeAt(node.GetToken(), "identity is id, id+content, content, received or a list of signed fields, not %q", s)
	}
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) == 1 && m.Values[0].Key.GetToken().Value == "with_content" {
		if nodes, ok := sequence(m.Values[0].Value); ok && len(nodes) > 0 {
			i.Rule = "fields+content"
			return i.Fields.UnmarshalYAML(m.Values[0].Value)
		}
	}
	if nodes, ok := sequence(node); !ok || len(nodes) == 0 {
		return placeAt(node.GetToken(), "identity is id, id+content, content, a list of signed fields or {with_content: [...]}")
	}
	i.Rule = "fields"
	return i.Fields.UnmarshalYAML(node)
}

// MarshalYAML writes what UnmarshalYAML reads.
func (i Identity) MarshalYAML() (any, error) {
	switch i.Rule {
	case "fields":
		return i.Fields, nil
	case "fields+content":
		return map[string]Composed{"with_content": i.Fields}, nil
	}
	return i.Rule, nil
}

// IsZero says that no rule is given.
func (i Identity) IsZero() bool { return i.Rule == "" }

// UnmarshalYAML reads a word, a list of words or a mapping.
func (m *Match) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.MappingNode); !ok {
		return m.Is.UnmarshalYAML(node)
	}
	type plain Match
	return decodeStrict(node, (*plain)(m))
}

// MarshalYAML writes the shortest form.
func (m Match) MarshalYAML() (any, error) {
	if len(m.Is) > 0 && m.Not == nil && m.Present == nil && m.Above == "" && m.Below == "" && m.Differs.IsZero() {
		return m.Is, nil
	}
	type plain Match
	return plain(m), nil
}

// UnmarshalYAML reads 256KiB, 25MiB, 1000.
func (s *Size) UnmarshalYAML(node ast.Node) error {
	text, _ := scalar(node)
	num, unit := text, int64(1)
	for suffix, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			num, unit = n, f
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(num), 10, 32)
	if err != nil || n < 0 {
		return placeAt(node.GetToken(), "%q is no size (256KiB, 25MiB)", text)
	}
	*s = Size(n * unit)
	return nil
}

// UnmarshalYAML reads a path or a mapping.
func (i *ItemPath) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.MappingNode); ok {
		type plain ItemPath
		return decodeStrict(node, (*plain)(i))
	}
	return i.Path.UnmarshalYAML(node)
}

// MarshalYAML writes the path alone where it says everything.
func (i ItemPath) MarshalYAML() (any, error) {
	if len(i.Unless) == 0 {
		return i.Path, nil
	}
	type plain ItemPath
	return plain(i), nil
}

// UnmarshalYAML reads a kind or a mapping.
func (r *Reader) UnmarshalYAML(node ast.Node) error {
	if s, ok := scalar(node); ok {
		r.Kind = s
	} else {
		type plain Reader
		if err := decodeStrict(node, (*plain)(r)); err != nil {
			return err
		}
		if r.Form != "" && r.Kind == "" {
			r.Kind = "form"
		}
		if r.Query != "" && r.Kind == "" {
			r.Kind = "query"
		}
	}
	switch r.Kind {
	case "json", "form", "form-name", "query", "xml", "multipart", "none":
	default:
		return placeAt(node.GetToken(), "document is json, form, form-name, query, xml, multipart or none, not %q", r.Kind)
	}
	switch {
	case r.Form != "" && r.Kind == "multipart" && r.As == "json":
	case r.Form != "" && r.Kind != "form" && (r.Kind != "json" || r.As != "base64-json"):
		return placeAt(node.GetToken(), "form names a field of a form, not of %s", r.Kind)
	case r.Form != "" && r.As != "json" && r.As != "base64-json" && r.As != "base64-xml":
		return placeAt(node.GetToken(), "as is json, base64-json or base64-xml, not %q", r.As)
	case r.Query != "" && (r.Kind != "query" || r.Form != "" || r.As != "base64-form"):
		return placeAt(node.GetToken(), "query names a parameter that holds a form, as: base64-form")
	case r.Query == "" && (r.Form == "" && r.As != "" || r.Key != ""):
		return placeAt(node.GetToken(), "as needs form or query, key needs query")
	}
	return nil
}
