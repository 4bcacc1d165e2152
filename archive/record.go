package archive

import (
	"net/netip"
	"time"
)

// Verdict is what verification concluded about a delivery.
type Verdict uint8

// The verdicts. Zero is not one, so that a forgotten verdict is seen.
const (
	Accepted  Verdict = 1 // proved to come from the provider; it will be published
	Challenge Verdict = 2 // a handshake that was answered; kept, never published
	Rejected  Verdict = 3 // refused, with a reason; kept in the quarantine
)

// String gives the verdict's word in the API, metrics and logs.
func (v Verdict) String() string {
	switch v {
	case Accepted:
		return "accepted"
	case Challenge:
		return "challenge"
	case Rejected:
		return "rejected"
	}
	return "unknown"
}

// Delivery is one HTTP request as it was received. Append copies what it needs, so
// its slices may be reused as soon as Append returns; those of a Delivery that the
// archive hands out belong to the caller.
type Delivery struct {
	Seq        uint64     // position in the archive; set by Append (of a rejected one with QuarantineBit)
	ID         string     // public id, a ULID that says where the record is; set by Append
	ReceivedAt time.Time  // first byte in, wall clock
	Source     string     // name of the source
	Provider   string     // name of the provider definition
	Tenant     string     // merchant behind the source, where there are several
	Verdict    Verdict    //
	Reason     string     // reason code when rejected
	VerifiedBy string     // scheme and key fingerprint when accepted
	RemoteIP   netip.Addr // client address after trusted proxies
	Method     string     //
	Target     []byte     // request target, raw, as on the request line
	Header     []byte     // header lines, raw, each ended by CRLF, without the request line
	Body       []byte     // body bytes as received (after de-chunking only)
	Epoch      uint64     // id of the source's definition and routing (RegisterEpoch)
}

// OutcomeKind says what became of one event of a delivery.
type OutcomeKind uint8

// The outcomes.
const (
	Published OutcomeKind = 1 // Kafka (or another sink) has it
	Duplicate OutcomeKind = 2 // its twin was delivered; see Outcome.Of
	Held      OutcomeKind = 3 // waits: paused source, blocked topic, missing definition
	Dead      OutcomeKind = 4 // cannot be published; in the dead-letter topic with the reason
	Filtered  OutcomeKind = 5 // by configuration not published
)

// String gives the outcome's word in the API, metrics and logs.
func (k OutcomeKind) String() string {
	switch k {
	case Published:
		return "published"
	case Duplicate:
		return "duplicate"
	case Held:
		return "held"
	case Dead:
		return "dead"
	case Filtered:
		return "filtered"
	}
	return ""
}

// Identity is a dedupe identity: a hash over sink, source (or group) and event id.
type Identity [16]byte

// Outcome is the record of what became of one event of a delivery. A delivery with
// n events gets n outcomes; it is done when each has one that is not Held.
type Outcome struct {
	Seq      uint64 // of this record; set by the archive
	Delivery uint64 // seq of the delivery
	Item     int    // which of the delivery's events, from 0
	Items    int    // how many events the delivery has
	Kind     OutcomeKind
	At       time.Time
	Reason   string // why held, dead or filtered; for Published the route that took it
	Of       string // delivery id of the twin, for Duplicate; for Published of the first that said the same state

	// Source is whose key it is sealed under, where the archive is encrypted. It is not kept
	// otherwise.
	Source    string
	Sink      string // which sink it concerns: "kafka:<cluster id>"
	Topic     string
	Partition int32
	Offset    int64
	Replay    string // job id when it came from a replay; such an outcome is no evidence

	Identity Identity // what a Published outcome proves
	Content  Identity // hash of the content under that identity
	State    Identity // the state that a Published outcome told first; zero = none, or told before

	Fields Fields

	Steps        Steps     // of the delivery's way to its answer; AppendOutcomes adds what it knows
	Deduplicated time.Time // when it was settled that no twin was there before; zero: not known
}

// Fields is what the index wants to know of an event.
type Fields struct {
	EventID        string `json:"event_id,omitempty"`   // the provider's own word
	EventType      string `json:"event_type,omitempty"` // the provider's own word
	Type           string `json:"type,omitempty"`       // canonical type
	CEID           string `json:"ce_id,omitempty"`
	OrderID        string `json:"order_id,omitempty"`
	PaymentID      string `json:"payment_id,omitempty"`
	Status         string `json:"status,omitempty"` // the provider's own word
	RequestID      string `json:"request_id,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	Livemode       *bool  `json:"livemode,omitempty"`
	AmountMinor    *int64 `json:"amount_minor,omitempty"`
	Currency       string `json:"currency,omitempty"`
}

// MarkerKind says what a marker marks.
type MarkerKind uint8

// The markers.
const (
	EpochMarker   MarkerKind = 1 // a source's definition and routing; Data is JSON without secrets
	ReleaseMarker MarkerKind = 2 // a rejected delivery was released; Data names it and by whom
	JobMarker     MarkerKind = 3 // a replay job: started, progress, done
	SampledMarker MarkerKind = 4 // quarantine only: how many refusals were counted and not kept
)

// Marker is a record that concerns no single event.
type Marker struct {
	Seq  uint64 // set by the archive
	Kind MarkerKind
	At   time.Time
	Key  string // epoch: the source's name; release: the delivery's id; job: the job's id
	ID   uint64 // epoch: its id
	Data []byte
}

// Record is one entry of the log: exactly one of its pointers and Corrupt is set.
type Record struct {
	Seq      uint64
	Delivery *Delivery
	Outcome  *Outcome
	Marker   *Marker
	// Corrupt stands in the place of records that cannot be read any more: a
	// *CorruptError that says which seqs they had. Seq is the last of them. There is
	// nothing to wait for; whoever keeps a position goes past it.
	Corrupt error
}
