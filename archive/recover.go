package archive

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	"go.uber.org/zap"
)

// Recovery, once per log when the archive opens:
//
//  1. Read every segment's header. Files that are no segments of this archive are
//     reported and left alone.
//  2. Follow the headers: each names its predecessor and where that ended. A segment
//     that its successor vouches for is not read. One that no header names, although a
//     later one exists, was given up before its first sync: set aside as .orphan.
//  3. Read the newest segment. What does not verify below the last synced point is
//     damage and stays where it is, named; above it, a torn write: its bytes are kept in
//     a file beside (.torn). Nothing else is cut.
//  4. The records above the last synced point that do verify are carried over: the next
//     segment has them, synced, before it gets its name. They may have been acknowledged,
//     and after a failed sync the page cache may show bytes that the disk does not have.
//     The old segment ends at its last synced point, its successor says so.
//
// So no file is ever appended to by two lives, and the file with damage is not touched.
const (
	tornSuffix   = ".torn"
	orphanSuffix = ".orphan"
)

// finding is something recovery or a check has to say about the files.
type finding struct {
	file   string
	text   string
	damage bool // data is lost or doubtful; otherwise it is only worth knowing
}

// segmentNote is what the archive notes of its newest segment.
type segmentNote struct{ number, first uint64 }

// recovery is the state of one log on disk.
type recovery struct {
	fs       FS
	dir      string
	kind     uint8
	archive  uint64 // 0 = take it from the newest segment
	log      *zap.Logger
	segs     []*segment
	findings []finding
	lastSeq  uint64
	lastNo   uint64
	spares   sparePool
	blocks   *blockCache

	perSegment uint64    // how many seqs a segment can hold
	floor      uint64    // number of the oldest segment that retention kept
	noted      floorFile // says so too, on a full disk
	head       segmentNote
	look       bool          // nothing is repaired
	names      *names        // of dir
	keyed      bool          // there is a keyring
	notes      func() error  // makes durable what the state says
	settled    bool          // what was found is durable
	keys       *Keys         // of a check
	carry      []carried     // what the next segment begins with
	unsealed   *segment      // the newest one of the last life; may be sealed when there is a next
	markers    func(*Marker) // sees the markers of what is scanned
}

func (r *recovery) path(name string) string { return r.dir + "/" + name }

func (r *recovery) damage(file, format string, args ...any) {
	r.findings = append(r.findings, finding{file: file, text: fmt.Sprintf(format, args...), damage: true})
}

func (r *recovery) note(file, format string, args ...any) {
	r.findings = append(r.findings, finding{file: file, text: fmt.Sprintf(format, args...)})
}

// run does all steps. An error means that the directory cannot be read or was written
// by another version; damage is no error.
func (r *recovery) run() error {
	r.names = &names{fs: r.fs, dir: r.dir}
	found, err := r.fs.List(r.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", r.dir, err)
	}
	if !r.look {
		_ = r.names.settle() // on a disk that cannot, nothing is removed, and whoever appends tries again
	}
	if err := r.readHeaders(found); err != nil {
		return err
	}
	r.readFloor(found, r.floor)
	for _, name := range found {
		r.leftover(name)
	}
	r.dropRemoved()
	r.chain()
	r.bounds()
	if n := len(r.segs); n > 0 {
		return r.tail(r.segs[n-1])
	}
	return nil
}

// settle makes durable what this start found, before anything is done that relies on it. A
// process that was killed may have left names, and notes of what retention removed, that
// are not on the disk; a power cut that forgets them must not find done what followed from
// them. It says whether that went well.
func (r *recovery) settle() bool {
	if r.settled {
		return true
	}
	if err := errors.Join(r.notes(), r.names.settle()); err != nil {
		r.log.Warn("what was found cannot be made durable; nothing is removed before the next start", zap.String("dir", r.dir), zap.Error(err))
		return false
	}
	r.settled = true
	return true
}

// readFloor takes the note of what retention removed from the cursors, which say floor, or
// from the name of a file.
func (r *recovery) readFloor(found []string, floor uint64) {
	r.noted = floorFile{fs: r.fs, dir: r.dir, archive: r.archive}
	r.noted.find(found)
	r.floor = max(floor, r.noted.number)
	r.lastNo = max(r.lastNo, r.noted.number) // whatever was lost: nothing new may look as if it were removed
}

