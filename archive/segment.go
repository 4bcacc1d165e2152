package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A segment is one file of a log: a header block of 4096 bytes, then frames. Integers
// are little endian. The header stands twice, at 0 and at 2048, so that one bad sector
// does not take the whole segment. Format version 1:
//
//	offset size
//	0      8    "PENSTOCK"
//	8      2    format version, 1
//	10     1    log: 0 deliveries, 1 quarantine, 2 cursors
//	11     1    flags: bit 0 = the predecessor is poisoned: a write or sync of it failed;
//	            bit 1 = the file was another segment before, and still holds its bytes;
//	            bit 2 = thinned (version 3); bit 3 = it has sealed records (version 3)
//	12     4    0
//	16     8    number of the segment, never given twice
//	24     8    salt, random
//	32     8    archive id, random, the same in every segment of an archive
//	40     8    first seq: the file's name; given to no record, except to a first one that
//	            recovery carried over (then 84 is above 4096)
//	48     8    created, unix ns
//	56     8    predecessor: number, 0 = none
//	64     8    predecessor: first seq
//	72     8    predecessor: offset at which it ended
//	80     4    predecessor: digest over its frames as first written
//	84     4    how far this file was synced when it got its name
//	88     36   0
//	124    4    CRC32C over bytes 0..123
//
// Of every version to come magic, version, log and the checksum stand where they stand, and
// the second copy, so that a build knows what it must leave alone.
//
// A sealed segment ends in a frame of type seal at the offset where its records end.
// The footer, its payload: 8 count of records, 8 last seq, 8 newest time (unix ns),
// 4 digest, 4 n, n times (8 seq, 4 offset), 4 m, m times (4 offset, 4 size) of damage that was known.
// A segment without a footer ends where its successor says; one without either is the
// newest, and is scanned when the archive opens.
//
// Some time after it was sealed a segment is compressed: format version 2, see pack.go.
// When it is due and something in it still waits, it is thinned (thin.go), and where the
// archive is encrypted its records are sealed (seal.go): format version 3. One with sealed
// records that was compressed: format version 4, see pack_sealed.go. A file has the lowest
// version that says what it is.
const (
	segmentMagic   = "PENSTOCK"
	segmentVersion = 1
	segmentHead    = 4096
	headerSize     = 128
	headerCopy     = 2048

	predecessorPoisoned = 1 << 0
	fileRecycled        = 1 << 1
	segmentThinned      = 1 << 2

	logMain       = 0
	logQuarantine = 1
	logCursors    = 2

	// markEvery is the distance of the points at which a segment can be entered. Finding
	// a record costs reading and checking that much: about 15 us.
	markEvery = 64 << 10
)

type segmentHeader struct {
	log      uint8
	recycled bool
	tag      tag
	archive  uint64
	first    uint64
	created  int64
	pred     predecessor
	syncedTo int64
	pack     packing
	thin     thinning
	sealed   bool // it has sealed records
}

type predecessor struct {
	number, first uint64
	end           int64
	digest        uint32
	poisoned      bool
}

func (h *segmentHeader) block() []byte {
	b := make([]byte, segmentHead)
	copy(b, segmentMagic)
	le := binary.LittleEndian
	le.PutUint16(b[8:], segmentVersion)
	if h.pack.size > 0 {
		le.PutUint16(b[8:], packedVersion)
		le.PutUint64(b[88:], uint64(h.pack.size))
		le.PutUint64(b[96:], uint64(h.pack.table))
	}
	b[10] = h.log
	if h.pred.poisoned {
		b[11] |= predecessorPoisoned
	}
	if h.recycled {
		b[11] |= fileRecycled
	}
	if h.sealed {
		le.PutUint16(b[8:], thinnedVersion)
		b[11] |= segmentSealed
	}
	if h.thin.end > 0 {
		le.PutUint16(b[8:], thinnedVersion)
		b[11] |= segmentThinned
		le.PutUint64(b[104:], uint64(h.thin.end))
		le.PutUint32(b[112:], h.thin.digest)
		le.PutUint32(b[116:], h.thin.deliveries)
	}
	if h.sealed && h.pack.size > 0 {
		le.PutUint16(b[8:], sealedPackVersion)
	}
	le.PutUint64(b[16:], h.tag.number)
	le.PutUint64(b[24:], h.tag.salt)
	le.PutUint64(b[32:], h.archive)
	le.PutUint64(b[40:], h.first)
	le.PutUint64(b[48:], uint64(h.created))
	le.PutUint64(b[56:], h.pred.number)
	le.PutUint64(b[64:], h.pred.first)
	le.PutUint64(b[72:], uint64(h.pred.end))
	le.PutUint32(b[80:], h.pred.digest)
	le.PutUint32(b[84:], uint32(h.syncedTo))
	le.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli))
	copy(b[headerCopy:], b[:headerSize])
	return b
}

