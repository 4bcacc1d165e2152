package archive

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A packed segment with sealed records: format version 4. What is sealed does not shrink, so
// its records are opened, compressed together, and what comes of it is sealed again, for
// each source and month under a key of theirs. The file is that of pack.go but for its
// blocks, which are of another type where they hold sealed records:
//
//	sealed  seq, base: as in a block; payload: 4 length of the content, 8 salt,
//	        uvarint length, one zstd frame: the content, in which of a sealed record that is
//	        in a group only the part in the clear is left (seal.go, salt included);
//	        n groups: str source, 4 month, uvarint length, one zstd frame, sealed: what is
//	        missing of the group's records, opened, in their order
//
// Every sealed record of a group's source and month is in the group; one that has no group
// stands as it was (its key was destroyed before). Group: AES-256-GCM; the key is
// HKDF-SHA256 (blockLabel, the salt) of that of the source and month, the nonce 4 bytes type
// and 8 bytes base, additional data the payload before the sealed part. The salt is random,
// another one each time that a segment is packed, so no nonce comes twice.
//
// Reading puts the records together as they were, byte for byte: a seal with the same key
// and nonce gives the same bytes. Without the key the sealed parts read as zeros; the
// checksum of the block says then that the rest is what was written, and the records can be
// counted, checked and thinned. Nothing that is opened is ever written to the disk.
const (
	sealedPackVersion = 4
	blockLabel        = "penstock archive block 1"
	blockSalt         = 8

	// sealedBlock is how much a block holds. It is more than of others: what shrinks
	// together is only what one source sent.
	sealedBlock = 256 << 10
	// maxSealedBlock bounds a record that has a block of its own. A larger one stays as it is.
	maxSealedBlock = 16 << 20
)

// unpacked is what a block holds. Nobody writes to it.
type unpacked struct {
	b    []byte
	shut []region // frames (offsets in b) whose sealed part is missing: there is no key
}

// sealedFrame is a sealed record's frame, taken apart.
type sealedFrame struct {
	name  keyName
	salt  uint64
	clear int // bytes of the payload that stand in the clear, salt included
	size  int // bytes of the payload
}

// parseSealed reads the clear part of a sealed record's frame at the beginning of b, which
// may end behind that.
func (p *payloadReader) parseSealed(b []byte) (s sealedFrame, ok bool) {
	s.size = int(binary.LittleEndian.Uint32(b[4:]))
	p.b, p.bad = b[frameHead:], false
	have, ns := len(p.b), int64(0)
	switch frameType(b[36]) {
	case typeDelivery:
		d := p.skimDelivery()
		s.name.source, ns = d.Source, d.ReceivedAt.UnixNano()
	case typeOutcome:
		o := p.skimOutcome()
		s.name.source, ns = p.word(), o.At.UnixNano()
	default:
		return s, false
	}
	s.salt = p.u64()
	s.name.month = monthOf(ns)
	s.clear = have - len(p.b)
	return s, !p.bad && s.size >= s.clear+sealOverhead-sealSalt
}

// frameLength is that of the whole frame which b begins with; 0 where it is none of t.
func frameLength(b []byte, t tag) int {
	if len(b) < frameHead {
		return 0
	}
	n, why := frameSize(b, t)
	if why != "" {
		return 0
	}
	return int(n)
}

// sealPacker makes blocks of sealed records. It belongs to one goroutine.
type sealPacker struct {
	keys   *Keys
	salt   uint64
	dec    payloadReader
	clear  []byte
	packed []byte
	groups []*sealGroup
}

type sealGroup struct {
	name  keyName
	plain []byte
	shut  bool
}

func (p *sealPacker) group(name keyName) *sealGroup {
	for _, g := range p.groups {
		if g.name == name {
			return g
		}
	}
	// Memory is kept from block to block.
	if n := len(p.groups); n < cap(p.groups) && p.groups[:n+1][n] != nil {
		p.groups = p.groups[:n+1]
		g := p.groups[n]
		g.name, g.plain, g.shut = name, g.plain[:0], false
		return g
	}
	g := &sealGroup{name: name}
	p.groups = append(p.groups, g)
	return g
}

// take takes a block's content apart. There may be nothing to do: no record in it is sealed,
// or it is a piece of one.
func (p *sealPacker) take(raw []byte, t tag) (some bool, err error) {
	p.clear, p.groups = p.clear[:0], p.groups[:0]
	for len(raw) > 0 {
		n := frameLength(raw, t)
		if n == 0 || n > len(raw) {
			return false, nil
		}
		b := raw[:n]
		raw = raw[n:]
		if b[37]&frameSealed == 0 {
			p.clear = append(p.clear, b...)
			continue
		}
		s, ok := p.dec.parseSealed(b)
		if !ok {
			return false, fmt.Errorf("%w: seq=%d: %w", errAsIs, frameSeq(b), errPayload)
		}
		g := p.group(s.name)
		if !g.shut {
			if err := p.open(g, &s, b); err != nil {
				return false, err
			}
		}
		if g.shut {
			p.clear = append(p.clear, b...)
			continue
		}
		p.clear = append(p.clear, b[:frameHead+s.clear]...)
		some = true
	}
	return some, nil
}

func (p *sealPacker) open(g *sealGroup, s *sealedFrame, b []byte) error {
	a, err := p.keys.aead(openName{s.name, s.salt, sealLabel})
	if err != nil {
		// If the key is destroyed just now, the group has records already: another time.
		if len(g.plain) > 0 {
			return err
		}
		g.shut = true
		return nil
	}
	var nonce [sealNonce]byte
	sealNonceOf(&nonce, frameType(b[36]), frameSeq(b))
	at := frameHead + s.clear
	if g.plain, err = a.Open(g.plain, nonce[:], b[at:], b[frameHead:at]); err != nil {
		return fmt.Errorf("%w: seq=%d: %w", errAsIs, frameSeq(b), errUnsealed)
	}
	return nil
}

