package forward

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"penstock/archive"
	"penstock/provider"
)

// dataSchema names the shape of the value: fields are only ever added; anything else
// is a new number (DESIGN 8).
const dataSchema = "/penstock/event/1"

// maxTraceparent is W3C's 55 characters with room for a longer future version.
const maxTraceparent = 128

var errPanic = errors.New("definition panicked")

// readEvents runs a source's definition over a delivery and survives it.
func readEvents(info *SourceInfo, d *archive.Delivery) (evs []provider.Event, err error) {
	defer func() {
		if v := recover(); v != nil {
			evs, err = nil, fmt.Errorf("%w: %v", errPanic, v)
		}
	}()
	evs, err = info.Definition.Events(request(d, info))
	if info.ByContent {
		for i := range evs {
			evs[i].CEID = contentID(&evs[i], i)
		}
	}
	if info.Tenants {
		for i := range evs {
			ofTenant(&evs[i], d.Tenant)
		}
	}
	return evs, err
}

// ofTenant makes the event its merchant's: two merchants of one source number their orders
// alike, so the ids of one say nothing about the other. proved is the merchant whose key
// verified the delivery; one that was refused and released may name it in the event alone.
func ofTenant(e *provider.Event, proved string) {
	if proved != "" {
		e.Tenant = proved
	}
	if e.Tenant == "" {
		return
	}
	sum := sha256.Sum256([]byte(e.Tenant))
	e.CEID += "@" + hex.EncodeToString(sum[:6])
}

// contentID is the ce_id where the signed content itself is the identity: a provider that
// signs neither id nor time may say the same under ever new ids.
func contentID(e *provider.Event, item int) string {
	id := hex.EncodeToString(e.Content[:])
	if item > 0 {
		id += "#" + strconv.Itoa(item+1)
	}
	return id
}

func request(d *archive.Delivery, info *SourceInfo) *provider.Request {
	return &provider.Request{
		Method: d.Method, Target: d.Target, PublicURL: info.PublicURL, Header: provider.Header(d.Header),
		Body: d.Body, ReceivedAt: d.ReceivedAt, RemoteIP: d.RemoteIP, Secrets: info.Secrets,
	}
}

// identity is the dedupe identity: what "delivered" is said of. Every part carries its
// length, so that no two triples run together.
func identity(sink, group, ceID string) archive.Identity {
	b := make([]byte, 0, 128)
	for _, s := range [...]string{sink, group, ceID} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return archive.Identity(sum[:16])
}

// rendering is what one event is rendered from.
type rendering struct {
	d        *archive.Delivery
	info     *SourceInfo
	e        *provider.Event
	typ      string // canonical, with test. where mode: live wants it
	replay   string
	conflict string // delivery id of the first content
	repeats  string // delivery id of the first that told this state
	dead     string // why this is a dead letter
	key      string // of the message; "" = the event's own
	verified string
	ref      *payloadRef // instead of the payload
	bare     bool        // without the payload, which Preview gives beside it
}

// payloadRef is a claim-check: where the payload may be fetched.
type payloadRef struct {
	url, node string
	expires   time.Time
}

// typeOf gives the event's type as it is published.
func typeOf(info *SourceInfo, e *provider.Event) string {
	if info.LiveOnly && e.Livemode != nil && !*e.Livemode {
		return "test." + e.Canonical
	}
	return e.Canonical
}

// statePrefix keeps the identities of states apart from those of events: no ce_id has a
// control character.
const statePrefix = "state\x00"

// asRepeat is the event as it goes out when its state was told before: under the
// provider's own name, so that nobody books it again.
func asRepeat(e *provider.Event) *provider.Event {
	r := *e
	r.Canonical = e.OwnType
	r.FailureReason, r.FailureCode = "", ""
	return &r
}

func eventTime(d *archive.Delivery, e *provider.Event) time.Time {
	if e.OccurredAt.IsZero() {
		return d.ReceivedAt
	}
	return e.OccurredAt
}

func eventKey(e *provider.Event) string {
	if e.Subject != "" {
		return e.Subject
	}
	return e.CEID
}

