// Package notify tells people what a gateway has seen: rules over the log's events and the
// process's counters, messages to chat, mail and webhooks. It knows nothing of the archive:
// main hands in a stream of events, a snapshot of numbers and a place to keep what must
// outlive a restart. Nothing in it is on the way of a delivery.
package notify

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config is what the configuration says, validated by Check.
type Config struct {
	Channels []Channel
	Rules    []Rule
}

// The kinds of channels.
const (
	Slack    = "slack"
	Discord  = "discord"
	Telegram = "telegram"
	Email    = "email"
	Webhook  = "webhook"
)

// Channel is one place that messages go to.
type Channel struct {
	Name, Kind string
	URL        string         // slack, discord, webhook
	Token      string         // telegram: the bot's
	Chat       string         // telegram
	Secret     string         // webhook: whsec_ and base64
	SMTP       *SMTP          // email
	Private    []netip.Prefix // networks that are not public and may be reached all the same
	PerMinute  int            // messages; what is above it waits and is put together
}

// SMTP is a mail server and the envelope.
type SMTP struct {
	Address            string // host:port
	Username, Password string
	From               string
	To                 []string
	TLS                string // starttls, tls, none
}

// What a rule looks at.
const (
	WhenEvent      = "event"      // an event of a type
	WhenRefusals   = "refusals"   // many deliveries refused
	WhenSilence    = "silence"    // a source that is quiet for longer than it is used to be
	WhenLag        = "lag"        // events wait to be published
	WhenDisk       = "disk"       // the disk is near its reserve, or nothing can be written
	WhenUncaptured = "uncaptured" // an authorization that is neither captured nor canceled
	WhenDeclines   = "declines"   // the share of failed payments
	WhenRepeats    = "repeats"    // deliveries that the provider sends again although it was answered
)

// Rule says what is worth a message. Which fields count depends on When; the zero value of
// each that counts must have been replaced by its default.
type Rule struct {
	Name, When string
	Sources    []string          // none: all
	Channels   []string          // none: all
	Types      []string          // event: canonical types or the provider's, * at the end stands for the rest
	Match      map[string]string // event: fields of the event, * at the end stands for the rest
	Where      string            // event: a condition over the event, as routes have them
	Reasons    []string          // refusals, declines; none: all
	Count      int               // refusals, repeats: from so many on; declines: of at least so many payments
	Within     time.Duration     // refusals, repeats, declines
	Above      time.Duration     // lag
	After      time.Duration     // uncaptured
	Floor      time.Duration     // silence: never sooner
	Factor     float64           // silence: of the longest pause that is usual at this hour
	Share      float64           // declines: percent
	Free       int64             // disk: bytes; 0 = the reserve alone
	Group      time.Duration     // what comes within it is one message
	Again      time.Duration     // a reminder while it lasts; 0 = none
	Template   string
}

// Kept is the outcome of an event where no sink is configured: nothing else will be said of it.
const Kept = "kept"

// Event is one thing that the log says, in its order.
type Event struct {
	Seq      uint64    // position in the log
	At       time.Time // receipt, or when the outcome was written
	Source   string
	Delivery string // public id; may be empty until More was called
	Outcome  string // "" = the delivery itself; published, duplicate, dead, ..., or Kept

	Provider, Tenant                          string
	Type, EventType, EventID, OrderID, Status string
	PaymentID, Currency, Livemode, RequestID  string
	AmountMinor                               *int64
	Item                                      int // which of its delivery's events, from 0
	// Of an event that is Kept: what is equal however often it comes (0: not known), why a
	// payment failed, and the further events of the delivery. Where there is a sink, outcomes
	// tell which event came again, and Stats count payments.
	ID      uint64
	Failure string
	Others  []*Event
	// More fills in what costs a read of the log: source, provider, tenant, delivery id. It
	// is called only for events that a rule may want; nil: there is no more.
	More func(*Event)
}

// Log is the stream of events; main makes one of the archive.
type Log interface {
	// Head is the position of the last event.
	Head() uint64
	// Follow calls f for every event above from, in order, until ctx ends.
	Follow(ctx context.Context, from uint64, want Want, f func(*Event)) error
}

// Want is what rules look at beyond that something came; each costs a look into records.
type Want struct {
	Fields bool // of events
	Events bool // Event.ID and what stands beside it
}

// SourceReason names a counter.
type SourceReason struct{ Source, Reason string }

// Stats are the numbers of now. Counters count from the start of the process.
type Stats struct {
	Refused  map[SourceReason]float64
	Failures map[SourceReason]float64 // failed payments
	Paid     map[string]float64       // payments authorized or captured, by source
	Oldest   time.Duration            // age of the oldest delivery that is not published
	Free     uint64                   // bytes of the disk; 0 = not known
	Failing  string                   // why nothing can be written; "" when it can
}

// Payment is an authorization of the log.
type Payment struct {
	Source, PaymentID, OrderID, Delivery string
	At                                   time.Time
}

// Payments finds authorizations in what is archived.
type Payments interface {
	// Authorized calls f for the payments authorized from (inclusive) to (exclusive).
	Authorized(ctx context.Context, from, to time.Time, f func(Payment)) error
	// Concluded says whether the payment was captured, canceled, failed or expired since.
	Concluded(ctx context.Context, p Payment) (bool, error)
}

// Store keeps values over a restart.
type Store interface {
	Get(key string) ([]byte, bool)
	Put(key string, value []byte) error
}

