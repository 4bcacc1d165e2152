package archive

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
)

// A sealed record: bit 0 of its frame's flags, in segments of format version 3 with bit 3
// of the header's flags. The first part of the payload (codec.go) stays in the clear, so
// that recovery, check, retention and the pump's ledger need no key; the rest is sealed:
//
//	delivery  8 received_at, str source, 16 id, 8 epoch, 1 verdict | the rest
//	outcome   8 at .. str replay, then str source | identity .. state
//	marker    nothing is sealed: epochs hold no secrets, others name deliveries and people
//
// and in the place of "|" stand 8 bytes of salt; behind the sealed part its 16 bytes of tag.
//
// AES-256-GCM; the key is HKDF-SHA256 (sealLabel, the salt) of the key of the source and of
// the month of the record's time; the nonce is 4 bytes type and 8 bytes seq, little endian;
// additional data is what stands in the clear, salt included. The salt is that of the
// segment that the record was written to first: random, and a segment is written by one
// life, in which it gives a seq once. So no nonce comes twice, and the record may move to
// another segment (carried over, thinned) as it is, without a key.
const (
	frameSealed   = 1 << 0
	sealSalt      = 8
	sealOverhead  = sealSalt + 16
	sealNonce     = 12
	sealLabel     = "penstock archive record 1"
	segmentSealed = 1 << 3 // flag of the header
)

// errLocked: there is no key to open it with.
var errLocked = errors.New("it is encrypted, and no key was given")

// errUnsealed: the checksum matches, and the tag does not.
var errUnsealed = errors.New("its seal does not hold although the checksum matches: it was written by somebody else, or under another key")

// sealer seals the records of one journal. Its owner's mutex guards it.
type sealer struct {
	keys  *Keys
	salt  uint64
	aeads map[keyName]cipher.AEAD // of this salt
	nonce [sealNonce]byte         // a local one would be allocated for each record
}

// begin notes where the sealed part starts: behind the salt.
func (s *sealer) begin(buf []byte, salt uint64) ([]byte, int) {
	if s == nil {
		return buf, 0
	}
	buf = binary.LittleEndian.AppendUint64(buf, salt)
	return buf, len(buf)
}

// end seals what stands behind from. start is where the frame begins.
func (s *sealer) end(buf []byte, start, from int, salt uint64, typ frameType, seq uint64, name keyName) []byte {
	if s == nil {
		return buf
	}
	a := s.aead(salt, name)
	sealNonceOf(&s.nonce, typ, seq)
	buf = a.Seal(buf[:from], s.nonce[:], buf[from:], buf[start+frameHead:from])
	buf[start+37] = frameSealed
	return buf
}

func sealNonceOf(n *[sealNonce]byte, typ frameType, seq uint64) {
	binary.LittleEndian.PutUint32(n[:], uint32(typ))
	binary.LittleEndian.PutUint64(n[4:], seq)
}

func (s *sealer) aead(salt uint64, name keyName) cipher.AEAD {
	if s.salt != salt || s.aeads == nil {
		s.salt, s.aeads = salt, make(map[keyName]cipher.AEAD)
	}
	if a := s.aeads[name]; a != nil {
		return a
	}
	k := (*s.keys.names.Load())[name]
	if k == nil || !k.erased.IsZero() {
		// Whoever appends has made sure of it. In the clear it must not be written.
		panic(fmt.Sprintf("BUG: source %q has no key for %s", name.source, monthText(name.month)))
	}
	a, err := k.derive(salt, sealLabel)
	if err != nil {
		panic("BUG: a key of the right size is refused: " + err.Error())
	}
	s.aeads[name] = a
	return a
}

// unseal opens the part of the payload that has not been read, of a record of source and
// the time ns, and goes on with what was in it.
func (p *payloadReader) unseal(f *frame, source string, ns int64) error {
	if f.flags&frameSealed == 0 {
		return nil
	}
	salt := p.u64()
	if p.bad {
		return errPayload
	}
	if p.keys == nil {
		return errLocked
	}
	a, err := p.keys.aead(openName{keyName{source, monthOf(ns)}, salt, sealLabel})
	if err != nil {
		return err
	}
	var nonce [sealNonce]byte
	sealNonceOf(&nonce, f.typ, f.seq)
	plain, err := a.Open(nil, nonce[:], p.b, f.payload[:len(f.payload)-len(p.b)])
	if err != nil {
		return errUnsealed
	}
	p.b = plain
	return nil
}
