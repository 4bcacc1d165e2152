package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestCardNumberInAnID: what a provider, or a payer, puts where an order id belongs is masked in
// everything that lists deliveries: for nobody is it in the index at all.
func TestCardNumberInAnID(t *testing.T) {
	const card, masked = "4242424242424242", "424242******4242"
	e := newEdge(t, t.TempDir(), false, notifySources)
	admin := httptest.NewServer(e.p.admin.Handler())
	defer admin.Close()
	get := func(path string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, admin.URL+path, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v %s", path, resp.StatusCode, err, b)
		}
		return string(b)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, admin.URL+"/api/v1/stream", nil)
	stream, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	status, body, h := e.post("shop", liqpay(t, card, "i0000000001", "0123456789abcdef"))
	if status != http.StatusOK {
		t.Fatalf("answered %d %s", status, body)
	}
	row := ""
	for lines := bufio.NewScanner(stream.Body); row == "" && lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			row = data
		}
	}
	if !strings.Contains(row, masked) || strings.Contains(row, card) {
		t.Errorf("the stream says %s", row)
	}
	waitFor(t, "it is listed", func() bool { return strings.Contains(get("/api/v1/deliveries"), h.Get("Penstock-Delivery-Id")) })
	for _, path := range []string{"/api/v1/deliveries", "/api/v1/deliveries?q=424242", "/api/v1/deliveries/" + h.Get("Penstock-Delivery-Id"),
		"/api/v1/export?format=csv", "/api/v1/export?format=ndjson", "/", "/?q=424242", "/sources/shop"} {
		if text := get(path); strings.Contains(text, card) || !strings.Contains(text, masked) && !strings.HasPrefix(path, "/sources") {
			t.Errorf("%s shows the card, or not the delivery:\n%s", path, text)
		}
	}
	// What tells the middle digit by digit.
	if text := get("/api/v1/deliveries?q=4242424"); strings.Contains(text, h.Get("Penstock-Delivery-Id")) {
		t.Errorf("a search finds the card by its middle: %s", text)
	}
	resp, err := http.Get(e.url + "/in/" + card) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp, err = http.Get(e.url + "/in/shpo"); err != nil { //nolint:noctx // as above
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if text := get("/api/v1/stats"); !strings.Contains(text, `"meant_path":"/in/shop","meant_source":"shop"`) {
		t.Errorf("what was meant by /in/shpo is not said: %s", text)
	}
	for _, path := range []string{"/sources", "/overview", "/api/v1/stats"} {
		if text := get(path); strings.Contains(text, card) || !strings.Contains(text, masked) {
			t.Errorf("%s shows the card in an unknown path, or not the path:\n%s", path, text)
		}
	}
}
