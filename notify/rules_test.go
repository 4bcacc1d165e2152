package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func refusals() Rule {
	return Rule{Name: "bad", When: WhenRefusals, Count: 10, Within: 5 * time.Minute, Group: 30 * time.Second, Again: 12 * time.Hour}
}

// TestBurst: a burst is one message with a count, then a reminder, then its end.
func TestBurst(t *testing.T) {
	r := newRig(t, refusals())
	r.refuse("shop", "signature_mismatch", 9)
	r.after(time.Second)
	r.after(time.Minute)
	r.none()
	r.refuse("shop", "signature_mismatch", 30)
	r.refuse("shop", "signature_missing", 3)
	r.refuse("hub", "policy", 2)
	r.after(time.Second)
	r.none() // it waits for what comes with it
	r.refuse("shop", "signature_mismatch", 100)
	r.refuse("pay", "ip_not_allowed", 12)
	r.after(29 * time.Second)
	r.none()
	r.after(time.Second)
	m := r.one(StateFiring, "shop: 142 refused within 5 minutes (signature_mismatch 139, signature_missing 3)", "pay: 12 refused")
	if m.Count != 154 || strings.Contains(strings.Join(m.Lines, ""), "hub") {
		t.Errorf("%+v", m)
	}
	for range 10 {
		r.refuse("shop", "signature_mismatch", 10)
		r.after(time.Minute)
		r.none() // pay's window ends on the way: see below
		if r.e.rules[0].state.Alerts["pay"] == nil {
			break
		}
		if r.e.rules[0].state.Windows["pay|ip_not_allowed"] == nil {
			t.Fatal("pay is quiet and was not told so")
		}
		if r.clock().Sub(noon) > 5*time.Minute {
			break
		}
	}
	r.after(time.Minute)
	r.refuse("shop", "signature_mismatch", 50)
	r.after(time.Second)
	if m := r.one(StateRecovered, "pay: 12"); len(m.Lines) != 1 {
		t.Errorf("%+v", m)
	}
	for i := range 12 * 60 {
		r.refuse("shop", "signature_mismatch", 10)
		if r.after(time.Minute); i < 11*60 {
			r.none()
		}
	}
	r.one(StateFiring, "shop: 50 refused")
	r.after(5 * time.Minute)
	r.one(StateRecovered, "shop")
	r.after(24 * time.Hour)
	r.none()
}

// TestBurstOf: sources and reasons choose.
func TestBurstOf(t *testing.T) {
	rule := refusals()
	rule.Sources, rule.Reasons, rule.Group = []string{"shop"}, []string{"signature_mismatch"}, 0
	r := newRig(t, rule)
	r.refuse("hub", "signature_mismatch", 100)
	r.refuse("shop", "policy", 100)
	r.refuse("shop", "signature_mismatch", 9)
	r.after(time.Second)
	r.none()
	r.refuse("shop", "signature_mismatch", 1)
	r.after(time.Second)
	r.one(StateFiring, "shop: 10 refused")
}

// TestReloaded: rules that come with a reload count from then on, and what fires goes on.
func TestReloaded(t *testing.T) {
	r := newRig(t)
	r.refuse("shop", "policy", 1000)
	r.after(time.Second)
	r.conf.Rules = []Rule{refusals()}
	if err := r.e.Set(r.conf); err != nil {
		t.Fatal(err)
	}
	r.after(time.Minute)
	r.none()
	r.refuse("shop", "policy", 20)
	r.after(time.Second)
	r.after(time.Minute)
	r.one(StateFiring, "shop: 20")
	r.conf.Rules = append(r.conf.Rules, Rule{Name: "lag", When: WhenLag, Above: time.Minute})
	if err := r.e.Set(r.conf); err != nil {
		t.Fatal(err)
	}
	r.after(time.Minute)
	r.none()
	r.after(5 * time.Minute)
	r.one(StateRecovered, "shop")
}

