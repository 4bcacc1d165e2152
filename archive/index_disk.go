package archive

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

const (
	// indexRoom is how much space there must be before the index writes again on a disk
	// that was full.
	indexRoom = 8 << 20
	// indexRest is the shortest rest on a full disk, for one that has space and says it
	// has none (a quota).
	indexRest = 100 * time.Millisecond
	// indexRetry is how often an index that found its disk full is opened again.
	indexRetry = 500 * time.Millisecond
	// indexPatience is how long closing waits for what a full disk does not take.
	indexPatience = 2 * time.Second
)

// indexDisk lets the index wait where the disk is full. Pebble by itself tries again at
// once and without end, and gives up for good where its manifest cannot be written.
type indexDisk struct {
	inner vfs.FS
	dir   string
	log   *zap.Logger
	stop  chan struct{} // closed: nobody waits any more
	once  sync.Once
	open  atomic.Bool  // before that nobody waits either: the archive opens without its index
	last  atomic.Int64 // when the disk was full last, ns
	hurry atomic.Bool  // compactions do not rest
}

func newIndexDisk(inner vfs.FS, dir string, log *zap.Logger) *indexDisk {
	return &indexDisk{inner: inner, dir: dir, log: log, stop: make(chan struct{})}
}

// fs gives the disk to Pebble. What finds it full is tried once more when wait returns.
func (d *indexDisk) fs() vfs.FS {
	return vfs.OnDiskFull(pacedFS{d.inner, &d.hurry, time.Sleep}, d.wait)
}

func (d *indexDisk) wait() {
	if d.open.Load() {
		d.log.Warn("index waits: its disk is full", zap.String("dir", d.dir))
	}
	rest := time.NewTicker(indexRest)
	defer rest.Stop()
	for {
		d.last.Store(time.Now().UnixNano())
		select {
		case <-d.stop:
			<-rest.C // whoever tries again does it at leisure
			return
		case <-rest.C:
		}
		if !d.open.Load() {
			return
		}
		if d.hasRoom() {
			return
		}
	}
}

// hasRoom is also true where nobody knows.
func (d *indexDisk) hasRoom() bool {
	u, err := d.inner.GetDiskUsage(d.dir)
	return err != nil || u.AvailBytes >= indexRoom
}

func (d *indexDisk) giveUp() { d.once.Do(func() { close(d.stop) }) }

// full says whether the disk was full a moment ago.
func (d *indexDisk) full() bool {
	return time.Since(time.Unix(0, d.last.Load())) < 10*indexRest
}

// await waits for c, but on a full disk not for ever.
func (d *indexDisk) await(c <-chan struct{}) bool {
	tick := time.NewTicker(indexRest)
	defer tick.Stop()
	for waited := time.Duration(0); waited < indexPatience; {
		select {
		case <-c:
			return true
		case <-tick.C:
			if waited += indexRest; !d.full() {
				waited = 0
			}
		}
	}
	return false
}

// begin starts an index that is open.
func (x *index) begin() {
	x.disk.open.Store(true)
	close(x.opened)
	go x.loadSeen()
	go x.write()
}

// tryOpen is open where the disk has room: without it Pebble's Open does not return. It
// opens in a goroutine of its own, which Pebble ends where its manifest cannot be written.
func (x *index) tryOpen() (err error) {
	if err := x.o.fs.MkdirAll(x.dir, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", x.dir, err)
	}
	if !x.disk.hasRoom() {
		return fmt.Errorf("less than %d MiB are free: %w", indexRoom>>20, syscall.ENOSPC)
	}
	opened := make(chan error, 1)
	go func() {
		err := errors.New("pebble gave up")
		defer func() { opened <- err }()
		err = x.open()
	}()
	return <-opened
}

// diskFull says whether that is all that keeps the index from opening.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// openLater opens the index when its disk has space again; the archive is used meanwhile.
func (x *index) openLater() {
	retry := time.NewTicker(indexRetry)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
		case <-x.stop:
			close(x.loaded)
			close(x.done)
			return
		}
		err := x.tryOpen()
		switch {
		case err == nil:
			x.log.Info("index is open: its disk has space again", zap.String("dir", x.dir))
			x.begin()
			return
		case !diskFull(err) && x.broken.Load() == nil:
			x.fail(err)
		}
		if x.broken.Load() != nil {
			close(x.loaded)
			close(x.done)
			return
		}
	}
}

func (x *index) isOpen() bool {
	select {
	case <-x.opened:
		return true
	default:
		return false
	}
}

// flushAndClose ends Pebble. What a full disk does not take is read from the log again.
// Caller holds mu.
func (x *index) flushAndClose() error {
	x.disk.hurry.Store(true) // Close waits for a compaction to end
	var flushed <-chan struct{}
	var err error
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		flushed, err = x.db.AsyncFlush()
	}()
	if !x.disk.await(asked) {
		return x.leave() // it holds what Close wants
	}
	if err == nil && !x.disk.await(flushed) {
		x.log.Warn("index is closed on a full disk; what it had not written is read from the log again", zap.String("dir", x.dir))
	}
	return errors.Join(err, x.db.Close())
}

// leave gives an index up that cannot be closed: the disk is full and it has more than it
// may hold. Its files are as sound as after a kill.
func (x *index) leave() error {
	x.log.Warn("index does not close on a full disk and is left", zap.String("dir", x.dir))
	return nil
}
