// Package forward publishes what the archive holds: it reads the log at its cursor,
// asks dedupe, renders events, sends them to Kafka and writes what became of them.
//
// Nothing leaves the pump without a trace: every accepted delivery ends in an outcome
// per event (published, duplicate, dead, filtered; or held, until it is one of those),
// and the cursor never passes a record whose outcome is not synced. A crash at any
// point is a place in the log to start from.
package forward

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"penstock/archive"
)

// Keys of the pump in the archive's State.
const (
	sinkKey     = "sink/"  // + kind: the cluster's id, as it was last seen
	startKey    = "start/" // + kind: where a sink without a cursor begins
	pausePrefix = "pause/" // one key per paused source
)

// The kinds of sinks, as they stand in names of sinks and in metrics.
const (
	KindKafka = "kafka"
	KindHTTP  = "http"
)

// Pump is the way from the log to Kafka. All methods may be called at any time and
// from any goroutine; Run once.
type Pump struct {
	o    Options
	log  *zap.Logger
	met  *metrics
	sink sink
	kind string
	seed maphash.Seed

	sinkName string // "kafka:<cluster id>", "http:targets"; set before anything is read
	led      atomic.Pointer[ledger]
	control  chan func(*core)
	sendCtx  context.Context
	wg       sync.WaitGroup // lanes

	infoMu  sync.Mutex // protects infos, sources
	infos   map[uint64]infoEntry
	sources map[string]*sourceState

	known     known
	routeTold sync.Map // routes whose failure was logged

	stateMu sync.Mutex // protects what follows
	state   string     // what Stats says: starting, waiting for kafka, live, stopped
	paused  map[string]bool
	jobs    map[string]*job
	running bool
	heldN   int
	parkedN int
	keep    atomic.Uint64          // first seq that a restart would read; 0 = all
	changes atomic.Uint64          // of paused and of definitions
	awaits  atomic.Pointer[awaits] // nil: nobody waits for the sink
	safety  safety
}

// New returns a pump; nothing is read or sent before Run.
func New(o Options) (*Pump, error) {
	if o.Archive == nil || o.Dedupe == nil || o.Source == nil {
		return nil, errors.New("forward wants an archive, a deduper and a lookup of sources")
	}
	o.setDefaults()
	p := &Pump{o: o, log: o.Logger, seed: maphash.MakeSeed(), control: make(chan func(*core)),
		infos: map[uint64]infoEntry{}, sources: map[string]*sourceState{}, paused: map[string]bool{},
		jobs: map[string]*job{}, state: "starting", sink: o.sink, kind: KindKafka}
	if o.HTTP != nil {
		p.kind = KindHTTP
	}
	first := p.newLedger(0)
	first.tailed.Store(true) // it knows nothing yet: who asks waits for the one of Run
	p.led.Store(first)
	p.met = newMetrics(o.Registerer, p)
	st := o.Archive.State()
	st.Range(pausePrefix, func(key string, _ []byte) bool {
		p.paused[key[len(pausePrefix):]] = true
		return true
	})
	p.loadJobs(st)
	if p.sink == nil {
		s, err := p.newSink()
		if err != nil {
			return nil, err
		}
		p.sink = s
	}
	return p, nil
}

// Kind is the kind of the pump's sink: KindKafka or KindHTTP.
func (p *Pump) Kind() string { return p.kind }

// Unpublished is how many accepted deliveries have no final synced outcome.
func (p *Pump) Unpublished() int {
	n, _ := p.counted().unpublished()
	return n
}

// counted is the ledger when it has seen all that is synced now.
func (p *Pump) counted() *ledger {
	seq, patience := p.o.Archive.Synced(), catchUpFor
	p.stateMu.Lock()
	if p.state != stateLive {
		patience = startUpFor
	}
	p.stateMu.Unlock()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		led := p.led.Load()
		if led.caughtUp(seq) || time.Now().After(end) {
			return led
		}
	}
}

