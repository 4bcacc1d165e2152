package archive

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
)

// journal is one log: the segments of a directory, a committer that appends to the
// newest of them, and what readers need to know. The archive has two: deliveries with
// their outcomes and markers, and the quarantine.
//
// Lock order: mu before segMu before segment.mu; none of them is held across I/O,
// except segment.mu while a file is opened or, once per segment, its footer is read.
type journal struct {
	dir    string
	names  *names // of dir
	o      journalOptions
	log    *zap.Logger
	met    journalMetrics
	epochs *epochTable

	mu         sync.Mutex // everything down to sealer
	cur        *batch     // being filled; nil = none yet
	queue      []*batch   // full, in order
	committing *batch
	plan       plan // of the batch after cur
	nextSeq    uint64
	inflight   int64 // bytes in batches that are not settled
	broken     error // why nothing can be appended at the moment
	stalled    bool  // a sync hangs; set by the watchdog
	closing    bool
	free       []*batch
	ids        idText
	sealer     *sealer // nil: nothing is encrypted

	kick    chan struct{} // something to commit, or closing
	stopped chan struct{} // committer has ended
	stop    chan struct{} // ends the committer's waits

	segMu   sync.RWMutex
	segs    []*segment // oldest first; the last may be the active one
	readers map[*Reader]struct{}
	floor   uint64     // number of the oldest kept segment
	noted   *floorFile // under retaining
	warm    warmSegments

	active    *segment        // committer only: what it appends to
	carry     []carried       // committer only: what the first segment of this life begins with
	unsealed  *segment        // committer only: the newest one of the last life
	recovered uint64          // highest seq that recovery knows of
	zeros     []byte          // committer only
	timer     *time.Timer     // committer only: of a batch that waits for company
	markBuf   [frameHead]byte // committer only
	spares    sparePool
	carrying  atomic.Bool   // carry is not on stable storage yet
	synced    atomic.Uint64 // highest seq that is on stable storage
	full      atomic.Bool   // disk at its reserve: no deliveries
	bytes     atomic.Int64
}

type journalOptions struct {
	FS           FS
	Kind         uint8 // logMain or logQuarantine
	Archive      uint64
	SegmentBytes int64
	MaxInFlight  int64
	// Linger is how long a record may wait for its sync, with nobody waiting for it.
	// Zero: deliveries and markers are waited for, and their next sync begins as soon as
	// the last has ended; outcomes ride along, or wait outcomePatience.
	Linger      time.Duration
	LingerBytes int // beyond this much a lingering batch is written at once
	Now         func() time.Time
	Logger      *zap.Logger
	Metrics     journalMetrics
	Epochs      *epochTable
	// Later runs a function in the background; false when it will not be run. Nothing
	// that durability depends on goes there.
	Later func(func()) bool
	// Met hears of each damaged place that is read, with the log's name, and says whether it
	// is news.
	Met func(log string, e *CorruptError) bool
	// Opening gives a marker that each segment has before its first delivery; nil: none.
	Opening func() *Marker
	// Departs is called before a batch is written, and may place more; Lost hears of each
	// batch that will never be read. The journal's mutex is held. nil: nobody is told.
	Departs func()
	Lost    func(*batch)
	// Begun hears, in the background, of each segment that got its first batch.
	Begun func(number, first uint64)
	// Sealed hears that a segment was sealed.
	Sealed func()
	Blocks *blockCache // of packed segments
	Trace  func(Stage) // nil: nobody traces
	Keys   *Keys       // nil: nothing is encrypted
	Prompt bool        // the committer gets a CPU as soon as a sync has ended
}

// plan is where the next batch goes.
type plan struct {
	tag    tag
	first  uint64 // seq by which the segment is named
	off    int64
	digest uint32
	epochs map[uint64]struct{} // whose marker the segment has
	opened bool                // it has its opening marker
}

// unit is what is placed in one piece: exactly one of the pointers is set.
type unit struct {
	delivery *Delivery
	id       ulid.ULID
	outcome  *Outcome
	marker   *Marker
}

func (j *journal) node() uint32 { return uint32(j.o.Archive) }

func (j *journal) seqBit() uint64 {
	if j.o.Kind == logQuarantine {
		return QuarantineBit
	}
	return 0
}

