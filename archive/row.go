package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// Row is one delivery as lists show it: what the index keeps of it, without header and
// body. Every column is always there; unknown words are "", unknown values null.
//
// A delivery with several events has several outcomes and several sets of ids. The
// columns then show the event that stands first; Outcome is the first of published,
// held, dead, duplicate, filtered that any event has, and Outcomes lists all of them
// where they differ. Filters look at every event: outcome=dead finds a delivery of
// which one event of three is dead, order_id finds it by the order of the third.
type Row struct {
	ID          string    `json:"id"`
	Seq         uint64    `json:"seq"` // position; bit 47 (QuarantineBit) set: in the quarantine, which counts for itself
	ReceivedAt  time.Time `json:"received_at"`
	Source      string    `json:"source"`
	Provider    string    `json:"provider"`
	Verdict     string    `json:"verdict"`
	Reason      string    `json:"reason"`
	Outcome     string    `json:"outcome"` // "" = none yet (filter: outcome=pending)
	DuplicateOf string    `json:"duplicate_of"`

	EventID        string `json:"event_id"`
	EventType      string `json:"event_type"`
	Type           string `json:"type"`
	OrderID        string `json:"order_id"`
	PaymentID      string `json:"payment_id"`
	Tenant         string `json:"tenant"`
	RequestID      string `json:"request_id"`
	IdempotencyKey string `json:"idempotency_key"`
	Livemode       *bool  `json:"livemode"`
	Status         string `json:"status"`
	AmountMinor    *int64 `json:"amount_minor"`
	Currency       string `json:"currency"`

	RemoteIP string `json:"remote_ip"`
	Method   string `json:"method"`
	Path     string `json:"path"` // without the query: tokens may stand there
	Size     int64  `json:"size"` // bytes of the body

	Outcomes []string `json:"outcomes,omitempty"` // all of them, where events differ
}

// Bounds on what a row keeps. Longer values are cut (and filters cut alike), further
// events of one delivery are not searchable by their ids.
const (
	maxIDBytes   = 256
	maxPathBytes = 512
	maxRowItems  = 64
)

// ref names a delivery over both logs: bit 63 is the quarantine, the rest the seq.
type ref uint64

const quarantineRef ref = 1 << 63

// makeRef takes a seq with or without the QuarantineBit.
func makeRef(log int, seq uint64) ref {
	r := ref(seq &^ QuarantineBit)
	if log == 1 || seq&QuarantineBit != 0 {
		r |= quarantineRef
	}
	return r
}

func (r ref) log() int {
	if r&quarantineRef != 0 {
		return 1
	}
	return 0
}

// seq is the position in its own log, without the QuarantineBit.
func (r ref) seq() uint64 { return uint64(r &^ quarantineRef) }

// public is the seq as the rest of the package writes it.
func (r ref) public() uint64 {
	if r.log() == 1 {
		return r.seq() | QuarantineBit
	}
	return r.seq()
}

// item is what is known of one event of a delivery.
type item struct {
	n       int  // which event
	guessed bool // by the extractor, no outcome has said it yet
	f       Fields
}

// entry is a row as the index holds it.
type entry struct {
	row   Row // the columns that belong to the delivery, not to its events
	ref   ref
	kinds uint8 // bit k is set when an event's state is OutcomeKind k
	items []item
}

func newEntry(d *Delivery) *entry {
	log := 0
	if d.Verdict == Rejected {
		log = 1
	}
	e := &entry{ref: makeRef(log, d.Seq)}
	path := d.Target
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	e.row = Row{
		ID: d.ID, Seq: e.ref.public(), ReceivedAt: d.ReceivedAt.UTC(),
		Source: clip(d.Source, maxIDBytes), Provider: clip(d.Provider, maxIDBytes),
		Verdict: d.Verdict.String(), Reason: clip(d.Reason, maxIDBytes), Tenant: clip(d.Tenant, maxIDBytes),
		Method: clip(d.Method, maxIDBytes), Path: clip(string(path), maxPathBytes), Size: int64(len(d.Body)),
	}
	if d.RemoteIP.IsValid() {
		e.row.RemoteIP = d.RemoteIP.Unmap().String()
	}
	return e
}

