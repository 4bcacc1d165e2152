package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"path/filepath"
	"sort"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// CheckResult is what Check found.
type CheckResult struct {
	Stat   Stat
	Damage []string // one line each: file, place, what is wrong
	Notes  []string // worth knowing, nothing is lost
}

// Sound says whether no damage was found.
func (r *CheckResult) Sound() bool { return len(r.Damage) == 0 }

// Stat counts what is in an archive.
type Stat struct {
	Segments, Deliveries, Outcomes, Markers uint64
	QuarantineSegments, Rejected            uint64
	Bytes, QuarantineBytes                  int64 // on disk
	RawBytes, QuarantineRawBytes            int64 // before compression
	FirstSeq, LastSeq                       uint64
	Oldest, Newest                          time.Time // of deliveries
}

// Check reads every record of the archive in dir and says on w, one line each, what is
// damaged. It takes no lock and changes nothing: it works beside a running gateway and
// on a copy. An error means that it could not look.
func Check(dir string, w io.Writer) (CheckResult, error) {
	return CheckWith(dir, nil, w)
}

// CheckWith is Check with the keys of an encrypted archive (OpenKeys): the seals are
// verified too. Without them everything else is.
func CheckWith(dir string, keys *Keys, w io.Writer) (CheckResult, error) {
	res, err := check(OS(), dir, keys)
	if err != nil {
		return res, fmt.Errorf("check archive %s: %w", dir, err)
	}
	for _, d := range res.Damage {
		if _, err := fmt.Fprintln(w, "damage:", d); err != nil {
			return res, err
		}
	}
	for _, n := range res.Notes {
		if _, err := fmt.Fprintln(w, "note:", n); err != nil {
			return res, err
		}
	}
	_, err = fmt.Fprintf(w, "%d segments, %d deliveries, %d outcomes, %d markers, %d rejected; %d damaged\n",
		res.Stat.Segments, res.Stat.Deliveries, res.Stat.Outcomes, res.Stat.Markers, res.Stat.Rejected, len(res.Damage))
	return res, err
}

// ReadStat counts what is in the archive in dir, beside a running gateway or on a copy.
func ReadStat(dir string) (Stat, error) {
	res, err := check(OS(), dir, nil)
	if err != nil {
		return Stat{}, fmt.Errorf("read archive %s: %w", dir, err)
	}
	return res.Stat, nil
}

// Walk gives every readable record of the archive in dir to f, in order, until f
// returns an error; damaged ones as Record.Corrupt. Like Check it only looks, and it
// goes as far as the newest segment is known to be synced.
func Walk(dir string, rejected bool, f func(Record) error) error {
	return WalkWith(dir, nil, rejected, f)
}

// WalkWith is Walk with the keys of an encrypted archive (OpenKeys). Without them its
// deliveries are given as Corrupt, and of its outcomes what stands in the clear.
func WalkWith(dir string, keys *Keys, rejected bool, f func(Record) error) error {
	kind := uint8(logMain)
	if rejected {
		kind = logQuarantine
	}
	w := &walker{f: f, keys: keys}
	for range walkAgain {
		again, err := w.log(dir, kind)
		if err != nil || !again {
			return err
		}
	}
	return fmt.Errorf("read archive %s: its segments change faster than they can be read", dir)
}

// walkAgain is how often a walk beside a running gateway begins anew where the segments
// that it knew have become others. Each time it has got further.
const walkAgain = 1000

// walker gives the records of a log once and in order.
type walker struct {
	f    func(Record) error
	keys *Keys
	last uint64 // highest seq given
}