func TestEventRule(t *testing.T) {
	amount := int64(9232)
	good := Event{Outcome: "published", Source: "shop", Type: "payment.failed", EventType: "charge.failed", Currency: "EUR", OrderID: "672626", AmountMinor: &amount,
		Livemode: "true", More: func(ev *Event) { ev.Provider, ev.Delivery, ev.Tenant = "stripe", "01ABC", "acme" }}
	rule := func(change func(*Rule)) Rule {
		r := Rule{Name: "failed", When: WhenEvent, Types: []string{"payment.failed", "dispute.*"}, Group: 0}
		change(&r)
		return r
	}
	f := func(rule Rule, ev Event, want bool) {
		t.Helper()
		r := newRig(t, rule)
		r.see(ev)
		r.after(0)
		if got := len(r.messages()) == 1; got != want {
			t.Errorf("%+v of %+v: told %v, want %v", rule, ev, got, want)
		}
	}
	same := func(*Rule) {}
	f(rule(same), good, true)
	f(rule(func(r *Rule) { r.Types = []string{"charge.failed"} }), good, true)
	f(rule(func(r *Rule) { r.Types = []string{"payment.*"} }), good, true)
	f(rule(func(r *Rule) { r.Types = []string{"payment"} }), good, false)
	f(rule(func(r *Rule) { r.Match = map[string]string{"currency": "EUR", "provider": "stripe", "tenant": "ac*"} }), good, true)
	f(rule(func(r *Rule) { r.Match = map[string]string{"currency": "USD"} }), good, false)
	f(rule(func(r *Rule) { r.Match = map[string]string{"provider": "paypal"} }), good, false)
	f(rule(func(r *Rule) { r.Sources = []string{"hub"} }), good, false)
	for outcome, want := range map[string]bool{"duplicate": false, "held": false, "filtered": false, "dead": true, Kept: true, "": false} {
		ev := good
		ev.Outcome = outcome
		f(rule(same), ev, want)
	}
	ev := good
	ev.Outcome = "dead"
	f(rule(func(r *Rule) { r.Types, r.Match = nil, map[string]string{"outcome": "dead"} }), ev, true)

	r := newRig(t, rule(func(r *Rule) { r.Group = time.Minute }))
	r.e.o.Link = "https://admin.example"
	for i := range 25 {
		ev := good
		ev.OrderID = fmt.Sprint("order-", i)
		r.see(ev)
		r.after(time.Second)
	}
	r.none()
	r.after(time.Minute)
	m := r.one(StateEvent, "shop: payment.failed, order order-0, tenant acme, 9232 minor units of EUR")
	if m.Count != 25 || len(m.Lines) != maxLines || m.More != 15 || m.Link != "https://admin.example/deliveries/01ABC" || m.Title() != "failed: 25 events" {
		t.Errorf("%+v", m)
	}
	r.after(time.Hour)
	r.none()
}

func TestRepeats(t *testing.T) {
	r := newRig(t, Rule{Name: "again", When: WhenRepeats, Count: 5, Within: time.Hour, Group: 0})
	for range 4 {
		r.see(Event{Outcome: "duplicate", More: func(ev *Event) { ev.Source = "shop" }})
		r.see(Event{Outcome: "published", Source: "shop"})
	}
	r.after(time.Second)
	r.none()
	r.see(Event{Outcome: "duplicate", Source: "shop"})
	r.after(time.Second)
	r.one(StateFiring, "shop: 5 deliveries came again within 60 minutes although they were answered 2xx")
	r.after(time.Hour + time.Minute)
	r.one(StateRecovered)
}

