package browser

import (
	"fmt"
	"testing"
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
	published := g.pay(t, liqpayKey, payment{"order_id": "invoice-2026-0777", "description": "Кава та круасан", "sender_card_mask2": "414949*54"})
	g.pay(t, liqpayKey, payment{"order_id": "invoice-2026-0777", "status": "reversed", "action": "refund"})
	refused := g.pay(t, "an old key, rotated", payment{"order_id": "invoice-2026-0778"})
	g.post(t, "/in/liqpya", "x=1", "User-Agent", "LiqPay/1.0")
	g.post(t, "/.env", "", "User-Agent", "scanner")

	b.open("/login?next=/")
	b.look("light", 1360)
	b.shoot("login-light", true)
	b.login(operatorToken, "/")
	b.open("/deliveries/" + published)
	b.until("it is published", "document.querySelector('#head .tag').innerText === 'published'")
	b.clickText("Replay …")
	b.clickText("Replay now")
	b.until("it is replayed", "document.querySelector('#timeline').innerText.includes('replayed')")
	for _, page := range [][2]string{{"overview", "/overview"}, {"deliveries", "/"}, {"delivery", "/deliveries/" + published}, {"refused-one", "/deliveries/" + refused},
		{"refused", "/refused"}, {"replays", "/replays"}, {"sources", "/sources"}, {"source", "/sources/liqpay"}, {"nothing", "/?order_id=not-there"}} {
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
			b.shoot(page[0]+"-"+look.name, true)
		}
	}
}
