package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"penstock/archive"
)

func TestHealth(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/healthz", "", ""), 200, `"ok"`)
	w.want(w.call("GET", "/readyz", "", ""), 200, `"degraded":[]`)
	w.health.Degraded = []string{"kafka", "redis"}
	w.want(w.call("GET", "/readyz", "", ""), 200, `"degraded":["kafka","redis"]`)
	w.health.Unready = errors.New("disk is at its reserve")
	w.want(w.call("GET", "/readyz", "", ""), 503, "disk is at its reserve", `"kafka"`)
	w.want(w.call("GET", "/healthz", "", ""), 200)
	w.want(w.call("GET", "/metrics", "", ""), 200, "penstock_admin_requests_total")
}

func TestList(t *testing.T) {
	w := newWorld(t, nil)
	rec := w.call("GET", "/api/v1/deliveries?source=stripe&verdict=accepted&livemode=true&limit=7&q=x", viewerToken, "")
	w.want(rec, 200)
	var got struct {
		Deliveries []map[string]any
		Next       *string
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Deliveries) != 4 || got.Next == nil || *got.Next != "next-page" {
		t.Fatalf("answer %s", rec.Body)
	}
	var columns []string
	for c := range got.Deliveries[0] {
		columns = append(columns, c)
	}
	sort.Strings(columns)
	want := strings.Split("id seq received_at source provider verdict reason outcome duplicate_of event_id event_type type order_id payment_id "+
		"tenant request_id idempotency_key livemode status amount_minor currency remote_ip method path size", " ")
	sort.Strings(want)
	if !slices.Equal(columns, want) {
		t.Fatalf("columns %v, want CONTRACT's %v", columns, want)
	}
	if f := w.archive.asked; f.Source != "stripe" || f.Verdict != "accepted" || f.Livemode == nil || f.Limit != 7 || f.Q != "x" {
		t.Fatalf("filter %+v", f)
	}
	for _, q := range []string{"limit=0", "from=x", "verdict=maybe", "nonsense=1", "livemode=7"} {
		rec := w.call("GET", "/api/v1/deliveries?"+q, viewerToken, "")
		w.want(rec, 400, `"code":"invalid_parameter"`, strings.Split(q, "=")[0]+": ")
		if rec.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("error as %s", rec.Header().Get("Content-Type"))
		}
	}
	w.archive.err = fmt.Errorf("x: %w", archive.ErrCursor)
	w.want(w.call("GET", "/api/v1/deliveries?cursor=zz", viewerToken, ""), 400, "cursor")
	w.archive.err = archive.ErrIndex
	w.want(w.call("GET", "/api/v1/deliveries", viewerToken, ""), 503, "index_unavailable")
	w.archive.err = errors.New("/var/lib/secret/path: input/output error")
	rec = w.call("GET", "/api/v1/deliveries", viewerToken, "")
	w.want(rec, 500, "internal")
	if strings.Contains(rec.Body.String(), "/var/lib") {
		t.Fatal("an internal error is shown to the caller")
	}
}

func TestConsumerSeesItsSourcesOnly(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/api/v1/deliveries", consumerToken, ""), 200, publishedID)
	if w.archive.asked.Source != "stripe" {
		t.Fatalf("asked %+v", w.archive.asked)
	}
	w.want(w.call("GET", "/api/v1/deliveries?source=liqpay", consumerToken, ""), 403, "source_not_allowed")
	w.want(w.call("GET", "/api/v1/deliveries/"+otherID, consumerToken, ""), 404)
	w.want(w.call("GET", "/api/v1/deliveries/"+otherID+"/body", consumerToken, ""), 404)
	// A delivery of another source is to it as one that never was, to the last byte.
	for _, path := range []string{"", "/body"} {
		foreign, absent := w.call("GET", "/api/v1/deliveries/"+otherID+path, consumerToken, ""), w.call("GET", "/api/v1/deliveries/"+noID+path, consumerToken, "")
		if a, b := strings.ReplaceAll(foreign.Body.String(), otherID, noID), absent.Body.String(); a != b || foreign.Code != absent.Code || !reflect.DeepEqual(foreign.Header(), absent.Header()) {
			t.Errorf("a foreign delivery%s is answered %d %s %v, an unknown one %d %s %v", path, foreign.Code, a, foreign.Header(), absent.Code, b, absent.Header())
		}
	}
	w.want(w.call("GET", "/api/v1/stream?source=liqpay", consumerToken, ""), 403)
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", consumerToken, ""), 200)
	two := newWorld(t, func(o *Options) { o.Tokens[2].Sources = []string{"stripe", "liqpay"} })
	two.want(two.call("GET", "/api/v1/deliveries", consumerToken, ""), 403, "source_not_allowed")
	two.want(two.call("GET", "/api/v1/deliveries?source=liqpay", consumerToken, ""), 200, otherID)
}