func TestLagAndDisk(t *testing.T) {
	r := newRig(t, Rule{Name: "lag", When: WhenLag, Above: 5 * time.Minute, Group: 30 * time.Second}, Rule{Name: "disk", When: WhenDisk, Free: 10 << 30, Group: 0})
	r.stats.Free = 20 << 30
	r.stats.Oldest = 6 * time.Minute
	r.after(time.Second)
	r.stats.Oldest = 0
	r.after(time.Second) // over before it was worth a word
	r.after(time.Minute)
	r.none()
	r.stats.Oldest = 6 * time.Minute
	r.after(time.Second)
	r.after(time.Minute)
	r.one(StateFiring, "has waited for 6 minutes")
	r.stats.Oldest = 4 * time.Minute // neither bad nor good
	r.after(time.Minute)
	r.none()
	r.stats.Oldest = time.Minute
	r.after(time.Minute)
	r.one(StateRecovered)

	r.stats.Free = 9 << 30
	r.after(time.Second)
	r.one(StateFiring, "9.0 GiB left")
	r.stats.Free = 10<<30 + 1
	r.after(time.Second)
	r.none()
	r.stats.Free = 12 << 30
	r.after(time.Second)
	r.one(StateRecovered)
	r.stats.Failing = "the disk is at its reserve"
	r.after(time.Second)
	r.one(StateFiring, "deliveries are refused: the disk is at its reserve")
}

func TestDeclines(t *testing.T) {
	rule := Rule{Name: "declines", When: WhenDeclines, Count: 20, Within: time.Hour, Share: 30, Group: 0}
	r := newRig(t, rule)
	fail := func(reason string, n float64) { r.stats.Failures[SourceReason{"shop", reason}] += n }
	fail("insufficient_funds", 10)
	r.stats.Paid["shop"] = 9
	r.after(time.Second)
	r.none() // 19 payments say nothing
	r.stats.Paid["shop"] = 30
	r.after(time.Second)
	r.none() // 25 %
	fail("insufficient_funds", 5)
	fail("stolen_card", 2)
	r.after(time.Second)
	r.one(StateFiring, "shop: 17 of 47 payments failed within 60 minutes (36 %), most for insufficient_funds")
	r.stats.Paid["shop"] = 100
	r.after(time.Second)
	r.one(StateRecovered)

	rule.Reasons = []string{"stolen_card"}
	r = newRig(t, rule)
	fail("insufficient_funds", 50)
	fail("stolen_card", 10)
	r.after(time.Second)
	r.none()
	fail("stolen_card", 30)
	r.after(time.Second)
	r.one(StateFiring, "shop: 40 of 90", "most for stolen_card")
}

// TestDeclinesKept: without a sink the deliveries are counted, each of their events, the two steps
// of a payment once, and not what came long before.
func TestDeclinesKept(t *testing.T) {
	r := newRig(t, Rule{Name: "declines", When: WhenDeclines, Sources: []string{"shop"}, Count: 10, Within: time.Hour, Share: 30})
	seq := uint64(0)
	kept := func(at time.Time, ev Event) {
		seq++
		ev.Seq, ev.At, ev.Outcome = seq, at, Kept
		if ev.Source == "" {
			ev.Source = "shop"
		}
		r.e.observe(&ev)
	}
	many := func(n int, ev Event) Event {
		for range n - 1 {
			other := ev
			other.Outcome, other.At, other.Source = Kept, noon, "shop"
			ev.Others = append(ev.Others, &other)
		}
		return ev
	}
	stolen, poor := Event{Failure: "stolen_card", Type: "payment.failed"}, Event{Failure: "insufficient_funds", Type: "payment.failed"}
	captured, authorized := Event{Type: "payment.captured"}, Event{Type: "payment.authorized"}
	for range 50 {
		kept(noon.Add(-2*time.Hour), stolen)
	}
	other := stolen
	other.Source = "other"
	kept(noon, other)
	kept(noon, many(7, captured))
	kept(noon, many(4, authorized))
	kept(noon, many(4, authorized))
	kept(noon, Event{Type: "refund.succeeded"})
	kept(noon, many(2, stolen))
	kept(noon, poor)
	r.after(time.Second)
	r.none() // 3 of 11
	kept(noon, stolen)
	r.after(time.Second)
	r.one(StateFiring, "shop: 4 of 12 payments failed within 60 minutes (33 %), most for stolen_card")
}

