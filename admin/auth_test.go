package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every route with every role: what is not listed here as allowed must be refused.
func TestAuthMatrix(t *testing.T) {
	may := map[access]string{public: "-voc", readers: "voc", people: "vo", operators: "o", pages: "vo"}
	// Where the handler itself refuses a role that may ask.
	also := map[string]string{"GET /api/v1/deliveries/{id}/body": "v", // no definition reads the fake's body, so none is masked
		"GET /audit": "v"}
	tokens := map[string]string{"-": "", "v": viewerToken, "o": operatorToken, "c": consumerToken}
	for _, rt := range newWorld(t, nil).server.routes {
		if rt.stream {
			continue // TestStream
		}
		for role, token := range tokens {
			w := newWorld(t, nil)
			path := strings.NewReplacer("{id}", publishedID, "{name}", "stripe", "{$}", "").Replace(rt.path)
			if strings.HasPrefix(path, "/api/v1/replays/") {
				path = "/api/v1/replays/job-1"
			}
			rec := w.call(rt.method, path, token, "")
			refused := rec.Code == 401 || rec.Code == 403 || rec.Code == 303 && strings.HasPrefix(rec.Header().Get("Location"), "/login?")
			key := rt.method + " " + rt.path
			want := strings.Contains(may[rt.who], role) && !strings.Contains(also[key], role)
			if rt.who == pages && rt.change {
				want = role == "o" // a viewer looks at pages and changes nothing
			}
			if key == "POST /login" || key == "POST /logout" {
				continue // they answer to what is in the form
			}
			if refused == want {
				t.Errorf("%s as %q: %d, allowed should be %t", key, role, rec.Code, want)
			}
			if role != "o" && w.work.last() != "" && rt.change {
				t.Errorf("%s as %q reached %q", key, role, w.work.last())
			}
			if role == "-" && refused && rec.Code == 401 && rec.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: 401 without WWW-Authenticate", key)
			}
		}
	}
}

func TestStartWithoutToken(t *testing.T) {
	f := func(listen string, tokens []Token, ok bool) {
		t.Helper()
		_, err := New(Options{Listen: listen, Archive: newFakeArchive(), Tokens: tokens})
		if (err == nil) != ok {
			t.Errorf("listen %s with %d tokens: %v", listen, len(tokens), err)
		}
	}
	one := []Token{{Name: "ops", Role: Operator, Token: operatorToken}}
	for _, l := range []string{"127.0.0.1:8081", "localhost:8081", "[::1]:8081", "127.8.8.8:1"} {
		f(l, nil, true)
		f(l, one, true)
	}
	for _, l := range []string{":8081", "0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081", "admin.internal:8081", "", "localhost.example.com:1"} {
		f(l, nil, false)
		f(l, one, true)
	}
	f("127.0.0.1:1", []Token{{Name: "x", Role: "root", Token: operatorToken}}, false)
	f("127.0.0.1:1", []Token{{Name: "x", Role: Operator, Token: "short"}}, false)
	f("127.0.0.1:1", []Token{{Name: "x", Role: Consumer, Token: consumerToken}}, false)
	f("127.0.0.1:1", append(one, Token{Name: "twin", Role: Viewer, Token: operatorToken}), false)
}

func TestWithoutTokenOnlyLocalhostIsAnswered(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tokens = nil })
	w.want(w.call("GET", "/api/v1/deliveries", "", ""), 200)
	r := httptest.NewRequest("GET", "/api/v1/deliveries", nil)
	r.Host = "evil.example:8081" // DNS rebinding: the browser believes it talks to evil.example
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, r)
	w.want(rec, 403, "host_not_allowed")
}

func TestWrongTokensAreLimited(t *testing.T) {
	now := time.Unix(1e9, 0)
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return now } })
	// A script with an old token, however often, locks nobody out.
	for range 10 * failureBurst {
		w.want(w.call("GET", "/api/v1/stats", "an-old-token", ""), 401)
	}
	w.want(w.call("GET", "/api/v1/stats", operatorToken, ""), 200)
	for i := range failureBurst - 1 {
		w.want(w.call("GET", "/api/v1/stats", fmt.Sprintf("guess-%d-abcdef", i), ""), 401)
	}
	rec := w.call("GET", "/api/v1/stats", "guess-next-abcdef", "")
	w.want(rec, 429, "too_many_failures")
	if rec.Header().Get("Retry-After") == "" {
		t.Fatal("429 without Retry-After")
	}
	w.want(w.call("GET", "/api/v1/stats", operatorToken, ""), 429) // else guessing would go on unhindered
	w.want(w.call("POST", "/login", "", "token="+operatorToken, "Content-Type", "application/x-www-form-urlencoded"), 429)
	r := httptest.NewRequest("GET", "/api/v1/stats", nil)
	r.RemoteAddr = "198.51.100.9:1"
	r.Header.Set("Authorization", "Bearer "+operatorToken)
	other := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(other, r)
	w.want(other, 200) // another address is not concerned
	now = now.Add(2 * time.Second)
	w.want(w.call("GET", "/api/v1/stats", operatorToken, ""), 200)
}

