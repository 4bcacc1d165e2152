// Package dedupe decides whether an event may be published, or was already.
//
// The one rule that everything here serves: only proof that a twin was delivered
// makes a duplicate. Proof is a twin in flight here that gets its ack, a synced
// outcome in the local index, or a confirm in Redis that names this very key.
// Silence, errors, time-outs, foreign and odd values prove nothing; unknown to all
// means publish. So whatever Redis forgets, mixes up or invents costs a repeat at
// most, never an event.
package dedupe

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"penstock/archive"
)

// Claim asks for the right to publish one event. It is an alias of a plain struct so
// that the pump, which may not import this package, can declare the same type.
type Claim = struct {
	ID         archive.Identity // dedupe identity: sink, source or group, event id
	Content    archive.Identity // hash of the signed content; zero = not compared
	Rerendered bool             // the provider renders retries anew: other content is still a repeat
	Delivery   string           // id of the delivery that carries the event
	Item       int              // which of its events, from 0
	Window     time.Duration    // how long a delivered twin counts; 0 = as far back as there is evidence
	Outcome    uint64           // Confirm: seq of the synced outcome that proves the delivery
	At         time.Time        // Confirm: when it was published
}

// Answer is what Claim found out. An alias for the same reason as Claim.
type Answer = struct {
	Verdict uint8            // Publish, Duplicate, Wait, Park or Conflict
	ID      archive.Identity // what to confirm and to write into the outcome; differs from the claim's on Conflict
	Of      string           // delivery id of the twin, where there is one
	Unknown bool             // nobody could say for sure
	Reason  string           // why parked
}

// The verdicts.
const (
	Publish   uint8 = 1 // go on; the claim is held until Confirm or Release
	Duplicate uint8 = 2 // the twin was delivered
	Wait      uint8 = 3 // a twin is in flight here: ask again when it is confirmed or released
	Park      uint8 = 4 // another node publishes it, or nobody can say yet: ask again later
	Conflict  uint8 = 5 // publish, marked: the same id was delivered with other content
)

// Evidence is the local index: what this node's own log proves.
type Evidence interface {
	// Evidence returns the delivery that was published under id, if there is one.
	Evidence(id archive.Identity) (delivery string, content archive.Identity, at time.Time, ok bool)
	// IndexReady is false while the index is being rebuilt and "not found" means little.
	IndexReady() bool
	// Indexed is the last seq of the log whose outcome Evidence knows.
	Indexed() uint64
}

// indexPatience is how long after a start the index is waited for though Redis says that
// nobody has an event: it may have been emptied, and the index of a killed process lacks
// its last seconds (10 s of records, read again in less than one). An index that is
// rebuilt whole takes longer, and publishing does not stop for that.
const indexPatience = 30 * time.Second

