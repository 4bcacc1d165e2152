package provider

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// maxShared bounds what the payloads of one delivery come to when each of its events
// carries the whole document; above it every event carries its own item.
const maxShared = 8 << 20

// Events reads what a delivery says: one event for each thing that happened, in the
// order of the document. It is bounded, keeps nothing of r but its Body (a payload may
// be a slice of it), and is safe for concurrent use. An error means that the delivery
// cannot be read; its bytes are in the archive, and it belongs into the dead letters.
func (d *Definition) Events(r *Request) (events []Event, err error) {
	c := readings.Get().(*reading)
	c.reset(d, r)
	defer func() {
		// The bytes are foreign. A mistake of ours costs this delivery its reading (it
		// goes to the dead letters and is seen), never the process.
		if p := recover(); p != nil {
			events, err = nil, fmt.Errorf("read a delivery of %s: internal error: %v", d.Name, p)
			return // this reading is not used again
		}
		c.release()
	}()
	c.open()
	c.findDoubled()
	items, err := c.items()
	if err != nil {
		return nil, fmt.Errorf("read a delivery of %s: %w", d.Name, err)
	}
	return c.events(items), nil
}

// Decoded is what a delivery carries, decoded and with nothing masked: for the archive's own
// operators, never for what leaves it. An error means that it cannot be read.
func (d *Definition) Decoded(r *Request) (doc []byte, isJSON bool, err error) {
	c := readings.Get().(*reading)
	c.reset(d, r)
	defer func() {
		if p := recover(); p != nil {
			doc, err = nil, fmt.Errorf("read a delivery of %s: internal error: %v", d.Name, p)
			return // this reading is not used again
		}
		c.release()
	}()
	c.open()
	return bytes.Clone(c.payload), c.isJSON, nil
}

// item is one element of a batch: where it is, what holds it, its own bytes.
type item struct {
	value, up *fastjson.Value
	raw       []byte
}

// findDoubled looks for members that stand twice at a place that is read: one parser
// takes the first, another the last.
func (c *reading) findDoubled() {
	if c.captured || c.doc == nil || c.reader.Kind == "form" && c.reader.Form == "" || c.reader.Kind == "query" {
		return
	}
	s := scanner{b: c.doc, path: c.scratch[:0]}
	if c.d.prog.hidden {
		c.scanned = true
		s.secret = func(from, to int, path []byte) { c.spans = append(c.spans, span{from, to, string(path)}) }
	}
	if err := s.whole(c.d.prog.watch); err != nil {
		// Only fastjson takes this text. It is read, but nobody books by it unasked, and
		// it does not go out as JSON.
		c.isJSON, c.scanned, c.loose = false, false, true
		c.problem("the document is no strict JSON")
	}
	c.scratch = s.path[:0]
	c.doubled = append(c.doubled, s.doubled...)
}

// items lists the batch, or the document itself.
func (c *reading) items() ([]item, error) {
	d := c.d
	if len(d.Items) == 0 || c.root == nil {
		return []item{{value: c.root}}, nil
	}
	limit := d.MaxItems
	if limit == 0 {
		limit = defaultMaxItems
	}
	var out []item
	for i := range d.Items {
		found := collect(nil, c.root, nil, d.Items[i].Path.steps, limit+1)
		raws := rawItems(c.doc, d.Items[i].Path.steps)
		for k := range found {
			if len(raws) == len(found) {
				found[k].raw = raws[k]
			}
			if !elsewhere(found[k].value, d.Items[i].Unless) {
				out = append(out, found[k])
			}
		}
		if len(out) > limit {
			return nil, fmt.Errorf("a batch of more than %d items", limit)
		}
	}
	if len(out) == 0 {
		return []item{{value: c.root}}, nil // nothing is dropped: a shape that is new passes as it is
	}
	return out, nil
}

// elsewhere says that another path of the items finds v's parts.
func elsewhere(v *fastjson.Value, unless []Ref) bool {
	for i := range unless {
		if full(walk(v, unless[i].steps)) {
			return true
		}
	}
	return false
}

// collect walks to every element that steps name; up is the element, or the document,
// that holds the innermost array.
func collect(out []item, v, up *fastjson.Value, steps []step, limit int) []item {
	if v == nil || len(out) >= limit {
		return out
	}
	if len(steps) == 0 {
		return append(out, item{value: v, up: up})
	}
	if !steps[0].star {
		if up == nil {
			up = v
		}
		return collect(out, walk(v, steps[:1]), up, steps[1:], limit)
	}
	list, err := v.Array()
	if err != nil {
		return out
	}
	for _, e := range list {
		next := up
		if len(steps) > 1 {
			next = e
		}
		out = collect(out, e, next, steps[1:], limit)
	}
	return out
}

