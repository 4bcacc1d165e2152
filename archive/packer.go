package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"

	"penstock/threads"
)

const (
	// packRetry is when a segment that could not be packed is tried again: the disk was
	// full, or failed.
	packRetry = time.Minute
	// Between two blocks the packer rests: as long as it worked, so that it takes half of a
	// core; while deliveries come in 19 times as long, so that it takes 5 % of one, and
	// less long by how many segments wait.
	packRestIdle = 1
	packRestBusy = 19
)

// linkFS is an FS on which a file may have two names. Without it the file that a packed
// segment was made of is no spare, and the next spare is written anew.
type linkFS interface {
	Link(from, to string) error
}

// errAsIs: the segment is not to be packed, now or ever.
var errAsIs = errors.New("it stays as it is")

// packSoon says that there may be a segment to pack.
func (a *Archive) packSoon() {
	select {
	case a.sealed <- struct{}{}:
	default:
	}
}

// packAll packs sealed segments, one at a time, oldest first.
func (a *Archive) packAll() {
	defer a.workers.Done()
	if a.lowers() {
		threads.Lower()
	}
	p := &packer{a: a}
	a.packSoon() // what earlier lives have left
	retry := time.NewTicker(packRetry)
	defer retry.Stop()
	for {
		select {
		case <-a.quit:
			return
		case <-retry.C:
		case <-a.sealed:
		}
		for _, j := range []*journal{a.log, a.quarantine.log} {
			p.packLog(j)
		}
	}
}

// packer compresses segments. It belongs to one goroutine.
type packer struct {
	a        *Archive
	enc      *zstd.Encoder
	seal     sealPacker
	raw      []byte
	waiting  int    // segments to pack, this one included
	restless bool   // it does not rest: benchmarks
	synced   uint64 // of the log, when it rested last
	resting  time.Time
}

// packable lists the segments that may be packed: closed, with a footer, not the newest.
func (j *journal) packable() []*segment {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	var list []*segment
	for i, s := range j.segs {
		s.mu.Lock()
		ok := i+1 < len(j.segs) && s.closed.Load() && !s.poisoned && !s.asIs && s.stored.Load() == 0 && s.head.archive != 0 && (s.sealed || !s.ours)
		s.mu.Unlock()
		if ok {
			list = append(list, s)
		}
	}
	return list
}

func (p *packer) packLog(j *journal) {
	list := j.packable()
	for i, seg := range list {
		p.waiting = len(list) - i
		err := p.pack(j, seg)
		switch {
		case errors.Is(err, ErrClosed):
			return
		case errors.Is(err, errGone):
		case errors.Is(err, errAsIs):
			seg.mu.Lock()
			seg.asIs = true
			seg.mu.Unlock()
			j.log.Warn("segment is not compressed", zap.String("segment", seg.name), zap.Error(err))
		case err != nil:
			j.log.Warn("segment could not be compressed; it stays as it is for now", zap.String("segment", seg.name), zap.Error(err))
			return // and the next would not fare better
		}
	}
}

// pack replaces a segment's file by a packed one. At each moment one of the two has the
// segment's name, whole and synced: a crash leaves the old file or the new.
func (p *packer) pack(j *journal, seg *segment) error {
	f, err := seg.acquire()
	if err != nil {
		return err
	}
	held := true
	defer func() {
		if held {
			seg.release()
		}
	}()
	if _, packed := f.(*packedFile); packed {
		return nil
	}
	size, digest, err := sealedAt(f, seg)
	if err != nil {
		return err
	}
	// The reserve is for outcomes and state.
	if free, _, err := j.o.FS.Free(j.dir); err == nil && free < uint64(2*size) {
		return fmt.Errorf("the disk has %d bytes left", free)
	}
	tmp := j.path(j.spares.name(packPrefix))
	disk, err := p.write(seg, f, tmp, size, digest)
	if err == nil {
		err = p.verify(seg, f, tmp, size)
	}
	if err != nil {
		_ = j.o.FS.Remove(tmp)
		return err
	}
	held = false
	return p.swap(j, seg, tmp, size, disk)
}

// sealedAt gives where a segment's footer ends, and the digest that it has.
func sealedAt(f File, seg *segment) (size int64, digest uint32, err error) {
	if size, err = f.Size(); err != nil {
		return 0, 0, err
	}
	end := seg.end.Load()
	sc := &scanner{src: f, tag: seg.head.tag, end: size, chunk: markEvery}
	fr, why, err := sc.frameAt(end)
	switch {
	case err != nil:
		return 0, 0, err
	case why != "" || fr.typ != typeSeal:
		return 0, 0, fmt.Errorf("%w: it has no footer", errAsIs)
	}
	var sealed segment
	if err := sealed.readFooter(fr.payload); err != nil {
		return 0, 0, fmt.Errorf("%w: its footer cannot be read: %w", errAsIs, err)
	}
	return end + fr.size, sealed.tally.digest, nil
}

