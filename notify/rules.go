package notify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/expression"
)

// rule is a Rule in force with what it has seen.
type rule struct {
	Rule
	state *ruleState

	where      *expression.Program // nil: every event
	whereReads bool                // it looks at what an outcome lacks
	whereTold  bool                // that it fails
}

// ruleState is what a rule keeps over a restart.
type ruleState struct {
	Alerts  map[string]*alert  `json:"alerts,omitempty"`
	Windows map[string]*window `json:"windows,omitempty"`
	Group   *group             `json:"group,omitempty"`  // event: what waits to be told together
	Scanned time.Time          `json:"scanned,omitzero"` // uncaptured: authorizations up to here were looked at
}

// alert is one thing that is wrong, by source, payment or for the gateway as a whole.
type alert struct {
	Since    time.Time `json:"since"`
	Told     time.Time `json:"told,omitzero"` // zero: not yet
	Line     string    `json:"line"`
	Count    int       `json:"count"`
	Delivery string    `json:"delivery,omitempty"`
	Payment  *Payment  `json:"payment,omitempty"`
	over     bool      // it has ended, and is told first
}

// group is a number of events that become one message.
type group struct {
	First    time.Time `json:"first"`
	Count    int       `json:"count"`
	Lines    []string  `json:"lines"`
	Delivery string    `json:"delivery"` // of the first
}

// Bounds of what one rule remembers.
const (
	maxAlerts  = 1000
	maxWindows = 2000
	maxLines   = 10
)

func newRule(r Rule) *rule {
	out := &rule{Rule: r, state: &ruleState{Alerts: map[string]*alert{}, Windows: map[string]*window{}}}
	out.compileWhere()
	return out
}

// follows says whether the rule looks at the log.
func (r *rule) follows() bool {
	return r.When == WhenEvent || r.When == WhenSilence || r.When == WhenRepeats || r.When == WhenDeclines
}

func (r *rule) about(source string) bool {
	return len(r.Sources) == 0 || slices.Contains(r.Sources, source)
}

func (r *rule) counts(reason string) bool {
	return len(r.Reasons) == 0 || slices.Contains(r.Reasons, reason)
}

// like compares with a pattern that may end in *.
func like(pattern, value string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, begin)
	}
	return pattern == value
}

// fields are what match may name.
var fields = map[string]func(*Event) string{
	"provider": func(e *Event) string { return e.Provider }, "tenant": func(e *Event) string { return e.Tenant },
	"type": func(e *Event) string { return e.Type }, "event_type": func(e *Event) string { return e.EventType },
	"status": func(e *Event) string { return e.Status }, "currency": func(e *Event) string { return e.Currency },
	"order_id": func(e *Event) string { return e.OrderID }, "payment_id": func(e *Event) string { return e.PaymentID },
	"livemode": func(e *Event) string { return e.Livemode }, "outcome": func(e *Event) string { return e.Outcome },
}

// wants says whether an event rule is about the event. What costs a read comes last.
func (e *Engine) wants(r *rule, ev *Event) bool {
	if ev.Outcome == "" || ev.Outcome == "duplicate" || ev.Outcome == "held" {
		return false
	}
	if _, asked := r.Match["outcome"]; !asked && ev.Outcome == "filtered" {
		return false
	}
	typed := len(r.Types) == 0
	for _, t := range r.Types {
		typed = typed || like(t, ev.Type) || like(t, ev.EventType)
	}
	if !typed {
		return false
	}
	for name, pattern := range r.Match {
		if !inDelivery[name] && !like(pattern, fields[name](ev)) {
			return false
		}
	}
	if !r.whereReads && !e.holds(r, ev) {
		return false
	}
	ev.complete()
	if r.whereReads && !e.holds(r, ev) {
		return false
	}
	for name, pattern := range r.Match {
		if inDelivery[name] && !like(pattern, fields[name](ev)) {
			return false
		}
	}
	return r.about(ev.Source)
}

// inDelivery are the fields that an outcome lacks.
var inDelivery = map[string]bool{"provider": true, "tenant": true}

// complete fills in what was not read yet.
func (ev *Event) complete() {
	if ev.More != nil {
		ev.More(ev)
		ev.More = nil
	}
}