// setItem keeps the fields of the n-th event. What an outcome says stands over what the
// extractor guessed, and empty fields (an event that could not be read) change nothing.
func (e *entry) setItem(n int, f Fields, guessed bool) {
	f = clipFields(f)
	if f == (Fields{}) {
		return
	}
	i := 0
	for i < len(e.items) && e.items[i].n < n {
		i++
	}
	if i < len(e.items) && e.items[i].n == n {
		if guessed && !e.items[i].guessed {
			return
		}
		e.items[i] = item{n: n, guessed: guessed, f: f}
		return
	}
	// The lowest events are kept, so that the columns do not depend on what came first.
	e.items = append(e.items, item{})
	copy(e.items[i+1:], e.items[i:])
	e.items[i] = item{n: n, guessed: guessed, f: f}
	if len(e.items) > maxRowItems {
		e.items = e.items[:maxRowItems]
	}
}

// knows reports whether an outcome told the fields of the first event.
func (e *entry) knows() bool {
	return len(e.items) > 0 && e.items[0].n == 0
}

// kindOrder is the order in which several events' outcomes are shown as one.
var kindOrder = [...]OutcomeKind{Published, Held, Dead, Duplicate, Filtered}

func (e *entry) outcome() string {
	for _, k := range kindOrder {
		if e.kinds&(1<<k) != 0 {
			return k.String()
		}
	}
	return ""
}

// public renders the row as lists show it.
func (e *entry) public() Row {
	r := e.row
	r.Outcome = e.outcome()
	if r.Outcome != Duplicate.String() {
		r.DuplicateOf = ""
	}
	if e.kinds&(e.kinds-1) != 0 {
		for _, k := range kindOrder {
			if e.kinds&(1<<k) != 0 {
				r.Outcomes = append(r.Outcomes, k.String())
			}
		}
	}
	if len(e.items) > 0 {
		f := e.items[0].f
		r.EventID, r.EventType, r.Type = f.EventID, f.EventType, f.Type
		r.OrderID, r.PaymentID, r.Status = f.OrderID, f.PaymentID, f.Status
		r.RequestID, r.IdempotencyKey, r.Currency = f.RequestID, f.IdempotencyKey, f.Currency
		r.Livemode, r.AmountMinor = f.Livemode, f.AmountMinor
	}
	return r
}

// clip cuts s to n bytes on a rune's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

func clipFields(f Fields) Fields {
	for _, s := range f.strings() {
		*s = clip(*s, maxIDBytes)
	}
	return f
}

// strings lists the textual fields in the order in which a row stores them; adding one
// means a new indexFormat.
func (f *Fields) strings() [10]*string {
	return [10]*string{&f.EventID, &f.EventType, &f.Type, &f.CEID, &f.OrderID, &f.PaymentID,
		&f.Status, &f.RequestID, &f.IdempotencyKey, &f.Currency}
}

func (r *Row) strings() [10]*string {
	return [10]*string{&r.ID, &r.Source, &r.Provider, &r.Verdict, &r.Reason, &r.DuplicateOf,
		&r.Tenant, &r.RemoteIP, &r.Method, &r.Path}
}

var errRow = errors.New("index row is cut short or holds an impossible length")

// appendEntry encodes a row: uvarint received-at (ns), ref, kinds, size, the strings of
// the delivery, the number of events, and per event: its number, flags (1 guessed,
// 2 livemode known, 4 livemode, 8 amount known), the amount, its strings. A string is
// its uvarint length and its bytes.
func appendEntry(b []byte, e *entry) []byte {
	b = binary.AppendUvarint(b, uint64(nanos(e.row.ReceivedAt)))
	b = binary.AppendUvarint(b, uint64(e.ref))
	b = append(b, e.kinds)
	b = binary.AppendUvarint(b, uint64(e.row.Size))
	for _, s := range e.row.strings() {
		b = appendString(b, *s)
	}
	b = binary.AppendUvarint(b, uint64(len(e.items)))
	for i := range e.items {
		b = appendItem(b, &e.items[i])
	}
	return b
}

