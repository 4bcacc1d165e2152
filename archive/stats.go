package archive

import "time"

// Stats is the state of an open archive, for the API, the page and readiness.
type Stats struct {
	Bytes           int64     `json:"bytes"`     // of the deliveries' segments on disk
	RawBytes        int64     `json:"raw_bytes"` // before compression
	Segments        int       `json:"segments"`  // of which one is being written
	Sealed          int       `json:"sealed"`
	Compressed      int       `json:"compressed"`
	First           uint64    `json:"first_seq"`
	Synced          uint64    `json:"synced_seq"`
	Oldest          time.Time `json:"oldest"` // when the oldest kept segment was begun
	QuarantineBytes int64     `json:"quarantine_bytes"`
	QuarantineFirst uint64    `json:"quarantine_first_seq"`
	QuarantineLast  uint64    `json:"quarantine_last_seq"`
	SampledAway     uint64    `json:"sampled_away"` // refusals that were counted and not kept
	InFlightBytes   int64     `json:"in_flight_bytes"`
	DiskFree        uint64    `json:"disk_free_bytes"`
	Full            bool      `json:"full"`    // the disk is at its reserve
	Damage          int       `json:"damage"`  // places known to be damaged: the start's and those met since
	Failing         string    `json:"failing"` // why nothing can be written; empty when it can
}

// Stats gives the state of the archive now.
func (a *Archive) Stats() Stats {
	s := Stats{
		Bytes: a.log.bytes.Load(), First: a.log.first(), Synced: a.Synced(),
		QuarantineBytes: a.quarantine.log.bytes.Load(), QuarantineFirst: a.quarantine.log.first(),
		QuarantineLast: a.quarantine.log.synced.Load(),
		DiskFree:       a.diskFree.Load(), Full: a.log.full.Load(), Damage: a.damage.count(),
	}
	for _, k := range a.SampledAway() {
		s.SampledAway += k.Count
	}
	j := a.log
	j.segMu.RLock()
	s.Segments = len(j.segs)
	for i, seg := range j.segs {
		if i == 0 {
			s.Oldest = seg.created().UTC()
		}
		seg.mu.Lock()
		if seg.sealed {
			s.Sealed++
		}
		if seg.stored.Load() > 0 {
			s.Compressed++
		}
		s.RawBytes += seg.size.Load()
		seg.mu.Unlock()
	}
	j.segMu.RUnlock()
	j.mu.Lock()
	s.InFlightBytes = j.inflight
	if j.broken != nil {
		s.Failing = j.broken.Error()
	}
	j.mu.Unlock()
	return s
}
