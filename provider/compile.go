package provider

import (
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"
)

// program is what Events runs: a definition with everything looked up that can be.
type program struct {
	ranges     []netip.Prefix
	readers    []Reader
	base       *plan
	shapes     []shape
	rows       []Row
	rowWhen    []conditions
	byType     map[string][]int // rows that fit a type without wildcard, in order
	anyType    []int            // rows for every other type
	reasons    map[string]string
	watch      *trie    // where a member that stands twice matters
	slots      []string // the plain places, by slot
	secrets    *trie
	hidden     bool // there are secret fields
	content    contentRule
	signed     map[string]*SignedField
	signedRefs []signedRef
	onceWhen   []conditions
	lists      map[string]bool // elements of an XML document that are items
}

// signedRef is a place of a signed field.
type signedRef struct {
	f   *SignedField
	ref Ref
}

// plan is Fields with a shape's replacements in it.
type plan struct {
	Fields
	livemode []liveRule
	zone     *time.Location
	identity Identity
	ownWords bool        // a shape with another type or status than the base
	fetch    bool        // as of Shape.NeedsFetch
	shared   bool        // the id is the delivery's, not the item's
	refs     []place     // References, by name
	unsigned []fieldName // fields that are read from where the signature does not reach
	watch    *trie
}

type liveRule struct {
	when conditions
	is   bool
}

type fieldName struct {
	name  string
	inDoc bool
}

type shape struct {
	name string
	when conditions
	plan *plan
}

// conditions are Conditions in a fixed order.
type conditions []condition

type condition struct {
	word     string // "type" or "status"
	ref      Ref
	match    Match
	unsigned bool // the place is not proved
}

// contentRule says what the content hash covers.
type contentRule uint8

const (
	contentBody   contentRule = iota // the whole body
	contentField                     // one form field's text: Scheme signs {form:x}
	contentForm                      // all fields but the signature, sorted
	contentFields                    // the listed fields
	contentJoined                    // the names and values of a form as they are signed, and the URL
)

const defaultMaxItems = 10000

func (d *Definition) compile() error {
	p := &program{}
	d.prog = p
	if err := d.checkPlain(); err != nil {
		return err
	}
	var err error
	if p.ranges, err = parseRanges(append(append([]string(nil), d.Addresses.Ranges...), d.Addresses.Test...)); err != nil {
		return mistake("ip_ranges", err)
	}
	if d.Addresses.None != "" && len(p.ranges)+len(d.Addresses.Refresh) > 0 {
		return mistake("ip_ranges.none", errors.New("it says why there is no list, but there is one"))
	}
	for i := range d.Addresses.Refresh {
		if err := d.Addresses.Refresh[i].validate(); err != nil {
			return mistake("ip_ranges.refresh", err)
		}
		if len(p.ranges) == 0 {
			return mistake("ip_ranges.refresh", errors.New("ip_ranges.ranges are what is in force until the first refresh: write them out"))
		}
	}
	p.readers = d.Document
	if len(p.readers) == 0 {
		p.readers = []Reader{{Kind: "json"}, {Kind: "form"}, {Kind: "query"}}
	}
	p.lists = map[string]bool{}
	for i := range d.Items {
		at := ""
		for _, s := range d.Items[i].Path.steps {
			if s.star {
				p.lists[at] = true
				continue
			}
			at += "." + s.key
		}
	}
	if err := d.checkDecrypt(); err != nil {
		return err
	}
	if err := d.compileContent(); err != nil {
		return err
	}
	if err := d.compileRows(); err != nil {
		return err
	}
	if err := d.compilePlans(); err != nil {
		return err
	}
	if err := d.compileOnce(); err != nil {
		return err
	}
	if err := d.compileFailure(); err != nil {
		return err
	}
	p.secrets = &trie{}
	for _, r := range d.SecretFields {
		if r.root > rootDoc || len(r.steps) == 0 {
			return mistake("secret_fields", fmt.Errorf("%s is no place in the document", r))
		}
		p.secrets.add(r.steps, true)
		p.hidden = true
	}
	p.watch = &trie{}
	p.watch.join(p.base.watch)
	for _, s := range p.shapes {
		p.watch.join(s.plan.watch)
	}
	p.watch.join(p.secrets)
	for i := range d.Once {
		for k := range d.Once[i].Per {
			for j := range d.Once[i].Per[k].Path {
				d.watchRef(p.watch, &d.Once[i].Per[k].Path[j])
			}
		}
	}
	d.placeSlots()
	return d.compileSamples()
}

