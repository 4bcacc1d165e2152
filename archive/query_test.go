package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"
)

// all pages through a query.
func all(t testing.TB, x *index, f Filter) []Row {
	t.Helper()
	var rows []Row
	for {
		p, err := x.query(context.Background(), &f)
		if err != nil {
			t.Fatalf("query %+v: %v", f, err)
		}
		rows = append(rows, p.Rows...)
		if p.Next == "" {
			return rows
		}
		f.Cursor = p.Next
	}
}

// model is the brute force that queries are compared with: what each delivery's records
// say, without any of the index's code.
type model struct {
	d      *Delivery
	fields map[int]Fields
	kinds  map[int]OutcomeKind
	ofs    map[int]string
}

func buildModel(g *fakeLogs) []*model {
	by := map[uint64]*model{}
	var list []*model
	for _, records := range g.logs {
		for _, r := range records {
			if r.Delivery == nil {
				continue
			}
			m := &model{d: r.Delivery, fields: map[int]Fields{}, kinds: map[int]OutcomeKind{}, ofs: map[int]string{}}
			if f, ok := fakeExtract(r.Delivery); ok && r.Delivery.Verdict != Challenge {
				m.fields[0] = f
			}
			by[r.Seq] = m
			list = append(list, m)
		}
	}
	for _, r := range g.logs[0] {
		if o := r.Outcome; o != nil && o.Replay == "" {
			m := by[o.Delivery]
			m.kinds[o.Item], m.ofs[o.Item] = o.Kind, o.Of
			if o.Fields != (Fields{}) {
				m.fields[o.Item] = o.Fields
			}
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].d, list[j].d
		if !a.ReceivedAt.Equal(b.ReceivedAt) {
			return a.ReceivedAt.After(b.ReceivedAt)
		}
		return a.Seq > b.Seq
	})
	return list
}

func (m *model) any(want string, get func(Fields) string) bool {
	if want == "" {
		return true
	}
	for _, f := range m.fields {
		if get(f) == want {
			return true
		}
	}
	return false
}

func (m *model) fits(f *Filter) bool {
	d := m.d
	eq := func(want, have string) bool { return want == "" || want == have }
	if !eq(f.Source, d.Source) || !eq(f.Provider, d.Provider) || !eq(f.Verdict, d.Verdict.String()) ||
		!eq(f.Reason, d.Reason) || !eq(f.Tenant, d.Tenant) {
		return false
	}
	if !f.From.IsZero() && d.ReceivedAt.Before(f.From) || !f.To.IsZero() && !d.ReceivedAt.Before(f.To) {
		return false
	}
	if f.Outcome == Pending && (len(m.kinds) > 0 || d.Verdict != Accepted) {
		return false
	}
	if f.Outcome != "" && f.Outcome != Pending {
		found := false
		for _, k := range m.kinds {
			found = found || k.String() == f.Outcome
		}
		if !found {
			return false
		}
	}
	if f.Livemode != nil && !m.any(fmt.Sprint(*f.Livemode), func(x Fields) string {
		if x.Livemode == nil {
			return ""
		}
		return fmt.Sprint(*x.Livemode)
	}) {
		return false
	}
	if f.Q != "" && !strings.Contains(strings.ToLower(m.text()), strings.ToLower(f.Q)) {
		return false
	}
	return m.any(f.EventType, func(x Fields) string { return x.EventType }) &&
		m.any(f.Type, func(x Fields) string { return x.Type }) &&
		m.any(f.EventID, func(x Fields) string { return x.EventID }) &&
		m.any(f.OrderID, func(x Fields) string { return x.OrderID }) &&
		m.any(f.PaymentID, func(x Fields) string { return x.PaymentID }) &&
		m.any(f.RequestID, func(x Fields) string { return x.RequestID }) &&
		m.any(f.IdempotencyKey, func(x Fields) string { return x.IdempotencyKey }) &&
		m.any(f.Status, func(x Fields) string { return x.Status })
}