func appendItem(b []byte, it *item) []byte {
	b = binary.AppendUvarint(b, uint64(it.n))
	var flags byte
	if it.guessed {
		flags |= 1
	}
	if it.f.Livemode != nil {
		flags |= 2
		if *it.f.Livemode {
			flags |= 4
		}
	}
	if it.f.AmountMinor != nil {
		flags |= 8
	}
	b = append(b, flags)
	if it.f.AmountMinor != nil {
		b = binary.AppendVarint(b, *it.f.AmountMinor)
	}
	for _, s := range it.f.strings() {
		b = appendString(b, *s)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads what the append functions wrote. Its strings are parts of one string,
// so that a row costs one allocation and not twenty.
type decoder struct {
	s   string
	err error
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (d *decoder) bytes(n int) string {
	if n < 0 || n > len(d.s) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) byte() byte {
	s := d.bytes(1)
	if s == "" {
		return 0
	}
	return s[0]
}

func (d *decoder) str() string {
	n := d.uvarint()
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	return d.bytes(int(n))
}

func (d *decoder) fail() {
	d.err, d.s = errRow, ""
}

func decodeEntry(b []byte) (*entry, error) {
	d := decoder{s: string(b)}
	e := &entry{}
	e.row.ReceivedAt = time.Unix(0, int64(d.uvarint())).UTC()
	e.ref = ref(d.uvarint())
	e.row.Seq = e.ref.public()
	e.kinds = d.byte()
	e.row.Size = int64(d.uvarint())
	for _, s := range e.row.strings() {
		*s = d.str()
	}
	n := d.uvarint()
	if n > maxRowItems {
		d.fail()
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		e.items = append(e.items, d.item())
	}
	if d.err != nil || d.s != "" {
		return nil, errRow
	}
	return e, nil
}

func (d *decoder) item() item {
	it := item{n: int(d.uvarint())}
	flags := d.byte()
	it.guessed = flags&1 != 0
	if flags&2 != 0 {
		live := flags&4 != 0
		it.f.Livemode = &live
	}
	if flags&8 != 0 {
		amount := d.varint()
		it.f.AmountMinor = &amount
	}
	for _, s := range it.f.strings() {
		*s = d.str()
	}
	return it
}

// appendOutcome encodes an outcome as the index keeps it: without Seq and Delivery (they
// are the key) and without Fields: those are in the row. Only an outcome of a quarantined
// delivery, which may be applied before its row is, is followed by its event's fields.
// The highest bit of the kind says that a state stands behind the content.
func appendOutcome(b []byte, o *Outcome) []byte {
	kind := byte(o.Kind)
	if o.State != (Identity{}) {
		kind |= kindHasState
	}
	b = append(b, kind)
	b = binary.AppendVarint(b, nanos(o.At))
	b = binary.AppendUvarint(b, uint64(o.Item))
	b = binary.AppendUvarint(b, uint64(o.Items))
	b = binary.AppendVarint(b, int64(o.Partition))
	b = binary.AppendVarint(b, o.Offset)
	for _, s := range [...]string{o.Reason, o.Of, o.Sink, o.Topic, o.Replay} {
		b = appendString(b, s)
	}
	b = append(b, o.Identity[:]...)
	b = append(b, o.Content[:]...)
	if kind&kindHasState != 0 {
		b = append(b, o.State[:]...)
	}
	return b
}

const kindHasState = 1 << 7

func decodeOutcome(b []byte) (Outcome, error) {
	d := decoder{s: string(b)}
	kind := d.byte()
	o := Outcome{Kind: OutcomeKind(kind &^ kindHasState), At: time.Unix(0, d.varint()).UTC(),
		Item: int(d.uvarint()), Items: int(d.uvarint()), Partition: int32(d.varint()), Offset: d.varint()}
	for _, s := range [...]*string{&o.Reason, &o.Of, &o.Sink, &o.Topic, &o.Replay} {
		*s = d.str()
	}
	copy(o.Identity[:], d.bytes(len(o.Identity)))
	copy(o.Content[:], d.bytes(len(o.Content)))
	if kind&kindHasState != 0 {
		copy(o.State[:], d.bytes(len(o.State)))
	}
	if d.err == nil && d.s != "" {
		o.Fields = d.item().f
	}
	if d.err != nil || d.s != "" {
		return Outcome{}, errRow
	}
	return o, nil
}