// log walks through a log. Again: a segment was thinned meanwhile, into one that has
// another's name; what was given is not given a second time.
func (w *walker) log(dir string, kind uint8) (again bool, err error) {
	r, err := lookAt(OS(), dir, kind, w.keys)
	if err != nil {
		return false, fmt.Errorf("read archive %s: %w", dir, err)
	}
	for i, seg := range r.segs {
		last := seg.head.first
		if i+1 < len(r.segs) {
			last = r.segs[i+1].head.first - 1
			if last <= w.last {
				continue
			}
		}
		again, err := w.segment(seg, i+1 == len(r.segs), last)
		if again || err != nil {
			return again, err
		}
	}
	return false, nil
}

func (w *walker) segment(seg *segment, newest bool, last uint64) (again bool, err error) {
	file, err := seg.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		return w.thinnedAway(seg), nil
	}
	if err != nil {
		return false, err
	}
	defer seg.release()
	if h, err := readHeader(file); err == nil && h.tag != seg.head.tag {
		return h.thin.end > 0, nil
	}
	if newest {
		seg.end.Store(scanTail(file, seg, nil).synced)
	}
	j := &journal{o: journalOptions{Kind: seg.head.log}}
	sc := seg.scan(file, segmentHead)
	sc.salvage = true
	dec := payloadReader{keys: w.keys}
	fresh := true
	for {
		from := sc.off
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !it.isFrame() && fresh {
			// The file may have become another segment's; then its name has another file.
			fresh = false
			if f, err := openSegment(seg.fs, seg.path, seg.blocks); err == nil {
				defer f.Close()
				if h, err := readHeader(f); err == nil && h.tag != seg.head.tag && h.thin.end > 0 {
					return true, nil
				}
				next := seg.scan(f, from)
				next.salvage, next.seq = true, sc.seq
				sc = next
				continue
			}
		}
		rec, ok := walked(j, seg, sc, &dec, it, last)
		if !ok || rec.Seq <= w.last {
			continue
		}
		w.last = rec.Seq
		if err := w.f(rec); err != nil {
			return false, err
		}
	}
}

// thinnedAway says whether what a segment held may stand in another now: where retention
// took all of it, the segments before it are gone too.
func (w *walker) thinnedAway(seg *segment) bool {
	names, err := seg.fs.List(filepath.Dir(seg.path))
	if err != nil {
		return false
	}
	for _, name := range names {
		if first, ok := parseSegmentName(name); ok {
			return first < seg.head.first
		}
	}
	return false
}

// walked makes a record of what a walk found; false where it is none.
func walked(j *journal, seg *segment, sc *scanner, dec *payloadReader, it scanItem, last uint64) (Record, bool) {
	if !it.isFrame() {
		e := &CorruptError{Segment: seg.name, SegmentNo: seg.head.tag.number, Offset: it.region.off, Size: it.region.size,
			FirstSeq: max(sc.seq+1, seg.lowest()), LastSeq: max(last, sc.seq+1), Reason: it.region.why}
		if fr, why, err := sc.frameAt(sc.off); err == nil && why == "" {
			e.LastSeq = fr.seq - 1
		}
		return Record{Seq: e.LastSeq, Corrupt: e}, true
	}
	if !it.frame.typ.record() {
		return Record{}, false
	}
	rec, err := dec.record(it.frame)
	if erased := (*ErasedError)(nil); errors.As(err, &erased) {
		return Record{Seq: it.frame.seq, Corrupt: j.markErased(erased)}, true
	}
	if err != nil {
		rec = Record{Seq: it.frame.seq, Corrupt: fmt.Errorf("%w: seq=%d: %w", ErrCorrupt, it.frame.seq, err)}
	}
	j.mark(&rec)
	return rec, true
}

// errLookOnly is what a check gets for every change.
var errLookOnly = errors.New("a check changes nothing")

// lookFS lets nothing be changed.
type lookFS struct{ FS }

func (lookFS) Create(string) (File, error) { return nil, errLookOnly }
func (l lookFS) Open(name string, write bool) (File, error) {
	if write {
		return nil, errLookOnly
	}
	return l.FS.Open(name, false)
}
func (lookFS) Rename(string, string) error { return errLookOnly }
func (lookFS) Remove(string) error         { return errLookOnly }
func (lookFS) MkdirAll(string) error       { return errLookOnly }
func (lookFS) SyncDir(string) error        { return errLookOnly }

