package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// The index is what the archive is searched by. It follows the log, holds no bodies and
// nothing that the log does not hold, and may be deleted while nothing runs.
//
// Keys (order16 = ^received_at ns, ^ref, both big-endian: ascending keys are newest
// first; ref = bit 63 quarantine, the rest seq):
//
//	m <name>                          format, pos0, pos1: how far each log is applied;
//	                                  thin<log>/<first>: number and salt of a thinned segment
//	                                  of which all is forgotten that it left out
//	r <order16>                       the row
//	s <last ref8>                     received_at of deliveries that were new in one batch:
//	                                  the way from a delivery to its row
//	x <field1> <fnv64 of value> <order16>   one per row and value that it will lose; empty
//	b <field1> <fnv64 of value> <window8> <batch8>   the rows of one window of time that got
//	                                  a value in one batch (index_blocks.go)
//	B                                 the same of a wide window
//	w <^shelf4>                       a shelf: which times it has ids of (index_ids.go)
//	h <^shelf4> <bucket2>             a bucket of it: hashes of ids, and their rows' places
//	                                  which of x, b and h a value has: valueKey.kind
//	o <ref8> <outcome seq8>           an outcome
//	c <level> <source> 0 <unit8>      deliveries per minute, hour or day: index_counts.go
//	e <identity16>                    evidence: ref, at, content, delivery id
//
// Of an encrypted archive it holds no more in the clear than the log does: index_codec.go.
//
// Pebble runs without its own log: a batch (rows and position) is in one memtable, and
// memtables reach the disk in order, so a crash loses a tail of whole batches and the
// position says which. What was lost is read from the log again. With a log of its own
// Pebble would end the process when that log cannot be written (a full disk), which a
// thing that can be rebuilt must not do.
const (
	keyMeta     = 'm'
	keyRow      = 'r'
	keySeq      = 's'
	keyValue    = 'x'
	keyBlock    = 'b'
	keyWide     = 'B'
	keyOutcome  = 'o'
	keyEvidence = 'e'
	keyCount    = 'c'
	keyShelf    = 'w'
	keyBucket   = 'h'
)

// indexFormat names the layout above. Another number in the directory: rebuilt.
// 2 has the counts, 3 the blocks, 5 the buckets, 7 wide windows and counts that are merged; sealed
// ones: indexFormatSealed.
const indexFormat = 7

const (
	orderSize = 16

	// indexMemTable: at about 0.35 KB of keys a delivery some 45,000 deliveries, which is
	// what is read again after a kill. It stands in the Go heap, so the collector allows
	// as much again. Tables of twice the size cost 30 MiB of memory more and save no CPU
	// that could be measured.
	indexMemTable = 16 << 20
	indexCache    = 64 << 20
	// indexFlushEvery bounds what a kill costs on a quiet system.
	indexFlushEvery = 10 * time.Second
)

// ErrIndex is returned by queries while the index cannot be used: it is closed or its
// storage failed. The archive itself goes on; the next start rebuilds what is needed.
var ErrIndex = errors.New("the index is not available")

type indexOptions struct {
	Logger *zap.Logger
	// Extract reads the fields of a delivery that has no outcome yet, accepted or
	// rejected (so that a refused delivery is found by its order id).
	Extract func(*Delivery) (Fields, bool)
	cores   int  // see Options.Cores
	behind  bool // the index is built on lowered threads
	// Known, where it is set, gives the fields of an accepted delivery that was read already,
	// and Reread the delivery. What is followed lends its bodies until the next record.
	Known      func(seq uint64) (Fields, bool)
	Reread     func(seq uint64) (*Delivery, error)
	Registerer prometheus.Registerer
	// Tip gives the last synced seq of the log; for the lag metric. May be nil.
	Tip func() uint64
	// Last is the last seq of each log (with Tip nil, 0 = not known). An index that is
	// ahead of its log belongs to another one and is rebuilt.
	Last [2]uint64
	// Codec of an encrypted archive; see index_codec.go.
	Codec *codec

	fs           vfs.FS           // nil: the disk
	batchDelay   time.Duration    // how long a change may wait for its batch on a quiet index; 0: 50 ms
	busyDelay    time.Duration    // and and on a busy one; 0: 400 ms, as lists follow within a second
	now          func() time.Time // nil: time.Now
	batchChanges int              // 0: 8192
	shelfIDs     uint64           // ids of a full shelf; 0: 4 million
	shelfSame    uint16           // 0: 2048
}

