package archive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"
)

// The index of an encrypted archive has the layout of index.go, and in the clear only what
// the log has in the clear too. The keyring holds a key for it (AES-256 and HMAC keys are
// derived from that), which goes when a source's month is erased: the next start makes
// another one and builds the index anew.
//
//	x, b, B, h  the hash is the first 8 bytes of HMAC-SHA256 (field, value)
//	r  1 how it is sealed, uvarint received-at, ref, 1 kinds, uvarint size, str id, source,
//	   verdict | 12 nonce, the row as index.go has it, without those three strings
//	o  1 how it is sealed, str of the outcome as index.go has it, without hashes and fields,
//	   str source | 12 nonce, 16 identity, 16 content, 16 state, the event's fields where
//	   they are kept
//	e  the identity, and the content in the value, each encrypted as one block of AES: equal
//	   ones stay equal
//
// Behind "|" AES-256-GCM, with what stands before it as additional data and random nonces.
// How it is sealed: 1 under a key that is derived from that of the source and month (of the
// delivery, of the outcome), so that erasing that takes effect here at once; 2 under the
// index's own, where they have none as they are older than the encryption; 0: nothing is left.
const (
	indexFormatSealed = 8

	indexLabel = "penstock archive index row 1"

	sealNothing = 0
	sealBySrc   = 1
	sealOwn     = 2

	reasonLocked = "locked" // there is no key for the row, and it was not erased
)

// codec writes and reads what the index keeps of a delivery. nil: in the clear. It is safe
// for concurrent use.
type codec struct {
	keys          *Keys
	check         uint64 // says which key it is
	own           cipher.AEAD
	ids, contents cipher.Block
	macs          sync.Pool // of *valueHash
}

// valueHash computes hashes of values, and keeps those that come again and again.
type valueHash struct {
	mac   hash.Hash
	buf   []byte
	known map[fieldValue]uint64
}

func newCodec(keys *Keys) (*codec, error) {
	if keys == nil {
		return nil, nil
	}
	key, err := keys.ofIndex()
	if err != nil {
		return nil, err
	}
	var sub [4][]byte
	for i, label := range []string{"value", "own", "identity", "content"} {
		if sub[i], err = hkdf.Key(sha256.New, key, nil, "penstock archive index "+label+" 1", KeyBytes); err != nil {
			return nil, err
		}
	}
	c := &codec{keys: keys}
	c.macs.New = func() any {
		return &valueHash{mac: hmac.New(sha256.New, sub[0]), known: make(map[fieldValue]uint64)}
	}
	c.check = c.hash(0, "check")
	var err1, err2, err3 error
	c.own, err1 = newGCM(sub[1])
	c.ids, err2 = aes.NewCipher(sub[2])
	c.contents, err3 = aes.NewCipher(sub[3])
	return c, errors.Join(err1, err2, err3)
}

// format and which key: an index that has others is built anew.
func (c *codec) format() (format, check uint64) {
	if c == nil {
		return indexFormat, 0
	}
	return indexFormatSealed, c.check
}

// few says whether a field has so few values that their hashes are worth keeping.
func few(field byte) bool {
	switch field {
	case bySource, byProvider, byVerdict, byReason, byOutcome, byEventType, byType, byStatus, byLivemode:
		return true
	}
	return false
}

func (c *codec) hash(field byte, value string) uint64 {
	if c == nil {
		return fnv64(value)
	}
	h := c.macs.Get().(*valueHash)
	defer c.macs.Put(h)
	if v, ok := h.known[fieldValue{field, value}]; ok {
		return v
	}
	h.mac.Reset()
	h.buf = append(append(h.buf[:0], field), value...)
	h.mac.Write(h.buf) // never fails
	h.buf = h.mac.Sum(h.buf[:0])
	v := binary.BigEndian.Uint64(h.buf)
	if few(field) && len(h.known) < 1024 {
		h.known[fieldValue{field, value}] = v
	}
	return v
}

func (c *codec) valueKey(field byte, value string) valueKey {
	return valueKey{field: field, kind: kindOf(field, value), hash: c.hash(field, value)}
}

// valueKeys lists an entry's searchable values, each once.
func (c *codec) valueKeys(e *entry) []valueKey {
	keys := make([]valueKey, 0, 16)
	e.each(func(field byte, value string) bool {
		if k := c.valueKey(field, value); !hasKey(keys, k) {
			keys = append(keys, k)
		}
		return true
	})
	return keys
}

// under says how something of a source and time is sealed.
func (c *codec) under(source string, ns int64) (how byte, a cipher.AEAD) {
	a, err := c.keys.aead(openName{keyName{source, monthOf(ns)}, 0, indexLabel})
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		return sealNothing, nil
	}
	if err != nil {
		return sealOwn, c.own
	}
	return sealBySrc, a
}

// opener gives what that was sealed with. Reason: why there is nothing.
func (c *codec) opener(how byte, source string, ns int64) (a cipher.AEAD, reason string) {
	switch now, a := c.under(source, ns); {
	case how == sealNothing || how == sealBySrc && now == sealNothing:
		return nil, reasonErased
	case how == sealOwn:
		return c.own, ""
	case now == sealBySrc:
		return a, ""
	}
	return nil, reasonLocked
}

func sealRest(b []byte, a cipher.AEAD, plain []byte) []byte {
	var nonce [sealNonce]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		panic("BUG: the system has no random numbers: " + err.Error()) // crypto/rand says that it never returns one
	}
	head := len(b)
	b = append(b, nonce[:]...)
	return a.Seal(b, nonce[:], plain, b[:head])
}

