package archive

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// Payloads, format version 1. Integers are little endian; str is a uvarint length and
// that many bytes. What encryption must leave in the clear (time, source) stands first.
//
//	delivery  8 received_at unix ns, str source, 16 id (ULID), 8 epoch, 1 verdict,
//	          str provider, tenant, reason, verified_by, method, remote address
//	          (netip binary form), target, header, body
//	outcome   8 at unix ns, uvarint delivery, item, items, 1 kind, str reason, of, sink,
//	          topic, uvarint partition, offset (both zigzag), str replay,
//	          16 identity, 16 content, 1 present bits, then
//	          str event_id, event_type, type, ce_id, order_id, payment_id, status,
//	          request_id, idempotency_key, currency, and where its bit is set
//	          amount_minor (bit 0, zigzag uvarint); livemode is bits 1 (known) and 2;
//	          16 state (bit 3); uvarints of microseconds (bit 4): from the first byte to
//	          verified, archived, acked (0 = not known), and 1 + from deduplicated to at (0 =
//	          not known)
//	marker    8 at unix ns, 1 kind, str key, 8 id, str data
const (
	hasAmount   = 1 << 0
	hasLivemode = 1 << 1
	livemode    = 1 << 2
	hasState    = 1 << 3
	hasSteps    = 1 << 4
)

var errPayload = errors.New("its payload cannot be read although the checksum matches")

func putStr[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func putDelivery(b []byte, d *Delivery, id ulid.ULID) []byte {
	return putDeliveryRest(putDeliveryHead(b, d, id), d)
}

// putDeliveryHead puts what stays in the clear.
func putDeliveryHead(b []byte, d *Delivery, id ulid.ULID) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(d.ReceivedAt.UnixNano()))
	b = putStr(b, d.Source)
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint64(b, d.Epoch)
	return append(b, byte(d.Verdict))
}

func putDeliveryRest(b []byte, d *Delivery) []byte {
	b = putStr(b, d.Provider)
	b = putStr(b, d.Tenant)
	b = putStr(b, d.Reason)
	b = putStr(b, d.VerifiedBy)
	b = putStr(b, d.Method)
	var addr [64]byte
	a, err := d.RemoteIP.AppendBinary(addr[:0])
	if err != nil || len(a) > len(addr) {
		a = nil
	}
	b = putStr(b, a)
	b = putStr(b, d.Target)
	b = putStr(b, d.Header)
	return putStr(b, d.Body)
}

// deliverySize is an upper bound of a delivery's frame, for admission.
func deliverySize(d *Delivery) int64 {
	const fixed = frameHead + 8 + 16 + 8 + 1 + 10*binary.MaxVarintLen32 + 64 + sealOverhead
	return int64(fixed + len(d.Source) + len(d.Provider) + len(d.Tenant) + len(d.Reason) + len(d.VerifiedBy) +
		len(d.Method) + len(d.Target) + len(d.Header) + len(d.Body))
}

func putOutcome(b []byte, o *Outcome) []byte { return putOutcomeRest(putOutcomeHead(b, o), o) }

// putOutcomeHead puts what stays in the clear.
func putOutcomeHead(b []byte, o *Outcome) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(o.At.UnixNano()))
	b = binary.AppendUvarint(b, o.Delivery)
	b = binary.AppendUvarint(b, uint64(max(o.Item, 0)))
	b = binary.AppendUvarint(b, uint64(max(o.Items, 0)))
	b = append(b, byte(o.Kind))
	b = putStr(b, o.Reason)
	b = putStr(b, o.Of)
	b = putStr(b, o.Sink)
	b = putStr(b, o.Topic)
	b = binary.AppendVarint(b, int64(o.Partition))
	b = binary.AppendVarint(b, o.Offset)
	return putStr(b, o.Replay)
}

func putOutcomeRest(b []byte, o *Outcome) []byte {
	b = append(b, o.Identity[:]...)
	b = append(b, o.Content[:]...)
	f := &o.Fields
	var bits byte
	if f.AmountMinor != nil {
		bits |= hasAmount
	}
	if f.Livemode != nil {
		bits |= hasLivemode
		if *f.Livemode {
			bits |= livemode
		}
	}
	if o.State != (Identity{}) {
		bits |= hasState
	}
	if o.timed() {
		bits |= hasSteps
	}
	b = append(b, bits)
	for _, s := range fieldStrings(f) {
		b = putStr(b, *s)
	}
	if f.AmountMinor != nil {
		b = binary.AppendVarint(b, *f.AmountMinor)
	}
	if bits&hasState != 0 {
		b = append(b, o.State[:]...)
	}
	if bits&hasSteps != 0 {
		b = putSteps(b, o)
	}
	return b
}

