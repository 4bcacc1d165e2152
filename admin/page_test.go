package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/archive"
)

// fakeReader reads every delivery as one event with a masked payload.
type fakeReader struct {
	reading Reading
	err     error
}

func (f *fakeReader) Read(context.Context, *archive.Delivery) (Reading, error) {
	return f.reading, f.err
}

func maskedReading() Reading {
	return Reading{Total: 1, Document: []byte(`{"card":"4242424242424242"}`), Events: []ReadEvent{{Topic: "webhooks.stripe", Key: "k",
		Headers: [][2]string{{"ce_id", "evt<1>"}}, Value: []byte(`{"type":"payment.captured"}`), Payload: []byte(`{"card":"424242******4242"}`), PayloadJSON: true, Masked: []string{"card"}}}}
}

// A viewer sees the masked document, in the API and on the page; without a reading nothing.
func TestViewerSeesBodiesMasked(t *testing.T) {
	reader := &fakeReader{reading: maskedReading()}
	w := newWorld(t, func(o *Options) { o.Reader = reader })
	body, page := "/api/v1/deliveries/"+publishedID+"/body", "/deliveries/"+publishedID
	rec := w.call("GET", body, viewerToken, "")
	w.want(rec, 200)
	if got := rec.Body.String(); got != `{"card":"424242******4242"}` || rec.Header().Get("Penstock-Masked") != "card" {
		t.Fatalf("a viewer gets %q, masked %q", got, rec.Header().Get("Penstock-Masked"))
	}
	if rec.Header().Get("Content-Type") != "application/octet-stream" || !strings.Contains(rec.Header().Get("Content-Security-Policy"), "sandbox") {
		t.Fatalf("headers %v", rec.Header())
	}
	w.want(w.call("GET", page, viewerToken, ""), 200, "424242******4242", "masked for the role viewer")
	if strings.Contains(w.call("GET", page, viewerToken, "").Body.String(), "4242424242424242") {
		t.Fatal("the page shows a viewer the card")
	}
	w.want(w.call("GET", page, operatorToken, ""), 200, "4242424242424242", "payment.captured", "evt&lt;1&gt;")

	// A large batch: each event has its part, and one that is no JSON hides all.
	part := maskedReading().Events[0]
	part.Part = true
	reader.reading = Reading{Total: 2, Events: []ReadEvent{part, part}}
	w.want(w.call("GET", body, viewerToken, ""), 200, `[{"card":"424242******4242"},{"card":"424242******4242"}]`)
	reader.reading.Events[1].PayloadJSON = false
	w.want(w.call("GET", body, viewerToken, ""), 403, "body_masked")
	for _, r := range []Reading{{}, {Events: []ReadEvent{{}}}} {
		reader.reading = r
		w.want(w.call("GET", body, viewerToken, ""), 403, "body_masked")
		w.want(w.call("GET", page, viewerToken, ""), 200, "this one not at all")
	}
	reader.err = errors.New("unreadable")
	w.want(w.call("GET", body, viewerToken, ""), 403, "body_masked")
	w.want(w.call("GET", body, operatorToken, ""), 200)
	w.want(w.call("GET", body, consumerToken, ""), 200)
}

// An operator's look at what is masked for others is in the audit log, once; others' is not, nor
// what the client had already.
func TestLooksAreAudited(t *testing.T) {
	w, dir := auditWorld(t, nil)
	for _, token := range []string{viewerToken, consumerToken, operatorToken} {
		w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", token, "")
		w.call("GET", "/deliveries/"+publishedID, token, "")
		tag := w.call("GET", "/api/v1/deliveries/"+publishedID, token, "").Header().Get("ETag")
		w.want(w.call("GET", "/api/v1/deliveries/"+publishedID, token, "", "If-None-Match", tag), 304)
	}
	w.call("GET", "/deliveries/nobody", operatorToken, "")
	look := "ops/operator body.read " + publishedID + " done"
	headers := "ops/operator headers.read " + publishedID + " done"
	got := lines(w.entries("", 500))
	slices.Sort(got)
	if !slices.Equal(got, []string{look, look, headers}) {
		t.Fatalf("audit\n%s", strings.Join(got, "\n"))
	}
	// Not among what was done, which looks must not push out.
	acts, _ := filepath.Glob(filepath.Join(dir, "acts-*"))
	if len(acts) > 0 {
		t.Errorf("looks were put among the acts: %v", acts)
	}
}

