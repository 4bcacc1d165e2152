package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"sort"
	"strconv"

	"github.com/valyala/fastjson"
)

// maxShown bounds the readable part of a ce_id; the hash behind it tells apart.
const maxShown = 200

// identify fills ID, Content and CEID. The ce_id is a function of the dedupe identity
// and of nothing else, so nothing that is not proved may flow into it, except where the
// hash of the signed content stands beside it.
func (c *reading) identify(pl *plan, it *item, n int, ev *Event) {
	if c.unread { // no field of it can tell events apart, so the whole body does
		body := c.r.Body
		if len(body) == 0 {
			body = c.r.Target // the document was to be the query
		}
		sum := sha256.Sum256(body)
		ev.Content = [16]byte(sum[:16])
		ev.CEID = contentID(ev.Content)
		return
	}
	ev.ID = c.eventID(pl)
	ev.Content = c.contentHash(it)
	switch pl.identity.Rule {
	case "id":
		ev.CEID = c.plainID(pl, ev)
	case "id+content":
		id := c.join(pl.ID)
		if len(id) == 0 {
			ev.CEID = contentID(ev.Content)
			break
		}
		h := sha256.New()
		put(h, id)
		put(h, ev.Content[:])
		ev.CEID = shown(id) + hexSum(h)
	case "fields":
		ev.CEID = c.fieldsID(pl, ev)
	case "received":
		var at [8]byte
		binary.BigEndian.PutUint64(at[:], uint64(c.r.ReceivedAt.UnixNano()))
		h := sha256.New()
		put(h, at[:])
		put(h, ev.Content[:])
		ev.CEID = "received-" + hexSum(h)
	case "fields+content":
		ev.CEID = c.hashedWith(pl.identity.Fields, 2, ev.Content[:])
	default:
		ev.CEID = contentID(ev.Content)
	}
	if pl.shared && n > 0 {
		ev.CEID += "#" + strconv.Itoa(n+1)
	}
}

func contentID(content [16]byte) string { return "content-" + hex.EncodeToString(content[:]) }

// eventID is the provider's own word, as people look for it.
func (c *reading) eventID(pl *plan) string {
	if len(pl.ID) == 1 {
		return c.str(&pl.ID[0], "id")
	}
	var id string
	for i := range pl.ID {
		if s := c.str(&pl.ID[i], "id"); s != "" {
			if id != "" {
				id += "|"
			}
			id += s
		}
	}
	return id
}

// join is the id's own bytes.
func (c *reading) join(vs Composed) []byte {
	if len(vs) == 1 {
		return c.value(&vs[0])
	}
	var id []byte
	for i := range vs {
		if s := c.value(&vs[i]); len(s) > 0 {
			if len(id) > 0 {
				id = append(id, '|')
			}
			id = append(id, s...)
		}
	}
	return id
}

// plainID is the provider's id itself where it can stand in a header as it is. An id of
// several parts always takes the hash: "a|b" and "c" are not "a" and "b|c".
func (c *reading) plainID(pl *plan, ev *Event) string {
	if len(pl.ID) > 1 {
		if len(c.value(&pl.ID[0])) == 0 {
			return contentID(ev.Content) // "paid" of a payment without an id is no event's name
		}
		return c.hashed(pl.ID, 2)
	}
	id := c.value(&pl.ID[0])
	switch {
	case len(id) == 0:
		return contentID(ev.Content)
	case len(id) <= maxShown && printable(id) && !holdsPAN(id) && bytes.IndexByte(id, '#') < 0:
		if string(id) == ev.ID {
			return ev.ID
		}
		return string(id)
	}
	return c.hashed(pl.ID, 2)
}

// fieldsID is the identity by fields. Where none of them is in the document, as in a kind
// of delivery that the definition does not know, they would be one event for ever.
func (c *reading) fieldsID(pl *plan, ev *Event) string {
	for i := range pl.identity.Fields {
		if len(c.identityValue(&pl.identity.Fields[i])) > 0 {
			return c.hashed(pl.identity.Fields, 2)
		}
	}
	return contentID(ev.Content)
}

// hashed writes the first values readably and all of them, each with its length, into a
// hash.
func (c *reading) hashed(vs Composed, show int) string { return c.hashedWith(vs, show, nil) }

// hashedWith also takes what is not shown.
func (c *reading) hashedWith(vs Composed, show int, content []byte) string {
	h := sha256.New()
	var head []byte
	for i := range vs {
		b := c.identityValue(&vs[i])
		put(h, b)
		if i < show && len(b) > 0 {
			if len(head) > 0 {
				head = append(head, '|')
			}
			head = append(head, b...)
		}
	}
	if content != nil {
		put(h, content)
	}
	return shown(head) + hexSum(h)
}

// identityValue is a value as the signature sees it: what the scheme signs for an absent
// or null field is what stands here, and a number that it takes in several spellings is
// one number. Else whoever holds one signed delivery could make two events of it.
func (c *reading) identityValue(v *Value) []byte {
	if len(v.Path) == 1 {
		if f := c.d.prog.signed[c.signedName(&v.Path[0])]; f != nil {
			return c.signedValue(f, &v.Path[0])
		}
	}
	return c.value(v)
}

