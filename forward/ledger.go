package forward

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"penstock/archive"
)

// ref names one event: the seq of its delivery (with the quarantine bit, where it was
// released from there) and which of its events.
type ref struct {
	seq  uint64
	item int
}

// The states of an event in the log.
const (
	stateNone = iota
	stateHeld
	stateFinal
)

// chunkBits: the ledger keeps 4096 seqs per chunk, two bits each; a backlog of seven
// million deliveries costs 2 MB.
const chunkBits = 12

type chunk struct {
	open [1 << chunkBits / 64]uint64 // accepted, not every event has a final outcome
	held [1 << chunkBits / 64]uint64 // single event that is held
	n    int                         // bits set in open
}

// ledger follows the log, independent of the pump's progress, and knows of every
// accepted delivery whether its outcome is synced. It is what the two exact metrics
// are read from, and what tells a restarted pump what is done already.
type ledger struct {
	mu     sync.Mutex // protects all below; held for moments only
	chunks map[uint64]*chunk
	low    uint64 // no chunk below this one has an open bit
	top    uint64 // the newest chunk
	open   int
	multi  map[uint64][]uint8 // deliveries with several events, while some are done
	quar   map[ref]uint8      // released deliveries: state per event
	// released are those whose release is promised and not done, by seq with the quarantine
	// bit: what is known of their events.
	released map[uint64][]uint8
	pos      uint64 // last seq seen
	oldest   struct {
		seq uint64
		at  time.Time
	}
	held *heldScan // only while the log is scanned at start

	// mine and ours say which deliveries and which sinks' outcomes count: several pumps
	// read one log. nil: all of them.
	mine func(d *archive.Delivery) bool
	ours func(sink string) bool

	tailed atomic.Bool   // somebody reads the log into it
	asked  chan struct{} // somebody wants it up to date
}

// newLedger begins a ledger that has seen everything below from.
func newLedger(from uint64) *ledger {
	return &ledger{pos: max(from, 1) - 1, chunks: map[uint64]*chunk{}, multi: map[uint64][]uint8{}, quar: map[ref]uint8{}, released: map[uint64][]uint8{}, held: newHeldScan(),
		asked: make(chan struct{}, 1)}
}

// pause is the tail's rest between two looks at the log: it need not wake for each sync,
// as who reads the ledger has it catch up first.
func (l *ledger) pause(ctx context.Context) {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.asked:
	case <-ctx.Done():
	}
}

// caughtUp says whether the ledger has seen the log up to seq, or nobody reads it any
// more; if not, whoever reads is asked to hurry.
func (l *ledger) caughtUp(seq uint64) bool {
	l.mu.Lock()
	seen := l.pos >= seq
	l.mu.Unlock()
	if seen || !l.tailed.Load() {
		return true
	}
	select {
	case l.asked <- struct{}{}:
	default:
	}
	return false
}

// add takes one record of the log into account.
func (l *ledger) add(r *archive.Record) {
	// Whose a delivery is stands in its epoch: that is looked up outside of the lock.
	counts := r.Delivery != nil && r.Delivery.Verdict == archive.Accepted && (l.mine == nil || l.mine(r.Delivery))
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Seq <= l.pos {
		return
	}
	l.pos = r.Seq
	switch {
	case counts:
		c := l.chunk(r.Seq, true)
		if w, b := bit(r.Seq); c.open[w]&b == 0 {
			c.open[w] |= b
			c.n++
			l.open++
		}
		if l.held != nil {
			l.held.delivery(r.Delivery)
		}
	case r.Outcome != nil:
		l.outcome(r.Outcome)
	case r.Marker != nil && r.Marker.Kind == archive.ReleaseMarker:
		seq, ok := archive.SeqOf(r.Marker.Key)
		// Of a second release of what a former life had done already nothing comes.
		again := l.held != nil && l.quar[ref{seq, 0}] == stateFinal
		if ok && seq&archive.QuarantineBit != 0 && !again {
			l.released[seq] = nil
		}
	}
}

// settle notes an outcome that is synced, before its record has come by.
func (l *ledger) settle(o *archive.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcome(o)
}

