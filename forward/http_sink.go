package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Reasons of an HTTP target that takes nothing, as they stand in API, page and logs.
const (
	ReasonTargetAbsent  = "target_not_configured"
	ReasonTargetDown    = "target_down"    // it refuses, hangs or fails, whatever is sent
	ReasonTargetBusy    = "target_busy"    // it said 429 or 503, and until when
	ReasonTargetGone    = "target_gone"    // it said 410: it wants no more of this
	ReasonTargetBacklog = "target_backlog" // it is slower than what comes in
	reasonFailing       = "delivery_fails" // of one key
)

// reasonGivenUp is that of a dead letter which a target refused for longer than it is tried.
const reasonGivenUp = "target_gave_no_2xx"

// HTTPOptions are the targets of a pump, by name.
type HTTPOptions struct {
	Targets map[string]HTTPTarget
	Default string // target of the sources that name none; "" = those are not sent
}

// HTTPTarget is one place that requests go to.
type HTTPTarget struct {
	URL         string
	Secrets     []string      // of our signature, the newest first; none = not signed
	Timeout     time.Duration // of one attempt, its answer included; default 15 s
	Concurrency int           // requests at once; default 8
	RetryFor    time.Duration // from receipt; then it is a dead letter; default 5 days
	MaxPause    time.Duration // between two attempts; default 15 minutes
	TLS         *tls.Config
	// Dial connects and refuses addresses that are not meant; required.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	// httpLines is how many lines a target has: the deliveries of one key share a line and
	// go one after the other, what fails holds up its own line alone.
	httpLines = 1 << 14
	// targetQueue and targetBytes bound what of one target is in memory: the rest waits in
	// the archive, and a slow target takes no room of the others.
	targetQueue = 512
	targetBytes = 8 << 20
)

// httpSink sends requests to HTTP targets. It keeps nothing on disk: what was delivered
// has its outcome in the log, and everything else is sent again.
type httpSink struct {
	log     *zap.Logger
	metrics *httpMetrics
	wanted  func() bool            // somebody waits for answers
	refused func(*Message, *Reply) // takes those that are no 2xx
	acks    chan []Ack
	changed chan struct{}
	life    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup

	mu      sync.Mutex // protects targets and closed; after target.mu
	targets map[string]*target
	closed  bool
}

func newHTTPSink(o Options, wanted func() bool, refused func(*Message, *Reply)) (*httpSink, error) {
	s := &httpSink{log: o.Logger, wanted: wanted, refused: refused, acks: make(chan []Ack, ackSlices), changed: make(chan struct{}, 1), targets: map[string]*target{}}
	s.life, s.end = context.WithCancel(context.Background())
	s.metrics = newHTTPMetrics(o.Registerer)
	return s, s.set(o.HTTP.Targets)
}

// SetTargets puts other targets in force, all or none. What is on its way goes under the
// old settings.
func (p *Pump) SetTargets(targets map[string]HTTPTarget) error {
	s, ok := p.sink.(*httpSink)
	if !ok {
		return errors.New("this pump has no HTTP targets")
	}
	return s.set(targets)
}

func (s *httpSink) set(targets map[string]HTTPTarget) error {
	ready := map[string]*courier{}
	for name, t := range targets {
		c, err := newCourier(t)
		if err != nil {
			return fmt.Errorf("http target %s: %w", name, err)
		}
		ready[name] = c
	}
	s.mu.Lock()
	for name := range ready {
		if s.targets[name] == nil {
			s.targets[name] = newTarget(s, name)
		}
	}
	s.mu.Unlock()
	for name, t := range s.all() {
		t.settle(ready[name])
	}
	s.signal()
	return nil
}

func (s *httpSink) target(name string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[name]
}

func (s *httpSink) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// emit hands acks over; what nobody takes any more is sent again by the next life.
func (s *httpSink) emit(acks []Ack) {
	if len(acks) == 0 {
		return
	}
	select {
	case s.acks <- acks:
	case <-s.life.Done():
	}
}

