package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// evidence is what the index keeps of a delivered event.
type evidence struct {
	ref     ref
	at      time.Time
	content Identity
	id      string
}

// Evidence tells whether an event with this identity was delivered: a synced Published
// outcome that is not of a replay says so, and nothing else does. The newest one counts:
// the dedupe window runs from the last time it was published. ok = false means unknown
// (also while the index is broken or behind; see Indexed), never "not delivered".
func (a *Archive) Evidence(id Identity) (deliveryID string, content Identity, at time.Time, ok bool) {
	if a.index == nil {
		return "", Identity{}, time.Time{}, false
	}
	ev, ok := a.index.evidence(id)
	return ev.id, ev.content, ev.at, ok
}

// proves reports whether the outcome is evidence that the event was delivered. Only a
// first-hand publication is: a duplicate rests on another's, a replay was asked for,
// and held or dead ones were not delivered at all.
func proves(o *Outcome) bool {
	return o.Kind == Published && o.Replay == "" && o.Identity != Identity{}
}

// proofs are the identities that such an outcome is evidence of: the event's, and the
// state's where it told one first. Of a state no content is compared.
func (o *Outcome) proofs(f func(id, content Identity) error) error {
	if err := f(o.Identity, o.Content); err != nil || o.State == (Identity{}) {
		return err
	}
	return f(o.State, Identity{})
}

func appendEvidence(b []byte, r ref, o *Outcome, content Identity, id string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r))
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(o.At)))
	b = append(b, content[:]...)
	return append(b, id...)
}

// proofs gathers the evidence of a batch.
type proofs struct {
	list   []proof
	values []byte
}

type proof struct {
	id         Identity
	begin, end int
}

func (p *proofs) add(id Identity, value []byte) {
	begin := len(p.values)
	p.values = append(p.values, value...)
	p.list = append(p.list, proof{id, begin, len(p.values)})
}

// put writes them in the order of their keys; of equal ones the last counts.
func (p *proofs) put(batch *pebble.Batch) error {
	slices.SortStableFunc(p.list, func(a, b proof) int { return bytes.Compare(a.id[:], b.id[:]) })
	var key []byte
	for i := range p.list {
		e := &p.list[i]
		key = evidenceKey(key, e.id)
		if err := batch.Set(key, p.values[e.begin:e.end], nil); err != nil {
			return fmt.Errorf("index evidence: %w", err)
		}
	}
	p.list, p.values = p.list[:0], p.values[:0]
	return nil
}

func (x *index) readEvidence(id Identity) (evidence, bool, error) {
	b, closer, err := x.db.Get(evidenceKey(nil, x.codec.identity(id)))
	if errors.Is(err, pebble.ErrNotFound) {
		return evidence{}, false, nil
	}
	if err != nil {
		return evidence{}, false, fmt.Errorf("read evidence: %w", err)
	}
	defer closer.Close()
	if len(b) < 32 {
		return evidence{}, false, fmt.Errorf("read evidence: %w", errRow)
	}
	ev := evidence{ref: ref(binary.BigEndian.Uint64(b)), at: time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))).UTC(),
		content: Identity(b[16:32]), id: string(b[32:])}
	x.codec.openEvidence(&ev)
	return ev, true, nil
}

func (x *index) evidence(id Identity) (evidence, bool) {
	if !x.seen.mayHave(id) {
		return evidence{}, false
	}
	done, err := x.reading()
	if err != nil {
		return evidence{}, false
	}
	defer done()
	ev, found, err := x.readEvidence(id)
	if err != nil {
		x.fail(err)
		return evidence{}, false
	}
	if !found || x.forgotten(ev.ref) {
		return evidence{}, false
	}
	if ev.id == "" {
		// Its delivery may have been applied after the outcome (a released one).
		if e, err := x.readEntry(ev.ref); err == nil && e != nil {
			ev.id = e.row.ID
		}
	}
	return ev, true
}

// loadSeen fills the filter with the identities that the index held when it was opened.
// Until it is done every identity may be there, and is looked up.
func (x *index) loadSeen() {
	defer close(x.loaded)
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvidence}, UpperBound: []byte{keyEvidence + 1}})
	if err != nil {
		x.fail(fmt.Errorf("read evidence: %w", err))
		return
	}
	n, stopped := 0, false
	for ok := it.First(); ok && !stopped; ok = it.Next() {
		x.seen.add(x.codec.opened(Identity(it.Key()[1:])))
		if n++; n%1024 == 0 {
			select {
			case <-x.stop:
				stopped = true
			default:
			}
		}
	}
	if err := it.Close(); err != nil {
		x.fail(fmt.Errorf("read evidence: %w", err))
		return
	}
	if !stopped {
		x.seen.ready.Store(true)
	}
}

// seenFilter answers "never seen" for nearly all new identities from memory (a Bloom
// filter of 12 bits each, 0.4 % wrong guesses a part, and those only cost a look-up):
// the pump asks for every event, and a miss in Pebble costs 20 µs. Parts hold a million
// identities (1.5 MiB) and are added as needed; with the last one full the filter is out
// of use. Identities are hashes already, so their halves serve as hashes.
type seenFilter struct {
	parts [64]atomic.Pointer[seenPart]
	last  atomic.Int32
	ready atomic.Bool
	full  atomic.Bool
}

const (
	seenPartSize = 1 << 20
	seenWords    = seenPartSize * 12 / 64
	seenProbes   = 7
)

type seenPart struct {
	n    atomic.Int64
	bits [seenWords]atomic.Uint64
}

func (f *seenFilter) add(id Identity) {
	i := f.last.Load()
	p := f.parts[i].Load()
	if p == nil {
		f.parts[i].CompareAndSwap(nil, &seenPart{})
		p = f.parts[i].Load()
	}
	p.set(id)
	// Two goroutines add while the filter is loaded; a part a little over its size is fine.
	if p.n.Add(1) >= seenPartSize {
		if int(i) == len(f.parts)-1 {
			f.full.Store(true)
			return
		}
		f.last.CompareAndSwap(i, i+1)
	}
}

func (f *seenFilter) mayHave(id Identity) bool {
	if !f.ready.Load() || f.full.Load() {
		return true
	}
	for i := range f.last.Load() + 1 {
		if p := f.parts[i].Load(); p != nil && p.has(id) {
			return true
		}
	}
	return false
}

func (p *seenPart) set(id Identity) {
	a, b := seenHashes(id)
	for range seenProbes {
		bit := a % (seenWords * 64)
		p.bits[bit/64].Or(1 << (bit % 64))
		a += b
	}
}

func (p *seenPart) has(id Identity) bool {
	a, b := seenHashes(id)
	for range seenProbes {
		bit := a % (seenWords * 64)
		if p.bits[bit/64].Load()&(1<<(bit%64)) == 0 {
			return false
		}
		a += b
	}
	return true
}

func seenHashes(id Identity) (a, b uint64) {
	return binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:]) | 1
}
