package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"go.uber.org/zap"
)

// thinJob is what the index is to forget of a segment that was thinned: all deliveries
// from first to last but those that were kept.
type thinJob struct {
	log         int
	first, last uint64
	mark        []byte // key in the index: it is done for the segment of that number and salt
	value       []byte
	kept        map[uint64]struct{}
	upto        uint64 // highest seq that was in the files before
	next        uint64 // where the sweep goes on
}

// thinJobs are waiting for the writer. Its mutex guards the list.
type thinJobs struct {
	mu   sync.Mutex
	list []*thinJob
}

func (t *thinJobs) put(j *thinJob) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, j)
}

func (t *thinJobs) first() *thinJob {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		return nil
	}
	return t.list[0]
}

func (t *thinJobs) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = t.list[1:]
}

func newThinJob(log int, seg *segment, last uint64) *thinJob {
	value := seg.head.tag.bytes()
	return &thinJob{log: log, first: seg.head.first, last: last, next: seg.head.first, value: value[:],
		mark: metaKey(fmt.Sprintf("thin%d/%d", log, seg.head.first))}
}

// thin forgets what a thinned segment left out.
func (x *index) thin(log int, seg *segment, last, upto uint64, kept map[uint64]struct{}) {
	job := newThinJob(log, seg, last)
	job.kept, job.upto = kept, upto
	x.thinJobs.put(job)
}

// sweepThinned deletes a bounded number of rows, as sweepLog does.
func (w *writer) sweepThinned() error {
	job := w.x.thinJobs.first()
	if job == nil {
		return nil
	}
	// A record of that segment that is still on its way in would come back behind us.
	if w.applied[job.log] < job.upto {
		return nil
	}
	lower, upper := makeRef(job.log, job.next), makeRef(job.log, job.last+1)
	refs, err := refsFrom(w.x.db, lower, upper, sweepStep)
	if err != nil {
		return err
	}
	for _, r := range refs {
		job.next = r.seq() + 1
		if _, ok := job.kept[r.seq()]; ok {
			continue
		}
		if err := w.erase(r); err != nil {
			return err
		}
		if err := w.batch.DeleteRange(outcomeKey(nil, r, 0), outcomeKey(nil, r+1, 0), nil); err != nil {
			return err
		}
	}
	if len(refs) == sweepStep {
		return nil
	}
	w.x.thinJobs.done()
	return w.batch.Set(job.mark, job.value, nil)
}

// catchUpThinned hands over what a crash may have kept the index from forgetting.
func (a *Archive) catchUpThinned(j *journal) {
	j.segMu.RLock()
	segs := j.segs
	j.segMu.RUnlock()
	for i, seg := range segs {
		if seg.head.thin.end == 0 || i+1 == len(segs) {
			continue
		}
		job := newThinJob(int(j.o.Kind), seg, segs[i+1].head.first-1)
		if a.index.knows(job) {
			continue
		}
		kept, err := seg.deliveries()
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			a.zap.Warn("the index may list deliveries that retention removed", zap.String("segment", seg.name), zap.Error(err))
			continue
		}
		job.kept = kept
		a.index.thinJobs.put(job)
	}
}

// knows says whether the index has done a job.
func (x *index) knows(job *thinJob) bool {
	done, err := x.reading()
	if err != nil {
		return true
	}
	defer done()
	b, closer, err := x.db.Get(job.mark)
	if err != nil {
		return false
	}
	defer closer.Close()
	return bytes.Equal(b, job.value)
}

// deliveries lists the deliveries of a segment.
func (s *segment) deliveries() (map[uint64]struct{}, error) {
	f, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	set := make(map[uint64]struct{})
	sc := s.scan(f, segmentHead)
	for {
		it, err := sc.next()
		if errors.Is(err, io.EOF) {
			return set, nil
		}
		if err != nil {
			return nil, err
		}
		if !it.isFrame() {
			return nil, fmt.Errorf("%d bytes at offset %d are damaged", it.region.size, it.region.off)
		}
		if it.frame.typ == typeDelivery {
			set[it.frame.seq] = struct{}{}
		}
	}
}