func TestDetailMasksCredentials(t *testing.T) {
	w := newWorld(t, nil)
	get := func(token string) (d struct {
		ID, Target string
		Headers    [][2]string
		Masked     bool
		Published  []map[string]any
		History    []map[string]any
	}) {
		t.Helper()
		rec := w.call("GET", "/api/v1/deliveries/"+publishedID, token, "")
		w.want(rec, 200)
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	full := [][2]string{{"Host", "x"}, {"Authorization", "Basic c2VjcmV0"}, {"X-Gitlab-Token", "hush"}, {"Stripe-Signature", "t=1,v1=ab"},
		{"X-Token-Signature", "sig"}, {"Cookie", "sid=1"}, {"Content-Type", "application/json"}, {"X-Api-Key", "k"}, {"X-Twice", "1"}, {"X-Twice", "2"}}
	d := get(operatorToken)
	if !reflect.DeepEqual(d.Headers, full) || d.Masked || d.Target != "/in/stripe?token=hush" {
		t.Fatalf("operator sees %+v", d)
	}
	if len(d.Published) != 1 || d.Published[0]["topic"] != "webhooks.stripe" || d.Published[0]["partition"] != 2.0 || d.Published[0]["offset"] != 77.0 {
		t.Fatalf("published %v", d.Published)
	}
	for _, token := range []string{viewerToken, consumerToken} {
		d := get(token)
		masked := slices.Clone(full)
		for _, i := range []int{1, 2, 5, 7} {
			masked[i][1] = maskedValue
		}
		if !reflect.DeepEqual(d.Headers, masked) || !d.Masked || d.Target != "/in/stripe" {
			t.Fatalf("%s sees %+v", token, d)
		}
	}
	for _, token := range []string{viewerToken, consumerToken} {
		rec := w.call("GET", "/api/v1/deliveries/"+publishedID, token, "")
		for _, secret := range []string{"c2VjcmV0", "hush", "sid=1"} {
			if strings.Contains(rec.Body.String(), secret) {
				t.Fatalf("%s sees %s", token, secret)
			}
		}
	}
	rec := w.call("GET", "/deliveries/"+publishedID, viewerToken, "")
	w.want(rec, 200, "credentials masked")
	if strings.Contains(rec.Body.String(), "c2VjcmV0") || strings.Contains(rec.Body.String(), "alert(1)") {
		t.Fatal("the page shows a viewer credentials or the body")
	}
}

func TestBodyIsExact(t *testing.T) {
	w := newWorld(t, nil)
	rec := w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", operatorToken, "")
	w.want(rec, 200)
	if !bytes.Equal(rec.Body.Bytes(), exactBody) {
		t.Fatalf("body %q, want %q", rec.Body, exactBody)
	}
	h := rec.Header()
	if h.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment;") ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Length") != fmt.Sprint(len(exactBody)) ||
		!strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Fatalf("headers %v", h)
	}
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", viewerToken, ""), 403, "body_masked")
	w.want(w.call("GET", "/api/v1/deliveries/01JCQ000000000000000000000/body", operatorToken, ""), 404, "not_found")
	w.archive.getErr = fmt.Errorf("delivery x: checksum differs at byte 5: %w", archive.ErrCorrupt)
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", operatorToken, ""), 410, "damaged", "checksum differs")
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID, operatorToken, ""), 200, `"damaged":"delivery x: checksum differs`, `"order_id":"order:672626"`)
	w.want(w.call("GET", "/deliveries/"+publishedID, operatorToken, ""), 200, "stored record is damaged")
}

