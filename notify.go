package main

import (
	"context"
	"hash/maphash"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/forward"
	"penstock/notify"
)

// buildNotify makes what watches the gateway. It is there without a rule too: a reload may
// bring some.
func (p *program) buildNotify(conf *config.Config, reg *prometheus.Registry) error {
	rules, err := cli.NotifyConfig(conf)
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // a message without it is still one
	p.notify, err = notify.New(rules, notify.Options{
		Log: notifyLog{p}, Stats: func() notify.Stats { return p.notifyStats(reg) }, Payments: payments{p.archive}, Sinkless: func() bool { return p.pump == nil }, Store: notifyStore{p.archive.State()},
		Dial: cli.NotifyDial, Link: strings.TrimSuffix(conf.Admin.PublicURL, "/"), Node: host, Logger: p.log.Named("notify"), Registerer: reg,
	})
	return err
}

// reloadNotify puts other rules and channels in force; those that are as they were go on.
func (p *program) reloadNotify(was, next *config.Config, rules notify.Config) error {
	if reflect.DeepEqual(was.Notify, next.Notify) {
		return nil
	}
	return p.notify.Set(rules)
}

// What counts as a payment that went well.
const (
	typeCaptured   = "payment.captured"
	typeAuthorized = "payment.authorized"
)

type notifyStore struct{ *archive.State }

func (s notifyStore) Put(key string, value []byte) error {
	return s.Commit(archive.Change{Key: key, Value: value})
}

// notifyLog is the archive's log as rules see it.
type notifyLog struct{ *program }

// Head is the position of the last record.
func (l notifyLog) Head() uint64 { return l.archive.Synced() }

// Follow reads no more of each record than the rules want: without one about events,
// bodies and fields stay where they are.
func (l notifyLog) Follow(ctx context.Context, from uint64, want notify.Want, f func(*notify.Event)) error {
	rd := l.archive.NewReader(from + 1)
	defer rd.Close()
	// Without a sink nothing but the delivery itself tells what happened.
	bodies := (want.Fields || want.Events) && l.pump == nil
	rd.Skim(!bodies, !want.Fields)
	for {
		rec, err := rd.Next(ctx)
		if err != nil {
			return err
		}
		switch {
		case rec.Delivery != nil && rec.Delivery.Verdict == archive.Accepted:
			f(l.delivered(rec.Seq, rec.Delivery, bodies))
		case rec.Outcome != nil && rec.Outcome.Replay == "":
			f(l.outcome(rec.Seq, rec.Outcome))
		}
	}
}

func (l notifyLog) delivered(seq uint64, d *archive.Delivery, bodies bool) *notify.Event {
	ev := &notify.Event{Seq: seq, At: d.ReceivedAt, Source: d.Source}
	if !bodies {
		return ev
	}
	ev.Outcome, ev.Delivery, ev.Provider, ev.Tenant = notify.Kept, d.ID, d.Provider, d.Tenant
	for i, told := range l.epochs.tells(d) {
		one := ev
		if i > 0 {
			one = &notify.Event{Seq: seq, At: ev.At, Source: ev.Source, Outcome: ev.Outcome, Delivery: ev.Delivery, Provider: ev.Provider, Tenant: ev.Tenant, Item: i}
			ev.Others = append(ev.Others, one)
		}
		describe(one, &told.Fields)
		one.ID, one.Failure = identity(d.Source, told.Fields.CEID), told.Failure
	}
	return ev
}

