package forward

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
	"penstock/provider"
)

// Reasons of outcomes.
const (
	reasonPaused     = "paused"
	reasonDefinition = "definition_missing"
	reasonBlocked    = "topic_blocked"
	reasonUnreadable = "unreadable"       // the definition cannot read the delivery
	reasonTooLarge   = "too_large"        // and there is no admin.public_url to point to
	reasonRefused    = "refused_by_kafka" // the broker refuses the record for what it is
	reasonDamaged    = "archive_damaged"  // the delivery's record cannot be read (any more)
	reasonErased     = "erased"           // its key was destroyed before it was published
	reasonNoEvent    = "no_event"         // the delivery carries none
)

// deadReasons are those of dead letters.
var deadReasons = []string{reasonUnreadable, reasonTooLarge, reasonRefused, reasonDamaged, reasonErased, reasonTopic, reasonGivenUp}

// tracker is a record of the log that the cursor may not pass before left is 0.
type tracker struct {
	mark uint64
	left int
}

// parcel is one event on its way. It is the core's alone, but for msg while it is sent.
type parcel struct {
	ref      ref
	event    int         // which of the delivery's events; several routes may take one
	to       destination // where it goes
	order    uint64      // its place in the log: what comes back goes there, however often it was held
	tr       *tracker
	delivery string // id
	source   *sourceState
	items    int
	received time.Time
	occurred time.Time

	topic   string
	key     []byte
	keyHash uint64
	msg     *Message // nil: not loaded
	size    int64    // bytes of msg that count against the bound

	claim    Claim
	unasked  bool             // no claim: replay, dead letter
	claimed  bool             // granted
	granted  time.Time        // when it was settled that it is the first; zero: nobody was asked
	conflict string           // delivery of the first content
	state    archive.Identity // of the state that the event tells; zero: none, or it may be told again
	stated   bool             // it is known whether the state was told before
	holding  bool             // the state's claim is granted
	repeats  string           // delivery that told the state first; "" = this one does
	released *release
	replay   *job
	redrive  bool // replay: it was a dead letter, and what is published now counts as the first time
	lost     *job // kafka had lost it: counted in that job, published like the first time
	again    bool // it has an outcome already
	fields   archive.Fields
	failure  string // canonical failure reason

	dead     string // reason: this is a dead letter
	filtered string // reason: nothing to publish
	missing  bool   // its definition is not there
	big      bool   // goes by claim-check
	freed    bool   // let out of its paused source by hand
	pointer  bool   // what is published is a pointer: the body is in this archive alone
	redriven bool   // has a held outcome in the log
	pass     *gate  // was taken out of this gate and may go through it
	origin   *gate  // counts this event in its flying

	parkedAt time.Time
	nextAsk  time.Time
}

// maxItem: the events of a delivery from this one on share a place, and stay in the
// order in which they come.
const maxItem = 1<<12 - 1

// place is where an event stands in the order of all: by its record in the log (of a
// released delivery the marker), then by its item.
func place(seq uint64, item int) uint64 { return seq<<12 | uint64(min(item, maxItem)) }

func byOrder(a, b *parcel) int { return cmp.Compare(a.order, b.order) }

// release is what a release marker says.
type release struct {
	By         string `json:"by,omitempty"`
	VerifiedBy string `json:"verified_by,omitempty"`
	Force      bool   `json:"force,omitempty"`
}

func parseRelease(b []byte) *release {
	r := &release{}
	if json.Unmarshal(b, r) != nil || r.Force || r.VerifiedBy == "" {
		// Whatever stands there, a marker in the log is an operator's release.
		r.VerifiedBy = "operator"
	}
	return r
}

// lookup gives the source info of an epoch; nil while there is none.
func (p *Pump) lookup(d *archive.Delivery) *SourceInfo {
	p.infoMu.Lock()
	e, ok := p.infos[d.Epoch]
	p.infoMu.Unlock()
	if ok && (e.info != nil || p.o.Now().Before(e.retry)) {
		return e.info
	}
	info, err := p.o.Source(d.Epoch, d.Seq)
	if err != nil || info == nil || info.Definition == nil {
		if !ok {
			p.log.Error("definition is missing; deliveries of this epoch are held",
				zap.String("source", d.Source), zap.Uint64("seq", d.Seq), zap.Error(err))
		}
		info = nil
	}
	p.infoMu.Lock()
	p.infos[d.Epoch] = infoEntry{info, p.o.Now().Add(missingRetry)}
	p.infoMu.Unlock()
	return info
}

type infoEntry struct {
	info  *SourceInfo
	retry time.Time
}

// missingRetry: a definition comes back with a reload (which asks at once) or when an
// operator repairs a file; half a minute is soon enough for the second.
const missingRetry = 30 * time.Second

// read turns a delivery into its events. It never fails: what cannot be read becomes a
// dead letter, what has no definition is to be held.
func (p *Pump) read(d *archive.Delivery, rel *release) []*parcel { return p.readFor(nil, d, rel) }