func (lookFS) Lock(string) (io.Closer, error) { return nil, errLookOnly }

// lookAt reads the headers of a log. Beside a running gateway segments come and go: the
// note of the newest is read before the list, that of the oldest after it.
func lookAt(disk FS, dir string, kind uint8, keys *Keys) (*recovery, error) {
	disk = lookFS{disk}
	name := segmentsDir
	if kind == logQuarantine {
		name = quarantineDir
	}
	r := &recovery{fs: disk, dir: filepath.Join(dir, name), kind: kind, log: zap.NewNop(), look: true, blocks: &blockCache{keys: keys}}
	before, _, err := loadState(disk, dir, r.log)
	if err != nil {
		return nil, err
	}
	r.archive = before.uint(keyArchiveID)
	r.head = before.note(keyHead + strconv.Itoa(int(kind)))
	names, err := disk.List(r.dir)
	if err != nil {
		return nil, err
	}
	after, _, err := loadState(disk, dir, r.log)
	if err != nil {
		return nil, err
	}
	if err := r.readHeaders(names); err != nil {
		return nil, err
	}
	r.readFloor(names, after.uint(keyFloor+strconv.Itoa(int(kind))))
	r.dropRemoved()
	r.chain()
	r.bounds()
	return r, nil
}

func check(disk FS, dir string, keys *Keys) (CheckResult, error) {
	var res CheckResult
	if _, err := disk.List(filepath.Join(dir, segmentsDir)); err != nil {
		return res, fmt.Errorf("it is no archive: %w", err)
	}
	if err := refuseNewer(lookFS{disk}, dir); err != nil {
		return res, err
	}
	_, found, err := loadState(lookFS{disk}, dir, zap.NewNop())
	if err == nil && len(found) > 0 { // it may have been written at that moment
		_, found, err = loadState(lookFS{disk}, dir, zap.NewNop())
	}
	if err != nil {
		return res, err
	}
	res.add("", found)
	res.add("", checkKeyring(lookFS{disk}, dir))
	for _, kind := range []uint8{logMain, logQuarantine} {
		r, err := lookAt(disk, dir, kind, keys)
		if err == nil && len(r.findings) > 0 { // a segment may have come or gone at that moment
			time.Sleep(secondLook)
			r, err = lookAt(disk, dir, kind, keys)
		}
		if err != nil {
			return res, err
		}
		r.keys = keys
		for i, seg := range r.segs {
			var next *segment
			if i+1 < len(r.segs) {
				next = r.segs[i+1]
			}
			checkSegment(r, seg, next, &res.Stat)
		}
		res.add(filepath.Base(r.dir)+"/", r.findings)
	}
	return res, nil
}

func (r *CheckResult) add(prefix string, found []finding) {
	sort.SliceStable(found, func(a, b int) bool { return found[a].file < found[b].file })
	for _, f := range found {
		if f.damage {
			r.Damage = append(r.Damage, prefix+f.file+" "+f.text)
		} else {
			r.Notes = append(r.Notes, prefix+f.file+" "+f.text)
		}
	}
}

// secondLook is how long a check waits before it looks again at what seems damaged: a
// running gateway may have written it at that moment. A variable for tests.
var secondLook = 50 * time.Millisecond

// segmentCheck is what one look at a segment gave.
type segmentCheck struct {
	stat  Stat
	found []finding
	gone  bool

	sealed bool // the newest segment is: older ones end where their successor says
}

// checkSegment reads every record of a segment. What looks damaged is looked at again:
// the file may have been written, or given to another segment, while it was read.
func checkSegment(r *recovery, seg, next *segment, stat *Stat) {
	c := lookSegment(seg, next, r.keys)
	if len(c.found) > 0 {
		time.Sleep(secondLook)
		c = lookSegment(seg, next, r.keys)
	}
	if c.gone {
		r.note(seg.name, "was removed while the check ran")
		return
	}
	r.findings = append(r.findings, c.found...)
	stat.add(&c.stat)
}