func parseHeader(b []byte) (segmentHeader, error) {
	le := binary.LittleEndian
	if string(b[:8]) != segmentMagic {
		return segmentHeader{}, errors.New("it does not begin as a segment")
	}
	if le.Uint32(b[headerSize-4:]) != crc32.Checksum(b[:headerSize-4], castagnoli) {
		return segmentHeader{}, errors.New("the checksum of its header does not match")
	}
	v := le.Uint16(b[8:])
	reads := uint16(sealedPackVersion)
	if b[10] == logCursors {
		reads = segmentVersion
	}
	switch {
	case v < segmentVersion:
		return segmentHeader{}, fmt.Errorf("its header says format version %d", v)
	case v > reads:
		return segmentHeader{}, newer(uint64(v), uint64(reads))
	}
	if first := le.Uint64(b[40:]); first == 0 || first > maxSeq {
		return segmentHeader{}, fmt.Errorf("its header says that it begins with seq=%d", first)
	}
	h := segmentHeader{
		log:      b[10],
		recycled: b[11]&fileRecycled != 0,
		sealed:   b[11]&segmentSealed != 0,
		tag:      tag{number: le.Uint64(b[16:]), salt: le.Uint64(b[24:])},
		archive:  le.Uint64(b[32:]),
		first:    le.Uint64(b[40:]),
		created:  int64(le.Uint64(b[48:])),
		pred: predecessor{
			number: le.Uint64(b[56:]), first: le.Uint64(b[64:]), end: int64(le.Uint64(b[72:])),
			digest: le.Uint32(b[80:]), poisoned: b[11]&predecessorPoisoned != 0,
		},
		syncedTo: int64(le.Uint32(b[84:])),
	}
	if v == packedVersion || v == sealedPackVersion || v == thinnedVersion && le.Uint64(b[88:]) != 0 {
		h.pack = packing{size: int64(le.Uint64(b[88:])), table: int64(le.Uint64(b[96:]))}
		if h.pack.size <= segmentHead || h.pack.size > math.MaxUint32 {
			return segmentHeader{}, fmt.Errorf("its header says that it had %d bytes before it was packed", h.pack.size)
		}
	}
	if b[11]&segmentThinned != 0 {
		h.thin = thinning{end: int64(le.Uint64(b[104:])), digest: le.Uint32(b[112:]), deliveries: le.Uint32(b[116:])}
		if h.thin.end < segmentHead || h.thin.end > math.MaxUint32 {
			return segmentHeader{}, fmt.Errorf("its header says that its records end at %d", h.thin.end)
		}
	}
	return h, nil
}

// compareHeaders says where the two halves of a header block differ: one bad byte costs
// nothing, a second one would cost the header, so the first is told. -1: they are equal.
func compareHeaders(f io.ReaderAt) (int64, error) {
	b := make([]byte, segmentHead)
	if _, err := f.ReadAt(b, 0); err != nil {
		return 0, fmt.Errorf("read header: %w", err)
	}
	for i := range headerCopy {
		if b[i] != b[headerCopy+i] {
			return int64(i), nil
		}
	}
	return -1, nil
}

