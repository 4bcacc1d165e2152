package archive

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// keepRule says what of a log may go.
type keepRule struct {
	age  time.Duration
	size int64
	keep uint64 // lowest seq that must stay; 0 = none must
}

// retain removes what may go from both logs.
func (a *Archive) retain() {
	a.retaining.Lock()
	defer a.retaining.Unlock()
	a.pins.expire(a.o.Now(), a.zap)
	rule := keepRule{age: a.o.Retention.Age, size: a.o.Retention.Size}
	if keep := a.keep.Load(); keep != nil {
		rule.keep = max((*keep)(), 1) // 0 means that all must stay
	} else if a.o.PendingSink != nil && a.o.PendingSink() {
		rule.keep = 1 // the sink has not said yet what it has
	}
	a.trim(a.log, rule)
	a.trim(a.quarantine.log, keepRule{age: a.o.Retention.Age, size: a.o.Quarantine.Size})
}

// trim removes whole segments, oldest first, never the newest.
func (a *Archive) trim(j *journal, rule keepRule) {
	for {
		seg, next := j.removable(rule, a.o.Now())
		if seg == nil {
			return
		}
		if err := a.remove(j, seg, next); err != nil {
			a.zap.Error("retention cannot remove a segment", zap.String("segment", seg.name), zap.Error(err))
			return
		}
		a.zap.Info("retention removed a segment", zap.String("dir", j.dir), zap.String("segment", seg.name))
	}
}

// removable gives the oldest segment if it may go, and its successor.
func (j *journal) removable(rule keepRule, now time.Time) (seg, next *segment) {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	if len(j.segs) < 2 {
		return nil, nil
	}
	seg, next = j.segs[0], j.segs[1]
	if rule.keep != 0 && next.head.first > rule.keep {
		return nil, nil
	}
	// No record of a segment is younger than the next segment.
	old := rule.age > 0 && next.head.created > 0 && now.Sub(next.created()) > rule.age
	big := rule.size > 0 && j.bytes.Load() > rule.size
	if !old && !big {
		return nil, nil
	}
	return seg, next
}

// remove takes a segment out of the log. It is noted first: a crash may bring the file
// back, and its absence must not look like a loss.
func (a *Archive) remove(j *journal, seg, next *segment) error {
	number := next.head.tag.number
	note := Change{Key: keyFloor + strconv.Itoa(int(j.o.Kind)), Value: binary.LittleEndian.AppendUint64(nil, number)}
	if err := a.state.Commit(note); err != nil {
		return fmt.Errorf("note that segments below number %d are removed: %w", number, err)
	}
	j.segMu.Lock()
	j.segs = j.segs[1:]
	j.floor = number
	j.segMu.Unlock()
	if a.index != nil {
		a.index.forget(int(j.o.Kind), next.head.first)
	}
	seg.mu.Lock()
	seg.gone = true
	idle := seg.refs == 0
	seg.mu.Unlock()
	j.bytes.Add(-seg.disk())
	_ = j.o.FS.Remove(seg.path + tornSuffix) // usually there is none
	// A file that someone reads must not change under him, so it is no spare.
	if idle && !seg.poisoned && seg.stored.Load() == 0 { // a packed one is too small
		name := j.spares.name(usedPrefix)
		if j.spares.wanted() && j.o.FS.Rename(seg.path, j.path(name)) == nil {
			j.spares.put(name)
			return nil
		}
	}
	if err := j.o.FS.Remove(seg.path); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// wanted says whether another spare would be kept.
func (p *sparePool) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names) < maxSpares
}