// identity is equal for the same event, however often it came.
func identity(source, ceID string) uint64 {
	if ceID == "" {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(notifySeed)
	_, _ = h.WriteString(source) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(ceID)
	return max(h.Sum64(), 1)
}

// notifySeed is of this process, and so is what is known by it.
var notifySeed = maphash.MakeSeed()

func (l notifyLog) outcome(seq uint64, o *archive.Outcome) *notify.Event {
	ev := &notify.Event{Seq: seq, At: o.At, Outcome: o.Kind.String(), Item: o.Item}
	describe(ev, &o.Fields)
	of := o.Delivery
	ev.More = func(ev *notify.Event) {
		if d, err := l.archive.GetSeq(of); err == nil {
			ev.Delivery, ev.Source, ev.Provider, ev.Tenant = d.ID, d.Source, d.Provider, d.Tenant
		}
	}
	return ev
}

func describe(ev *notify.Event, f *archive.Fields) {
	ev.Type, ev.EventType, ev.EventID, ev.OrderID, ev.PaymentID = f.Type, f.EventType, f.EventID, f.OrderID, f.PaymentID
	ev.Status, ev.RequestID, ev.Currency, ev.AmountMinor = f.Status, f.RequestID, f.Currency, f.AmountMinor
	if f.Livemode != nil {
		ev.Livemode = map[bool]string{true: "true", false: "false"}[*f.Livemode]
	}
}

// notifyStats takes the numbers that rules look at out of the metrics: they are counted
// exactly there, whatever a storm left of the deliveries themselves.
func (p *program) notifyStats(reg prometheus.Gatherer) notify.Stats {
	s := notify.Stats{Refused: map[notify.SourceReason]float64{}, Failures: map[notify.SourceReason]float64{}, Paid: map[string]float64{}}
	families, err := reg.Gather()
	if err != nil {
		p.log.Debug("some metrics are not there for notifications")
	}
	authorized := map[string]float64{}
	for _, fam := range families {
		for _, m := range fam.GetMetric() {
			l, n := labels(m), m.GetCounter().GetValue()
			switch fam.GetName() {
			case "penstock_deliveries_total":
				if l["verdict"] == archive.Rejected.String() && n > 0 {
					s.Refused[notify.SourceReason{Source: l["source"], Reason: l["reason"]}] = n
				}
			case "penstock_failures_total":
				s.Failures[notify.SourceReason{Source: l["source"], Reason: l["reason"]}] = n
			case "penstock_events_total":
				switch l["type"] {
				case typeCaptured:
					s.Paid[l["source"]] = n
				case typeAuthorized:
					authorized[l["source"]] = n
				}
			}
		}
	}
	// A payment in two steps is one payment.
	for source, n := range authorized {
		s.Paid[source] = max(s.Paid[source], n)
	}
	a := p.archive.Stats()
	s.Free, s.Failing = a.DiskFree, a.Failing
	if s.Failing == "" && a.Full {
		s.Failing = archive.ErrFull.Error()
	}
	p.eachPump(func(pump *forward.Pump) { s.Oldest = max(s.Oldest, pump.OldestUnpublished()) })
	return s
}

func labels(m *dto.Metric) map[string]string {
	out := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

// payments finds authorizations in the index.
type payments struct{ archive *archive.Archive }

const authorizedType = "payment.authorized"

// conclusion is an event after which nobody has to look at an authorization any more.
type conclusion struct {
	typ string
	// Whether it concludes, found by the id of the payment or of the order, also where it came
	// before the authorization: providers deliver out of order. But what failed before, or was
	// canceled of the same order, was another attempt, and the money is held all the same.
	byPayment, byOrder bool
}

var concluding = []conclusion{{"payment.captured", true, true}, {"payment.canceled", true, false}, {"payment.expired", true, false}, {"payment.failed", false, false}}

// Authorized gives the authorizations of a time.
func (q payments) Authorized(ctx context.Context, from, to time.Time, f func(notify.Payment)) error {
	filter := archive.Filter{Type: authorizedType, From: from, To: to, Limit: archive.MaxLimit}
	for {
		page, err := q.archive.Query(ctx, filter)
		if err != nil {
			return err
		}
		for i := range page.Rows {
			if err := q.of(&page.Rows[i], f); err != nil {
				return err
			}
		}
		if filter.Cursor = page.Next; filter.Cursor == "" {
			return nil
		}
	}
}

// of gives the authorizations of one delivery, which may carry several events.
func (q payments) of(row *archive.Row, f func(notify.Payment)) error {
	if row.Type == authorizedType {
		f(notify.Payment{Source: row.Source, PaymentID: row.PaymentID, OrderID: row.OrderID, Delivery: row.ID, At: row.ReceivedAt})
		return nil
	}
	outcomes, err := q.archive.Outcomes(row.Seq)
	if err != nil {
		return err
	}
	for i := range outcomes {
		if o := &outcomes[i]; o.Fields.Type == authorizedType && o.Replay == "" {
			f(notify.Payment{Source: row.Source, PaymentID: o.Fields.PaymentID, OrderID: o.Fields.OrderID, Delivery: row.ID, At: row.ReceivedAt})
		}
	}
	return nil
}

// Concluded looks for the end of a payment by its id, and by its order's: some providers
// give a capture an id of its own.
func (q payments) Concluded(ctx context.Context, p notify.Payment) (bool, error) {
	for _, c := range concluding {
		for _, by := range []struct {
			archive.Filter
			before bool
		}{{archive.Filter{PaymentID: p.PaymentID}, c.byPayment}, {archive.Filter{OrderID: p.OrderID}, c.byOrder}} {
			f := by.Filter
			if f.PaymentID == "" && f.OrderID == "" {
				continue
			}
			f.Source, f.Type, f.Limit = p.Source, c.typ, 1
			if !by.before {
				f.From = p.At
			}
			page, err := q.archive.Query(ctx, f)
			if err != nil || len(page.Rows) > 0 {
				return len(page.Rows) > 0, err
			}
		}
	}
	return false, nil
}
