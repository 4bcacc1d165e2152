package browser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// row is a script that finds the row of a delivery.
func row(id string) string { return "document.querySelector('tr[data-id=" + quote(id) + "]')" }

// listed waits for lists, which follow the log within a second, to show n deliveries.
func (b *tab) listed(filter string, n int) {
	b.t.Helper()
	b.within(fmt.Sprintf("%s finds %d", filter, n), func() error {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		have, err := chromedp.Run(ctx, chromedp.Evaluate[int](`fetch('/api/v1/deliveries?`+filter+`').then((r) => r.json()).then((p) => p.deliveries.length)`, chromedp.EvalAwaitPromise))
		if err == nil && have != n {
			err = fmt.Errorf("%d are there", have)
		}
		return err
	})
}

// TestFindOpenReplay: from an order's number to its event in Kafka once more.
func TestFindOpenReplay(t *testing.T) {
	b := newTab(t)
	number := order(t)
	id := b.g.pay(t, liqpayKey, payment{"order_id": number})
	b.g.pay(t, liqpayKey, payment{"order_id": "another-" + number})
	b.login(operatorToken, "/")
	b.key("/")
	b.until("the search has the focus", "document.activeElement.id === 'q'")
	b.key(number)
	b.key("\r")
	b.until("the search is in the address", "location.search.includes("+quote("q="+number)+")")
	b.until("its row is there", row(id)+" && document.querySelectorAll('#rows tbody tr').length === 2")
	b.open("/?order_id=" + number)
	b.until("the filter finds it alone", row(id)+" && document.querySelectorAll('#rows tbody tr').length === 1")
	b.key("j")
	b.key("\r")
	b.until("it is open", "location.pathname === "+quote("/deliveries/"+id))
	b.until("it was published", "document.querySelector('#head .tag').innerText === 'published'")
	for _, step := range []string{"received", "verified", "archived", "acked", "deduplicated", "published"} {
		b.until("the timeline has "+step+" with its time", "[...document.querySelectorAll('.timeline li')].some((e) => e.querySelector('strong').innerText === "+quote(step)+" && e.querySelector('time'))")
	}
	b.until("the body is decoded", "document.querySelector('#body pre').innerText.includes("+quote(`"order_id": "`+number+`"`)+")")
	b.untilText(`"type": "payment.captured"`)
	b.untilText("1250.50 UAH")
	b.clickText("Replay …")
	b.clickText("Replay now")
	b.until("it asks first, and then it is replayed", "location.search.includes('job=') && [...document.querySelectorAll('.timeline strong')].some((e) => e.innerText === 'replayed')")
	b.open("/replays")
	b.until("the job is done", "[...document.querySelectorAll('#jobs tbody tr')].some((r) => r.innerText.includes('done') && r.innerText.includes('olena') && r.querySelector("+quote(`a[href="/deliveries/`+id+`"]`)+"))")
}

// TestLiveRows: rows come by themselves, and wait while the view is paused.
func TestLiveRows(t *testing.T) {
	b := newTab(t)
	b.login(operatorToken, "/")
	b.until("it is live", "document.querySelector('#live .word').innerText === 'live'")
	if _, err := eval[bool](b, "window.same = true"); err != nil {
		t.Fatal(err)
	}
	first := b.g.pay(t, liqpayKey, payment{"order_id": order(t)})
	b.until("the row comes", row(first))
	b.until("its outcome comes", row(first)+".innerText.includes('published')")
	b.click("#pause")
	b.until("it is paused", "document.querySelector('#live .word').innerText.startsWith('paused')")
	second := b.g.pay(t, liqpayKey, payment{"order_id": order(t)})
	b.until("it says that something waits", "document.querySelector('#live .word').innerText.includes('wait')")
	b.until("and shows nothing", "!"+row(second))
	b.key("p")
	b.until("the second comes", row(second))
	b.until("in the same page", "window.same === true")
}