// settleFloor makes the note of what was removed durable. On a full disk the cursors cannot be
// written again, and what is removed now may be all that keeps it full.
func (r *recovery) settleFloor() bool {
	if r.noted.number >= r.floor && r.names.settle() == nil || r.settle() {
		return true
	}
	if err := r.noted.move(r.floor, &r.spares); err != nil {
		r.log.Warn("what retention had removed is not removed again", zap.String("dir", r.dir), zap.Error(err))
		return false
	}
	return true
}

// remove takes a file away that others replace: not before these are there for good.
func (r *recovery) remove(path string) error {
	if err := r.names.settle(); err != nil {
		return err
	}
	return r.fs.Remove(path)
}

// leftover deals with files that are no segments.
func (r *recovery) leftover(name string) {
	// What never got its name: nothing in it was acknowledged, or it is a copy.
	_, note := parseFloor(name, r.archive)
	isNew := note && name != r.noted.name || strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, packPrefix) || strings.HasPrefix(name, oldPrefix) ||
		strings.HasPrefix(name, thinPrefix)
	if !isNew && !strings.HasPrefix(name, sparePrefix) && !strings.HasPrefix(name, usedPrefix) {
		return
	}
	if r.spares.known(name) {
		return
	}
	if err := r.remove(r.path(name)); err != nil {
		r.note(name, "is left over and cannot be removed: %v", err)
	}
}

// readHeaders collects the segments, sorted by number.
func (r *recovery) readHeaders(names []string) error {
	for _, name := range names {
		first, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		seg, err := r.readSegment(name, first)
		if errors.Is(err, ErrNewer) {
			return fmt.Errorf("segment %s: %w", r.path(name), err)
		}
		if err != nil {
			r.damage(name, "cannot be read as a segment: %v", err)
			r.skipped(first)
			continue
		}
		if seg.head.sealed && !r.keyed && !r.look {
			return fmt.Errorf("segment %s is encrypted: %w: there is none; put it back from a backup", r.path(name), ErrKeyring)
		}
		r.segs = append(r.segs, seg)
	}
	sort.SliceStable(r.segs, func(a, b int) bool { return r.segs[a].head.tag.number < r.segs[b].head.tag.number })
	if n := len(r.segs); n > 0 && r.archive == 0 {
		r.archive = r.segs[n-1].head.archive
	}
	r.dropCovered()
	kept := r.segs[:0]
	for _, seg := range r.segs {
		r.lastNo = max(r.lastNo, seg.head.tag.number)
		switch {
		case seg.head.archive != r.archive && seg.head.archive != 0:
			r.damage(seg.name, "belongs to another archive; it is left alone")
			r.skippedName(seg.name)
		case seg.head.log != r.kind:
			r.damage(seg.name, "belongs to another log; it is left alone")
			r.skippedName(seg.name)
		case len(kept) > 0 && kept[len(kept)-1].head.tag.number == seg.head.tag.number:
			r.duplicate(kept, seg)
		default:
			kept = append(kept, seg)
		}
	}
	r.segs = kept
	for _, seg := range kept {
		if first, _ := parseSegmentName(seg.name); first != seg.head.first {
			r.damage(seg.name, "has the name of another segment: its header says it begins with seq=%d", seg.head.first)
		}
	}
	return nil
}

// skipped keeps the seqs of a segment that is not read, and its name, from being given
// again.
func (r *recovery) skipped(first uint64) {
	if first < maxSeq/2 { // a name that we gave
		r.lastSeq = max(r.lastSeq, first+r.perSegment)
	}
}

func (r *recovery) skippedName(name string) {
	if first, ok := parseSegmentName(name); ok {
		r.skipped(first)
	}
}