func (c *reading) events(items []item) []Event {
	out := make([]Event, len(items))
	whole := len(items)*len(c.payload) <= maxShared
	payload, isJSON := c.hiddenPayload(c.payload, c.isJSON)
	masked := c.masked
	for i := range items {
		it := &items[i]
		c.item, c.up = it.value, it.up
		c.typeOpen = false
		keep := len(c.problems)
		ev := &out[i]
		c.event(it, i, ev)
		ev.Item, ev.Items = i, len(items)
		ev.Payload, ev.PayloadJSON, ev.Masked = payload, isJSON, masked
		if !whole && it.raw != nil && c.isJSON {
			c.masked = nil
			ev.Payload, ev.PayloadJSON = c.hiddenPayload(it.raw, true)
			ev.Masked, ev.PayloadItem = c.masked, true
		}
		if c.loose || c.sealed {
			ev.NeedsFetch = true
		}
		if len(c.doubled) > 0 {
			for _, path := range c.doubled {
				ev.Problems = append(ev.Problems, path+" stands twice")
			}
			ev.NeedsFetch = true
		}
		ev.Problems = append(ev.Problems, c.problems...)
		c.problems = c.problems[:keep]
	}
	return out
}

// hiddenPayload covers card numbers and secret fields.
func (c *reading) hiddenPayload(b []byte, isJSON bool) ([]byte, bool) {
	if isJSON {
		return c.cover(b), true
	}
	if c.doc != nil && c.d.prog.hidden && strictJSON(c.doc) {
		return c.cover(c.doc), true // XML: its secrets are found by their paths in the JSON form
	}
	if c.loose && c.d.prog.hidden {
		c.masked = append(c.masked, "payload")
		return nil, false // where a secret stands in bytes that are no JSON nobody knows
	}
	if maybePAN(b) {
		if with, ok := maskPANs(b); ok {
			c.masked = append(c.masked, "payload")
			return with, false
		}
	}
	return b, false
}

// event reads one item into ev, which is empty.
func (c *reading) event(it *item, n int, ev *Event) {
	pl, typ, status := c.plan()
	is, canonical := c.canonical(typ, status)
	ev.Type, ev.Status, ev.Rerendered = typ, status, c.d.Rerendered
	ev.OwnType = c.d.OwnType(typ)
	if ev.Canonical = ev.OwnType; canonical {
		ev.Canonical = string(is)
	}
	c.identify(pl, it, n, ev)
	if canonical {
		ev.State = c.state(pl, ev.Canonical, typ, status)
	}
	c.fill(pl, ev)
	c.fillMoney(pl, ev)
	ev.Livemode = c.livemode(pl, typ, status)
	if canonical && strings.HasSuffix(ev.Canonical, ".failed") {
		c.explain(ev)
	}
	c.coverage(pl, ev)
	if n > 0 && c.d.SignedItems == "first" {
		c.unproved(pl, ev)
	}
}

// unproved marks an item that the signature does not reach: whoever holds one signed
// delivery may write it. Its identity takes its content, so that it stands in nobody's way.
func (c *reading) unproved(pl *plan, ev *Event) {
	h := sha256.New()
	put(h, []byte(ev.CEID))
	put(h, ev.Content[:])
	ev.CEID = shown([]byte(ev.ID)) + hexSum(h)
	ev.UnverifiedFields, ev.NeedsFetch = nil, true
	seen := map[string]bool{"": true, "subject": true}
	for _, p := range pl.places() {
		if !seen[p.name] && ev.has(p.name) {
			ev.UnverifiedFields = append(ev.UnverifiedFields, p.name)
		}
		seen[p.name] = true
	}
}

// OwnType is the type of what has no canonical one: "stripe.charge.updated".
func (d *Definition) OwnType(typ string) string {
	if typ == "" {
		typ = "event"
	}
	return firstOf(d.Family, d.Name) + "." + typ
}

// plan picks the shape, and reads the type and the status.
func (c *reading) plan() (pl *plan, typ, status string) {
	p := c.d.prog
	pl = p.base
	typ, status = c.str(&pl.Type, "type"), c.str(&pl.Status, "status")
	for i := range p.shapes {
		if c.hold(p.shapes[i].when, typ, status) {
			pl = p.shapes[i].plan
			break
		}
	}
	c.typeOpen = false
	if pl.ownWords {
		typ, status = c.str(&pl.Type, "type"), c.str(&pl.Status, "status")
	}
	return pl, typ, status
}