// TestKeptAgain: without a sink a delivery is kept each time that it comes, and what it tells
// happened once: its payments are counted once, its events told once, and it is a repeat. A restart
// knows what came before it from the log.
func TestKeptAgain(t *testing.T) {
	r := newRig(t, Rule{Name: "declines", When: WhenDeclines, Count: 4, Within: time.Hour, Share: 30},
		Rule{Name: "failed", When: WhenEvent, Types: []string{"payment.failed"}}, Rule{Name: "again", When: WhenRepeats, Count: 5, Within: time.Hour})
	r.sinkless = true
	r.restart()
	said := map[string][]Message{}
	life := func(events ...Event) {
		t.Helper()
		for _, ev := range events {
			ev.Source, ev.At, ev.Outcome = "shop", noon, Kept
			r.log.add(ev)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.e.follow(ctx, Want{Fields: true, Events: true}) })
		for end := time.Now().Add(time.Minute); r.position() < r.log.Head(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the log is not followed")
			}
		}
		cancel()
		wg.Wait()
		r.after(time.Second)
		for _, m := range r.messages() {
			said[m.Rule] = append(said[m.Rule], m)
		}
		r.stop()
		r.restart()
	}
	failed := func(id uint64) Event { return Event{ID: id, Type: "payment.failed", Failure: "stolen_card"} }
	captured := func(id uint64) Event { return Event{ID: id, Type: "payment.captured"} }
	batch := captured(2)
	batch.Others = []*Event{{ID: 3, Item: 1, Outcome: Kept, Source: "shop", At: noon, Type: "payment.captured"}, {ID: 4, Item: 2, Outcome: Kept, Source: "shop", At: noon, Type: "payment.captured"}}
	life(Event{ID: 99, Type: "refund.succeeded"}) // what was there at the very first start teaches alone
	life(failed(1), failed(1), batch, failed(1))  // 1 of 4
	if len(said["declines"]) > 0 || len(said["again"]) > 0 || len(said["failed"]) != 1 || said["failed"][0].Count != 1 {
		t.Fatalf("told %+v", said)
	}
	again := batch // what was sent again together with something new
	life(failed(1), again)
	if len(said["declines"]) > 0 || len(said["again"]) > 0 || len(said["failed"]) != 1 {
		t.Fatalf("told after a restart %+v", said)
	}
	// An event without an identity is always new.
	life(failed(1), failed(0), failed(0))
	if len(said["declines"]) != 1 || !strings.HasPrefix(said["declines"][0].Lines[0], "shop: 3 of 6 payments failed") || len(said["failed"]) != 2 || said["failed"][1].Count != 2 {
		t.Errorf("told %+v", said)
	}
	if len(said["again"]) != 1 || !strings.HasPrefix(said["again"][0].Lines[0], "shop: 5 deliveries came again") {
		t.Errorf("told of repeats %+v", said["again"])
	}
}

// TestToldIsBounded: of the oldest events it is forgotten that they came.
func TestToldIsBounded(t *testing.T) {
	var seen told
	seen.reached(true)
	for range 2 {
		if seen.again(&Event{ID: 1}) {
			t.Error("known before anybody wanted to know")
		}
	}
	if from, again := seen.begin(toldRecords+7), seen.begin(toldRecords+9); from != 7 || again != 9 || seen.begin(3) != 0 {
		t.Errorf("begins at %d and, cut off, at %d", from, again)
	}
	if seen.reached(true); seen.begin(9) != 9 {
		t.Error("what is known is read again")
	}
	for id := uint64(1); id <= maxTold+2; id++ {
		if seen.again(&Event{ID: id}) {
			t.Fatalf("%d is not known", id)
		}
	}
	if seen.again(&Event{ID: 1}) || seen.again(&Event{ID: 2}) || !seen.again(&Event{ID: 5}) || !seen.again(&Event{ID: maxTold}) {
		t.Error("the oldest are forgotten first")
	}
	if len(seen.ids) != maxTold || len(seen.order) != maxTold {
		t.Errorf("%d events are known", len(seen.ids))
	}
}

// fakePayments holds authorizations, and which of them are concluded.
type fakePayments struct {
	list      []Payment
	concluded []string // order ids
	err       error
}

func (f *fakePayments) Authorized(_ context.Context, from, to time.Time, g func(Payment)) error {
	for _, p := range f.list {
		if !p.At.Before(from) && p.At.Before(to) {
			g(p)
		}
	}
	return f.err
}

