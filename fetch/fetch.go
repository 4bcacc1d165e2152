// Package fetch brings what providers publish for those who verify: key sets and
// certificates. It asks hosts of an allowlist over https only, never an address inside a
// private network, within limits of size, time and number, and it keeps what it once got,
// in memory and on disk, so that a provider that is away does not stop deliveries.
package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// The bounds. A delivery may wait for one exchange, and no provider waits less than 5 s.
const (
	exchangeTimeout = 4 * time.Second
	maxDocument     = 128 << 10
	minLife         = 5 * time.Minute // however short Cache-Control says
	maxLife         = 24 * time.Hour
	defaultLife     = time.Hour
	maxStale        = 7 * 24 * time.Hour // served for so long while the provider is away
	minRefresh      = 30 * time.Second   // between two looks for a key that the kept set lacks
	maxBackoff      = time.Minute
	maxKept         = 512  // documents
	maxAsked        = 1024 // entries with those that never came
	maxExchanges    = 8    // at one time
	idleAfter       = 48 * time.Hour
)

// newPerSecond and newBurst bound how often documents that were never seen may be asked
// for at one host: their addresses come out of deliveries, so a stranger makes them up.
const (
	newPerSecond = 0.5
	newBurst     = 10
)

// Options are the fetcher's surroundings. The zero value keeps documents in memory only.
type Options struct {
	// Dir is where documents are kept; it is made.
	Dir string
	// Check says whether a document is worth keeping: an error page must not take the
	// place of good keys. nil = every document is.
	Check      func(doc []byte) error
	Logger     *zap.Logger
	Registerer prometheus.Registerer

	// Dial and RootCAs stand in for the network in tests; the guard of addresses is in the
	// dialer that Dial replaces.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	RootCAs *x509.CertPool
	Now     func() time.Time
}

// Fetcher keeps published documents. It is safe for concurrent use.
type Fetcher struct {
	o         Options
	log       *zap.Logger
	transport *http.Transport
	room      chan struct{}
	asked     *prometheus.CounterVec

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	entries map[string]*entry
	budget  map[string]*rate.Limiter
}

// entry is one document: what was got, and how the asking goes.
type entry struct {
	question
	doc       []byte // nil = never had
	fetched   time.Time
	refreshAt time.Time
	used      time.Time
	pinned    bool

	flight   chan struct{} // closed when the exchange under way ends
	failures int
	retryAt  time.Time
	err      error
}

// question is what is asked, and within which hosts.
type question struct {
	key   string
	url   string
	post  []byte // of a POST; nil = GET
	hosts hosts
	host  string // the pattern that allowed it: the label and the budget
}

// New makes a fetcher and reads what an earlier one kept.
func New(o Options) (*Fetcher, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Fetcher{
		o: o, log: o.Logger, transport: newTransport(o), room: make(chan struct{}, maxExchanges),
		entries: map[string]*entry{}, budget: map[string]*rate.Limiter{},
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_key_fetches_total",
			Help: "Requests for keys and certificates that providers publish, by host and result (ok, failed, bad_document).",
		}, []string{"host", "result"}),
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	if o.Registerer != nil {
		kept := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_key_documents", Help: "Published keys and certificates that are kept."}, f.kept)
		for _, c := range []prometheus.Collector{f.asked, kept} {
			if err := o.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("register the metrics of fetched keys: %w", err)
			}
		}
	}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Fetcher) kept() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, e := range f.entries {
		if e.doc != nil {
			n++
		}
	}
	return float64(n)
}

// Run renews documents before they are too old, until ctx ends.
func (f *Fetcher) Run(ctx context.Context) error {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		f.renew()
		select {
		case <-ctx.Done():
			f.Close()
			return nil
		case <-tick.C:
		}
	}
}

// Close ends what is under way. What is kept stays on disk.
func (f *Fetcher) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.wg.Wait()
	f.transport.CloseIdleConnections()
}

// renew starts an exchange for every document that is due and in use.
func (f *Fetcher) renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.o.Now()
	for _, e := range f.entries {
		if e.hosts != nil && (e.pinned || e.doc != nil && now.Sub(e.used) < idleAfter) {
			f.freshen(e, now)
		}
	}
}

// freshen starts an exchange in the background where one is due and allowed.
func (f *Fetcher) freshen(e *entry, now time.Time) {
	if e.flight == nil && (e.doc == nil || !now.Before(e.refreshAt)) && !now.Before(e.retryAt) {
		f.fly(e)
	}
}