func openRest(b []byte, head int, a cipher.AEAD) ([]byte, error) {
	if len(b) < head+sealNonce {
		return nil, errRow
	}
	plain, err := a.Open(nil, b[head:head+sealNonce], b[head+sealNonce:], b[:head])
	if err != nil {
		return nil, fmt.Errorf("%w: its seal does not hold", errRow)
	}
	return plain, nil
}

// visible is what may be kept of an entry: of an erased one what stands in the log in the
// clear, whatever later outcomes say.
func (c *codec) visible(e *entry) *entry {
	if c == nil {
		return e
	}
	if how, _ := c.under(e.row.Source, nanos(e.row.ReceivedAt)); how != sealNothing {
		return e
	}
	return e.stub(reasonErased)
}

func (e *entry) stub(reason string) *entry {
	r := &e.row
	return &entry{ref: e.ref, kinds: e.kinds, row: Row{ID: r.ID, Seq: r.Seq, ReceivedAt: r.ReceivedAt, Source: r.Source,
		Verdict: r.Verdict, Size: r.Size, Reason: reason}}
}

// row encodes a row, in the memory of b.
func (c *codec) row(b []byte, e *entry) []byte {
	b = b[:0]
	if c == nil {
		return appendEntry(b, e)
	}
	ns := nanos(e.row.ReceivedAt)
	how, a := c.under(e.row.Source, ns)
	b = append(b, how)
	b = binary.AppendUvarint(b, uint64(ns))
	b = binary.AppendUvarint(b, uint64(e.ref))
	b = append(b, e.kinds)
	b = binary.AppendUvarint(b, uint64(e.row.Size))
	for _, s := range [...]string{e.row.ID, e.row.Source, e.row.Verdict} {
		b = appendString(b, s)
	}
	if how == sealNothing {
		return b
	}
	rest := *e
	rest.row.ID, rest.row.Source, rest.row.Verdict = "", "", ""
	return sealRest(b, a, appendEntry(make([]byte, 0, 512), &rest))
}

// decodeRow decodes a row.
func (c *codec) decodeRow(b []byte) (*entry, error) {
	if c == nil {
		return decodeEntry(b)
	}
	d := decoder{s: string(b)}
	how := d.byte()
	ns := int64(d.uvarint())
	e := &entry{ref: ref(d.uvarint()), kinds: d.byte()}
	e.row.ReceivedAt, e.row.Seq, e.row.Size = time.Unix(0, ns).UTC(), e.ref.public(), int64(d.uvarint())
	e.row.ID, e.row.Source, e.row.Verdict = d.str(), d.str(), d.str()
	if d.err != nil || how > sealOwn {
		return nil, errRow
	}
	a, reason := c.opener(how, e.row.Source, ns)
	if reason != "" {
		return e.stub(reason), nil
	}
	plain, err := openRest(b, len(b)-len(d.s), a)
	if err != nil {
		return nil, err
	}
	whole, err := decodeEntry(plain)
	if err != nil {
		return nil, err
	}
	whole.row.ID, whole.row.Source, whole.row.Verdict = e.row.ID, e.row.Source, e.row.Verdict
	return whole, nil
}

// outcome encodes an outcome of r, in the memory of b.
func (c *codec) outcome(b []byte, o *Outcome, r ref) []byte {
	b = b[:0]
	fields := func(b []byte) []byte {
		if r.log() == 1 {
			b = appendItem(b, &item{n: o.Item, f: clipFields(o.Fields)})
		}
		return b
	}
	if c == nil {
		return fields(appendOutcome(b, o))
	}
	open := *o
	open.Identity, open.Content, open.State, open.Fields = Identity{}, Identity{}, Identity{}, Fields{}
	how, a := c.under(o.Source, nanos(o.At))
	b = append(b, how)
	b = appendString(b, string(appendOutcome(nil, &open)))
	b = appendString(b, o.Source)
	if how == sealNothing {
		return b
	}
	plain := append(append(append(make([]byte, 0, 256), o.Identity[:]...), o.Content[:]...), o.State[:]...)
	return sealRest(b, a, fields(plain))
}

// decodeOutcome decodes an outcome.
func (c *codec) decodeOutcome(b []byte) (Outcome, error) {
	if c == nil {
		return decodeOutcome(b)
	}
	d := decoder{s: string(b)}
	how := d.byte()
	open, source := d.str(), d.str()
	if d.err != nil || how > sealOwn {
		return Outcome{}, errRow
	}
	o, err := decodeOutcome([]byte(open))
	if err != nil {
		return o, err
	}
	o.Source = source
	a, reason := c.opener(how, source, nanos(o.At))
	if reason != "" {
		return o, nil
	}
	plain, err := openRest(b, len(b)-len(d.s), a)
	if err != nil {
		return o, err
	}
	d = decoder{s: string(plain)}
	for _, id := range []*Identity{&o.Identity, &o.Content, &o.State} {
		copy(id[:], d.bytes(len(id)))
	}
	if d.err == nil && d.s != "" {
		o.Fields = d.item().f
	}
	if d.err != nil || d.s != "" {
		return o, errRow
	}
	return o, nil
}

// identity is what stands for one in the index; opened is the way back.
func (c *codec) identity(id Identity) Identity {
	if c != nil {
		c.ids.Encrypt(id[:], id[:])
	}
	return id
}

func (c *codec) opened(id Identity) Identity {
	if c != nil {
		c.ids.Decrypt(id[:], id[:])
	}
	return id
}

// evidence encodes what a proof is kept with, in the memory of b.
func (c *codec) evidence(b []byte, r ref, o *Outcome, content Identity, id string) []byte {
	if c != nil {
		c.contents.Encrypt(content[:], content[:])
	}
	return appendEvidence(b[:0], r, o, content, id)
}

func (c *codec) openEvidence(ev *evidence) {
	if c != nil {
		c.contents.Decrypt(ev.content[:], ev.content[:])
	}
}