// A delivery with its body is one answer and one look; who sees bodies masked does not get it so.
func TestShowWithBody(t *testing.T) {
	w, _ := auditWorld(t, nil)
	one := "/api/v1/deliveries/" + publishedID
	w.want(w.call("GET", one+"?body=yes", operatorToken, ""), 400, "neither true nor false")
	w.want(w.call("GET", one+"?body=true", viewerToken, ""), 403, "body_masked")
	for _, token := range []string{operatorToken, consumerToken} {
		rec := w.call("GET", one+"?body=true", token, "")
		w.want(rec, 200)
		var d struct {
			Body []byte `json:"body_base64"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil || !bytes.Equal(d.Body, exactBody) {
			t.Errorf("body %q, %v", d.Body, err)
		}
	}
	w.want(w.call("GET", "/api/v1/deliveries/"+otherID+"?body=true", consumerToken, ""), 404)
	if strings.Contains(w.call("GET", one, operatorToken, "").Body.String(), "body_base64") {
		t.Error("a body that nobody asked for")
	}
	w.archive.deliveries[publishedID].Body = nil
	w.want(w.call("GET", one+"?body=true", operatorToken, ""), 200, `"body_base64":""`)
	look := "ops/operator body.read " + publishedID + " done"
	if got := lines(w.entries("action=body.read", 500)); !slices.Equal(got, []string{look, look}) {
		t.Fatalf("audit\n%s", strings.Join(got, "\n"))
	}
}

// The events that the page shows are in the API: masked for all, with the document for operators,
// whose look is audited; other sources' stay unknown to a consumer.
func TestEvents(t *testing.T) {
	reader := &fakeReader{reading: maskedReading()}
	w, _ := auditWorld(t, func(o *Options) { o.Reader = reader })
	path := "/api/v1/deliveries/" + publishedID + "/events"
	const card = "4242424242424242"
	for _, token := range []string{viewerToken, consumerToken, operatorToken} {
		rec := w.call("GET", path, token, "")
		w.want(rec, 200, `"total":1`, `"value":{"type":"payment.captured"}`, `"payload":{"card":"424242******4242"}`, `"masked":["card"]`, `["ce_id","evt\u003c1\u003e"]`)
		if strings.Contains(rec.Body.String(), card) != (token == operatorToken) {
			t.Errorf("token %s sees %s", token, rec.Body)
		}
		w.want(w.call("GET", path, token, "", "If-None-Match", rec.Header().Get("ETag")), 304)
	}
	w.want(w.call("GET", "/api/v1/deliveries/"+otherID+"/events", consumerToken, ""), 404)
	w.want(w.call("GET", "/api/v1/deliveries/"+noID+"/events", operatorToken, ""), 404)
	reader.reading = Reading{Total: 1, Events: []ReadEvent{{Value: []byte("{}"), Payload: []byte("\xff")}}}
	w.want(w.call("GET", path, viewerToken, ""), 200, `"payload_base64":"/w=="`)
	reader.err = errors.New("no such thing")
	w.want(w.call("GET", path, viewerToken, ""), 409, "unreadable", "no such thing")
	if got := lines(w.entries("", 500)); !slices.Equal(got, []string{"ops/operator body.read " + publishedID + " done"}) {
		t.Errorf("audit\n%s", strings.Join(got, "\n"))
	}
}

// What the page measures of sources is in the API where it is asked for.
func TestSourcesMeasured(t *testing.T) {
	w := newWorld(t, nil)
	plain := w.call("GET", "/api/v1/sources", viewerToken, "")
	w.want(plain, 200)
	if strings.Contains(plain.Body.String(), `"state"`) {
		t.Errorf("measured without being asked: %s", plain.Body)
	}
	w.want(w.call("GET", "/api/v1/sources?measured=true", viewerToken, ""), 200, `"state":"`, `"day":{`, `"last_received_at":"2026-05-28T20:26:40Z"`)
	w.want(w.call("GET", "/api/v1/sources?measured=maybe", viewerToken, ""), 400, "neither true nor false")
}

// TestHeadersAreMasked: a card number in a header's value, which no definition reads, is hidden
// from a viewer; an operator, who is on record, sees it.
func TestHeadersAreMasked(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.MaskCards = func(s string) string { return strings.ReplaceAll(s, "4242424242424242", "424242******4242") }
	})
	d := w.archive.deliveries[publishedID]
	d.Header = append([]byte("X-Card: no. 4242424242424242\r\n"), d.Header...)
	d.Target = []byte("/in/stripe?card=4242424242424242")
	for _, path := range []string{"/api/v1/deliveries/" + publishedID, "/deliveries/" + publishedID} {
		rec := w.call("GET", path, viewerToken, "")
		w.want(rec, 200, "no. 424242******4242")
		if strings.Contains(rec.Body.String(), "4242424242424242") {
			t.Errorf("%s shows a viewer the card", path)
		}
		w.want(w.call("GET", path, operatorToken, ""), 200, "no. 4242424242424242")
	}
}

