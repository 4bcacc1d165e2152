package fetch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTransport: whoever else uses the guarded way out cannot be led inside.
func TestTransport(t *testing.T) {
	called := false
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer srv.Close()
	resp, err := (&http.Client{Transport: Transport()}).Get(srv.URL)
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "not an address of the public internet") || called {
		t.Errorf("%v, reached %v", err, called)
	}
}
