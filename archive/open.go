package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"go.uber.org/zap"
)

const (
	segmentsDir   = "segments"
	quarantineDir = "quarantine"
	indexDir      = "index"
	lockName      = "LOCK"

	// The archive's own keys in the state. %d is the log.
	keyArchiveID = "archive/id"
	keyFloor     = "archive/floor/"
	keyHead      = "archive/head/"

	// quarantineLinger is how old a refused delivery may be before it is synced. Lists show
	// it only then, and they have to follow within a second.
	quarantineLinger   = 400 * time.Millisecond
	quarantineBatch    = 1 << 20
	quarantineInFlight = 32 << 20
	// quarantineSegments is how many segments the quarantine's budget has at least:
	// what goes at once is one of them.
	quarantineSegments    = 8
	maxQuarantineSegments = 16 << 20
	// quarantineJump is how many seqs are left out when the quarantine opens. Ids are
	// given before anything is written; this is more than a node can refuse in the
	// second that a crash may cost.
	quarantineJump = 1 << 20
)

// Open opens the archive in dir, creating it, and recovers what an earlier life left.
// Damage is logged, counted and listed by Damage; it is no error. Open fails when the
// directory is held by another process (ErrLocked), cannot be read, or was written by
// a newer version (ErrNewer; then nothing is changed). A disk that cannot be written is no error either: then the archive
// answers ErrUnavailable until it can.
func Open(dir string, o Options) (*Archive, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Archive{dir: dir, o: o, zap: o.Logger, epochs: new(epochTable), steps: newStepRing(),
		later: make(chan func(), 256), quit: make(chan struct{}), blocks: new(blockCache), sealed: make(chan struct{}, 1),
		searching: make(chan struct{}, 1), textBudget: textBudget}
	if o.Keep != nil {
		a.SetKeep(o.Keep)
	}
	if o.Waiting != nil {
		a.SetWaiting(o.Waiting)
	}
	// First of all: of a newer version, and with a wrong key, nothing is written.
	if err := refuseNewer(o.FS, dir); err != nil {
		return nil, fmt.Errorf("open archive %s: %w", dir, err)
	}
	if a.keys, err = loadKeys(o.FS, dir, o.Encryption); err != nil {
		return nil, fmt.Errorf("open archive %s: %w", dir, err)
	}
	if err := a.prepare(); err != nil {
		return nil, err
	}
	if err := a.openKeys(); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, err), a.lock.Close())
	}
	if err := a.recoverAll(); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, err), a.lock.Close())
	}
	if a.pins, err = openPins(o.FS, dir, a.keys); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, err), a.lock.Close())
	}
	a.met = newMetrics(o.Registerer, a)
	a.log.met, a.quarantine.log.met = a.met.log[0], a.met.log[1]
	a.logFindings()
	a.start()
	if err := a.openIndex(); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, err), a.Close())
	}
	return a, nil
}

// openKeys reads the keyring again, now that nobody else writes it, and brings it in order.
func (a *Archive) openKeys() (err error) {
	if a.keys == nil {
		return nil
	}
	if a.keys, err = loadKeys(a.o.FS, a.dir, a.o.Encryption); err != nil {
		return err
	}
	a.keys.now = a.o.Now
	a.blocks.keys = a.keys
	a.damage.start = append(a.damage.start, a.keys.findings...)
	// A new keyring is made with the first segment, when it is known that no segment wants
	// one that was lost.
	if err := a.keys.tidy(); err != nil {
		a.zap.Error("the keyring cannot be written; trying again with the next start", zap.Error(err))
	}
	return nil
}

// prepare makes the directories and takes the lock.
func (a *Archive) prepare() error {
	for _, d := range []string{a.dir, filepath.Join(a.dir, segmentsDir), filepath.Join(a.dir, quarantineDir)} {
		if err := a.o.FS.MkdirAll(d); err != nil {
			return fmt.Errorf("make archive directory: %w", err)
		}
	}
	lock, err := a.o.FS.Lock(filepath.Join(a.dir, lockName))
	if err != nil {
		return fmt.Errorf("lock archive: %w", err)
	}
	a.lock = lock
	return nil
}

