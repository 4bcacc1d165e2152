// Package archive keeps every delivery that arrived, byte for byte, in an append-only
// log of segments, and what became of it: outcomes, markers, cursors, and an index that
// can be rebuilt from them. Append returns when a sync covers the record; nobody reads
// what is not synced. The formats stand in frame.go, segment.go, codec.go and state.go.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// What callers branch on.
var (
	// ErrUnavailable: a write or sync failed, or one hangs. Answer 503; the archive
	// goes on by itself when the disk does.
	ErrUnavailable = errors.New("the archive cannot be written")
	// ErrFull: the disk is at its reserve. Answer 503; outcomes, markers and state
	// are still taken.
	ErrFull = errors.New("the disk is at its reserve")
	// ErrBusy: as many bytes wait for a sync as may. Answer 503.
	ErrBusy = errors.New("the archive has too much in flight")
	// ErrTooLarge: the delivery is larger than any record may be (128 MiB).
	ErrTooLarge = errors.New("the delivery is too large for the archive")
	// ErrClosed: the archive is closed or closing.
	ErrClosed = errors.New("the archive is closed")
	// ErrLocked: another process has the directory; see LockedError.
	ErrLocked = errors.New("the archive is locked")
	// ErrNotFound: there is no such record, or no longer, or it was sampled away.
	ErrNotFound = errors.New("not in the archive")
	// ErrCorrupt: the record is there and cannot be read; see CorruptError. Its body
	// answers 410.
	ErrCorrupt = errors.New("the record is damaged")
)

// Options of an archive. The zero value of each field is its default.
type Options struct {
	FS           FS    // default OS()
	SegmentBytes int64 // default 64 MiB, at least 16 KiB, at most 1 GiB
	// MaxInFlight bounds the bytes of deliveries that wait for their sync; default 256 MiB.
	MaxInFlight int64
	// MaxWait bounds how long Append waits for a sync that hangs; default 1.5 s, so that
	// a provider has its 503 within 2 s. The record may still be stored afterwards.
	MaxWait    time.Duration
	Retention  Retention
	Quarantine Quarantine
	// ReservePercent of the disk are kept for outcomes and state; default 5, negative: none.
	ReservePercent int
	Logger         *zap.Logger
	Registerer     prometheus.Registerer
	// Extract reads the index fields of a delivery that has no outcome yet.
	Extract func(*Delivery) (Fields, bool)
	// Known gives the same of an accepted delivery that somebody has read already, because a
	// sink gets it. Where it is set, the index waits for the outcome, then asks Known, and what
	// nobody knows it reads from the log again, for Extract. Where it is nil, Extract reads each
	// delivery at once.
	Known func(seq uint64) (Fields, bool)
	// Cores is how many CPUs there are for all; 0 = GOMAXPROCS. The index's upkeep uses half.
	Cores   int
	Now     func() time.Time
	NoIndex bool // no index is opened: queries and evidence are not there
	NoPack  bool // sealed segments stay as they are
	// Encryption seals what is written from now on; what is there already stays as it is.
	// Once an archive has a keyring it does not open without. nil: nothing is encrypted.
	Encryption *Encryption
	// Keep gives the lowest seq that is still needed; retention removes nothing at or
	// above it. May be set later by SetKeep.
	Keep func() uint64
	// Waiting lists the deliveries with seqs from..to that have no final outcome; with
	// QuarantineBit in both those that were released and have none. What is listed is
	// never removed: it is copied forward when its segment is due. ok is false while it is
	// not known; then nothing is removed that Keep does not let go. May be set later by
	// SetWaiting.
	Waiting func(from, to uint64) (seqs []uint64, ok bool)
	// PendingSink says whether a sink is configured. While it does and Keep is not set,
	// retention removes nothing.
	PendingSink func() bool
	// Trace is told of each commit, when it is done; it must not wait. nil: nobody traces.
	Trace func(Stage)
}

// Retention says what may be removed; neither set: nothing.
type Retention struct {
	Age  time.Duration
	Size int64 // bytes of segments
}

// Quarantine bounds what is kept of refused deliveries.
type Quarantine struct {
	Size int64 // bytes; default 1 GiB
}