func (j *journal) path(name string) string { return filepath.Join(j.dir, name) }

// append places one delivery and waits until it is on stable storage. d.ID is set
// whatever happens (an answer carries it), d.Seq only when it is stored.
func (j *journal) append(d *Delivery) error {
	b, err := j.placeDelivery(d, false)
	if err != nil {
		return err
	}
	j.wake()
	if err := j.wait(b); err != nil {
		d.Seq = 0
		return err
	}
	return nil
}

// placeDelivery puts a delivery into the current batch. With lazy nobody will wait.
func (j *journal) placeDelivery(d *Delivery, lazy bool) (*batch, error) {
	if d.ReceivedAt.IsZero() {
		d.ReceivedAt = j.o.Now()
	}
	size := deliverySize(d)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.admit(size); err != nil {
		j.nextSeq++
		d.Seq = 0
		d.ID = j.ids.text(makeID(d.ReceivedAt, j.node(), (j.nextSeq-1)|j.seqBit()))
		return nil, err
	}
	u := unit{delivery: d}
	b := j.place(&u)
	d.ID = j.ids.text(u.id)
	b.urgent = true
	if lazy {
		b.refused = append(b.refused, sampleKind{d.Source, d.Reason})
	} else {
		b.refs.Add(1)
	}
	return b, nil
}

// admit says whether a delivery may be taken. Caller holds mu.
func (j *journal) admit(size int64) error {
	switch {
	case j.closing:
		return ErrClosed
	case j.broken != nil:
		return j.broken
	case j.stalled:
		return fmt.Errorf("%w: a sync of the archive does not return", ErrUnavailable)
	case j.full.Load():
		return ErrFull
	case size > maxPayload:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, maxPayload)
	case j.inflight+size > j.o.MaxInFlight && j.inflight > 0:
		return ErrBusy
	}
	return nil
}

// appendAll places outcomes and markers and waits for the last of them. Batches are
// written in order and a failure fails all that follow, so the last speaks for all.
func (j *journal) appendAll(outcomes []Outcome, m *Marker) error {
	if len(outcomes) == 0 && m == nil {
		return nil
	}
	b, err := j.placeAll(outcomes, m)
	if err != nil {
		return err
	}
	j.wake()
	return j.wait(b)
}

func (j *journal) placeAll(outcomes []Outcome, m *Marker) (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return nil, ErrClosed
	}
	if j.broken != nil {
		return nil, j.broken
	}
	var b *batch
	for i := range outcomes {
		b = j.place(&unit{outcome: &outcomes[i]})
	}
	if m != nil {
		b = j.place(&unit{marker: m})
		b.urgent = true
	}
	b.refs.Add(1)
	return b, nil
}

// place encodes a unit at the end of the current batch, in the next segment where
// this one would grow above its size. Caller holds mu.
func (j *journal) place(u *unit) *batch {
	for {
		b := j.current()
		old := b.position
		seq := j.nextSeq
		epoch := j.encode(b, u)
		end := b.off + int64(len(b.buf))
		if end <= j.o.SegmentBytes || b.off == segmentHead && old.size == 0 {
			b.size = len(b.buf)
			j.inflight += int64(b.size - old.size)
			return b
		}
		b.buf = b.buf[:old.size]
		b.position = old
		b.marks = b.marks[:old.marks]
		j.nextSeq = seq
		if epoch {
			delete(j.plan.epochs, u.delivery.Epoch)
		}
		j.nextSegment()
	}
}