func TestReplayAndReverify(t *testing.T) {
	w := newWorld(t, nil)
	post := func(path, body string) *httptestResponse {
		t.Helper()
		rec := w.call("POST", path, operatorToken, body, "Content-Type", "application/json")
		return &httptestResponse{rec.Code, rec.Body.String(), rec.Header()}
	}
	want := func(r *httptestResponse, status int, contains string, did string) {
		t.Helper()
		if r.code != status || !strings.Contains(r.body, contains) || w.work.last() != did {
			t.Fatalf("%d %s after %q, want %d with %q after %q", r.code, r.body, w.work.last(), status, contains, did)
		}
		w.work.asked = nil
	}
	one := "/api/v1/deliveries/"
	r := post(one+publishedID+"/replay", "")
	if r.header.Get("Location") != "/api/v1/replays/job-1" {
		t.Fatalf("location %q", r.header.Get("Location"))
	}
	want(r, 202, `"id":"job-1"`, "replay ["+publishedID+"] by ops")
	want(post(one+rejectedID+"/replay", ""), 409, "not_accepted", "")
	want(post(one+pendingID+"/replay", ""), 409, "not_published", "")
	want(post(one+duplicateID+"/replay", ""), 409, publishedID, "")
	want(post(one+"nobody/replay", ""), 404, "not_found", "")
	want(post("/deliveries/"+rejectedID+"/replay", ""), 409, "re-verified", "")

	want(post("/api/v1/replays", `{"filter":{"source":"stripe","livemode":true,"limit":10}}`), 202, "job-1", "replay [] by ops")
	if f := w.work.filter; f == nil || f.Source != "stripe" || f.Livemode == nil || f.Limit != 10 {
		t.Fatalf("filter %+v", f)
	}
	want(post("/api/v1/replays?source=stripe&from=-2h", ""), 202, "job-1", "replay [] by ops")
	if w.work.filter.From.IsZero() {
		t.Fatal("from is lost")
	}
	want(post("/api/v1/replays?rate=2000", `{"filter":{"source":"stripe"}}`), 202, "job-1", "replay [] by ops")
	if w.work.rate != 2000 {
		t.Fatalf("rate %v", w.work.rate)
	}
	want(post("/api/v1/replays", `{"all":true,"rate":1.5}`), 202, "job-1", "replay [] by ops")
	if w.work.rate != 1.5 {
		t.Fatalf("rate %v", w.work.rate)
	}
	want(post("/api/v1/replays", `{"ids":["a","b"]}`), 202, "job-1", "replay [a b] by ops")
	want(post("/api/v1/replays", `{"all":true}`), 202, "job-1", "replay [] by ops")
	for _, bad := range []string{"", "{}", `{"filter":{}}`, `{"filter":{"limit":5}}`, `{"filter":{"sorce":"x"}}`, `{"filter":{"source":["x"]}}`, `{"fliter":{"source":"x"}}`,
		`{"filter":{"source":"x"}} {}`, `{"ids":["a"],"filter":{"source":"x"}}`, `{"filter":{"source":"x","cursor":"abc"}}`, `[`, `{"filter":{"source":"x"},"force":true}`,
		`{"filter":{"source":"x"},"rate":-1}`, `{"filter":{"source":"x"},"rate":1e9}`, `{"filter":{"source":"x","rate":"fast"}}`} {
		want(post("/api/v1/replays", bad), 400, "invalid_parameter", "")
	}
	want(post("/api/v1/replays", `{"ids":["`+strings.Repeat("x", maxRequestBytes)+`"]}`), 413, "too_large", "")

	w.want(w.call("GET", "/api/v1/replays", viewerToken, ""), 200, `"jobs":[`)
	w.want(w.call("GET", "/api/v1/replays/job-1", viewerToken, ""), 200, `"state":"running"`)
	w.want(w.call("GET", "/api/v1/replays/job-2", viewerToken, ""), 404)
	w.want(w.call("DELETE", "/api/v1/replays/job-1", operatorToken, ""), 200, `"canceled"`)
	want(&httptestResponse{}, 0, "", "cancel job-1 by ops")

	want(post(one+rejectedID+"/reverify", ""), 200, `"released":true`, "reverify "+rejectedID+" force=false by ops")
	want(post(one+rejectedID+"/reverify?force=true", ""), 200, `"forced":true`, "reverify "+rejectedID+" force=true by ops")
	want(post(one+rejectedID+"/reverify?force=maybe", ""), 400, "force", "")
	want(post(one+publishedID+"/reverify", ""), 409, "not_rejected", "")
	want(post("/api/v1/reverify?reason=signature_mismatch&force=true", ""), 202, "job-1", "reverify all force=true by ops")
	if f := w.work.filter; f.Verdict != "rejected" || f.Reason != "signature_mismatch" {
		t.Fatalf("filter %+v", f)
	}
	want(post("/api/v1/reverify?verdict=accepted", ""), 400, "verdict", "")
	w.work.err = fmt.Errorf("no definition: %w", ErrConflict)
	want(post(one+rejectedID+"/reverify", ""), 409, "no definition", "reverify "+rejectedID+" force=false by ops")
}