// fieldStrings lists the text fields in the order of the format.
func fieldStrings(f *Fields) [10]*string {
	return [...]*string{&f.EventID, &f.EventType, &f.Type, &f.CEID, &f.OrderID, &f.PaymentID, &f.Status,
		&f.RequestID, &f.IdempotencyKey, &f.Currency}
}

func putMarker(b []byte, m *Marker) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(m.At.UnixNano()))
	b = append(b, byte(m.Kind))
	b = putStr(b, m.Key)
	b = binary.LittleEndian.AppendUint64(b, m.ID)
	return putStr(b, m.Data)
}

// payloadReader takes a payload apart. After bad it gives zero values, so that one
// check at the end is enough; nothing is allocated for a length that is not there.
type payloadReader struct {
	b      []byte
	bad    bool
	intern map[string]string
	keys   *Keys // opens what is sealed; nil: that stays locked
	lend   bool  // target, header and body are the reader's memory until its next call

	// What Reader.Skim asked for, and where it is put.
	skimDeliveries, skimOutcomes bool
	skimmed                      struct {
		delivery Delivery
		outcome  Outcome
	}
}

// maxInterned bounds the strings a reader keeps. Sources, providers, reasons, methods
// and topics are few; tenants may be many.
const (
	maxInterned      = 4096
	maxInternedBytes = 128
)

func (p *payloadReader) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.b, p.bad = nil, true
		return nil
	}
	v := p.b[:n]
	p.b = p.b[n:]
	return v
}

func (p *payloadReader) fixed(n uint64) []byte {
	if v := p.take(n); v != nil {
		return v
	}
	p.bad = true
	return make([]byte, n)
}

func (p *payloadReader) u64() uint64 { return binary.LittleEndian.Uint64(p.fixed(8)) }

func (p *payloadReader) byte() byte { return p.fixed(1)[0] }

func (p *payloadReader) time() time.Time { return time.Unix(0, int64(p.u64())).UTC() }

func (p *payloadReader) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *payloadReader) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *payloadReader) count() int {
	if v := p.uvarint(); v <= math.MaxInt32 {
		return int(v)
	}
	p.bad = true
	return 0
}

func (p *payloadReader) raw() []byte { return p.take(p.uvarint()) }

func (p *payloadReader) str() string { return string(p.raw()) }

// strs reads several strings. They share one memory: of an outcome's ten fields that spares
// nine allocations, and they are kept and let go of together.
func (p *payloadReader) strs(to [10]*string) {
	var parts [len(to)][]byte
	size := 0
	for i := range parts {
		parts[i] = p.raw()
		size += len(parts[i])
	}
	var all strings.Builder
	all.Grow(size)
	for _, part := range parts {
		all.Write(part)
	}
	s := all.String()
	for i, part := range parts {
		*to[i], s = s[:len(part)], s[len(part):]
	}
}

// word is a string that repeats from record to record.
func (p *payloadReader) word() string {
	v := p.raw()
	if s, ok := p.intern[string(v)]; ok {
		return s
	}
	s := string(v)
	if len(s) <= maxInternedBytes {
		if len(p.intern) >= maxInterned || p.intern == nil {
			p.intern = make(map[string]string)
		}
		p.intern[s] = s
	}
	return s
}

// record decodes the record that a frame holds; its memory is the record's own.
func (p *payloadReader) record(f frame) (Record, error) {
	p.b, p.bad = f.payload, false
	rec := Record{Seq: f.seq}
	var err error
	switch f.typ {
	case typeDelivery:
		if p.skimDeliveries {
			rec.Delivery = p.skimDelivery()
		} else {
			rec.Delivery, err = p.delivery(&f)
		}
		rec.Delivery.Seq = f.seq
	case typeOutcome:
		if p.skimOutcomes {
			rec.Outcome = p.skimOutcome()
		} else {
			rec.Outcome, err = p.outcome(&f)
		}
		rec.Outcome.Seq = f.seq
	case typeMarker:
		rec.Marker = p.marker()
		rec.Marker.Seq = f.seq
	default:
		return Record{}, errPayload
	}
	if p.bad {
		return Record{}, errPayload
	}
	p.b = nil
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		erased.Seq, erased.Delivery = f.seq, rec.Delivery
	}
	if err != nil {
		return Record{}, err
	}
	return rec, nil
}