const (
	defaultSegmentBytes = 64 << 20
	minSegmentBytes     = 16 << 10
	maxSegmentBytes     = 1 << 30
	defaultMaxInFlight  = 256 << 20
	defaultMaxWait      = 1500 * time.Millisecond
	defaultQuarantine   = 1 << 30
	defaultReserve      = 5
)

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		o.FS = OS()
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.SegmentBytes, defaultSegmentBytes)
	setDefault(&o.MaxInFlight, defaultMaxInFlight)
	setDefault(&o.MaxWait, defaultMaxWait)
	setDefault(&o.Quarantine.Size, defaultQuarantine)
	setDefault(&o.ReservePercent, defaultReserve)
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes {
		return o, fmt.Errorf("segment size is %d bytes; it must be %d to %d", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	// Offsets in a segment have 32 bits, and a batch may be as large as what is in flight.
	if o.MaxInFlight < 0 || o.MaxInFlight > maxSegmentBytes {
		return o, fmt.Errorf("bytes in flight are bounded by %d; it must be 1 to %d", o.MaxInFlight, maxSegmentBytes)
	}
	return o, nil
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Archive is one directory, open for writing. Its methods may be called concurrently.
type Archive struct {
	pins       *pins // deliveries that outlive their segment
	dir        string
	o          Options
	zap        *zap.Logger
	lock       io.Closer
	state      *State
	keys       *Keys // nil: nothing is encrypted
	log        *journal
	quarantine *quarantine
	index      *index
	met        *metrics
	epochs     *epochTable
	oldEpochs  epochCache
	damage     damageLog
	steps      *stepRing

	keep      atomic.Pointer[func() uint64]
	waiting   atomic.Pointer[func(from, to uint64) ([]uint64, bool)]
	retaining sync.Mutex // one retention at a time
	starved   bool       // under retaining: the disk has no room for the cursors
	// releasing is held for reading while a release is promised, and alone by retention
	// while it removes refused deliveries. It comes after retaining.
	releasing sync.RWMutex
	diskFree  atomic.Uint64
	closed    atomic.Bool

	blocks     *blockCache   // of packed segments
	sealed     chan struct{} // there may be a segment to pack
	searching  chan struct{} // held by the one search of full text that runs
	textBudget time.Duration

	later    chan func()    // background work; see background.go
	quit     chan struct{}  // ends it
	workers  sync.WaitGroup // background goroutines
	follow   sync.WaitGroup // the index's followers
	unfollow context.CancelFunc
}

// SetKeep sets what Options.Keep says.
func (a *Archive) SetKeep(keep func() uint64) { a.keep.Store(&keep) }

// SetWaiting sets what Options.Waiting says.
func (a *Archive) SetWaiting(waiting func(from, to uint64) ([]uint64, bool)) {
	a.waiting.Store(&waiting)
}

// Append stores an accepted delivery or a challenge and returns after a sync covers it.
// It sets d.ID whatever happens, and d.Seq when the delivery is stored. ErrFull,
// ErrBusy, ErrUnavailable and ErrClosed mean 503.
func (a *Archive) Append(d *Delivery) error {
	if d.Verdict != Accepted && d.Verdict != Challenge {
		return fmt.Errorf("a delivery with verdict %s is not for the log", d.Verdict)
	}
	if err := a.ready(d); err != nil {
		return err
	}
	return a.log.append(d)
}

// ready makes sure that a delivery can be sealed.
func (a *Archive) ready(d *Delivery) error {
	if a.keys == nil {
		return nil
	}
	if d.ReceivedAt.IsZero() {
		d.ReceivedAt = a.o.Now()
	}
	if err := a.keys.ready(d.Source, d.ReceivedAt.UnixNano()); err != nil {
		a.log.nameOnly(d)
		return err
	}
	return nil
}

// AppendOutcomes stores outcomes, in order, and returns after a sync covers them all:
// the next delivery's, or after a few milliseconds one of their own.
// It sets their Seq. After an error some of them may be stored.
func (a *Archive) AppendOutcomes(os []Outcome) error {
	if a.keys != nil {
		for i := range os {
			if err := a.keys.ready(os[i].Source, os[i].At.UnixNano()); err != nil {
				return err
			}
		}
	}
	a.addSteps(os)
	return a.log.appendAll(os, nil)
}

// AppendMarker stores a marker and returns after a sync covers it. It sets m.Seq. A
// release of what is not there (any more) is refused with ErrNotFound; where it is taken,
// retention leaves the delivery alone from then on.
func (a *Archive) AppendMarker(m *Marker) error {
	if m.Kind == ReleaseMarker {
		a.releasing.RLock()
		defer a.releasing.RUnlock()
		if _, err := a.Get(m.Key); err != nil {
			return fmt.Errorf("release delivery %s: %w", m.Key, err)
		}
	}
	return a.log.appendAll(nil, m)
}

// NewReader reads the log from a seq on; 0 or 1 is its beginning. The reader must be
// closed.
func (a *Archive) NewReader(from uint64) *Reader { return a.log.newReader(from) }

// NewRejectedReader reads the quarantine, which has seqs of its own (without
// QuarantineBit in Record.Seq, with it in Delivery.Seq).
func (a *Archive) NewRejectedReader(from uint64) *Reader {
	return a.quarantine.log.newReader(from &^ QuarantineBit)
}

// Synced is the highest seq that is on stable storage, 0 when there is none.
func (a *Archive) Synced() uint64 { return a.log.synced.Load() }

// First is the lowest seq that is kept. It may belong to no record: seqs have gaps.
func (a *Archive) First() uint64 { return a.log.first() }

// State is the archive's small durable key-value store. Keys that begin with
// "archive/" are its own.
func (a *Archive) State() *State { return a.state }

// logOf gives the log that a seq belongs to, and the seq there.
func (a *Archive) logOf(seq uint64) (*journal, uint64) {
	if seq&QuarantineBit != 0 {
		return a.quarantine.log, seq &^ QuarantineBit
	}
	return a.log, seq
}

// GetSeq reads a delivery by its seq (with QuarantineBit for a rejected one).
// ErrNotFound also where the record is no delivery; ErrCorrupt where it is damaged.
func (a *Archive) GetSeq(seq uint64) (*Delivery, error) {
	j, seq := a.logOf(seq)
	rec, err := j.get(seq)
	if err != nil {
		return nil, err
	}
	if rec.Delivery == nil {
		return nil, ErrNotFound
	}
	return rec.Delivery, nil
}

// Get reads a delivery by its id: from the moment that Append or Reject returned.
// ErrNotFound for what is not an id of this archive, or was sampled away or removed.
func (a *Archive) Get(id string) (*Delivery, error) {
	_, node, seq, ok := parseID(id)
	if !ok || node != a.log.node() {
		return nil, ErrNotFound
	}
	d, err := a.GetSeq(seq)
	if errors.Is(err, ErrNotFound) {
		return a.pins.get(id)
	}
	if err != nil {
		return nil, err
	}
	if d.ID != id {
		return nil, ErrNotFound // another time: made up, or of a life whose tail was lost
	}
	return d, nil
}

// Writable says why a delivery would not be taken now; nil when it would.
func (a *Archive) Writable() error {
	j := a.log
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.admit(0)
}