type index struct {
	dir  string
	log  *zap.Logger
	o    indexOptions
	tip  func() uint64
	disk *indexDisk

	codec *codec // nil: nothing is encrypted

	mu     sync.RWMutex // readers hold it while they use db; close takes it alone
	db     *pebble.DB
	closed bool

	broken  atomic.Pointer[error]
	brokenC chan struct{} // closed with the first failure
	once    sync.Once

	pos   [2]atomic.Uint64 // applied and visible
	floor [2]atomic.Uint64 // deliveries below are gone

	thinJobs thinJobs
	paced    time.Time // writer only: when it looked last how compactions get on
	late     atomic.Bool

	in   chan change
	held atomic.Int64 // bytes of bodies that wait for the extractor
	stop chan struct{}
	done chan struct{}

	opened chan struct{} // closed when db is there; at once but on a full disk

	seen   seenFilter
	loaded chan struct{} // closed when seen is loaded, or loading was stopped

	subs    subscribers
	metrics indexMetrics

	maxScan int           // steps of one page
	readyAt atomic.Uint64 // position at which the index counts as caught up; 0 = not asked yet
}

type indexMetrics struct {
	rows, outcomes, batches, rebuilds, extractPanics prometheus.Counter
}

func newIndexMetrics(r prometheus.Registerer, x *index) indexMetrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_index_lag_records",
		Help: "Synced records of the log that the index has not applied."}, func() float64 { return float64(x.lag()) }))
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_index_broken",
		Help: "1 while the index cannot be used and searches are refused."}, func() float64 {
		if x.broken.Load() != nil {
			return 1
		}
		return 0
	}))
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_index_bytes",
		Help: "Disk space of the index."}, x.diskBytes))
	return indexMetrics{
		rows:          counter("penstock_index_rows_total", "Rows written to the index, a row again with each change."),
		outcomes:      counter("penstock_index_outcomes_total", "Outcomes written to the index."),
		batches:       counter("penstock_index_batches_total", "Batches committed to the index."),
		rebuilds:      counter("penstock_index_rebuilds_total", "Times the index was thrown away and rebuilt from the log."),
		extractPanics: counter("penstock_index_extract_panics_total", "Panics in the extractor; the delivery has no fields."),
	}
}

// openIndex opens the index in dir, or begins an empty one where it does not open, has
// another format or is ahead of the log. The caller then lets it follow from position+1.
func openIndex(dir string, o indexOptions) (*index, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.batchDelay == 0 {
		o.batchDelay = 50 * time.Millisecond
	}
	if o.batchChanges == 0 {
		o.batchChanges = 8192
	}
	if o.shelfIDs == 0 {
		o.shelfIDs = shelfIDs
	}
	if o.shelfSame == 0 {
		o.shelfSame = shelfSame
	}
	if o.busyDelay == 0 {
		o.busyDelay = 400 * time.Millisecond
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.cores == 0 {
		o.cores = runtime.GOMAXPROCS(0)
	}
	disk := newIndexDisk(o.fs, dir, o.Logger)
	o.fs = disk.fs()
	x := &index{dir: dir, disk: disk, maxScan: maxScan, log: o.Logger, o: o, tip: o.Tip, codec: o.Codec, brokenC: make(chan struct{}), in: make(chan change, 512),
		stop: make(chan struct{}), done: make(chan struct{}), loaded: make(chan struct{}), opened: make(chan struct{})}
	x.metrics = newIndexMetrics(o.Registerer, x)
	err := x.tryOpen()
	if err != nil && !diskFull(err) {
		if errors.Is(err, errOlderIndex) {
			x.log.Warn("index of an older format: built anew from the log", zap.String("dir", dir))
		} else {
			x.log.Warn("index is rebuilt from the log", zap.String("dir", dir), zap.Error(err))
		}
		x.metrics.rebuilds.Inc()
		if err := o.fs.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove unusable index %s: %w", dir, err)
		}
		if err = x.tryOpen(); err != nil && !diskFull(err) {
			return nil, fmt.Errorf("open new index %s: %w", dir, err)
		}
	}
	x.subs.log = x.log
	if err != nil {
		x.log.Error("index cannot be opened on a full disk; searches are refused until it can", zap.String("dir", dir), zap.Error(err))
		go x.openLater()
		return x, nil
	}
	x.begin()
	return x, nil
}

// errOlderIndex: an earlier build wrote it.
var errOlderIndex = errors.New("it has an older format")

