package ingest

import (
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
)

// refusal is a class of requests or connections that are turned away. Verification's
// reasons are refusals of one class each in the answer, but one class in the log.
type refusal uint8

// The classes. Zero is none.
const (
	refusedRequest   refusal = iota + 1 // framing, target or header that we do not read
	refusedUnknown                      // no source has this path
	refusedMethod                       // a method that the source, or every source, has no use for
	refusedSlow                         // the request was not there in time
	refusedBody                         // larger than the source takes
	refusedExpect                       // Expect with anything but 100-continue
	refusedHeaders                      // request line and headers over the limit
	refusedRate                         // the source is over its own configured rate
	refusedRoom                         // the bodies in flight fill the budget
	refusedStorage                      // the archive did not take it
	refusedBug                          // we panicked
	refusedVerdict                      // verification said no; the reason stands in the metric
	refusedConns                        // connection over the limit of all
	refusedPeerConns                    // connection over the limit of one address
	refusedAccept                       // no descriptors or memory to accept with
	refusedBroken                       // the connection ended or broke inside a request
	refusedLate                         // archived, and not delivered before the answer was due
	refusedWaiting                      // archived, and too many answers wait already
	refusals
)

// refusalInfo says how a class is answered. Statuses 503 carry Retry-After and close.
var refusalInfo = [refusals]struct {
	code   string // in the JSON body, the metric and the log
	status int
}{
	refusedRequest:   {"bad_request", fasthttp.StatusBadRequest},
	refusedUnknown:   {"unknown_source", fasthttp.StatusNotFound},
	refusedMethod:    {"method_not_allowed", fasthttp.StatusMethodNotAllowed},
	refusedSlow:      {"timeout", fasthttp.StatusRequestTimeout},
	refusedBody:      {"body_too_large", fasthttp.StatusRequestEntityTooLarge},
	refusedExpect:    {"expectation_failed", fasthttp.StatusExpectationFailed},
	refusedHeaders:   {"headers_too_large", fasthttp.StatusRequestHeaderFieldsTooLarge},
	refusedRate:      {"rate_limited", fasthttp.StatusTooManyRequests},
	refusedRoom:      {"busy", fasthttp.StatusServiceUnavailable},
	refusedStorage:   {"storage_unavailable", fasthttp.StatusServiceUnavailable},
	refusedBug:       {"internal", fasthttp.StatusServiceUnavailable},
	refusedVerdict:   {"rejected", fasthttp.StatusUnauthorized},
	refusedConns:     {"too_many_connections", fasthttp.StatusServiceUnavailable},
	refusedPeerConns: {"too_many_connections_of_address", fasthttp.StatusServiceUnavailable},
	refusedAccept:    {"accept_failed", 0},
	refusedBroken:    {"broken", fasthttp.StatusBadRequest},
	refusedLate:      {"not_delivered_yet", fasthttp.StatusServiceUnavailable},
	refusedWaiting:   {"too_many_waiting", fasthttp.StatusServiceUnavailable},
}

// reasonStatus says how a verification reason is answered; what is not listed is 401,
// whatever a definition may call it.
func reasonStatus(reason string) int {
	switch reason {
	case reasonAddress, reasonPolicy:
		return fasthttp.StatusForbidden
	case "key_unavailable":
		return fasthttp.StatusServiceUnavailable
	}
	return fasthttp.StatusUnauthorized
}

// Reasons that the edge itself gives.
const (
	reasonAddress = "ip_not_allowed"
	reasonPolicy  = "policy"
	reasonStale   = "timestamp_outside_tolerance"
)

// jsonErrors are the bodies of all answers that refuse, made once.
var jsonErrors = func() [refusals][]byte {
	var b [refusals][]byte
	for i, info := range refusalInfo {
		b[i] = jsonError(info.code)
	}
	return b
}()

// jsonError renders the body of a refusal. Codes are words of ours, never of a request.
func jsonError(code string) []byte {
	return []byte(`{"error":{"code":` + strconv.Quote(code) + `}}`)
}

// floodAnswer is written to a plain connection that is over the limits.
var floodAnswer = []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n" +
	"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(jsonErrors[refusedConns])) +
	"\r\n\r\n" + string(jsonErrors[refusedConns]))

// retryMax is the longest pause asked for, in seconds. The pause is random, so that what
// was refused together does not come back together.
const retryMax = 30

var retryAfter = func() [retryMax]string {
	var s [retryMax]string
	for i := range s {
		s[i] = strconv.Itoa(i + 1)
	}
	return s
}()

func randomRetryAfter() string { return retryAfter[rand.IntN(retryMax)] }

// refusedLog writes one line per class and second, with the number of those that it
// did not write.
type refusedLog struct {
	log  *zap.Logger
	last [refusals]atomic.Int64  // unix second of the last line
	more [refusals]atomic.Uint64 // since then
}

func (l *refusedLog) line(r refusal, now time.Time, fields ...zap.Field) {
	sec := now.Unix()
	last := l.last[r].Load()
	if last == sec || !l.last[r].CompareAndSwap(last, sec) {
		l.more[r].Add(1)
		return
	}
	fields = append(fields, zap.String("class", refusalInfo[r].code))
	if n := l.more[r].Swap(0); n > 0 {
		fields = append(fields, zap.Uint64("more", n))
	}
	if r == refusedBug || r == refusedStorage {
		l.log.Error("a delivery could not be taken", fields...)
		return
	}
	l.log.Info("refused", fields...)
}

// due says whether line would write: a caller asks before it makes fields.
func (l *refusedLog) due(r refusal, now time.Time) bool {
	if l.last[r].Load() != now.Unix() {
		return true
	}
	l.more[r].Add(1)
	return false
}

// quietLogger takes what fasthttp would log. Its messages may quote what a stranger
// sent, and each of them was counted under its class already.
type quietLogger struct{ s *Server }

func (q quietLogger) Printf(format string, _ ...any) {
	q.s.log.Debug("fasthttp", zap.String("format", format))
}
