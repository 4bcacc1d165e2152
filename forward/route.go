package forward

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.uber.org/zap"

	"penstock/archive"
	"penstock/expression"
	"penstock/provider"
)

// Route sends the events that its expression is true of to a topic of its own, or drops
// them. It is what an epoch document holds of it.
type Route struct {
	Name  string `json:"name,omitempty"` // in outcomes, metrics and logs
	When  string `json:"when"`
	Topic string `json:"topic,omitempty"` // template
	Key   string `json:"key,omitempty"`   // template; "" = as without a route
	Drop  bool   `json:"drop,omitempty"`
}

// Routes are compiled routes, in order. They are immutable.
type Routes struct{ list []compiledRoute }

type compiledRoute struct {
	Route
	when *expression.Program
}

// CompileRoutes compiles the routes of a source; a route without a name is called by its
// number, from 1.
func CompileRoutes(rs []Route) (*Routes, error) {
	if len(rs) == 0 {
		return nil, nil
	}
	out := &Routes{}
	for i, r := range rs {
		if r.Name == "" {
			r.Name = strconv.Itoa(i + 1)
		}
		when, err := expression.Compile(r.When, routeEnv{})
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		out.list = append(out.list, compiledRoute{r, when})
	}
	return out, nil
}

// CheckRoute says what is wrong with an expression; the message begins with its place in
// the expression, "line:column: ".
func CheckRoute(when string) error {
	_, err := expression.Compile(when, routeEnv{})
	return err
}

// routeEnv is what an expression sees of an event: the names of docs/schema, those of the
// family's block beside the others. What is not known is empty, 0 or false.
type routeEnv struct {
	Provider       string       `expr:"provider"`
	Source         string       `expr:"source"`
	Tenant         string       `expr:"tenant"`
	Type           string       `expr:"type"`
	Family         string       `expr:"family"`
	ProviderType   string       `expr:"provider_type"`
	Livemode       bool         `expr:"livemode"` // false only where it is known to be a test
	ID             string       `expr:"id"`
	OrderID        string       `expr:"order_id"`
	PaymentID      string       `expr:"payment_id"`
	Subject        string       `expr:"subject"`
	Status         string       `expr:"status"`
	ProviderStatus string       `expr:"provider_status"`
	Amount         routeMoney   `expr:"amount"`
	CardMask       string       `expr:"card_mask"`
	Failure        routeFailure `expr:"failure"`
	NeedsFetch     bool         `expr:"needs_fetch"`
}

type routeMoney struct {
	Minor    int    `expr:"minor"`
	Currency string `expr:"currency"`
	Exponent int    `expr:"exponent"`
}

type routeFailure struct {
	Reason       string `expr:"reason"`
	ProviderCode string `expr:"provider_code"`
}

func routeEnvOf(info *SourceInfo, d *archive.Delivery, e *provider.Event) routeEnv {
	env := routeEnv{Provider: info.Provider, Source: d.Source, Tenant: tenantOf(d, e), Type: typeOf(info, e), Family: "other",
		ProviderType: e.Type, Livemode: e.Livemode == nil || *e.Livemode, ID: e.ObjectID, OrderID: e.OrderID, PaymentID: e.PaymentID,
		Subject: e.Subject, ProviderStatus: e.Status, CardMask: e.CardMask, Failure: routeFailure{e.FailureReason, e.FailureCode},
		NeedsFetch: e.NeedsFetch}
	if family, status := familyOf(e.Canonical); family != "" {
		env.Family, env.Status = family, status
		if family == "payment" && env.ID == "" {
			env.ID = e.PaymentID
		}
	}
	env.Amount.Currency = e.Currency
	if m := e.Amount; m != nil {
		env.Amount = routeMoney{int(m.Minor), m.Currency, m.Exponent}
	}
	return env
}

// destination is where one event goes by one route.
type destination struct {
	topic   string
	key     string // "" = the event's own
	mark    string // tells the identities of routes apart; "" = the default's
	word    string // the route's name for the outcome; "" where no routes are configured
	also    bool   // another route took the event before
	dropped bool
}

const (
	wordDefault = "default"
	// reasonDropped is followed by the route's name.
	reasonDropped = "dropped by route "
	// reasonTopic: a template made a name that no topic can have.
	reasonTopic = "bad_topic"
)

// destinations says where an event of a source with routes goes: to the topic of every route that takes it, once
// to each topic, in the order of the routes and no further than one that drops; to the
// default where none took it. It depends on the event and its epoch alone, so that every
// later look comes to the same.
func (p *Pump) destinations(info *SourceInfo, d *archive.Delivery, e *provider.Event) []destination {
	base := p.byDefault(info, d, e)
	base.word = wordDefault
	var out []destination
	env := routeEnvOf(info, d, e)
	for i := range info.Routes.list {
		r := &info.Routes.list[i]
		takes, err := r.when.Run(env)
		if err != nil {
			p.routeFailed(info, r, err)
			continue
		}
		if !takes {
			continue
		}
		if r.Drop {
			if len(out) == 0 {
				return []destination{{word: r.Name, dropped: true}}
			}
			return out
		}
		to := destination{topic: topicFor(r.Topic, d, info, e), key: base.key, word: r.Name, also: len(out) > 0}
		if r.Key != "" {
			to.key = keyFor(r.Key, d, info, e)
		}
		if to.topic != base.topic {
			to.mark = to.topic
			if info.Group != "" { // the same route for every source of the group
				to.mark = topicFor(strings.ReplaceAll(r.Topic, "{source}", info.Group), d, info, e)
			}
		}
		if !goesTo(out, to.topic) {
			out = append(out, to)
		}
	}
	if len(out) == 0 {
		return []destination{base}
	}
	return out
}