// A search in bodies tells what a mask hides: it is on record, and what was searched for is not.
func TestSearchesInBodiesAreAudited(t *testing.T) {
	w, _ := auditWorld(t, nil)
	for _, path := range []string{"/?", "/api/v1/deliveries?", "/api/v1/export?"} {
		w.archive.pages = 1
		w.want(w.call("GET", path+"source=stripe&text=4242424242424242", operatorToken, ""), 200)
		w.archive.pages = 1
		w.want(w.call("GET", path+"source=stripe&q=x", operatorToken, ""), 200)
		w.want(w.call("GET", path+"text=x", viewerToken, ""), 403)
	}
	search := "ops/operator body.search stripe done"
	if got := lines(w.entries("", 500)); !slices.Equal(got, []string{search, search, search}) {
		t.Fatalf("audit\n%s", strings.Join(got, "\n"))
	}
	if text := w.call("GET", "/api/v1/audit", operatorToken, "").Body.String(); strings.Contains(text, "4242") {
		t.Fatal("the audit log holds what was searched for")
	}
}

// Every page is there with nothing behind it, and with nothing in it.
func TestPagesWithNothing(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"empty": func(o *Options) { o.State = func(context.Context) State { return State{} } },
		"bare": func(o *Options) {
			o.Replayer, o.Reverifier, o.Explainer, o.Sources, o.Gatherer, o.Stats, o.Health = nil, nil, nil, nil, nil, nil, nil
		},
	} {
		w := newWorld(t, change)
		w.archive.order = nil
		for path, want := range map[string]string{"/": "No delivery has arrived yet", "/?order_id=x": "No delivery fits these filters", "/overview": "Overview", "/refused": "There is none"} {
			w.want(w.call("GET", path, viewerToken, ""), 200, want)
		}
		for _, path := range []string{"/sources", "/sources/stripe", "/replays"} {
			rec := w.call("GET", path, viewerToken, "")
			if name == "empty" && rec.Code != 200 || name == "bare" && (rec.Code != 501 || !strings.Contains(rec.Body.String(), "<!doctype html>")) {
				t.Errorf("%s %s: %d", name, path, rec.Code)
			}
		}
	}
	w := newWorld(t, nil)
	w.want(w.call("GET", "/sources/nobody", viewerToken, ""), 404, "no source is called")
}

