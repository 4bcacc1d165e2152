package provider

import (
	"maps"
	"slices"
	"strings"
)

// proves says whether the signature covers a place.
func (d *Definition) proves(r *Ref) bool {
	if r.root == rootTemplate {
		for _, p := range r.parts {
			if p.ref != nil && !d.proves(p.ref) {
				return false
			}
		}
		return true
	}
	s := &d.Scheme
	switch s.Scheme {
	case "none", "token", "basic":
		return false
	case "standard_webhooks":
		if r.root == rootHeader {
			for _, pre := range append([]string{"webhook"}, s.Prefixes...) {
				if strings.EqualFold(r.name, pre+"-id") || strings.EqualFold(r.name, pre+"-timestamp") {
					return true
				}
			}
			return false
		}
		return r.root != rootQuery
	}
	if s.Scheme == "jwt" {
		return d.provesByClaims(r)
	}
	switch r.root {
	case rootHeader:
		return d.provesHeader(r.name)
	case rootQuery:
		return s.ownCovers("url") || strings.Contains(s.Signed, "{url}") || strings.Contains(s.Signed, "{query}") || strings.Contains(s.Signed, "{q:"+r.name+"}")
	}
	if len(s.Fields) > 0 {
		_, ok := d.prog.signed[strings.TrimPrefix(strings.TrimPrefix(r.text, "$"), ".")]
		return ok
	}
	if s.Signed == "" || s.ownCovers("body") || strings.Contains(s.Signed, "{body}") || strings.Contains(s.Signed, "{php_serialize}") || strings.Contains(s.Signed, "{json_sorted}") || strings.Contains(s.Signed, "{base64_without:") {
		return true
	}
	if s.All.proves(r) {
		return true
	}
	if r.root == rootForm {
		return strings.Contains(s.Signed, "{form:"+r.name+"}")
	}
	for _, rd := range d.prog.readers {
		if rd.Form != "" && (strings.Contains(s.Signed, "{form:"+rd.Form+"}") || strings.Contains(s.Signed, "{json:"+rd.Form+"}")) {
			return true
		}
	}
	path := strings.TrimPrefix(r.text, ".")
	return strings.Contains(s.Signed, "{json:"+path+"}") || strings.Contains(s.Signed, "{form:"+path+"}")
}

// provesByClaims: a token proves its claims, and of the delivery what it holds a hash of.
func (d *Definition) provesByClaims(r *Ref) bool {
	switch r.root {
	case rootClaim:
		return true
	case rootHeader:
		return false
	case rootQuery:
		return d.JWT.binds("url") || d.JWT.binds("query")
	}
	return d.JWT.binds("body")
}

func (d *Definition) provesHeader(name string) bool {
	s := &d.Scheme
	if s.ID != nil && strings.EqualFold(s.ID.Header, name) && strings.Contains(s.Signed, "{id}") {
		return true
	}
	if s.Timestamp != nil && strings.EqualFold(s.Timestamp.Header, name) && strings.Contains(s.Signed, "{ts}") {
		return true
	}
	return strings.Contains(strings.ToLower(s.Signed), "{h:"+strings.ToLower(name)+"}")
}

func (d *Definition) provesValue(v Value) bool {
	for i := range v.Path {
		if !d.proves(&v.Path[i]) {
			return false
		}
	}
	return true
}

// planCoverage lists the fields that the signature does not reach.
func (d *Definition) planCoverage(pl *plan) {
	add := func(name string, inDoc bool) {
		for i := range pl.unsigned {
			if pl.unsigned[i].name == name {
				pl.unsigned[i].inDoc = pl.unsigned[i].inDoc || inDoc
				return
			}
		}
		pl.unsigned = append(pl.unsigned, fieldName{name, inDoc})
	}
	for _, p := range pl.places() {
		if p.name == "subject" || p.name == "" {
			continue
		}
		for i := range p.value.Path {
			if r := &p.value.Path[i]; !d.proves(r) {
				add(p.name, r.root != rootHeader)
			}
		}
	}
	for _, name := range d.UnverifiedFields {
		add(name, true)
	}
}

// place is one field of a plan with its name in the event.
type place struct {
	name  string
	value *Value
}

func (pl *plan) places() []place {
	out := []place{
		{"type", &pl.Type}, {"status", &pl.Status}, {"order_id", &pl.OrderID}, {"payment_id", &pl.PaymentID}, {"object_id", &pl.ObjectID},
		{"subject", &pl.Subject}, {"amount", &pl.Amount.Path}, {"amount", &pl.Amount.Minus}, {"currency", &pl.Amount.Currency},
		{"payment_amount", &pl.PaymentAmount.Path}, {"currency", &pl.Currency}, {"occurred_at", &pl.OccurredAt.Path}, {"livemode", &pl.Livemode.Path},
		{"card_mask", &pl.CardMask}, {"tenant", &pl.Tenant}, {"request_id", &pl.RequestID}, {"idempotency_key", &pl.IdempotencyKey},
	}
	for i := range pl.ID {
		out = append(out, place{"id", &pl.ID[i]})
	}
	for i := range pl.identity.Fields {
		out = append(out, place{"", &pl.identity.Fields[i]})
	}
	return append(out, pl.refs...)
}

// referencePrefix stands before a reference's own name.
const referencePrefix = "references."

// planReferences lists the references in the order of their names: a map would be walked
// anew for each event.
func (pl *plan) planReferences() {
	for _, k := range slices.Sorted(maps.Keys(pl.References)) {
		v := pl.References[k]
		pl.refs = append(pl.refs, place{referencePrefix + k, &v})
	}
}