// TestRefused: why, in words; a re-verify that says so; a release by the operator's word.
func TestRefused(t *testing.T) {
	b := newTab(t)
	number := order(t)
	id := b.g.pay(t, "not_the_key_of_the_shop", payment{"order_id": number})
	b.login(operatorToken, "/deliveries/"+id)
	b.untilText("Why it was refused: signature_mismatch")
	b.untilText("The signature does not fit the bytes")
	b.until("there is a hint", "document.querySelectorAll('.why li').length > 0")
	b.untilText("Nobody has proved this")
	b.clickText("Re-verify …")
	b.clickText("Re-verify now")
	b.untilText("It still does not verify")
	b.open("/refused")
	b.until("its group is there", "[...document.querySelectorAll('tbody tr')].some((r) => r.innerText.includes('liqpay') && r.innerText.includes('signature_mismatch'))")
	b.clickText("Re-verify all …")
	b.clickText("Re-verify them now")
	b.untilText("looked at:")
	b.open("/?verdict=rejected&order_id=" + number)
	b.clickText("Re-verify this view …")
	b.clickText("Re-verify them all now")
	b.untilText("1 looked at: 0 released, 1 left as they were, 0 failed.")
	b.open("/deliveries/" + id)
	b.clickText("Release without proof …")
	b.clickText("Release it on my word")
	b.untilText("ce_verifiedby: operator")
	b.until("it is published", "document.querySelector('#head .tag').innerText === 'published'")
}

// attacks are what would run where a page is written carelessly.
var attacks = []string{
	`<script>alert('A')</script>`, `"><img src=x onerror=alert('B')>`, `'-alert('C')-'`, `javascript:alert('D')`, `</pre></script><svg onload=alert('E')>`,
	`" autofocus onfocus="alert('F')`, `{{constructor.constructor('alert("G")')()}}`, `<iframe srcdoc="<script>parent.alert('H')</script>">`, `</title><script>alert('I')</script>`,
	`<template shadowrootmode=open><img src=x onerror=alert('J')></template>`, `<a href="javascript:alert('K')">x</a>`,
}

// TestStoredXSS: what a payload holds never runs, wherever the page shows it.
func TestStoredXSS(t *testing.T) {
	b := newTab(t)
	b.login(operatorToken, "/")
	var ids []string
	escape := strings.NewReplacer("%", "%25", " ", "%20", "<", "%3C", ">", "%3E", `"`, "%22", "{", "%7B", "}", "%7D")
	for i, a := range attacks {
		key := liqpayKey
		if i%3 == 2 {
			key = "wrong" // refused ones are shown in other places
		}
		doc := payment{"order_id": a, "payment_id": a + fmt.Sprint(i), "transaction_id": a, "status": a, "action": a, "description": a, "currency": a, "err_code": a, a: a}
		if i%2 == 0 {
			doc["status"], doc["action"], doc["currency"] = "success", "pay", "UAH"
		}
		ids = append(ids, b.g.pay(t, key, doc, "User-Agent", a, "X-Attack", a, "X-Forwarded-For", a, "Referer", a, "Request-Id", a))
		ids = append(ids, b.g.post(t, "/in/github?q="+escape.Replace(a)+"&r="+strings.ReplaceAll(a, " ", "%20"), a, "X-GitHub-Event", a, "X-GitHub-Delivery", a, "X-Hub-Signature-256", a, "Content-Type", a))
		b.g.post(t, "/in/"+strings.ReplaceAll(a, " ", "%20"), a, "User-Agent", a)
	}
	paths := []string{"/", "/?verdict=rejected", "/overview", "/refused", "/sources", "/sources/liqpay", "/replays", "/audit"}
	for _, id := range ids {
		if id != "" { // the edge refuses some of them before they are deliveries
			paths = append(paths, "/deliveries/"+id)
		}
	}
	if len(paths) < 7+len(attacks) {
		t.Fatalf("only %d pages to look at: the attacks did not become deliveries", len(paths))
	}
	for _, a := range attacks {
		paths = append(paths, "/audit?subject="+escape.Replace(a)+"&who="+escape.Replace(a), "/?order_id="+escape.Replace(a)+"&q="+escape.Replace(a), "/?source="+escape.Replace(a), "/deliveries/"+ids[0]+"?job="+escape.Replace(a))
	}
	// Everything there is on a page is touched: what waits for a mouse or a focus runs too.
	const touch = `(() => { for (const e of document.querySelectorAll('main *')) { if (e.tagName === 'DETAILS') e.open = true;
		for (const n of ['mouseover', 'focus', 'toggle', 'load', 'error']) e.dispatchEvent(new Event(n)); }
		return [...document.querySelectorAll('main script, main iframe, main img, main object, main embed, main style, main template, svg [onload], [onerror], [onload], [onfocus], [onmouseover]')].map((e) => e.outerHTML)
			.concat([...document.querySelectorAll('a[href], form[action]')].filter((e) => /^(javascript|data|vbscript):/i.test((e.href || e.action).toString())).map((e) => e.outerHTML)).join('\n'); })()`
	for _, path := range paths {
		b.open(path)
		found, err := eval[string](b, touch)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if found != "" {
			t.Errorf("%s holds elements of a payload:\n%s", path, found)
		}
		b.noDialog()
	}
	// And where the page makes elements by itself: live.
	b.open("/")
	b.until("it is live", "document.querySelector('#live .word').innerText === 'live'")
	id := b.g.pay(t, liqpayKey, payment{"order_id": attacks[1], "description": attacks[0]})
	b.until("the row comes", row(id))
	b.noDialog()
}