// Open needs nobody: a target that is away is none of the start's business.
func (s *httpSink) Open(context.Context) (string, error) { return httpCluster, nil }

// Recover has nothing to look up: nobody can ask a target what it has.
func (s *httpSink) Recover(context.Context, func(ItemRef) (*Message, error)) ([]Ack, error) {
	return nil, nil
}

// Send queues a message.
func (s *httpSink) Send(_ context.Context, m *Message) error {
	t := s.target(m.Topic)
	if t == nil {
		return &BlockedError{Topic: m.Topic, Partition: -1, Reason: ReasonTargetAbsent}
	}
	return t.send(m)
}

func (s *httpSink) Acks() <-chan []Ack { return s.acks }

// Done has nothing to do: no intent is kept.
func (s *httpSink) Done([]Ack) error { return nil }

// Blocked says whether the target, or one line of it, takes nothing now.
func (s *httpSink) Blocked(name string, line int32) (bool, string) {
	t := s.target(name)
	if t == nil {
		return true, ReasonTargetAbsent
	}
	return t.blocked(line, time.Now())
}

// PartitionOf is the line of a key.
func (s *httpSink) PartitionOf(_ string, key []byte) int32 { return lineOf(key) }

func lineOf(key []byte) int32 {
	h := fnv.New32a()
	_, _ = h.Write(key)
	return int32(h.Sum32() % httpLines)
}

// Fenced names the lines that would flow again but for what they gave back.
func (s *httpSink) Fenced(f func(topic string, line int32)) {
	for name, t := range s.all() {
		for _, id := range t.fenced(time.Now()) {
			f(name, id)
		}
	}
}

// Lift opens such a line.
func (s *httpSink) Lift(name string, line int32) {
	if t := s.target(name); t != nil {
		t.lift(line)
	}
}

func (s *httpSink) all() map[string]*target {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]*target, len(s.targets))
	for name, t := range s.targets {
		out[name] = t
	}
	return out
}

// Away is never true: targets have nothing in common that could be.
func (s *httpSink) Away() bool { return false }

func (s *httpSink) Changed() <-chan struct{} { return s.changed }

// BlockedTopics are the targets that take nothing now, with the reason.
func (s *httpSink) BlockedTopics() map[string]string {
	out := map[string]string{}
	for name, t := range s.all() {
		if blocked, reason := t.blocked(-1, time.Now()); blocked && reason != ReasonTargetBacklog {
			out[KindHTTP+":"+name] = reason
		}
	}
	return out
}

// Close ends the attempts that are on their way; whether they arrived is not known, and
// they are made again at the next start.
func (s *httpSink) Close(context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	for _, t := range s.all() {
		t.close()
	}
	s.work.Wait()
	return nil
}

// start runs f unless the sink is closed.
func (s *httpSink) start(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(f)
	}
}

// httpMetrics are the numbers of HTTP targets.
type httpMetrics struct {
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	waiting  *prometheus.GaugeVec
}

func newHTTPMetrics(reg prometheus.Registerer) *httpMetrics {
	m := &httpMetrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_http_attempts_total",
			Help: "Attempts to deliver to an HTTP target, by what came of them."}, []string{"sink", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "penstock_http_seconds",
			Help: "Time of one attempt, answered or not.", Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12)}, []string{"sink"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_http_queue",
			Help: "Requests in memory for an HTTP target; the rest of a backlog waits in the archive."}, []string{"sink"}),
	}
	reg.MustRegister(m.attempts, m.seconds, m.waiting)
	return m
}

// checkTarget holds a URL to what can be sent to.
func checkTarget(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("its url is not an http or https URL")
	}
	if u.User != nil || u.Fragment != "" {
		return nil, errors.New("its url holds a user name or a fragment")
	}
	return u, nil
}
