package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTenantsCommands: a secret goes from a reference to the API and never stands in the
// command line or in what is printed.
func TestTenantsCommands(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(b)))
		switch {
		case r.Header.Get("Authorization") != "Bearer "+adminToken:
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/captured"):
			fmt.Fprint(w, `{"credential":"secrets","secret":"secret_of_the_handshake"}`)
		case r.Method == http.MethodGet && r.URL.Query().Get("after") == "":
			fmt.Fprint(w, `{"tenants":[{"id":"i1","from":"file","fingerprints":{"private_key":["1f2e3d4c"]}}],"total":2,"next":"i1"}`)
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `{"tenants":[{"id":"i2\u001b[2J","from":"api","by":"ops","fingerprints":{}}],"total":2,"next":""}`)
		case strings.HasSuffix(r.URL.Path, "/full"):
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"detail":"give archive.encryption.key"}`)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer srv.Close()
	w := newWorld(t)
	w.env["PENSTOCK_ADMIN_TOKEN"], w.env["KEY"] = adminToken, "a-secret-of-the-environment"
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("a-secret-of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := func(want string) {
		t.Helper()
		if got := asked[len(asked)-1]; got != want {
			t.Errorf("asked %s\nwant  %s", got, want)
		}
	}
	w.want(exitOK, "is kept", "tenants", "put", "pay", "shop/1", "private_key=env:KEY", "private_key=file:"+file, "--admin", srv.URL)
	last(`PUT /api/v1/sources/pay/tenants/shop%2F1 {"credentials":{"private_key":["a-secret-of-the-environment","a-secret-of-a-file"]}}`)
	w.want(exitUsage, "", "tenants", "put", "pay", "i1", "private_key=typed-here-by-mistake", "--admin", srv.URL)
	if strings.Contains(w.err.String(), "typed-here") || !strings.Contains(w.err.String(), "env:VARIABLE") {
		t.Errorf("said %s", w.err.String())
	}
	w.want(exitUsage, "", "tenants", "put", "pay", "full", "private_key=env:KEY", "--admin", srv.URL)
	if !strings.Contains(w.err.String(), "archive.encryption.key") {
		t.Errorf("said %s", w.err.String())
	}
	w.want(exitOK, "private_key=1f2e3d4c", "tenants", "list", "pay", "--admin", srv.URL)
	if out := w.out.String(); !strings.Contains(out, "i2") || strings.Contains(out, "\x1b") {
		t.Errorf("list %q", out)
	}
	w.want(exitOK, "is gone", "tenants", "delete", "pay", "i1", "--admin", srv.URL)
	last("DELETE /api/v1/sources/pay/tenants/i1")
	w.want(exitOK, "secret_of_the_handshake", "tenants", "captured", "notes", "--admin", srv.URL)
	w.want(exitOK, "is forgotten", "tenants", "captured", "notes", "--clear", "--admin", srv.URL)
	last("DELETE /api/v1/sources/notes/captured")
}
