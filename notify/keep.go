package notify

import (
	"encoding/json"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Keys of the store.
const (
	keyState   = "notify/state"
	keyCadence = "notify/cadence"
)

// kept is what outlives the process: how far the log was read, what fires, what waits.
type kept struct {
	Position uint64                `json:"position"`
	Learn    uint64                `json:"learn"`
	Rules    map[string]*keptRule  `json:"rules"`
	Waiting  map[string][]*Message `json:"waiting"` // by channel
}

type keptRule struct {
	When string `json:"when"`
	ruleState
}

// How often what has changed is kept. A crash between sending and keeping repeats a
// message under the same id; it never loses one.
const (
	keepEvery    = 5 * time.Second
	cadenceEvery = 5 * time.Minute
)

// restore reads what the last life kept. What cannot be read is as if it were not there.
func (e *Engine) restore() {
	if e.o.Store == nil {
		return
	}
	var k kept
	if b, ok := e.o.Store.Get(keyState); ok {
		if err := json.Unmarshal(b, &k); err != nil {
			e.log.Error("what notifications had kept cannot be read; they begin anew", zap.Error(err))
			k = kept{}
		}
	}
	e.position, e.learn = k.Position, k.Learn
	for name, s := range k.Rules {
		r := newRule(Rule{Name: name, When: s.When})
		if s.Alerts == nil {
			s.Alerts = r.state.Alerts
		}
		if s.Windows == nil {
			s.Windows = r.state.Windows
		}
		r.state = &s.ruleState
		e.rules = append(e.rules, r)
	}
	for name, list := range k.Waiting {
		e.senders[name] = &sender{queue: list}
	}
	if b, ok := e.o.Store.Get(keyCadence); ok {
		if err := json.Unmarshal(b, &e.cadence); err != nil || e.cadence == nil {
			e.log.Error("what was usual for the sources cannot be read; it is learned anew", zap.Error(err))
			e.cadence = map[string]*cadence{}
		}
	}
}

// save keeps what has changed, at most every few seconds; last: now.
func (e *Engine) save(last bool) {
	if e.o.Store == nil {
		return
	}
	e.mu.Lock()
	now := e.o.Now()
	due := now.Sub(e.saved) >= keepEvery
	if !last && !due || !e.dirty && !last && e.positionKept() {
		e.mu.Unlock()
		return
	}
	k := kept{Position: e.position, Learn: e.learn, Rules: map[string]*keptRule{}, Waiting: map[string][]*Message{}}
	for _, r := range e.rules {
		k.Rules[r.Name] = &keptRule{r.When, *r.state}
	}
	for name, s := range e.senders {
		for _, m := range s.copies() {
			k.Waiting[name] = append(k.Waiting[name], &m)
		}
	}
	state, err := json.Marshal(k)
	var cadence []byte
	if err == nil && (last || now.Sub(e.learned) >= cadenceEvery) && len(e.cadence) > 0 {
		cadence, err = json.Marshal(e.cadence)
		e.learned = now
	}
	e.saved, e.dirty, e.keptAt = now, false, e.position
	e.mu.Unlock()
	if err == nil {
		err = e.o.Store.Put(keyState, state)
	}
	if err == nil && cadence != nil {
		err = e.o.Store.Put(keyCadence, cadence)
	}
	if err != nil {
		e.touch()
		e.log.Warn("what notifications know cannot be kept, will try again", zap.Error(err))
	}
}

// positionKept says whether the log has gone on since the last time. The caller holds mu.
func (e *Engine) positionKept() bool { return e.keptAt == e.position }

// metrics of the package; labels come from the configuration.
type metrics struct {
	sent *prometheus.CounterVec
}

// begin makes a channel's counters: of one that begins at 1 Prometheus does not see that it
// grew, and an alert would miss the first failure.
func (m *metrics) begin(channel string) {
	for _, result := range []string{"sent", "retried", "failed", "dropped"} {
		m.sent.WithLabelValues(channel, result)
	}
}

func newMetrics(reg prometheus.Registerer, e *Engine) *metrics {
	m := &metrics{sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_notifications_total",
		Help: "Notifications by channel and result (sent, retried, failed, dropped)."}, []string{"channel", "result"})}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.sent,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_notifications_waiting", Help: "Notifications that no channel has taken yet."}, func() float64 {
			e.mu.Lock()
			defer e.mu.Unlock()
			n := 0
			for _, s := range e.senders {
				n += s.waiting()
			}
			return float64(n)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_notify_alerts", Help: "Things that a rule of notify finds wrong now."}, func() float64 {
			e.mu.Lock()
			defer e.mu.Unlock()
			n := 0
			for _, r := range e.rules {
				n += len(r.state.Alerts)
			}
			return float64(n)
		}))
	return m
}
