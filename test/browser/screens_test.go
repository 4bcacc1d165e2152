package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestScreens pictures every page, in both schemes and on a phone, over data as it comes.
func TestScreens(t *testing.T) {
	b := newTab(t)
	g := b.g
	g.send(t, "stripe", "--source", "shop-eu", "--count", "12")
	for i := range 14 {
		g.pay(t, liqpayKey, payment{"order_id": fmt.Sprintf("invoice-2026-%04d", 1000+i), "amount": 10.5 + float64(i*37), "status": []string{"success", "failure", "reversed"}[i%3]})
	}
	g.send(t, "stripe", "--source", "monobank", "--count", "6", "--duplicates", "2")
	g.send(t, "github", "--count", "4")
	g.send(t, "github", "--count", "3", "--tamper")
	g.send(t, "stripe", "--source", "shop-eu", "--count", "2", "--stale") // the longest reason there is
	published := g.pay(t, liqpayKey, payment{"order_id": "invoice-2026-0777", "description": "Кава та круасан", "sender_card_mask2": "414949*54"})
	g.pay(t, liqpayKey, payment{"order_id": "invoice-2026-0777", "status": "reversed", "action": "refund"})
	refused := g.pay(t, "an old key, rotated", payment{"order_id": "invoice-2026-0778"})
	g.post(t, "/in/liqpya", "x=1", "User-Agent", "LiqPay/1.0")
	g.post(t, "/.env", "", "User-Agent", "scanner")
	g.post(t, "/in/a-path-as-long-as-somebody-who-guesses-or-mistypes-might-send-one", "", "User-Agent", strings.Repeat("agent/1.0 ", 20))

	b.open("/login?next=/")
	b.look("light", 1360)
	b.readable("login light")
	b.shoot("login-light", true)
	b.look("dark", 1360)
	b.readable("login dark")
	b.shoot("login-dark", true)
	b.login(operatorToken, "/")
	b.open("/deliveries/" + published)
	b.until("it is published", "document.querySelector('#head .tag').innerText === 'published'")
	b.clickText("Replay …")
	b.clickText("Replay now")
	b.until("it is replayed", "document.querySelector('#timeline').innerText.includes('replayed')")
	for _, page := range [][2]string{{"overview", "/overview"}, {"deliveries", "/"}, {"delivery", "/deliveries/" + published}, {"refused-one", "/deliveries/" + refused},
		{"refused", "/refused"}, {"replays", "/replays"}, {"sources", "/sources"}, {"source", "/sources/liqpay"}, {"nothing", "/?order_id=not-there"}, {"audit", "/audit"}} {
		for _, look := range []struct {
			name, scheme string
			width        int64
		}{{"light", "light", 1360}, {"dark", "dark", 1360}, {"phone", "light", 390}} {
			b.look(look.scheme, look.width)
			b.open(page[1])
			b.until("the page is there", "document.readyState === 'complete' && document.querySelector('main')")
			wide, err := eval[string](b, `document.documentElement.scrollWidth > innerWidth ? [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, nav, .skip')).map((e) => e.outerHTML.slice(0, 120)).join('\n') : ''`)
			if err != nil {
				t.Fatal(err)
			}
			if wide != "" {
				t.Errorf("%s is wider than the %s screen:\n%s", page[0], look.name, wide)
			}
			if narrow, err := eval[string](b, `[...document.querySelectorAll('main time, main .tag')].filter((e) => e.getClientRects().length > 2).map((e) => e.parentElement.outerHTML.slice(0, 160)).join('\n')`); err != nil || narrow != "" {
				t.Errorf("%s squeezes on the %s screen: %v\n%s", page[0], look.name, err, narrow)
			}
			b.readable(page[0] + " " + look.name)
			b.shoot(page[0]+"-"+look.name, true)
		}
	}
}

// TestContrastIsMeasured: what cannot be read is found.
func TestContrastIsMeasured(t *testing.T) {
	b := newTab(t)
	b.run(chromedp.Navigate("about:blank"))
	page := `document.body.innerHTML = '<div style="background: #fff"><p style="color: #777">pale</p><p style="color: #767676">dark enough</p>' +
		'<p style="color: #888; font-size: 30px">large</p><p style="color: #000; opacity: .3">thin</p><p style="color: #fff"><b style="background: #0008">over half</b></p></div>' +
		'<input><label>named <input></label><select aria-label="named"></select><button></button>', true`
	if _, err := eval[bool](b, page); err != nil {
		t.Fatal(err)
	}
	found, err := eval[[]string](b, unreadable)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, f := range found {
		word, _, _ := strings.Cut(f, ":")
		words = append(words, word)
	}
	if got := strings.Join(words, ", "); got != "pale, thin, over half, <input>, <button></button>" {
		t.Errorf("found %s", strings.Join(found, "\n"))
	}
}

// readable asks of every text on the page what WCAG AA asks of it, and a name of every control.
func (b *tab) readable(what string) {
	b.t.Helper()
	found, err := eval[[]string](b, unreadable)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	if len(found) > 0 {
		b.t.Errorf("%s: not to be read by everybody:\n%s", what, strings.Join(found, "\n"))
	}
}

// unreadable lists texts whose colour stands out too little from what is behind them (4.5 to
// 1; 3 to 1 where they are large), and controls without a name. Grounds are laid over each
// other as they are painted; all of them are plain colours here.
const unreadable = `(() => {
  const colour = (s) => { const m = (s.match(/[\d.]+/g) || []).map(Number); return m.length < 3 ? [0, 0, 0, 0] : [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
  const over = (top, under) => { const a = top[3]; return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a)).concat(1); };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches && getComputedStyle(document.documentElement).colorScheme.includes('dark') ? [18, 18, 18, 1] : [255, 255, 255, 1];
  const chain = (e) => { const all = []; for (; e; e = e.parentElement) all.unshift(e); return all; };
  const found = [], say = (text, e, fg) => {
    const style = getComputedStyle(e), all = chain(e);
    let ground = canvas, shown = 1;
    for (const p of all) { const s = getComputedStyle(p); ground = over(colour(s.backgroundColor), ground); shown *= Number(s.opacity); }
    const c = colour(fg || style.color); c[3] *= shown;
    const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
    const have = contrast(over(c, ground), ground);
    if (have < (large ? 3 : 4.5)) found.push(text.trim().slice(0, 60) + ': ' + have.toFixed(2) + ' to 1, ' + (fg || style.color) + ' on ' + ground.slice(0, 3).map(Math.round) + ' in ' + e.outerHTML.slice(0, 90));
  };
  const there = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getBoundingClientRect().right > 0;
  for (const w = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); w.nextNode();) {
    const e = w.currentNode.parentElement;
    if (!w.currentNode.data.trim() || e.closest('svg, script, style, option, datalist, :disabled') || !there(e)) continue;
    say(w.currentNode.data, e);
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea, button')) {
    if (!there(e)) continue;
    const name = (e.getAttribute('aria-label') || '') + [...(e.labels || [])].map((l) => l.textContent).join('') + (e.tagName === 'BUTTON' ? e.textContent : '');
    if (!name.trim()) found.push(e.outerHTML.slice(0, 90) + ': has no name');
    if (e.value && e.tagName === 'INPUT') say(e.value, e);
    if (e.placeholder && !e.value) say(e.placeholder, e, getComputedStyle(e, '::placeholder').color);
  }
  return found;
})()`
