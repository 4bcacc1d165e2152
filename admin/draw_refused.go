package admin

import (
	"html/template"
	"net/url"
	"time"
)

// drawGroups makes the table of what is refused, by source and reason. Who may do something
// has a form in each row.
func (s *Server) drawGroups(groups []refusedGroup, may bool) template.HTML {
	m := &markup{b: make([]byte, 0, 512+1400*len(groups))}
	m.raw(`<div class="scroll"><table class="cards" data-keys>
<thead><tr><th>Last (UTC)</th><th>Source</th><th>Why</th><th class="num">Refused</th><th></th></tr></thead>
<tbody>`)
	now := s.o.Now()
	for i := range groups {
		s.drawGroup(m, &groups[i], now, may)
	}
	m.raw("</tbody></table></div>")
	return template.HTML(m.b) //nolint:gosec // what is not ours went through markup.text
}

func (s *Server) drawGroup(m *markup, g *refusedGroup, now time.Time, may bool) {
	m.raw("<tr")
	m.attr("data-id", g.Sample)
	m.raw(">\n" + `<td data-label="Last">`)
	m.opens(g.Sample, g.Last)
	m.raw(`<br><span class="sub">`)
	m.text(ago(now.Sub(g.Last)))
	m.raw("</span></td>\n" + `<td data-label="Source"><a href="/sources/`)
	m.text(url.PathEscape(g.Source))
	m.raw(`">`)
	m.text(g.Source)
	m.raw("</a></td>\n" + `<td data-label="Why" class="words"><code>`)
	m.text(g.Reason)
	m.raw("</code><br>")
	m.text(g.Why)
	m.raw("</td>\n" + `<td data-label="Refused" class="num"><a`)
	m.attr("href", g.Href)
	m.raw(">")
	m.text(count(int64(g.Count)))
	m.raw(`</a><br><span class="sub">since `)
	m.time(g.First, shortTime)
	m.raw("</span></td>\n<td>")
	if may {
		m.raw(`<details class="confirm"><summary>Re-verify all …</summary><form method="post" action="/refused/reverify"><input type="hidden" name="filter"`)
		m.raw(` value="`)
		m.text(g.Filter)
		m.raw(`">
<p>Checks all of them again with today's credentials, also those older than shown here, up to 10 000. What verifies now is released: deduplicated and published.</p><button class="main">Re-verify them now</button></form></details>`)
	}
	m.raw("</td>\n</tr>\n")
}

// drawDead makes the table of dead letters.
func drawDead(rows []deadView) template.HTML {
	m := &markup{b: make([]byte, 0, 512+700*len(rows))}
	m.raw(`<div class="scroll"><table class="cards" data-keys>
<thead><tr><th>Received (UTC)</th><th>Source</th><th>Why</th><th>Type</th><th>Order</th></tr></thead>
<tbody>`)
	for i := range rows {
		r := &rows[i]
		m.raw("<tr")
		m.attr("data-id", r.ID)
		m.raw(">\n" + `<td data-label="Received">`)
		m.opens(r.ID, r.ReceivedAt)
		m.raw("</td>\n" + `<td data-label="Source">`)
		m.text(r.Source)
		m.raw(`</td><td data-label="Why" class="words">`)
		m.text(r.Why)
		m.raw(`</td><td data-label="Type">`)
		m.text(r.Type)
		m.raw(`</td><td data-label="Order" class="id">`)
		m.text(r.OrderID)
		m.raw("</td>\n</tr>\n")
	}
	m.raw("</tbody></table></div>")
	return template.HTML(m.b) //nolint:gosec // what is not ours went through markup.text
}

// opens is the link to a delivery, which says when it came.
func (m *markup) opens(id string, at time.Time) {
	m.raw(`<a class="open" href="/deliveries/`)
	m.text(url.PathEscape(id))
	m.raw(`"><time datetime="`)
	m.time(at, time.RFC3339Nano)
	m.raw(`">`)
	m.time(at, shortTime)
	m.raw("</time></a>")
}
