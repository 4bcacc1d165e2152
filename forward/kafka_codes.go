package forward

import (
	"errors"
	"fmt"

	kafka "github.com/segmentio/kafka-go"
)

// verdict is what a produce answer means for the batch.
type verdict uint8

const (
	// again: send the same bytes under the same sequence. Whether the batch was
	// appended may be unknown: then it is looked for first (flight).
	again verdict = iota
	// elsewhere: as again, but learn first who leads the partition.
	elsewhere
	// sequence: the broker does not accept our place in its order. Look the batch up;
	// if it is not there, it goes under a new producer id.
	sequence
	// tooLarge: split, or ErrTooLarge for a single record.
	tooLarge
	// invalid: a record is refused for what it is.
	invalid
	// missing, forbidden, refused: the topic does not take it now. It blocks itself.
	missing
	forbidden
	refused
)

// unknownTopicID is UNKNOWN_TOPIC_ID, which kafka-go has no name for.
const unknownTopicID = kafka.Error(100)

// codeMeaning is the table of produce errors. kafka-go's own table (Temporary) does
// not know the sequence errors and takes NotLeader for final. A code that is not
// here is sent again: an error that we do not know must not lose an event. appended
// false means that the broker certainly did not append the batch in this attempt.
// Source: org.apache.kafka.common.protocol.Errors, UnifiedLog.append.
var codeMeaning = map[kafka.Error]struct {
	means    verdict
	appended bool // perhaps
}{
	kafka.Unknown:                      {again, true},
	kafka.InvalidMessage:               {again, false}, // CORRUPT_MESSAGE: damaged on the way
	kafka.UnknownTopicOrPartition:      {missing, true},
	kafka.LeaderNotAvailable:           {elsewhere, false},
	kafka.NotLeaderForPartition:        {elsewhere, true}, // also when leadership ends while replicas are awaited
	kafka.RequestTimedOut:              {again, true},
	kafka.BrokerNotAvailable:           {elsewhere, true},
	kafka.ReplicaNotAvailable:          {elsewhere, true},
	kafka.MessageSizeTooLarge:          {tooLarge, false},
	kafka.NetworkException:             {again, true},
	kafka.InvalidTopic:                 {missing, false},
	kafka.RecordListTooLarge:           {tooLarge, false},
	kafka.NotEnoughReplicas:            {again, false},
	kafka.NotEnoughReplicasAfterAppend: {again, true},
	kafka.TopicAuthorizationFailed:     {forbidden, false},
	kafka.ClusterAuthorizationFailed:   {forbidden, false},
	kafka.InvalidTimestamp:             {invalid, false},
	kafka.UnsupportedForMessageFormat:  {refused, false},
	kafka.PolicyViolation:              {refused, false},
	kafka.OutOfOrderSequenceNumber:     {sequence, false},
	kafka.DuplicateSequenceNumber:      {sequence, true}, // older than the broker's last five
	kafka.InvalidProducerEpoch:         {sequence, false},
	kafka.InvalidProducerIDMapping:     {sequence, false},
	kafka.UnknownProducerId:            {sequence, false},
	kafka.KafkaStorageError:            {elsewhere, true},
	kafka.FencedLeaderEpoch:            {elsewhere, false},
	kafka.UnknownLeaderEpoch:           {elsewhere, false},
	kafka.UnsupportedCompressionType:   {refused, false},
	kafka.PreferredLeaderNotAvailable:  {elsewhere, false},
	kafka.InvalidRecord:                {invalid, false},
	kafka.ThrottlingQuotaExceeded:      {again, false},
	kafka.ProducerFenced:               {sequence, false},
	unknownTopicID:                     {missing, false},
}

// judge says what a failed produce attempt means, and whether the batch may have
// been appended all the same. Whatever is no answer of the broker may have been.
func judge(err error) (v verdict, ambiguous bool) {
	if errors.Is(err, errUnsent) {
		return elsewhere, false // and a code in it is the login's, not the batch's
	}
	var code kafka.Error
	if !errors.As(err, &code) {
		return elsewhere, true
	}
	m, known := codeMeaning[code]
	if !known {
		return again, true
	}
	return m.means, m.appended
}

// codeError is an answer's error code as an error, nil for 0. The text is the
// broker's own where it gave one.
func codeError(code int16, text string) error {
	if code == 0 {
		return nil
	}
	if text == "" {
		return kafka.Error(code)
	}
	return fmt.Errorf("%w (%s)", kafka.Error(code), text)
}

// errorLabel is a short, bounded word for an error, for metrics.
func errorLabel(err error) string {
	var code kafka.Error
	if errors.As(err, &code) {
		return fmt.Sprintf("code_%d", int(code))
	}
	return "connection"
}
