package archive

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// keepRule says what of a log may go.
type keepRule struct {
	age   time.Duration
	size  int64
	keep  uint64 // lowest seq that must stay; 0 = none must
	waits func(from, to uint64) (seqs []uint64, ok bool)
}

// errUnknown: what waits is not known at the moment.
var errUnknown = errors.New("what waits is not known yet")

// retain removes what may go from both logs.
func (a *Archive) retain() {
	a.retaining.Lock()
	defer a.retaining.Unlock()
	a.pins.expire(a.o.Now(), a.zap)
	a.tendFloor(a.log)
	a.tendFloor(a.quarantine.log)
	rule := keepRule{age: a.o.Retention.Age, size: a.o.Retention.Size}
	waits := a.waiting.Load()
	if keep := a.keep.Load(); keep != nil {
		rule.keep = (*keep)()
		if rule.keep > 0 && waits != nil {
			rule.waits = *waits
		}
		rule.keep = max(rule.keep, 1) // 0 means that all must stay
	} else if a.o.PendingSink != nil && a.o.PendingSink() {
		rule.keep = 1 // the sink has not said yet what it has
	}
	a.trim(a.log, rule)
	rule = keepRule{age: a.o.Retention.Age, size: a.o.Quarantine.Size}
	if waits != nil {
		rule.waits = *waits
	}
	a.trim(a.quarantine.log, rule)
}

// trim removes whole segments, oldest first, never the newest. What waits in one is
// copied forward first.
func (a *Archive) trim(j *journal, rule keepRule) {
	for k, dropped := 0, false; ; {
		prev, seg, next := j.expired(k, rule, a.o.Now())
		if seg == nil {
			return
		}
		fewer, err := a.retire(j, rule, prev, seg, next)
		if !dropped && diskFull(err) && a.dropSpares() {
			dropped = true
			continue
		}
		switch {
		case errors.Is(err, errUnknown):
			return
		case err != nil:
			a.zap.Error("retention cannot remove a segment", zap.String("segment", seg.name), zap.Error(err))
			return
		}
		if !fewer {
			k++
		}
	}
}

// expired gives the k-th oldest segment and its neighbours, if it may go but for what waits.
func (j *journal) expired(k int, rule keepRule, now time.Time) (prev, seg, next *segment) {
	j.segMu.RLock()
	defer j.segMu.RUnlock()
	if k+1 >= len(j.segs) {
		return nil, nil, nil
	}
	seg, next = j.segs[k], j.segs[k+1]
	if k > 0 {
		prev = j.segs[k-1]
	}
	// No record of a segment is younger than the next segment.
	old := rule.age > 0 && next.head.created > 0 && now.Sub(next.created()) > rule.age
	big := rule.size > 0 && j.bytes.Load() > rule.size
	if !old && !big {
		return nil, nil, nil
	}
	return prev, seg, next
}

// retire removes a segment that is due, or leaves of it what waits. It says whether the
// log has one segment less.
func (a *Archive) retire(j *journal, rule keepRule, prev, seg, next *segment) (fewer bool, err error) {
	if j.o.Kind == logQuarantine && rule.waits != nil {
		// A release that was promised is known to rule.waits from here on.
		a.releasing.Lock()
		defer a.releasing.Unlock()
	}
	if prev == nil && (rule.keep == 0 && rule.waits == nil || rule.keep != 0 && next.head.first <= rule.keep) {
		return true, a.discard(j, seg, next)
	}
	if rule.waits == nil {
		return false, errUnknown
	}
	now := a.o.Now()
	small := prev.smallThinned(j.o.SegmentBytes/2) && seg.smallThinned(j.o.SegmentBytes/2-prev.size.Load())
	rests := seg.whole || now.Before(seg.thinAt) && !small
	if prev != nil && rests {
		return false, nil
	}
	bit := j.seqBit()
	waits, ok := rule.waits(seg.head.first|bit, (next.head.first-1)|bit)
	released := []uint64(nil)
	if ok && bit == 0 {
		released, ok = rule.waits(QuarantineBit, QuarantineBit|maxSeq)
	}
	if !ok {
		return false, errUnknown
	}
	if prev == nil && len(waits) == 0 && len(released) == 0 {
		return true, a.discard(j, seg, next)
	}
	if rests {
		return false, nil
	}
	if !small && !seg.worthThinning(len(waits)) {
		seg.thinAt = now.Add(thinRest)
		return false, nil
	}
	parts := []*segment{seg}
	if prev.smallThinned(j.o.SegmentBytes / 2) {
		more, ok := rule.waits(prev.head.first|bit, (seg.head.first-1)|bit)
		if !ok {
			return false, errUnknown
		}
		parts, waits = []*segment{prev, seg}, append(more, waits...)
	}
	return a.thinned(j, parts, waits, released, now)
}

