package archive

import (
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

const (
	// retainEvery is how often retention looks; it also looks after each new segment.
	retainEvery = 10 * time.Second
	// watchEvery is how exactly MaxWait is kept, and how often the free space and the counts
	// of refused deliveries are looked at.
	watchEvery = 200 * time.Millisecond
)

// runLater hands work to the background goroutine; false when its queue is full or it
// has ended.
func (a *Archive) runLater(f func()) bool {
	if a.closed.Load() {
		return false
	}
	select {
	case a.later <- f:
		return true
	default:
		return false
	}
}

// background does what nobody waits for: footers, spares, notes, retention. What is in
// its queue when the archive closes is done still, because it holds files.
func (a *Archive) background() {
	defer a.workers.Done()
	retain := time.NewTicker(retainEvery)
	defer retain.Stop()
	for {
		select {
		case f := <-a.later:
			f()
		case <-retain.C:
			a.retain()
		case <-a.quit:
			for {
				select {
				case f := <-a.later:
					f()
				default:
					return
				}
			}
		}
	}
}

// watch gives up on syncs that hang, and writes down the counts of the quarantine. It
// asks nothing of the disk, so that it never hangs with it.
func (a *Archive) watch() {
	defer a.workers.Done()
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	for {
		select {
		case <-watch.C:
			a.log.giveUpWaiting(a.o.MaxWait)
			a.quarantine.flushCounts()
		case <-a.quit:
			return
		}
	}
}

// measureDisk looks at the free space.
func (a *Archive) measureDisk() {
	defer a.workers.Done()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		a.measure()
		select {
		case <-ticker.C:
		case <-a.quit:
			return
		}
	}
}

// measure compares the disk with its reserve.
func (a *Archive) measure() {
	free, total, err := a.o.FS.Free(a.dir)
	if err != nil {
		a.zap.Warn("free space of the archive's disk is unknown", zap.Error(err))
		return
	}
	a.diskFree.Store(free)
	reserve := uint64(0)
	if a.o.ReservePercent > 0 {
		reserve = total / 100 * uint64(a.o.ReservePercent)
	}
	full := free < reserve
	if a.log.full.Swap(full) != full {
		a.zap.Warn("disk reserve", zap.Bool("deliveries_refused", full), zap.Uint64("free_bytes", free), zap.Uint64("reserve_bytes", reserve))
	}
	a.quarantine.log.full.Store(full)
}

// giveUpWaiting answers those who wait for a sync that takes longer than limit, and
// refuses new deliveries until it returns. What they appended may still be stored.
func (j *journal) giveUpWaiting(limit time.Duration) {
	j.mu.Lock()
	b := j.committing
	if b == nil || b.started.IsZero() || time.Since(b.started) < limit {
		j.mu.Unlock()
		return
	}
	first := !j.stalled
	j.stalled = true
	waiting := append([]*batch{b}, j.queue...)
	if j.cur != nil && j.cur.size > 0 {
		j.queue = append(j.queue, j.detach())
		waiting = append(waiting, j.queue[len(j.queue)-1])
	}
	err := fmt.Errorf("%w: a sync takes longer than %s", ErrUnavailable, limit)
	for _, w := range waiting {
		w.settle(err)
	}
	j.mu.Unlock()
	if first {
		j.met.failures.Inc()
		j.log.Error("a sync of the archive hangs; deliveries are refused until it returns", zap.Duration("limit", limit))
	}
}

// shutdown commits what was placed and ends the committer.
func (j *journal) shutdown() {
	j.mu.Lock()
	j.closing = true
	j.mu.Unlock()
	close(j.stop)
	j.wake()
	<-j.stopped
	j.notify()
}

// closeFiles marks the active segment as closed in good order: after that no torn write
// and no damage can be mistaken for each other.
func (j *journal) closeFiles() {
	j.warm.close()
	seg := j.active
	if seg == nil {
		return
	}
	if !seg.poisoned {
		j.writeSyncMark()
		if err := seg.file.Sync(); err != nil {
			j.log.Warn("segment is closed without its last mark", zap.String("segment", seg.name), zap.Error(err))
		}
	}
	seg.release()
	j.active = nil
}

func (j *journal) count() int {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	return len(j.segs)
}

// raw is how many bytes the segments would have without compression.
func (j *journal) raw() (n int64) {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	for _, s := range j.segs {
		n += s.size.Load()
	}
	return n
}

// first is the lowest seq that is kept.
func (j *journal) first() uint64 {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	if len(j.segs) == 0 {
		return j.synced.Load() + 1
	}
	return j.segs[0].head.first
}

// damaged counts and logs a damaged place; once, however often it is asked for.
func (j *journal) damaged(e *CorruptError) {
	if j.o.Met != nil && !j.o.Met(filepath.Base(j.dir), e) {
		return
	}
	j.met.corrupt.Inc()
	j.log.Error("archive is damaged", zap.String("dir", j.dir), zap.Error(e))
}
