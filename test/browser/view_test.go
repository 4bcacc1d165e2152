package browser

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestCopy: the buttons copy what they stand beside, whole and without their own words.
func TestCopy(t *testing.T) {
	b := newTab(t)
	number := order(t)
	id := b.g.pay(t, liqpayKey, payment{"order_id": number, "description": "Кава та круасан"})
	b.login(operatorToken, "/deliveries/"+id)
	b.until("the script has run", "document.querySelectorAll('button.copy').length > 3")
	// A headless browser may not write to the clipboard: what would be written is kept.
	if _, err := eval[bool](b, "navigator.clipboard.writeText = async (text) => { window.copied = text; }, true"); err != nil {
		t.Fatal(err)
	}
	b.click("h1 button.copy")
	b.until("the id is copied", "window.copied === "+quote(id))
	b.click("#body button.copy")
	b.until("the document is copied", "JSON.parse(window.copied).order_id === "+quote(number)+" && window.copied.includes('Кава та круасан')")
	b.until("it says so", "[...document.querySelectorAll('#body button.copy')].some((e) => e.innerText === 'copied')")
	b.listed("order_id="+number, 1)
	b.open("/?order_id=" + number)
	b.until("the row is there", row(id)+" && document.querySelector('.at-order button.copy')")
	if _, err := eval[bool](b, "navigator.clipboard.writeText = async (text) => { window.copied = text; }, true"); err != nil {
		t.Fatal(err)
	}
	b.click(".at-order button.copy")
	b.until("the order is copied, and no row opens", "window.copied === "+quote(number)+" && location.pathname === '/'")
}

// TestExport: the links of a view hold what the view finds, all of it and nothing else.
func TestExport(t *testing.T) {
	b := newTab(t)
	number := order(t)
	want := map[string]bool{}
	for range 3 {
		want[b.g.pay(t, liqpayKey, payment{"order_id": number})] = true
	}
	b.g.pay(t, liqpayKey, payment{"order_id": "another-" + number})
	b.login(operatorToken, "/")
	b.listed("order_id="+number, 3)
	b.open("/?limit=1&from=-1h&order_id=" + number)
	for _, format := range []string{"CSV", "NDJSON"} {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		script := fmt.Sprintf("fetch([...document.querySelectorAll('.exports a')].find((a) => a.innerText === %q).href).then((r) => r.text())", format)
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if format == "CSV" {
			lines = lines[1:] // its head
		}
		for id := range want {
			if !strings.Contains(text, id) {
				t.Errorf("%s does not hold %s", format, id)
			}
		}
		if len(lines) != len(want) {
			t.Errorf("%s holds %d deliveries, want %d:\n%s", format, len(lines), len(want), text)
		}
	}
}