func (m *model) row() Row {
	d := m.d
	r := Row{ID: d.ID, Seq: d.Seq, ReceivedAt: d.ReceivedAt, Source: d.Source, Provider: d.Provider,
		Verdict: d.Verdict.String(), Reason: d.Reason, Tenant: d.Tenant, RemoteIP: "192.0.2.7", Method: "POST",
		Path: "/in/x", Size: int64(len(d.Body))}
	seen := map[OutcomeKind]bool{}
	for _, k := range m.kinds {
		seen[k] = true
	}
	for _, k := range []OutcomeKind{Filtered, Duplicate, Dead, Held, Published} {
		if seen[k] {
			r.Outcome = k.String()
			if len(seen) > 1 {
				r.Outcomes = append([]string{k.String()}, r.Outcomes...)
			}
		}
	}
	if r.Outcome == "duplicate" {
		for i := 3; i >= 0; i-- {
			if m.kinds[i] == Duplicate {
				r.DuplicateOf = m.ofs[i]
			}
		}
	}
	for i := range 3 {
		if f, ok := m.fields[i]; ok {
			r.EventID, r.EventType, r.Type, r.OrderID, r.PaymentID = f.EventID, f.EventType, f.Type, f.OrderID, f.PaymentID
			r.RequestID, r.IdempotencyKey, r.Status, r.Currency = f.RequestID, f.IdempotencyKey, f.Status, f.Currency
			r.Livemode, r.AmountMinor = f.Livemode, f.AmountMinor
			break
		}
	}
	return r
}

// text is everything that free text looks at.
func (m *model) text() string {
	r := m.row()
	words := []string{r.ID, r.Source, r.Provider, r.Verdict, r.Reason, r.Tenant, r.RemoteIP, r.Method, r.Path, r.Outcome}
	for i := range 3 {
		if m.kinds[i] == Duplicate {
			words = append(words, m.ofs[i])
			break
		}
	}
	for _, f := range m.fields {
		words = append(words, f.EventID, f.EventType, f.Type, f.CEID, f.OrderID, f.PaymentID, f.Status, f.RequestID,
			f.IdempotencyKey, f.Currency)
	}
	return strings.Join(words, "\x00")
}

func expect(list []*model, f *Filter) []Row {
	var rows []Row
	for _, m := range list {
		if m.fits(f) {
			rows = append(rows, m.row())
		}
	}
	return rows
}

func compareRows(t *testing.T, f Filter, got, want []Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%+v: %d rows, want %d", f, len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("%+v: row %d\ngot  %+v\nwant %+v", f, i, got[i], want[i])
		}
	}
}

// Every filter alone with every value there is, then random combinations of them.
func TestQueryAgainstBruteForce(t *testing.T) {
	g := newFakeLogs(20)
	g.run(2500)
	x := memIndex(t)
	g.feed(t, x, 1)
	list := buildModel(g)
	compareRows(t, Filter{}, all(t, x, Filter{}), expect(list, &Filter{}))

	values := map[string][]string{
		"source": {"stripe", "stripe-eu", "liqpay", "nobody"}, "provider": {"stripe", "liqpay"},
		"verdict": {"accepted", "rejected", "challenge"}, "reason": {"signature_mismatch", "ip_not_allowed", "policy"},
		"outcome": {"published", "duplicate", "held", "dead", "filtered", "pending"}, "event_type": {"pay", "refund.Created"},
		"type": {"payment.captured", "refund.succeeded"}, "event_id": {"evt_1", "evt_77", "evt_x"},
		"order_id": {"Order:1", "Order:2", "order:1"}, "payment_id": {"pi_3", "pi_4"}, "tenant": {"m1", "m2"},
		"request_id": {"req_evt_5"}, "idempotency_key": {"idem-Order:5"}, "livemode": {"true", "false"},
		"status": {"success", "failure", "reversed"}, "from": {"2026-05-28T20:01:00Z", "-2h"},
		"to": {"2026-05-28T20:10:00Z", "2026-05-28T20:05:01Z"},
		"q":  {"ORDER:1", "stripe", "ublish", "192.0.2", "Twin", "nothing at all", "hush", "c", "failure"},
	}
	now := fakeEpoch.Add(2*time.Hour + 5*time.Minute)
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	sort.Strings(names)
	rng := rand.New(rand.NewPCG(20, 20))
	check := func(v url.Values) int {
		t.Helper()
		f, err := ParseFilter(v, now)
		if err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		f.Limit = 1 + rng.IntN(90)
		want := expect(list, &f)
		compareRows(t, f, all(t, x, f), want)
		return len(want)
	}
	hits := map[string]int{}
	for _, n := range names {
		for _, v := range values[n] {
			hits[n] += check(url.Values{n: {v}})
		}
		if hits[n] == 0 {
			t.Errorf("filter %s never found anything: the test tests nothing", n)
		}
	}
	found := 0
	for range 1500 {
		v := url.Values{}
		for range 2 + rng.IntN(3) {
			n := pick(rng, names...)
			v.Set(n, pick(rng, values[n]...))
		}
		if check(v) > 0 {
			found++
		}
	}
	if found < 100 {
		t.Errorf("only %d combinations found anything", found)
	}
}