// TestExplain: why a delivery is refused, for an operator, in the API and on the page.
func TestExplain(t *testing.T) {
	w := newWorld(t, nil)
	one := "/api/v1/deliveries/"
	w.want(w.call("GET", one+rejectedID+"/explain", operatorToken, ""), 200, `"hints":["it verifies with a newline`)
	w.want(w.call("GET", one+rejectedID+"/explain", viewerToken, ""), 403)
	w.want(w.call("GET", one+publishedID+"/explain", operatorToken, ""), 409, "not_rejected")
	w.want(w.call("GET", one+"nothing/explain", operatorToken, ""), 404)
	w.want(w.call("GET", "/deliveries/"+rejectedID, operatorToken, ""), 200, "<li>it verifies with a newline &lt;at&gt; the end</li>")
	if got := w.call("GET", "/deliveries/"+rejectedID, viewerToken, ""); strings.Contains(got.Body.String(), "it verifies with") {
		t.Error("a viewer sees what an operator is told")
	}
	w.work.err = fmt.Errorf("source gone: %w", ErrConflict)
	w.want(w.call("GET", one+rejectedID+"/explain", operatorToken, ""), 409, "source gone")
	w.want(w.call("GET", "/deliveries/"+rejectedID, operatorToken, ""), 200)
	bare := newWorld(t, func(o *Options) { o.Explainer = nil })
	bare.want(bare.call("GET", one+rejectedID+"/explain", operatorToken, ""), 501, "not_configured")
	bare.want(bare.call("GET", "/deliveries/"+rejectedID, operatorToken, ""), 200)
}

type httptestResponse struct {
	code   int
	body   string
	header http.Header
}

func TestSourcesStatsReload(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/api/v1/sources", viewerToken, ""), 200, `{"sources":[{"name":"stripe"`)
	w.want(w.call("GET", "/api/v1/stats", viewerToken, ""), 200, `{"archive":{"index_lag":5}}`)
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 200, `"paused":true`)
	if w.work.last() != "pause stripe by ops" {
		t.Fatal(w.work.last())
	}
	w.want(w.call("POST", "/api/v1/sources/stripe/resume", operatorToken, ""), 200, `"paused":false`)
	w.want(w.call("POST", "/api/v1/reload", operatorToken, ""), 200)
	w.work.err = fmt.Errorf("source x: %w", ErrNotFound)
	w.want(w.call("POST", "/api/v1/sources/x/pause", operatorToken, ""), 404)
	w.work.err = errors.New("penstock.yaml:3:1: sources: bad")
	w.want(w.call("POST", "/api/v1/reload", operatorToken, ""), 400, "penstock.yaml:3:1")
	bare := newWorld(t, func(o *Options) {
		o.Replayer, o.Reverifier, o.Sources, o.Reload, o.Gatherer, o.Stats, o.Health = nil, nil, nil, nil, nil, nil, nil
	})
	for _, c := range [][2]string{{"POST", "/api/v1/deliveries/" + publishedID + "/replay"}, {"GET", "/api/v1/replays"}, {"GET", "/api/v1/sources"},
		{"POST", "/api/v1/sources/x/pause"}, {"POST", "/api/v1/reload"}, {"POST", "/api/v1/deliveries/" + rejectedID + "/reverify"}, {"GET", "/metrics"}} {
		bare.want(bare.call(c[0], c[1], operatorToken, ""), 501, "not_configured")
	}
	bare.want(bare.call("GET", "/readyz", "", ""), 200)
}