// rest keeps the packer from taking the machine from others; an error when the archive
// closes.
func (p *packer) rest() error {
	if p.restless {
		return nil
	}
	now := time.Now()
	worked := now.Sub(p.resting)
	synced := p.a.log.synced.Load()
	factor := time.Duration(packRestIdle)
	if synced != p.synced {
		factor = max(packRestBusy/time.Duration(p.waiting), packRestIdle)
	}
	p.synced = synced
	defer func() { p.resting = time.Now() }()
	timer := time.NewTimer(min(worked*factor, time.Second))
	defer timer.Stop()
	select {
	case <-p.a.quit:
		return ErrClosed
	case <-timer.C:
		return nil
	}
}

// packWriter appends the frames of a packed file.
type packWriter struct {
	f      File
	t      tag
	off    int64
	frame  []byte
	blocks []byte // payload of the table
}

func (w *packWriter) append(typ frameType, seq uint64, base int64, fill func([]byte) ([]byte, error)) error {
	frame, err := fill(beginFrame(w.frame[:0]))
	if err != nil {
		return err
	}
	w.frame = frame
	endFrame(w.frame, 0, w.t, seq, base, typ)
	if _, err := w.f.WriteAt(w.frame, w.off); err != nil {
		return fmt.Errorf("write at offset %d: %w", w.off, err)
	}
	w.off += int64(len(w.frame))
	return nil
}

// write makes the packed file tmp, synced, and gives its size.
func (p *packer) write(seg *segment, f File, tmp string, size int64, want uint32) (disk int64, err error) {
	if p.enc == nil {
		// The fastest level: the others shrink it by 1 to 3 % more and take twice the time.
		// What does not shrink grows by a thousandth, and need not be tried at each start.
		if p.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithAllLitEntropyCompression(true), zstd.WithWindowSize(packBlock), zstd.WithLowerEncoderMem(true)); err != nil {
			return 0, err
		}
	}
	out, err := seg.fs.Create(tmp)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := &packWriter{f: out, t: seg.head.tag.inverted(), off: segmentHead}
	p.seal.keys, p.seal.salt = p.a.keys, rand.Uint64()
	p.resting = time.Now()
	if err := p.writeBlocks(w, seg, f, size, want); err != nil {
		return 0, err
	}
	h := seg.head
	h.pack = packing{size: size, table: w.off}
	if err := w.append(typeTable, 0, 0, func(b []byte) ([]byte, error) { return append(b, w.blocks...), nil }); err != nil {
		return 0, err
	}
	if _, err := out.WriteAt(h.block(), 0); err != nil {
		return 0, fmt.Errorf("write header: %w", err)
	}
	if err := out.Sync(); err != nil {
		return 0, fmt.Errorf("sync: %w", err)
	}
	return w.off, nil
}

// writeBlocks cuts a segment into blocks at the edges of its frames.
func (p *packer) writeBlocks(w *packWriter, seg *segment, f File, size int64, want uint32) error {
	sc := &scanner{src: f, tag: seg.head.tag, off: segmentHead, end: size}
	begin, seq := int64(segmentHead), uint64(0) // of the block that is being filled
	most, largest := int64(packBlock), int64(packBlock)
	if p.opens(seg) {
		most, largest = sealedBlock, maxSealedBlock
	}
	var digest uint32
	for {
		it, err := sc.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err == nil && !it.isFrame() {
			return fmt.Errorf("%w: %d bytes at offset %d are damaged: %s", errAsIs, it.region.size, it.region.off, it.region.why)
		}
		fr := it.frame // none at the end
		// The footer has a block of its own: it is read whenever the segment is opened.
		end := sc.off - fr.size
		whole := end-begin <= largest
		for end > begin && (err != nil || sc.off-begin > most || fr.typ == typeSeal) {
			n := end - begin
			if !whole {
				n = min(n, packBlock)
			}
			if err := p.block(w, f, seg, seq, begin, n); err != nil {
				return err
			}
			begin += n
		}
		if err != nil {
			break
		}
		if begin == fr.off {
			seq = fr.seq
		}
		if fr.typ.record() {
			head, err := sc.window(fr.off, frameHead)
			if err != nil {
				return err
			}
			digest = digestFrame(digest, head)
		}
	}
	if digest != want {
		return fmt.Errorf("%w: its records are not those that were written: digest %08x, it had %08x", errAsIs, digest, want)
	}
	return nil
}

// opens says whether what is sealed in a segment can be opened.
func (p *packer) opens(seg *segment) bool { return seg.head.sealed && p.seal.keys != nil }