func (d *Definition) checkPlain() error {
	var errs []error
	if d.Name == "" {
		errs = append(errs, mistake("name", errors.New("name is missing")))
	}
	for _, c := range d.Name {
		if c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			errs = append(errs, mistake("name", fmt.Errorf("%q: small letters, digits, _ and - only", d.Name)))
			break
		}
	}
	for _, m := range d.HTTPMethods {
		switch m {
		case "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD":
		default:
			errs = append(errs, mistake("methods", fmt.Errorf("%q is no method that a webhook uses", m)))
		}
	}
	if d.Addresses.Date != "" {
		if _, err := time.Parse(time.DateOnly, d.Addresses.Date); err != nil {
			errs = append(errs, mistake("ip_ranges.date", fmt.Errorf("%q is not written 2006-01-02", d.Addresses.Date)))
		}
	} else if len(d.Addresses.Ranges) > 0 {
		errs = append(errs, mistake("ip_ranges", errors.New("a list needs the date on which it was read")))
	}
	for c, e := range d.Exponents {
		if e < 0 || e > maxExponent || c != strings.ToUpper(c) || c == "" {
			errs = append(errs, mistake("exponents."+c, fmt.Errorf("%s: %d: a code in upper case and 0 to %d", c, e, maxExponent)))
		}
	}
	if d.MaxItems < 0 || d.Retry.Horizon < 0 || d.Retry.Timeout < 0 || d.Window < 0 {
		errs = append(errs, errors.New("max_items, retry and window are not negative"))
	}
	if d.SignedItems != "" && (d.SignedItems != "first" || len(d.Items) == 0) {
		errs = append(errs, mistake("signed_items", fmt.Errorf("%q: only \"first\", and together with items", d.SignedItems)))
	}
	if d.Window > 0 && d.Window < d.Retry.Horizon {
		errs = append(errs, mistake("window", fmt.Errorf("%s is shorter than the retry horizon %s", d.Window, d.Retry.Horizon)))
	}
	for i, item := range d.Items {
		it := item.Path
		if it.root > rootDoc || !it.hasStar() || !it.steps[len(it.steps)-1].star {
			errs = append(errs, mistake(fmt.Sprintf("items[%d]", i), fmt.Errorf("%s: a path that ends in \"*\", such as events.*, is wanted", it)))
		}
	}
	return errors.Join(errs...)
}

// compileContent finds what the signature covers as one text.
func (d *Definition) compileContent() error {
	p := d.prog
	p.signed = make(map[string]*SignedField, len(d.Scheme.Fields))
	for i := range d.Scheme.Fields {
		f := &d.Scheme.Fields[i]
		if f.IsPart() {
			continue
		}
		for _, path := range []string{f.Path, f.Or} {
			if path == "" {
				continue
			}
			ref, err := parseRef(path)
			if err != nil {
				return fmt.Errorf("fields: %w", err)
			}
			if ref.root = rootDoc; d.Scheme.Each != "" {
				ref.root = rootItem
			}
			p.signed[path] = f
			p.signedRefs = append(p.signedRefs, signedRef{f, ref})
		}
	}
	switch {
	case len(d.Scheme.Fields) > 0:
		p.content = contentFields
	case strings.Contains(d.Signed, "{php_serialize}"):
		p.content = contentForm
	case d.JSONField != "":
		p.content = contentField
	case d.All != nil && d.All.Pair == "namevalue":
		p.content = contentJoined
	case strings.Contains(d.Signed, "{form:") && !strings.Contains(d.Signed, "{body}"):
		p.content = contentField
	}
	return nil
}