// Options are the engine's surroundings.
type Options struct {
	Log      Log          // nil: rules over events see nothing
	Stats    func() Stats // nil: rules over numbers see nothing
	Payments Payments     // nil: uncaptured sees nothing
	Sinkless func() bool  // whether deliveries are Kept, for no sink is configured; nil: no
	Store    Store        // nil: nothing outlives the process

	// Dial connects to a channel's server. It refuses what is not an address of the public
	// internet and not in private, after the name was looked up.
	Dial    func(private []netip.Prefix) func(ctx context.Context, network, address string) (net.Conn, error)
	RootCAs *x509.CertPool // nil: the system's
	Link    string         // origin of the admin page, for links; "" = none
	Node    string         // name of this gateway in messages

	Interval   time.Duration // between two looks; default 2 s
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
	backoff    time.Duration // tests; the first pause after a failure
}

// Engine watches by rules and sends. Its methods may be called concurrently.
type Engine struct {
	o       Options
	log     *zap.Logger
	met     *metrics
	started time.Time

	mu       sync.Mutex // guards all below; nothing that waits happens under it
	rules    []*rule
	senders  map[string]*sender
	position uint64
	learn    uint64 // events up to here are older than the first start: they teach and do not fire
	cadence  map[string]*cadence
	saved    time.Time
	learned  time.Time // when the cadences were kept
	keptAt   uint64    // position that was kept
	dirty    bool      // something that must be kept has changed
	changed  chan struct{}
	counted  map[counter]float64
	told     told // events that are Kept and came before
	rebase   bool // the next snapshot is where counting begins

	scanning sync.Mutex // one look for authorizations at a time
}

// counter names a cumulative number of Stats.
type counter struct {
	kind byte // r refused, f failed, p paid
	SourceReason
}

// New makes an engine with what an earlier one kept. The configuration must pass Check.
func New(c Config, o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Interval <= 0 {
		o.Interval = 2 * time.Second
	}
	if o.backoff <= 0 {
		o.backoff = 2 * time.Second
	}
	e := &Engine{o: o, log: o.Logger, started: o.Now(), senders: map[string]*sender{}, cadence: map[string]*cadence{},
		counted: map[counter]float64{}, changed: make(chan struct{}, 1)}
	e.met = newMetrics(o.Registerer, e)
	e.restore()
	err := e.Set(c)
	e.rebase = false // a process counts from zero, and so do we
	return e, err
}

// Set puts another configuration in force. What a rule of the same name was firing goes on
// firing; what waits for a channel that is gone is dropped.
func (e *Engine) Set(c Config) error {
	if err := Check(c); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	before := map[string]*rule{}
	for _, r := range e.rules {
		before[r.Name] = r
	}
	e.rules = nil
	for _, conf := range c.Rules {
		r := newRule(conf)
		if was := before[r.Name]; was != nil && was.When == r.When {
			r.state = was.state
		}
		e.rules = append(e.rules, r)
	}
	old := e.senders
	e.senders = map[string]*sender{}
	for _, ch := range c.Channels {
		s := newSender(ch, e)
		if was := old[ch.Name]; was != nil {
			s.queue = was.take()
		}
		e.senders[ch.Name] = s
		e.met.begin(ch.Name)
	}
	e.rebase = e.rebase || len(before) == 0 // until now nobody counted
	e.dirty = true
	select {
	case e.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run watches and sends until ctx ends; then it keeps what must be kept.
func (e *Engine) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		part, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		e.mu.Lock()
		var follow bool
		var want Want
		for _, r := range e.rules {
			follow = follow || r.follows()
			want.Fields = want.Fields || r.When == WhenEvent
			want.Events = want.Events || r.When == WhenDeclines || r.When == WhenRepeats || r.When == WhenEvent
		}
		senders := make([]*sender, 0, len(e.senders))
		for _, s := range e.senders {
			senders = append(senders, s)
		}
		e.mu.Unlock()
		for _, s := range senders {
			wg.Go(func() { s.run(part) })
		}
		if follow && e.o.Log != nil {
			wg.Go(func() { e.follow(part, want) })
		}
		wg.Go(func() { e.look(part) })
		select {
		case <-ctx.Done():
		case <-e.changed:
		}
		cancel()
		wg.Wait()
	}
	e.save(true)
	return nil
}

// follow reads the log from where the last life was; at the very first start it begins a
// little before the end, to learn, and tells nothing of that.
func (e *Engine) follow(ctx context.Context, want Want) {
	e.mu.Lock()
	if head := e.o.Log.Head(); e.position == 0 || e.position > head {
		e.learn = head
		e.position = head - min(head, learnRecords)
		e.dirty = true
	}
	from := e.position
	if want.Events && e.o.Sinkless != nil && e.o.Sinkless() {
		from = e.told.begin(from)
	} else {
		e.told = told{}
	}
	e.mu.Unlock()
	for ctx.Err() == nil {
		err := e.o.Log.Follow(ctx, from, want, e.observe)
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("notifications cannot read the log, will try again", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
		e.mu.Lock()
		from = e.position
		e.mu.Unlock()
	}
}

// learnRecords is how much of the past teaches a source's cadence at the first start.
const learnRecords = 200_000

// look takes the numbers, decides and keeps, again and again.
func (e *Engine) look(ctx context.Context) {
	tick := time.NewTicker(e.o.Interval)
	defer tick.Stop()
	for {
		e.tick(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tick is one look at everything.
func (e *Engine) tick(ctx context.Context) {
	var st *Stats
	e.mu.Lock()
	wanted := len(e.rules) > 0
	e.mu.Unlock()
	if wanted && e.o.Stats != nil {
		s := e.o.Stats()
		st = &s
	}
	now := e.o.Now()
	if wanted && e.o.Payments != nil {
		e.scan(ctx, now)
	}
	e.mu.Lock()
	if st != nil {
		e.count(now, st)
	}
	for _, r := range e.rules {
		e.judge(r, now, st)
		e.tell(r, now)
	}
	e.mu.Unlock()
	e.save(false)
}