func (c *reading) fill(pl *plan, ev *Event) {
	ev.OrderID = c.str(&pl.OrderID, "order_id")
	ev.PaymentID = c.str(&pl.PaymentID, "payment_id")
	ev.ObjectID = c.str(&pl.ObjectID, "object_id")
	ev.CardMask = c.str(&pl.CardMask, "card_mask")
	ev.Tenant = c.str(&pl.Tenant, "tenant")
	ev.RequestID = c.str(&pl.RequestID, "request_id")
	ev.IdempotencyKey = c.str(&pl.IdempotencyKey, "idempotency_key")
	for i := range pl.refs {
		if s := c.str(pl.refs[i].value, pl.refs[i].name); s != "" {
			if ev.References == nil {
				ev.References = make(map[string]string, len(pl.refs))
			}
			ev.References[pl.refs[i].name[len(referencePrefix):]] = s
		}
	}
	if pl.Subject.IsZero() {
		ev.Subject = firstOf(ev.PaymentID, ev.OrderID, ev.ObjectID)
	} else {
		ev.Subject = c.str(&pl.Subject, "subject")
	}
	if !pl.OccurredAt.Path.IsZero() {
		ev.OccurredAt = c.moment(&pl.OccurredAt, pl.zone)
	}
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

func (c *reading) fillMoney(pl *plan, ev *Event) {
	before := len(c.problems)
	currency := c.currencyOf(&pl.Currency)
	ev.Amount = c.money(&pl.Amount, currency, "amount")
	ev.PaymentAmount = c.money(&pl.PaymentAmount, currency, "payment_amount")
	if ev.Currency = currency; ev.Amount != nil {
		ev.Currency = ev.Amount.Currency
	}
	if len(c.problems) > before {
		ev.NeedsFetch = true
	}
}

func (c *reading) livemode(pl *plan, typ, status string) *bool {
	if !pl.Livemode.Path.IsZero() {
		if f := flag(c.value(&pl.Livemode.Path)); f != nil {
			return f
		}
	}
	keep := c.typeOpen
	defer func() { c.typeOpen = keep }()
	for i := range pl.livemode {
		if c.hold(pl.livemode[i].when, typ, status) {
			is := pl.livemode[i].is
			return &is
		}
	}
	return nil
}

// explain says why something failed; every failure has a reason.
func (c *reading) explain(ev *Event) {
	f := &c.d.Failure
	ev.FailureReason = "other"
	for i := range f.Code.Path {
		code := c.at(&f.Code.Path[i])
		if len(code) == 0 {
			continue
		}
		if reason, ok := c.d.prog.reasons[c.d.fold(string(code))]; ok {
			ev.FailureReason = reason
		}
		ev.FailureCode = c.clean(code, "failure code")
		return
	}
}

// coverage says what of the event the signature does not reach.
func (c *reading) coverage(pl *plan, ev *Event) {
	for _, f := range pl.unsigned {
		if !ev.has(f.name) {
			continue
		}
		ev.UnverifiedFields = append(ev.UnverifiedFields, f.name)
		switch f.name {
		case "type", "status", "amount", "currency":
			ev.NeedsFetch = ev.NeedsFetch || f.inDoc
		}
	}
	if c.typeOpen {
		for _, f := range ev.UnverifiedFields {
			if f == "type" {
				return
			}
		}
		ev.UnverifiedFields = append(ev.UnverifiedFields, "type")
	}
	if fetch := c.d.NeedsFetch; fetch != nil {
		ev.NeedsFetch = *fetch || ev.NeedsFetch && len(c.problems)+len(c.doubled) > 0
	}
	ev.NeedsFetch = ev.NeedsFetch || pl.fetch
}

// has says whether the event has a field of that name.
func (ev *Event) has(name string) bool {
	switch name {
	case "id":
		return ev.ID != ""
	case "type":
		return ev.Type != ""
	case "status":
		return ev.Status != ""
	case "order_id":
		return ev.OrderID != ""
	case "payment_id":
		return ev.PaymentID != ""
	case "object_id":
		return ev.ObjectID != ""
	case "amount":
		return ev.Amount != nil
	case "payment_amount":
		return ev.PaymentAmount != nil
	case "currency":
		return ev.Currency != ""
	case "occurred_at":
		return !ev.OccurredAt.IsZero()
	case "livemode":
		return ev.Livemode != nil
	case "card_mask":
		return ev.CardMask != ""
	case "tenant":
		return ev.Tenant != ""
	case "request_id":
		return ev.RequestID != ""
	case "idempotency_key":
		return ev.IdempotencyKey != ""
	}
	if ref, ok := strings.CutPrefix(name, referencePrefix); ok {
		return ev.References[ref] != ""
	}
	return true
}

// printable: what may stand in a header of Kafka and in a log line as it is.
func printable(b []byte) bool {
	for _, ch := range b {
		if ch < ' ' || ch == 0x7f {
			return false
		}
	}
	return utf8.Valid(b)
}