// How long who counts waits for what was synced to be counted. Where the log cannot be
// read, an old number is better than none. At the start the log is read from the cursor on,
// and "nothing" would be a lie about all that waits there.
const (
	catchUpFor = 100 * time.Millisecond
	startUpFor = 5 * time.Second
)

// stateLive is the state of a pump that publishes.
const stateLive = "live"

// OldestUnpublished is how long the oldest of them has waited.
func (p *Pump) OldestUnpublished() time.Duration {
	return p.counted().age(p.o.Archive, p.o.Now())
}

// Run publishes until ctx ends, then waits some seconds for what is in flight. An error
// means that the archive could not be read at the start; a Kafka that is away is none.
func (p *Pump) Run(ctx context.Context) error {
	p.stateMu.Lock()
	if p.running {
		p.stateMu.Unlock()
		return errors.New("the pump runs already")
	}
	p.running = true
	p.stateMu.Unlock()
	defer p.setState("stopped")
	st := p.o.Archive.State()
	// While Kafka is away the two metrics count already, from where the last life left.
	known, _ := st.Get(sinkKey + p.kind)
	from, err := p.begin(string(known))
	if err != nil {
		return err
	}
	tail := p.follow(ctx, from)
	p.setState("waiting for " + p.kind)
	cluster, err := p.open(ctx)
	if err != nil {
		tail()
		return nil // ctx ended
	}
	p.sinkName = p.kind + ":" + cluster
	if err := st.Commit(archive.Change{Key: sinkKey + p.kind, Value: []byte(cluster)}); err != nil {
		tail()
		return fmt.Errorf("keep the sink's name: %w", err)
	}
	return p.serve(ctx, cluster, tail)
}

// begin says from where the log must be scanned for a cluster.
func (p *Pump) begin(cluster string) (from cursor, err error) {
	st := p.o.Archive.State()
	cur, ok, err := loadCursor(st, p.kind+":"+cluster)
	if err != nil || ok {
		return cur, err
	}
	if b, ok := st.Get(startKey + p.kind); ok {
		_, err = fmt.Sscan(string(b), &cur.Seq)
		if err != nil {
			return cur, fmt.Errorf("read where the sink starts: %w", err)
		}
		if cluster != "" && p.o.Start == StartOldest {
			cur.Seq = 0 // another cluster than before gets everything that is kept
		}
		return cur, nil
	}
	if p.o.Start == StartNow {
		cur.Seq = p.o.Archive.Synced()
	}
	// Written down at once: "now" is the moment of the first start, not of the first ack.
	return cur, st.Commit(archive.Change{Key: startKey + p.kind, Value: fmt.Append(nil, cur.Seq)})
}

// scanFrom is the first seq whose record must be looked at.
func (c cursor) scanFrom() uint64 {
	from := c.Seq + 1
	if c.Held > 0 {
		from = min(from, c.Held)
	}
	return from
}

// follow keeps a ledger up to date until the returned function is called.
func (p *Pump) follow(ctx context.Context, from cursor) (stop func()) {
	led := p.newLedger(from.scanFrom())
	led.held = nil
	led.tailed.Store(true)
	p.led.Store(led)
	rd := p.o.Archive.Reader(from.scanFrom())
	skim(rd, true, true)
	return p.tail(ctx, led, rd)
}

