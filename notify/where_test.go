package notify

import (
	"strings"
	"testing"
)

// A condition narrows what types and match let through, and reads the log for no event
// whose outcome says all that it asks.
func TestWhere(t *testing.T) {
	big, small := int64(500_000), int64(100)
	event := func() *Event {
		return &Event{Outcome: "published", Type: "payment.failed", EventType: "charge.failed", Currency: "UAH", AmountMinor: &big, Livemode: "true"}
	}
	for _, c := range []struct {
		where  string
		change func(*Event)
		want   bool
		reads  bool
	}{
		{where: `amount.minor > 100000 and amount.currency == "UAH"`, want: true},
		{where: `amount.minor > 100000`, change: func(ev *Event) { ev.AmountMinor = &small }},
		{where: `amount.minor > 100000`, change: func(ev *Event) { ev.AmountMinor = nil }},
		{where: `type startsWith "payment." and not (status in ["a", "b"])`, want: true},
		{where: `provider_type == "charge.failed" and livemode`, want: true},
		{where: `livemode`, change: func(ev *Event) { ev.Livemode = "false" }},
		{where: `tenant == "m1"`, want: true, reads: true},
		{where: `source == "shop" and tenant == "m2"`, reads: true},
	} {
		e := &Engine{}
		r := newRule(Rule{Name: "big", When: WhenEvent, Types: []string{"payment.*"}, Where: c.where})
		ev, reads := event(), false
		ev.More = func(ev *Event) { reads = true; ev.Source, ev.Tenant = "shop", "m1" }
		if c.change != nil {
			c.change(ev)
		}
		if got := e.wants(r, ev); got != c.want {
			t.Errorf("%s: %v, want %v", c.where, got, c.want)
		}
		if reads != (c.reads || c.want) {
			t.Errorf("%s: reads the log: %v", c.where, reads)
		}
	}
	if err := CheckWhere(strings.Repeat(" ", 1001)); err == nil || !strings.HasPrefix(err.Error(), "1:1: has 1001 bytes") {
		t.Errorf("a long condition: %v", err)
	}
	for where, want := range map[string]string{`amount > 5`: "1:8: ", `wrong == "a"`: "1:1: unknown name wrong", `map([1], true)`: "1:1: there is no function map"} {
		if err := CheckWhere(where); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", where, err, want)
		}
	}
	conf := Config{Rules: []Rule{{Name: "big", When: WhenEvent, Where: "amount.minor >"}}}
	if err := Check(conf); err == nil || !strings.Contains(err.Error(), "rule big: where: 1:") {
		t.Errorf("a condition that cannot be read: %v", err)
	}
}