func TestPageActions(t *testing.T) {
	w := newWorld(t, nil)
	post := func(path, form string, status int, did string) {
		t.Helper()
		w.want(w.call("POST", path, operatorToken, form, "Content-Type", "application/x-www-form-urlencoded"), status)
		if w.work.last() != did {
			t.Fatalf("%s %s did %q, want %q", path, form, w.work.last(), did)
		}
		w.work.asked = nil
	}
	post("/deliveries/"+rejectedID+"/reverify", "", 303, "reverify "+rejectedID+" force=false by ops")
	post("/deliveries/"+rejectedID+"/reverify", "force=true", 303, "reverify "+rejectedID+" force=true by ops")
	post("/deliveries/"+publishedID+"/reverify", "force=true", 409, "")
	post("/sources/stripe/pause", "", 303, "pause stripe by ops")
	post("/sources/stripe/resume", "", 303, "resume stripe by ops")
	post("/replays/job-1/cancel", "", 303, "cancel job-1 by ops")
	group := "filter=" + url.QueryEscape("verdict=rejected&source=stripe&reason=signature_mismatch")
	post("/refused/reverify", group, 303, "reverify all force=false by ops")
	if f := w.work.filter; f.Verdict != "rejected" || f.Source != "stripe" || f.Reason != "signature_mismatch" {
		t.Fatalf("filter %+v", f)
	}
	post("/replays", "filter="+url.QueryEscape("order_id=7&limit=5&cursor=x"), 303, "replay [] by ops")
	if f := w.work.filter; f.OrderID != "7" || f.Limit != 0 || f.Cursor != "" {
		t.Fatalf("filter %+v", f)
	}
	// A form that lost its filter must not be about everything.
	for path, forms := range map[string][]string{"/replays": {"", "filter=", "filter=limit%3D5", "filter=text%3Dx", "filter=sorce%3Dx", "filter=%25zz"}, "/refused/reverify": {"", "filter=source%3Dstripe"}} {
		for _, form := range forms {
			post(path, form, 400, "")
		}
	}
	post("/sources/stripe/test", "", 501, "")
}

// What became a dead letter is driven again, and what a paused source holds is let out, from
// the page too; each only where it can be, and by operators.
func TestPageOffersWhatCanBeDone(t *testing.T) {
	const deadID, heldID, blockedID = "01JCQ0000000000000DEAD0006", "01JCQ0000000000000HELD0007", "01JCQ0000000000000HELD0008"
	w := newWorld(t, nil)
	add := func(id string, o archive.Outcome) {
		w.archive.add(archive.Row{ID: id, Source: "stripe", Provider: "stripe", Verdict: "accepted", Outcome: o.Kind.String(), Method: "POST", Path: "/in/stripe"},
			&archive.Delivery{Body: []byte("{}"), Method: "POST", Target: []byte("/in/stripe")}, o)
	}
	add(deadID, archive.Outcome{Kind: archive.Dead, Reason: "too_large", Items: 1})
	add(heldID, archive.Outcome{Kind: archive.Held, Reason: "paused", Items: 1})
	add(blockedID, archive.Outcome{Kind: archive.Held, Reason: "topic_blocked", Items: 1})
	replay, release := `/replay"`, `/release"`
	for _, c := range []struct {
		id, token       string
		replay, release bool
	}{
		{publishedID, operatorToken, true, false}, {deadID, operatorToken, true, false}, {heldID, operatorToken, false, true},
		{blockedID, operatorToken, false, false}, {pendingID, operatorToken, false, false}, {duplicateID, operatorToken, false, false},
		{rejectedID, operatorToken, false, false}, {deadID, viewerToken, false, false}, {heldID, viewerToken, false, false},
	} {
		rec := w.call("GET", "/deliveries/"+c.id, c.token, "")
		w.want(rec, 200)
		if page := rec.Body.String(); strings.Contains(page, replay) != c.replay || strings.Contains(page, release) != c.release {
			t.Errorf("%s for %s: replay %t, release %t, want %+v", c.id, c.token, strings.Contains(page, replay), strings.Contains(page, release), c)
		}
	}
	w.want(w.call("GET", "/deliveries/"+deadID, operatorToken, ""), 200, "became a dead letter")
	w.want(w.call("POST", "/deliveries/"+heldID+"/release", viewerToken, ""), 403)
	w.want(w.call("POST", "/deliveries/"+heldID+"/release", operatorToken, ""), 303)
	if got := w.work.last(); got != "release "+heldID+" by ops" {
		t.Errorf("did %q", got)
	}
	if !strings.Contains(w.call("GET", "/refused", operatorToken, "").Body.String(), `value="outcome=dead"`) {
		t.Error("dead letters cannot be driven again together")
	}
	if strings.Contains(w.call("GET", "/refused", viewerToken, "").Body.String(), `value="outcome=dead"`) {
		t.Error("a viewer is offered a replay")
	}
}

