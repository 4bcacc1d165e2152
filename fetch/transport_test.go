package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
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

// TestDialer: what is written down may be reached, and nothing beside it.
func TestDialer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	dial := func(private ...netip.Prefix) error {
		conn, err := Dialer(private...).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(); err == nil {
		t.Error("a loopback address was reached")
	}
	if err := dial(netip.MustParsePrefix("10.0.0.0/8")); err == nil {
		t.Error("another network than the one that is allowed was reached")
	}
	if err := dial(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")); err != nil {
		t.Error(err)
	}
}