// Rows that arrive between two pages do not shift the pages.
func TestCursorIsStableUnderInserts(t *testing.T) {
	g := newFakeLogs(21)
	g.run(600)
	x := memIndex(t)
	g.feed(t, x, 1)
	f := Filter{Source: "stripe", Limit: 7}
	want := all(t, x, f)
	var got []Row
	for {
		p, err := x.query(t.Context(), &f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Rows...)
		if p.Next == "" {
			break
		}
		f.Cursor = p.Next
		g.at = g.at.Add(time.Hour) // newer than all that is there
		for range 5 {
			g.delivery()
		}
		g.feed(t, x, 1)
	}
	if len(want) < 50 {
		t.Fatalf("only %d rows", len(want))
	}
	compareRows(t, f, got, want)
}

func TestCursorMustFitItsFilter(t *testing.T) {
	g := newFakeLogs(22)
	g.run(300)
	x := memIndex(t)
	g.feed(t, x, 1)
	now := fakeEpoch.Add(time.Hour)
	parse := func(q string) Filter {
		t.Helper()
		v, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(v, now)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := parse("source=stripe&from=-2h&limit=3")
	p, err := x.query(t.Context(), &f)
	if err != nil || p.Next == "" {
		t.Fatalf("next %q, %v", p.Next, err)
	}
	now = now.Add(time.Minute) // -2h is another time now, and still the same question
	good := parse("source=stripe&from=-2h&limit=500&cursor=" + p.Next)
	if _, err := x.query(t.Context(), &good); err != nil {
		t.Fatalf("same filter, other limit: %v", err)
	}
	flipped := []byte(p.Next)
	flipped[5] ^= 1
	for _, q := range []string{"source=liqpay&from=-2h&cursor=" + p.Next, "source=stripe&from=-3h&cursor=" + p.Next,
		"source=stripe&cursor=" + p.Next, "source=stripe&from=-2h&cursor=AAAA", "source=stripe&from=-2h&cursor=%00",
		"source=stripe&from=-2h&cursor=" + string(flipped), "source=stripe&from=-2h&cursor=" + p.Next + "A"} {
		bad := parse(q)
		if _, err := x.query(t.Context(), &bad); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: %v, want ErrCursor", q, err)
		}
	}
}

