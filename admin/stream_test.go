package admin

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"penstock/archive"
)

// serve runs the server on a real socket.
func serve(t *testing.T, w *world) (url string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Run(ctx, ln) }()
	return "http://" + ln.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestStream(t *testing.T) {
	w := newWorld(t, nil)
	w.server.writeTimeout = 200 * time.Millisecond // must not end the stream
	base, stop := serve(t, w)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(token, query string) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", base+"/api/v1/stream"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for token, status := range map[string]int{"": 401, "wrong-token": 401} {
		resp := get(token, "")
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Fatalf("stream with %q: %d", token, resp.StatusCode)
		}
	}
	resp := get(viewerToken, "?source=stripe")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("stream: %d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		t.Helper()
		for lines.Scan() {
			if l := lines.Text(); l != "" && !strings.HasPrefix(l, ":") {
				return l
			}
		}
		t.Fatalf("stream ended: %v", lines.Err())
		return ""
	}
	time.Sleep(3 * w.server.writeTimeout)
	w.archive.tail <- archive.TailRow{Row: archive.Row{ID: otherID, Source: "liqpay"}}
	w.archive.tail <- archive.TailRow{Row: archive.Row{ID: publishedID, Source: "stripe", OrderID: "a\n\nevent: x"}, Dropped: 3}
	for _, want := range []string{"event: dropped", `data: {"dropped":3}`, "event: delivery", "id: " + publishedID} {
		if got := next(); got != want {
			t.Fatalf("stream gave %q, want %q", got, want)
		}
	}
	if got := next(); !strings.HasPrefix(got, `data: {"id":"`+publishedID) || !strings.Contains(got, `a\n\nevent: x`) {
		t.Fatalf("data %q", got)
	}
	stop() // the server ends its streams, and so does not wait for them
	if lines.Scan() && lines.Text() != "" {
		t.Fatalf("after the end: %q", lines.Text())
	}
	resp.Body.Close()
	<-w.archive.canceled
}

// openapi.yaml and the routes are one and the same list.
func TestOpenAPICoversTheRoutes(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []map[string]string
			Security   *[]any
			Responses  map[string]any
		}
		Components struct {
			Parameters map[string]struct{ Name, In string }
			Schemas    map[string]any
		}
	}
	if err := yaml.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	var have, want []string
	for path, ops := range doc.Paths {
		for method := range ops {
			have = append(have, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range w.server.routes {
		isPage := r.who == pages || strings.HasPrefix(r.path, "/log") || strings.HasPrefix(r.path, "/static")
		if isPage {
			continue
		}
		want = append(want, r.method+" "+r.path)
		op := doc.Paths[r.path][strings.ToLower(r.method)]
		if (op.Security != nil) != (r.who == public) {
			t.Errorf("%s %s: openapi and route differ on who may ask", r.method, r.path)
		}
		if len(op.Responses) == 0 {
			t.Errorf("%s %s: no responses", r.method, r.path)
		}
	}
	sort.Strings(have)
	sort.Strings(want)
	if !slices.Equal(have, want) {
		t.Fatalf("openapi has\n%s\nroutes are\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	// Its filters are those that are read, and all of them.
	filters := 0
	for _, p := range doc.Paths["/api/v1/deliveries"]["get"].Parameters {
		name := doc.Components.Parameters[strings.TrimPrefix(p["$ref"], "#/components/parameters/")].Name
		if name == "" {
			t.Fatalf("parameter %v is not defined", p)
		}
		filters++
		if _, err := archive.ParseFilter(map[string][]string{name: {""}}, time.Now()); err != nil {
			t.Errorf("openapi lists %s, and %v", name, err)
		}
	}
	for _, name := range strings.Fields("source provider verdict reason outcome type event_id order_id payment_id tenant request_id idempotency_key livemode status from to q limit cursor") {
		if !strings.Contains(string(OpenAPI()), "{name: "+name+",") {
			t.Errorf("openapi does not have CONTRACT's filter %s", name)
		}
	}
	if filters != 21 {
		t.Errorf("%d filters, want 21", filters)
	}
	rec := w.call("GET", "/openapi.yaml", viewerToken, "")
	w.want(rec, 200)
	w.want(w.call("GET", "/openapi.yaml", viewerToken, "", "If-None-Match", rec.Header().Get("ETag")), 304)
}