func lookSegment(seg, next *segment, keys *Keys) (c segmentCheck) {
	damage := func(format string, args ...any) {
		c.found = append(c.found, finding{file: seg.name, text: fmt.Sprintf(format, args...), damage: true})
	}
	f, err := openSegment(seg.fs, seg.path, seg.blocks)
	if errors.Is(err, fs.ErrNotExist) {
		c.gone = true
		return c
	}
	if err != nil {
		damage("cannot be opened: %v", err)
		return c
	}
	defer f.Close()
	if h, err := readHeader(f); err == nil && h.tag != seg.head.tag {
		c.gone = true
		return c
	}
	size, err := f.Size()
	if err != nil {
		damage("cannot be read: %v", err)
		return c
	}
	seg.size.Store(size)
	if p, ok := f.(*packedFile); ok {
		seg.stored.Store(p.stored)
		for _, fault := range p.look() {
			damage("%s", fault)
		}
	}
	if next == nil {
		t := scanTail(f, seg, nil)
		seg.end.Store(t.synced)
		if t.seal != nil {
			seg.end.Store(t.seal.off)
			c.sealed = true
		}
	}
	c.scan(seg, next, f, keys, damage)
	return c
}

func (c *segmentCheck) scan(seg, next *segment, f File, keys *Keys, damage func(string, ...any)) {
	sc := seg.scan(f, segmentHead)
	sc.salvage = true
	var digest uint32
	// Without a key the part in the clear is read.
	dec, locked := payloadReader{keys: keys}, payloadReader{skimDeliveries: true, skimOutcomes: true}
	c.stat.segment(seg)
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			damage("cannot be read to its end: %v", err)
			return
		}
		if !it.isFrame() {
			damage("%d bytes at offset %d, after seq=%d, are damaged: %s", it.region.size, it.region.off, sc.seq, it.region.why)
			continue
		}
		if !it.frame.typ.record() {
			continue
		}
		if head, err := sc.window(it.frame.off, frameHead); err == nil {
			digest = digestFrame(digest, head)
		}
		rec, err := dec.record(it.frame)
		if erased := (*ErasedError)(nil); errors.Is(err, errLocked) || errors.As(err, &erased) {
			rec, err = locked.record(it.frame)
		}
		if err != nil {
			damage("record seq=%d at offset %d: %v", it.frame.seq, it.frame.off, err)
			continue
		}
		c.stat.count(&rec)
	}
	if next != nil || c.sealed {
		checkFooter(seg, f, damage)
	}
	switch {
	case len(c.found) > 0:
	case seg.head.thin.end > 0 && digest != seg.head.thin.digest:
		damage("its records are not those that were written: digest %08x, its header says %08x", digest, seg.head.thin.digest)
	case seg.head.thin.end > 0:
	case next != nil && next.head.archive != 0 && next.head.pred.number == seg.head.tag.number && digest != next.head.pred.digest:
		damage("its records are not those that were written: digest %08x, its successor says %08x", digest, next.head.pred.digest)
	}
}

// checkFooter names a footer that does not verify: nothing is lost by it, the segment is
// read whole where it would have told the way. A segment that was never sealed has none.
func checkFooter(seg *segment, f File, damage func(string, ...any)) {
	end := seg.end.Load()
	sc := &scanner{src: f, tag: seg.head.tag, off: end, end: seg.size.Load(), salvage: true}
	if sc.end-end < frameHead {
		return
	}
	head, err := sc.window(end, frameHead)
	if err != nil || !nearly(tagOf(head), seg.head.tag) {
		return
	}
	fr, why, err := sc.frameAt(end)
	if err == nil && why == "" && fr.typ == typeSeal {
		probe := &segment{}
		if probe.readFooter(fr.payload) == nil {
			return
		}
		why = errPayload.Error()
	}
	if err == nil && why == "" {
		return // a record that was given up: its segment ends before it
	}
	if rest := sc.end - end; err == nil {
		b, err := sc.window(end, int(min(rest, frameHead+maxPayload)))
		if err == nil && (!endsFile(b) || hasHole(b, end)) {
			return // a torn write, which the segment's successor cut off
		}
	}
	damage("its footer at offset %d is damaged (%s); the segment is read without it", end, why)
}