func (p *packer) block(w *packWriter, f File, seg *segment, seq uint64, off, n int64) error {
	if int64(cap(p.raw)) < n {
		p.raw = make([]byte, max(n, packBlock))
	}
	raw := p.raw[:n]
	if m, err := f.ReadAt(raw, off); m < len(raw) {
		return fmt.Errorf("read %d bytes at offset %d: %w", n, off, err)
	}
	le := binary.LittleEndian
	w.blocks = le.AppendUint64(w.blocks, seq)
	w.blocks = le.AppendUint32(w.blocks, uint32(off))
	w.blocks = le.AppendUint32(w.blocks, uint32(w.off))
	typ, fill := typeBlock, func(b []byte) ([]byte, error) {
		return p.enc.EncodeAll(raw, le.AppendUint32(b, uint32(n))), nil
	}
	if p.opens(seg) {
		some, err := p.seal.take(raw, seg.head.tag)
		if err != nil {
			return err
		}
		if some || n > packBlock {
			typ, fill = typeSealed, func(b []byte) ([]byte, error) { return p.seal.payload(b, p.enc, n, off) }
		}
	}
	if err := w.append(typ, seq, off, fill); err != nil {
		return err
	}
	return p.rest()
}

// verify reads the packed file and holds it against the segment, frame by frame.
func (p *packer) verify(seg *segment, f File, tmp string, size int64) error {
	file, err := openSegment(seg.fs, tmp, &blockCache{keys: p.a.keys}) // not the archive's: this must come from the file
	if err != nil {
		return err
	}
	defer file.Close()
	packed, ok := file.(*packedFile)
	if !ok || packed.size != size || len(packed.faults) > 0 {
		return errors.New("what was written does not read as a packed segment")
	}
	p.resting = time.Now()
	got := &scanner{src: packed, tag: seg.head.tag, off: segmentHead, end: size, chunk: packBlock}
	want := &scanner{src: f, tag: seg.head.tag, off: segmentHead, end: size, chunk: packBlock}
	for rested := int64(0); ; {
		a, errA := got.next()
		b, errB := want.next()
		if errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF) {
			return nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if !a.isFrame() || !b.isFrame() || !sameFrame(&a.frame, &b.frame) {
			return fmt.Errorf("what was written is not what was read, at offset %d", b.frame.off)
		}
		if got.off-rested > packBlock {
			rested = got.off
			if err := p.rest(); err != nil {
				return err
			}
		}
	}
}

// swap gives the packed file the segment's name. The old one becomes a spare, where
// nobody reads it. It takes over the caller's hold on the segment.
func (p *packer) swap(j *journal, seg *segment, tmp string, size, disk int64) error {
	// Retention must not take the segment away meanwhile.
	p.a.retaining.Lock()
	defer p.a.retaining.Unlock()
	seg.mu.Lock()
	gone := seg.gone
	seg.mu.Unlock()
	if gone {
		seg.release()
		return errors.Join(errGone, j.o.FS.Remove(tmp))
	}
	old := ""
	if l, ok := j.o.FS.(linkFS); ok && j.spares.wanted() && !j.full.Load() {
		old = j.path(j.spares.name(oldPrefix))
		if l.Link(seg.path, old) != nil {
			old = ""
		}
	}
	if err := j.o.FS.Rename(tmp, seg.path); err != nil {
		seg.release()
		_ = j.o.FS.Remove(tmp)
		p.forget(j, old)
		return err
	}
	// Until the new name is on the disk the old file may be what the next life finds.
	syncErr := j.o.FS.SyncDir(j.dir)
	was := seg.size.Swap(size)
	seg.stored.Store(disk)
	j.bytes.Add(disk - was)
	j.warm.forget(seg)
	if idle := seg.letGo(); old != "" && (syncErr != nil || !idle || !p.keep(j, old)) {
		p.forget(j, old)
	}
	if syncErr != nil {
		return fmt.Errorf("it is compressed, but the directory could not be synced: %w", syncErr)
	}
	j.log.Debug("segment compressed", zap.String("dir", j.dir), zap.String("segment", seg.name), zap.Int64("bytes", size), zap.Int64("stored", disk))
	return nil
}

// letGo releases the file that the segment had before it was packed, and says whether
// nobody else reads it.
func (s *segment) letGo() (idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle = s.refs == 1
	s.drop()
	return idle
}

// keep makes a spare of what a packed segment was made of.
func (p *packer) keep(j *journal, old string) bool {
	name := j.spares.name(usedPrefix)
	if j.o.FS.Rename(old, j.path(name)) != nil {
		return false
	}
	if !j.spares.put(name) {
		_ = j.o.FS.Remove(j.path(name))
	}
	return true
}

func (p *packer) forget(j *journal, old string) {
	if old != "" {
		_ = j.o.FS.Remove(old) // what stays is removed by the next start
	}
}