func (p *payloadReader) delivery(f *frame) (*Delivery, error) {
	d := &Delivery{ReceivedAt: p.time(), Source: p.word()}
	id := ulid.ULID(p.fixed(16))
	d.ID = id.String()
	d.Epoch = p.u64()
	d.Verdict = Verdict(p.byte())
	if err := p.unseal(f, d.Source, d.ReceivedAt.UnixNano()); err != nil || p.bad {
		return d, err
	}
	d.Provider = p.word()
	d.Tenant = p.word()
	d.Reason = p.word()
	d.VerifiedBy = p.word()
	d.Method = p.word()
	var addr netip.Addr
	if err := addr.UnmarshalBinary(p.raw()); err != nil {
		p.bad = true
	}
	d.RemoteIP = addr
	target, header, body := p.raw(), p.raw(), p.raw()
	if p.lend {
		d.Target, d.Header, d.Body = target, header, body
		return d, nil
	}
	own := make([]byte, 0, len(target)+len(header)+len(body))
	own = append(append(append(own, target...), header...), body...)
	// Full slice expressions: an append to one must not run into the next.
	t, h := len(target), len(target)+len(header)
	d.Target, d.Header, d.Body = own[:t:t], own[t:h:h], own[h:]
	return d, nil
}

// skimDelivery reads the beginning of what delivery reads.
func (p *payloadReader) skimDelivery() *Delivery {
	d := &p.skimmed.delivery
	*d = Delivery{ReceivedAt: p.time(), Source: p.word()}
	p.fixed(16) // id; a text of it would be allocated
	d.Epoch = p.u64()
	d.Verdict = Verdict(p.byte())
	return d
}

// skimOutcome reads the beginning of what outcome reads, but for the twin.
func (p *payloadReader) skimOutcome() *Outcome {
	o := &p.skimmed.outcome
	*o = Outcome{At: p.time(), Delivery: p.uvarint(), Item: p.count(), Items: p.count(), Kind: OutcomeKind(p.byte())}
	o.Reason = p.word()
	p.raw() // the twin
	o.Sink = p.word()
	o.Topic = p.word()
	o.Partition = int32(p.varint())
	o.Offset = p.varint()
	o.Replay = p.word()
	return o
}

// outcome reads an outcome. Where its key was destroyed, or there is none, the part in the
// clear counts all the same: without it a start would publish the event again.
func (p *payloadReader) outcome(f *frame) (*Outcome, error) {
	o := &Outcome{At: p.time(), Delivery: p.uvarint(), Item: p.count(), Items: p.count(), Kind: OutcomeKind(p.byte())}
	o.Reason = p.word()
	o.Of = p.str()
	o.Sink = p.word()
	o.Topic = p.word()
	o.Partition = int32(p.varint())
	o.Offset = p.varint()
	o.Replay = p.word()
	if f.flags&frameSealed != 0 {
		o.Source = p.word()
		err := p.unseal(f, o.Source, o.At.UnixNano())
		if erased := (*ErasedError)(nil); errors.Is(err, errLocked) || errors.As(err, &erased) {
			return o, nil
		}
		if err != nil || p.bad {
			return o, err
		}
	}
	o.Identity = Identity(p.fixed(16))
	o.Content = Identity(p.fixed(16))
	bits := p.byte()
	p.strs(fieldStrings(&o.Fields))
	if bits&hasAmount != 0 {
		v := p.varint()
		o.Fields.AmountMinor = &v
	}
	if bits&hasLivemode != 0 {
		v := bits&livemode != 0
		o.Fields.Livemode = &v
	}
	if bits&hasState != 0 {
		o.State = Identity(p.fixed(16))
	}
	if bits&hasSteps != 0 {
		p.steps(o)
	}
	return o, nil
}

func (p *payloadReader) marker() *Marker {
	m := &Marker{At: p.time(), Kind: MarkerKind(p.byte()), Key: p.word(), ID: p.u64()}
	m.Data = append([]byte(nil), p.raw()...)
	return m
}