func (c *reading) signedName(r *Ref) string {
	s := r.text
	for len(s) > 0 && (s[0] == '$' || s[0] == '.') {
		s = s[1:]
	}
	return s
}

func (c *reading) signedValue(f *SignedField, r *Ref) []byte {
	b, state := c.signedText(r)
	switch state {
	case absent:
		return literal(f.Absent)
	case null:
		return literal(f.Null)
	}
	if len(f.Forms) > 0 {
		if n, ok := parseDecimal(b); ok {
			return n.append(nil)
		}
	}
	return b
}

// The states of a signed field.
const (
	absent = iota
	null
	present
)

func (c *reading) signedText(r *Ref) (b []byte, state int) {
	if raw, ok := c.token(r); ok {
		switch {
		case len(raw) == 0:
			return nil, absent
		case raw[0] == 'n':
			return nil, null
		}
		return tokenText(raw), present
	}
	v := c.node(r)
	switch {
	case v == nil:
		return nil, absent
	case v.Type() == fastjson.TypeNull:
		return nil, null
	}
	return text(v), present
}

func literal(s string) []byte {
	switch s {
	case "", "refuse", "empty", "skip":
		return nil
	}
	return []byte(s)
}

// shown is the readable part of a ce_id with the hyphen that follows it.
func shown(b []byte) string {
	if len(b) == 0 || len(b) > maxShown || !printable(b) || holdsPAN(b) {
		return ""
	}
	return string(b) + "-"
}

func put(h hash.Hash, b []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	h.Write(n[:]) // a hash never fails to take bytes
	h.Write(b)
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// contentHash covers what the signature covers.
func (c *reading) contentHash(it *item) [16]byte {
	if c.d.Each != "" {
		return c.signedHash()
	}
	if a := c.d.All; a != nil && a.Pair == "value" {
		if c.grow(); c.root != nil {
			return c.allHash(a)
		}
	}
	if it.raw != nil {
		return sum16(it.raw)
	}
	switch c.d.prog.content {
	case contentField:
		if c.reader.Form != "" {
			if v, n := lookup(c.form, c.reader.Form); n > 0 {
				return sum16(v)
			}
		}
	case contentForm:
		return c.formHash()
	case contentFields:
		return c.signedHash()
	case contentJoined:
		return c.joinedHash()
	}
	if len(c.r.Body) == 0 && (c.d.Body == "any" || c.d.Body == "query") { // the document is the query
		return sum16(c.r.Target)
	}
	return sum16(c.r.Body)
}

// allHash covers the joined values as they are signed, without the key: where a character
// could slide from one field into the next, it is the same text still.
func (c *reading) allHash(a *AllFields) (out [16]byte) {
	var list []pair
	if o, err := c.root.Object(); err == nil {
		o.Visit(func(k []byte, v *fastjson.Value) {
			if b := text(v); b != nil && a.Takes(string(k)) && (len(b) > 0 || !a.SkipEmpty) {
				list = append(list, pair{name: append([]byte(nil), k...), value: append([]byte(nil), b...)})
			}
		})
	}
	sort.SliceStable(list, func(i, j int) bool { return bytes.Compare(list[i].name, list[j].name) < 0 })
	var all []byte
	for i, p := range list {
		if i > 0 {
			all = append(all, a.Separator...)
		}
		all = append(append(all, a.Lead...), p.value...)
	}
	return sum16(all)
}

// joinedHash covers the sorted names and values of a form as one text: where a character
// slides from a name into its value, or a field is there twice, it is the same text still.
func (c *reading) joinedHash() (out [16]byte) {
	list := make([]string, 0, len(c.form))
	for _, p := range c.form {
		list = append(list, string(p.name)+string(p.value))
	}
	sort.Strings(list)
	h := sha256.New()
	put(h, c.r.Target)
	for i, s := range list {
		if i == 0 || s != list[i-1] {
			h.Write([]byte(s)) // a hash never fails to take bytes
		}
	}
	if len(list) == 0 {
		h.Write(c.r.Body)
	}
	copy(out[:], h.Sum(nil))
	return out
}

func sum16(b []byte) (out [16]byte) {
	full := sha256.Sum256(b)
	copy(out[:], full[:])
	return out
}

func (c *reading) formHash() (out [16]byte) {
	pairs := make([]pair, 0, len(c.form))
	for _, p := range c.form {
		if string(p.name) != c.d.Signature.Field {
			pairs = append(pairs, p)
		}
	}
	sort.SliceStable(pairs, func(i, j int) bool { return bytes.Compare(pairs[i].name, pairs[j].name) < 0 })
	h := sha256.New()
	for _, p := range pairs {
		put(h, p.name)
		put(h, p.value)
	}
	copy(out[:], h.Sum(nil))
	return out
}

func (c *reading) signedHash() (out [16]byte) {
	h := sha256.New()
	for i := range c.d.prog.signedRefs {
		s := &c.d.prog.signedRefs[i]
		put(h, c.signedValue(s.f, &s.ref))
	}
	copy(out[:], h.Sum(nil))
	return out
}