// thinned thins parts and says whether they are fewer now.
func (a *Archive) thinned(j *journal, parts []*segment, waits, released []uint64, now time.Time) (fewer bool, err error) {
	seg := parts[len(parts)-1]
	switch err := a.thin(j, parts, waits, released); {
	case errors.Is(err, errVain):
		seg.thinAt, seg.inVain = now.Add(thinRest), len(waits)
		return false, nil
	case errors.Is(err, errWhole) && len(parts) > 1:
		return a.thinned(j, parts[1:], waits, released, now)
	case errors.Is(err, errWhole):
		seg.whole = true
		a.zap.Warn("what waits in a segment cannot be copied forward", zap.String("segment", seg.name), zap.Error(err))
		return false, nil
	case err != nil:
		return false, err
	}
	j.o.Sealed()
	a.zap.Info("retention left of a segment what still waits", zap.String("dir", j.dir), zap.String("segment", seg.name))
	return len(parts) > 1, nil
}

// worthThinning says whether a segment of which n deliveries wait is worth a look.
func (s *segment) worthThinning(n int) bool {
	if d := int(s.head.thin.deliveries); s.head.thin.end > 0 {
		return 4*n <= 3*d && n < d
	}
	if s.inVain > 0 {
		return 4*n <= 3*s.inVain
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Outcomes are smaller than deliveries, so this is the least that would stay.
	return s.tally.count == 0 || uint64(4*n) <= 3*s.tally.count
}

// smallThinned says whether s is a thinned segment that others may be put to.
func (s *segment) smallThinned(most int64) bool {
	return s != nil && s.head.thin.end > 0 && !s.whole && s.size.Load() <= most
}

func (a *Archive) discard(j *journal, seg, next *segment) error {
	if err := a.remove(j, seg, next); err != nil {
		return err
	}
	a.zap.Info("retention removed a segment", zap.String("dir", j.dir), zap.String("segment", seg.name))
	return nil
}

// remove takes a segment out of the log. It is noted first: a crash may bring the file
// back, and its absence must not look like a loss.
func (a *Archive) remove(j *journal, seg, next *segment) error {
	if err := j.names.settle(); err != nil {
		return err
	}
	number := next.head.tag.number
	if err := a.noteFloor(j, number); err != nil {
		return fmt.Errorf("note that segments below number %d are removed: %w", number, err)
	}
	j.segMu.Lock()
	j.segs = j.segs[1:]
	j.floor = number
	j.segMu.Unlock()
	if a.index != nil {
		a.index.forget(int(j.o.Kind), next.head.first)
	}
	j.warm.forget(seg)
	seg.mu.Lock()
	seg.gone = true
	idle := seg.refs == 0
	seg.mu.Unlock()
	j.bytes.Add(-seg.disk())
	_ = j.o.FS.Remove(seg.path + tornSuffix) // usually there is none
	// A file that someone reads must not change under him, so it is no spare.
	small := seg.stored.Load() > 0 || seg.head.thin.end > 0
	if idle && !seg.poisoned && !small && !a.starved && j.spares.wanted() {
		name := j.spares.name(usedPrefix)
		if j.o.FS.Rename(seg.path, j.path(name)) == nil {
			return j.keepSpare(name)
		}
	}
	if err := j.o.FS.Remove(seg.path); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// keepSpare offers a removed segment's file as a spare, once its new name is on the disk. What
// is written to it before that a power cut could leave under the old name: a segment whose
// header is another's, or one file with the names of both.
func (j *journal) keepSpare(name string) error {
	if err := j.o.FS.SyncDir(j.dir); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", j.dir, err), j.o.FS.Remove(j.path(name)))
	}
	j.spares.put(name)
	return nil
}

// wanted says whether another spare would be kept.
func (p *sparePool) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names) < maxSpares
}