// TestAttackWouldRun: the corpus is one that runs where nothing holds it back, so that the
// test above can fail.
func TestAttackWouldRun(t *testing.T) {
	b := newTab(t)
	b.run(chromedp.Navigate("about:blank"))
	if _, err := eval[bool](b, "document.body.innerHTML = "+quote(attacks[1])+", true"); err != nil {
		t.Fatal(err)
	}
	b.within("the attack opens its dialog", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.dialogs) == 0 {
			return errors.New("no dialog yet")
		}
		return nil
	})
}

// TestRoles: a viewer sees everything masked and changes nothing; an operator's look at a
// body is in the audit log.
func TestRoles(t *testing.T) {
	const card = "4242424242424242"
	b := newTab(t)
	id := b.g.pay(t, liqpayKey, payment{"order_id": order(t), "description": "card " + card}, "X-Api-Key", "hush-hush")
	b.login(viewerToken, "/deliveries/"+id)
	b.untilText("decoded and masked for the role viewer")
	b.untilText("424242******4242")
	page, err := eval[string](b, "document.documentElement.outerHTML")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{card, "hush-hush", "Replay now", "Download the exact bytes"} {
		if strings.Contains(page, secret) {
			t.Errorf("a viewer's page holds %q", secret)
		}
	}
	fetched := func(path string) string {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		script := fmt.Sprintf("(async () => { const r = await fetch(%q); return r.status + ' ' + await r.text(); })()", path)
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	body := func() string { return fetched("/api/v1/deliveries/" + id + "/body") }
	if text := body(); !strings.HasPrefix(text, "200 {") || strings.Contains(text, card) || !strings.Contains(text, "424242******4242") {
		t.Errorf("a viewer is answered %s", text)
	}
	if page := fetched("/audit"); !strings.HasPrefix(page, "403 ") {
		t.Errorf("a viewer is shown the audit log: %.200s", page)
	}
	b.clickText("Log out")
	b.until("logged out", "location.pathname === '/login'")
	b.login(operatorToken, "/deliveries/"+id)
	b.untilText("card " + card)
	b.untilText("hush-hush")
	if text := body(); !strings.HasPrefix(text, "200 data=") {
		t.Errorf("an operator is answered %s", text)
	}
	b.clickText("who acted on it or looked at it")
	b.until("the look is on the page of the audit log", "location.pathname === '/audit' && [...document.querySelectorAll('tbody tr')].some((r) => r.innerText.includes('body.read') && r.innerText.includes('olena'))")
	audit := fetched("/api/v1/audit?action=body.read&limit=500")
	if !strings.HasPrefix(audit, "200 ") || !strings.Contains(audit, id) || !strings.Contains(audit, `"olena"`) {
		t.Errorf("the look is not in the audit log: %s", audit)
	}
	if strings.Contains(audit, `"finance"`) {
		t.Errorf("a masked look is in the audit log: %s", audit)
	}
	if strings.Contains(b.g.said(), card) {
		t.Error("the log holds the card")
	}
}

// TestKeys: j and k move, Enter opens, u goes back, / searches.
func TestKeys(t *testing.T) {
	b := newTab(t)
	number := order(t)
	for range 3 {
		b.g.pay(t, liqpayKey, payment{"order_id": number})
	}
	b.login(operatorToken, "/?order_id="+number)
	b.until("three rows are there and done", "[...document.querySelectorAll('#rows tbody tr')].filter((r) => r.innerText.includes('published')).length === 3")
	at := func(n int) string {
		return fmt.Sprintf("[...document.querySelectorAll('#rows tbody tr')].findIndex((r) => r.classList.contains('at')) === %d", n)
	}
	b.key("j")
	b.until("j selects the first", at(0))
	b.key("j")
	b.until("j moves down", at(1))
	b.key("k")
	b.until("k moves up", at(0))
	b.key("jj")
	b.until("j stops at the last", at(2))
	b.key("\r")
	b.until("Enter opens it", "location.pathname.startsWith('/deliveries/')")
	b.key("u")
	b.until("u goes back", "location.pathname === '/' && document.querySelector('#rows')")
	b.key("/")
	b.until("/ searches", "document.activeElement.id === 'q'")
	b.key("j")
	b.until("letters are typed there", "document.querySelector('#q').value.endsWith('j')")
}

// TestSources: pause, resume, a signed test event, one that is let out alone, and what was probably meant.
func TestSources(t *testing.T) {
	b := newTab(t)
	b.g.post(t, "/in/liqpai", "x=1", "User-Agent", "LiqPay")
	b.login(operatorToken, "/sources")
	b.until("the unknown path has a suggestion", "[...document.querySelectorAll('#unknown tr')].some((r) => r.innerText.includes('/in/liqpai') && r.innerText.includes('Did you mean /in/liqpay?'))")
	b.open("/sources/monobank")
	b.untilText("Enter there: http://" + b.g.ingest + "/in/monobank")
	b.clickText("Pause …")
	b.clickText("Pause now")
	b.until("it is paused", "document.querySelector('h1 .tag').innerText === 'paused'")
	b.clickText("Send a test event …")
	b.clickText("Send it now")
	b.until("the test event is open", "location.pathname.startsWith('/deliveries/')")
	b.untilText("Its source is paused")
	id, err := eval[string](b, "location.pathname")
	if err != nil {
		t.Fatal(err)
	}
	b.open("/overview")
	b.untilText("monobank is paused")
	b.open(id)
	b.clickText("Release …")
	b.clickText("Release it now")
	b.untilText("Released: it is published now")
	b.open(id)
	b.until("it is published while its source is paused", "document.querySelector('#head .tag').innerText === 'published'")
	b.open("/sources/monobank")
	b.until("its source is still paused", "document.querySelector('h1 .tag').innerText === 'paused'")
	b.clickText("Send a test event …")
	b.clickText("Send it now")
	b.until("another test event is open", "location.pathname.startsWith('/deliveries/') && location.pathname !== "+quote(id))
	b.untilText("Its source is paused")
	if id, err = eval[string](b, "location.pathname"); err != nil {
		t.Fatal(err)
	}
	b.open("/sources/monobank")
	b.clickText("Resume …")
	b.clickText("Resume now")
	b.until("it is not paused any more", "document.querySelector('h1 .tag').innerText !== 'paused'")
	b.open(id)
	b.until("it is published", "document.querySelector('#head .tag').innerText === 'published'")
}

// TestTwins: duplicates lead to what they repeat, and back.
func TestTwins(t *testing.T) {
	b := newTab(t)
	number := order(t)
	same := payment{"order_id": number, "payment_id": number, "transaction_id": number, "end_date": 1795320498485}
	first := b.g.pay(t, liqpayKey, same)
	b.login(operatorToken, "/deliveries/"+first)
	b.until("the first is published", "document.querySelector('#head .tag').innerText === 'published'")
	second := b.g.pay(t, liqpayKey, same)
	b.open("/deliveries/" + second)
	b.until("the second is a duplicate", "document.querySelector('#head .tag').innerText === 'duplicate'")
	b.listed("order_id="+number, 2)
	b.click("#head .why a")
	b.until("it leads to the first", "location.pathname === "+quote("/deliveries/"+first))
	b.until("which leads to the second", "[...document.querySelectorAll('section')].some((s) => s.innerText.startsWith('Twins') && s.querySelector("+quote(`a[href="/deliveries/`+second+`"]`)+"))")
	other := b.g.pay(t, liqpayKey, payment{"order_id": number, "status": "reversed"})
	b.listed("order_id="+number, 3)
	b.open("/deliveries/" + other)
	b.until("the refund lists the payment", "[...document.querySelectorAll('section')].some((s) => s.innerText.startsWith('The same order') && s.querySelector("+quote(`a[href="/deliveries/`+first+`"]`)+"))")
}

// TestWithoutScript: everything can be read and done without JavaScript.
func TestWithoutScript(t *testing.T) {
	b := newTab(t)
	id := b.g.pay(t, liqpayKey, payment{"order_id": order(t)})
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.login(operatorToken, "/deliveries/"+id)
	b.untilText("What happened")
	b.until("nothing that needs a script is offered", "document.querySelectorAll('button.copy').length === 0")
	b.within("it is published", func() error {
		b.open("/deliveries/" + id)
		if state := b.text("#head .tag"); state != "published" {
			return errors.New(state)
		}
		return nil
	})
	b.run(chromedp.Click(".actions details summary"), chromedp.Click(".actions details[open] button"))
	b.untilText("Replay started")
	b.open("/")
	b.until("rows are there and nothing claims to be live", row(id)+" && !document.querySelector('#live').checkVisibility()")
}
