package forward

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"penstock/archive"
	"penstock/provider"
)

// Claim asks for the right to publish one event; see package dedupe, whose type this is.
// Both are aliases of one plain struct: neither package imports the other, and a batch
// goes over without a copy.
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

// Answer is what a claim found out; see package dedupe.
type Answer = struct {
	Verdict uint8            // see below
	ID      archive.Identity // what to confirm and to write into the outcome
	Of      string           // delivery id of the twin, where there is one
	Unknown bool             // nobody could say for sure
	Reason  string           // why parked
}

// The verdicts of an Answer; the numbers are those of package dedupe.
const (
	claimPublish   uint8 = 1
	claimDuplicate uint8 = 2
	claimWait      uint8 = 3
	claimPark      uint8 = 4
	claimConflict  uint8 = 5
)

// Deduper decides what is published; *dedupe.Deduper is one.
type Deduper interface {
	Claim(ctx context.Context, cs []Claim, out []Answer)
	Force(c Claim)
	Confirm(cs []Claim)
	Release(cs []Claim)
	Unconfirmed() uint64
}

// Reader reads the log in order and never past the synced mark.
type Reader interface {
	Next(ctx context.Context) (archive.Record, error)
	TryNext() (archive.Record, bool, error)
	Close()
}

// Log is what the pump needs of the archive; FromArchive makes one of an *archive.Archive.
type Log interface {
	Reader(from uint64) Reader
	First() uint64
	Synced() uint64
	Indexed() uint64 // how far Query and Outcomes have got
	Get(id string) (*archive.Delivery, error)
	GetSeq(seq uint64) (*archive.Delivery, error)
	Outcomes(seq uint64) ([]archive.Outcome, error)
	Query(ctx context.Context, f archive.Filter) (archive.Page, error)
	AppendOutcomes(os []archive.Outcome) error
	AppendMarker(m *archive.Marker) error
	Pin(d *archive.Delivery, until time.Time) error
	State() State
}

// Events is the part of a provider definition that the pump uses; *provider.Definition
// has it.
type Events interface {
	Events(r *provider.Request) ([]provider.Event, error)
}

// SourceInfo is a source as it was when a delivery was accepted: definition and routing.
// It is immutable; the pump keeps it per epoch.
type SourceInfo struct {
	Name       string
	Provider   string
	Definition Events               // nil: not there (any more); its deliveries are held
	Secrets    provider.Credentials // what sealed deliveries are opened with; of today's configuration
	PublicURL  string               // origin that the provider calls, for schemes and identities that want it
	Topic      string               // template; "" = Options.Topic
	Key        string               // template of the Kafka key; "" = the entity
	Routes     *Routes              // looked at before Topic; nil = none
	Window     time.Duration        // dedupe window; 0 = Options.Window
	Group      string               // dedupe group; "" = the source by itself
	Tenants    bool                 // many merchants behind it, each with ids of its own
	LiveOnly   bool                 // mode: live - test events go out as test.<type>
	Target     string               // HTTP target; "" = the default one, where there is one
	NoKafka    bool                 // its events do not go to Kafka
	ByContent  bool                 // dedupe.identity: body - the signed content's hash stands for the event id
}

// Start says where a sink begins that has no cursor yet.
type Start string

// The starts of forward.start.
const (
	StartOldest Start = "oldest"
	StartNow    Start = "now"
)

