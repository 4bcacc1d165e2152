package archive

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
)

// A thinned segment is what is left of one or several neighbours that retention may
// remove, but for what still waits in them: of a paused source, a blocked topic, a Kafka
// that is away, a release that is not done. Their records are copied forward into a new
// file with everything that tells who they are: seq, id, time of receipt, body. So whoever
// has a seq or an id finds them as before, and one source that waits pins what is its own.
//
// Copied are deliveries that wait, all outcomes of those that were copied now or before,
// the epochs that they were accepted under, and the markers of releases that wait. What
// was copied and is done since goes when a quarter of the file did.
//
// The file is a segment of format version 3: flag bit 2, the name and first seq of the
// oldest segment that it took over, the number of the newest, a salt of its own, a footer,
// and, inside the header's checksum:
//
//	offset size
//	104    8    offset where its records end (the successor's word was said of another file)
//	112    4    digest over its frames
//	116    4    how many deliveries it holds
//
// 88 and 96 are those of a packed segment, where it was packed after that.
//
// The new file is written, synced and read back under a temporary name; taking the name of
// the oldest is the moment when it counts. The others are removed when that is on the disk:
// until then a start finds either all of the old ones, or the new one and some that it
// covers (first seq and number say which), which are removed then.
const (
	thinnedVersion = 3
	thinPrefix     = "thin-" // a segment that is being thinned

	// thinRest is how long a segment that was looked at in vain is left alone.
	thinRest = time.Minute
	// thinChunk is how much is written at once.
	thinChunk = 1 << 20
)

// thinning is what the header of a thinned segment says beyond the segment's own.
type thinning struct {
	end        int64 // 0: it is not thinned
	digest     uint32
	deliveries uint32
}

// covers says whether s took over what o holds.
func (s *segment) covers(o *segment) bool {
	a, b := &s.head, &o.head
	return a.thin.end > 0 && a.archive == b.archive && a.log == b.log &&
		b.tag.number <= a.tag.number && b.tag.number > a.pred.number && b.first >= a.first &&
		(b.tag.number < a.tag.number || b.first > a.first)
}

// endThinned takes from its header where a thinned segment ends.
func (s *segment) endThinned() {
	s.end.Store(s.head.thin.end)
	s.tally.digest = s.head.thin.digest
}

// errWhole: a segment cannot be thinned, and stays as it is.
var errWhole = errors.New("it stays whole")

// errVain: too much of it waits.
var errVain = errors.New("nearly all of it waits")

// thinner makes one thinned segment.
type thinner struct {
	j     *journal
	parts []*segment
	files []File
	// waits lists the deliveries of a range that wait, released those of the quarantine.
	waits    map[uint64]struct{}
	released map[uint64]struct{}
	older    bool  // there are segments before the parts
	failed   error // to make a new file; a spare becomes it

	kept   map[uint64]struct{} // deliveries that are copied
	epochs map[uint64]struct{} // that those need, and which are not copied yet
	size   int64               // of what is copied, about
	total  int64               // of all records
	upto   uint64              // highest seq

	b    *batch // of marks, tally and digest; its buf is what is not written yet
	out  File
	off  int64 // where buf goes
	tmp  string
	head segmentHeader
}

// thin replaces parts, which are neighbours and closed, by one segment that holds only
// what waits. On a full disk that is written into a spare. The caller holds retaining.
func (a *Archive) thin(j *journal, parts []*segment, waits, released []uint64) error {
	done, err := a.thinTo(j, parts, waits, released, nil)
	if !done && diskFull(err) {
		_, err = a.thinTo(j, parts, waits, released, err)
		j.prepareSpare() // for the next time
	}
	return err
}

// thinTo thins into a new file, or, where that failed, into a spare. done says that the parts
// are replaced, if with an error.
func (a *Archive) thinTo(j *journal, parts []*segment, waits, released []uint64, failed error) (done bool, err error) {
	if err := j.names.settle(); err != nil {
		return false, err
	}
	t := &thinner{j: j, parts: parts, failed: failed, waits: setOf(waits), released: setOf(released), kept: map[uint64]struct{}{}, epochs: map[uint64]struct{}{}}
	j.segMu.RLock()
	t.older = j.segs[0] != parts[0]
	j.segMu.RUnlock()
	for _, p := range parts {
		f, err := p.acquire()
		if err != nil {
			return false, err
		}
		// Until the end: who acquires a part meanwhile shares the file, whatever its name.
		defer p.release()
		t.files = append(t.files, f)
	}
	if err := t.choose(); err != nil {
		return false, err
	}
	t.tmp = j.path(j.spares.name(thinPrefix))
	err = t.write()
	if err == nil {
		err = t.verify()
	}
	if err == nil {
		err = j.o.FS.Rename(t.tmp, parts[0].path)
	}
	if err != nil {
		_ = j.o.FS.Remove(t.tmp)
		return false, err
	}
	syncErr := j.o.FS.SyncDir(j.dir)
	seg := t.swap()
	_ = j.o.FS.Remove(parts[0].path + tornSuffix) // usually there is none
	for _, p := range parts[1:] {
		_ = j.o.FS.Remove(p.path + tornSuffix)
		if syncErr != nil {
			continue // the next start removes it, if the new name is on the disk then
		}
		if err := j.o.FS.Remove(p.path); err != nil {
			a.zap.Warn("a thinned segment's file stays behind; the next start removes it", zap.String("segment", p.name), zap.Error(err))
		}
	}
	if a.index != nil {
		last := j.lastSeq(seg)
		a.index.thin(int(j.o.Kind), seg, last, t.upto, t.kept)
	}
	if syncErr != nil {
		return true, fmt.Errorf("it is thinned, but the directory could not be synced: %w", syncErr)
	}
	return true, nil
}