// render makes the message: headers as CloudEvents' Kafka binding wants them, value as
// DESIGN 8. Both are written into borrowed memory; the message has them, and its key, in
// one piece, as they will stand in a record (packed).
func (x *rendering) render(topic string) Message {
	sum := sha256.Sum256(x.d.Body)
	var room [2 * len(sum)]byte
	bodySum := room[:hex.Encode(room[:], sum[:])]
	buf := renderBuffers.Get().(*[]byte)
	value := x.value((*buf)[:0], bodySum)
	h := headerPacker{b: value}
	d, e := x.d, x.e
	at := eventTime(d, e)
	h.put("ce_specversion", "1.0")
	h.put("ce_id", e.CEID)
	h.put("ce_type", x.typ)
	h.put("ce_source", "/penstock/", d.Source)
	h.put("ce_subject", e.Subject)
	var word [64]byte
	h.bytes("ce_time", at.UTC().AppendFormat(word[:0], time.RFC3339Nano))
	h.put("content-type", "application/json")
	h.put("ce_dataschema", dataSchema)
	h.put("ce_provider", x.info.Provider)
	h.put("ce_providertype", e.Type)
	h.put(headerDelivery, d.ID)
	h.bytes("ce_archiveseq", strconv.AppendUint(word[:0], d.Seq&^archive.QuarantineBit, 10))
	h.bytes("ce_bodysha256", bodySum)
	h.put("ce_verifiedby", x.verified)
	h.put("ce_tenant", tenantOf(d, e))
	h.put(headerReplay, x.replay)
	h.put(headerConflict, x.conflict)
	h.put("ce_repeats", x.repeats)
	if tp, cnt := provider.Header(d.Header).Get(headerTrace); cnt == 1 && validTrace(string(tp)) {
		h.bytes(headerTrace, tp)
	}
	h.put("ce_deadreason", x.dead)
	m := Message{Topic: topic, Time: at, Replay: x.replay}
	if d.ID != "" {
		m.print = printOf(d.ID, e.CEID, x.replay)
	}
	m.pack(cmp.Or(x.key, eventKey(e)), h.b[:len(value)], h.b[len(value):], h.n)
	if cap(h.b) <= keepBuffer {
		*buf = h.b
		renderBuffers.Put(buf)
	}
	return m
}

// renderBuffers are what messages are written in before their size is known.
var renderBuffers = sync.Pool{New: func() any { return new([]byte) }}

// value appends the JSON of DESIGN 8. It is written by hand because the payload's bytes
// must stay what they are: json.Marshal compacts and escapes a RawMessage.
func (x *rendering) value(b, bodySum []byte) []byte {
	d, e := x.d, x.e
	b = appendField(b, '{', "provider", x.info.Provider)
	b = appendField(b, ',', "source", d.Source)
	b = appendField(b, ',', "type", x.typ)
	b = appendField(b, ',', "provider_type", e.Type)
	b = append(b, `,"livemode":`...)
	if e.Livemode == nil {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendBool(b, *e.Livemode)
	}
	if t := tenantOf(d, e); t != "" {
		b = appendField(b, ',', "tenant", t)
	}
	b = append(b, `,"occurred_at":`...)
	b = appendTime(b, e.OccurredAt)
	b = append(b, `,"received_at":`...)
	b = appendTime(b, d.ReceivedAt)
	b = appendFamily(b, e)
	if e.FailureReason != "" {
		b = appendField(b, ',', `failure":{"reason`, e.FailureReason)
		b = append(b, `,"provider_code":`...)
		b = append(appendNullable(b, e.FailureCode), '}')
	}
	if len(e.UnverifiedFields) > 0 {
		b = appendStrings(append(b, `,"unverified_fields":`...), e.UnverifiedFields)
	}
	if e.NeedsFetch {
		b = append(b, `,"needs_fetch":true`...)
	}
	if len(e.Masked) > 0 {
		b = appendStrings(append(b, `,"masked":`...), e.Masked)
	}
	return append(x.payload(b, bodySum), '}')
}

func (x *rendering) payload(b, bodySum []byte) []byte {
	switch {
	case x.bare:
		return b
	case x.ref != nil:
		b = appendField(b, ',', `payload_ref":{"url`, x.ref.url)
		b = appendField(b, ',', "node", x.ref.node)
		b = appendField(b, ',', "sha256", string(bodySum))
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, int64(len(x.d.Body)), 10)
		b = append(b, `,"expires_at":`...)
		return append(appendTime(b, x.ref.expires), '}')
	case x.e.PayloadJSON && len(x.e.Payload) > 0:
		b = append(b, `,"payload":`...)
		return append(b, x.e.Payload...)
	}
	b = append(b, `,"payload_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, x.e.Payload)
	return append(b, '"')
}

func tenantOf(d *archive.Delivery, e *provider.Event) string {
	if e.Tenant != "" {
		return e.Tenant
	}
	return d.Tenant
}

// families are the canonical families that have a block of their own.
var families = map[string]bool{"payment": true, "refund": true, "payout": true, "dispute": true, "subscription": true}

// familyOf splits a canonical type; family is "" where there is no block for it.
func familyOf(canonical string) (family, status string) {
	family, status, ok := strings.Cut(canonical, ".")
	if !ok || !families[family] || strings.Contains(status, ".") {
		return "", ""
	}
	return family, status
}

func appendFamily(b []byte, e *provider.Event) []byte {
	family, status := familyOf(e.Canonical)
	if family == "" {
		return b
	}
	id := e.ObjectID
	if id == "" && family == "payment" {
		id = e.PaymentID
	}
	b = append(b, ',', '"')
	b = append(b, family...)
	b = append(b, `":{"id":`...)
	b = appendNullable(b, id)
	b = append(b, `,"order_id":`...)
	b = appendNullable(b, e.OrderID)
	if family == "refund" || family == "dispute" {
		b = append(b, `,"payment_id":`...)
		b = appendNullable(b, e.PaymentID)
	}
	b = appendField(b, ',', "status", status)
	b = append(b, `,"provider_status":`...)
	b = appendNullable(b, e.Status)
	b = append(b, `,"amount":`...)
	b = appendMoney(b, e.Amount)
	if e.PaymentAmount != nil {
		b = append(b, `,"payment_amount":`...)
		b = appendMoney(b, e.PaymentAmount)
	}
	if e.CardMask != "" {
		b = appendField(b, ',', "card_mask", e.CardMask)
	}
	b = append(b, `,"references":{`...)
	for i, k := range sortedKeys(e.References) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, k), ':')
		b = appendJSON(b, e.References[k])
	}
	return append(b, '}', '}')
}