func (f *fakePayments) Concluded(_ context.Context, p Payment) (bool, error) {
	return slices.Contains(f.concluded, p.OrderID), f.err
}

func TestUncaptured(t *testing.T) {
	day := 24 * time.Hour
	r := &rig{t: t, store: &memory{kept: map[string][]byte{}}, log: &fakeLog{}, now: noon,
		conf: Config{Channels: []Channel{{Name: "ops", Kind: Slack, URL: "https://chat.example/x"}}, Rules: []Rule{{Name: "held", When: WhenUncaptured, After: 5 * day, Group: 0}}}}
	auth := func(order string, ago time.Duration) Payment {
		return Payment{Source: "shop", PaymentID: "p-" + order, OrderID: order, Delivery: "01" + order, At: noon.Add(-ago)}
	}
	f := &fakePayments{list: []Payment{auth("history", 6*day), auth("two", 3*day+time.Hour), auth("captured", 3*day), auth("new", time.Hour), {Source: "shop", At: noon.Add(-3 * day)}}, concluded: []string{"captured"}}
	r.paid = f
	r.restart()
	r.after(0)
	r.after(day)
	r.none()
	r.stop()
	r.restart()
	r.after(day)
	m := r.one(StateFiring, "shop: order two, payment p-two, authorized 5 days ago, neither captured nor canceled")
	if len(m.Lines) != 1 || m.Delivery != "01two" {
		t.Errorf("%+v", m)
	}
	r.after(time.Hour)
	r.none()
	r.stop()
	r.restart() // it is still known, and its end is seen
	r.after(time.Hour)
	r.none()
	f.concluded = append(f.concluded, "two")
	f.err = fmt.Errorf("the index is away")
	r.after(time.Hour)
	r.none()
	f.err = nil
	r.after(time.Hour)
	r.one(StateRecovered, "order two")
	r.after(3 * day)
	r.one(StateFiring, "order new")
}

// TestSilence: what is usual at an hour is learned; nights are quiet and noons are not.
func TestSilence(t *testing.T) {
	r := newRig(t, Rule{Name: "silent", When: WhenSilence, Floor: 10 * time.Minute, Factor: 2, Group: 0})
	deliver := func() { r.see(Event{Source: "shop", At: r.clock()}) }
	workday := func() { // from 8 to 20, every 5 minutes
		for range 12 * 24 {
			if h := r.clock().Hour(); h >= 8 && h < 20 {
				deliver()
			}
			r.after(5 * time.Minute)
		}
	}
	for range 5 {
		workday()
		r.none()
	}
	monday := noon.Add(5 * 24 * time.Hour)
	if !r.clock().Equal(monday) {
		t.Fatal(r.clock())
	}
	for range 12 {
		deliver()
		r.after(5 * time.Minute)
	}
	r.none()
	r.after(4 * time.Minute)
	r.none()
	r.after(3 * time.Minute)
	r.one(StateFiring, "shop: nothing came for 12 minutes; 5 minutes is the longest that is usual")
	r.stop()
	r.restart()
	r.after(time.Minute)
	r.none() // still missed, and told already
	r.after(time.Hour)
	r.none()
	deliver()
	r.after(time.Second)
	r.one(StateRecovered, "shop")
	for range 12 {
		deliver()
		r.after(5 * time.Minute)
	}
	r.none()
	r.after(10 * time.Minute)
	r.one(StateFiring) // the pause that somebody was woken for is not usual now
}

// TestSilenceOfTheGateway: while the gateway is down nobody can deliver.
func TestSilenceOfTheGateway(t *testing.T) {
	r := newRig(t, Rule{Name: "silent", When: WhenSilence, Floor: 10 * time.Minute, Factor: 2, Group: 0})
	for range 30 * 12 {
		r.see(Event{Source: "shop", At: r.clock()})
		r.after(5 * time.Minute)
	}
	r.none()
	r.stop()
	r.now = r.now.Add(2 * time.Hour)
	r.restart()
	r.after(time.Minute)
	r.none()
	r.after(11 * time.Minute)
	r.one(StateFiring, "shop")
}
