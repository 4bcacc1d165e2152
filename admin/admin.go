// Package admin is what people and their tools look through: health, metrics, the
// deliveries API, the live stream and a page, on a listener of its own. It is plain
// net/http because nothing here is hot. It changes nothing by itself: replays, releases
// and pauses are asked of the interfaces that main fills.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"penstock/archive"
)

// Archive is what admin reads deliveries from; *archive.Archive is one.
type Archive interface {
	Query(ctx context.Context, f archive.Filter) (archive.Page, error)
	Counts(ctx context.Context, from, to time.Time, step time.Duration, source string) (archive.Counts, error)
	Row(id string) (archive.Row, error)
	Get(id string) (*archive.Delivery, error)
	OutcomesOf(id string) ([]archive.Outcome, error)
	FirstOutcomes(ids []string, fits func(*archive.Outcome) bool) ([]archive.Outcome, error)
	Times(id string, outcomes []archive.Outcome) archive.Steps
	Subscribe() (rows <-chan archive.TailRow, cancel func())
}

// Errors that the interfaces below answer with, wrapped with the reason in words: it is
// shown to the caller.
var (
	ErrNotFound    = errors.New("not found")                  // 404
	ErrConflict    = errors.New("not possible in this state") // 409
	ErrInvalid     = errors.New("not a valid request")        // 400
	ErrUnavailable = errors.New("temporarily not possible")   // 503
)

// Selection names deliveries: by id, or all that a filter finds. Of the filter, Limit is
// the most that are taken (0 = all) and Cursor is empty.
type Selection struct {
	IDs    []string
	Filter *archive.Filter
	Sink   string  // kafka or http, for a replay; "" = the gateway's first one
	Rate   float64 // events per second of a replay; 0 = as many as the sink says
}

// Job is a piece of work over many deliveries.
type Job struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`               // replay, reverify
	State      string     `json:"state"`              // queued, running, done, canceled, failed
	By         string     `json:"by"`                 // name of the token
	Query      string     `json:"query,omitempty"`    // the filter that chose what is replayed
	Delivery   string     `json:"delivery,omitempty"` // the delivery, where it is one
	Total      int64      `json:"total"`              // -1 while it is not known
	Done       int64      `json:"done"`
	Rate       float64    `json:"rate,omitempty"` // events per second at most
	Skipped    int64      `json:"skipped"`
	Failed     int64      `json:"failed"`
	Error      string     `json:"error,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// Replayer publishes again on purpose. Replay returns as soon as the job is kept.
type Replayer interface {
	Replay(ctx context.Context, s Selection, by string) (Job, error)
	Jobs(ctx context.Context) ([]Job, error)
	Job(ctx context.Context, id string) (Job, error)
	Cancel(ctx context.Context, id, by string) (Job, error)
}

// Verification is the answer of a re-verify.
type Verification struct {
	ID       string `json:"id"`
	Verdict  string `json:"verdict"` // by today's credentials, with the time of receipt as the clock
	Reason   string `json:"reason"`
	Released bool   `json:"released"`
	Forced   bool   `json:"forced"` // released although it does not verify
}

// Reverifier checks refused deliveries again and releases those that verify now; with
// force also those that do not.
type Reverifier interface {
	Reverify(ctx context.Context, id string, force bool, by string) (Verification, error)
	ReverifyAll(ctx context.Context, f archive.Filter, force bool, by string) (Job, error)
}

// Explained says why a delivery is refused, for a person to fix it. It holds no secret and
// no signature that would be right.
type Explained struct {
	ID           string   `json:"id"`
	Verdict      string   `json:"verdict"` // by today's credentials, with the time of receipt as the clock
	Reason       string   `json:"reason"`
	Where        string   `json:"where"`        // where the signature is looked for
	Template     string   `json:"template"`     // what is signed
	Fingerprints []string `json:"fingerprints"` // of the credentials that were tried
	Hints        []string `json:"hints"`        // what probably happened, and what to do
}

// Explainer explains refused deliveries.
type Explainer interface {
	Explain(ctx context.Context, id string) (Explained, error)
}

// SourceInfo is one configured source as it stands.
type SourceInfo struct {
	Name         string         `json:"name"`
	Provider     string         `json:"provider"`
	Path         string         `json:"path"`
	Paused       bool           `json:"paused"`
	Fingerprints []string       `json:"fingerprints,omitempty"` // of its secrets, never the secrets
	Secrets      []Secret       `json:"secrets,omitempty"`      // the same by name, with their ages
	Detail       map[string]any `json:"detail,omitempty"`       // whatever main knows more of
}

// Sources lists and pauses sources. Pausing holds publishing; deliveries are still taken.
type Sources interface {
	List(ctx context.Context) ([]SourceInfo, error)
	Pause(ctx context.Context, name, by string) error
	Resume(ctx context.Context, name, by string) error
	// Release publishes one delivery that a paused source holds, the others stay.
	Release(ctx context.Context, id, by string) error
}

// Eraser destroys the key of what a source sent in a month; what *archive.Archive does. The
// time is when that was done before.
type Eraser interface {
	EraseKey(source, month string) (before time.Time, err error)
}

// Health is what /readyz answers from.
type Health struct {
	Unready  error    // a delivery could not be taken now, and why; nil = ready
	Degraded []string // what is away but does not keep deliveries from being taken
}