func (a *Archive) recoverAll() error {
	state, found, err := loadState(a.o.FS, a.dir, a.zap)
	if err != nil {
		return err
	}
	a.state = state
	a.damage.start = append(a.damage.start, found...)
	id := state.uint(keyArchiveID)
	main := &recovery{kind: logMain, dir: filepath.Join(a.dir, segmentsDir), archive: id, perSegment: perSegment(a.o.SegmentBytes)}
	if err := a.recoverLog(main); err != nil {
		return err
	}
	quar := &recovery{kind: logQuarantine, dir: filepath.Join(a.dir, quarantineDir), archive: main.archive,
		perSegment: perSegment(maxQuarantineSegments)}
	sampled := newSampler(a.o.Quarantine.Size, a.o.Now)
	quar.markers = sampled.restore
	if err := a.recoverLog(quar); err != nil {
		return err
	}
	if id = quar.archive; id == 0 {
		id = max(rand.Uint64(), 1)
	}
	a.state.archive = id
	// Also makes the file new, so that nothing is appended behind a torn tail.
	if err := a.state.Commit(Change{Key: keyArchiveID, Value: binary.LittleEndian.AppendUint64(nil, id)}); err != nil {
		a.zap.Error("cursors cannot be written; trying again with the next commit", zap.Error(err))
	}
	a.log = a.newJournal(main, id)
	a.quarantine = &quarantine{log: a.newJournal(quar, id), sampler: sampled}
	o := &a.quarantine.log.o
	o.Opening, o.Departs, o.Lost = sampled.opening, a.quarantine.placeCounts, a.quarantine.lost
	a.quarantine.restoreOlder()
	sampled.repeatAll()
	return nil
}

// perSegment is how many seqs a segment of that size can hold at most.
func perSegment(bytes int64) uint64 { return uint64(bytes/frameHead) + 1 }

func (a *Archive) recoverLog(r *recovery) error {
	kind := strconv.Itoa(int(r.kind))
	r.fs, r.log, r.blocks, r.keyed = a.o.FS, a.zap, a.blocks, a.keys != nil && a.keys.there.Load()
	r.floor = a.state.uint(keyFloor + kind)
	r.head = a.state.note(keyHead + kind)
	r.notes = a.settleState
	if err := r.run(); err != nil {
		return err
	}
	for _, f := range r.findings {
		f.file = filepath.Base(r.dir) + "/" + f.file
		a.damage.start = append(a.damage.start, f)
	}
	return nil
}

// settleState writes the state anew: of the file that was read, an earlier life may have
// synced neither the last commit nor the name.
func (a *Archive) settleState() error {
	id, ok := a.state.Get(keyArchiveID)
	if !ok {
		return nil // nothing was read
	}
	return a.state.Commit(Change{Key: keyArchiveID, Value: id})
}