// observe takes one event of the log, and what else its delivery tells.
func (e *Engine) observe(ev *Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := ev.Outcome == "" || ev.Outcome == Kept
	e.told.mark(ev)
	e.told.reached(ev.Seq >= e.position)
	if ev.Seq <= e.position { // read again, to know what came before
		return
	}
	e.position = ev.Seq
	if heard {
		e.heard(ev)
	}
	if ev.Outcome == "" || ev.Seq <= e.learn {
		return
	}
	now := e.o.Now()
	e.judgeEvent(ev, now)
	for _, other := range ev.Others {
		e.judgeEvent(other, now)
	}
}

// judgeEvent shows one event to the rules.
func (e *Engine) judgeEvent(ev *Event, now time.Time) {
	for _, r := range e.rules {
		switch {
		case r.When == WhenEvent && e.wants(r, ev):
			e.collect(r, ev, now)
		case r.When == WhenDeclines && ev.Outcome == Kept && r.about(ev.Source):
			e.countKept(r, ev, now)
		case r.When == WhenRepeats && ev.Outcome == "duplicate" && ev.Item == 0: // of several events one delivery came again
			ev.complete()
			if r.about(ev.Source) {
				r.window(ev.Source).add(now, r.Within, 1)
				e.dirty = true
			}
		}
	}
}

// countKept counts payments where no sink counts them.
func (e *Engine) countKept(r *rule, ev *Event, now time.Time) {
	if now.Sub(ev.At) >= r.Within { // it came while we were not there
		return
	}
	what := ""
	switch {
	case ev.Failure != "":
		what = ev.Failure
	case ev.Type == "payment.authorized":
		what = authorized
	case ev.Type != "payment.captured":
		return
	}
	r.window(ev.Source+"|"+what).add(now, r.Within, 1)
	e.dirty = true
}

// authorized stands where a reason of failure does in a window's key; "" is a payment that was
// captured.
const authorized = "+authorized"

// collect puts an event to those that are told together.
func (e *Engine) collect(r *rule, ev *Event, now time.Time) {
	g := r.state.Group
	if g == nil {
		g = &group{First: now, Delivery: ev.Delivery}
		r.state.Group = g
	}
	if g.Count++; len(g.Lines) < maxLines {
		g.Lines = append(g.Lines, eventLine(ev))
	}
	e.dirty = true
}

func eventLine(ev *Event) string {
	parts := []string{ev.Source + ": " + ev.Type}
	if ev.Type == "" {
		parts[0] += ev.EventType
	}
	if ev.Outcome == "dead" {
		parts = append(parts, "could not be published")
	}
	for _, f := range []struct{ name, value string }{{"order", ev.OrderID}, {"payment", ev.PaymentID}, {"status", ev.Status}, {"tenant", ev.Tenant}} {
		if f.value != "" {
			parts = append(parts, f.name+" "+clean(f.value, 80))
		}
	}
	if ev.AmountMinor != nil {
		parts = append(parts, strconv.FormatInt(*ev.AmountMinor, 10)+" minor units of "+ev.Currency)
	}
	return strings.Join(parts, ", ")
}

func (r *rule) window(key string) *window {
	w := r.state.Windows[key]
	if w == nil {
		w = &window{}
		if len(r.state.Windows) < maxWindows {
			r.state.Windows[key] = w
		}
	}
	return w
}

// count turns cumulative counters into what came since the last look.
func (e *Engine) count(now time.Time, st *Stats) {
	for k, v := range st.Refused {
		e.more(now, counter{'r', k}, v)
	}
	for k, v := range st.Failures {
		e.more(now, counter{'f', k}, v)
	}
	for source, v := range st.Paid {
		e.more(now, counter{'p', SourceReason{source, ""}}, v)
	}
	e.rebase = false
}