// readHeader reads a segment's header, from its second copy where the first is bad.
func readHeader(f io.ReaderAt) (segmentHeader, error) {
	b := make([]byte, segmentHead)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		// One bad sector must not hide the copy.
		n1, _ := f.ReadAt(b[:headerSize], 0)
		n2, err2 := f.ReadAt(b[headerCopy:headerCopy+headerSize], headerCopy)
		if n1 < headerSize && n2 < headerSize {
			return segmentHeader{}, fmt.Errorf("read header: %w", errors.Join(err, err2))
		}
		n = segmentHead
	}
	if n < headerSize {
		return segmentHeader{}, errors.New("it is shorter than a header")
	}
	h, err := parseHeader(b)
	if err == nil || errors.Is(err, ErrNewer) || n < headerCopy+headerSize {
		return h, err
	}
	if h2, err2 := parseHeader(b[headerCopy:]); err2 == nil || errors.Is(err2, ErrNewer) {
		return h2, err2
	}
	return h, err
}

const segmentSuffix = ".seg"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && first <= maxSeq
}

// mark is a point at which a segment can be entered.
type mark struct {
	seq uint64
	off int64
}

// tally is what is known of a segment's records as a whole.
type tally struct {
	count  uint64
	last   uint64 // highest seq
	newest int64  // latest time of a record, unix ns
	digest uint32
}

// segment is one file of a log as the archive knows it.
type segment struct {
	head segmentHeader
	name string
	path string
	fs   FS

	end    atomic.Int64 // readers stop here: end of the last synced batch
	closed atomic.Bool  // end is final
	size   atomic.Int64 // of the file, in bytes, before it was packed
	stored atomic.Int64 // of a packed file: its bytes on disk
	blocks *blockCache

	mu       sync.Mutex
	file     File
	refs     int
	gone     bool // removed from the log
	poisoned bool // never written again
	sealed   bool
	ours     bool // this life writes it, or its footer
	asIs     bool // it cannot be packed
	indexed  bool // marks, cuts and tally are those of the whole segment
	marks    []mark
	cuts     []region
	tally    tally

	// Retention's own, under retaining; see thin.go.
	whole  bool      // it cannot be thinned
	thinAt time.Time // it is not looked at before
	inVain int       // how much waited when it was last looked at in vain
}

// errGone: retention removed the segment.
var errGone = errors.New("the segment was removed")

// lowest is the lowest seq that a record in the segment can have.
func (s *segment) lowest() uint64 {
	if s.head.syncedTo > segmentHead {
		return s.head.first
	}
	return s.head.first + 1
}

// acquire opens the file for reading, or shares what is open. Every acquire wants a
// release.
func (s *segment) acquire() (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil && s.gone {
		return nil, errGone
	}
	if s.file == nil {
		f, err := openSegment(s.fs, s.path, s.blocks)
		if err != nil {
			return nil, fmt.Errorf("open segment %s: %w", s.name, err)
		}
		p, packed := f.(*packedFile)
		if packed {
			s.stored.Store(p.stored)
		} else if s.stored.Load() > 0 {
			_ = f.Close()
			return nil, fmt.Errorf("open segment %s: it is packed, and neither its header nor its first block can be read", s.name)
		}
		s.file = f
	}
	s.refs++
	return s.file, nil
}

// disk is how many bytes the file has.
func (s *segment) disk() int64 {
	if n := s.stored.Load(); n > 0 {
		return n
	}
	return s.size.Load()
}

func (s *segment) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

// drop is release. Caller holds mu.
func (s *segment) drop() {
	s.refs--
	if s.refs == 0 && s.file != nil {
		// Only read from, or already synced: a failing close loses nothing.
		_ = s.file.Close()
		s.file = nil
		if s.sealed && s.closed.Load() {
			// The footer has them: 16 KiB a segment would add up in a large archive.
			s.marks, s.indexed = nil, false
		}
	}
}