// Options of a Pump. Archive, Dedupe, Source and Kafka.Brokers are required.
type Options struct {
	Archive Log
	Dedupe  Deduper
	Kafka   KafkaOptions
	// HTTP makes this a pump to HTTP targets, and Kafka is not looked at. A gateway that
	// does both has two pumps over one archive, each with its own cursor and evidence.
	HTTP *HTTPOptions
	// Beside is the other pump of this process: metrics are shared with it.
	Beside *Pump
	// Source gives the definition under which a delivery was accepted: the archive's
	// epoch document, parsed. near is the seq of a delivery that uses it. An error, or
	// no Definition, holds the delivery (reason definition_missing); it is asked again
	// after Reload and every half minute.
	Source func(epoch, near uint64) (*SourceInfo, error)

	// Selective: some sources go to another sink alone, so that each delivery's epoch is
	// asked whose it is.
	Selective bool

	Topic           string        // template; default webhooks.{provider}
	DeadLetterTopic string        // "": dead letters are outcomes only
	Start           Start         // default oldest
	Window          time.Duration // dedupe window where a source has none; default 8 days
	AdminURL        string        // admin.public_url, where a claim-check points to; "" = too large is dead
	Node            string        // this node's name, for claim-checks
	KeepFor         time.Duration // how long a claim-check may be fetched, from receipt on; 0 = for ever, or not said
	PinBodies       bool          // retention may remove before KeepFor what claim-checks point to: it is pinned

	MaxBytes     int64         // bytes of events in memory; default 64 MiB
	MaxEvents    int           // events known but not done (parked, waiting, blocked); default 32768
	MaxEventSize int           // larger values go by claim-check; default 900,000
	HoldAfter    time.Duration // a blocked topic's events are held after so long; default 10 s
	ParkFor      time.Duration // an event claimed by another node is published after so long; default 10 min
	DrainRate    float64       // events per second that one source gives out of what it held; 0 = as fast as they are taken
	ReplayRate   float64       // events per second of a replay job that names no rate; default 500

	// Trace is told of what each stage did with a batch; it must not wait. nil: nobody traces.
	Trace func(Stage)

	Logger     *zap.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time

	sink  sink          // tests; nil = Kafka
	grace time.Duration // tests; how long a stop waits for acks
}

// sink is the Kafka producer as the pump sees it (kafka*.go), small enough for a fake.
type sink interface {
	// Open blocks until a broker answers and returns the cluster's id.
	Open(ctx context.Context) (string, error)
	// Recover resolves the intents of the last life.
	Recover(ctx context.Context, rebuild func(ItemRef) (*Message, error)) ([]Ack, error)
	// Send queues one message; ErrTopicBlocked (a *BlockedError) at once when its topic or
	// partition takes nothing. May block while bytes in flight are at their bound.
	Send(ctx context.Context, m *Message) error
	// Acks delivers what became of messages, in order per partition.
	Acks() <-chan []Ack
	// Done says that the outcomes of these acks are synced.
	Done(acks []Ack) error
	// Blocked says whether the topic (or that partition of it) takes nothing now, and why.
	Blocked(topic string, partition int32) (bool, string)
	// PartitionOf tells the partition of a key; -1 = not known yet.
	PartitionOf(topic string, key []byte) int32
	// Fenced names the partitions that take nothing because they gave messages back;
	// Lift says that these have arrived and that nothing newer is on its way.
	Fenced(f func(topic string, partition int32))
	Lift(topic string, partition int32)
	// Away is true while no broker at all answers.
	Away() bool
	// Changed is signalled when a topic or partition was blocked or opened.
	Changed() <-chan struct{}
	// Close waits for what is in flight until ctx ends.
	Close(ctx context.Context) error
}

func (o *Options) setDefaults() {
	def := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&o.Window, 8*24*time.Hour)
	def(&o.grace, stopGrace)
	def(&o.HoldAfter, 10*time.Second)
	def(&o.ParkFor, 10*time.Minute)
	if o.Topic == "" {
		o.Topic = "webhooks.{provider}"
	}
	if o.Start == "" {
		o.Start = StartOldest
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxEvents <= 0 {
		o.MaxEvents = 1 << 15
	}
	if o.MaxEventSize <= 0 {
		o.MaxEventSize = 900_000 // Kafka's default limit is 1,048,588 for a whole batch
	}
	if o.ReplayRate <= 0 {
		o.ReplayRate = 500
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