// encode appends the frames of a unit and says whether an epoch marker was among them.
func (j *journal) encode(b *batch, u *unit) (epoch bool) {
	switch {
	case u.delivery != nil:
		j.encodeOpening(b)
		epoch = j.encodeEpoch(b, u.delivery)
		d := u.delivery
		seq := j.nextSeq
		u.id = makeID(d.ReceivedAt, j.node(), seq|j.seqBit())
		start, at := b.begin(), 0
		b.buf, at = j.sealer.begin(putDeliveryHead(b.buf, d, u.id), b.tag.salt)
		b.buf = putDeliveryRest(b.buf, d)
		if j.sealer != nil {
			b.buf = j.sealer.end(b.buf, start, at, b.tag.salt, typeDelivery, seq, keyName{d.Source, monthOf(d.ReceivedAt.UnixNano())})
		}
		j.endRecord(b, start, typeDelivery, d.ReceivedAt.UnixNano())
		d.Seq = seq | j.seqBit()
	case u.outcome != nil:
		start := b.begin()
		b.buf = j.putOutcome(b, start, u.outcome)
		u.outcome.Seq = j.endRecord(b, start, typeOutcome, u.outcome.At.UnixNano())
	case u.marker != nil:
		start := b.begin()
		b.buf = putMarker(b.buf, u.marker)
		u.marker.Seq = j.endRecord(b, start, typeMarker, u.marker.At.UnixNano())
	}
	return epoch
}

func (j *journal) putOutcome(b *batch, start int, o *Outcome) []byte {
	if j.sealer == nil {
		return putOutcome(b.buf, o)
	}
	buf, at := j.sealer.begin(putStr(putOutcomeHead(b.buf, o), o.Source), b.tag.salt)
	return j.sealer.end(putOutcomeRest(buf, o), start, at, b.tag.salt, typeOutcome, j.nextSeq, keyName{o.Source, monthOf(o.At.UnixNano())})
}

// encodeOpening puts a segment's opening marker before its first delivery.
func (j *journal) encodeOpening(b *batch) {
	if j.plan.opened || j.o.Opening == nil {
		return
	}
	j.plan.opened = true
	if m := j.o.Opening(); m != nil {
		start := b.begin()
		b.buf = putMarker(b.buf, m)
		j.endRecord(b, start, typeMarker, m.At.UnixNano())
	}
}

// encodeEpoch puts the marker of a delivery's epoch before it, where its segment does
// not have it yet: so each segment explains itself, whatever retention removes.
func (j *journal) encodeEpoch(b *batch, d *Delivery) bool {
	if d.Epoch == 0 {
		return false
	}
	if _, ok := j.plan.epochs[d.Epoch]; ok {
		return false
	}
	doc := j.epochs.get(d.Epoch)
	if doc == nil {
		return false
	}
	now := j.o.Now()
	start := b.begin()
	b.buf = putMarker(b.buf, &Marker{Kind: EpochMarker, At: now, Key: doc.source, ID: d.Epoch, Data: doc.data})
	j.endRecord(b, start, typeMarker, now.UnixNano())
	j.plan.epochs[d.Epoch] = struct{}{}
	return true
}

func (j *journal) endRecord(b *batch, start int, typ frameType, at int64) uint64 {
	seq := j.nextSeq
	j.nextSeq++
	endFrame(b.buf[start:], 0, b.tag, seq, b.off, typ)
	b.add(start, seq, at)
	return seq
}

// current gives the batch to fill. Caller holds mu.
func (j *journal) current() *batch {
	if j.cur == nil {
		j.cur = j.newBatch()
	}
	return j.cur
}

func (j *journal) newBatch() *batch {
	var b *batch
	if n := len(j.free); n > 0 {
		b, j.free = j.free[n-1], j.free[:n-1]
	} else {
		b = new(batch)
	}
	b.reset(j.plan)
	b.born = time.Now()
	return b
}

// detach ends the filling of the current batch. Caller holds mu.
func (j *journal) detach() *batch {
	b := j.cur
	j.cur = nil
	j.plan.off = b.off + int64(b.size)
	j.plan.digest = b.digest
	return b
}

// nextSegment plans a new segment for whatever is placed from now on. Caller holds mu.
func (j *journal) nextSegment() {
	if b := j.cur; b != nil {
		if b.size > 0 {
			j.queue = append(j.queue, j.detach())
		} else {
			j.recycle(b)
			j.cur = nil
		}
	}
	first := j.plan.first // that one was not begun if there is still something to carry
	if len(j.carry) == 0 {
		first = j.nextSeq // which no record gets, so that recovery can put a segment before it
		j.nextSeq++
	}
	j.plan = plan{
		tag:    tag{number: j.plan.tag.number + 1, salt: rand.Uint64()},
		first:  first,
		off:    segmentHead,
		epochs: make(map[uint64]struct{}),
	}
}

func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}