func (p *Pump) tail(ctx context.Context, led *ledger, rd Reader) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	led.tailed.Store(true)
	go func() {
		defer close(done)
		defer rd.Close()
		defer led.tailed.Store(false)
		for {
			r, err := rd.Next(ctx)
			for ok := err == nil; ok; {
				led.add(&r)
				r, ok, err = rd.TryNext()
			}
			switch {
			case err == nil:
				led.pause(ctx)
			case ctx.Err() != nil || errors.Is(err, archive.ErrClosed):
				return
			default:
				p.log.Warn("counting what is not published stumbles", zap.Error(err))
				sleepCtx(ctx, 100*time.Millisecond)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// open waits for Kafka, however long that takes.
func (p *Pump) open(ctx context.Context) (string, error) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		id, err := p.sink.Open(ctx)
		if err == nil {
			return id, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		p.setState(err.Error())
		p.log.Error(p.kind+" does not open, will try again", zap.Error(err))
		sleepCtx(ctx, pause)
	}
}

// serve resolves what the last life left and goes live.
// counting ends the count that went on until now, when another has taken over.
func (p *Pump) serve(ctx context.Context, cluster string, counting func()) error {
	defer func() { counting() }()
	cur, err := p.begin(cluster)
	if err != nil {
		return err
	}
	sendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p.sendCtx = sendCtx
	led := p.newLedger(cur.scanFrom())
	scan := p.o.Archive.Reader(cur.scanFrom())
	skim(scan, true, true)
	scanEnd := p.o.Archive.Synced()
	if err := led.scan(ctx, scan, scanEnd); err != nil {
		scan.Close()
		return quiet(ctx, err)
	}
	led.tailed.Store(true)
	p.led.Store(led)
	held := led.takeHeld(cur.Seq)
	// The same reader goes on as the tail that counts.
	stopTail := p.tail(ctx, led, scan)
	defer stopTail()
	counting()
	counting = func() {}
	if err := p.recover(ctx, led); err != nil {
		return quiet(ctx, err)
	}
	if err := p.remake(ctx, cur); err != nil {
		return quiet(ctx, err)
	}
	p.keep.Store(cur.scanFrom())
	c := newCore(ctx, p)
	c.saved, c.lastSave, c.read = cur, cur, cur.Seq
	c.lastSave.Confirmed = 0
	c.restore(held)
	p.live(ctx, c, cur, scanEnd)
	cancel()
	p.wg.Wait()
	closing, end := context.WithTimeout(context.WithoutCancel(ctx), p.o.grace)
	defer end()
	if err := p.sink.Close(closing); err != nil {
		p.log.Warn("sink closed with work in flight; the next start resolves it", zap.Error(err))
	}
	return nil
}

// live runs the reader, the committer, the jobs and the core until ctx ends.
func (p *Pump) live(ctx context.Context, c *core, cur cursor, scanEnd uint64) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	reads := make(chan readBatch, 1)
	inner, cancel := context.WithCancel(ctx)
	wg.Go(func() { p.reader(inner, reads, cur.Seq+1, scanEnd) })
	wg.Go(func() { p.committer(c, stop) })
	wg.Go(func() { p.runJobs(inner) })
	if p.kind == KindKafka {
		wg.Go(func() { p.watchRegressions(inner) })
		wg.Go(func() { p.watchSafety(inner) })
	}
	p.setState(stateLive)
	p.log.Info("publishing", zap.String("sink", p.sinkName), zap.Uint64("cursor", cur.Seq), zap.Int("unpublished", p.Unpublished()))
	c.run(reads)
	cancel()
	close(stop)
	wg.Wait()
}

func (p *Pump) setState(s string) {
	p.stateMu.Lock()
	p.state = s
	p.stateMu.Unlock()
}

func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func sleepCtx(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// heldRef is an event that the log says is held.
type heldRef struct {
	ref ref
	at  heldAt
}

// takeHeld ends the scan and returns what is held, oldest outcome first. Events of a
// delivery below the cursor that have no outcome at all are among them: it was held
// unread and only some of its events came through afterwards.
func (l *ledger) takeHeld(below uint64) []heldRef {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held
	l.held = nil
	out := make([]heldRef, 0, len(h.at))
	for r, at := range h.at {
		out = append(out, heldRef{r, at})
	}
	for seq, states := range l.multi {
		for i, s := range states {
			if seq <= below && s == stateNone {
				h.n++
				out = append(out, heldRef{ref{seq, i}, heldAt{gate: gateKey{gateSource, h.source[seq], -1}, nth: h.n}})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].at.nth < out[j].at.nth })
	return out
}
