package forward

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

func routed(t *testing.T, rs ...Route) func(string) *SourceInfo {
	t.Helper()
	routes, err := CompileRoutes(rs)
	if err != nil {
		t.Fatal(err)
	}
	return func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "webhooks.{source}", Routes: routes}
	}
}

// says gives the outcomes of a delivery as text: what became of it, where, by which route.
func (r *rig) says(d *archive.Delivery) []string {
	var out []string
	for _, o := range r.outcomes(d) {
		out = append(out, fmt.Sprintf("%d/%d %v %s (%s)", o.Item, o.Items, o.Kind, o.Topic, o.Reason))
	}
	return out
}

func (r *rig) wantSays(d *archive.Delivery, want ...string) {
	r.t.Helper()
	got := map[string]bool{}
	for _, s := range r.says(d) {
		got[s] = true
	}
	for _, w := range want {
		if !got[w] {
			r.t.Errorf("no outcome %q among %v", w, got)
		}
	}
	if len(got) != len(want) {
		r.t.Errorf("%d outcomes, want %d: %v", len(got), len(want), got)
	}
}

func TestRoutes(t *testing.T) {
	r := newRig(t, nil)
	r.infos = routed(t,
		Route{Name: "tickets", When: `subject startsWith "ticket:"`, Topic: "tickets", Key: "{provider}/{entity}"},
		Route{When: `subject startsWith "ticket:" and subject endsWith "!"`, Topic: "loud.{family}"},
		Route{Name: "twice", When: `subject endsWith "!"`, Topic: "tickets"},
		Route{Name: "noise", When: `subject == "ping" or subject == "ticket:drop"`, Drop: true},
		Route{Name: "late", When: `subject == "ticket:drop"`, Topic: "never"},
		Route{Name: "broken", When: `1 % len(card_mask) == 1`, Topic: "never"})
	r.start()
	ticket := r.put("s", body{ID: "a", Key: "ticket:1"})
	loud := r.put("s", body{ID: "b", Key: "ticket:2!"})
	ping := r.put("s", body{ID: "c", Key: "ping"})
	kept := r.put("s", body{ID: "d", Key: "ticket:drop"})
	other := r.put("s", body{ID: "e", Key: "order"})
	twin := r.put("s", body{ID: "b", Key: "ticket:2!"})
	items := r.put("s", body{ID: "m", Key: "ticket:3!", Items: 2})
	r.drained()
	r.wantSays(ticket, "0/1 published tickets (tickets)")
	r.wantSays(loud, "0/2 published tickets (tickets)", "1/2 published loud.payment (2)")
	r.wantSays(ping, "0/1 filtered  (dropped by route noise)")
	r.wantSays(kept, "0/1 published tickets (tickets)")
	r.wantSays(other, "0/1 published webhooks.s (default)")
	r.wantSays(twin, "0/2 duplicate  ()", "1/2 duplicate  ()")
	r.wantSays(items, "0/4 published tickets (tickets)", "1/4 published loud.payment (2)", "2/4 published tickets (tickets)", "3/4 published loud.payment (2)")
	if got := r.k.records("tickets"); len(got) != 5 || got[0].key[:5] != "prov/" {
		t.Errorf("tickets: %+v", got)
	}
	if got := r.k.records("loud.payment"); len(got) != 3 || got[0].key[:7] != "ticket:" {
		t.Errorf("loud.payment: %+v", got)
	}
	if len(r.k.records("never")) > 0 {
		t.Error("a route took what an earlier one dropped, or what its expression failed on")
	}
	if n := r.metric("penstock_route_errors_total"); n == 0 {
		t.Error("the expression that fails is not counted")
	}
	if n := r.metric("penstock_events_total"); n != 6 {
		t.Errorf("%v events are counted, want 6: an event is one, however many routes take it", n)
	}
	r.stop()
}

