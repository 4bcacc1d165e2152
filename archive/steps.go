package archive

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"
)

// Steps are the times of a delivery's way to its answer, counted from its first byte; zero
// means not known. A delivery's record is written before the last two of them, so they stand
// in its outcomes, and until it has one in memory.
type Steps struct {
	Verified time.Duration // its signature was checked
	Archived time.Duration // it was on stable storage
	Acked    time.Duration // its answer was out
}

// stepSlots is for how many seqs the steps are kept in memory, where outcomes have seqs too:
// the last minutes of a busy gateway. 6 MiB when all were used; what was not is not there.
const stepSlots = 1 << 18

// stepRing has the steps of the latest deliveries. Nothing in it waits or allocates: it is
// written on the way to an answer.
type stepRing struct{ slots []stepSlot }

type stepSlot struct {
	seq    atomic.Uint64 // 0 while the slot is written
	stored atomic.Uint64 // verified and archived, in microseconds, 32 bits each
	acked  atomic.Uint64 // in microseconds, 0 = not yet
}

func newStepRing() *stepRing { return &stepRing{slots: make([]stepSlot, stepSlots)} }

func (r *stepRing) slot(seq uint64) *stepSlot { return &r.slots[seq%uint64(len(r.slots))] }

// micros is a time as it is kept: at least 1 where it is known.
func micros(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64(min(max(d.Microseconds(), 1), math.MaxUint32))
}

func (r *stepRing) get(seq uint64) (s Steps) {
	if seq == 0 {
		return s
	}
	slot := r.slot(seq)
	if slot.seq.Load() != seq {
		return s
	}
	stored, acked := slot.stored.Load(), slot.acked.Load()
	if slot.seq.Load() != seq {
		return s // a later one took the slot meanwhile
	}
	return Steps{Verified: time.Duration(stored>>32) * time.Microsecond, Archived: time.Duration(stored&math.MaxUint32) * time.Microsecond,
		Acked: time.Duration(acked) * time.Microsecond}
}

// NoteStored remembers when a delivery was verified and when it was on stable storage.
func (a *Archive) NoteStored(seq uint64, verified, archived time.Duration) {
	slot := a.steps.slot(seq)
	slot.seq.Store(0)
	slot.stored.Store(micros(verified)<<32 | micros(archived))
	slot.acked.Store(0)
	slot.seq.Store(seq)
}

// NoteAcked remembers when a delivery's answer was out. What waited so long that its slot
// went to another is forgotten.
func (a *Archive) NoteAcked(seq uint64, acked time.Duration) {
	if slot := a.steps.slot(seq); slot.seq.Load() == seq {
		slot.acked.Store(micros(acked))
	}
}

// addSteps puts what is known of the deliveries' ways into their outcomes: in the first
// event's, whichever kind it is, for which of them outlives the others is not known.
func (a *Archive) addSteps(os []Outcome) {
	for i := range os {
		if o := &os[i]; o.Item == 0 && o.Replay == "" && o.Steps == (Steps{}) {
			o.Steps = a.steps.get(o.Delivery)
		}
	}
}

// Times gives the steps of a delivery, and puts into its outcomes, as OutcomesOf gave them,
// when each was deduplicated. What was written before these times were kept has none; nor has
// an old delivery without an outcome, or one that came before a restart.
func (a *Archive) Times(id string, outcomes []Outcome) (s Steps) {
	if _, _, seq, ok := parseID(id); ok {
		s = a.steps.get(seq)
	}
	for i := range outcomes[:min(len(outcomes), maxTimed)] {
		// The index does not have them: they are looked at one delivery at a time.
		rec, err := a.log.get(outcomes[i].Seq)
		if err != nil || rec.Outcome == nil {
			continue // its segment is gone, or damaged: then they are not known
		}
		outcomes[i].Deduplicated = rec.Outcome.Deduplicated
		s.fill(&rec.Outcome.Steps)
	}
	return s
}

// maxTimed bounds how many records one look reads; a batch has thousands.
const maxTimed = 64

// fill takes what is not known from another.
func (s *Steps) fill(from *Steps) {
	setDefault(&s.Verified, from.Verified)
	setDefault(&s.Archived, from.Archived)
	setDefault(&s.Acked, from.Acked)
}

// timed says whether an outcome has any of these times.
func (o *Outcome) timed() bool { return o.Steps != (Steps{}) || !o.Deduplicated.IsZero() }

// putSteps encodes them: 8 bytes for most.
func putSteps(b []byte, o *Outcome) []byte {
	for _, d := range [...]time.Duration{o.Steps.Verified, o.Steps.Archived, o.Steps.Acked} {
		b = binary.AppendUvarint(b, micros(d))
	}
	before := uint64(0)
	if !o.Deduplicated.IsZero() {
		before = 1 + uint64(max(o.At.Sub(o.Deduplicated).Microseconds(), 0))
	}
	return binary.AppendUvarint(b, before)
}

func (p *payloadReader) steps(o *Outcome) {
	for _, d := range [...]*time.Duration{&o.Steps.Verified, &o.Steps.Archived, &o.Steps.Acked} {
		*d = p.micros()
	}
	if before := p.micros(); before > 0 {
		o.Deduplicated = o.At.Add(time.Microsecond - before)
	}
}

// micros reads a length of time; more than centuries is none that was written.
func (p *payloadReader) micros() time.Duration {
	v := p.uvarint()
	if v > math.MaxInt64/uint64(time.Microsecond) {
		p.bad = true
		return 0
	}
	return time.Duration(v) * time.Microsecond
}
