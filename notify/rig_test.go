package notify

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Store that outlives engines.
type memory struct {
	mu   sync.Mutex
	kept map[string][]byte
	fail bool
}

func (m *memory) Get(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.kept[key]
	return b, ok
}

func (m *memory) Put(key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail {
		return errors.New("the disk is away")
	}
	m.kept[key] = value
	return nil
}

// fakeLog gives what it holds and then waits.
type fakeLog struct {
	mu     sync.Mutex
	events []Event
	asked  []uint64 // where following began
}

func (l *fakeLog) Head() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.events))
}

func (l *fakeLog) add(ev Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ev.Seq = uint64(len(l.events) + 1)
	l.events = append(l.events, ev)
}

func (l *fakeLog) Follow(ctx context.Context, from uint64, _ Want, f func(*Event)) error {
	l.mu.Lock()
	l.asked = append(l.asked, from)
	l.mu.Unlock()
	for {
		l.mu.Lock()
		var next *Event
		if from < uint64(len(l.events)) {
			ev := l.events[from]
			next = &ev
		}
		l.mu.Unlock()
		if next == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
			continue
		}
		f(next)
		from++
	}
}

// rig is an engine whose clock, numbers and log are the test's. Nothing runs unless the
// test runs it.
type rig struct {
	t     *testing.T
	e     *Engine
	conf  Config
	store *memory
	log   *fakeLog
	mu    sync.Mutex
	now   time.Time
	stats Stats
	paid  Payments

	sinkless bool
}

// noon is a Wednesday.
var noon = time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)

func anywhere([]netip.Prefix) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext
}

func newRig(t *testing.T, rules ...Rule) *rig {
	r := &rig{t: t, store: &memory{kept: map[string][]byte{}}, log: &fakeLog{}, now: noon,
		conf: Config{Channels: []Channel{{Name: "ops", Kind: Slack, URL: "https://chat.example/T0/secret", PerMinute: 100}}, Rules: rules}}
	r.restart()
	return r
}

// restart is another life of the process: counters begin at zero.
func (r *rig) restart() {
	r.t.Helper()
	r.stats = Stats{Refused: map[SourceReason]float64{}, Failures: map[SourceReason]float64{}, Paid: map[string]float64{}}
	var err error
	if r.e, err = New(r.conf, Options{Log: r.log, Stats: func() Stats { return r.stats }, Payments: r.paid, Sinkless: func() bool { return r.sinkless }, Store: r.store, Dial: anywhere, Now: r.clock}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// after lets time pass and looks.
func (r *rig) after(d time.Duration) {
	r.mu.Lock()
	r.now = r.now.Add(d)
	r.mu.Unlock()
	r.e.tick(r.t.Context())
}

// stop ends this life as a stop does.
func (r *rig) stop() { r.e.save(true) }

func (r *rig) see(ev Event) {
	r.log.add(ev)
	ev.Seq = r.log.Head()
	r.e.observe(&ev)
}

// messages takes what waits for the channel.
func (r *rig) messages() (out []Message) {
	for _, m := range r.e.senders["ops"].take() {
		out = append(out, *m)
	}
	return out
}

// one wants a single message of that state with those words in its lines.
func (r *rig) one(state string, words ...string) Message {
	r.t.Helper()
	list := r.messages()
	if len(list) != 1 || list[0].State != state {
		r.t.Fatalf("want one message that says %s, got %+v", state, list)
	}
	text := strings.Join(list[0].Lines, "\n")
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Fatalf("%q is not in %q", w, text)
		}
	}
	return list[0]
}

func (r *rig) none() {
	r.t.Helper()
	if list := r.messages(); len(list) != 0 {
		r.t.Fatalf("want no message, got %+v", list)
	}
}

func (r *rig) refuse(source, reason string, n float64) {
	r.stats.Refused[SourceReason{source, reason}] += n
}