// enter gives the offset from which seq is found by reading forward.
func (s *segment) enter(seq uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lo, hi := 0, len(s.marks)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.marks[mid].seq <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return segmentHead
	}
	return s.marks[lo-1].off
}

// scan gives a scanner over what is readable now, beginning at off.
func (s *segment) scan(f File, off int64) *scanner {
	return &scanner{src: f, tag: s.head.tag, off: off, end: s.end.Load()}
}

// footer is the payload of a seal frame.
func (s *segment) footer(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, s.tally.count)
	b = le.AppendUint64(b, s.tally.last)
	b = le.AppendUint64(b, uint64(s.tally.newest))
	b = le.AppendUint32(b, s.tally.digest)
	b = le.AppendUint32(b, uint32(len(s.marks)))
	for _, m := range s.marks {
		b = le.AppendUint64(b, m.seq)
		b = le.AppendUint32(b, uint32(m.off))
	}
	b = le.AppendUint32(b, uint32(len(s.cuts)))
	for _, c := range s.cuts {
		b = le.AppendUint32(b, uint32(c.off))
		b = le.AppendUint32(b, uint32(c.size))
	}
	return b
}

func (s *segment) readFooter(payload []byte) error {
	p := payloadReader{b: payload}
	var t tally
	t.count, t.last, t.newest, t.digest = p.u64(), p.u64(), int64(p.u64()), p.u32()
	n := p.u32()
	if uint64(n)*12 > uint64(len(p.b)) {
		return errPayload
	}
	marks := make([]mark, n)
	for i := range marks {
		marks[i] = mark{seq: p.u64(), off: int64(p.u32())}
	}
	m := p.u32()
	if uint64(m)*8 > uint64(len(p.b)) {
		return errPayload
	}
	cuts := make([]region, m)
	for i := range cuts {
		cuts[i] = region{off: int64(p.u32()), size: int64(p.u32())}
	}
	if p.bad {
		return errPayload
	}
	s.tally, s.marks, s.cuts, s.sealed, s.indexed = t, marks, cuts, true, true
	return nil
}

func (p *payloadReader) u32() uint32 { return binary.LittleEndian.Uint32(p.fixed(4)) }

// load makes sure that marks, cuts and tally are there: from the footer, or by reading
// the whole segment. Segments that were sealed while we run have them already.
func (s *segment) load(f File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.indexed || !s.closed.Load() {
		return nil
	}
	end := s.end.Load()
	sc := &scanner{src: f, tag: s.head.tag, off: end, end: end + maxPayload, chunk: markEvery}
	if size, err := f.Size(); err == nil {
		sc.end = min(sc.end, size)
	}
	if fr, why, err := sc.frameAt(end); err == nil && why == "" && fr.typ == typeSeal {
		if s.readFooter(fr.payload) == nil {
			return nil
		}
	}
	return s.rebuild(f)
}

// rebuild reads a segment that has no footer.
func (s *segment) rebuild(f File) error {
	sc := s.scan(f, segmentHead)
	t := tally{digest: s.tally.digest}
	var marks []mark
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if it.isFrame() && it.frame.typ.record() {
			t.add(it.frame)
			marks = addMark(marks, it.frame.seq, it.frame.off)
		}
	}
	s.tally, s.marks, s.indexed = t, marks, true
	return nil
}

// add counts a frame that was read; the digest is not part of it, see digestOf.
func (t *tally) add(f frame) {
	t.count++
	t.last = f.seq
	t.newest = max(t.newest, recordTime(f.payload))
}

// recordTime is the time of a record, which every payload begins with.
func recordTime(payload []byte) int64 {
	if len(payload) < 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(payload))
}

func addMark(marks []mark, seq uint64, off int64) []mark {
	if n := len(marks); n == 0 || off-marks[n-1].off >= markEvery {
		return append(marks, mark{seq: seq, off: off})
	}
	return marks
}

// created says when the segment was begun: no record of an older one is younger.
func (s *segment) created() time.Time { return time.Unix(0, s.head.created) }
