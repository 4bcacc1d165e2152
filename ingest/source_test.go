package ingest

import (
	"io"
	"strings"
	"testing"

	"penstock/archive"
	"penstock/provider"
	"penstock/verify"
)

// TestSetSources: all or none, with the mistake named; a removed source is 404; a
// request in flight is finished under the table it began with.
func TestSetSources(t *testing.T) {
	r := newRig(t, Options{}, testSource("a"), testSource("b"))
	f := func(want string, list ...Source) {
		t.Helper()
		err := r.srv.SetSources(list)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
		wantStatus(t, r.send(request("/in/a", "", "X-Test: ok")), 200)
	}
	with := func(f func(s *Source)) Source {
		s := testSource("x")
		f(&s)
		return s
	}
	f("two of this name", testSource("x"), testSource("x"))
	f(`path of source "x"`, testSource("x"), with(func(s *Source) { s.Name, s.Path = "y", "/in/x" }))
	f("nothing to verify with", with(func(s *Source) { s.Verifier = nil }))
	for _, name := range []string{"", "a/b", "../a", "a b", ".a", "-a", "a%", "é", strings.Repeat("a", 64)} {
		f("a name has", with(func(s *Source) { s.Name = name }))
	}
	for _, path := range []string{"in/x", "/in//x", "/in/../x", "/in/%78", "/in/x?y", "/in/x#", "/in/x y", "/in/é", "/in/\\x"} {
		f("path", with(func(s *Source) { s.Path = path }))
	}
	f("public_url", with(func(s *Source) { s.PublicURL = "hooks.example.com/in/x" }))
	f("public_url", with(func(s *Source) { s.PublicURL = "https://hooks.example.com/?a" }))
	f("in flight", with(func(s *Source) { s.MaxBody = 1 << 40 }))
	for _, pattern := range []string{"/in", "in/{source}", "/{source}/{source}", "/in//{source}"} {
		if _, err := New(Options{Path: pattern}, &memArchive{}); err == nil {
			t.Errorf("pattern %q was taken", pattern)
		}
	}

	r.arch.hold, r.arch.entered = make(chan struct{}), make(chan struct{}, 1)
	c := r.dial()
	_, _ = io.WriteString(c, request("/in/a", "{}", "X-Test: ok"))
	<-r.arch.entered
	if err := r.srv.SetSources([]Source{testSource("b")}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.send(request("/in/a", "{}", "X-Test: ok")), 404)
	close(r.arch.hold)
	answer, _ := io.ReadAll(c)
	wantStatus(t, string(answer), 200)
}

func TestPublicURL(t *testing.T) {
	f := func(common, own, target, want string) {
		t.Helper()
		var got string
		src := testSource("s")
		src.PublicURL = own
		src.Verifier = &wordVerifier{seen: func(r *provider.Request) { got = r.PublicURL }}
		r := newRig(t, Options{PublicURL: common}, src)
		r.send(request(target, "", "X-Test: ok"))
		if got != want {
			t.Errorf("common %q, own %q: %q, want %q", common, own, got, want)
		}
	}
	f("", "", "/in/s", "")
	f("https://h.example", "", "/in/s", "https://h.example/in/s")
	f("https://h.example/", "", "/in/s?a=%20b", "https://h.example/in/s?a=%20b")
	f("https://h.example", "https://own.example/pre", "/in/s?a", "https://own.example/pre/in/s?a")
	f("https://h.example", "https://own.example/pre/in/s", "/in/s?a", "https://own.example/pre/in/s?a")
}

// What main hands in must fit.
var (
	_ Verifier = (*verify.Verifier)(nil)
	_ Allower  = (*verify.Allowlist)(nil)
	_ Archive  = (*archive.Archive)(nil)
)