func TestFailuresAreBounded(t *testing.T) {
	f, now := newFailures(), time.Unix(1e9, 0)
	for i := range 3 * maxFailing {
		f.add(fmt.Sprint("a", i), fmt.Sprint("t", i), now)
	}
	if len(f.all) > maxFailing {
		t.Fatalf("%d addresses are kept", len(f.all))
	}
	if !f.blocked("a-new-one", "x", now) {
		t.Fatal("beyond the bound nobody is limited")
	}
	now = now.Add(time.Minute) // what all of them share is free again
	f.add("late", "x", now.Add(time.Minute))
	if len(f.all) > 1 {
		t.Fatalf("%d old addresses are kept", len(f.all))
	}
}

func cookieOf(t *testing.T, rec *httptest.ResponseRecorder, name string) *http.Cookie {
	t.Helper()
	for _, c := range rec.Result().Cookies() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no cookie %s in %v", name, rec.Result().Cookies())
	return nil
}

var csrfInPage = regexp.MustCompile(`<form[^>]*method="post"[^>]*><input type="hidden" name="csrf" value="([A-Z2-7]{20,})">`)

// form is what a page's form sends: the headers with the session, and the body.
func form(t *testing.T, w *world, c *http.Cookie, page string) (headers []string, body string) {
	t.Helper()
	headers = []string{"Cookie", c.Name + "=" + c.Value, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin"}
	m := csrfInPage.FindStringSubmatch(w.call("GET", page, "", "", headers[:2]...).Body.String())
	if m == nil {
		t.Fatalf("%s has a form without a token, or none", page)
	}
	return headers, "csrf=" + m[1]
}

func login(t *testing.T, w *world, token, next string) *http.Cookie {
	t.Helper()
	rec := w.call("POST", "/login", "", url.Values{"token": {token}, "next": {next}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	w.want(rec, 303)
	if got := rec.Header().Get("Location"); got != local(next) {
		t.Fatalf("login leads to %q", got)
	}
	c := cookieOf(t, rec, cookieName)
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge <= 0 {
		t.Fatalf("cookie %+v is not HttpOnly, SameSite=Lax", c)
	}
	if strings.Contains(c.Value, token) || len(c.Value) < 40 {
		t.Fatalf("cookie value %q", c.Value)
	}
	return c
}

func TestLoginSession(t *testing.T) {
	now := time.Unix(1e9, 0)
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return now } })
	rec := w.call("GET", "/?source=stripe", "", "")
	w.want(rec, 303)
	if rec.Header().Get("Location") != "/login?next=%2F%3Fsource%3Dstripe" {
		t.Fatalf("location %q", rec.Header().Get("Location"))
	}
	c := login(t, w, operatorToken, "/?source=stripe")
	with := func(c *http.Cookie) []string { return []string{"Cookie", c.Name + "=" + c.Value} }
	w.want(w.call("GET", "/?source=stripe", "", "", with(c)...), 200, "order:672626", "Log out")
	w.want(w.call("GET", "/api/v1/deliveries", "", "", with(c)...), 200)

	// A page of another origin cannot act with the session.
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", "", append(with(c), "Sec-Fetch-Site", "cross-site")...), 403, "cross_origin")
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", "", append(with(c), "Origin", "https://evil.example")...), 403, "cross_origin")
	if w.work.last() != "" {
		t.Fatalf("cross-site request did %q", w.work.last())
	}
	// Nor with one that says nothing of its origin, for want of the token.
	for _, body := range []string{"", "csrf=", "csrf=AAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", body, append(with(c), "Content-Type", "application/x-www-form-urlencoded")...), 403, "csrf")
		w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", body, append(with(c), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")...), 403, "csrf")
		w.want(w.call("POST", "/logout", "", body, append(with(c), "Content-Type", "application/x-www-form-urlencoded")...), 403, "csrf")
	}
	w.want(w.call("POST", "/api/v1/reload", "", "", with(c)...), 403, "csrf")
	if w.work.last() != "" {
		t.Fatalf("a form without a token did %q", w.work.last())
	}
	w.want(w.call("POST", "/api/v1/reload", "", "", append(with(c), "Sec-Fetch-Site", "same-origin")...), 200)
	headers, token := form(t, w, c, "/deliveries/"+publishedID)
	w.want(w.call("POST", "/api/v1/reload", "", "", append(with(c), csrfHeader, strings.TrimPrefix(token, "csrf="))...), 200)
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", token, headers...), 303)
	if w.work.last() != "replay ["+publishedID+"] by ops" {
		t.Fatalf("replay did %q", w.work.last())
	}

	viewer := login(t, w, viewerToken, "//evil.example/")
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", token, headers...), 303)
	theirs, csrf := form(t, w, viewer, "/")
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", csrf, theirs...), 403, "viewer")
	w.want(w.call("POST", "/logout", "", token, theirs...), 403, "csrf") // another session's
	w.want(w.call("POST", "/logout", "", csrf, theirs...), 303)
	w.want(w.call("GET", "/", "", "", with(viewer)...), 303)
	w.want(w.call("POST", "/login", "", "token="+consumerToken, "Content-Type", "application/x-www-form-urlencoded"), 403)
	w.want(w.call("POST", "/login", "", "token=wrong-token", "Content-Type", "application/x-www-form-urlencoded"), 401, "not known")

	// A token that a reload removes takes its sessions with it; a bad list changes nothing.
	if err := w.server.SetTokens([]Token{{Name: "bad", Role: "x", Token: "12345678"}}); err == nil {
		t.Fatal("bad tokens were taken")
	}
	w.want(w.call("GET", "/", "", "", with(c)...), 200)
	second := login(t, w, viewerToken, "/")
	if err := w.server.SetTokens([]Token{{Name: "eyes", Role: Viewer, Token: viewerToken}}); err != nil {
		t.Fatal(err)
	}
	w.want(w.call("GET", "/", "", "", with(c)...), 303)
	w.want(w.call("GET", "/", "", "", with(second)...), 200)
	now = now.Add(sessionAge + time.Second)
	w.want(w.call("GET", "/", "", "", with(second)...), 303)
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	now := time.Unix(1e9, 0)
	first := s.open(secretToken{}, now)
	for i := range 2 * maxSessions {
		s.open(secretToken{}, now.Add(time.Duration(i+1)*time.Millisecond))
	}
	if len(s.all) > maxSessions {
		t.Fatalf("%d sessions", len(s.all))
	}
	if _, ok := s.get(first, now); ok {
		t.Fatal("the oldest session outlived the bound")
	}
}