func (l *ledger) outcome(o *archive.Outcome) {
	if o.Replay != "" || l.ours != nil && !l.ours(o.Sink) {
		return
	}
	state := uint8(stateFinal)
	if o.Kind == archive.Held {
		state = stateHeld
	}
	if l.held != nil {
		l.held.outcome(o)
	}
	if o.Delivery&archive.QuarantineBit != 0 {
		l.quar[ref{o.Delivery, o.Item}] = state
		l.settleReleased(o, state)
		return
	}
	c := l.chunk(o.Delivery, false)
	if c == nil {
		return
	}
	w, b := bit(o.Delivery)
	if c.open[w]&b == 0 {
		return
	}
	if o.Items > 1 {
		l.several(c, o, state)
		return
	}
	if state == stateHeld {
		c.held[w] |= b
		return
	}
	l.close(o.Delivery, c)
}

func (l *ledger) settleReleased(o *archive.Outcome, state uint8) {
	s, ok := l.released[o.Delivery]
	if !ok {
		return
	}
	for len(s) < max(o.Items, 1) {
		s = append(s, stateNone)
	}
	if o.Item >= 0 && o.Item < len(s) {
		s[o.Item] = state
	}
	l.released[o.Delivery] = s
	for _, v := range s {
		if v != stateFinal {
			return
		}
	}
	delete(l.released, o.Delivery)
}

// withdraw forgets a release of which nothing can come.
func (l *ledger) withdraw(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.released, seq)
}

// waiting lists the deliveries from..to that are not done, of the log or, with the
// quarantine bit in both, the released ones. ok is false where the ledger has not seen
// the log up to there, or, for releases, up to synced.
func (l *ledger) waiting(from, to, synced uint64) (seqs []uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from&archive.QuarantineBit != 0 {
		for seq := range l.released {
			if seq >= from && seq <= to {
				seqs = append(seqs, seq)
			}
		}
		slices.Sort(seqs)
		return seqs, l.pos >= synced
	}
	if l.pos < min(to, synced) {
		return nil, false
	}
	for i := from >> chunkBits; i <= to>>chunkBits; i++ {
		c := l.chunks[i]
		if c == nil || c.n == 0 {
			continue
		}
		for w, word := range c.open {
			for ; word != 0; word &= word - 1 {
				if seq := i<<chunkBits + uint64(w*64) + uint64(bits.TrailingZeros64(word)); seq >= from && seq <= to {
					seqs = append(seqs, seq)
				}
			}
		}
	}
	return seqs, true
}

func (l *ledger) several(c *chunk, o *archive.Outcome, state uint8) {
	s := l.multi[o.Delivery]
	for len(s) < o.Items {
		s = append(s, stateNone)
	}
	if o.Item < 0 || o.Item >= len(s) {
		return
	}
	s[o.Item] = max(state, s[o.Item])
	l.multi[o.Delivery] = s
	for _, v := range s {
		if v != stateFinal {
			return
		}
	}
	l.close(o.Delivery, c)
}

func (l *ledger) close(seq uint64, c *chunk) {
	w, b := bit(seq)
	c.open[w] &^= b
	c.held[w] &^= b
	c.n--
	l.open--
	delete(l.multi, seq)
	if c.n == 0 && seq>>chunkBits < l.pos>>chunkBits {
		delete(l.chunks, seq>>chunkBits)
	}
}

// state tells how far an event has come, of what the ledger has seen. A delivery that
// is not open is done with all its events.
func (l *ledger) state(r ref) uint8 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.seq&archive.QuarantineBit != 0 {
		return l.quar[r]
	}
	if r.seq > l.pos {
		return stateNone // not seen yet: the ledger rests between two looks at the log
	}
	c := l.chunk(r.seq, false)
	if c == nil {
		return stateFinal
	}
	w, b := bit(r.seq)
	if c.open[w]&b == 0 {
		return stateFinal
	}
	if s := l.multi[r.seq]; s != nil {
		if r.item < len(s) {
			return s[r.item]
		}
		return stateNone
	}
	if c.held[w]&b != 0 {
		return stateHeld
	}
	return stateNone
}

func (l *ledger) chunk(seq uint64, make bool) *chunk {
	i := seq >> chunkBits
	c := l.chunks[i]
	if c == nil && make {
		c = &chunk{}
		if prev := l.chunks[l.top]; prev != nil && prev.n == 0 {
			delete(l.chunks, l.top)
		}
		l.top = i
		if len(l.chunks) == 0 || i < l.low {
			l.low = i
		}
		l.chunks[i] = c
	}
	return c
}