func setOf(seqs []uint64) map[uint64]struct{} {
	set := make(map[uint64]struct{}, len(seqs))
	for _, s := range seqs {
		set[s&^QuarantineBit] = struct{}{}
	}
	return set
}

// each gives the records of all parts, skimmed, in order.
func (t *thinner) each(visit func(f frame, rec *Record) error) error {
	for i, p := range t.parts {
		sc := p.scan(t.files[i], segmentHead)
		dec := payloadReader{skimDeliveries: true, skimOutcomes: true}
		for {
			it, err := sc.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if !it.isFrame() {
				return fmt.Errorf("%w: %d bytes at offset %d of %s are damaged: %s", errWhole, it.region.size, it.region.off, p.name, it.region.why)
			}
			if !it.frame.typ.record() {
				continue
			}
			rec, err := dec.record(it.frame)
			if err != nil {
				return fmt.Errorf("%w: seq=%d of %s: %w", errWhole, it.frame.seq, p.name, err)
			}
			if err := visit(it.frame, &rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose finds out which deliveries are copied, and whether it is worth it.
func (t *thinner) choose() error {
	err := t.each(func(f frame, rec *Record) error {
		t.total, t.upto = t.total+f.size, f.seq
		switch {
		case rec.Delivery != nil:
			if _, ok := t.waits[f.seq]; ok {
				t.kept[f.seq] = struct{}{}
				t.epochs[rec.Delivery.Epoch] = struct{}{}
				t.size += f.size
			}
		case rec.Outcome != nil:
			if t.keepsOutcome(rec.Outcome) {
				t.size += f.size
			}
		}
		return nil
	})
	if err == nil && len(t.parts) == 1 && t.size > t.total/4*3 {
		return errVain
	}
	return err
}

// keepsOutcome: without the outcomes of a record that stays, a start would take it for one
// that waits, and publish it again.
func (t *thinner) keepsOutcome(o *Outcome) bool {
	if o.Delivery&QuarantineBit != 0 {
		if t.j.o.Kind == logQuarantine {
			return false
		}
		_, ok := t.released[o.Delivery&^QuarantineBit]
		return ok || t.older // the marker of its release may be in one of those
	}
	if _, ok := t.kept[o.Delivery]; ok || o.Delivery >= t.parts[0].head.first || !t.older {
		return ok
	}
	return t.j.has(o.Delivery)
}

// keeps says whether a record is copied.
func (t *thinner) keeps(seq uint64, rec *Record) bool {
	switch {
	case rec.Delivery != nil:
		_, ok := t.kept[seq]
		return ok
	case rec.Outcome != nil:
		return t.keepsOutcome(rec.Outcome)
	case rec.Marker.Kind == EpochMarker:
		_, ok := t.epochs[rec.Marker.ID]
		delete(t.epochs, rec.Marker.ID) // once is enough
		return ok
	case rec.Marker.Kind == ReleaseMarker:
		_, _, seq, _ := parseID(rec.Marker.Key)
		_, ok := t.released[seq&^QuarantineBit]
		return ok
	}
	return false // of jobs the state knows; of samples the newest segment
}

// write makes the file, synced.
func (t *thinner) write() (err error) {
	first, last := &t.parts[0].head, &t.parts[len(t.parts)-1].head
	t.head = segmentHeader{log: first.log, tag: tag{number: last.tag.number, salt: rand.Uint64()}, archive: first.archive,
		first: first.first, created: first.created, pred: first.pred,
		sealed: slices.ContainsFunc(t.parts, func(p *segment) bool { return p.head.sealed })}
	if t.out, err = t.create(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.out.Close()) }()
	t.b, t.off = new(batch), segmentHead
	t.b.reset(plan{tag: t.head.tag, off: segmentHead})
	err = t.each(func(f frame, rec *Record) error {
		if !t.keeps(f.seq, rec) {
			return nil
		}
		start := t.b.begin()
		t.b.buf = append(t.b.buf, f.payload...)
		t.b.buf[start+37] = f.flags
		endFrame(t.b.buf[start:], 0, t.head.tag, f.seq, segmentHead, f.typ)
		t.b.add(start, f.seq, recordTime(f.payload))
		if len(t.b.buf) < thinChunk {
			return nil
		}
		return t.flush()
	})
	if err == nil {
		err = t.flush()
	}
	if err != nil {
		return err
	}
	end := t.off
	t.head.syncedTo = end
	t.head.thin = thinning{end: end, digest: t.b.digest, deliveries: uint32(len(t.kept))}
	probe := segment{marks: t.b.marks, tally: t.tally()}
	foot := probe.footer(beginFrame(nil))
	endFrame(foot, 0, t.head.tag, t.b.last, segmentHead, typeSeal)
	if _, err := t.out.WriteAt(foot, end); err != nil {
		return fmt.Errorf("write footer: %w", err)
	}
	t.off += int64(len(foot))
	if _, err := t.out.WriteAt(t.head.block(), 0); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if t.failed != nil { // what it was ends here
		if err := t.out.Truncate(t.off); err != nil {
			return fmt.Errorf("truncate: %w", err)
		}
	}
	if err := t.out.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// create gives the file to write. A spare loses its name for good before it is written:
// after a power cut the next life must not take for a spare what is a segment.
func (t *thinner) create() (File, error) {
	if t.failed == nil {
		return t.j.o.FS.Create(t.tmp)
	}
	spare, ok := t.j.spares.takeAny()
	if !ok {
		return nil, t.failed
	}
	if err := t.j.o.FS.Rename(t.j.path(spare), t.tmp); err != nil {
		return nil, err
	}
	if err := t.j.o.FS.SyncDir(t.j.dir); err != nil {
		return nil, fmt.Errorf("sync directory: %w", err)
	}
	return t.j.o.FS.Open(t.tmp, true)
}

// flush writes what is at hand. The batch's own count of where it stands moves along.
func (t *thinner) flush() error {
	if len(t.b.buf) == 0 {
		return nil
	}
	if _, err := t.out.WriteAt(t.b.buf, t.off); err != nil {
		return fmt.Errorf("write at offset %d: %w", t.off, err)
	}
	t.off += int64(len(t.b.buf))
	t.b.off, t.b.buf = t.off, t.b.buf[:0]
	return nil
}

func (t *thinner) tally() tally {
	return tally{count: t.b.count, last: t.b.last, newest: t.b.newest, digest: t.b.digest}
}

// verify reads the file back before anything that it replaces is let go.
func (t *thinner) verify() error {
	f, err := t.j.o.FS.Open(t.tmp, false)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if h != t.head {
		return errors.New("read back: its header is not what was written")
	}
	seg := &segment{head: h}
	seg.end.Store(h.thin.end)
	var n uint64
	var digest uint32
	sc := seg.scan(f, segmentHead)
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if !it.isFrame() {
			return fmt.Errorf("read back: %d bytes at offset %d: %s", it.region.size, it.region.off, it.region.why)
		}
		head, err := sc.window(it.frame.off, frameHead)
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		n, digest = n+1, digestFrame(digest, head)
	}
	if n != t.b.count || digest != h.thin.digest {
		return fmt.Errorf("read back: %d records with digest %08x, %d with %08x were written", n, digest, t.b.count, h.thin.digest)
	}
	return nil
}

// swap puts the new segment in the place of its parts.
func (t *thinner) swap() *segment {
	j, oldest := t.j, t.parts[0]
	seg := &segment{head: t.head, name: oldest.name, path: oldest.path, fs: j.o.FS, blocks: j.o.Blocks, sealed: true, ours: true, tally: t.tally()}
	seg.end.Store(t.head.thin.end)
	seg.size.Store(t.off)
	seg.closed.Store(true)
	j.bytes.Add(t.off)
	j.segMu.Lock()
	i := slices.Index(j.segs, oldest)
	j.segs = slices.Concat(j.segs[:i], []*segment{seg}, j.segs[i+len(t.parts):])
	j.segMu.Unlock()
	for _, p := range t.parts {
		j.bytes.Add(-p.disk())
		j.warm.forget(p)
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
	}
	return seg
}

// has says whether the record of a seq is there; also where it cannot be read.
func (j *journal) has(seq uint64) bool {
	seg, f, err := j.acquire(seq)
	if err != nil {
		return true
	}
	if seg == nil {
		return false
	}
	defer seg.release()
	if err := seg.load(f); err != nil {
		return true
	}
	sc := seg.scan(f, seg.enter(seq))
	sc.chunk = markEvery
	for {
		it, err := sc.next()
		switch {
		case errors.Is(err, io.EOF):
			return false
		case err != nil || !it.isFrame():
			return true
		case it.frame.typ.record() && it.frame.seq >= seq:
			return it.frame.seq == seq
		}
	}
}
