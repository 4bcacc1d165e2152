package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A packed segment is a sealed one that was compressed: format version 2. It has the
// name of the segment and its offsets: whoever reads it sees the file as it was, header,
// frames and footer, so that marks, chain and digest go on to hold. On disk it is the
// header block of the segment with version 2 and, inside the checksum, two fields more:
//
//	offset size
//	88     8    size of the file before it was packed, footer included
//	96     8    offset of the seek table in this file
//
// then frames (frame.go) with the segment's number and its salt inverted, so that no
// record passes for one of them: the blocks, and the seek table, with which it ends.
//
//	block   seq: of its first record; base: offset at which its content began before;
//	        payload: 4 length of the content, one zstd frame (RFC 8878)
//	table   payload: n times (8 seq, 4 base, 4 offset in this file), in order
//
// A block is at most 128 KiB of whole frames, or a piece of one that is larger. Larger
// ones shrink better (256 KiB: by 4 to 7 %), smaller ones lose less to a flipped bit and
// cost less to read one record. A dictionary gains 4 to 8 % at that size, doubles the time
// of a read, and would be one place whose loss takes all blocks: there is none. Where the
// table is damaged the blocks are found without it. Blocks of sealed records: pack_sealed.go.
const (
	packedVersion = 2
	packBlock     = 128 << 10
	tableEntry    = 16

	// packedChunk is how much is read at once in search of one record: no block behind the
	// record's own is unpacked for nothing.
	packedChunk = 8 << 10
)

// packing is what the header of a packed segment says beyond the segment's own.
type packing struct {
	size  int64 // of the file before; 0: this is no packed segment
	table int64
}

// inverted is the tag of a packed segment's blocks.
func (t tag) inverted() tag { return tag{number: t.number, salt: ^t.salt} }

// packedBlock is one entry of the seek table.
type packedBlock struct {
	seq uint64
	raw int64 // where its content begins, as the segment counts
	off int64 // in the file
	end int64 // of it in the file
}

// packedFile is a packed segment as the file that it was made of. What stood in a block
// that is damaged reads as zeros, which are no frame.
type packedFile struct {
	file   File  // as it is on disk
	tag    tag   // of the blocks
	size   int64 // before it was packed
	stored int64 // on disk
	blocks []packedBlock
	cache  *blockCache
	faults []string // what is wrong with it beside its blocks

	mu       sync.Mutex
	damaged  map[int64]string // by where the content begins: why a block cannot be read
	failures map[int64]int    // reads that failed
}

var errPacked = errors.New("a packed segment is never written")

func (*packedFile) WriteAt([]byte, int64) (int, error) { return 0, errPacked }
func (*packedFile) Sync() error                        { return errPacked }
func (*packedFile) Truncate(int64) error               { return errPacked }
func (p *packedFile) Close() error                     { return p.file.Close() }

// Size is that of the file before it was packed.
func (p *packedFile) Size() (int64, error) { return p.size, nil }

// openSegment opens a segment for reading, packed or not. What cannot be told from its
// header, or from its first block where that is lost, is read as it is.
func openSegment(fsys FS, path string, cache *blockCache) (File, error) {
	f, err := fsys.Open(path, false)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	h, err := readHeader(f)
	switch {
	case err == nil && h.pack.size > 0:
		return newPackedFile(f, h.tag, h.pack, size, cache), nil
	case err == nil || errors.Is(err, ErrNewer):
		return f, nil
	}
	if t, ok := guessTag(f, size, true); ok {
		return newPackedFile(f, t.inverted(), packing{}, size, cache), nil
	}
	return f, nil
}

func newPackedFile(f File, t tag, pack packing, fileSize int64, cache *blockCache) *packedFile {
	p := &packedFile{file: f, tag: t.inverted(), size: pack.size, stored: fileSize, cache: cache,
		damaged: make(map[int64]string), failures: make(map[int64]int)}
	if err := p.readTable(pack, fileSize); err != nil {
		if pack.size > 0 {
			p.faults = append(p.faults, fmt.Sprintf("its seek table cannot be used (%v); its blocks are read without", err))
		}
		p.walk(fileSize)
	}
	return p
}

