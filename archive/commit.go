package archive

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"penstock/threads"
)

// batch is what one write and one sync make durable. Whoever appends copies into the
// current one under the journal's mutex; the committer takes it, and everything that is
// appended meanwhile is the next.
//
// refs counts the committer and everyone who waits; the last to leave gives the batch
// back for reuse, so that a WaitGroup is never reused under a waiter's feet.
type batch struct {
	position
	buf   []byte
	tag   tag
	off   int64  // in the segment, which is also how far it was synced before
	first uint64 // seq by which its segment is named
	marks []mark
	born  time.Time

	// urgent: a sender waits for its answer, or somebody for a marker. Outcomes alone can
	// wait a moment for the next delivery's sync (outcomePatience).
	urgent  bool
	started time.Time // when the committer took it

	// Of the quarantine: what is counted where the batch fails, and what its marker of counts says.
	refused []sampleKind
	said    []Sampled

	refs    atomic.Int32
	settled atomic.Bool
	err     error // set before wg is done
	wg      sync.WaitGroup
}

// position is the part of a batch's state that a unit which does not fit gives back.
type position struct {
	size   int
	marks  int
	digest uint32
	count  uint64
	last   uint64
	newest int64
}

const (
	// maxFreeBatches and maxFreeBytes bound the memory that is kept for reuse: two
	// batches alternate, a third serves a change of segments.
	maxFreeBatches = 4
	maxFreeBytes   = 16 << 20
)

func (b *batch) reset(p plan) {
	*b = batch{buf: b.buf[:0], marks: b.marks[:0], refused: b.refused[:0], tag: p.tag, off: p.off, first: p.first}
	b.digest = p.digest
	b.refs.Store(1)
	b.wg.Add(1)
}

func (b *batch) begin() int {
	n := len(b.buf)
	b.buf = beginFrame(b.buf)
	return n
}

// add counts the frame that was just finished at start.
func (b *batch) add(start int, seq uint64, at int64) {
	off := b.off + int64(start)
	if n := len(b.marks); n == 0 || off-b.marks[n-1].off >= markEvery {
		b.marks = append(b.marks, mark{seq: seq, off: off})
	}
	b.position = position{size: b.size, marks: len(b.marks), digest: digestFrame(b.digest, b.buf[start:]),
		count: b.count + 1, last: seq, newest: max(b.newest, at)}
}

// pageSize is what the kernel reads before it changes a part of it.
const pageSize = 4096

// padded gives the bytes to write: the records, and zeros up to the end of their last
// page where the file has that page already. What is behind the records means nothing;
// but a page that is written in part and not in memory (of a spare, or a recycled
// segment) is read from the disk first: 60 us of CPU and the wait for it, each batch.
func (b *batch) padded(fileSize int64) []byte {
	end := b.off + int64(b.size)
	rest := -end & (pageSize - 1)
	if rest == 0 || end+rest > fileSize {
		return b.buf
	}
	b.buf = append(b.buf, zeroPage[:rest]...)
	return b.buf
}

var zeroPage [pageSize]byte

// settle wakes whoever waits. Only the first call counts: the watchdog may have given
// up on a batch whose sync returns after all.
func (b *batch) settle(err error) {
	if b.settled.CompareAndSwap(false, true) {
		b.err = err
		b.wg.Done()
	}
}

// wait blocks until b is on stable storage or has failed. The caller has a ref.
func (j *journal) wait(b *batch) error {
	b.wg.Wait()
	err := b.err
	j.leave(b)
	return err
}

func (j *journal) leave(b *batch) {
	if b.refs.Add(-1) == 0 {
		j.mu.Lock()
		j.recycle(b)
		j.mu.Unlock()
	}
}

// recycle keeps a batch for reuse. Caller holds mu, and is the last to know b.
func (j *journal) recycle(b *batch) {
	if len(j.free) < maxFreeBatches && cap(b.buf) <= maxFreeBytes {
		j.free = append(j.free, b)
	}
}

