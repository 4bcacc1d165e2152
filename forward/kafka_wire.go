package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

const (
	dialTimeout = 5 * time.Second
	// callTimeout bounds a request whose context has no deadline.
	callTimeout = 30 * time.Second
	// idleTimeout is below the brokers' connections.max.idle.ms (10 min): a
	// connection that the broker is about to close must not be picked.
	idleTimeout = 4 * time.Minute
)

// wire speaks to brokers by address. kafka-go's Transport picks the broker from a
// layout that it refreshes by a timer only, and looks for a transaction coordinator
// before InitProducerId; here the caller says where a request goes. A connection
// carries one request at a time, so requests of one broker do not wait for each other.
type wire struct {
	tls      *tls.Config
	sasl     sasl.Mechanism
	clientID string
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)

	mu     sync.Mutex // guards what follows
	idle   map[string][]*wireConn
	all    map[*wireConn]struct{}
	closed bool
}

// wireConn is one connection to one broker.
type wireConn struct {
	*protocol.Conn
	addr    string
	newest  map[protocol.ApiKey]int16 // newest version of each API that the broker speaks
	used    time.Time                 // when its last answer came
	expires time.Time                 // when the SASL session ends; zero: never
}

// errUnsent says that a request failed before a byte of it was sent.
var errUnsent = errors.New("nothing was sent")

// negotiated is a message that kafka-go does not know in the version that we need
// and that is told what the broker speaks.
type negotiated interface{ negotiate(newest int16) }

func newWire(o KafkaOptions) (*wire, error) {
	w := &wire{
		tls:      o.TLS,
		clientID: o.ClientID,
		dial:     (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		idle:     map[string][]*wireConn{},
		all:      map[*wireConn]struct{}{},
	}
	if o.SASL == nil {
		return w, nil
	}
	var err error
	switch o.SASL.Mechanism {
	case "PLAIN":
		w.sasl = plain.Mechanism{Username: o.SASL.Username, Password: o.SASL.Password}
	case "SCRAM-SHA-256":
		w.sasl, err = scram.Mechanism(scram.SHA256, o.SASL.Username, o.SASL.Password)
	case "SCRAM-SHA-512":
		w.sasl, err = scram.Mechanism(scram.SHA512, o.SASL.Username, o.SASL.Password)
	default:
		return nil, fmt.Errorf("sasl mechanism %q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", o.SASL.Mechanism)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare sasl %s for user %q: %w", o.SASL.Mechanism, o.SASL.Username, err)
	}
	return w, nil
}

// roundTrip sends a request to the broker at addr and returns its answer. After an
// error nobody knows whether the broker has acted on the request.
func (w *wire) roundTrip(ctx context.Context, addr string, req protocol.Message) (protocol.Message, error) {
	c, err := w.take(ctx, addr)
	if err != nil {
		return nil, err
	}
	if n, ok := req.(negotiated); ok {
		n.negotiate(c.newest[req.ApiKey()])
	}
	res, err := c.call(ctx, req)
	if err != nil {
		w.drop(c)
		return nil, fmt.Errorf("ask %s of kafka broker %s: %w", req.ApiKey(), addr, err)
	}
	w.give(c)
	return res, nil
}

// call is one request and its answer, ended by the context.
func (c *wireConn) call(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callTimeout)
	}
	_ = c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	res, err := c.RoundTrip(req)
	if !stop() && err == nil {
		err = context.Cause(ctx) // the deadline is spoilt: the connection must go
	}
	return res, err
}

func (w *wire) take(ctx context.Context, addr string) (*wireConn, error) {
	now := time.Now()
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil, ErrProducerClosed
	}
	for list := w.idle[addr]; len(list) > 0; list = w.idle[addr] {
		c := list[len(list)-1]
		w.idle[addr] = list[:len(list)-1]
		if now.Sub(c.used) < idleTimeout && (c.expires.IsZero() || now.Before(c.expires)) {
			w.mu.Unlock()
			return c, nil
		}
		delete(w.all, c)
		_ = c.Close()
	}
	w.mu.Unlock()
	return w.connect(ctx, addr)
}