// readTable takes the seek table as it is, if it is whole and covers the segment.
func (p *packedFile) readTable(pack packing, fileSize int64) error {
	if pack.table < segmentHead || fileSize-pack.table < frameHead || fileSize-pack.table > maxPayload {
		return errors.New("the file does not end where it should")
	}
	sc := &scanner{src: p.file, tag: p.tag, end: fileSize, packed: true, chunk: int(fileSize - pack.table)}
	f, why, err := sc.frameAt(pack.table)
	switch {
	case err != nil:
		return err
	case why != "":
		return errors.New(why)
	case f.typ != typeTable || f.off+f.size != fileSize || len(f.payload)%tableEntry != 0:
		return errors.New("it is none")
	}
	r := payloadReader{b: f.payload}
	blocks := make([]packedBlock, len(f.payload)/tableEntry)
	for i := range blocks {
		blocks[i] = packedBlock{seq: r.u64(), raw: int64(r.u32()), off: int64(r.u32()), end: pack.table}
		if i > 0 {
			blocks[i-1].end = blocks[i].off
		}
	}
	raw, off := int64(segmentHead), int64(segmentHead)
	for i, b := range blocks {
		if i == 0 && (b.raw != raw || b.off != off) || i > 0 && (b.raw <= raw || b.off <= off) || b.raw >= pack.size || b.off >= pack.table {
			return errors.New("it does not cover the segment")
		}
		raw, off = b.raw, b.off
	}
	p.blocks = blocks
	return nil
}

// walk finds the blocks by their own headers.
func (p *packedFile) walk(fileSize int64) {
	sc := &scanner{src: p.file, tag: p.tag, off: segmentHead, end: fileSize, packed: true, salvage: true, chunk: packBlock}
	known := p.size > 0
	for {
		it, err := sc.next()
		if err != nil {
			return
		}
		f := it.frame
		if !it.isFrame() || !f.typ.packed() || len(f.payload) < 4 {
			continue
		}
		p.blocks = append(p.blocks, packedBlock{seq: f.seq, raw: f.base, off: f.off, end: f.off + f.size})
		if !known {
			p.size = f.base + int64(binary.LittleEndian.Uint32(f.payload))
		}
	}
}

// ReadAt reads the segment as it was before it was packed.
func (p *packedFile) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		at := off + int64(n)
		if at >= p.size {
			return n, io.EOF
		}
		if at < segmentHead {
			m, err := p.file.ReadAt(b[n:n+int(min(int64(len(b)-n), segmentHead-at))], at)
			n += m
			if err != nil {
				return n, err
			}
			continue
		}
		m, err := p.readBlock(b[n:], at)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readBlock reads from the block that at lies in, up to its end; zeros where there is
// none or where it is damaged.
func (p *packedFile) readBlock(b []byte, at int64) (int, error) {
	i, end := p.blockOf(at)
	b = b[:min(int64(len(b)), end-at)]
	if i >= 0 {
		content, err := p.content(p.blocks[i], end)
		if err != nil {
			return 0, err
		}
		if skip := at - p.blocks[i].raw; content != nil && skip < int64(len(content.b)) {
			n := copy(b, content.b[skip:])
			clear(b[n:])
			return len(b), nil
		}
	}
	clear(b)
	return len(b), nil
}

// blockOf gives the block that at lies in, -1 where there is none, and where its content ends.
func (p *packedFile) blockOf(at int64) (i int, end int64) {
	i = sort.Search(len(p.blocks), func(i int) bool { return p.blocks[i].raw > at }) - 1
	if i+1 < len(p.blocks) {
		return i, p.blocks[i+1].raw
	}
	return i, p.size
}

// content gives what a block holds; nothing, and no error, where it is damaged.
func (p *packedFile) content(blk packedBlock, end int64) (*unpacked, error) {
	if c := p.cache.get(p.tag, blk.off); c != nil {
		return c, nil
	}
	c, why, err := p.unpack(blk, end)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		// As for other files: a controller that resets must not cost records, a dead
		// sector must not be asked again for each of the pages that stood in the block.
		if p.failures[blk.raw]++; p.failures[blk.raw] < readAttempts {
			return nil, err
		}
		why = err.Error()
	}
	if why != "" {
		p.damaged[blk.raw] = fmt.Sprintf("its compressed block (%d bytes at offset %d of the file) cannot be used: %s", blk.end-blk.off, blk.off, why)
		return nil, nil
	}
	delete(p.failures, blk.raw)
	delete(p.damaged, blk.raw)
	p.cache.put(p.tag, blk.off, c)
	return c, nil
}

