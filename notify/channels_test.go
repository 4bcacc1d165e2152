package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// desk is a server that keeps what it was sent and answers as told.
type desk struct {
	*httptest.Server
	mu      sync.Mutex
	got     []asked
	answers []func(http.ResponseWriter)
}

type asked struct {
	path   string
	header http.Header
	body   []byte
}

func newDesk(t *testing.T, answers ...func(http.ResponseWriter)) *desk {
	d := &desk{answers: answers}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.got = append(d.got, asked{r.URL.Path, r.Header.Clone(), b})
		if len(d.answers) > 0 {
			d.answers[0](w)
			d.answers = d.answers[1:]
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *desk) all() []asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]asked(nil), d.got...)
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

var loop = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func options() Options {
	return Options{Dial: anywhere, Now: func() time.Time { return noon }}
}

func sample() *Message {
	return &Message{ID: "msg_1", Rule: "bad", When: WhenRefusals, State: StateFiring, At: noon, Since: noon, Count: 14, Lines: []string{"shop: 14 refused <!channel> @everyone & more"}}
}

func deliver(t *testing.T, ch Channel, m *Message) error {
	t.Helper()
	ch.Name, ch.Private = "x", loop
	if err := checkChannel(&ch); err != nil {
		t.Fatal(err)
	}
	return newDelivery(ch, options())(t.Context(), m)
}

func TestChannels(t *testing.T) {
	f := func(ch Channel, path string, check func(body map[string]any, h http.Header, raw []byte)) {
		t.Helper()
		d := newDesk(t)
		ch.URL = d.URL
		if ch.Kind != Telegram {
			ch.URL += "/services/T0"
		}
		if err := deliver(t, ch, sample()); err != nil {
			t.Fatal(err)
		}
		got := d.all()
		var body map[string]any
		if len(got) != 1 || got[0].path != path || json.Unmarshal(got[0].body, &body) != nil || got[0].header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: got %+v", ch.Kind, got)
		}
		check(body, got[0].header, got[0].body)
	}
	f(Channel{Kind: Slack}, "/services/T0", func(body map[string]any, _ http.Header, _ []byte) {
		if body["text"] != "firing: bad\nshop: 14 refused &lt;!channel&gt; @everyone &amp; more" || body["unfurl_links"] != false {
			t.Errorf("%v", body)
		}
	})
	f(Channel{Kind: Discord}, "/services/T0", func(body map[string]any, _ http.Header, _ []byte) {
		if body["content"] != "firing: bad\nshop: 14 refused <!channel> @everyone & more" || fmt.Sprint(body["allowed_mentions"]) != "map[parse:[]]" {
			t.Errorf("%v", body)
		}
	})
	f(Channel{Kind: Telegram, Token: "12345:AAtoken", Chat: "-100"}, "/bot12345:AAtoken/sendMessage", func(body map[string]any, _ http.Header, _ []byte) {
		if body["chat_id"] != "-100" || body["parse_mode"] != nil || !strings.HasPrefix(body["text"].(string), "firing: bad\n") {
			t.Errorf("%v", body)
		}
	})
	f(Channel{Kind: Webhook, Secret: secret}, "/services/T0", func(body map[string]any, h http.Header, raw []byte) {
		mac := hmac.New(sha256.New, []byte("01234567890123456789012345678901"))
		fmt.Fprintf(mac, "msg_1.%d.%s", noon.Unix(), raw)
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if h.Get("Webhook-Id") != "msg_1" || h.Get("Webhook-Timestamp") != fmt.Sprint(noon.Unix()) || h.Get("Webhook-Signature") != want {
			t.Errorf("%v, want %s", h, want)
		}
		data := body["data"].(map[string]any)
		if body["type"] != "penstock.firing" || data["count"] != 14.0 || data["rule"] != "bad" || len(data["lines"].([]any)) != 1 {
			t.Errorf("%v", body)
		}
	})
}