// TestRouteBlocked: one route of an event is blocked, the other goes on; the blocked one
// arrives when its topic opens, after a restart too.
func TestRouteBlocked(t *testing.T) {
	r := newRig(t, nil)
	r.infos = routed(t, Route{Name: "a", When: "true", Topic: "ta"}, Route{Name: "b", When: "true", Topic: "tb"})
	r.k.set(func() { r.k.blocked["tb"] = "missing" })
	r.start()
	d := r.put("s", body{ID: "x", Key: "k"})
	r.until("the open route", func() bool { return len(r.k.records("ta")) == 1 })
	r.until("the blocked one is held", func() bool { return len(r.outcomes(d)) == 2 })
	r.wantSays(d, "0/2 published ta (a)", "1/2 held tb (topic_blocked)")
	r.crash()
	r.k.set(func() { delete(r.k.blocked, "tb") })
	r.start()
	r.drained()
	if a, b := len(r.k.records("ta")), len(r.k.records("tb")); a != 1 || b != 1 {
		t.Errorf("%d and %d records, want one each", a, b)
	}
	r.stop()
}

// TestRouteCrash kills the pump between the acks of an event's routes, again and again:
// at the end every topic has every event once.
func TestRouteCrash(t *testing.T) {
	r := newRig(t, nil)
	r.infos = routed(t, Route{Name: "a", When: "true", Topic: "ta", Key: "{entity}"}, Route{Name: "b", When: `subject != "k1"`, Topic: "tb", Key: "{tenant}"},
		Route{Name: "n", When: `subject == "k2"`, Drop: true}, Route{Name: "c", When: "true", Topic: "tc"})
	r.slow = 2 * time.Millisecond
	n := 0
	for range 20 {
		r.start()
		for range rand.N(60) {
			m := n
			if n > 0 && rand.N(4) == 0 {
				m = rand.N(n)
			}
			r.put("s", body{ID: "e" + strconv.Itoa(m), Key: "k" + strconv.Itoa(m%5)})
			n = max(n, m+1)
		}
		time.Sleep(rand.N(25 * time.Millisecond))
		r.crash()
	}
	r.start()
	r.drained()
	want := map[string]func(int) bool{
		"ta": func(int) bool { return true }, "tb": func(m int) bool { return m%5 != 1 },
		"tc": func(m int) bool { return m%5 != 2 }}
	for topic, takes := range want {
		got := ids(r.k.records(topic))
		for m := range n {
			times := 0
			if takes(m) {
				times = 1
			}
			if id := "e" + strconv.Itoa(m); got[id] != times {
				t.Errorf("%s is in %s %d times, want %d", id, topic, got[id], times)
			}
		}
	}
	r.stop()
}

// TestRouteReplay: a replay goes by the routes under which the delivery was accepted, to
// every topic that had it.
func TestRouteReplay(t *testing.T) {
	r := newRig(t, nil)
	r.infos = routed(t, Route{Name: "a", When: "true", Topic: "ta"}, Route{Name: "b", When: "true", Topic: "tb"})
	r.start()
	d := r.put("s", body{ID: "x", Key: "k"})
	r.drained()
	// Of both ways: a replay goes where the index says that it went.
	r.until("the index has the outcomes", func() bool { return r.a.IndexLag() == 0 })
	j, err := r.p.Replay(t.Context(), ReplayRequest{IDs: []string{d.ID}})
	if err != nil {
		t.Fatal(err)
	}
	r.until("the replay", func() bool { s, _ := r.p.ReplayJob(j.ID); return s.State == JobDone })
	for _, topic := range []string{"ta", "tb"} {
		got := r.k.records(topic)
		if len(got) != 2 || got[1].headers["ce_replay"] != j.ID {
			t.Errorf("%s: %+v", topic, got)
		}
	}
	r.stop()
}

// TestRouteLater: a topic that is routed to later says nothing about what another topic
// had, and the default's evidence holds across the change.
func TestRouteLater(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	first := r.put("s", body{ID: "x", Key: "k"})
	r.drained()
	r.stop()
	r.reopen()
	r.infos = routed(t, Route{Name: "new", When: "true", Topic: "new"}, Route{Name: "old", When: "true", Topic: "webhooks.{source}"})
	r.start()
	again := r.put("s", body{ID: "x", Key: "k"})
	r.drained()
	r.wantSays(first, "0/1 published webhooks.s ()")
	r.wantSays(again, "0/2 published new (new)", "1/2 duplicate  ()")
	r.stop()
}