func (e *Engine) more(now time.Time, k counter, value float64) {
	n := value - e.counted[k]
	e.counted[k] = value
	if n <= 0 || e.rebase {
		return
	}
	for _, r := range e.rules {
		if !r.about(k.Source) {
			continue
		}
		switch {
		case r.When == WhenRefusals && k.kind == 'r' && r.counts(k.Reason):
			r.window(k.Source+"|"+k.Reason).add(now, r.Within, n)
		case r.When == WhenDeclines && k.kind == 'f':
			r.window(k.Source+"|"+k.Reason).add(now, r.Within, n)
		case r.When == WhenDeclines && k.kind == 'p':
			r.window(k.Source+"|").add(now, r.Within, n)
		default:
			continue
		}
		e.dirty = true
	}
}

// judge compares what a rule has seen with what it allows.
func (e *Engine) judge(r *rule, now time.Time, st *Stats) {
	for k, w := range r.state.Windows {
		if w.sum(now, r.Within) == 0 {
			delete(r.state.Windows, k)
		}
	}
	switch r.When {
	case WhenRefusals:
		e.judgeRefusals(r, now)
	case WhenDeclines:
		e.judgeDeclines(r, now)
	case WhenRepeats:
		seen := map[string]bool{}
		for source, w := range r.state.Windows {
			n := int(w.sum(now, r.Within))
			seen[source] = true
			e.set(r, source, now, n >= r.Count, n < (r.Count+1)/2, n, func() string {
				return fmt.Sprintf("%s: %d deliveries came again within %s although they were answered 2xx", source, n, human(r.Within))
			})
		}
		e.quiet(r, seen, now)
	case WhenSilence:
		e.judgeSilence(r, now)
	case WhenLag:
		if st != nil {
			e.set(r, "", now, st.Oldest > r.Above, st.Oldest <= r.Above/2, 1, func() string {
				return "the oldest delivery that is not published has waited for " + human(st.Oldest)
			})
		}
	case WhenDisk:
		if st != nil {
			e.judgeDisk(r, now, st)
		}
	}
}

func (e *Engine) judgeDisk(r *rule, now time.Time, st *Stats) {
	low := st.Free > 0 && int64(st.Free) < r.Free
	well := st.Failing == "" && (r.Free == 0 || int64(st.Free) >= r.Free+r.Free/20)
	e.set(r, "", now, low || st.Failing != "", well, 1, func() string {
		if st.Failing != "" {
			return "deliveries are refused: " + st.Failing
		}
		return fmt.Sprintf("the archive's disk has %s left", bytesOf(st.Free))
	})
}

func (e *Engine) judgeRefusals(r *rule, now time.Time) {
	total, parts := map[string]float64{}, map[string][]string{}
	for _, k := range sortedKeys(r.state.Windows) {
		source, reason, _ := strings.Cut(k, "|")
		if n := r.state.Windows[k].sum(now, r.Within); n > 0 {
			total[source] += n
			parts[source] = append(parts[source], fmt.Sprintf("%s %.0f", reason, n))
		}
	}
	seen := map[string]bool{}
	for source, sum := range total {
		seen[source] = true
		n := int(sum)
		e.set(r, source, now, n >= r.Count, n < (r.Count+1)/2, n, func() string {
			return fmt.Sprintf("%s: %d refused within %s (%s)", source, n, human(r.Within), strings.Join(parts[source], ", "))
		})
	}
	e.quiet(r, seen, now)
}

func (e *Engine) judgeDeclines(r *rule, now time.Time) {
	type tally struct{ failed, chosen, paid, authorized float64 }
	by := map[string]*tally{}
	most := map[string]float64{}
	why := map[string]string{}
	for _, k := range sortedKeys(r.state.Windows) {
		source, reason, _ := strings.Cut(k, "|")
		n := r.state.Windows[k].sum(now, r.Within)
		t := by[source]
		if t == nil {
			t = &tally{}
			by[source] = t
		}
		if reason == "" {
			t.paid += n
			continue
		}
		if reason == authorized {
			t.authorized += n
			continue
		}
		t.failed += n
		if r.counts(reason) {
			t.chosen += n
			if n > most[source] {
				most[source], why[source] = n, reason
			}
		}
	}
	seen := map[string]bool{}
	for source, t := range by {
		all := t.failed + max(t.paid, t.authorized) // a payment in two steps is one payment
		seen[source] = true
		share := 100 * t.chosen / max(all, 1)
		e.set(r, source, now, all >= float64(r.Count) && share >= r.Share, share < r.Share*0.8, int(t.chosen), func() string {
			return fmt.Sprintf("%s: %.0f of %.0f payments failed within %s (%.0f %%), most for %s", source, t.chosen, all, human(r.Within), share, why[source])
		})
	}
	e.quiet(r, seen, now)
}

