package archive

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"go.uber.org/zap"
)

// quarantine is the log of refused deliveries: with a size of its own, nobody waits for
// its syncs, and a storm is sampled.
type quarantine struct {
	log     *journal
	sampler *sampler
}

// Sampled says how many refusals of a source and reason were counted and not kept.
type Sampled struct {
	Source string `json:"source"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"` // in all, over restarts
	New    uint64 `json:"new"`   // of which since the last marker said so
}

// sampledKey is the Key of a SampledMarker; its Data is JSON, a list of Sampled.
const sampledKey = "sampled"

// Reject keeps a refused delivery, or counts it: of each source and reason all are kept
// up to ten a second, above that a random sample that thins out as the second goes on. It
// sets d.ID (of what is not kept, one that Get does not find), does not wait for a sync,
// and lets Get read the delivery at once. An error says that it could not be kept for
// another reason than sampling.
func (a *Archive) Reject(d *Delivery) (kept bool, err error) {
	q := a.quarantine
	d.Verdict = Rejected
	if d.ReceivedAt.IsZero() {
		d.ReceivedAt = a.o.Now()
	}
	if !q.sampler.keep(d.Source, d.Reason, deliverySize(d)) {
		q.log.nameOnly(d)
		return false, nil
	}
	if err := a.ready(d); err != nil {
		q.sampler.drop(d.Source, d.Reason)
		return false, err
	}
	_, err = q.log.placeDelivery(d, true)
	if err == nil {
		q.log.wake()
		return true, nil
	}
	q.sampler.drop(d.Source, d.Reason)
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrFull) {
		return false, nil // that is a storm, too
	}
	return false, err
}

// SampledAway lists, by source and reason, the refusals that were counted and not kept.
func (a *Archive) SampledAway() []Sampled { return a.quarantine.sampler.counts() }

// nameOnly gives a delivery an id under which nothing is found.
func (j *journal) nameOnly(d *Delivery) {
	j.mu.Lock()
	defer j.mu.Unlock()
	d.Seq = 0
	d.ID = j.ids.text(makeID(d.ReceivedAt, j.node(), j.nextSeq|j.seqBit()))
	j.nextSeq++
}

// flushCounts makes sure that what was counted since the last time is written down: with the
// batch that is being filled, or, where there is none, with one of its own.
func (q *quarantine) flushCounts() {
	q.log.mu.Lock()
	if b := q.log.cur; b == nil || b.size == 0 {
		q.placeCounts()
	}
	q.log.mu.Unlock()
	q.log.wake()
}

// placeCounts puts what was counted since the last time into the current batch. So a kill
// costs of the counts no more than of what is kept: what came since the last batch was
// written. Caller holds the journal's mutex.
func (q *quarantine) placeCounts() {
	if q.log.broken != nil {
		return
	}
	list := q.sampler.changed()
	if len(list) == 0 {
		return
	}
	data, err := json.Marshal(list)
	if err != nil {
		q.log.log.Error("BUG: sampled counts cannot be encoded", zap.Error(err))
		return
	}
	b := q.log.place(&unit{marker: &Marker{Kind: SampledMarker, At: q.log.o.Now(), Key: sampledKey, Data: data}})
	b.said = append(b.said, list...)
}

// lost counts the refusals of a batch that could not be written, and takes back that its
// marker has said anything. The next segment's header cuts the batch off before a marker
// there can say more, so none of them is stored and counted.
func (q *quarantine) lost(b *batch) {
	for _, k := range b.refused {
		q.sampler.drop(k.source, k.reason)
	}
	q.sampler.unsaved(b.said)
}

// opening is the marker that each segment begins with: all counts. The journal's mutex is
// held. What it says is not taken for said: nobody knows yet that it will be on the disk.
func (s *sampler) opening() *Marker {
	list := s.counts()
	if len(list) == 0 {
		return nil
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil // flushCounts logs it
	}
	return &Marker{Kind: SampledMarker, At: s.now(), Key: sampledKey, Data: data}
}

// restoreOlder reads the counts from the segment before the newest, too: a new segment
// repeats them all, but not in the moment it begins.
func (q *quarantine) restoreOlder() {
	segs := q.log.segs
	if len(segs) < 2 {
		return
	}
	seg := segs[len(segs)-2]
	f, err := seg.acquire()
	if err != nil {
		return
	}
	defer seg.release()
	sc := seg.scan(f, segmentHead)
	var dec payloadReader
	for {
		it, err := sc.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				q.log.log.Warn("counts of refused deliveries may be too low", zap.Error(err))
			}
			return
		}
		if it.isFrame() && it.frame.typ == typeMarker {
			if rec, err := dec.record(it.frame); err == nil {
				q.sampler.restore(rec.Marker)
			}
		}
	}
}