func TestTopicOfTemplates(t *testing.T) {
	r := newRig(t, nil)
	r.infos = func(source string) *SourceInfo {
		return &SourceInfo{Name: source, Provider: "prov", Definition: fakeDef{}, Topic: "{provider}.{source}.{family}.{type}." + strings.Repeat("x", len(source)-1), Key: "{family}|{type}|{entity}|{tenant}"}
	}
	r.start()
	fits := r.put("s", body{ID: "a", Key: "k"})
	long := r.put("s"+strings.Repeat("0", 200), body{ID: "a", Key: "k"})
	r.drained()
	r.wantSays(fits, "0/1 published prov.s.payment.payment.captured. ()")
	r.wantSays(long, "0/1 dead dead (bad_topic)")
	if got := r.k.records("prov.s.payment.payment.captured."); len(got) != 1 || got[0].key != "payment|payment.captured|k|" {
		t.Errorf("%+v", got)
	}
	r.stop()
}

var regexpPlace = regexp.MustCompile(`^\d+:\d+: `)

func TestCheckRoute(t *testing.T) {
	for _, good := range []string{
		`order_id startsWith "ticket:"`, `type == "payment.captured" and amount.minor > 10000 and amount.currency == "EUR"`,
		`family in ["payment", "refund"] and not (failure.reason == "expired_card")`, `lower(trim(tenant)) matches "^shop-[0-9]+$"`,
		"livemode", "true", `len(id) > 3 ? needs_fetch : false`,
	} {
		if err := CheckRoute(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		`orderid == "x"`:                "1:1: unknown name orderid",
		`type == "x" and tenent == "y"`: "1:17: unknown name tenent",
		`type`:                          "expected bool, but got string",
		`amount.minor == "x"`:           "1:14: invalid operation",
		`type == `:                      "1:8: ",
		`len(1..100000000) > 3`:         "ranges (..) are not used here",
		`type matches provider`:         "a pattern of matches must stand here in quotes",
		`all([1,2], # > 0)`:             "1:1: there is no function all here",
		`repeat(type, 100000000) == ""`: "1:1: there is no function repeat here",
		`type == "` + strings.Repeat("x", 1000) + `"`:       "has 1010 bytes; an expression has at most 1000",
		`type matches "("`:                                  "1:6: error parsing regexp",
		`sum(map(1..9, # * 2)) > 1`:                         "1:",
		strings.Repeat("(", 400) + strings.Repeat(")", 400): "1:",
	} {
		err := CheckRoute(bad)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", bad, err, want)
		} else if !regexpPlace.MatchString(err.Error()) {
			t.Errorf("%.60s: %v has no place", bad, err)
		}
	}
}

// FuzzRoute: an expression that compiles is evaluated in bounded time and never panics.
func FuzzRoute(f *testing.F) {
	for _, s := range []string{`order_id startsWith "ticket:"`, `amount.minor % 2 == 0`, `type[0:3] == "pay"`, `let x = type; x == x`, `[type, id][5] == ""`, `$env["x"] == 1`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, when string) {
		rs, err := CompileRoutes([]Route{{When: when, Topic: "t"}})
		if err != nil {
			return
		}
		began := time.Now()
		_, _ = rs.list[0].when.Run(routeEnv{Type: strings.Repeat("payment.", 100)})
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%q ran for %v", when, d)
		}
	})
}

func TestLegalTopic(t *testing.T) {
	for _, name := range []string{"a", "webhooks.stripe", "A-Z_09.x", "...", strings.Repeat("x", 249)} {
		if !legalTopic(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "a\n", "é", "a\x00", "{type}", strings.Repeat("x", 250)} {
		if legalTopic(name) {
			t.Errorf("%q is taken", name)
		}
	}
}
