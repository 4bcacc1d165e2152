package admin

import (
	"html/template"
	"net/url"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// The parts as html/template draws them, which knows where a value stands and what may not
// stand there.
const drawnByTemplate = `{{define "rows"}}<div class="scroll"><table class="rows" data-keys>
<thead><tr><th>Received (UTC)</th><th>Source</th><th>What became of it</th><th>Type</th><th class="num">Amount</th><th>Order</th><th>Payment</th><th>Status</th><th>Event id</th></tr></thead>
<tbody>
{{range .}}<tr data-id="{{.ID}}">
<td class="at-when"><a class="open" href="/deliveries/{{path .ID}}"><time datetime="{{iso .ReceivedAt}}">{{short .ReceivedAt}}</time></a></td>
<td class="at-source">{{.Source}}</td>
<td class="at-state">{{template "state" .State}}{{if .Note}} <span class="sub">{{.Note}}</span>{{end}}</td>
<td class="at-type"{{if .EventType}} title="the provider calls it {{.EventType}}"{{end}}>{{if .Type}}{{.Type}}{{else}}{{.EventType}}{{end}}</td>
<td class="at-amount num">{{money .AmountMinor .Currency}}</td>
<td class="at-order id clip"{{if .OrderID}} data-copy title="{{.OrderID}}"{{end}}>{{.OrderID}}</td>
<td class="at-payment id clip"{{if .PaymentID}} data-copy title="{{.PaymentID}}"{{end}}>{{.PaymentID}}</td>
<td class="at-status">{{.Status}}</td>
<td class="at-event id clip"{{if .EventID}} title="{{.EventID}}"{{end}}>{{.EventID}}</td>
</tr>
{{end}}</tbody>
</table></div>{{end}}
{{define "bars"}}{{range .}}<a href="{{.Href}}" tabindex="-1"><title>{{short .At}}: {{.Accepted}} accepted, {{.Rejected}} refused{{if .Challenge}}, {{.Challenge}} handshakes{{end}}</title><rect class="back" x="{{.X}}" y="0" width="10" height="100"/>{{if .AcceptedH}}<rect class="accepted" x="{{.X}}" y="{{.AcceptedY}}" width="9" height="{{.AcceptedH}}"/>{{end}}{{if .ChallengeH}}<rect class="challenge" x="{{.X}}" y="{{.ChallengeY}}" width="9" height="{{.ChallengeH}}"/>{{end}}{{if .RejectedH}}<rect class="rejected" x="{{.X}}" y="{{.RejectedY}}" width="9" height="{{.RejectedH}}"/>{{end}}</a>
{{end}}{{end}}
{{define "groups"}}<div class="scroll"><table class="cards" data-keys>
<thead><tr><th>Last (UTC)</th><th>Source</th><th>Why</th><th class="num">Refused</th><th></th></tr></thead>
<tbody>{{range .Groups}}<tr data-id="{{.Sample}}">
<td data-label="Last"><a class="open" href="/deliveries/{{path .Sample}}"><time datetime="{{iso .Last}}">{{short .Last}}</time></a><br><span class="sub">{{ago .Last}}</span></td>
<td data-label="Source"><a href="/sources/{{path .Source}}">{{.Source}}</a></td>
<td data-label="Why" class="words"><code>{{.Reason}}</code><br>{{.Why}}</td>
<td data-label="Refused" class="num"><a href="{{.Href}}">{{count .Count}}</a><br><span class="sub">since {{short .First}}</span></td>
<td>{{if $.CanDo}}<details class="confirm"><summary>Re-verify all …</summary><form method="post" action="/refused/reverify"><input type="hidden" name="filter" value="{{.Filter}}">
<p>Checks all of them again with today's credentials, also those older than shown here, up to 10 000. What verifies now is released: deduplicated and published.</p><button class="main">Re-verify them now</button></form></details>{{end}}</td>
</tr>
{{end}}</tbody></table></div>{{end}}
{{define "dead"}}<div class="scroll"><table class="cards" data-keys>
<thead><tr><th>Received (UTC)</th><th>Source</th><th>Why</th><th>Type</th><th>Order</th></tr></thead>
<tbody>{{range .Dead}}<tr data-id="{{.ID}}">
<td data-label="Received"><a class="open" href="/deliveries/{{path .ID}}"><time datetime="{{iso .ReceivedAt}}">{{short .ReceivedAt}}</time></a></td>
<td data-label="Source">{{.Source}}</td><td data-label="Why" class="words">{{.Why}}</td><td data-label="Type">{{.Type}}</td><td data-label="Order" class="id">{{.OrderID}}</td>
</tr>
{{end}}</tbody></table></div>{{end}}`

func reference(t testing.TB, w *world) func(name string, data any) string {
	t.Helper()
	pages, err := parsePages(w.server)
	if err == nil {
		pages, err = pages.Parse(drawnByTemplate)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(name string, data any) string {
		var b strings.Builder
		if err := pages.ExecuteTemplate(&b, name, data); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
}

// nasty are words that end something wherever they are not escaped.
var nasty = []string{"", "plain", `<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, "a&amp;b&", "</title></svg><b>",
	"\x00\x01\x7f", "\u2028\u2029", "\xff\xfe broken \xc3", "1+1=2", "`x`", "javascript:alert(1)", "день 日本 🙂", "</td></tr></table>", "{{.}}"}

func nastyRow(word string) rowView {
	minor := int64(-5)
	r := archive.Row{ID: "01JCQ0000000000000PVB00001", ReceivedAt: time.Date(2026, 5, 28, 20, 26, 40, 123456789, time.FixedZone("", 7200)), Source: word, Verdict: "accepted",
		Reason: word, Outcome: word, EventID: word, EventType: word, Type: word, OrderID: word, PaymentID: word, Status: word, Currency: word, AmountMinor: &minor}
	return viewRow(&r)
}

// TestDrawnAsTemplate: what is drawn by hand is, to the byte, what html/template makes of it.
func TestDrawnAsTemplate(t *testing.T) {
	w := newWorld(t, nil)
	by := reference(t, w)
	same := func(name string, data any, got template.HTML) {
		t.Helper()
		if want := by(name, data); string(got) != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	same("rows", []rowView{}, w.server.drawRows(nil))
	for _, word := range nasty {
		row := nastyRow(word)
		same("rows", []rowView{row, row}, w.server.drawRows([]rowView{row, row}))
	}
	only := nastyRow("")
	only.AmountMinor, only.EventType, only.State = nil, "charge.refunded", "published"
	same("rows", []rowView{only}, w.server.drawRows([]rowView{only}))
	// An id is ours, but who knows: an address has rules of its own.
	foreign := nastyRow("x")
	foreign.ID = `"><script>alert(1)</script>/../?a=b`
	if got := string(w.server.drawRows([]rowView{foreign})); strings.Contains(got, "<script") || !strings.Contains(got, `href="/deliveries/%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E%2F..%2F%3Fa=b"`) {
		t.Errorf("an id of another kind: %s", got)
	}
	h := histogram{Step: time.Hour}
	at := time.Date(2026, 5, 28, 20, 0, 0, 0, time.UTC)
	buckets := []archive.CountBucket{{At: at}, {At: at.Add(time.Hour)}, {At: at.Add(2 * time.Hour)}}
	buckets[1].Accepted, buckets[1].Rejected, buckets[1].Challenge = 7000, 3, 1
	buckets[2].Rejected = 9
	for _, word := range nasty {
		groups := []refusedGroup{{Source: word, Reason: word, Why: word, Count: 1234, First: at, Last: at.Add(time.Minute), Sample: publishedID,
			Filter: url.Values{"source": {word}}.Encode(), Href: "/?" + url.Values{"source": {word}, "reason": {word}}.Encode()}}
		dead := []deadView{{nastyRow(word), word}, {nastyRow(word), word}}
		for _, may := range []bool{false, true} {
			same("groups", map[string]any{"Groups": groups, "CanDo": may}, w.server.drawGroups(groups, may))
		}
		same("dead", map[string]any{"Dead": dead}, drawDead(dead))
	}
	h.draw(buckets, "q=%3Cscript%3E&source=a%26b")
	same("bars", h.Bars, drawBars(h.Bars))
}

func FuzzDrawnAsTemplate(f *testing.F) {
	for _, word := range nasty {
		f.Add(word)
	}
	w := newWorld(f, nil)
	by := reference(f, w)
	f.Fuzz(func(t *testing.T, word string) {
		rows := []rowView{nastyRow(word)}
		if got, want := string(w.server.drawRows(rows)), by("rows", rows); got != want {
			t.Errorf("%q:\n got %s\nwant %s", word, got, want)
		}
	})
}

// BenchmarkDraw is a list of 50 rows with its 96 bars.
func BenchmarkDraw(b *testing.B) {
	w := newWorld(b, nil)
	by := reference(b, w)
	rows, h := make([]rowView, 50), histogram{Step: 15 * time.Minute}
	for i := range rows {
		rows[i] = nastyRow("pi_3Nv2Kx2eZvKYlo2C00001234")
	}
	at := time.Date(2026, 5, 28, 0, 0, 0, 0, time.UTC)
	buckets := make([]archive.CountBucket, 96)
	for i := range buckets {
		buckets[i].At, buckets[i].Accepted, buckets[i].Rejected = at.Add(time.Duration(i)*h.Step), int64(i), 1
	}
	h.draw(buckets, "source=stripe-0")
	b.Run("template", func(b *testing.B) {
		for b.Loop() {
			by("rows", rows)
			by("bars", h.Bars)
		}
	})
	b.Run("code", func(b *testing.B) {
		for b.Loop() {
			w.server.drawRows(rows)
			drawBars(h.Bars)
		}
	})
	b.Run("whole page", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.server.draw("list.html", &listPage{Rows: rows, Histogram: &h}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