func (p *packedFile) unpack(blk packedBlock, end int64) (content *unpacked, why string, err error) {
	b := make([]byte, blk.end-blk.off)
	if n, err := p.file.ReadAt(b, blk.off); n < len(b) {
		if errors.Is(err, io.EOF) {
			return nil, "the file is too short", nil
		}
		return nil, "", fmt.Errorf("read block at offset %d: %w", blk.off, err)
	}
	if len(b) < frameHead+4 {
		return nil, badLength, nil
	}
	if size, why := frameSize(b, p.tag); why != "" {
		return nil, why, nil
	} else if size != int64(len(b)) {
		return nil, badLength, nil
	}
	f, why := decodeFrame(b, blk.off)
	if why != "" {
		return nil, why, nil
	}
	length := int64(binary.LittleEndian.Uint32(f.payload))
	// After a walk the next block may not be the one that follows.
	if !f.typ.packed() || f.base != blk.raw || f.typ == typeBlock && length > packBlock || length > end-blk.raw {
		return nil, "it is not the one that belongs there", nil
	}
	if f.typ == typeSealed {
		if content, err = unpackSealed(f.payload, f.base, p.tag.inverted(), p.cache.ring()); err != nil {
			return nil, fmt.Sprintf("it does not unpack: %v", err), nil
		}
		return content, "", nil
	}
	dec, err := unpacker()
	if err != nil {
		return nil, "", err
	}
	plain, err := dec.DecodeAll(f.payload[4:], make([]byte, 0, length))
	if err != nil || int64(len(plain)) != length {
		return nil, fmt.Sprintf("it does not unpack: %v", err), nil
	}
	return &unpacked{b: plain}, "", nil
}

// look gives what a check has to say of the file beside its blocks.
func (p *packedFile) look() []string {
	faults := p.faults
	b := make([]byte, segmentHead)
	if n, err := p.file.ReadAt(b, 0); n < segmentHead {
		return append(faults, fmt.Sprintf("its header cannot be read: %v", err))
	}
	h, err := parseHeader(b)
	if err != nil {
		h, err = parseHeader(b[headerCopy:])
	}
	// Where both are lost that was said already.
	if err == nil && !bytes.Equal(b, h.block()) {
		faults = append(faults, "one copy of its header, or what is around them, is not what was written; the other is read")
	}
	return faults
}

// why says what is wrong with the blocks between two offsets; "" when nothing is known.
func (p *packedFile) why(from, to int64) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, text := int64(-1), ""
	for raw, t := range p.damaged {
		if raw < to && raw+packBlock > from && (first < 0 || raw < first) {
			first, text = raw, t
		}
	}
	return text
}

// unpacker is shared: DecodeAll keeps nothing between calls.
var unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(2*maxSealedBlock))
})

// blockCache holds the contents of the blocks that were read last, 2 MiB in all (4 where they
// are sealed), so that neighbours are read without unpacking their block again, and the keys
// that sealed ones are opened with. A nil one holds nothing.
type blockCache struct {
	keys  *Keys // nil: what is sealed stays so
	mu    sync.Mutex
	clock uint64
	slots [16]cachedBlock
}

type cachedBlock struct {
	tag     tag
	off     int64
	content *unpacked
	used    uint64
}

// ring gives the keys.
func (c *blockCache) ring() *Keys {
	if c == nil {
		return nil
	}
	return c.keys
}

func (c *blockCache) get(t tag, off int64) *unpacked {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	for i := range c.slots {
		if s := &c.slots[i]; s.off == off && s.tag == t && s.content != nil {
			s.used = c.clock
			return s.content
		}
	}
	return nil
}

func (c *blockCache) put(t tag, off int64, content *unpacked) {
	if c == nil || len(content.b) == 0 || len(content.b) > sealedBlock {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := &c.slots[0]
	for i := range c.slots {
		if s := &c.slots[i]; s.used < oldest.used {
			oldest = s
		}
	}
	*oldest = cachedBlock{tag: t, off: off, content: content, used: c.clock}
}