func TestLocalRedirect(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := local(in); got != want {
			t.Errorf("local(%q) = %q, want %q", in, got, want)
		}
	}
	f("/deliveries/1?x=y", "/deliveries/1?x=y")
	f("//evil.example", "/")
	f("/\\evil.example", "/")
	f("https://evil.example", "/")
	f("/a\r\nSet-Cookie: x", "/")
	f("", "/")
}

// The login's own form has a token too; a browser must send it back.
func TestLoginFormIsGuarded(t *testing.T) {
	w := newWorld(t, nil)
	rec := w.call("GET", "/login", "", "")
	m := csrfInPage.FindStringSubmatch(rec.Body.String())
	c := cookieOf(t, rec, formCookie)
	if m == nil || m[1] != c.Value || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Fatalf("form %v, cookie %+v", m, c)
	}
	post := func(body string, headers ...string) *httptest.ResponseRecorder {
		return w.call("POST", "/login", "", body, append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
	}
	cookie := []string{"Cookie", c.Name + "=" + c.Value}
	w.want(post("token="+viewerToken, cookie...), 403, "too old")
	w.want(post("csrf=X&token="+viewerToken, cookie...), 403, "too old")
	w.want(post("token="+viewerToken, "Sec-Fetch-Site", "same-origin"), 403, "too old")
	w.want(post("token="+viewerToken, "Origin", "http://127.0.0.1:8081"), 403, "too old")
	w.want(post("csrf="+c.Value+"&token="+viewerToken, cookie...), 303)
	again := w.call("GET", "/login", "", "", cookie...)
	if m := csrfInPage.FindStringSubmatch(again.Body.String()); m == nil || m[1] != c.Value {
		t.Fatal("a second tab makes the first one's form invalid")
	}
}

// Many addresses that guess a little are one that guesses much; who has shown a token
// before is not concerned.
func TestWrongTokensAreLimitedOverall(t *testing.T) {
	now := time.Unix(1e9, 0)
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return now } })
	ask := func(addr, token string) int {
		r := httptest.NewRequest("GET", "/api/v1/stats", nil)
		r.RemoteAddr = addr + ":1"
		r.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		return rec.Code
	}
	if code := ask("203.0.113.1", operatorToken); code != 200 {
		t.Fatal(code)
	}
	for i := range overallBurst {
		if code := ask(fmt.Sprintf("198.51.%d.%d", i/250, i%250), fmt.Sprintf("guess-%d-abcdef", i)); code != 401 {
			t.Fatalf("guess %d: %d", i, code)
		}
	}
	if code := ask("192.0.2.99", operatorToken); code != 429 {
		t.Fatalf("beyond the bound of all addresses a new one is answered %d", code)
	}
	if code := ask("203.0.113.1", operatorToken); code != 200 {
		t.Fatalf("guessing elsewhere locks an operator out: %d", code)
	}
	now = now.Add(time.Second)
	if code := ask("192.0.2.99", operatorToken); code != 200 {
		t.Fatal(code)
	}
}

func TestCookieIsSecureBehindTLS(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PublicURL = "https://penstock.example" })
	if c := login(t, w, viewerToken, "/"); !c.Secure {
		t.Fatal("the session goes out without TLS")
	}
}
