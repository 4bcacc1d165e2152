// Package ingest is the edge: it takes one HTTP request, finds its source, has it
// verified, has it archived, and only then answers 2xx. It is the only package that
// touches fasthttp, and it knows nothing of Redis or Kafka.
//
// The order of a request: route, client address, allowlist, rate, verification
// (challenge or signature), archive, answer. Whatever cannot be stored is answered 503
// with Retry-After: never 2xx, never 4xx.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"penstock/archive"
)

// Defaults of Options. Their reasons stand at the fields.
const (
	DefaultPath          = "/in/{source}"
	DefaultMaxBodyBytes  = 10 << 20
	DefaultInFlightBytes = 256 << 20
	DefaultHeaderBytes   = 16 << 10
	DefaultMaxConns      = 16384
	DefaultMaxConnsPerIP = 1024
	DefaultReadTimeout   = 10 * time.Second
	DefaultIdleTimeout   = 60 * time.Second
	DefaultWriteTimeout  = 10 * time.Second
	DefaultDrainTimeout  = 8 * time.Second
	DefaultDrainLinger   = time.Second
)

// keepBodyBytes is the largest body buffer that a connection keeps between requests:
// fasthttp would keep the largest it ever needed, per connection, for good.
const keepBodyBytes = 32 << 10

// Archive is what the edge needs of the archive.
type Archive interface {
	// Append stores an accepted delivery or a challenge and returns when it is on stable
	// storage. It sets the delivery's ID.
	Append(d *archive.Delivery) error
	// Reject keeps a refused delivery, or counts it when refusals storm. It sets the ID
	// and does not wait for a sync.
	Reject(d *archive.Delivery) (kept bool, err error)
	// NoteStored and NoteAcked remember when that was, counted from the first byte. They
	// neither wait nor allocate.
	NoteStored(seq uint64, verified, archived time.Duration)
	NoteAcked(seq uint64, acked time.Duration)
}

// Options configure a Server. The zero value of a field means its default.
type Options struct {
	Listen         string         // address for Listen and Run: "127.0.0.1:8080"
	Path           string         // pattern of a source's path, "{source}" is its name; default DefaultPath
	PublicURL      string         // origin (and prefix) under which providers call; a source may have its own
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-For is believed; also free of MaxConnsPerIP
	ProxyProtocol  []netip.Prefix // peers that must open with a PROXY header; from others it is refused
	TLS            *TLS           // nil = plain HTTP

	MaxBodyBytes  int64 // largest body of a source without its own limit; default 10 MiB
	InFlightBytes int64 // sum of all bodies being read or handled; above it 503; default 256 MiB
	HeaderBytes   int   // request line and headers; above it 431; default 16 KiB
	MaxConns      int   // open connections; above it 503 and close; default 16384
	MaxConnsPerIP int   // of one address (IPv6: one /64); default 1024

	ReadTimeout  time.Duration // whole request from its first byte; default 10 s
	IdleTimeout  time.Duration // keep-alive connection without a request; default 60 s
	WriteTimeout time.Duration // an answer; default 10 s
	DrainTimeout time.Duration // Run: from the end of its context to the last closed connection; default 8 s
	DrainDelay   time.Duration // still accepting after OnDrain, for balancers that poll readiness; default 0
	DrainLinger  time.Duration // a drain closes a connection when it was silent for so long, a quarter of its time at most; default 1 s
	OnDrain      func()        // called first when a drain begins: readiness goes false here

	Logger     *zap.Logger           // nil = none
	Registerer prometheus.Registerer // nil = a private one
}

func (o *Options) setDefaults() {
	setDefault(&o.Path, DefaultPath)
	setDefault(&o.MaxBodyBytes, DefaultMaxBodyBytes)
	setDefault(&o.InFlightBytes, DefaultInFlightBytes)
	setDefault(&o.HeaderBytes, DefaultHeaderBytes)
	setDefault(&o.MaxConns, DefaultMaxConns)
	setDefault(&o.MaxConnsPerIP, DefaultMaxConnsPerIP)
	setDefault(&o.ReadTimeout, DefaultReadTimeout)
	setDefault(&o.IdleTimeout, DefaultIdleTimeout)
	setDefault(&o.WriteTimeout, DefaultWriteTimeout)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	setDefault(&o.DrainLinger, DefaultDrainLinger)
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
}