// dropCovered leaves out what a thinned segment took over: a crash came before the file
// was removed, or another process is about to.
func (r *recovery) dropCovered() {
	kept := r.segs[:0]
	for _, seg := range r.segs {
		if !slices.ContainsFunc(r.segs, func(by *segment) bool { return by.covers(seg) }) {
			kept = append(kept, seg)
			continue
		}
		// Of the cursors nothing is relied on; and they cannot be written on a full disk, which
		// this gives space.
		if r.look || r.names.settle() != nil {
			continue
		}
		if err := r.fs.Remove(seg.path); err != nil {
			r.note(seg.name, "is no longer needed and cannot be removed: %v", err)
		}
	}
	r.segs = kept
}

// duplicate keeps that one of two files with the same number which has the right name.
func (r *recovery) duplicate(kept []*segment, seg *segment) {
	other := kept[len(kept)-1]
	if segmentName(seg.head.first) == seg.name {
		kept[len(kept)-1], seg, other = seg, other, seg
	}
	r.damage(seg.name, "is a copy of %s (both are number %d); it is left alone", other.name, seg.head.tag.number)
}

// readSegment reads a header; where both copies are bad, the first record tells the tag.
func (r *recovery) readSegment(name string, first uint64) (*segment, error) {
	seg := &segment{name: name, path: r.path(name), fs: r.fs, blocks: r.blocks}
	f, err := seg.acquire()
	if err != nil {
		return nil, err
	}
	defer seg.release()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	seg.size.Store(size)
	seg.head, err = readHeader(f)
	if err != nil && !errors.Is(err, ErrNewer) {
		t, ok := guessTag(f, size, false)
		if !ok {
			return nil, err
		}
		r.damage(name, "its header is lost (%v); its records are read all the same", err)
		seg.head, err = segmentHeader{log: r.kind, tag: t, first: first}, nil
		return seg, err
	}
	if err == nil {
		r.halves(name, f)
	}
	return seg, err
}

// halves names a header of which one copy is bad: nothing is lost yet.
func (r *recovery) halves(name string, f File) {
	at, err := compareHeaders(f)
	switch {
	case err != nil:
		r.damage(name, "one copy of its header cannot be read (%v); the other one is used", err)
	case at >= 0:
		r.damage(name, "the two copies of its header differ at offset %d; the one that is right is used", at)
	}
}

// guessTag reads the tag off the first frame, if that verifies; of a packed segment it is
// a block.
func guessTag(f io.ReaderAt, size int64, packed bool) (tag, bool) {
	head := make([]byte, frameHead)
	if n, _ := f.ReadAt(head, segmentHead); n < frameHead {
		return tag{}, false
	}
	t := tagOf(head)
	sc := &scanner{src: f, tag: t, off: segmentHead, end: size, packed: packed}
	fr, why, err := sc.frameAt(segmentHead)
	return t, err == nil && why == "" && fr.size > 0 && fr.typ.packed() == packed
}

// chain sets where each segment but the newest ends, and finds what is missing.
func (r *recovery) chain() {
	kept := make([]*segment, 0, len(r.segs))
	var next *segment // the one whose predecessor is looked for
	for i := len(r.segs) - 1; i >= 0; i-- {
		seg := r.segs[i]
		if next == nil {
			kept, next = append(kept, seg), seg
			continue
		}
		seg.closed.Store(true)
		if next.head.archive != 0 && next.head.pred.number < seg.head.tag.number {
			if r.orphan(seg) {
				kept = append(kept, seg)
			}
			continue
		}
		r.link(seg, next)
		kept, next = append(kept, seg), seg
	}
	for a, b := 0, len(kept)-1; a < b; a, b = a+1, b-1 {
		kept[a], kept[b] = kept[b], kept[a]
	}
	r.segs = kept
}

// link sets where a segment ends, from the header of the next one that is there.
func (r *recovery) link(seg, next *segment) {
	pred := next.head.pred
	if seg.head.thin.end > 0 {
		seg.endThinned()
		return
	}
	switch {
	case next.head.archive == 0: // its header is lost: nobody vouches
		r.unvouched(seg)
	case pred.number != seg.head.tag.number:
		r.damage(segmentName(pred.first), "is missing: segment %s names it as its predecessor (number %d)", next.name, pred.number)
		r.unvouched(seg)
	default:
		seg.end.Store(pred.end)
		seg.poisoned = pred.poisoned
		seg.tally.digest = pred.digest
		if size := seg.size.Load(); size < pred.end {
			r.damage(seg.name, "is %d bytes short", pred.end-size)
		}
	}
}