// Whoever changes something is named in the log, and so is who tried.
func TestAuditLog(t *testing.T) {
	w := newWorld(t, nil)
	w.call("POST", "/api/v1/deliveries/"+publishedID+"/replay", operatorToken, "")
	w.call("POST", "/api/v1/deliveries/"+rejectedID+"/reverify?force=true", operatorToken, "")
	w.call("POST", "/api/v1/deliveries/"+pendingID+"/release", viewerToken, "")
	w.want(w.call("POST", "/api/v1/deliveries/"+pendingID+"/release", operatorToken, ""), 202, `"released":true`)
	w.call("POST", "/api/v1/sources/stripe/pause", viewerToken, "")
	w.call("GET", "/api/v1/deliveries", operatorToken, "")
	var lines []string
	for _, e := range w.logs.FilterMessage("audit").All() {
		m := e.ContextMap()
		lines = append(lines, fmt.Sprint(m["act"], " ", m["target"], " ", m["query"], " ", m["by"], " ", m["status"]))
	}
	want := []string{
		"POST /api/v1/deliveries/{id}/replay " + publishedID + "  ops 202",
		"POST /api/v1/deliveries/{id}/reverify " + rejectedID + " force=true ops 200",
		"POST /api/v1/deliveries/{id}/release " + pendingID + "  eyes 403",
		"POST /api/v1/deliveries/{id}/release " + pendingID + "  ops 202",
		"POST /api/v1/sources/{name}/pause stripe  eyes 403"}
	if !slices.Equal(lines, want) {
		t.Fatalf("audit\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for _, e := range w.logs.All() {
		if s := fmt.Sprint(e.ContextMap()); strings.Contains(s, operatorToken) || strings.Contains(s, "alert(1)") {
			t.Fatalf("log line holds a secret: %s", s)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 2000 {
		w.want(w.call("GET", fmt.Sprintf("/nothing/%d", i), "", ""), 404)
		w.call("GET", fmt.Sprintf("/api/v1/deliveries/x%d", i), operatorToken, "")
	}
	rec := w.call("PUT", "/api/v1/replays", operatorToken, "")
	w.want(rec, 405)
	if a := rec.Header().Get("Allow"); !strings.Contains(a, "GET") || !strings.Contains(a, "POST") {
		t.Fatalf("Allow %q", a)
	}
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for _, f := range families {
		series += len(f.GetMetric())
	}
	if limit := 5*(len(w.server.routes)+1) + 20; series > limit {
		t.Fatalf("%d series after random paths, want at most %d", series, limit)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Stats = func(context.Context) map[string]any { panic("oops") } })
	w.want(w.call("GET", "/api/v1/stats", operatorToken, ""), 500, `"internal"`)
	w.want(w.call("GET", "/healthz", "", ""), 200)
	if len(w.server.slots) != 0 {
		t.Fatal("the panic kept its slot")
	}
}

func TestTooBusy(t *testing.T) {
	w := newWorld(t, nil)
	for range maxConcurrent {
		w.server.slots <- struct{}{}
	}
	w.want(w.call("GET", "/api/v1/deliveries", operatorToken, ""), 503, "too_busy")
	w.want(w.call("GET", "/readyz", "", ""), 200)
	w.want(w.call("GET", "/metrics", "", ""), 200)
	for range maxScrapes {
		w.server.scrapes <- struct{}{}
	}
	w.want(w.call("GET", "/metrics", "", ""), 503, "too_busy")
}

// What a payload holds stays text, wherever it is shown.
func TestStoredXSSStaysInert(t *testing.T) {
	w := newWorld(t, nil)
	for _, attack := range []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `javascript:alert(1)`,
		`</textarea><svg onload=alert(1)>`, `{{.}}<b>`, "\u2028</pre><script>", `" onmouseover="alert(1)`} {
		id := "01JCQ00000000000000XSS0001"
		row := archive.Row{ID: id, Source: attack, Provider: attack, Verdict: "rejected", Reason: attack, Outcome: "published", DuplicateOf: attack,
			EventID: attack, EventType: attack, Type: attack, OrderID: attack, PaymentID: attack, Tenant: attack, RequestID: attack,
			IdempotencyKey: attack, Status: attack, Currency: attack, RemoteIP: attack, Method: attack, Path: attack}
		w.archive.order = nil
		w.archive.add(row, &archive.Delivery{Body: []byte(attack), Header: []byte(attack + ": x\r\nX-A: " + attack + "\r\n"), Target: []byte("/" + attack),
			VerifiedBy: attack}, archive.Outcome{Kind: archive.Published, Topic: attack, Reason: attack, Of: attack, Replay: attack, Fields: archive.Fields{CEID: attack}})
		for _, path := range []string{"/", "/overview", "/refused", "/sources", "/replays", "/deliveries/" + id, "/?q=" + strings.NewReplacer("<", "%3C", " ", "%20", "\"", "%22", ">", "%3E", "\u2028", "%E2%80%A8").Replace(attack),
			"/deliveries/" + id + "?job=%3Cscript%3Ealert(1)%3C/script%3E"} {
			rec := w.call("GET", path, operatorToken, "")
			w.want(rec, 200)
			page := strings.Replace(rec.Body.String(), `<script src="/static/page.js" defer></script>`, "", 1) // the page's own
			for _, live := range []string{"<script", "<img", "<svg onload", "<b>", "</textarea>", "href=\"javascript:", "onmouseover=\"alert"} {
				if strings.Contains(page, live) {
					t.Fatalf("%s with %q holds %q", path, attack, live)
				}
			}
			if csp := rec.Header().Get("Content-Security-Policy"); csp != contentPolicy || !strings.Contains(csp, "script-src 'self';") || strings.Contains(csp, "unsafe") {
				t.Fatalf("CSP %q", csp)
			}
			if rec.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html; charset=utf-8") {
				t.Fatalf("headers %v", rec.Header())
			}
		}
	}
	w.want(w.call("GET", "/login?next=%22%3E%3Cscript%3E", "", ""), 200)
	if strings.Contains(w.call("GET", "/login?next=/%22%3E%3Cscript%3E", "", "").Body.String(), "<script>") {
		t.Fatal("login page holds a script")
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/", viewerToken, ""), 200, "order:672626", "/deliveries/"+publishedID, "cursor=next-page")
	w.want(w.call("GET", "/?outcome=dead&tenant=x", viewerToken, ""), 200, `<option selected>dead`, `value="x"`, "<details open>")
	w.want(w.call("GET", "/?limit=9999", viewerToken, ""), 400, "limit: ", "Deliveries")
	w.want(w.call("GET", "/deliveries/"+rejectedID, operatorToken, ""), 200, "Compare the secret here", "not text")
	w.want(w.call("GET", "/deliveries/nobody", operatorToken, ""), 404, "<!doctype html>")
	w.want(w.call("GET", "/deliveries/"+publishedID, operatorToken, ""), 200, "webhooks.stripe/2@77", "Replay now", "Download the exact bytes")
	if page := w.call("GET", "/deliveries/"+publishedID, viewerToken, "").Body.String(); strings.Contains(page, "Replay now") {
		t.Fatal("a viewer is offered a replay")
	}
	w.want(w.call("GET", "/static/style.css", "", ""), 200, "color-scheme")
	w.archive.order = nil
	w.want(w.call("GET", "/", viewerToken, ""), 200, "No delivery has arrived yet")
	deep := strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000)
	if text, _ := readable([]byte(deep)); text != deep {
		t.Fatalf("a deep body was blown up to %d bytes", len(text))
	}
	if text, note := readable(bytes.Repeat([]byte("я"), maxShownBody)); len(text) > maxShownBody || note == "" {
		t.Fatal("a large body is shown whole")
	}
	if text, _ := readable([]byte(`{"a":[1]}`)); text != "{\n  \"a\": [\n    1\n  ]\n}" {
		t.Fatalf("JSON is shown as %q", text)
	}
}