// payload appends what take has taken apart.
func (p *sealPacker) payload(b []byte, enc *zstd.Encoder, length, base int64) ([]byte, error) {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	b = binary.LittleEndian.AppendUint64(b, p.salt)
	p.packed = enc.EncodeAll(p.clear, p.packed[:0])
	b = putStr(b, p.packed)
	nonce := blockNonce(base)
	for _, g := range p.groups {
		if g.shut {
			continue
		}
		a, err := p.keys.aead(openName{g.name, p.salt, blockLabel})
		if err != nil {
			return nil, err
		}
		p.packed = enc.EncodeAll(g.plain, p.packed[:0])
		b = putStr(b, g.name.source)
		b = binary.LittleEndian.AppendUint32(b, g.name.month)
		b = binary.AppendUvarint(b, uint64(len(p.packed)+a.Overhead()))
		b = a.Seal(b, nonce[:], p.packed, b[start:])
	}
	return b, nil
}

func blockNonce(base int64) (n [sealNonce]byte) {
	sealNonceOf(&n, typeSealed, uint64(base))
	return n
}

// errBlock: a block's checksum matches, and it does not hold what it should.
var errBlock = errors.New("it does not hold what it should although its checksum matches")

// unpackSealed puts a block's content together.
func unpackSealed(payload []byte, base int64, t tag, keys *Keys) (*unpacked, error) {
	dec, err := unpacker()
	if err != nil {
		return nil, err
	}
	p := payloadReader{b: payload}
	length, salt := int64(p.u32()), p.u64()
	packed := p.raw()
	if p.bad || length > maxSealedBlock {
		return nil, errBlock
	}
	open, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, err
	}
	groups := make(map[keyName]*sealGroup)
	nonce := blockNonce(base)
	for len(p.b) > 0 && !p.bad {
		name := keyName{p.str(), p.u32()}
		n := p.uvarint()
		before := payload[:len(payload)-len(p.b)]
		sealed := p.take(n)
		g := &sealGroup{name: name, shut: keys == nil}
		groups[name] = g
		if p.bad || g.shut {
			continue
		}
		a, err := keys.aead(openName{name, salt, blockLabel})
		if err != nil {
			g.shut = true
			continue
		}
		b, err := a.Open(nil, nonce[:], sealed, before)
		if err != nil {
			return nil, errUnsealed
		}
		if g.plain, err = dec.DecodeAll(b, nil); err != nil {
			return nil, err
		}
	}
	if p.bad {
		return nil, errBlock
	}
	u := &unpacked{b: make([]byte, 0, length)}
	return u, u.join(open, groups, t, keys, int(length))
}

// join puts the frames together.
func (u *unpacked) join(open []byte, groups map[keyName]*sealGroup, t tag, keys *Keys, length int) error {
	var dec payloadReader
	var last openName
	var aead cipher.AEAD
	for len(open) > 0 {
		n := frameLength(open, t)
		if n == 0 || n > length-len(u.b) {
			return errBlock
		}
		var g *sealGroup
		var s sealedFrame
		if open[37]&frameSealed != 0 {
			ok := false
			if s, ok = dec.parseSealed(open); !ok {
				return errBlock
			}
			g = groups[s.name]
		}
		if g == nil {
			if n > len(open) {
				return errBlock
			}
			u.b, open = append(u.b, open[:n]...), open[n:]
			continue
		}
		at, start := frameHead+s.clear, len(u.b)
		rest := n - at - (sealOverhead - sealSalt)
		if rest < 0 {
			return errBlock
		}
		u.b, open = append(u.b, open[:at]...), open[at:]
		if !g.shut {
			if name := (openName{s.name, s.salt, sealLabel}); aead == nil || name != last {
				var err error
				if aead, err = keys.aead(name); err != nil {
					g.shut = true // destroyed just now
				}
				last = name
			}
		}
		if g.shut {
			u.shut = append(u.shut, region{off: int64(start), size: int64(n)})
			u.b = append(u.b, make([]byte, n-at)...)
			continue
		}
		if rest > len(g.plain) {
			return errBlock
		}
		head := u.b[start:]
		var nonce [sealNonce]byte
		sealNonceOf(&nonce, frameType(head[36]), frameSeq(head))
		u.b = aead.Seal(u.b, nonce[:], g.plain[:rest], head[frameHead:])
		g.plain = g.plain[rest:]
	}
	if len(u.b) != length {
		return errBlock
	}
	return nil
}

// isShut says whether the frame at off, whose checksum does not match, is one whose sealed
// part is not there for want of a key. What is left of it is what was written: the checksum
// of its block says so.
func (p *packedFile) isShut(off int64) bool {
	i, end := p.blockOf(off)
	if i < 0 {
		return false
	}
	u, err := p.content(p.blocks[i], end)
	if err != nil || u == nil {
		return false
	}
	for _, r := range u.shut {
		if p.blocks[i].raw+r.off == off {
			return true
		}
	}
	return false
}

// sameFrame says whether two frames hold the same.
func sameFrame(a, b *frame) bool {
	return a.off == b.off && a.seq == b.seq && a.typ == b.typ && a.base == b.base && a.flags == b.flags && bytes.Equal(a.payload, b.payload)
}