// TestErrorsTellNothing: the addresses of most channels are their secrets.
func TestErrorsTellNothing(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter) {
		http.Redirect(w, &http.Request{}, "http://127.0.0.1:1/secret-T0", http.StatusFound)
	})
	err := deliver(t, Channel{Kind: Slack, URL: d.URL + "/secret-T0"}, sample())
	if err == nil || strings.Contains(err.Error(), "secret") || err.Error() != "answered 302 Found" {
		t.Errorf("%v", err)
	}
	for _, ch := range []Channel{{Kind: Slack, URL: "http://127.0.0.1:1/secret-T0"}, {Kind: Telegram, URL: "http://127.0.0.1:1", Token: "secret:1", Chat: "1"},
		{Kind: Email, SMTP: &SMTP{Address: "127.0.0.1:1", From: "secret@x", To: []string{"secret@y"}, TLS: StartTLS}}} {
		if err := deliver(t, ch, sample()); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

// running is an engine that runs beside the test.
func running(t *testing.T, d *desk, o Options) (*Engine, func()) {
	t.Helper()
	o.Dial, o.backoff, o.Interval = anywhere, time.Millisecond, time.Millisecond
	e, err := New(Config{Channels: []Channel{{Name: "hook", Kind: Webhook, URL: d.URL, Secret: secret, Private: loop, PerMinute: 600}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return e, stop
}

func (e *Engine) say(rule string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.send(newRule(Rule{Name: rule}), &Message{State: StateFiring, Count: 1, Lines: []string{"line of " + rule}}, e.o.Now())
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// TestRetry: what may pass is tried again under the same id; what will not is given up, and
// holds up nothing.
func TestRetry(t *testing.T) {
	d := newDesk(t, status(500), status(429), status(408), status(200), status(410), status(200))
	e, _ := running(t, d, Options{})
	e.say("one")
	until(t, "the first", func() bool { return len(d.all()) == 4 })
	e.say("two")
	until(t, "the second", func() bool { return len(d.all()) == 5 })
	e.say("three")
	until(t, "the third", func() bool { return len(d.all()) == 6 })
	ids := map[string]int{}
	for _, a := range d.all() {
		ids[a.header.Get("Webhook-Id")]++
	}
	if len(ids) != 3 {
		t.Errorf("ids %v", ids)
	}
	until(t, "an empty queue", func() bool { return e.senders["hook"].waiting() == 0 })
}

// TestRetryAfter: a server that asks for a pause gets it.
func TestRetryAfter(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter) { w.Header().Set("Retry-After", "30"); w.WriteHeader(429) }, func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(503)
	})
	e, err := New(Config{Channels: []Channel{{Name: "hook", Kind: Webhook, URL: d.URL, Secret: secret, Private: loop}}}, options())
	if err != nil {
		t.Fatal(err)
	}
	e.say("one")
	s := e.senders["hook"]
	m, _ := s.head()
	if p := s.attempt(t.Context(), &m); p != 30*time.Second {
		t.Errorf("paused for %s", p)
	}
	if p := s.attempt(t.Context(), &m); p != longestAfter {
		t.Errorf("paused for %s", p)
	}
	for n, most := range map[int]time.Duration{1: 2 * time.Second, 3: 8 * time.Second, 100: maxBackoff} {
		if p := s.pause(n); p < most/2 || p > most {
			t.Errorf("attempt %d: pause of %s", n, p)
		}
	}
}

// TestWaitingOutlivesARestart: what no channel took is sent by the next life.
func TestWaitingOutlivesARestart(t *testing.T) {
	store := &memory{kept: map[string][]byte{}}
	answer := make([]func(http.ResponseWriter), 10_000)
	for i := range answer {
		answer[i] = status(503)
	}
	d := newDesk(t, answer...)
	e, stop := running(t, d, Options{Store: store})
	e.say("one")
	until(t, "an attempt", func() bool { return len(d.all()) > 0 })
	stop()
	d.mu.Lock()
	d.answers, d.got = nil, nil
	d.mu.Unlock()
	e, _ = running(t, d, Options{Store: store})
	until(t, "the message", func() bool { return len(d.all()) > 0 && e.senders["hook"].waiting() == 0 })
}

// TestStorm: where a channel cannot keep up, what is alike becomes one, and the queue has
// an end.
func TestStorm(t *testing.T) {
	r := newRig(t)
	for range 1000 {
		r.e.say("alike")
	}
	list := r.messages()
	if len(list) != 1 || list[0].Count != 1000 || len(list[0].Lines) != maxLines || list[0].More != 1000-maxLines {
		t.Errorf("%d messages, %+v", len(list), list[0])
	}
	for i := range 1000 {
		r.e.say(fmt.Sprint("rule ", i))
	}
	if list := r.messages(); len(list) != maxQueue || list[maxQueue-1].Rule != "rule 999" {
		t.Errorf("%d messages", len(list))
	}
	// What is under way is not changed, and a recovery does not run into the alert.
	r.e.say("a")
	s := r.e.senders["ops"]
	if _, ok := s.head(); !ok {
		t.Fatal("nothing to send")
	}
	r.e.say("a")
	s.push(Message{Rule: "a", State: StateRecovered})
	r.e.say("a")
	states := ""
	for _, m := range r.messages() {
		states += fmt.Sprint(m.State, m.Count, " ")
	}
	if states != "firing1 firing1 recovered0 firing1 " {
		t.Error(states)
	}
}

func TestTest(t *testing.T) {
	good, bad := newDesk(t), newDesk(t, status(403))
	c := Config{Channels: []Channel{{Name: "good", Kind: Webhook, URL: good.URL, Secret: secret, Private: loop}, {Name: "bad", Kind: Slack, URL: bad.URL, Private: loop}},
		Rules: []Rule{{Name: "one", Channels: []string{"good"}, Template: "{{upper .Rule}} is tested"}}}
	res, err := Test(t.Context(), c, "", options())
	if err != nil || len(res) != 2 || res[0].Err != nil || res[1].Err == nil {
		t.Errorf("%v, %v", res, err)
	}
	res, err = Test(t.Context(), c, "one", options())
	if err != nil || len(res) != 1 || res[0].Channel != "good" || !strings.Contains(string(good.all()[1].body), "ONE is tested") {
		t.Errorf("%v, %v", res, err)
	}
	if _, err = Test(t.Context(), c, "none", options()); err == nil {
		t.Error("a rule that is not there was tested")
	}
}