// What the page of a source does is in the API: its setup help, and a signed test event.
func TestSourceSetupAndTest(t *testing.T) {
	w := newWorld(t, nil)
	const setup, test = "/api/v1/sources/stripe/setup", "/api/v1/sources/stripe/test"
	w.want(w.call("GET", setup, viewerToken, ""), 501, "not_configured")
	w.want(w.call("POST", test, operatorToken, ""), 501, "not_configured")
	w = newWorld(t, nil)
	w.server.o.Helper = w.work
	w.want(w.call("GET", setup, viewerToken, ""), 200, `"url":"https://hooks.example/in/stripe"`, `"samples":[]`)
	w.want(w.call("GET", setup, consumerToken, ""), 403)
	w.want(w.call("GET", "/api/v1/sources/nobody/setup", viewerToken, ""), 404)
	w.want(w.call("POST", test, viewerToken, ""), 403)
	rec := w.call("POST", test+"?type=charge.refunded", operatorToken, "")
	w.want(rec, 200, `{"delivery":"`+publishedID+`","status":200}`)
	if got := w.work.last(); got != "test stripe charge.refunded by ops" || rec.Header().Get("Location") != "/api/v1/deliveries/"+publishedID {
		t.Errorf("did %q, leads to %q", got, rec.Header().Get("Location"))
	}
	w.want(w.call("POST", test+"?type=nothing", operatorToken, ""), 502, "not_taken")
	w.want(w.call("POST", "/sources/stripe/test", operatorToken, "type=nothing", "Content-Type", "application/x-www-form-urlencoded"), 502, "not kept")
}

// How fast each source is answered is on its page and in the list.
func TestSourcesTellHowFastTheyAreAnswered(t *testing.T) {
	acks := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "penstock_source_ack_seconds", Buckets: []float64{.001, .002, .1, .2}}, []string{"source"})
	for range 100 {
		acks.WithLabelValues("stripe").Observe(.002)
		acks.WithLabelValues("liqpay").Observe(.2)
	}
	w := newWorld(t, func(o *Options) { o.Gatherer.(*prometheus.Registry).MustRegister(acks) })
	w.want(w.call("GET", "/sources", viewerToken, ""), 200, `data-label="Answer, p99" class="num">2.0 ms<`)
	w.want(w.call("GET", "/sources/stripe", viewerToken, ""), 200, "answered: p99 2.0 ms")
}