// sampler decides what of a storm is kept, and counts the rest.
type sampler struct {
	now   func() time.Time
	share float64 // bytes that one source may write at once, and per shareRefill

	mu      sync.Mutex
	kinds   map[sampleKind]*sampleCount
	sources map[string]*sampleShare
}

type sampleKind struct{ source, reason string }

type sampleCount struct {
	second int64 // which one n counts
	n      uint64
	total  uint64 // not kept, over restarts
	saved  uint64 // of which a marker says so
	repeat bool   // the next marker says it again
}

// sampleShare is a token bucket of bytes: one source cannot push the others' refusals
// out of the quarantine.
type sampleShare struct {
	bytes float64
	at    time.Time
}

const (
	sampleAll = 10 // refusals per second, source and reason that are all kept
	// shareOfSize is the part of the quarantine that one source may fill at once.
	shareOfSize = 4
	shareRefill = time.Hour
	// maxSampleKinds bounds memory. Sources are configured and reasons are few.
	maxSampleKinds = 16384
)

func newSampler(size int64, now func() time.Time) *sampler {
	return &sampler{now: now, share: float64(size / shareOfSize), kinds: make(map[sampleKind]*sampleCount),
		sources: make(map[string]*sampleShare)}
}

// kind gives the count of a source and reason. Caller holds mu.
func (s *sampler) kind(source, reason string) *sampleCount {
	k := sampleKind{source, reason}
	c := s.kinds[k]
	if c == nil {
		if len(s.kinds) >= maxSampleKinds {
			k = sampleKind{reason: "other"}
			if c = s.kinds[k]; c != nil {
				return c
			}
		}
		c = new(sampleCount)
		s.kinds[k] = c
	}
	return c
}

func (s *sampler) keep(source, reason string, size int64) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.kind(source, reason)
	if second := now.Unix(); c.second != second {
		c.second, c.n = second, 0
	}
	c.n++
	// The n-th of a second stays with probability 10/n: 10 ln(n/10) of the rest.
	if c.n > sampleAll && rand.Float64()*float64(c.n) >= sampleAll || !s.afford(source, size, now) {
		c.total++
		return false
	}
	return true
}

// afford takes size from the share of a source. Caller holds mu.
func (s *sampler) afford(source string, size int64, now time.Time) bool {
	b := s.sources[source]
	if b == nil {
		if len(s.sources) >= maxSampleKinds {
			source = ""
		}
		if b = s.sources[source]; b == nil {
			b = &sampleShare{bytes: s.share, at: now}
			s.sources[source] = b
		}
	}
	if gone := now.Sub(b.at); gone > 0 {
		b.bytes = min(s.share, b.bytes+s.share*gone.Seconds()/shareRefill.Seconds())
	}
	b.at = now
	if b.bytes < float64(size) {
		return false
	}
	b.bytes -= float64(size)
	return true
}

// drop counts one that was to be kept and could not.
func (s *sampler) drop(source, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind(source, reason).total++
}

func (s *sampler) list(all bool) []Sampled {
	var list []Sampled
	for k, c := range s.kinds {
		if c.total > 0 && (all || c.repeat || c.total != c.saved) {
			list = append(list, Sampled{Source: k.source, Reason: k.reason, Count: c.total, New: c.total - c.saved})
		}
	}
	sort.Slice(list, func(a, b int) bool {
		if list[a].Source != list[b].Source {
			return list[a].Source < list[b].Source
		}
		return list[a].Reason < list[b].Reason
	})
	return list
}

func (s *sampler) counts() []Sampled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list(true)
}

// changed gives what a marker has to say, and counts it as said.
func (s *sampler) changed() []Sampled {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list(false)
	for _, e := range list {
		c := s.kind(e.Source, e.Reason)
		c.saved, c.repeat = e.Count, false
	}
	return list
}

// unsaved takes back that a marker has said it.
func (s *sampler) unsaved(list []Sampled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range list {
		c := s.kind(e.Source, e.Reason)
		c.saved, c.repeat = c.saved-e.New, true
	}
}

// repeatAll makes the next marker name every count: a new segment begins with all.
func (s *sampler) repeatAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.kinds {
		c.repeat = true
	}
}

// restore takes the counts from a marker of an earlier life.
func (s *sampler) restore(m *Marker) {
	if m.Kind != SampledMarker {
		return
	}
	var list []Sampled
	if err := json.Unmarshal(m.Data, &list); err != nil {
		return // another version's
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range list {
		c := s.kind(e.Source, e.Reason)
		c.total = max(c.total, e.Count)
		c.saved = c.total
	}
}