// readFor renders the events as the job's, where there is one.
func (p *Pump) readFor(replay *job, d *archive.Delivery, rel *release) []*parcel {
	info := p.lookup(d)
	if info == nil {
		ev := p.plain(d, rel)
		ev.missing = true
		return []*parcel{ev}
	}
	if p.kind == KindHTTP {
		ev := p.asRequest(d, info, rel)
		if replay == nil && d.Verdict == archive.Accepted && ev.fields != (archive.Fields{}) {
			p.known.put(d.Seq, ev.fields)
		}
		return []*parcel{ev}
	}
	evs, err := readEvents(info, d)
	if err != nil {
		p.log.Warn("delivery cannot be read", zap.String("source", d.Source), zap.Uint64("seq", d.Seq), zap.Error(err))
		ev := p.plain(d, rel)
		p.deadLetter(ev, d, info, nil, reasonUnreadable)
		return []*parcel{ev}
	}
	if len(evs) == 0 {
		ev := p.plain(d, rel)
		ev.filtered = reasonNoEvent
		return []*parcel{ev}
	}
	ways := p.placements(info, d, evs)
	out := make([]*parcel, len(ways))
	for i := range ways {
		out[i] = p.build(replay, d, info, &evs[ways[i].event], i, &ways[i], rel)
		out[i].items = len(ways)
	}
	if replay == nil && d.Verdict == archive.Accepted {
		p.known.put(d.Seq, out[0].fields) // the first way is the first event's
	}
	return out
}

func (p *Pump) plain(d *archive.Delivery, rel *release) *parcel {
	return &parcel{ref: ref{d.Seq, 0}, delivery: d.ID, source: p.source(d.Source), items: 1,
		received: d.ReceivedAt, released: rel, unasked: true}
}

// build makes the event with its claim and its message.
func (p *Pump) build(replay *job, d *archive.Delivery, info *SourceInfo, e *provider.Event, i int, way *placement, rel *release) *parcel {
	group := groupOf(d, info)
	ev := &parcel{ref: ref{d.Seq, i}, event: way.event, to: way.to, delivery: d.ID, source: p.source(d.Source), received: d.ReceivedAt,
		occurred: e.OccurredAt, released: rel, replay: replay, failure: e.FailureReason}
	typ := typeOf(info, e)
	ev.fields = fieldsOf(d, e, typ)
	if way.to.dropped {
		ev.filtered, ev.unasked = reasonDropped+way.to.word, true
		return ev
	}
	sink := p.sinkName
	if way.to.mark != "" { // what one topic has says nothing of another
		sink += "\x00" + way.to.mark
	}
	window := info.Window
	if window <= 0 {
		window = p.o.Window
	}
	if rel != nil {
		window = 0 // the whole archive
	}
	if e.State != "" {
		ev.state = identity(sink, group, statePrefix+e.State)
	}
	ev.claim = Claim{ID: identity(sink, group, e.CEID), Content: archive.Identity(e.Content),
		Rerendered: e.Rerendered, Delivery: d.ID, Item: i, Window: window}
	p.message(ev, d, info, e)
	return ev
}

// message renders the event; conflict and replay change its headers.
func (p *Pump) message(ev *parcel, d *archive.Delivery, info *SourceInfo, e *provider.Event) {
	replay := ""
	if ev.replay != nil {
		replay = ev.replay.ID
	}
	x := rendering{d: d, info: info, e: e, typ: typeOf(info, e), replay: replay, conflict: ev.conflict, repeats: ev.repeats,
		verified: d.VerifiedBy, key: ev.to.key}
	if ev.released != nil {
		x.verified = ev.released.VerifiedBy
	}
	if !legalTopic(ev.to.topic) {
		p.log.Warn("event becomes a dead letter: no topic can have this name", zap.String("source", d.Source), zap.String("delivery", d.ID), zap.String("topic", ev.to.topic))
		p.deadLetter(ev, d, info, e, reasonTopic)
		return
	}
	if ev.big || len(e.Payload) > p.o.MaxEventSize {
		ev.pointer = true
		if p.o.AdminURL == "" {
			p.deadLetter(ev, d, info, e, reasonTooLarge)
			return
		}
		x.ref = p.reference(d)
	}
	m := x.render(ev.to.topic)
	p.attach(ev, &m)
}

func (p *Pump) reference(d *archive.Delivery) *payloadRef {
	r := &payloadRef{url: strings.TrimSuffix(p.o.AdminURL, "/") + "/api/v1/deliveries/" + d.ID + "/body", node: p.o.Node}
	if p.o.KeepFor <= 0 {
		return r
	}
	until := d.ReceivedAt.Add(p.o.KeepFor)
	// The quarantine's budget may remove a released delivery at any time.
	if (p.o.PinBodies || d.Verdict == archive.Rejected) && until.After(p.o.Now()) {
		if err := p.o.Archive.Pin(d, until); err != nil {
			p.log.Error("what a claim-check points to is not pinned; it promises no time", zap.String("delivery", d.ID), zap.Error(err))
			return r
		}
	}
	r.expires = until
	return r
}