// give puts a connection back for the next request.
func (w *wire) give(c *wireConn) {
	c.used = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		delete(w.all, c)
		_ = c.Close()
		return
	}
	w.idle[c.addr] = append(w.idle[c.addr], c)
}

// drop closes a connection that failed, and the idle ones to the same broker: when a
// broker restarts all of them are dead, and each would cost an attempt.
func (w *wire) drop(c *wireConn) {
	w.mu.Lock()
	dead := append(w.idle[c.addr], c)
	delete(w.idle, c.addr)
	for _, d := range dead {
		delete(w.all, d)
	}
	w.mu.Unlock()
	for _, d := range dead {
		_ = d.Close()
	}
}

// close ends all connections, those in use too.
func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	all := w.all
	w.all, w.idle = map[*wireConn]struct{}{}, map[string][]*wireConn{}
	w.mu.Unlock()
	for c := range all {
		_ = c.Close()
	}
}

func (w *wire) connect(ctx context.Context, addr string) (*wireConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := w.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to kafka broker %s: %w: %w", addr, errUnsent, err)
	}
	c, err := w.greet(ctx, nc, addr)
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("greet kafka broker %s: %w: %w", addr, errUnsent, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = c.Close()
		return nil, ErrProducerClosed
	}
	w.all[c] = struct{}{}
	return c, nil
}

// greet makes the connection ready: TLS, API versions, login.
func (w *wire) greet(ctx context.Context, nc net.Conn, addr string) (*wireConn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if w.tls != nil {
		cfg := w.tls
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("tls handshake: %w", err)
		}
		nc = tc
	}
	c := &wireConn{Conn: protocol.NewConn(nc, w.clientID), addr: addr, used: time.Now()}
	res, err := c.call(ctx, new(apiversions.Request))
	if err != nil {
		return nil, fmt.Errorf("negotiate api versions: %w", err)
	}
	versions := res.(*apiversions.Response)
	if err := codeError(versions.ErrorCode, ""); err != nil {
		return nil, fmt.Errorf("negotiate api versions: %w", err)
	}
	picked := make(map[protocol.ApiKey]int16, len(versions.ApiKeys))
	c.newest = make(map[protocol.ApiKey]int16, len(versions.ApiKeys))
	for _, k := range versions.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		picked[key] = key.SelectVersion(k.MinVersion, k.MaxVersion)
		c.newest[key] = k.MaxVersion
	}
	c.SetVersions(picked)
	if w.sasl == nil {
		return c, nil
	}
	if err := c.login(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host}), w.sasl); err != nil {
		return nil, fmt.Errorf("log in by sasl %s: %w", w.sasl.Name(), err)
	}
	return c, nil
}

func (c *wireConn) login(ctx context.Context, mech sasl.Mechanism) error {
	res, err := c.call(ctx, &saslhandshake.Request{Mechanism: mech.Name()})
	if err != nil {
		return err
	}
	if h := res.(*saslhandshake.Response); h.ErrorCode != 0 {
		return fmt.Errorf("%w (the broker offers %v)", kafka.Error(h.ErrorCode), h.Mechanisms)
	}
	session, token, err := mech.Start(ctx)
	if err != nil {
		return err
	}
	for done := false; !done; {
		res, err := c.call(ctx, &saslauthenticate.Request{AuthBytes: token})
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return kafka.SASLAuthenticationFailed // old brokers just hang up
		}
		if err != nil {
			return err
		}
		a := res.(*saslauthenticate.Response)
		if err := codeError(a.ErrorCode, a.ErrorMessage); err != nil {
			return err
		}
		if a.SessionLifetimeMs > 0 {
			// KIP-368: the broker hangs up when a session has ended. We log in anew on
			// another connection well before.
			c.expires = time.Now().Add(time.Duration(a.SessionLifetimeMs) * time.Millisecond * 8 / 10)
		}
		if done, token, err = session.Next(ctx, a.AuthBytes); err != nil {
			return err
		}
	}
	return nil
}
