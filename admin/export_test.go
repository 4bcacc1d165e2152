package admin

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

func TestCounts(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/api/v1/counts?from=2026-05-01T00:00:00Z&to=2026-05-02T00:00:00Z&step=1h&source=stripe", viewerToken, ""), 200, `"step_seconds":3600`, `"buckets":[]`)
	if f := w.archive.asked; f.Source != "stripe" || f.To.Sub(f.From) != 24*time.Hour {
		t.Fatalf("asked %+v", f)
	}
	w.want(w.call("GET", "/api/v1/counts?step=7d", viewerToken, ""), 200, `"step_seconds":604800`)
	if f := w.archive.asked; f.To.Sub(f.From) != countRange {
		t.Fatalf("asked %+v", f)
	}
	for _, q := range []string{"step=x", "step=-1h", "step=0d", "q=x", "from=x", "verdict=accepted"} {
		w.want(w.call("GET", "/api/v1/counts?"+q, viewerToken, ""), 400, "invalid_parameter")
	}
	w.archive.err = fmt.Errorf("%w: too many", archive.ErrCountRange)
	w.want(w.call("GET", "/api/v1/counts", viewerToken, ""), 400, "too many")
	w.archive.err = nil
	w.want(w.call("GET", "/api/v1/counts?source=nobody", consumerToken, ""), 403)
	w.want(w.call("GET", "/api/v1/counts", "", ""), 401)
}

func TestExportRows(t *testing.T) {
	w := newWorld(t, nil)
	w.archive.pages = 3
	rec := w.call("GET", "/api/v1/export?format=csv&verdict=accepted", viewerToken, "")
	w.want(rec, 200)
	lines, err := csv.NewReader(rec.Body).ReadAll()
	if err != nil || len(lines) != 1+3*5 || lines[0][0] != "id" || len(lines[0]) != 25 || rec.Header().Get("Content-Type") != "text/csv; charset=utf-8; header=present" {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	w.archive.pages = 3
	rec = w.call("GET", "/api/v1/export?limit=6", viewerToken, "")
	if n := strings.Count(rec.Body.String(), "\n"); n != 6 || !strings.HasPrefix(rec.Body.String(), `{"id":`) {
		t.Fatalf("%d rows of NDJSON, want 6", n)
	}
	for _, q := range []string{"format=xml", "limit=0", "cursor=x", "nonsense=1"} {
		w.want(w.call("GET", "/api/v1/export?"+q, viewerToken, ""), 400, "invalid_parameter")
	}
	w.want(w.call("GET", "/api/v1/export", "", ""), 401)
	w.want(w.call("GET", "/api/v1/export?source=nobody", consumerToken, ""), 403)
	w.archive.err = archive.ErrIndex
	w.want(w.call("GET", "/api/v1/export", viewerToken, ""), 503)
}

// TestExportIsCutOff: an error on the way must not look like the end.
func TestExportIsCutOff(t *testing.T) {
	w := newWorld(t, nil)
	w.archive.pages, w.archive.failAt = 3, 2
	srv := httptest.NewServer(w.server.Handler())
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/export", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+viewerToken)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil || bytes.Count(b, []byte("\n")) != 5 {
		t.Fatalf("the answer ends as if it were whole: %v after %d bytes", err, len(b))
	}
}

// TestTextRoles: what a role may not see it cannot find letter by letter either.
func TestTextRoles(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/api/v1/deliveries?text=4242", viewerToken, ""), 403, "body_masked")
	w.want(w.call("GET", "/api/v1/export?text=4242", viewerToken, ""), 403, "body_masked")
	w.want(w.call("GET", "/api/v1/deliveries?text=4242", operatorToken, ""), 200)
	if f := w.archive.asked; f.Text != "4242" || f.BodyOnly {
		t.Fatalf("an operator's %+v", f)
	}
	w.want(w.call("GET", "/api/v1/deliveries?text=4242&source=stripe", consumerToken, ""), 200)
	if f := w.archive.asked; !f.BodyOnly {
		t.Fatalf("a consumer's %+v", f)
	}
	w.want(w.call("GET", "/api/v1/stream?text=4242", operatorToken, ""), 400, "text")
	w.want(w.call("POST", "/api/v1/replays", operatorToken, `{"filter":{"text":"4242"}}`), 400, "text")
}