func setDefault[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// Server is the ingest edge. Its methods are safe for concurrent use.
type Server struct {
	opts    Options
	archive Archive
	log     *zap.Logger
	http    *fasthttp.Server
	table   atomic.Pointer[table]
	swap    sync.Mutex // orders SetSources calls
	budget  budget
	conns   connSet
	metrics *metrics
	refused refusedLog
	unknown unknownRing
	clock   clock
	tls     *certStore // nil = plain HTTP

	open     sync.Mutex // protects lns; draining is set under it
	lns      []*listener
	draining atomic.Bool
	drained  chan struct{} // closed when a drain begins
	waiting  atomic.Int64  // answers that wait for a sink
	readBy   atomic.Int64  // drain: unix ns after which no request is read any more; 0 = not yet
	handing  atomic.Bool   // the next process goes on with listener and idle connections
	left     leftConns     // the connections that it gets
}

// New makes a server without sources. It fails when an option cannot be right: a bad
// path pattern, an unreadable certificate, metrics that are registered already.
func New(o Options, a Archive) (*Server, error) {
	o.setDefaults()
	if a == nil {
		return nil, errors.New("ingest needs an archive")
	}
	if err := checkPattern(o.Path); err != nil {
		return nil, err
	}
	o.TrustedProxies, o.ProxyProtocol = plainPrefixes(o.TrustedProxies), plainPrefixes(o.ProxyProtocol)
	s := &Server{opts: o, archive: a, log: o.Logger, clock: newClock(), drained: make(chan struct{})}
	s.refused.log = o.Logger
	s.budget.limit = o.InFlightBytes
	s.conns.init(o.MaxConns, o.MaxConnsPerIP)
	s.table.Store(&table{})
	if o.TLS != nil {
		store, err := newCertStore(*o.TLS, o.Logger)
		if err != nil {
			return nil, err
		}
		s.tls = store
	}
	m, err := newMetrics(o.Registerer, s)
	if err != nil {
		return nil, err
	}
	s.metrics = m
	s.http = s.newHTTP()
	if err := checkOwner(); err != nil {
		return nil, err
	}
	return s, nil
}

// newHTTP sets what fasthttp must do differently from its defaults (libraries.md,
// section 5). What it cannot refuse itself (Content-Length with Transfer-Encoding,
// folded lines, odd targets and methods) headerReceived does.
func (s *Server) newHTTP() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:        s.handle,
		HeaderReceived: s.headerReceived,
		ExpectHandler:  s.expect,
		ErrorHandler:   s.readError,
		ConnState:      connState,
		Logger:         quietLogger{s},

		ReadBufferSize:     s.opts.HeaderBytes,
		ReadTimeout:        s.opts.ReadTimeout,
		IdleTimeout:        s.opts.IdleTimeout,
		WriteTimeout:       s.opts.WriteTimeout,
		MaxRequestBodySize: int(s.opts.MaxBodyBytes),
		// The listener refuses before this is reached, with our own answer; the distance
		// is for connections that are on their way out.
		Concurrency: s.opts.MaxConns + 1024,

		DisablePreParseMultipartForm: true, // else a multipart body is rewritten
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true, // a provider's answer carries what its definition says
		SecureErrorLogMessage:        true, // else headers stand in the log
		CloseOnShutdown:              true, // finish says so from the beginning of a drain
	}
}

// Listen opens Options.Listen.
func (s *Server) Listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", s.opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for deliveries on %s: %w", s.opts.Listen, err)
	}
	return ln, nil
}

// Serve takes connections from ln until Drain, which makes it return nil.
func (s *Server) Serve(ln net.Listener) error {
	s.open.Lock()
	if s.draining.Load() {
		s.open.Unlock()
		return ln.Close()
	}
	own := &listener{Listener: ln, srv: s}
	s.lns = append(s.lns, own)
	s.open.Unlock()
	if err := s.http.Serve(own); err != nil {
		return fmt.Errorf("serve deliveries on %s: %w", ln.Addr(), err)
	}
	return nil
}

// Run listens and serves until ctx ends, then drains within Options.DrainTimeout. It
// returns nil after a clean stop.
func (s *Server) Run(ctx context.Context) error {
	ln, err := s.Listen()
	if err != nil {
		return err
	}
	return s.RunOn(ctx, ln)
}

// RunOn is Run on a listener that is open already.
func (s *Server) RunOn(ctx context.Context, ln net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DrainTimeout)
	defer cancel()
	err := s.Drain(dctx)
	return errors.Join(err, <-served)
}

// Draining says that a drain has begun: readiness is false from then on.
func (s *Server) Draining() bool { return s.draining.Load() }