// parcelSize is what an event takes beside its message, in bytes: measured, rounded up.
const parcelSize = 1200

func (p *Pump) attach(ev *parcel, m *Message) {
	m.Delivery, m.Item, m.Repeats = ev.ref.seq, ev.ref.item, ev.repeats
	ev.msg, ev.topic, ev.key = m, m.Topic, m.Key
	ev.keyHash = keyHash(p.seed, m.Topic, m.Key)
	ev.size = int64(m.size()) + parcelSize
}

// deadLetter makes the event a dead letter: small, with the reason and the way to the
// body, which stays in the archive. e is nil where the delivery could not be read.
func (p *Pump) deadLetter(ev *parcel, d *archive.Delivery, info *SourceInfo, e *provider.Event, reason string) {
	ev.dead, ev.unasked = reason, true
	if p.o.DeadLetterTopic == "" || d == nil {
		ev.msg, ev.size = nil, 0
		return
	}
	if e == nil {
		e = &provider.Event{CEID: d.ID, Type: reason, Canonical: d.Provider + "." + reason}
	}
	x := rendering{d: d, info: info, e: e, typ: typeOf(info, e), verified: d.VerifiedBy, ref: p.reference(d), dead: reason}
	m := x.render(p.o.DeadLetterTopic)
	p.attach(ev, &m)
}

// load reads an event again whose bytes were given up.
func (p *Pump) load(ev *parcel) error {
	d, err := p.delivery(ev)
	var erased *archive.ErasedError
	if errors.As(err, &erased) {
		ev.dead, ev.unasked, ev.msg = reasonErased, true, nil
		return nil
	}
	if errors.Is(err, archive.ErrNotFound) || errors.Is(err, archive.ErrCorrupt) {
		ev.dead, ev.unasked, ev.msg = reasonDamaged, true, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("read delivery %s again: %w", ev.delivery, err)
	}
	return p.loadFrom(ev, d)
}

// loadFrom is load of a delivery that is at hand.
func (p *Pump) loadFrom(ev *parcel, d *archive.Delivery) error {
	fresh := p.readFor(ev.replay, d, ev.released)
	i := ev.ref.item
	if i >= len(fresh) {
		// The definition reads fewer events than it did: the log says there is one more.
		ev.dead, ev.unasked, ev.msg = reasonUnreadable, true, nil
		return nil
	}
	f := fresh[i]
	f.order, f.tr, f.redriven, f.replay = ev.order, ev.tr, ev.redriven, ev.replay
	f.lost, f.again, f.redrive, f.freed = ev.lost, ev.again, ev.redrive, ev.freed
	if ev.again || ev.replay != nil { // a replay that came back from its lane asks nothing either
		f.unasked = true
	}
	f.claimed, f.granted, f.big, f.conflict = ev.claimed, ev.granted, ev.big, ev.conflict
	f.stated, f.holding, f.repeats = ev.stated, ev.holding, ev.repeats
	f.parkedAt, f.nextAsk, f.pass, f.origin = ev.parkedAt, ev.nextAsk, ev.pass, ev.origin
	if ev.claimed {
		f.claim.ID = ev.claim.ID
	}
	*ev = *f
	if ev.big || ev.conflict != "" || ev.replay != nil && p.kind == KindHTTP || ev.repeats != "" {
		return p.rerender(ev, d)
	}
	return nil
}

// rerender makes the message again after something about the event changed.
func (p *Pump) rerender(ev *parcel, d *archive.Delivery) error {
	if p.kind == KindHTTP {
		ev.mark()
		return nil
	}
	info := p.lookup(d)
	if info == nil {
		ev.missing, ev.msg = true, nil
		return nil
	}
	evs, err := readEvents(info, d)
	if err != nil || ev.event >= len(evs) {
		p.deadLetter(ev, d, info, nil, reasonUnreadable)
		return nil
	}
	e := &evs[ev.event]
	if ev.repeats != "" {
		e = asRepeat(e)
		ev.fields, ev.failure = fieldsOf(d, e, typeOf(info, e)), ""
	}
	p.message(ev, d, info, e)
	return nil
}

func (p *Pump) delivery(ev *parcel) (*archive.Delivery, error) {
	if ev.ref.seq&archive.QuarantineBit != 0 {
		return p.o.Archive.Get(ev.delivery)
	}
	return p.o.Archive.GetSeq(ev.ref.seq)
}

// unload gives the event's bytes up.
func (ev *parcel) unload() (freed int64) {
	freed = ev.size
	if ev.msg != nil {
		ev.key = bytes.Clone(ev.key) // it stands among the bytes of the message
	}
	ev.msg, ev.size = nil, 0
	return freed
}
