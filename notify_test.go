package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/cli"
	"penstock/config"
	"penstock/notify"
	"penstock/provider"
)

// chat is where notifications arrive.
type chat struct {
	*httptest.Server
	mu   sync.Mutex
	said []told
}

type told struct {
	Type string
	Data struct {
		Rule, State, Text, Link string
		Count                   int
		Lines                   []string
	}
}

func newChat(t *testing.T) *chat {
	c := &chat{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var one told
		if err := json.Unmarshal(b, &one); err != nil {
			t.Errorf("%v: %s", err, b)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.said = append(c.said, one)
	}))
	t.Cleanup(c.Close)
	return c
}

// of gives what one rule said.
func (c *chat) of(rule string) (out []told) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.said {
		if one.Data.Rule == rule {
			out = append(out, one)
		}
	}
	return out
}

const notifySources = "  - {name: shop, provider: liqpay, credentials: {public_key: i0000000001, private_key: 0123456789abcdef}}\n"

func notifyConfig(c *chat, rules string) string {
	return notifySources + "notify:\n  channels:\n    - {name: hook, type: webhook, url: '" + c.URL + "/x', secret: whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=, allow_private: [127.0.0.0/8]}\n  rules:\n" + rules
}

// watched is a gateway whose rules are looked at.
func watched(t *testing.T, dir string, c *chat, rules string) (*edge, func()) {
	t.Helper()
	e := newEdge(t, dir, false, notifyConfig(c, rules))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.p.notify.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop) // before the gateway's
	return e, func() { stop(); e.stop() }
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// TestNotifications: a burst of bad signatures is one message with a count, and its end is
// one more; an event of a type is told; a restart tells nothing again.
func TestNotifications(t *testing.T) {
	const rules = "    - {name: forged, when: refusals, count: 5, within: 4s, group: 1s}\n    - {name: money, when: event, types: ['payment.*'], group: 0s}\n"
	c, dir := newChat(t), t.TempDir()
	e, stop := watched(t, dir, c, rules)
	sent, forged := 0, liqpay(t, "order-1", "i0000000001", "another key than ours")
	waitFor(t, "the burst", func() bool {
		if status, body, _ := e.post("shop", forged); status != 401 {
			t.Fatalf("answered %d %s", status, body)
		}
		sent++
		return len(c.of("forged")) > 0
	})
	waitFor(t, "its end", func() bool { return len(c.of("forged")) > 1 })
	got := c.of("forged")
	if m := got[0].Data; m.State != notify.StateFiring || m.Count < 5 || m.Count > sent || len(m.Lines) != 1 ||
		m.Lines[0] != fmt.Sprintf("shop: %d refused within 4 seconds (signature_mismatch %d)", m.Count, m.Count) {
		t.Errorf("%+v of %d sent", m, sent)
	}
	if m := got[1].Data; m.State != notify.StateRecovered {
		t.Errorf("%+v", m)
	}
	good := func(order string) {
		t.Helper()
		if status, body, _ := e.post("shop", liqpay(t, order, "i0000000001", "0123456789abcdef")); status != 200 {
			t.Fatalf("answered %d %s", status, body)
		}
	}
	good("order-2")
	waitFor(t, "the payment", func() bool { return len(c.of("money")) == 1 })
	if m := c.of("money")[0].Data; m.Count != 1 || !strings.Contains(m.Text, "order order-2") || strings.Contains(m.Text, "order-1") {
		t.Errorf("%+v", m)
	}
	// What is stopped between the channel's answer and its note of it is told again.
	waitFor(t, "the note that it was taken", func() bool {
		w := httptest.NewRecorder()
		e.p.admin.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/metrics", nil))
		return strings.Contains(w.Body.String(), "\npenstock_notifications_waiting 0\n")
	})
	stop()
	e, _ = watched(t, dir, c, rules)
	good("order-3")
	waitFor(t, "the payment after the restart", func() bool { return len(c.of("money")) == 2 })
	if m := c.of("money")[1].Data; m.Count != 1 || !strings.Contains(m.Text, "order order-3") || len(c.of("forged")) != 2 {
		t.Errorf("%+v, %+v", m, c.of("forged"))
	}
}