// endsFile says whether b, all that is left of a file, is one frame by its length, or would
// be but for that: a sealed file ends with its footer. Of a torn one neither is true.
func endsFile(b []byte) bool {
	n := uint32(len(b) - frameHead)
	if binary.LittleEndian.Uint32(b[4:]) == n {
		return true
	}
	whole := bytes.Clone(b)
	binary.LittleEndian.PutUint32(whole[4:], n)
	_, why := decodeFrame(whole, 0)
	return why == ""
}

// hasHole says whether a block of the file, as far as b at off reaches into it, holds zeros
// alone: the file had grown, and what was to stand there never reached the disk.
func hasHole(b []byte, off int64) bool {
	for len(b) > 0 {
		n := min(pageSize-off%pageSize, int64(len(b)))
		if n >= 4 && len(bytes.Trim(b[:n], "\x00")) == 0 {
			return true
		}
		b, off = b[n:], off+n
	}
	return false
}

// nearly says whether two tags are the same but for a few bits; those of two segments
// differ in about half.
func nearly(a, b tag) bool {
	return bits.OnesCount64(a.number^b.number)+bits.OnesCount64(a.salt^b.salt) <= 8
}

func (s *Stat) segment(seg *segment) {
	if seg.head.log == logQuarantine {
		s.QuarantineSegments++
		s.QuarantineBytes += seg.disk()
		s.QuarantineRawBytes += seg.size.Load()
		return
	}
	s.Segments++
	s.Bytes += seg.disk()
	s.RawBytes += seg.size.Load()
}

func (s *Stat) count(rec *Record) {
	switch d := rec.Delivery; {
	case d != nil && d.Verdict == Rejected:
		s.Rejected++
	case d != nil:
		s.Deliveries++
		if s.Oldest.IsZero() || d.ReceivedAt.Before(s.Oldest) {
			s.Oldest = d.ReceivedAt
		}
		if d.ReceivedAt.After(s.Newest) {
			s.Newest = d.ReceivedAt
		}
	case rec.Outcome != nil:
		s.Outcomes++
	case rec.Marker != nil:
		s.Markers++
	}
	if rec.Delivery == nil || rec.Delivery.Verdict != Rejected {
		if s.FirstSeq == 0 {
			s.FirstSeq = rec.Seq
		}
		s.LastSeq = max(s.LastSeq, rec.Seq)
	}
}

func (s *Stat) add(o *Stat) {
	s.Segments += o.Segments
	s.Deliveries += o.Deliveries
	s.Outcomes += o.Outcomes
	s.Markers += o.Markers
	s.QuarantineSegments += o.QuarantineSegments
	s.Rejected += o.Rejected
	s.Bytes += o.Bytes
	s.QuarantineBytes += o.QuarantineBytes
	s.RawBytes += o.RawBytes
	s.QuarantineRawBytes += o.QuarantineRawBytes
	if s.FirstSeq == 0 {
		s.FirstSeq = o.FirstSeq
	}
	s.LastSeq = max(s.LastSeq, o.LastSeq)
	if s.Oldest.IsZero() || !o.Oldest.IsZero() && o.Oldest.Before(s.Oldest) {
		s.Oldest = o.Oldest
	}
	if o.Newest.After(s.Newest) {
		s.Newest = o.Newest
	}
}