// The page says first what wants attention.
func TestAlerts(t *testing.T) {
	st := State{Sink: true}
	w := newWorld(t, func(o *Options) { o.State = func(context.Context) State { return st } })
	w.want(w.call("GET", "/overview", viewerToken, ""), 200, "Nothing wants attention")
	st = State{Sink: true, KafkaAway: true, Redis: true, RedisAway: true, Unpublished: 7, OldestFor: 90 * time.Minute, Damage: []string{"segment 3"},
		Blocked: map[string]string{"webhooks.x": "topic_missing"}, ConfigError: "p.yaml:3:1"}
	for _, path := range []string{"/", "/overview", "/refused"} {
		w.want(w.call("GET", path, viewerToken, ""), 200, "Kafka does not answer", "Redis does not answer", "7 accepted deliveries wait to be published, the oldest since 1 h",
			"1 damaged places", "webhooks.x takes nothing: topic_missing", "p.yaml:3:1")
	}
	if page := w.call("GET", "/overview", viewerToken, "").Body.String(); strings.Contains(page, "Nothing wants attention") {
		t.Fatal("all is well, it says")
	}
	// A paused source, and one much of which is refused, are nothing that is well either.
	st = State{Sink: true, SinkName: "HTTP targets"}
	w.want(w.call("GET", "/overview", viewerToken, ""), 200, "Nothing wants attention", "<strong>HTTP targets</strong>")
	w.archive.counted = map[string]archive.CountRow{"stripe": {Accepted: 8, Rejected: 12}, "liqpay": {Accepted: 100, Rejected: 12}, "few": {Rejected: 9}}
	page := w.call("GET", "/overview", viewerToken, "").Body.String()
	if !strings.Contains(page, "stripe: 12 of 20 deliveries were refused within an hour") || strings.Contains(page, "liqpay: 12") || strings.Contains(page, "few: 9") || strings.Contains(page, "Nothing wants attention") {
		t.Errorf("of refusals the overview says:\n%s", page)
	}
	w.archive.counted, w.work.paused = nil, true
	if page := w.call("GET", "/overview", viewerToken, "").Body.String(); !strings.Contains(page, "stripe is paused") || strings.Contains(page, "Nothing wants attention") {
		t.Errorf("of a paused source the overview says:\n%s", page)
	}
}

func TestMeant(t *testing.T) {
	sources := []SourceInfo{{Name: "liqpay", Path: "/in/liqpay"}, {Name: "shop-eu", Path: "/in/shop-eu"}, {Name: "ab", Path: "/in/ab"}, {Name: "gone"}}
	f := func(path, want string) {
		t.Helper()
		got := ""
		if i := meant(path, sources); i >= 0 {
			got = sources[i].Name
		}
		if got != want {
			t.Errorf("%s: meant %q, want %q", path, got, want)
		}
	}
	f("/in/liqpya", "liqpay")
	f("/in/LiqPay", "liqpay")
	f("/in//liqpay/", "liqpay")
	f("/webhooks/liqpay", "liqpay")
	f("/in/shop_eu", "shop-eu")
	f("/in/ac", "ab")
	f("/.env", "")
	f("/in/", "")
	f("/wp-login.php", "")
	f(strings.Repeat("/in/liqpay", 20000), "liqpay") // and fast
}

func TestWords(t *testing.T) {
	s := &Server{o: Options{Decimals: func(c string) (int, bool) { n, ok := map[string]int{"EUR": 2, "JPY": 0, "KWD": 3}[c]; return n, ok }}}
	f := func(minor int64, currency, want string) {
		t.Helper()
		if got := s.money(&minor, currency); got != want {
			t.Errorf("%d %s is written %q, want %q", minor, currency, got, want)
		}
	}
	f(125050, "EUR", "1250.50 EUR")
	f(5, "EUR", "0.05 EUR")
	f(-5, "EUR", "-0.05 EUR")
	f(125050, "JPY", "125050 JPY")
	f(7, "KWD", "0.007 KWD")
	f(7, "XXX", "7 XXX (minor units)")
	for d, want := range map[time.Duration]string{15 * time.Minute: "15 min", 700 * time.Microsecond: "700 µs", 22 * time.Millisecond: "22 ms", 1500 * time.Millisecond: "1.5 s", 72 * time.Hour: "3 days"} {
		if got := took(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
	if got := count(1234567); got != "1\u202f234\u202f567" {
		t.Errorf("count %q", got)
	}
}

func TestQuantiles(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1, 2, 4}})
	reg.MustRegister(h)
	if got := quantiles(reg, 0.99, "h"); len(got) != 0 {
		t.Fatalf("of nothing: %v", got)
	}
	for range 100 {
		h.Observe(1.5)
	}
	if got := quantiles(reg, 0.5, "h")["h"]; got != 1500*time.Millisecond {
		t.Fatalf("half below %v", got)
	}
	h.Observe(100)
	if got := quantiles(reg, 1, "h")["h"]; got != 4*time.Second {
		t.Fatalf("above the last bound: %v", got)
	}
}