// get gives the document, from what is kept where that will do. newer asks for one that
// is at most minRefresh old.
func (f *Fetcher) get(q question, newer bool) ([]byte, error) {
	f.mu.Lock()
	now := f.o.Now()
	e := f.entry(q, now)
	age := now.Sub(e.fetched)
	if e.doc != nil && age < maxStale && (!newer || age < minRefresh) {
		f.freshen(e, now)
		doc := e.doc
		f.mu.Unlock()
		return doc, nil
	}
	if e.flight == nil {
		if err := f.mayAsk(e, now); err != nil {
			f.mu.Unlock()
			return nil, err
		}
		f.fly(e)
	}
	flight := e.flight
	f.mu.Unlock()
	<-flight
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.err != nil {
		return nil, e.err
	}
	return e.doc, nil
}

func (f *Fetcher) mayAsk(e *entry, now time.Time) error {
	switch {
	case f.closed:
		return errors.New("stopping")
	case now.Before(e.retryAt):
		return fmt.Errorf("asked a moment ago: %w", e.err)
	case e.doc == nil && !e.pinned && !f.budgetOf(e.host).AllowN(now, 1):
		return fmt.Errorf("too many new documents were asked of %s", e.host)
	}
	return nil
}

func (f *Fetcher) budgetOf(host string) *rate.Limiter {
	l := f.budget[host]
	if l == nil {
		l = rate.NewLimiter(newPerSecond, newBurst)
		f.budget[host] = l
	}
	return l
}

// entry finds or makes q's place; with mu.
func (f *Fetcher) entry(q question, now time.Time) *entry {
	e := f.entries[q.key]
	if e == nil {
		if len(f.entries) >= maxAsked {
			f.evict(func(e *entry) bool { return e.doc == nil })
		}
		e = &entry{}
		f.entries[q.key] = e
	}
	e.question, e.used = q, now
	return e
}

// evict drops the entry of the kind that was not used for the longest time; with mu.
func (f *Fetcher) evict(kind func(*entry) bool) {
	var oldest *entry
	for _, e := range f.entries {
		if !e.pinned && e.flight == nil && kind(e) && (oldest == nil || e.used.Before(oldest.used)) {
			oldest = e
		}
	}
	if oldest != nil {
		delete(f.entries, oldest.key)
		f.unlink(oldest.key)
	}
}

// fly starts the one exchange of e; with mu. Whoever needs it waits for the same one.
func (f *Fetcher) fly(e *entry) {
	if f.closed {
		return
	}
	done := make(chan struct{})
	e.flight = done
	q := e.question
	f.wg.Go(func() {
		doc, life, err := f.exchange(q)
		f.land(e, doc, life, err)
		close(done)
	})
}

// land takes what came of an exchange.
func (f *Fetcher) land(e *entry, doc []byte, life time.Duration, err error) {
	f.mu.Lock()
	now := f.o.Now()
	e.flight, e.err = nil, err
	if err != nil {
		e.failures++
		e.retryAt = now.Add(backoff(e.failures))
		had := e.doc != nil
		f.mu.Unlock()
		f.log.Warn("a provider's published keys could not be fetched", zap.String("url", e.url), zap.Bool("kept_ones_serve", had), zap.Error(err))
		return
	}
	if e.doc == nil {
		kept := func(e *entry) bool { return e.doc != nil }
		if n := f.count(kept); n >= maxKept {
			f.evict(kept)
		}
	}
	e.doc, e.fetched, e.refreshAt, e.failures, e.retryAt = doc, now, now.Add(life*3/4), 0, time.Time{}
	saved := *e
	f.mu.Unlock()
	if err := f.save(&saved); err != nil {
		f.log.Warn("a provider's published keys could not be kept on disk", zap.String("url", e.url), zap.Error(err))
	}
}

func (f *Fetcher) count(kind func(*entry) bool) (n int) {
	for _, e := range f.entries {
		if kind(e) {
			n++
		}
	}
	return n
}

func backoff(failures int) time.Duration {
	if failures > 6 {
		return maxBackoff
	}
	return min(time.Second<<failures, maxBackoff)
}

// keyOf names a question without showing what a POST carries.
func keyOf(url string, post []byte) string {
	h := sha256.New()
	h.Write([]byte(url))
	if post != nil {
		h.Write([]byte{0})
		h.Write(post)
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}
