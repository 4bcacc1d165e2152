package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeAdmin answers as the admin API does and notes what it was asked.
type fakeAdmin struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // "METHOD path?query"
	polls int
}

const adminToken = "0123456789abcdef"

func newFakeAdmin(t *testing.T) *fakeAdmin {
	f := &fakeAdmin{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/deliveries", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("from") == "nonsense" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"title":"Bad Request","detail":"from: \"nonsense\" is no time"}`)
			return
		}
		if r.URL.Query().Has("text") {
			// The time was up before anything was found; the next page finds it.
			if r.URL.Query().Get("cursor") == "" {
				fmt.Fprint(w, `{"deliveries":[],"next":"c1","progress":{"scanned":100,"damaged":1,"total":150,"left":50,"reached_at":"2026-05-28T20:26:41Z"}}`)
				return
			}
			fmt.Fprint(w, `{"deliveries":[{"id":"01C","received_at":"2026-05-28T20:26:40Z","source":"stripe","verdict":"accepted"}],"next":"","progress":{"scanned":50,"damaged":0,"total":150,"left":0,"reached_at":"2026-05-28T20:26:40Z"}}`)
			return
		}
		if r.URL.Query().Get("cursor") == "" {
			fmt.Fprint(w, `{"deliveries":[{"id":"01A","received_at":"2026-05-28T20:26:41.123Z","source":"stripe","verdict":"accepted","outcome":"published","event_type":"charge.succeeded","type":"payment.captured","order_id":"o-1","amount_minor":9232,"currency":"EUR","remote_ip":"127.0.0.1","new_field":7}],"next":"c1"}`)
			return
		}
		fmt.Fprint(w, `{"deliveries":[{"id":"01B","received_at":"2026-05-28T20:26:40Z","source":"stripe","verdict":"rejected","reason":"signature_mismatch","event_id":"evil\u001b[2J"}],"next":""}`)
	})
	mux.HandleFunc("GET /api/v1/deliveries/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "01A" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"title":"Not Found","detail":"there is no delivery"}`)
			return
		}
		fmt.Fprint(w, `{"id":"01A","received_at":"2026-05-28T20:26:41Z","source":"stripe","provider":"stripe","verdict":"accepted","method":"POST","path":"/in/stripe","target":"/in/stripe?a=1","headers":[["Stripe-Signature","t=1,v1=ab"],["X-Twice","1"],["X-Twice","2"]],"published":[{"topic":"webhooks.stripe","partition":3,"offset":17}],`+
			`"timeline":[{"step":"received","at":"2026-05-28T20:26:41Z"},{"step":"verified","at":"2026-05-28T20:26:41.00013Z"},{"step":"archived"},`+
			`{"step":"published","at":"2026-05-28T20:26:41.04Z","text":"to webhooks.stripe/3@17\u001b[2J"}]}`)
	})
	mux.HandleFunc("GET /api/v1/deliveries/{id}/body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{\"a\":\x00 1}") })
	mux.HandleFunc("POST /api/v1/deliveries/{id}/replay", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":"J1","state":"queued"}`)
	})
	mux.HandleFunc("POST /api/v1/replays", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":"J2","state":"running","total":-1}`)
	})
	mux.HandleFunc("GET /api/v1/replays/{id}", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		f.polls++
		state, failed := "running", 0
		if f.polls > 1 {
			state, failed = "done", 1
		}
		f.mu.Unlock()
		fmt.Fprintf(w, `{"id":"J2","state":%q,"done":2,"failed":%d}`, state, failed)
	})
	mux.HandleFunc("GET /api/v1/stream", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, ": penstock\n\nevent: dropped\ndata: {\"dropped\":4}\n\nevent: delivery\nid: 01A\ndata: {\"id\":\"01A\",\"source\":\"stripe\",\"verdict\":\"accepted\"}\n\n"+
			": alive\n\nevent: delivery\nid: 01B\ndata: {\"id\":\"01B\",\"source\":\"stripe\",\"verdict\":\"rejected\",\"reason\":\"signature_missing\"}\n\n")
	})
	mux.HandleFunc("GET /api/v1/audit", func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); {
		case q.Get("action") == "nonsense":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"title":"Bad Request","detail":"no such action"}`)
		case q.Get("who") == "nobody":
			fmt.Fprint(w, `{"entries":[],"next":""}`)
		case q.Get("cursor") == "":
			fmt.Fprint(w, `{"entries":[{"seq":7,"at":"2026-05-28T20:26:41Z","action":"replay","who":"ops","role":"operator","from":"192.0.2.1","result":"done","subject":"01A","missed":3,"new_field":7}],"next":"7"}`)
		default:
			fmt.Fprint(w, `{"entries":[{"seq":6,"at":"2026-05-28T20:26:40Z","action":"replay","who":"evil\u001b[2J","result":"begun"}],"next":""}`)
		}
	})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
		f.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer "+adminToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func (f *fakeAdmin) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

func adminWorld(t *testing.T) (*world, *fakeAdmin) {
	f, w := newFakeAdmin(t), newWorld(t)
	w.env["PENSTOCK_ADMIN_TOKEN"] = adminToken
	return w, f
}

func TestDeliveriesList(t *testing.T) {
	w, f := adminWorld(t)
	w.want(exitOK, "payment.captured", "deliveries", "list", "--admin", f.URL)
	out := w.out.String()
	for _, want := range []string{"rejected: signature_mismatch", "9232 EUR", "2026-05-28T20:26:41.123Z", "01B"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("a delivery draws on the terminal")
	}
	w.want(exitOK, "01A", "deliveries", "list", "--admin", f.URL, "--limit", "1", "--order-id", "o 1&x", "--event-type=t", "--from", "-2h", "--livemode", "true")
	if got, want := f.last(), "GET /api/v1/deliveries?event_type=t&from=-2h&limit=1&livemode=true&order_id=o+1%26x"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	w.want(exitOK, "and more", "deliveries", "list", "--admin", f.URL, "--limit", "1")
	w.want(exitFound, "nonsense", "deliveries", "list", "--admin", f.URL, "--from", "nonsense")
	w.run(t.Context(), "deliveries", "list", "--admin", f.URL, "--json")
	var page struct{ Deliveries []map[string]any }
	if err := json.Unmarshal(w.out.Bytes(), &page); err != nil || len(page.Deliveries) != 2 || page.Deliveries[0]["new_field"] != 7.0 {
		t.Errorf("--json passes on what the API says: %v %s", err, w.out.String())
	}
}

// TestDeliveriesText: a page without a find is not the end, and progress is told.
func TestDeliveriesText(t *testing.T) {
	w, f := newWorld(t), newFakeAdmin(t)
	w.want(exitOK, "01C", "deliveries", "list", "--admin", f.URL, "--token", adminToken, "--text", "needle")
	for _, want := range []string{"0 found, 100 read, 50 of 150 left, back to 2026-05-28T20:26:41Z", "1 found, 150 read, 0 of 150 left", "1 are damaged"} {
		if !strings.Contains(w.err.String(), want) {
			t.Errorf("standard error lacks %q:\n%s", want, w.err.String())
		}
	}
}

func TestDeliveriesToken(t *testing.T) {
	w, f := adminWorld(t)
	w.want(exitOK, "01A", "deliveries", "list", "--admin", f.URL, "--token", adminToken)
	w.env["PENSTOCK_ADMIN_TOKEN"] = "another-token-0123"
	w.want(exitFound, "give --token, or set PENSTOCK_ADMIN_TOKEN", "deliveries", "list", "--admin", f.URL)
	delete(w.env, "PENSTOCK_ADMIN_TOKEN")
	dir := t.TempDir()
	config := "admin: {listen: '" + strings.TrimPrefix(f.URL, "http://") + "', tokens: [{name: dev, role: operator, token: " + adminToken + "}]}\n" + goodConfig
	if err := os.WriteFile(filepath.Join(dir, "penstock.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want(exitOK, "01A", "deliveries", "list", "--dir", dir)
	w.want(exitOK, "01A", "deliveries", "list", "--dir", dir, "--admin", f.URL)
	f.CloseClientConnections()
	w.want(exitFound, "connect", "deliveries", "list", "--admin", "127.0.0.1:1")
}

func TestDeliveriesShow(t *testing.T) {
	w, f := adminWorld(t)
	w.want(exitOK, "X-Twice: 2", "deliveries", "show", "01A", "--admin", f.URL)
	if !strings.Contains(w.out.String(), `"offset":17`) {
		t.Errorf("where it was published is not shown:\n%s", w.out.String())
	}
	for _, want := range []string{"2026-05-28 20:26:41.000130         +130µs  verified", "time not on record                         archived", "+40ms  published    to webhooks.stripe/3@17"} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in\n%s", want, w.out.String())
		}
	}
	if strings.Contains(w.out.String(), "\x1b[2J") || strings.Contains(w.out.String(), `"step"`) {
		t.Errorf("the timeline draws on the terminal, or is shown as it came:\n%s", w.out.String())
	}
	w.want(exitFound, "there is no delivery", "deliveries", "show", "nope", "--admin", f.URL)
	w.want(exitOK, "{\"a\":\x00 1}", "deliveries", "show", "01A", "--body", "-", "--admin", f.URL)
	w.want(exitOK, "", "deliveries", "show", "01A", "--case", "--admin", f.URL)
	var c struct {
		Now     int64
		Request struct {
			Method, URL string
			Headers     [][2]string
			BodyB64     string `json:"body_b64"`
		}
	}
	if err := json.Unmarshal(w.out.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	body, _ := base64.StdEncoding.DecodeString(c.Request.BodyB64)
	if c.Now != 1780000001 || (c.Request.URL != "/in/stripe?a=1" || c.Request.Method != "POST" || len(c.Request.Headers) != 3 || string(body) != "{\"a\":\x00 1}") {
		t.Errorf("case: %+v", c)
	}
}

func TestDeliveriesReplay(t *testing.T) {
	w, f := adminWorld(t)
	w.want(exitOK, "job J1: queued", "deliveries", "replay", "01A", "--admin", f.URL)
	if f.last() != "POST /api/v1/deliveries/01A/replay" {
		t.Errorf("asked %s", f.last())
	}
	w.want(exitOK, "job J2", "deliveries", "replay", "--source", "x", "--rate", "2000", "--admin", f.URL)
	if got := f.last(); !strings.Contains(got, "rate=2000") {
		t.Errorf("asked %s", got)
	}
	w.want(exitUsage, "goes with filters", "deliveries", "replay", "01A", "--rate", "5", "--admin", f.URL)
	w.want(exitUsage, "a filter must be given", "deliveries", "replay", "--rate", "5", "--admin", f.URL)
	w.want(exitUsage, "a filter must be given", "deliveries", "replay", "--admin", f.URL)
	w.want(exitUsage, "or give filters", "deliveries", "replay", "01A", "--source", "x", "--admin", f.URL)
	w.want(exitUsage, "a filter must be given", "deliveries", "replay", "--sink", "http", "--admin", f.URL)
	w.want(exitUsage, "--sink is kafka or http", "deliveries", "replay", "01A", "--sink", "pulsar", "--admin", f.URL)
	w.want(exitOK, "job J1: queued", "deliveries", "replay", "01A", "--sink", "http", "--admin", f.URL)
	if f.last() != "POST /api/v1/deliveries/01A/replay?sink=http" {
		t.Errorf("asked %s", f.last())
	}
	w.want(exitOK, "job J2: running", "deliveries", "replay", "--source", "stripe", "--sink", "kafka", "--admin", f.URL)
	if f.last() != "POST /api/v1/replays?sink=kafka&source=stripe" {
		t.Errorf("asked %s", f.last())
	}
	// A job with failures is exit code 1.
	w.want(exitFound, "job J2: done, 2 done, 0 skipped, 1 failed", "deliveries", "replay", "--source", "stripe", "--wait", "--admin", f.URL)
}

func TestHealthcheck(t *testing.T) {
	w := newWorld(t)
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL.Path)
		}
		rw.WriteHeader(status)
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	// It needs no secret: it runs beside the process, perhaps without its environment.
	file := w.file("c.yaml", "admin: {listen: '"+addr+"', tokens: [{name: a, token: env:NOT_SET_HERE}]}\n"+goodConfig)
	w.want(exitOK, "", "healthcheck", "-c", file)
	w.want(exitOK, "", "healthcheck", "--admin", srv.URL)
	_, port, _ := strings.Cut(addr, ":")
	w.want(exitOK, "", "healthcheck", "-c", w.file("c.yaml", "admin: {listen: '0.0.0.0:"+port+"'}\n"))
	status = http.StatusServiceUnavailable
	w.want(exitFound, "503", "healthcheck", "-c", file)
	w.want(exitFound, "cannot be read", "healthcheck", "-c", "no-such.yaml")
	w.want(exitFound, "connect", "healthcheck", "--admin", "http://127.0.0.1:1")
}

func TestAudit(t *testing.T) {
	w, f := adminWorld(t)
	w.want(exitOK, "evil�[2J", "audit", "--admin", f.URL, "--limit", "2", "--action", "replay", "--from", "-2h")
	if got, want := f.last(), "GET /api/v1/audit?action=replay&cursor=7&from=-2h&limit=1"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	for _, want := range []string{"ops", "operator", "192.0.2.1", "3 refused attempts", "begun"} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in\n%s", want, w.out.String())
		}
	}
	w.want(exitOK, `"new_field": 7`, "audit", "--admin", f.URL, "--json")
	w.want(exitFound, "no such action", "audit", "--admin", f.URL, "--action", "nonsense")
	w.want(exitUsage, "--limit at least 1", "audit", "--limit", "0")
	w.want(exitOK, "no entries", "audit", "--admin", f.URL, "--who", "nobody")
}