// Options of a Deduper.
type Options struct {
	Node   string        // this node's name in claims; stable over restarts, no ':'
	Redis  *RedisOptions // nil: in-flight and the local index alone decide
	Local  Evidence      // required
	Window time.Duration // how long a confirm is kept where its claim says nothing; default 8 days
	Lease  time.Duration // how long a claim holds without renewal; default 30 s

	// BatchTimeout bounds one exchange with Redis; default 100 ms.
	BatchTimeout time.Duration
	// MaxConfirms bounds the confirms kept in memory while Redis is away; default 131072.
	MaxConfirms int
	// Outcomes reads the confirms of all outcomes from seq on out of the log, for those
	// that did not fit into memory. Nil: they are re-made after the next start only.
	Outcomes func(ctx context.Context, from uint64, f func(Claim) bool) error

	Logger     *zap.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Deduper answers claims. Its methods may be used from several goroutines; Run must
// be running for renewals, confirms and the breaker's recovery.
type Deduper struct {
	o     Options
	log   *zap.Logger
	met   *metrics
	redis *store // nil without Redis
	now   func() time.Time
	trust time.Time // from then on Redis's "nobody has it" is enough while the index is not ready

	mu       sync.Mutex // protects flying, recent, ring; never held across I/O
	flying   map[archive.Identity]flight
	recent   map[archive.Identity]flight
	ring     []archive.Identity // recent, oldest first
	confirms confirmQueue
	heads    []Claim // of the confirms that flush sends; its alone
}

// flight is a claim that was granted, or one that was confirmed a moment ago.
type flight struct {
	delivery string
	item     int
	content  archive.Identity
	at       time.Time
	outcome  uint64 // seq of the outcome that says so; 0 = none yet, or not told
}

// New returns a Deduper. It does not talk to Redis: a gateway starts while it is away.
func New(o Options) (*Deduper, error) {
	if o.Local == nil {
		return nil, errors.New("dedupe wants a local index")
	}
	if o.Redis != nil && (o.Node == "" || strings.ContainsAny(o.Node, ": \r\n")) {
		return nil, fmt.Errorf("node name %q is empty or has a colon or blank in it", o.Node)
	}
	setDefaults(&o)
	d := &Deduper{
		o: o, log: o.Logger, met: newMetrics(o.Registerer), now: o.Now,
		flying: map[archive.Identity]flight{}, recent: map[archive.Identity]flight{},
	}
	d.trust = d.now().Add(indexPatience)
	d.confirms.max = o.MaxConfirms
	if o.Redis != nil {
		s, err := newStore(&o, d.met)
		if err != nil {
			return nil, err
		}
		d.redis = s
	}
	return d, nil
}

func setDefaults(o *Options) {
	if o.Window <= 0 {
		o.Window = 8 * 24 * time.Hour
	}
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	if o.BatchTimeout <= 0 {
		o.BatchTimeout = 100 * time.Millisecond
	}
	if o.MaxConfirms <= 0 {
		o.MaxConfirms = 1 << 17 // about 25 MB
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Claim answers cs[i] in out[i]. It has no error: what cannot be found out is Publish
// with Unknown set. Claims granted (Publish, Conflict) are held until Confirm or
// Release. It takes at most the batch time-out per 256 claims, and once Redis did not
// answer nothing more until Redis is back.
func (d *Deduper) Claim(ctx context.Context, cs []Claim, out []Answer) {
	todo := make([]int, len(cs))
	for i := range cs {
		out[i] = Answer{ID: cs[i].ID}
		todo[i] = i
	}
	// Three passes are enough: twins within one batch resolve in the second, a
	// conflict's own identity is asked in the next. What is still open then waits.
	for pass := 0; pass < 3 && len(todo) > 0; pass++ {
		todo = d.pass(ctx, cs, out, todo)
	}
}

// pass answers the claims in todo and returns those that must be asked once more.
func (d *Deduper) pass(ctx context.Context, cs []Claim, out []Answer, todo []int) (again []int) {
	// Before the questions: an index that becomes ready between its "not found" and this
	// would pass for one that knew.
	ready := d.o.Local.IndexReady()
	ask := make([]int, 0, len(todo))
	for _, i := range todo {
		if d.askLocal(&cs[i], &out[i]) {
			continue
		}
		ask = append(ask, i)
	}
	if d.redis == nil {
		for _, i := range ask {
			d.conclude(&cs[i], &out[i], reply{state: replyNone}, ready)
		}
	} else if len(ask) > 0 {
		d.askRedis(ctx, cs, out, ask, ready)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range todo {
		switch out[i].Verdict {
		case Wait:
			if _, still := d.flying[out[i].ID]; !still {
				again = append(again, i)
			}
		case 0: // a conflict: ask again under the identity of that content
			again = append(again, i)
		}
	}
	return again
}

// askLocal asks what this node knows by itself and registers the claim where that is
// nothing, so that a twin behind it waits. True: answered.
func (d *Deduper) askLocal(c *Claim, a *Answer) bool {
	d.mu.Lock()
	if f, ok := d.flying[a.ID]; ok {
		d.mu.Unlock()
		// Also when it is this very delivery: whoever was granted a claim does not ask again,
		// so this is a second release of it.
		a.Verdict, a.Of = Wait, f.delivery
		return true
	}
	f, ok := d.recent[a.ID]
	// Registered at once: between this look and the index's answer nobody else may
	// take the same identity.
	d.flying[a.ID] = flight{c.Delivery, c.Item, c.Content, d.now(), 0}
	d.mu.Unlock()
	if !ok {
		f.delivery, f.content, f.at, ok = d.o.Local.Evidence(a.ID)
	}
	if !ok || (c.Window > 0 && d.now().Sub(f.at) > c.Window) {
		return false
	}
	d.found(c, a, f.delivery, f.content)
	return true
}

// found turns proof of a delivered twin into the answer.
func (d *Deduper) found(c *Claim, a *Answer, of string, content archive.Identity) {
	d.drop(a.ID)
	zero := archive.Identity{}
	conflict := a.ID != c.ID
	if !conflict && !c.Rerendered && content != c.Content && content != zero && c.Content != zero {
		// The same id with other content. Its repeats are repeats of it, so it is asked
		// and confirmed under an identity of its own.
		a.ID, a.Of, a.Verdict = ConflictID(c.ID, c.Content), of, 0
		return
	}
	a.Verdict, a.Of = Duplicate, of
}

// ConflictID is the identity of an event that came under id with other content than
// the first one.
func ConflictID(id, content archive.Identity) archive.Identity {
	var b [40]byte
	copy(b[:], "conflict")
	copy(b[8:], id[:])
	copy(b[24:], content[:])
	sum := sha256.Sum256(b[:])
	return archive.Identity(sum[:16])
}

// conclude turns Redis's reply (or its absence) into the answer. ready: the index was
// complete when it was asked.
func (d *Deduper) conclude(c *Claim, a *Answer, r reply, ready bool) {
	switch r.state {
	case replyDelivered:
		// Also when it is this very delivery: its outcome was synced before Redis was told, so
		// an archive that does not know it was set back to an older copy. Kafka has the event.
		d.found(c, a, r.delivery, r.content)
		return
	case replyForeign:
		d.drop(a.ID)
		a.Verdict, a.Of, a.Reason = Park, r.delivery, "claimed by node "+r.node
		return
	case replyNone, replyUnknown:
		asked := d.redis != nil && r.state == replyNone
		if !ready && (!asked || d.now().Before(d.trust)) {
			d.drop(a.ID)
			a.Verdict, a.Unknown, a.Reason = Park, !asked, "the index is being rebuilt"
			return
		}
		if r.state == replyUnknown {
			a.Unknown = true
			d.met.unknown.Inc()
		}
	}
	a.Verdict = Publish
	if a.ID != c.ID {
		a.Verdict = Conflict
	}
}

func (d *Deduper) drop(id archive.Identity) {
	d.mu.Lock()
	delete(d.flying, id)
	d.mu.Unlock()
}

func (d *Deduper) askRedis(ctx context.Context, cs []Claim, out []Answer, ask []int, ready bool) {
	items := make([]item, len(ask))
	for n, i := range ask {
		items[n] = item{id: out[i].ID, delivery: cs[i].Delivery}
	}
	replies := d.redis.claim(ctx, items)
	for n, i := range ask {
		d.conclude(&cs[i], &out[i], replies[n], ready)
	}
}

// Force takes a claim without asking anybody: for an event that was parked so long
// that it is published anyway.
func (d *Deduper) Force(c Claim) {
	d.mu.Lock()
	d.flying[c.ID] = flight{c.Delivery, c.Item, c.Content, d.now(), 0}
	d.mu.Unlock()
	d.met.unknown.Inc()
}

// Confirm says that the events were delivered and their outcomes are synced. It never
// blocks: from now on they answer "duplicate" here, and Redis is told as soon as it
// listens. ID is the answer's; re-made confirms after a restart come the same way,
// before the first claim.
func (d *Deduper) Confirm(cs []Claim) {
	d.mu.Lock()
	for i := range cs {
		c := &cs[i]
		delete(d.flying, c.ID)
		if _, ok := d.recent[c.ID]; !ok {
			d.ring = append(d.ring, c.ID)
		}
		at := c.At
		if at.IsZero() {
			at = d.now()
		}
		d.recent[c.ID] = flight{c.Delivery, c.Item, c.Content, at, c.Outcome}
	}
	d.mu.Unlock()
	if d.redis != nil {
		d.confirms.add(cs)
	}
}

// Unconfirmed returns the lowest outcome seq whose confirm has not reached Redis yet;
// 0 = none. Outcomes below it need not be confirmed again after a restart.
func (d *Deduper) Unconfirmed() uint64 {
	if d.redis == nil {
		return 0
	}
	return d.confirms.lowest()
}

// Release gives claims back: the events will not be published now (held, dead).
func (d *Deduper) Release(cs []Claim) {
	d.mu.Lock()
	for i := range cs {
		if f, ok := d.flying[cs[i].ID]; ok && f.delivery == cs[i].Delivery && f.item == cs[i].Item {
			delete(d.flying, cs[i].ID)
		}
	}
	d.mu.Unlock()
	if d.redis == nil {
		return
	}
	items := make([]item, len(cs))
	for i := range cs {
		items[i] = item{id: cs[i].ID, delivery: cs[i].Delivery}
	}
	// A lost release costs the lease, nothing else.
	d.redis.release(context.Background(), items)
}