// A page that had to stop early says where to go on, and nothing is skipped or doubled.
func TestQueryStopsAtItsBudget(t *testing.T) {
	g := newFakeLogs(23)
	g.run(500)
	x := memIndex(t)
	g.feed(t, x, 1)
	list := buildModel(g)
	for _, f := range []Filter{{Q: "order:7"}, {Source: "stripe", Status: "reversed", Livemode: new(bool)}, {}} {
		x.maxScan = maxScan
		want := all(t, x, f)
		compareRows(t, f, want, expect(list, &f))
		x.maxScan = 10
		compareRows(t, f, all(t, x, f), want)
	}
	x.maxScan = maxScan
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	big := newFakeLogs(24)
	big.run(6000)
	y := memIndex(t)
	big.feed(t, y, 1)
	if _, err := y.query(ctx, &Filter{Q: "no such thing"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled query: %v", err)
	}
}

func TestParseFilterNamesTheParameter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	bad := func(query, want string) {
		t.Helper()
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(v, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
	bad("limit=0", "limit: ")
	bad("limit=501", "limit: ")
	bad("limit=x", "limit: ")
	bad("verdict=maybe", `verdict: "maybe" is none of accepted`)
	bad("outcome=lost", "outcome: ")
	bad("livemode=1", "livemode: ")
	bad("from=yesterday", "from: ")
	bad("from=-2", "from: ")
	bad("from=--2h", "from: ")
	bad("to=-xd", "to: ")
	bad("from=-1h&to=-2h", "to: ")
	bad("sorce=stripe", "sorce: there is no such filter")
	bad("sorce=", "sorce: there is no such filter")
	bad("source=a&source=b", "source: given 2 times")
	bad("q="+strings.Repeat("x", 2000), "q: ")
	good := func(query string, check func(f Filter) bool) {
		t.Helper()
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(v, now)
		if err != nil || !check(f) {
			t.Errorf("%s: %+v, %v", query, f, err)
		}
	}
	good("from=-2h", func(f Filter) bool { return f.From.Equal(now.Add(-2 * time.Hour)) })
	good("from=-7d", func(f Filter) bool { return f.From.Equal(now.AddDate(0, 0, -7)) })
	good("to=2026-05-28T20:26:40.5Z", func(f Filter) bool { return f.To.Nanosecond() == 5e8 })
	good("to=2026-05-28T20:26:40+02:00", func(f Filter) bool { return f.To.UTC().Hour() == 18 })
	good("limit=500&source=&q=", func(f Filter) bool { return f.Limit == 500 && f.Source == "" })
	good("livemode=false", func(f Filter) bool { return f.Livemode != nil && !*f.Livemode })
}

func TestTailDropsAndCounts(t *testing.T) {
	g := newFakeLogs(25)
	x := memIndex(t)
	a := &Archive{index: x}
	rows, cancel := a.Subscribe()
	slow, cancelSlow := a.Subscribe()
	defer cancelSlow()
	seq, _ := g.delivery()
	g.feed(t, x, 1)
	first := <-rows
	if first.Row.ID != g.ids[seq] || first.Dropped != 0 {
		t.Fatalf("tail gave %+v, want %s", first, g.ids[seq])
	}
	if !first.Matches(&Filter{Source: first.Row.Source}) || first.Matches(&Filter{Source: "other"}) {
		t.Fatal("tail row does not match as a row does")
	}
	cancel()
	cancel()
	if _, open := <-rows; open {
		t.Fatal("channel is open after cancel")
	}
	for range 3 * tailBuffer {
		g.delivery()
	}
	g.feed(t, x, 1)
	for range tailBuffer {
		<-slow
	}
	g.delivery()
	g.feed(t, x, 1)
	if r := <-slow; r.Dropped != 2*tailBuffer+1 {
		t.Fatalf("dropped = %d, want %d", r.Dropped, 2*tailBuffer+1)
	}
	if err := x.close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-slow; open {
		t.Fatal("channel is open after close")
	}
}

// A page whose time is up says how far it came, and the pages together are the whole.
func TestQueryBudget(t *testing.T) {
	g := newFakeLogs(21)
	g.run(2500)
	x := memIndex(t)
	g.feed(t, x, 1)
	list := buildModel(g)
	q := list[len(list)-len(list)/4].d.ID // far back
	whole := all(t, x, Filter{Q: q})
	f := Filter{Q: q, Budget: 1}
	var rows []Row
	early := 0
	for {
		p, err := x.query(t.Context(), &f)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, p.Rows...)
		if p.SearchedTo != nil {
			early++
			if p.Next == "" || len(p.Rows) > 0 && p.Rows[len(p.Rows)-1].ReceivedAt.Before(*p.SearchedTo) {
				t.Fatalf("searched to %s, next %q, with %d rows", p.SearchedTo, p.Next, len(p.Rows))
			}
		}
		if f.Cursor = p.Next; f.Cursor == "" {
			break
		}
	}
	if early == 0 || len(whole) == 0 {
		t.Error("no page ended before it was full")
	}
	if !reflect.DeepEqual(rows, whole) {
		t.Errorf("%d rows by pages, %d in one go", len(rows), len(whole))
	}
}