// commitLoop is the committer. It ends when the journal is closed and all that was
// placed is written or has failed.
func (j *journal) commitLoop() {
	defer close(j.stopped)
	if j.o.Prompt {
		// Everybody waits for a sync, and the next begins only when this one's end was seen:
		// 64 connections 33,000 -> 41,000 acks/s; beside the pump a sync of 2.0 -> 0.8 ms at 256.
		threads.Prompt()
	}
	j.timer = time.NewTimer(time.Hour)
	j.timer.Stop()
	if j.active == nil && !j.reopen() {
		return
	}
	for {
		b := j.take()
		if b == nil {
			return
		}
		if err := j.commit(b); err != nil {
			if j.o.Trace != nil {
				j.traced(b, err)
			}
			j.fail(b, err)
			if !j.reopen() {
				return
			}
			continue
		}
		b.settle(nil)
		if j.o.Trace != nil { // nobody waits for it any more, and b is ours until done
			j.traced(b, nil)
		}
		idle := j.done(b)
		// Those who were woken answer first, and whoever can run appends to the next batch:
		// at 64 connections 30 records a sync instead of 27, and 2 us of CPU less for each.
		// Where nobody can run it costs nothing, as a timer would.
		runtime.Gosched()
		if idle {
			j.writeSyncMark()
		}
	}
}