// unvouched finds the end of a segment whose successor is gone: the end of its last
// record. Nothing of it is cut.
func (r *recovery) unvouched(seg *segment) {
	f, err := seg.acquire()
	if err != nil {
		r.damage(seg.name, "cannot be opened: %v", err)
		return
	}
	defer seg.release()
	t := scanTail(f, seg, nil)
	seg.end.Store(t.end)
}

// orphan deals with a segment that no header names: one that failed before its first
// sync is set aside. It says whether the segment has records that were synced; then an
// earlier life could not read it, and it is one of the log.
func (r *recovery) orphan(seg *segment) (keep bool) {
	f, err := seg.acquire()
	if err != nil {
		r.damage(seg.name, "cannot be opened: %v", err)
		return false
	}
	defer seg.release()
	if t := scanTail(f, seg, nil); t.synced > segmentHead {
		seg.end.Store(t.synced)
		r.damage(seg.name, "is named by no other segment, and has records that were acknowledged; they are read")
		return true
	}
	r.note(seg.name, "was given up before anything in it was acknowledged; set aside")
	if r.look {
		return false
	}
	if err := r.fs.Rename(seg.path, seg.path+orphanSuffix); err != nil {
		r.note(seg.name, "cannot be set aside: %v", err)
	}
	return false
}

// digestOf computes the digest of a segment's frames as they are now.
func digestOf(f File, seg *segment) uint32 {
	var digest uint32
	sc := seg.scan(f, segmentHead)
	sc.salvage = true
	for {
		it, err := sc.next()
		if err != nil {
			return digest
		}
		if it.isFrame() && it.frame.typ.record() {
			if head, err := sc.window(it.frame.off, frameHead); err == nil {
				digest = digestFrame(digest, head)
			}
		}
	}
}

// lastRecord is the highest seq that a record has in the segments as they are now.
// Whoever waits for the index to reach the synced mark needs it to be one.
func (r *recovery) lastRecord() uint64 {
	for i := len(r.segs) - 1; i >= 0; i-- {
		seg := r.segs[i]
		f, err := seg.acquire()
		if err != nil {
			continue
		}
		err = seg.load(f)
		seg.release()
		if err == nil && seg.tally.last > 0 {
			return seg.tally.last
		}
	}
	return 0
}

// newPlan says where the first batch of this life goes.
func (r *recovery) newPlan(next uint64) plan {
	first := next
	if len(r.carry) > 0 {
		// Free, because a segment's first seq is given to no record.
		first = r.carry[0].seq
	}
	return plan{tag: tag{number: r.lastNo + 1, salt: rand.Uint64()}, first: first, off: segmentHead,
		epochs: make(map[uint64]struct{})}
}

// dropRemoved leaves out what retention had removed and a crash brought back, or what is
// being removed. It comes before the chain: of several that were removed a power cut may
// bring back any.
func (r *recovery) dropRemoved() {
	for len(r.segs) > 1 && r.segs[0].head.tag.number < r.floor && r.segs[0].head.archive != 0 {
		if !r.look && r.settleFloor() {
			if err := r.fs.Remove(r.segs[0].path); err != nil {
				r.note(r.segs[0].name, "was removed by retention before and cannot be removed again: %v", err)
			}
		}
		r.segs = r.segs[1:]
	}
}

// bounds compares what is there with what the archive noted: the oldest segment it
// kept and the newest it had written to.
func (r *recovery) bounds() {
	if len(r.segs) > 0 {
		if p := r.segs[0].head.pred; p.number != 0 && p.number >= r.floor {
			r.damage(segmentName(p.first), "is missing: segment %s names it as its predecessor (number %d)", r.segs[0].name, p.number)
		}
	}
	if r.head.number > r.lastNo {
		r.damage(segmentName(r.head.first), "is missing: it was the newest segment (number %d)", r.head.number)
		r.lastNo = r.head.number
		r.skipped(r.head.first)
	}
}