func (d *Definition) compilePlans() error {
	p := d.prog
	if d.Event.Status.IsZero() && d.Canonical == nil {
		d.Event.Status = d.Event.Type
	}
	var err error
	if p.base, err = d.newPlan(d.Event, d.Identity); err != nil {
		return mistake("event", err)
	}
	for i, s := range d.Shapes {
		at := fmt.Sprintf("shapes[%d]", i)
		if s.Name == "" || len(s.When) == 0 {
			return mistake(at, errors.New("a shape needs name and when"))
		}
		id := s.Identity
		switch {
		case !id.IsZero():
		case len(s.Event.ID) == 0:
			id = d.Identity
		case !d.Identity.IsZero():
			// Neither would be safe to guess: the definition's fields may not be in such a
			// delivery, and the id alone may be one for two charges.
			return mistake(at, fmt.Errorf("the shape %q has an id of its own, so the definition's identity does not hold for it; state its identity too (identity: id, or the fields that tell two of them apart)", s.Name))
		}
		pl, err := d.newPlan(merge(d.Event, s.Event), id)
		if err != nil {
			return mistake(at, err)
		}
		when, err := d.conditions(s.When)
		if err != nil {
			return mistake(at, err)
		}
		for _, c := range when {
			if c.word == "type" && d.Event.Type.IsZero() || c.word == "status" && d.Event.Status.IsZero() {
				return mistake(at+".when", fmt.Errorf("the event has no %s before its shape is known; name the place", c.word))
			}
		}
		pl.fetch = s.NeedsFetch
		pl.ownWords = !s.Event.Type.IsZero() || !s.Event.Status.IsZero()
		p.shapes = append(p.shapes, shape{s.Name, when, pl})
	}
	return nil
}

// merge replaces the fields of base that over states. References are merged by name.
func merge(base, over Fields) Fields {
	f := base
	if len(over.ID) > 0 {
		f.ID = over.ID
	}
	for _, v := range []struct{ dst, src *Value }{
		{&f.Type, &over.Type}, {&f.Status, &over.Status}, {&f.OrderID, &over.OrderID}, {&f.PaymentID, &over.PaymentID},
		{&f.ObjectID, &over.ObjectID}, {&f.Subject, &over.Subject}, {&f.Currency, &over.Currency}, {&f.CardMask, &over.CardMask},
		{&f.Tenant, &over.Tenant}, {&f.RequestID, &over.RequestID}, {&f.IdempotencyKey, &over.IdempotencyKey},
	} {
		if !v.src.IsZero() {
			*v.dst = *v.src
		}
	}
	if over.Amount.Unit != "" {
		f.Amount = over.Amount
	}
	if over.PaymentAmount.Unit != "" {
		f.PaymentAmount = over.PaymentAmount
	}
	if !over.OccurredAt.Path.IsZero() {
		f.OccurredAt = over.OccurredAt
	}
	if !over.Livemode.Path.IsZero() || over.Livemode.Rules != nil {
		f.Livemode = over.Livemode
	}
	if over.References != nil {
		f.References = make(map[string]Value, len(base.References)+len(over.References))
		for k, v := range base.References {
			f.References[k] = v
		}
		for k, v := range over.References {
			f.References[k] = v
		}
	}
	return f
}

func (d *Definition) newPlan(f Fields, id Identity) (*plan, error) {
	pl := &plan{Fields: f, watch: &trie{}}
	pl.planReferences()
	if u := f.OccurredAt.Unit; !f.OccurredAt.Path.IsZero() {
		zone, err := checkTimeUnit(u, f.OccurredAt.Zone)
		if err != nil {
			return nil, mistake("event.occurred_at", err)
		}
		pl.zone = zone
	}
	for i := range f.Livemode.Rules {
		when, err := d.conditions(f.Livemode.Rules[i].When)
		if err != nil {
			return nil, fmt.Errorf("livemode: %w", err)
		}
		pl.livemode = append(pl.livemode, liveRule{when, f.Livemode.Rules[i].Is})
	}
	if len(d.Items) == 0 {
		if r, ok := firstParent(pl); ok {
			return nil, fmt.Errorf("%s: \"^\" has a meaning with items only", r)
		}
	}
	if err := d.planIdentity(pl, id); err != nil {
		return nil, mistake("identity", err)
	}
	d.planCoverage(pl)
	for _, v := range pl.places() {
		for i := range v.value.Path {
			d.watchRef(pl.watch, &v.value.Path[i])
		}
	}
	return pl, nil
}