func bit(seq uint64) (word int, mask uint64) {
	i := seq & (1<<chunkBits - 1)
	return int(i / 64), 1 << (i % 64)
}

// holds says whether an event of the delivery is held.
func (l *ledger) holds(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.chunk(seq, false)
	if c == nil {
		return false
	}
	w, b := bit(seq)
	return c.open[w]&b != 0 && (c.held[w]&b != 0 || slices.Contains(l.multi[seq], stateHeld))
}

// unpublished returns how many accepted deliveries have no final outcome, and the seq of
// the oldest.
func (l *ledger) unpublished() (n int, oldest uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == 0 {
		return 0, 0
	}
	for ; l.low <= l.pos>>chunkBits; l.low++ {
		c := l.chunks[l.low]
		if c == nil || c.n == 0 {
			continue
		}
		for w, word := range c.open {
			if word != 0 {
				return l.open, l.low<<chunkBits + uint64(w*64) + uint64(bits.TrailingZeros64(word))
			}
		}
	}
	return l.open, 0
}

// age returns for how long the oldest unpublished delivery has waited.
func (l *ledger) age(log Log, now time.Time) time.Duration {
	n, seq := l.unpublished()
	if n == 0 {
		return 0
	}
	l.mu.Lock()
	at, known := l.oldest.at, l.oldest.seq == seq
	l.mu.Unlock()
	if !known {
		d, err := log.GetSeq(seq)
		if err != nil {
			return 0
		}
		at = d.ReceivedAt
		l.mu.Lock()
		l.oldest.seq, l.oldest.at = seq, at
		l.mu.Unlock()
	}
	return max(now.Sub(at), 0)
}

// scan reads the log from seq from up to and including upto.
func (l *ledger) scan(ctx context.Context, rd Reader, upto uint64) error {
	for ctx.Err() == nil {
		r, ok, err := rd.TryNext()
		if err != nil {
			return fmt.Errorf("scan the log for outcomes: %w", err)
		}
		if !ok {
			return nil
		}
		l.add(&r)
		if r.Seq >= upto {
			return nil
		}
	}
	return ctx.Err()
}

// heldScan finds at start which events are held, and where.
type heldScan struct {
	source map[uint64]string // open deliveries of the scanned part
	at     map[ref]heldAt
	n      uint64
}

type heldAt struct {
	gate  gateKey
	nth   uint64 // order of the outcomes
	whole bool   // the delivery was held unread
}

func newHeldScan() *heldScan {
	return &heldScan{source: map[uint64]string{}, at: map[ref]heldAt{}}
}

func (h *heldScan) delivery(d *archive.Delivery) { h.source[d.Seq] = d.Source }

func (h *heldScan) outcome(o *archive.Outcome) {
	r := ref{o.Delivery, o.Item}
	if o.Kind != archive.Held {
		delete(h.at, r)
		if o.Items <= 1 {
			delete(h.source, o.Delivery)
			delete(h.at, ref{o.Delivery, 0})
		}
		return
	}
	h.n++
	k := gateKey{kind: gateTopic, name: o.Topic, partition: o.Partition}
	if o.Reason == reasonPaused || o.Reason == reasonDefinition {
		k = gateKey{kind: gateSource, name: h.source[o.Delivery], partition: -1}
	}
	h.at[r] = heldAt{k, h.n, o.Reason == reasonDefinition}
}

// cursor is what the State keeps per sink, under "cursor/<sink>".
type cursor struct {
	Seq       uint64 `json:"seq"`       // everything up to here has a synced outcome
	Held      uint64 `json:"held"`      // lowest seq that may be held; 0 = nothing is
	Confirmed uint64 `json:"confirmed"` // outcomes up to here are confirmed in Redis
}

func loadCursor(st State, sink string) (c cursor, ok bool, err error) {
	b, ok := st.Get("cursor/" + sink)
	if !ok {
		return c, false, nil
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, false, fmt.Errorf("read cursor of %s: %w", sink, err)
	}
	return c, true, nil
}

func saveCursor(st State, sink string, c cursor) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode cursor of %s: %w", sink, err)
	}
	if err := st.Commit(archive.Change{Key: "cursor/" + sink, Value: b}); err != nil {
		return fmt.Errorf("save cursor of %s: %w", sink, err)
	}
	return nil
}