// take gives the next batch to commit, nil when there will be none.
func (j *journal) take() *batch {
	timer := j.timer
	for {
		b, wait, closed := j.due()
		if b != nil {
			return b
		}
		if closed {
			return nil
		}
		if wait == 0 {
			<-j.kick
			continue
		}
		timer.Reset(wait)
		select {
		case <-j.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due gives a batch whose time has come, or how long the current one may still linger
// (0 = there is none).
func (j *journal) due() (b *batch, wait time.Duration, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) > 0 {
		return j.dequeue(), 0, false
	}
	if j.cur == nil || j.cur.size == 0 {
		return nil, 0, j.closing
	}
	if wait = j.patience(j.cur); wait > 0 && !j.closing {
		return nil, wait, false
	}
	if j.o.Departs != nil {
		if j.o.Departs(); len(j.queue) > 0 { // it did not fit
			return j.dequeue(), 0, false
		}
	}
	j.committing = j.detach()
	j.committing.started = time.Now()
	return j.committing, 0, false
}

// dequeue gives the oldest of the full batches to the committer. Caller holds mu.
func (j *journal) dequeue() *batch {
	b := j.queue[0]
	j.queue[0] = nil
	j.queue = j.queue[1:]
	b.started = time.Now()
	j.committing = b
	return b
}

// outcomePatience is how long outcomes wait for company. Nobody outside waits for them:
// a sync of their own is CPU (60 to 130 us) that deliveries want, and 3 ms more until a
// cursor moves cost a restart nothing that it would notice.
const (
	outcomePatience      = 3 * time.Millisecond
	outcomePatienceBytes = 1 << 20
)

// patience is how much longer a batch may wait for more records. Caller holds mu.
func (j *journal) patience(b *batch) time.Duration {
	limit, bytes := j.o.Linger, j.o.LingerBytes
	if limit == 0 {
		if b.urgent {
			return 0
		}
		limit, bytes = outcomePatience, outcomePatienceBytes
	}
	if b.size >= bytes {
		return 0
	}
	return limit - time.Since(b.born)
}

// commit makes b durable. An error means that nothing may be said about b, and that
// the segment it went to must never be written again.
func (j *journal) commit(b *batch) error {
	if b.tag.number != j.active.head.tag.number {
		if err := j.roll(b.tag, b.first); err != nil {
			return err
		}
	}
	seg := j.active
	if _, err := seg.file.WriteAt(b.padded(seg.size.Load()), b.off); err != nil {
		return fmt.Errorf("write %d bytes at offset %d of segment %s: %w", b.size, b.off, seg.name, err)
	}
	grew := j.extend(seg, b.off+int64(b.size))
	start := time.Now()
	if err := syncGrown(seg.file, grew); err != nil {
		return fmt.Errorf("sync segment %s: %w", seg.name, err)
	}
	j.met.observe(time.Since(start), b)
	seg.advance(b)
	j.synced.Store(b.last)
	j.notify()
	if b.off == segmentHead && j.o.Begun != nil {
		number, first := b.tag.number, b.first
		j.o.Later(func() { j.o.Begun(number, first) })
	}
	if b.off > j.o.SegmentBytes/4 {
		j.prepareSpare()
	}
	return nil
}

// done takes a settled batch off the books and says whether nothing else is there.
func (j *journal) done(b *batch) (idle bool) {
	j.mu.Lock()
	j.inflight -= int64(b.size)
	j.committing = nil
	j.stalled = false
	idle = len(j.queue) == 0 && (j.cur == nil || j.cur.size == 0)
	j.mu.Unlock()
	j.leave(b)
	return idle
}

// fail answers b and everything placed behind it with ErrUnavailable, and plans a new
// segment. What of it reached the disk is cut off by that segment's header.
func (j *journal) fail(b *batch, err error) {
	j.met.failures.Inc()
	j.log.Error("archive cannot write; deliveries are refused until it can", zap.String("dir", j.dir), zap.Error(err))
	if seg := j.active; b.tag == seg.head.tag {
		seg.mu.Lock()
		seg.poisoned = true
		seg.mu.Unlock()
	}
	j.mu.Lock()
	j.broken = fmt.Errorf("%w: %w", ErrUnavailable, err)
	victims := append([]*batch{b}, j.queue...)
	j.queue = nil
	if j.cur != nil && j.cur.size > 0 {
		victims = append(victims, j.detach())
	}
	j.nextSegment()
	j.committing, j.stalled = nil, false
	for _, v := range victims {
		j.inflight -= int64(v.size)
		if j.o.Lost != nil {
			j.o.Lost(v)
		}
	}
	lost := j.broken
	j.mu.Unlock()
	for _, v := range victims {
		v.settle(lost)
		j.leave(v)
	}
}

// Between attempts at a new segment the disk gets a moment; the longest wait is well
// below the 5 s in which serving must resume after the cure.
const (
	reopenFirst = 5 * time.Millisecond
	reopenMost  = time.Second
)

// reopen opens a new segment, however often that takes; false when the journal closes.
func (j *journal) reopen() bool {
	for wait := reopenFirst; ; wait = min(2*wait, reopenMost) {
		j.mu.Lock()
		p, closing := j.plan, j.closing
		j.mu.Unlock()
		if closing {
			return false
		}
		err := j.roll(p.tag, p.first)
		if err == nil {
			j.mu.Lock()
			was := j.broken
			j.broken = nil
			j.mu.Unlock()
			if was != nil {
				j.log.Info("archive writes again", zap.String("dir", j.dir), zap.String("segment", j.active.name))
			}
			return true
		}
		j.mu.Lock()
		j.broken = fmt.Errorf("%w: %w", ErrUnavailable, err)
		j.nextSegment() // the number may be in a file now
		j.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-j.stop:
		}
		timer.Stop()
	}
}

// writeSyncMark says behind the last record how far the segment is synced. It is not
// synced itself and the next batch overwrites it; it lets recovery after a kill, and a
// check beside us, tell damage of the last batch from a torn write. Where it cannot be
// written nothing is lost but that.
func (j *journal) writeSyncMark() {
	seg := j.active
	end := seg.end.Load()
	b := beginFrame(j.markBuf[:0])
	endFrame(b, 0, seg.head.tag, j.synced.Load(), end, typeSync)
	_, _ = seg.file.WriteAt(b, end)
}

// advance publishes a synced batch to the segment's readers.
func (s *segment) advance(b *batch) {
	s.mu.Lock()
	s.marks = append(s.marks, b.marks...)
	s.tally.count += b.count
	s.tally.last = b.last
	s.tally.newest = max(s.tally.newest, b.newest)
	s.tally.digest = b.digest
	s.mu.Unlock()
	s.end.Store(b.off + int64(b.size))
}