// TestDeclinesWithoutASink: where nothing is published, deliveries themselves tell that payments
// fail, each once however often its provider sends it, and a restart does not count them again.
func TestDeclinesWithoutASink(t *testing.T) {
	const rules = "    - {name: declined, when: declines, count: 4, share: 30, within: 1h, group: 0s}\n" +
		"    - {name: never, when: declines, count: 5, share: 30, within: 1h, group: 0s}\n"
	c, dir := newChat(t), t.TempDir()
	e, stop := watched(t, dir, c, rules+"    - {name: back, when: event, types: [refund.succeeded], group: 0s}\n")
	var sent []*provider.Request
	post := func(typ, order string) {
		t.Helper()
		d := liqpayOf(t, typ, order, "i0000000001", "0123456789abcdef")
		for range 3 {
			if status, body, _ := e.post("shop", d); status != 200 {
				t.Fatalf("answered %d %s", status, body)
			}
		}
		sent = append(sent, d)
	}
	// What came before the first start is not told of, and this beginning is not for us to see.
	waitFor(t, "the beginning", func() bool {
		post("refund.succeeded", "order-0")
		return len(c.of("back")) > 0
	})
	post("payment.captured", "order-1")
	post("payment.captured", "order-2")
	post("payment.failed", "order-3")
	head := func() bool { return len(c.of("declined")) > 0 }
	stop()
	e, stop = watched(t, dir, c, rules) // none of the rules wants fields now
	for _, d := range sent {            // of the former life
		if status, body, _ := e.post("shop", d); status != 200 {
			t.Fatalf("answered %d %s", status, body)
		}
	}
	post("payment.failed", "order-4")
	waitFor(t, "the declines", head)
	if m := c.of("declined")[0].Data; m.State != notify.StateFiring || len(m.Lines) != 1 || !strings.HasPrefix(m.Lines[0], "shop: 2 of 4 payments failed within 60 minutes (50 %)") {
		t.Errorf("%+v", m)
	}
	stop()
	if len(c.of("never")) > 0 || len(c.of("declined")) != 1 {
		t.Errorf("told %+v, %+v", c.of("never"), c.of("declined"))
	}
}

// TestNotifyReload: rules come and go without a restart.
func TestNotifyReload(t *testing.T) {
	c := newChat(t)
	e, _ := watched(t, t.TempDir(), c, "    - {name: lag, when: lag}\n")
	e.write(notifyConfig(c, "    - {name: money, when: event, types: ['payment.*'], group: 0s}\n"))
	if err := e.p.askReload(t.Context()); err != nil {
		t.Fatal(err)
	}
	paid := liqpay(t, "order-2", "i0000000001", "0123456789abcdef")
	waitFor(t, "a payment", func() bool {
		if status, _, _ := e.post("shop", paid); status != 200 {
			t.Fatal(status)
		}
		return len(c.of("money")) > 0
	})
}

// TestNotifyNames: the configuration knows the functions that templates have.
func TestNotifyNames(t *testing.T) {
	var have []string
	for name := range notify.TemplateFuncs {
		have = append(have, name)
	}
	slices.Sort(have)
	if !slices.Equal(have, config.NotifyTemplateFuncs) {
		t.Errorf("notify has %v, config allows %v", have, config.NotifyTemplateFuncs)
	}
}

// TestNotifyGuard: a channel cannot be led inside, whatever its name led to.
func TestNotifyGuard(t *testing.T) {
	called := false
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer srv.Close()
	for _, kind := range []notify.Channel{{Name: "x", Kind: notify.Slack, URL: srv.URL},
		{Name: "x", Kind: notify.Email, SMTP: &notify.SMTP{Address: srv.Listener.Addr().String(), From: "a@b", To: []string{"c@d"}, TLS: notify.StartTLS}}} {
		res, err := notify.Test(t.Context(), notify.Config{Channels: []notify.Channel{kind}}, "", notify.Options{Dial: cli.NotifyDial})
		if err != nil || len(res) != 1 || res[0].Err == nil || !strings.Contains(res[0].Err.Error(), "not an address of the public internet") || called {
			t.Errorf("%v, %v, reached %v", res, err, called)
		}
	}
}

// TestConcluded: what ends the wait for a capture comes after the authorization, or is a capture of
// the same payment or order whenever it came. An attempt that failed before ends nothing.
func TestConcluded(t *testing.T) {
	e := newEdge(t, t.TempDir(), false, notifySources)
	post := func(typ, order string) {
		t.Helper()
		if status, body, _ := e.post("shop", liqpayOf(t, typ, order, "i0000000001", "0123456789abcdef")); status != 200 {
			t.Fatalf("answered %d %s", status, body)
		}
	}
	for order, types := range map[string][]string{
		"waits":      {"payment.failed", "payment.authorized"},
		"captured":   {"payment.failed", "payment.authorized", "payment.captured"},
		"overtaken":  {"payment.captured", "payment.authorized"},
		"given-back": {"payment.authorized", "payment.canceled"},
		"failed":     {"payment.authorized", "payment.failed"},
	} {
		for _, typ := range types {
			post(typ, order)
		}
	}
	waitFor(t, "the index", func() bool { return e.p.archive.IndexLag() == 0 })
	got := map[string]bool{}
	q := payments{e.p.archive}
	err := q.Authorized(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), func(p notify.Payment) {
		done, err := q.Concluded(t.Context(), p)
		if err != nil {
			t.Error(err)
		}
		got[p.OrderID] = done
	})
	if want := map[string]bool{"waits": false, "captured": true, "overtaken": true, "given-back": true, "failed": true}; err != nil || !maps.Equal(got, want) {
		t.Errorf("concluded are %v, want %v: %v", got, want, err)
	}
}