// Bars are drawn within the drawing, whatever the numbers are.
func TestHistogram(t *testing.T) {
	h := &histogram{Step: time.Hour}
	h.draw([]archive.CountBucket{{CountRow: archive.CountRow{Accepted: 1_000_000, Rejected: 1, Challenge: 1}}, {}, {CountRow: archive.CountRow{Rejected: 1}}}, "source=x")
	for i, b := range h.Bars {
		if b.AcceptedY < 0 || b.ChallengeY < 0 || b.RejectedY < 0 || b.AcceptedH+b.ChallengeH+b.RejectedH > histogramHeight {
			t.Errorf("bar %d: %+v", i, b)
		}
		if b.Rejected > 0 && b.RejectedH == 0 {
			t.Errorf("bar %d hides a refusal", i)
		}
	}
	if !strings.HasPrefix(h.Bars[0].Href, "/?source=x&from=") {
		t.Errorf("href %s", h.Bars[0].Href)
	}
	for _, length := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 90 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		if step := stepFor(length); length/step > widestHistogram || step%time.Minute != 0 {
			t.Errorf("%v in steps of %v", length, step)
		}
	}
}

// TestTimeline: each step has its time, on the page and in the API, and where one is not known
// that is said.
func TestTimeline(t *testing.T) {
	w := newWorld(t, nil)
	at := w.archive.rows[publishedID].ReceivedAt
	w.archive.steps = map[string]archive.Steps{publishedID: {Verified: 130 * time.Microsecond, Archived: 2400 * time.Microsecond, Acked: 2600 * time.Microsecond}}
	o := &w.archive.outcomes[publishedID][0]
	o.At, o.Deduplicated = at.Add(40*time.Millisecond), at.Add(3*time.Millisecond)
	w.want(w.call("GET", "/deliveries/"+publishedID, viewerToken, ""), 200, "&#43;130 µs", "&#43;2.4 ms", "&#43;2.6 ms", "&#43;3.0 ms", "&#43;40 ms", "webhooks.stripe/2@77")
	var d struct {
		Timeline []struct {
			Step, Topic string
			At          time.Time
			Partition   *int
			Offset      *int
		}
	}
	read := func(id string) {
		t.Helper()
		d.Timeline = nil
		if err := json.Unmarshal(w.call("GET", "/api/v1/deliveries/"+id, viewerToken, "").Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
	}
	read(publishedID)
	want := []struct {
		step  string
		after time.Duration
	}{{"received", 0}, {"verified", 130 * time.Microsecond}, {"archived", 2400 * time.Microsecond}, {"acked", 2600 * time.Microsecond},
		{"deduplicated", 3 * time.Millisecond}, {"published", 40 * time.Millisecond}}
	if len(d.Timeline) != len(want) {
		t.Fatalf("timeline %+v", d.Timeline)
	}
	for i, step := range want {
		if got := d.Timeline[i]; got.Step != step.step || !got.At.Equal(at.Add(step.after)) {
			t.Errorf("%d: %s at %v, want %s %v after %v", i, got.Step, got.At, step.step, step.after, at)
		}
	}
	if last := d.Timeline[5]; last.Topic != "webhooks.stripe" || last.Partition == nil || *last.Partition != 2 || last.Offset == nil || *last.Offset != 77 {
		t.Errorf("published: %+v", last)
	}
	read(pendingID)
	if len(d.Timeline) != 4 || !d.Timeline[1].At.IsZero() || !d.Timeline[3].At.IsZero() {
		t.Errorf("nothing is known of it, and it has %+v", d.Timeline)
	}
	w.want(w.call("GET", "/deliveries/"+pendingID, viewerToken, ""), 200, "time not on record")
	w.want(w.call("GET", "/deliveries/"+duplicateID, viewerToken, ""), 200, "its twin was published", `href="/deliveries/`+publishedID+`"`)
}
