package forward

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"penstock/archive"
)

// Errors of the Kafka producer. All of them mean that the message is not in Kafka
// and that no intent is open for it.
var (
	// ErrTooLarge says that one record alone is above what the topic takes. The
	// caller publishes a pointer instead (claim-check) or a dead letter.
	ErrTooLarge = errors.New("record is larger than the topic takes")
	// ErrInvalidRecord says that the broker refuses the record for what it is. It
	// is never retried: the caller makes a dead letter of it.
	ErrInvalidRecord = errors.New("record is refused by the broker")
	// ErrNotSent says that the message was given back untouched: the caller reads it
	// again from the archive and sends it anew. A blocked topic's messages come
	// back with it (they are ErrTopicBlocked too), and so do those of an intent that
	// could not be finished under its old sequence.
	ErrNotSent = errors.New("message was not sent")
	// ErrTopicBlocked says that the topic (or one partition of it) takes nothing
	// now. The reason is in the *BlockedError. Changed tells when to try again.
	ErrTopicBlocked = errors.New("topic is blocked")
	// ErrProducerClosed is what Send answers after Close.
	ErrProducerClosed = errors.New("kafka producer is closed")
	// ErrNewHome says that the cluster is not the one that this archive was
	// published to. Nothing is sent until an operator accepts it (AcceptHome).
	ErrNewHome = errors.New("this is another kafka cluster than before")
)

// Reasons of a blocked topic, as they stand in API, metrics and logs.
const (
	ReasonMissing    = "topic_missing"
	ReasonForbidden  = "topic_forbidden"
	ReasonInvalid    = "topic_invalid"
	ReasonReplaced   = "topic_replaced"      // another topic id than before: waits for AcceptHome
	ReasonPartition  = "partition_stuck"     // no leader, too few replicas, broker away or slow
	ReasonUnresolved = "unresolved_intent"   // a batch of the last life could not be looked up yet
	ReasonRefused    = "topic_refuses_batch" // compression or format that the topic does not take
)

// BlockedError names the topic, or the one partition of it, that takes nothing now.
type BlockedError struct {
	Topic     string
	Partition int32 // -1: the whole topic
	Reason    string
}

func (e *BlockedError) Error() string {
	if e.Partition < 0 {
		return fmt.Sprintf("topic %s is blocked: %s", e.Topic, e.Reason)
	}
	return fmt.Sprintf("topic %s partition %d is blocked: %s", e.Topic, e.Partition, e.Reason)
}

// Is makes a *BlockedError both ErrTopicBlocked and ErrNotSent.
func (e *BlockedError) Is(target error) bool {
	return target == ErrTopicBlocked || target == ErrNotSent
}

// Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// Message is one event on its way to Kafka. The producer keeps it, unchanged but
// for Partition, until its Ack; the caller changes nothing of it in that time.
type Message struct {
	Topic   string
	Key     []byte // nil: spread evenly
	Value   []byte
	Headers []Header  // ce_deliveryid, ce_id and ce_replay identify the event when a batch is looked up
	Time    time.Time // record timestamp, kept in milliseconds

	Delivery uint64 // seq of the delivery
	Item     int    // which event of the delivery
	Replay   string // job id when it is a replay
	Repeats  string // id of the delivery whose state it says again

	Partition int32 // set by the producer

	// What the pump has rendered is packed: Headers is empty, and Key and Value are parts of it.
	packed    []byte // key, value and headers as they stand in a record; nil: the fields above
	headersAt int    // where in packed the headers begin, with their number
	print     uint64 // fingerprint, of what is packed

	request *httpRequest // what goes to an HTTP target, with Value as its body
}

// Ack says what became of one message.
type Ack struct {
	Message   *Message
	Partition int32
	Offset    int64 // where it stands in the partition, when Err is nil
	Err       error // ErrTooLarge, ErrInvalidRecord or ErrNotSent (see there)

	intent *intent // the intent that goes when the outcome is synced
	reply  *Reply  // what an HTTP target said
}

// ItemRef names one event of one delivery.
type ItemRef struct {
	Delivery uint64
	Item     int
	Replay   string
	Repeats  string // as of Message: part of what the event is rendered to
}

// Compression is how record batches are compressed. The numbers are Kafka's.
type Compression int8

// The compressions of record batch format 2.
const (
	CompressionNone   Compression = 0
	CompressionGzip   Compression = 1
	CompressionSnappy Compression = 2
	CompressionLZ4    Compression = 3
	CompressionZstd   Compression = 4
)

// ParseCompression reads the configuration's word for a compression. The empty
// word is zstd.
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "none":
		return CompressionNone, nil
	case "gzip":
		return CompressionGzip, nil
	case "snappy":
		return CompressionSnappy, nil
	case "lz4":
		return CompressionLZ4, nil
	case "zstd", "":
		return CompressionZstd, nil
	}
	return 0, fmt.Errorf("compression %q is none of none, gzip, snappy, lz4, zstd", s)
}

// SASLOptions says how to log in to the brokers.
type SASLOptions struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username  string
	Password  string
}

// String hides the password from logs.
func (s SASLOptions) String() string { return s.Mechanism + " " + s.Username + " [redacted]" }

// GoString hides the password from %#v.
func (s SASLOptions) GoString() string { return s.String() }

// CreateTopics says how a missing topic is made.
type CreateTopics struct {
	Partitions  int // 0: the broker's default
	Replication int // 0: the broker's default
}

// Regression says that a partition ends below what the broker has acknowledged:
// Kafka lost what it had promised to keep.
type Regression struct {
	Topic     string
	Partition int32
	Acked     int64 // offset after the last record that was acknowledged to us
	End       int64 // where the partition ends now (or where it put a new batch)
}

// KafkaOptions configures the producer. Only Brokers must be set.
type KafkaOptions struct {
	Brokers          []string      // host:port of the brokers to start from
	CreateTopics     *CreateTopics // nil: a missing topic blocks itself
	Compression      Compression   // as it is: the zero value is none
	TLS              *tls.Config   // nil: plain TCP. An empty ServerName is filled per broker
	SASL             *SASLOptions
	ClientID         string // default "penstock"
	MaxBatchBytes    int    // bytes of a batch on the wire, default 1,000,000 (brokers take 1,048,588)
	MaxInFlightBytes int64  // bytes of messages taken by Send and not acked, default 64 MiB
	AcceptHome       bool   // an operator's word: another cluster or topic id is welcome

	// Regressed is called when Kafka went back (see Regression), before anything
	// more is sent to that partition, and again after every restart until it
	// returned nil: by then the caller has made durable that it will publish again.
	Regressed func(Regression) error
	// Trace is told of each batch that was answered; nil: nobody traces.
	Trace func(Stage)

	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// State is what the producer keeps its intents in; archive.State is one.
type State interface {
	Get(key string) ([]byte, bool)
	Range(prefix string, f func(key string, value []byte) bool)
	Commit(changes ...archive.Change) error
}