// byDefault is where an event goes that no route takes.
func (p *Pump) byDefault(info *SourceInfo, d *archive.Delivery, e *provider.Event) destination {
	template := cmp.Or(info.Topic, p.o.Topic)
	return destination{topic: topicFor(template, d, info, e), key: keyFor(info.Key, d, info, e)}
}

func goesTo(out []destination, topic string) bool {
	for i := range out {
		if out[i].topic == topic {
			return true
		}
	}
	return false
}

// routeFailed counts an expression that could not be evaluated, and says so the first
// time: the route does not take the event.
func (p *Pump) routeFailed(info *SourceInfo, r *compiledRoute, err error) {
	p.met.routeErrors.WithLabelValues(info.Name, r.Name).Inc()
	if _, told := p.routeTold.LoadOrStore(info.Name+"\x00"+r.Name+"\x00"+r.When, true); !told {
		p.log.Error("a route's expression fails and does not take the event; said once, counted in penstock_route_errors_total",
			zap.String("source", info.Name), zap.String("route", r.Name), zap.Error(expression.Placed(err)))
	}
}

// placement is one event on one of its ways: what has an outcome of its own.
type placement struct {
	event int
	to    destination
}

// placements lists where the events of a delivery go; the place in the list is the item of
// the outcome.
func (p *Pump) placements(info *SourceInfo, d *archive.Delivery, evs []provider.Event) []placement {
	out := make([]placement, 0, len(evs))
	for i := range evs {
		if info.Routes == nil { // as most have it, without a list for each event
			out = append(out, placement{i, p.byDefault(info, d, &evs[i])})
			continue
		}
		for _, to := range p.destinations(info, d, &evs[i]) {
			out = append(out, placement{i, to})
		}
	}
	return out
}

// topicFor fills the template of a route.
func topicFor(template string, d *archive.Delivery, info *SourceInfo, e *provider.Event) string {
	return fill(template, d, info, e, false)
}

// fill replaces the placeholders of a topic or a key; a brace that begins none stays as it
// is. Every event asks for its topic: by a strings.Replacer, which is built anew for each,
// that was 21 of the pump's 50 allocations.
func fill(template string, d *archive.Delivery, info *SourceInfo, e *provider.Event, key bool) string {
	if strings.IndexByte(template, '{') < 0 {
		return template
	}
	var room [128]byte // on the stack, where names are short
	b := room[:0]
	for {
		open := strings.IndexByte(template, '{')
		if open < 0 {
			return string(append(b, template...))
		}
		b, template = append(b, template[:open]...), template[open:]
		if end := strings.IndexByte(template, '}'); end > 0 {
			if with, ok := filling(template[1:end], d, info, e, key); ok {
				b, template = append(b, with...), template[end+1:]
				continue
			}
		}
		b, template = append(b, '{'), template[1:]
	}
}

// filling is what a placeholder stands for; ok is false where there is none of that name.
func filling(name string, d *archive.Delivery, info *SourceInfo, e *provider.Event, key bool) (_ string, ok bool) {
	switch name {
	case "provider":
		return info.Provider, true
	case "source":
		return d.Source, true
	case "family":
		family, _ := familyOf(e.Canonical)
		return cmp.Or(family, "other"), true
	case "type":
		if key { // which holds any bytes
			return typeOf(info, e), true
		}
		return topicWord(typeOf(info, e)), true
	case "tenant":
		switch {
		case key:
			return tenantOf(d, e), true
		case info.Tenants:
			return topicWord(e.Tenant), true
		}
		return topicWord(d.Tenant), true
	case "entity":
		return eventKey(e), key
	}
	return "", false
}

// topicWord is a merchant's name or a type with what no topic's name may hold written as a
// hyphen; an empty one is "none".
func topicWord(s string) string {
	if s == "" {
		return "none"
	}
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && topicByte(byte(r)) {
			return r
		}
		return '-'
	}, s)
}

// keyFor fills the template of a key; "" where it comes to nothing.
func keyFor(template string, d *archive.Delivery, info *SourceInfo, e *provider.Event) string {
	return fill(template, d, info, e, true)
}

// legalTopic says whether Kafka takes the name. Every event asks: by a regular expression
// that was 0.8 % of a busy gateway's CPU.
func legalTopic(s string) bool {
	if len(s) == 0 || len(s) > 249 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if !topicByte(s[i]) {
			return false
		}
	}
	return true
}

func topicByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}