// quiet ends the alerts of sources that nothing is counted for any more.
func (e *Engine) quiet(r *rule, seen map[string]bool, now time.Time) {
	for source := range r.state.Alerts {
		if !seen[source] {
			e.set(r, source, now, false, true, 0, nil)
		}
	}
}

// set puts one alert on or off. Between on and off it stays what it was.
func (e *Engine) set(r *rule, key string, now time.Time, on, off bool, count int, line func() string) {
	a := r.state.Alerts[key]
	switch {
	case on && a == nil:
		if len(r.state.Alerts) >= maxAlerts {
			return
		}
		a = &alert{Since: now}
		r.state.Alerts[key] = a
		e.dirty = true
		fallthrough
	case on:
		a.over = false
		if count >= a.Count || !a.Told.IsZero() {
			a.Line, a.Count = line(), count
		}
	case off && a != nil:
		// What was counted happened, however short it was; what only waited or was quiet
		// for less than the time of grouping is not worth a message.
		if a.over = true; a.Told.IsZero() && (r.When == WhenLag || r.When == WhenDisk || r.When == WhenSilence) {
			delete(r.state.Alerts, key)
		}
		e.dirty = true
	}
}

// tell sends what is due of a rule: groups, new alerts, reminders and recoveries.
func (e *Engine) tell(r *rule, now time.Time) {
	if g := r.state.Group; g != nil && now.Sub(g.First) >= r.Group {
		r.state.Group = nil
		e.send(r, &Message{State: StateEvent, Count: g.Count, Since: g.First, Lines: g.Lines, More: g.Count - len(g.Lines), Delivery: g.Delivery}, now)
	}
	fresh, still, gone := []*alert{}, []*alert{}, []*alert{}
	due := false
	for _, key := range sortedKeys(r.state.Alerts) {
		a := r.state.Alerts[key]
		switch {
		case a.Told.IsZero():
			fresh = append(fresh, a)
			due = due || now.Sub(a.Since) >= r.Group
		case a.over:
			gone = append(gone, a)
			delete(r.state.Alerts, key)
		case r.Again > 0 && now.Sub(a.Told) >= r.Again:
			still = append(still, a)
		}
	}
	if due {
		e.alerts(r, StateFiring, fresh, now)
	}
	e.alerts(r, StateFiring, still, now)
	e.alerts(r, StateRecovered, gone, now)
}

func (e *Engine) alerts(r *rule, state string, list []*alert, now time.Time) {
	if len(list) == 0 {
		return
	}
	m := &Message{State: state, Since: list[0].Since}
	for _, a := range list {
		if m.Since.After(a.Since) {
			m.Since = a.Since
		}
		m.Count += a.Count
		if m.Delivery == "" {
			m.Delivery = a.Delivery
		}
		if len(m.Lines) < maxLines {
			m.Lines = append(m.Lines, a.Line)
		} else {
			m.More++
		}
		a.Told = now
	}
	e.send(r, m, now)
}

func sortedKeys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// window counts what happened in the last while, in a bounded number of steps.
type window struct {
	At []int64   `json:"at"` // second at which the step begins
	N  []float64 `json:"n"`
}

const windowSteps = 60

func (w *window) add(now time.Time, within time.Duration, n float64) {
	step := max(int64(within/time.Second)/windowSteps, 1)
	at := now.Unix() / step * step
	if last := len(w.At) - 1; last >= 0 && w.At[last] == at {
		w.N[last] += n
		return
	}
	w.At, w.N = append(w.At, at), append(w.N, n)
}

// sum counts, and forgets what is too old.
func (w *window) sum(now time.Time, within time.Duration) (n float64) {
	from := now.Add(-within).Unix()
	i := 0
	for i < len(w.At) && w.At[i] <= from {
		i++
	}
	w.At, w.N = slices.Delete(w.At, 0, i), slices.Delete(w.N, 0, i)
	for _, x := range w.N {
		n += x
	}
	return n
}