func sortedKeys(m map[string]string) []string {
	if len(m) == 0 {
		return nil
	}
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

func appendMoney(b []byte, m *provider.Money) []byte {
	if m == nil {
		return append(b, "null"...)
	}
	b = append(b, `{"minor":`...)
	b = strconv.AppendInt(b, m.Minor, 10)
	b = appendField(b, ',', "currency", m.Currency)
	b = append(b, `,"exponent":`...)
	b = strconv.AppendInt(b, int64(m.Exponent), 10)
	return append(b, '}')
}

// appendField appends sep"name":"value". The name is ours and needs no escape.
func appendField(b []byte, sep byte, name, value string) []byte {
	b = append(b, sep, '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendJSON(b, value)
}

func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendJSON(b, s)
}

func appendStrings(b []byte, ss []string) []byte {
	b = append(b, '[')
	for i, s := range ss {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, s)
	}
	return append(b, ']')
}

// appendTime appends a time in UTC, to the millisecond; null when it is not known.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, "2006-01-02T15:04:05.999Z07:00")
	return append(b, '"')
}

// appendString appends a JSON string. Bytes that are no UTF-8 become U+FFFD, as every
// reader would make of them.
func appendJSON(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r) // RuneError for what is none
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

// fieldsOf is what the index keeps of an event.
func fieldsOf(d *archive.Delivery, e *provider.Event, typ string) archive.Fields {
	f := archive.Fields{
		EventID: e.ID, EventType: e.Type, Type: typ, CEID: e.CEID, OrderID: e.OrderID, PaymentID: e.PaymentID,
		Status: e.Status, RequestID: e.RequestID, IdempotencyKey: e.IdempotencyKey, Livemode: e.Livemode,
	}
	if f.PaymentID == "" && strings.HasPrefix(e.Canonical, "payment.") {
		f.PaymentID = e.ObjectID
	}
	if e.Amount != nil {
		minor := e.Amount.Minor
		f.AmountMinor, f.Currency = &minor, e.Amount.Currency
	}
	return f
}

// Fields reads what the index wants of a delivery that has no outcome yet; it is what
// main hands to the archive as its extractor.
func Fields(d *archive.Delivery, info *SourceInfo) (archive.Fields, bool) {
	if info == nil || info.Definition == nil {
		return archive.Fields{}, false
	}
	evs, err := readEvents(info, d)
	if err != nil || len(evs) == 0 {
		return archive.Fields{}, false
	}
	return fieldsOf(d, &evs[0], typeOf(info, &evs[0])), true
}

// Told is what an event tells: its fields, and why something failed, "" where nothing did.
type Told struct {
	Fields  archive.Fields
	Failure string // a canonical reason
}

// Tells reads every event of a delivery, for whoever watches where nothing is published. What
// cannot be read tells nothing.
func Tells(d *archive.Delivery, info *SourceInfo) []Told {
	if info == nil || info.Definition == nil {
		return nil
	}
	evs, err := readEvents(info, d)
	if err != nil {
		return nil
	}
	out := make([]Told, len(evs))
	for i := range evs {
		out[i] = Told{fieldsOf(d, &evs[i], typeOf(info, &evs[i])), evs[i].FailureReason}
	}
	return out
}

// keyHash is equal for events that must stay in order. Two keys that collide wait for
// each other now and then, nothing else.
func keyHash(seed maphash.Seed, topic string, key []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(topic) // never fails
	_ = h.WriteByte(0)
	_, _ = h.Write(key)
	return h.Sum64()
}