// uint reads a note of the archive's own.
func (s *State) uint(key string) uint64 {
	if v, ok := s.Get(key); ok && len(v) == 8 {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (s *State) note(key string) segmentNote {
	if v, ok := s.Get(key); ok && len(v) == 16 {
		return segmentNote{number: binary.LittleEndian.Uint64(v), first: binary.LittleEndian.Uint64(v[8:])}
	}
	return segmentNote{}
}

func (a *Archive) newJournal(r *recovery, id uint64) *journal {
	o := journalOptions{FS: a.o.FS, Kind: r.kind, Archive: id, SegmentBytes: a.o.SegmentBytes, MaxInFlight: a.o.MaxInFlight,
		Now: a.o.Now, Logger: a.zap, Epochs: a.epochs, Later: a.runLater, Begun: a.noteHead(r.kind),
		Sealed: a.packSoon, Blocks: a.blocks, Keys: a.keys, Met: a.damage.met, Trace: a.o.Trace, Prompt: r.kind == logMain && a.o.FS == FS(osFS{})}
	next := r.lastSeq + 1
	if r.kind == logQuarantine {
		o.SegmentBytes = min(o.SegmentBytes, maxQuarantineSegments, max(a.o.Quarantine.Size/quarantineSegments, minSegmentBytes))
		o.MaxInFlight = min(o.MaxInFlight, quarantineInFlight)
		o.Linger, o.LingerBytes = quarantineLinger, quarantineBatch
		if len(r.segs) > 0 || r.lastSeq > 0 {
			next += quarantineJump
		}
	}
	j := &journal{dir: r.dir, names: r.names, o: o, log: a.zap, epochs: a.epochs, nextSeq: next, segs: r.segs,
		plan: r.newPlan(next), carry: r.carry, unsealed: r.unsealed, recovered: r.lastSeq, kick: make(chan struct{}, 1), stopped: make(chan struct{}), stop: make(chan struct{}),
		readers: make(map[*Reader]struct{})}
	if a.keys != nil {
		j.sealer = &sealer{keys: a.keys}
	}
	j.spares.names, j.spares.next = r.spares.names, r.spares.next
	if r.kind == logMain && a.o.Retention != (Retention{}) {
		j.spares.held = 1
	}
	j.noted = &r.noted
	j.noted.archive = id // a new archive has it only now
	if len(r.carry) == 0 {
		j.nextSeq++ // the plan's first
	}
	j.synced.Store(r.lastRecord())
	j.carrying.Store(len(r.carry) > 0)
	if len(r.segs) > 0 {
		j.floor = r.segs[0].head.tag.number
	}
	for _, s := range r.segs {
		j.bytes.Add(s.disk())
	}
	return j
}

// noteHead gives a function that notes the newest segment, so that its loss is seen.
func (a *Archive) noteHead(kind uint8) func(number, first uint64) {
	return func(number, first uint64) {
		if kind == logQuarantine {
			a.quarantine.sampler.repeatAll()
		}
		v := binary.LittleEndian.AppendUint64(nil, number)
		v = binary.LittleEndian.AppendUint64(v, first)
		if err := a.state.Commit(Change{Key: keyHead + strconv.Itoa(int(kind)), Value: v}); err != nil && !errors.Is(err, ErrClosed) {
			a.zap.Warn("newest segment is not noted", zap.Uint64("number", number), zap.Error(err))
		}
		a.retain()
	}
}

func (a *Archive) logFindings() {
	for _, f := range a.damage.start {
		if !f.damage {
			a.zap.Warn("recovery", zap.String("file", f.file), zap.String("finding", f.text))
			continue
		}
		a.zap.Error("archive is damaged", zap.String("file", f.file), zap.String("damage", f.text))
		a.met.log[0].corrupt.Inc()
	}
}

// start begins the first segments and everything that runs beside.
func (a *Archive) start() {
	a.workers.Add(3)
	go a.background()
	if !a.o.NoPack {
		a.workers.Add(1)
		go a.packAll()
	}
	go a.watch()
	go a.measureDisk()
	for _, j := range []*journal{a.log, a.quarantine.log} {
		if err := j.roll(j.plan.tag, j.plan.first); err != nil {
			// The committer goes on trying.
			a.zap.Error("archive cannot begin a segment; deliveries are refused until it can", zap.Error(err))
			j.mu.Lock()
			j.broken = fmt.Errorf("%w: %w", ErrUnavailable, err)
			j.nextSegment()
			j.mu.Unlock()
		}
		go j.commitLoop()
	}
}

// openIndex opens the index and lets it follow both logs.
func (a *Archive) openIndex() error {
	if a.o.NoIndex {
		return nil
	}
	enc, err := newCodec(a.keys)
	if err != nil {
		return err
	}
	x, err := openIndex(filepath.Join(a.dir, indexDir), indexOptions{
		Logger: a.zap, Extract: a.o.Extract, cores: a.o.Cores, behind: a.lowers(), now: a.o.Now, Known: a.o.Known, Reread: a.GetSeq, Registerer: a.o.Registerer, Tip: a.Synced,
		Last: [2]uint64{a.log.recovered, a.quarantine.log.recovered}, Codec: enc,
	})
	if err != nil {
		return err
	}
	a.index = x
	// Ready is an index that has what was there at the start; plus one, because an empty
	// log's 0 is a goal too.
	x.readyAt.Store(a.Synced() + 1)
	ctx, cancel := context.WithCancel(context.Background())
	a.unfollow = cancel
	if x.isOpen() {
		a.followLogs(ctx)
		return nil
	}
	a.follow.Add(1)
	go func() {
		defer a.follow.Done()
		select {
		case <-x.opened:
			a.followLogs(ctx)
		case <-ctx.Done():
		}
	}()
	return nil
}

// followLogs lets an index that is open follow both logs.
func (a *Archive) followLogs(ctx context.Context) {
	a.index.forget(logMain, a.log.first())
	a.index.forget(logQuarantine, a.quarantine.log.first())
	a.runLater(func() {
		a.catchUpThinned(a.log)
		a.catchUpThinned(a.quarantine.log)
	})
	for kind, j := range []*journal{a.log, a.quarantine.log} {
		a.follow.Add(1)
		go a.followLog(ctx, j, kind)
	}
}

func (a *Archive) followLog(ctx context.Context, j *journal, kind int) {
	defer a.follow.Done()
	r := j.newReader(a.index.position(kind) + 1)
	defer r.Close()
	r.Lend()
	next := r.Next
	if kind == logQuarantine {
		// The index tells the logs apart by this bit, also where the record is no delivery:
		// its position follows all of them.
		next = func(ctx context.Context) (Record, error) {
			rec, err := r.Next(ctx)
			rec.Seq |= QuarantineBit
			return rec, err
		}
	}
	if err := a.index.follow(ctx, next); !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
		a.zap.Error("index no longer follows the log", zap.Int("log", kind), zap.Error(err))
	}
}

// Close commits what was placed, closes everything and gives the lock back. Appends
// that come later get ErrClosed, readers what is left and then ErrClosed.
func (a *Archive) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	a.quarantine.flushCounts()
	a.log.shutdown()
	a.quarantine.log.shutdown()
	if a.unfollow != nil {
		a.unfollow()
		a.follow.Wait()
	}
	close(a.quit)
	a.workers.Wait()
	var errs []error
	if a.index != nil {
		errs = append(errs, a.index.close())
	}
	a.log.closeFiles()
	a.quarantine.log.closeFiles()
	errs = append(errs, a.state.close(), a.lock.Close())
	return errors.Join(errs...)
}
