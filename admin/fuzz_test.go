package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequest: any request to any route, with and without a token. Nothing panics and
// nothing is our fault; what is not public wants a token whatever else stands there.
func FuzzRequest(f *testing.F) {
	w := newWorld(f, func(o *Options) { o.Tenants = fakeTenants{} })
	routes := w.server.table()
	for _, s := range []string{`{"credentials":{"key":["a","b"]}}`, `{"credentials":{"key":1}}`, `{"ids":["x"]}`, `{"filter":{"from":"-2h"}}`, "token=x", "[", ""} {
		for i := range routes {
			f.Add(uint8(i), publishedID, "source=a&from=-2h&cursor=AA&step=1m&format=csv&force=true&limit=3", s, "bearer "+operatorToken, false)
			f.Add(uint8(i), "..%2f", "%zz&a=b", s, "penstock=x", true)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, id, query, body, auth string, stranger bool) {
		rt := routes[int(i)%len(routes)]
		if rt.path == "/api/v1/stream" && !stranger {
			return // it does not end
		}
		path := strings.NewReplacer("{id}", url.PathEscape(id), "{name}", url.PathEscape(id), "{$}", "").Replace(rt.path)
		r, err := http.NewRequestWithContext(t.Context(), rt.method, "http://127.0.0.1:8081"+path, strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.RawQuery, r.RemoteAddr = query, "192.0.2.7:1"
		r.Header.Set("Cookie", auth)
		if stranger {
			r.Header.Set("Authorization", strings.ReplaceAll(auth, operatorToken, "x"))
		} else {
			r.Header.Set("Authorization", "Bearer "+operatorToken)
		}
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		if rec.Code >= 500 && rec.Code != http.StatusNotImplemented || rec.Code == 0 {
			t.Fatalf("%s %s?%s: %d %s", rt.method, path, query, rec.Code, rec.Body)
		}
		if known := strings.Contains(auth, viewerToken) || strings.Contains(auth, consumerToken); stranger && !known && rt.who != public && rec.Code < 300 {
			t.Fatalf("%s %s: a stranger is answered %d", rt.method, path, rec.Code)
		}
	})
}

// fakeTenants keeps nothing.
type fakeTenants struct{}

func (fakeTenants) Tenants(context.Context, string) ([]Tenant, error) {
	return []Tenant{{ID: "a", From: "api"}, {ID: "b", From: "file"}}, nil
}

func (fakeTenants) PutTenant(_ context.Context, _, id string, _ map[string][]string, by string) (Tenant, bool, error) {
	return Tenant{ID: id, From: "api", By: by}, true, nil
}

func (fakeTenants) DeleteTenant(context.Context, string, string, string) error { return ErrNotFound }

func (fakeTenants) Captured(context.Context, string) (Captured, error) {
	return Captured{}, ErrNotFound
}

func (fakeTenants) ClearCaptured(context.Context, string, string) error { return ErrNotFound }
