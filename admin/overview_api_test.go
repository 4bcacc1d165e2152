package admin

import (
	"context"
	"encoding/json"
	"errors"
	"html"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/archive"
)

func (w *world) overview(token string) (d overviewDoc) {
	w.t.Helper()
	rec := w.call("GET", "/api/v1/overview", token, "")
	w.want(rec, 200)
	if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// The API says of attention what the page says, in its order and to whom the page says it.
func TestOverviewOfTheAPI(t *testing.T) {
	st := State{Sink: true, SinkState: "live"}
	w := newWorld(t, func(o *Options) { o.State = func(context.Context) State { return st } })
	w.want(w.call("GET", "/api/v1/overview", viewerToken, ""), 200, `{"attention":[],"ready":true,"degraded":[],"hour":{`, `"busiest":[]`, `"sink_state":"live"`)
	st = State{Sink: true, KafkaAway: true, Redis: true, RedisAway: true, Unpublished: 7, OldestFor: 90 * time.Minute, Damage: []string{"segment 3"}, DiskFree: 1 << 50,
		DiskFull: true, Failing: "no space", Oldest: time.Unix(1e9, 0), Blocked: map[string]string{"webhooks.x": "topic_missing"}, ConfigError: "p.yaml:3:1", Held: 2}
	w.health = Health{Unready: errors.New("no space"), Degraded: []string{"redis"}}
	w.archive.counted, w.work.paused = map[string]archive.CountRow{"stripe": {Accepted: 8, Rejected: 12}}, true
	w.archive.add(archive.Row{ID: noID, Source: "stripe", Verdict: "accepted", Outcome: archive.Dead.String()}, &archive.Delivery{})
	acks := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_ack_seconds", Buckets: []float64{0.002}})
	acks.Observe(0.001)
	w.reg.MustRegister(acks)
	w.server.gathered.at = time.Time{} // or what was gathered within a second is shared

	d := w.overview(viewerToken)
	var codes []string
	page := html.UnescapeString(w.call("GET", "/overview", viewerToken, "").Body.String())
	for at, rest := 0, page; at < len(d.Attention); at++ {
		a := d.Attention[at]
		codes = append(codes, a.Level+" "+a.Code)
		shown := `<p class="alert ` + a.Level + `" role="status"><span class="mark" aria-hidden="true">!</span> <a href="` + a.Href + `">` + a.Text + `</a></p>`
		_, after, ok := strings.Cut(rest, shown)
		if !ok {
			t.Errorf("the page does not say, or not in this order, %s", shown)
			continue
		}
		rest = after
	}
	if n := strings.Count(page, `<p class="alert `); n != len(d.Attention) {
		t.Errorf("the page has %d alerts, the API %d", n, len(d.Attention))
	}
	want := []string{"bad not_ready", "bad archive_damaged", "bad kafka_away", "warn redis_away", "bad topic_blocked", "warn publishing_late",
		"warn config_not_in_force", "warn many_refused", "bad dead_letters", "warn source_paused"}
	if !slices.Equal(codes, want) {
		t.Errorf("attention\n%v, want\n%v", codes, want)
	}
	if d.Ready || d.Reason != "no space" || d.State == nil || d.State.Unpublished != 7 || d.State.OldestFor != 90*time.Minute || !d.State.DiskFull || !d.State.KafkaAway {
		t.Errorf("%+v", d)
	}
	if len(d.Busiest) != 1 || d.Busiest[0].Source != "stripe" || d.Busiest[0].Rejected != 12 || d.AckP99 <= 0 || d.AckP50 <= 0 || d.PublishLagP99 != 0 {
		t.Errorf("%+v", d)
	}

	// Rows are those of the list, and nothing of headers and bodies comes with them.
	if len(d.LastRefused) == 0 {
		t.Error("no refusals")
	}
	text := w.call("GET", "/api/v1/overview", viewerToken, "").Body.String()
	for _, secret := range []string{"hush", "c2VjcmV0", "sid=1", "alert(1)"} {
		if strings.Contains(text, secret) {
			t.Errorf("a viewer is shown %q: %s", secret, text)
		}
	}
	w.want(w.call("GET", "/api/v1/overview", consumerToken, ""), 403, "forbidden")
	w.want(w.call("GET", "/api/v1/overview", "", ""), 401)

	// What cannot be counted is not none.
	w.archive.err = archive.ErrIndex
	if d := w.overview(operatorToken); d.Hour != nil || d.Day != nil || len(d.Attention) == 0 {
		t.Errorf("without an index: %+v", d)
	}
}

// Without State it is what Health says.
func TestOverviewOfLittle(t *testing.T) {
	w := newWorld(t, nil)
	w.health.Degraded = []string{"redis"}
	w.want(w.call("GET", "/api/v1/overview", viewerToken, ""), 200, `"code":"degraded","severity":"warn"`, `"degraded":["redis"]`)
	if d := w.overview(viewerToken); d.State != nil {
		t.Errorf("a state that nobody knows: %+v", d.State)
	}
}

// Unknown paths come with the source that the page asks about.
func TestStatsSayWhatWasMeant(t *testing.T) {
	list := []UnknownPath{{Path: "/in/strpe", Method: "POST", Address: "192.0.2.9", Count: 3}, {Path: "/wp-login.php", Method: "GET"}}
	w := newWorld(t, func(o *Options) { o.State = func(context.Context) State { return State{Unknown: list} } })
	w.want(w.call("GET", "/api/v1/stats", viewerToken, ""), 200, `"index_lag":5`,
		`{"path":"/in/strpe","method":"POST","count":3,"address":"192.0.2.9","user_agent":"","first":"0001-01-01T00:00:00Z","last":"0001-01-01T00:00:00Z","meant_path":"/in/stripe","meant_source":"stripe"}`,
		`{"path":"/wp-login.php","method":"GET","count":0,"address":"","user_agent":"","first":"0001-01-01T00:00:00Z","last":"0001-01-01T00:00:00Z"}`)
	w.want(w.call("GET", "/overview", viewerToken, ""), 200, `Did you mean <a href="/sources/stripe"><code>/in/stripe</code></a>?`)
	w.want(w.call("GET", "/api/v1/stats", consumerToken, ""), 403)
	list = nil
	w.want(w.call("GET", "/api/v1/stats", viewerToken, ""), 200, `"ingest":{"unknown_paths":[]}`)
}