// open opens Pebble and reads format and positions. On an error nothing stays open.
func (x *index) open() (err error) {
	if _, err := x.o.fs.Stat(x.o.fs.PathJoin(x.dir, rebuildName)); err == nil {
		return errors.New("it failed while it was in use")
	}
	cache := pebble.NewCache(indexCache)
	defer cache.Unref()
	db, err := pebble.Open(x.dir, x.pebbleOptions(cache))
	if err != nil && strings.Contains(err.Error(), "merger name") {
		return errOlderIndex // its lists had no merger of ours; Pebble has no error of its own for it
	}
	if err != nil {
		return fmt.Errorf("open pebble: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	format, found, err := getUint(db, metaKey("format"))
	if err != nil {
		return err
	}
	check, _, err := getUint(db, metaKey("key"))
	if err != nil {
		return err
	}
	wantFormat, wantCheck := x.codec.format()
	switch {
	case !found:
		// New, or the very first memtable was lost: both are empty and start at 0.
		if err := errors.Join(db.Set(metaKey("format"), uintValue(wantFormat), pebble.NoSync), db.Set(metaKey("key"), uintValue(wantCheck), pebble.NoSync)); err != nil {
			return fmt.Errorf("write format: %w", err)
		}
	case format < min(indexFormat, indexFormatSealed):
		return errOlderIndex
	case format != wantFormat:
		return fmt.Errorf("format %d, this version writes %d", format, wantFormat)
	case check != wantCheck:
		return errors.New("it is encrypted with a key that was destroyed or lost")
	}
	for log := range x.pos {
		p, _, err := getUint(db, posKey(log))
		if err != nil {
			return err
		}
		if last := x.o.Last[log]; p > last && (last != 0 || x.tip != nil) {
			return fmt.Errorf("position %d of log %d is ahead of the log's end %d", p, log, last)
		}
		x.pos[log].Store(p)
		f, _, err := getUint(db, floorKey(log))
		if err != nil {
			return err
		}
		x.floor[log].Store(f)
	}
	x.db = db
	return nil
}

// removeIndex throws an index away; the next start rebuilds it.
func removeIndex(dir string) error { return vfs.Default.RemoveAll(dir) }

// rebuildName is left in the directory when the index failed in use: files that open
// may still be damaged.
const rebuildName = "REBUILD"

func (x *index) pebbleOptions(cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{
		FS: x.o.fs, Cache: cache, Logger: pebbleLogger{x}, DisableWAL: true, Merger: indexMerger, EventListener: x.listener(),
		MemTableSize: indexMemTable, MemTableStopWritesThreshold: 4,
		L0CompactionThreshold: 4, L0StopWritesThreshold: 24, LBaseMaxBytes: 256 << 20,
		MaxOpenFiles: 512, FormatMajorVersion: pebble.FormatNewest,
		// One compaction at a time: the index may lag, ingest may not.
		CompactionConcurrencyRange: func() (int, int) { return 1, max(1, x.o.cores/2) },
	}
	o.Experimental.SpanPolicyFunc = tablesApart
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	// No Bloom filters: they would be for all keys (2.5 MB a table, read whole on a cache
	// miss), where only evidence asks for what is not there; see seenFilter.
	return o
}

// tablesApart ends tables where one kind of keys does that grows at an end of its own: rows and
// what waits at their beginning, outcomes and times at their end, ids in the newest shelf. So new
// ones overlap little that is older, and no compaction writes rows again because of the postings
// that came with them.
func tablesApart(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	for _, kind := range [...]byte{keyEvidence, keyEvidence + 1, keyOutcome, keyRow, keySeq, keySeq + 1} {
		if len(start) == 0 || start[0] < kind {
			return policy, []byte{kind}, nil
		}
	}
	return policy, nil, nil
}

// pebbleLogger keeps Pebble from printing, and from ending the process: it calls Fatalf
// where its manifest cannot be written.
type pebbleLogger struct{ x *index }

func (pebbleLogger) Infof(string, ...interface{}) {}

func (l pebbleLogger) Errorf(format string, args ...interface{}) {
	l.x.log.Warn("index storage: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return, says Pebble; so the goroutine ends, and the index with it.
func (l pebbleLogger) Fatalf(format string, args ...interface{}) {
	l.x.fail(fmt.Errorf("index storage: "+format, args...))
	runtime.Goexit()
}

// fail takes the index out of use until the next start, which rebuilds it.
func (x *index) fail(err error) {
	x.once.Do(func() {
		x.broken.Store(&err)
		close(x.brokenC)
		x.log.Error("index failed; searches are refused and the next start rebuilds it", zap.Error(err))
		f, err := x.o.fs.Create(x.o.fs.PathJoin(x.dir, rebuildName), vfs.WriteCategoryUnspecified)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			x.log.Warn("index could not be marked for a rebuild", zap.Error(err))
		}
	})
}

// reading keeps the index open until the returned function is called.
func (x *index) reading() (func(), error) {
	x.mu.RLock()
	if x.closed {
		x.mu.RUnlock()
		return nil, fmt.Errorf("%w: closed", ErrIndex)
	}
	if p := x.broken.Load(); p != nil {
		x.mu.RUnlock()
		return nil, fmt.Errorf("%w: %w", ErrIndex, *p)
	}
	if !x.isOpen() {
		x.mu.RUnlock()
		return nil, fmt.Errorf("%w: its disk is full", ErrIndex)
	}
	return x.mu.RUnlock, nil
}

// position is the last seq of the log (0 = main, 1 = quarantine) whose record is applied
// and visible to queries.
func (x *index) position(log int) uint64 { return x.pos[log].Load() }

func (x *index) lag() uint64 {
	if x.tip == nil {
		return 0
	}
	tip, pos := x.tip(), x.position(0)
	return max(tip, pos) - pos
}

func (x *index) diskBytes() float64 {
	done, err := x.reading()
	if err != nil {
		return math.NaN()
	}
	defer done()
	return float64(x.db.Metrics().DiskSpaceUsage())
}

// close applies what it was given, flushes and closes. Followers must have ended.
func (x *index) close() error {
	close(x.stop)
	x.disk.giveUp()
	if !x.disk.await(x.done) {
		return x.leave()
	}
	<-x.loaded
	x.subs.closeAll()
	if !x.isOpen() {
		return nil
	}
	if x.broken.Load() != nil {
		x.abandon()
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if err := x.flushAndClose(); err != nil {
		return fmt.Errorf("close index %s: %w", x.dir, err)
	}
	return nil
}

// abandonTime is how long a failed Pebble may take to close.
const abandonTime = 2 * time.Second

// abandon closes a failed Pebble if it lets itself be closed: one whose goroutine ended
// in Fatalf may wait for it for ever. Its files are rebuilt anyway.
func (x *index) abandon() {
	closed := make(chan error, 1)
	go func() {
		x.mu.Lock() // a query may hang in there too
		defer x.mu.Unlock()
		x.closed = true
		defer func() {
			if p := recover(); p != nil {
				closed <- fmt.Errorf("panic: %v", p)
			}
		}()
		closed <- x.db.Close()
	}()
	select {
	case err := <-closed:
		x.log.Warn("failed index closed", zap.Error(err))
	case <-time.After(abandonTime):
		x.log.Warn("failed index does not close and is left", zap.Duration("after", abandonTime))
	}
}

func metaKey(name string) []byte { return append([]byte{keyMeta}, name...) }
func posKey(log int) []byte      { return metaKey(fmt.Sprintf("pos%d", log)) }
func floorKey(log int) []byte    { return metaKey(fmt.Sprintf("floor%d", log)) }

func uintValue(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// getUint reads an 8-byte value.
func getUint(db pebble.Reader, key []byte) (v uint64, found bool, err error) {
	b, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read index key %q: %w", key, err)
	}
	defer closer.Close()
	if len(b) != 8 {
		return 0, false, fmt.Errorf("index key %q has %d bytes, want 8", key, len(b))
	}
	return binary.BigEndian.Uint64(b), true, nil
}

// order is a row's place: newest first.
type order [orderSize]byte

func makeOrder(at time.Time, r ref) order {
	var o order
	binary.BigEndian.PutUint64(o[:8], ^uint64(nanos(at)))
	binary.BigEndian.PutUint64(o[8:], ^uint64(r))
	return o
}

func (o order) ref() ref { return ref(^binary.BigEndian.Uint64(o[8:])) }

// nanos keeps times out of range (a zero time) from wrapping around.
func nanos(t time.Time) int64 {
	if t.Before(time.Unix(0, 0)) {
		return 0
	}
	if t.After(time.Unix(0, math.MaxInt64)) {
		return math.MaxInt64
	}
	return t.UnixNano()
}

func rowKey(b []byte, o order) []byte { return append(append(b[:0], keyRow), o[:]...) }

func seqKey(b []byte, r ref) []byte {
	return binary.BigEndian.AppendUint64(append(b[:0], keySeq), uint64(r))
}

func outcomeKey(b []byte, r ref, seq uint64) []byte {
	b = binary.BigEndian.AppendUint64(append(b[:0], keyOutcome), uint64(r))
	return binary.BigEndian.AppendUint64(b, seq)
}

func evidenceKey(b []byte, id Identity) []byte { return append(append(b[:0], keyEvidence), id[:]...) }

// valueKey is one searchable value: its field and a hash. Rows found by it are compared
// again, so that two values with one hash cost time and nothing else.
type valueKey struct {
	field byte
	kind  valueKind
	hash  uint64
}

// valueKind is where a value's rows are found.
type valueKind byte

const (
	common valueKind = iota // in blocks: many rows share it
	single                  // by keys of their own: it does not last
	unique                  // in buckets: almost as many values as rows
)

const valuePrefixSize = 10

func (k valueKey) prefix(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b[:0], keyValue, k.field), k.hash)
}

func (k valueKey) key(b []byte, o order) []byte { return append(k.prefix(b), o[:]...) }

// fnv64 is FNV-1a; the hash is part of the format.
func fnv64(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
