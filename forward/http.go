package forward

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"penstock/archive"
	"penstock/provider"
)

// httpCluster is the name of all HTTP targets together: the part of the sink's name that
// is a cluster's id with Kafka. They share a cursor; "delivered" is said of one target.
const httpCluster = "targets"

// newSink makes what the options ask for.
func (p *Pump) newSink() (sink, error) {
	if p.kind == KindHTTP {
		return newHTTPSink(p.o, p.answersWanted, p.refusal)
	}
	return newKafkaSink(p.o, p.regressed)
}

func (p *Pump) answersWanted() bool { return p.awaits.Load() != nil }

// refusal passes on what a target said that did not take a delivery: who waits for its
// answer gets it, and the delivery is tried again.
func (p *Pump) refusal(m *Message, r *Reply) {
	a := p.awaits.Load()
	if a == nil || r == nil || m.Replay != "" || m.Delivery&archive.QuarantineBit != 0 {
		return
	}
	a.tell(m.Delivery, 1, true, r)
}

// jobPrefix is what the keys of this pump's replay jobs begin with.
func (p *Pump) jobPrefix() string {
	if p.kind == KindKafka {
		return "replay/"
	}
	return "replay-" + p.kind + "/"
}

// newLedger begins a ledger that counts what is this pump's.
func (p *Pump) newLedger(from uint64) *ledger {
	l := newLedger(from)
	l.ours = p.ours
	if p.o.Selective || p.kind == KindHTTP {
		l.mine = p.mine
	}
	return l
}

// ours says whether an outcome is of this pump's sink.
func (p *Pump) ours(sink string) bool {
	return strings.HasPrefix(sink, KindHTTP+":") == (p.kind == KindHTTP)
}

// mine says whether a delivery goes to this pump's sink. One whose definition is missing
// does: it is held, and not forgotten.
func (p *Pump) mine(d *archive.Delivery) bool {
	if !p.o.Selective && p.kind == KindKafka {
		return true
	}
	info := p.lookup(d)
	switch {
	case info == nil:
		return true
	case p.kind == KindHTTP:
		return p.target(info) != ""
	}
	return !info.NoKafka
}

func (p *Pump) target(info *SourceInfo) string {
	if info.Target != "" {
		return info.Target
	}
	return p.o.HTTP.Default
}

// sinkOf is the destination of an event, as its outcome names it.
func (p *Pump) sinkOf(ev *parcel) string {
	if p.kind == KindHTTP && ev.topic != "" {
		return KindHTTP + ":" + ev.topic
	}
	return p.sinkName
}

// httpRequest is what an HTTP target gets beside the body.
type httpRequest struct {
	method  string
	target  []byte // as received: its query goes on
	header  []byte // as received
	id      string // of the delivery
	events  []string
	source  string
	address string // client's
}

// asRequest makes the one parcel of a delivery for an HTTP target: the request goes there
// whole, whatever events are in it. What its definition cannot read goes too, and so does
// what has no event: the target knows better. Such have no identity, and each is sent.
func (p *Pump) asRequest(d *archive.Delivery, info *SourceInfo, rel *release) *parcel {
	ev := p.plain(d, rel)
	ev.topic = p.target(info)
	r := &httpRequest{method: d.Method, target: d.Target, header: d.Header, id: d.ID, source: d.Source}
	if d.RemoteIP.IsValid() {
		r.address = d.RemoteIP.String()
	}
	key := []byte(d.ID)
	if evs, err := readEvents(info, d); err == nil && len(evs) > 0 {
		for i := range evs {
			r.events = append(r.events, evs[i].CEID)
		}
		key = []byte(eventKey(&evs[0]))
		p.claimRequest(ev, d, info, evs)
		ev.fields = fieldsOf(d, &evs[0], typeOf(info, &evs[0]))
		ev.occurred, ev.failure = evs[0].OccurredAt, evs[0].FailureReason
	}
	ev.order = 0
	m := &Message{Topic: ev.topic, Key: key, Value: d.Body, Time: d.ReceivedAt, request: r}
	p.attach(ev, m)
	ev.size = int64(len(d.Body)+len(d.Header)+len(d.Target)) + 1024
	ev.mark()
	return ev
}

// claimRequest gives the parcel its identity: that of its event, or of all of them where a
// delivery carries several, for they arrive together.
func (p *Pump) claimRequest(ev *parcel, d *archive.Delivery, info *SourceInfo, evs []provider.Event) {
	ids, sums := evs[0].CEID, sha256.New()
	rerendered := false
	if len(evs) > 1 {
		var b []byte
		for i := range evs {
			b = binary.AppendUvarint(b, uint64(len(evs[i].CEID)))
			b = append(b, evs[i].CEID...)
		}
		ids = "several\x00" + string(b)
	}
	for i := range evs {
		sums.Write(evs[i].Content[:])
		rerendered = rerendered || evs[i].Rerendered
	}
	group, window := groupOf(d, info), info.Window
	if window <= 0 {
		window = p.o.Window
	}
	if ev.released != nil {
		window = 0
	}
	content := archive.Identity(evs[0].Content)
	if len(evs) > 1 {
		content = archive.Identity(sums.Sum(nil)[:len(content)])
	}
	ev.unasked = false
	ev.claim = Claim{ID: identity(KindHTTP+":"+ev.topic, group, ids), Content: content, Rerendered: rerendered, Delivery: d.ID, Window: window}
}

// groupOf names what a dedupe identity is unique in.
func groupOf(d *archive.Delivery, info *SourceInfo) string {
	if info.Group == "" {
		return d.Source
	}
	return "group:" + info.Group
}

// mark puts on the message what is known of the parcel beyond the delivery.
func (ev *parcel) mark() {
	if ev.msg == nil {
		return
	}
	ev.msg.Headers = slices.Clip(ev.msg.Headers[:0])
	if ev.conflict != "" {
		ev.msg.Headers = append(ev.msg.Headers, Header{Key: headerConflict, Value: []byte(ev.conflict)})
	}
	if ev.replay != nil {
		ev.msg.Replay = ev.replay.ID
	}
}

// refusedError is a message that will never be taken, with the reason for its dead letter.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return "target does not take it: " + e.reason }

// Is makes it one that is not tried again.
func (e *refusedError) Is(target error) bool { return target == ErrInvalidRecord }