// Options of New. Archive is required; nil interfaces answer 501.
type Options struct {
	Listen     string // address of the listener; decides whether a token is required
	Cores      int    // CPUs for all; searches use half. 0 = GOMAXPROCS
	TLS        *tls.Config
	Tokens     []Token
	OIDC       *OIDC  // nil = no single sign-on
	PublicURL  string // where browsers open the page, "" = at Listen
	Archive    Archive
	Replayer   Replayer
	Reverifier Reverifier
	Explainer  Explainer
	Sources    Sources
	Tenants    Tenants
	Eraser     Eraser
	Reader     Reader
	Helper     Helper
	State      func(ctx context.Context) State             // for the overview; nil = nothing is known
	MaskCards  func(text string) string                    // for viewers, in what no definition reads; nil = it is shown as it came
	Decimals   func(currency string) (places int, ok bool) // of minor units; nil = amounts are shown as they are
	Health     func() Health                               // nil = always ready
	Stats      func(ctx context.Context) map[string]any    // rendered as JSON; nil = {}
	Reload     func(ctx context.Context) error             // re-reads the config; nil = 501
	Audit      *Audit                                      // keeps who did what; nil = the process log alone
	Logger     *zap.Logger
	Gatherer   prometheus.Gatherer   // /metrics; nil = 501
	Registerer prometheus.Registerer // admin's own metrics
	Now        func() time.Time
	Version    string
}

// Limits of the listener. Requests are small and answers bounded by 500 rows or one
// body, so the times are what a slow line needs for a 10 MiB body.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxRequestBytes   = 1 << 20
	queryTimeout      = 20 * time.Second
	// maxConcurrent bounds requests being answered: each may hold a body in memory.
	maxConcurrent = 64
	maxScrapes    = 4
	// maxStreams bounds live streams; below the archive's 256 subscribers.
	maxStreams = 128
	// maxExports bounds tables being written: each reads as fast as its client takes.
	maxExports   = 2
	drainTimeout = 5 * time.Second
)

// Server serves the admin surfaces. It is safe for concurrent use.
type Server struct {
	o        Options
	log      *zap.Logger
	tokens   atomic.Pointer[[]secretToken]
	oidc     *oidcLogin // nil = no single sign-on
	sessions *sessions
	failures *failures
	handler  http.Handler
	pages    *template.Template
	routes   []route
	metrics  metrics
	slots    chan struct{}
	scrapes  chan struct{} // of the metrics, which everybody may ask for
	streams  chan struct{}
	hub      *hub
	lane     *lane // what Options.Archive is behind
	measured measuredSources
	gathered gatheredMetrics
	exports  chan struct{}
	closing  chan struct{} // closed when the server stops: streams end
	once     sync.Once

	writeTimeout time.Duration // a field for the test of streams, which it must not end
}

// New checks the options and builds the server. Without a token it only accepts a
// loopback address: who can reach it could read every payment.
func New(o Options) (*Server, error) {
	if o.Archive == nil {
		return nil, errors.New("admin needs an archive")
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	l := newLane(o.Archive, o.Cores)
	o.Archive = l
	s := &Server{o: o, lane: l, log: o.Logger, slots: make(chan struct{}, maxConcurrent), scrapes: make(chan struct{}, maxScrapes), streams: make(chan struct{}, maxStreams), exports: make(chan struct{}, maxExports),
		closing: make(chan struct{}), failures: newFailures(), hub: newHub(o.Archive), sessions: newSessions(), writeTimeout: writeTimeout}
	if o.OIDC != nil {
		s.oidc = newOIDC(*o.OIDC)
	}
	if err := s.SetTokens(o.Tokens); err != nil {
		return nil, err
	}
	var err error
	if s.pages, err = parsePages(s); err != nil {
		return nil, fmt.Errorf("BUG: the page's templates: %w", err)
	}
	s.routes = s.table()
	s.metrics = newMetrics(o.Registerer, s.routes)
	s.handler = s.build()
	return s, nil
}

// SetTokens replaces the tokens, as a reload does. Sessions of tokens that are gone end.
// On an error the old ones stay.
func (s *Server) SetTokens(tokens []Token) error {
	hashed, err := hashTokens(tokens)
	if err != nil {
		return err
	}
	if len(hashed) == 0 && s.oidc == nil && !loopback(s.o.Listen) {
		return fmt.Errorf("admin.listen %s is not a loopback address, and there is no token: anyone could read every delivery (set admin.tokens, or listen on 127.0.0.1)", s.o.Listen)
	}
	s.tokens.Store(&hashed)
	s.sessions.keep(hashed)
	return nil
}

// loopback reports whether only this machine reaches the address. A name other than
// localhost may mean anything and is none.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Handler is the whole server as a handler, for tests and for main.
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves on ln until ctx ends, then answers what is in flight for at most 5 s. It
// closes ln.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	if s.unguarded() && !loopback(ln.Addr().String()) {
		return errors.Join(fmt.Errorf("admin listener %s is not loopback and there is no token", ln.Addr()), ln.Close())
	}
	// Broken handshakes and the like: whoever scans the port must not fill the log.
	errorLog, err := zap.NewStdLogAt(s.log, zap.DebugLevel)
	if err != nil {
		return errors.Join(fmt.Errorf("make admin's error log: %w", err), ln.Close())
	}
	srv := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: s.writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: errorLog,
	}
	if s.o.TLS != nil {
		ln = tls.NewListener(ln, s.o.TLS)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		s.close()
		return fmt.Errorf("serve admin on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.close()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err = srv.Shutdown(drain)
	if err != nil {
		err = srv.Close() // what is still in flight after the time is cut off
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	if err != nil {
		return fmt.Errorf("stop admin on %s: %w", ln.Addr(), err)
	}
	return nil
}

func (s *Server) close() { s.once.Do(func() { close(s.closing) }) }