// planIdentity holds the rule of DESIGN 6: an id alone proves nothing unless it stands
// inside the signed bytes.
func (d *Definition) planIdentity(pl *plan, id Identity) error {
	proved := true
	for _, v := range pl.ID {
		proved = proved && d.provesValue(v)
	}
	switch id.Rule {
	case "":
		switch {
		case len(pl.ID) == 0:
			id.Rule = "content"
		case proved:
			id.Rule = "id"
		default:
			id.Rule = "id+content"
		}
	case "id":
		if len(pl.ID) == 0 || !proved {
			return errors.New("the event's id does not stand inside the signed bytes; use id+content")
		}
	case "id+content":
		if len(pl.ID) == 0 {
			return errors.New("id+content without an id")
		}
	case "fields":
		for _, v := range id.Fields {
			if !d.provesValue(v) {
				return fmt.Errorf("%s is not signed, so anyone may change it", v.Path[0])
			}
		}
	}
	pl.identity = id
	pl.shared = len(d.Items) > 0 && id.Rule != "content"
	if id.Rule == "received" {
		return nil
	}
	of := pl.ID
	if id.Rule == "fields" || id.Rule == "fields+content" {
		of = id.Fields
	}
	for _, v := range of {
		for i := range v.Path {
			if v.Path[i].ofItem() {
				pl.shared = false
			}
		}
	}
	return nil
}

func firstParent(pl *plan) (Ref, bool) {
	for _, p := range pl.places() {
		for _, r := range p.value.Path {
			if r.root == rootParent {
				return r, true
			}
		}
	}
	return Ref{}, false
}

// watchRef marks where a name that stands twice would matter.
func (d *Definition) watchRef(t *trie, r *Ref) {
	switch r.root {
	case rootTemplate:
		for _, p := range r.parts {
			if p.ref != nil {
				d.watchRef(t, p.ref)
			}
		}
	case rootDoc:
		t.add(r.steps, false)
	case rootItem:
		if len(d.Items) == 0 {
			t.add(r.steps, false)
		}
		for _, it := range d.Items {
			t.add(append(append([]step(nil), it.Path.steps...), r.steps...), false)
		}
	}
}

func (d *Definition) conditions(cs Conditions) (conditions, error) {
	keys := make([]string, 0, len(cs))
	for k := range cs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make(conditions, 0, len(keys))
	for _, k := range keys {
		c := condition{match: cs[k]}
		switch k {
		case "type", "status":
			c.word = k
		default:
			r, err := parseRef(k)
			if err != nil {
				return nil, fmt.Errorf("when: %w", err)
			}
			c.ref, c.unsigned = r, !d.proves(&r)
		}
		if m := c.match; len(m.Is)+len(m.Not) == 0 && m.Present == nil && m.Above == "" && m.Below == "" && m.Differs.IsZero() {
			return nil, fmt.Errorf("when: %s: no condition is stated", k)
		}
		out = append(out, c)
	}
	return out, nil
}

func checkTimeUnit(unit, zone string) (*time.Location, error) {
	switch unit {
	case "s", "ms", "us", "auto", "rfc3339":
	case "":
		return nil, errors.New("unit is missing: s, ms, us, auto, rfc3339 or a layout")
	default:
		if !strings.Contains(unit, "2006") && !strings.Contains(unit, "06") {
			return nil, fmt.Errorf("unit %q is none of s, ms, us, auto, rfc3339, and no Go layout", unit)
		}
	}
	return parseZone(zone)
}

func parseZone(zone string) (*time.Location, error) {
	if zone == "" {
		return time.UTC, nil
	}
	t, err := time.Parse("-07:00", zone)
	if err != nil {
		return nil, fmt.Errorf("zone %q is not written +02:00", zone)
	}
	return t.Location(), nil
}

func (d *Definition) compileFailure() error {
	d.prog.reasons = map[string]string{}
	for reason, codes := range d.Failure.Reasons {
		if !failureReasons[reason] {
			return mistake("failure.reasons."+reason, fmt.Errorf("%q is no reason of the vocabulary", reason))
		}
		for _, c := range codes {
			c = d.fold(c)
			if old := d.prog.reasons[c]; old != "" {
				return mistake("failure.reasons."+reason, fmt.Errorf("code %s means %s and %s", c, old, reason))
			}
			d.prog.reasons[c] = reason
		}
	}
	if len(d.Failure.Reasons) > 0 && d.Failure.Code.IsZero() {
		return mistake("failure", errors.New("reasons without code, the place where the provider's code stands"))
	}
	return nil
}
