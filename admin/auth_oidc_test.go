package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// identity is an OpenID provider: discovery, keys, and a token endpoint that holds to PKCE.
type identity struct {
	*httptest.Server
	t      *testing.T
	key    *ecdsa.PrivateKey
	signer *ecdsa.PrivateKey // what it signs with; another one than key is a forger

	mu     sync.Mutex
	asked  url.Values                       // the last authorization
	claims func(claims map[string]any)      // changes the next token
	trades int                              // codes that were traded
	answer func(w http.ResponseWriter) bool // answers in its place
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &identity{t: t, key: key, signer: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", i.token)
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *identity) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.trades++
	if i.answer != nil && i.answer(w) {
		return
	}
	id, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if r.PostFormValue("code") != "the-code" || id != "penstock" || secret != "client-secret-1" ||
		base64.RawURLEncoding.EncodeToString(sum[:]) != i.asked.Get("code_challenge") || r.PostFormValue("redirect_uri") != i.asked.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		return
	}
	now := time.Now()
	claims := map[string]any{"iss": i.URL, "aud": "penstock", "sub": "u1", "email": "anna@example.com", "email_verified": true, "nonce": i.asked.Get("nonce"),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "groups": []string{"staff", "payments-ops"}}
	if i.claims != nil {
		i.claims(claims)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.signer, KeyID: "k1"}}, nil)
	if err != nil {
		i.t.Error(err)
		return
	}
	raw, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		i.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": raw, "expires_in": 3600})
}

const redirectURL = "https://penstock.example" + OIDCCallback

func oidcWorld(t *testing.T, i *identity, change func(o *Options)) *world {
	w, _ := auditWorld(t, func(o *Options) {
		o.PublicURL = "https://penstock.example"
		o.OIDC = &OIDC{Issuer: i.URL, ClientID: "penstock", ClientSecret: "client-secret-1", RedirectURL: redirectURL,
			Claim: "groups", Viewer: []string{"staff"}, Operator: []string{"payments-ops"}}
		if change != nil {
			change(o)
		}
	})
	return w
}

// begin starts a login and gives the cookie and the state that came of it.
func (i *identity) begin(w *world, next string) (*http.Cookie, string) {
	w.t.Helper()
	rec := w.call("GET", "/login/oidc?next="+url.QueryEscape(next), "", "")
	w.want(rec, 302)
	to, err := url.Parse(rec.Header().Get("Location"))
	if err != nil || !strings.HasPrefix(to.String(), i.URL+"/auth?") {
		w.t.Fatalf("sent to %s, %v", to, err)
	}
	i.mu.Lock()
	i.asked = to.Query()
	i.mu.Unlock()
	c := cookieOf(i.t, rec, flowCookie)
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/login/oidc" || c.MaxAge <= 0 {
		w.t.Fatalf("cookie %+v", c)
	}
	return c, to.Query().Get("state")
}

func (i *identity) back(w *world, c *http.Cookie, query string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.call("GET", OIDCCallback+"?"+query, "", "", "Cookie", c.Name+"="+c.Value)
}

func TestOIDCLogin(t *testing.T) {
	i := newIdentity(t)
	w := oidcWorld(t, i, func(o *Options) { o.Tokens, o.Listen = nil, "0.0.0.0:1" })
	w.want(w.call("GET", "/api/v1/deliveries", "", ""), 401) // nobody is let in for want of tokens
	w.want(w.call("GET", "/login?next=/x", "", ""), 200, "/login/oidc?next=%2fx")
	c, state := i.begin(w, "/?source=stripe")
	for name, want := range map[string]string{"response_type": "code", "client_id": "penstock", "redirect_uri": redirectURL, "code_challenge_method": "S256", "scope": "openid profile email"} {
		if got := i.asked.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	rec := i.back(w, c, "code=the-code&state="+state)
	w.want(rec, 303)
	if rec.Header().Get("Location") != "/?source=stripe" || cookieOf(t, rec, flowCookie).MaxAge >= 0 {
		t.Fatalf("headers %v", rec.Header())
	}
	session := cookieOf(t, rec, cookieName)
	if !session.Secure || !session.HttpOnly {
		t.Fatalf("session %+v", session)
	}
	w.want(w.call("GET", "/", "", "", "Cookie", session.Name+"="+session.Value), 200, "oidc:anna@example.com", `<span class="role">operator</span>`)
	headers, csrf := form(t, w, session, "/deliveries/"+publishedID)
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", "", csrf, headers...), 303)
	if w.work.last() != "replay ["+publishedID+"] by oidc:anna@example.com" {
		t.Fatal(w.work.last())
	}
	// A reload that changes tokens leaves it; the end of the session does not.
	if err := w.server.SetTokens([]Token{{Name: "new", Role: Operator, Token: operatorToken}}); err != nil {
		t.Fatal(err)
	}
	w.want(w.call("GET", "/", "", "", "Cookie", session.Name+"="+session.Value), 200)
	w.want(w.call("POST", "/logout", "", csrf, headers...), 303)
	w.want(w.call("GET", "/", "", "", "Cookie", session.Name+"="+session.Value), 303)
	want := []string{"oidc:anna@example.com/operator logout  done", "oidc:anna@example.com/operator replay " + publishedID + " done",
		"oidc:anna@example.com/operator body.read " + publishedID + " done", "oidc:anna@example.com/operator login  done oidc"}
	if got := lines(w.entries("", 10)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("audit %q", got)
	}
}

// Whoever is not proved is refused, with a page that says why, and gets no session.
func TestOIDCRefuses(t *testing.T) {
	i := newIdentity(t)
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) func(map[string]any) { return func(c map[string]any) { c[name] = value } }
	const notProved = "does not prove who you are"
	for name, c := range map[string]struct {
		claims func(map[string]any)
		signer *ecdsa.PrivateKey
		query  string
		says   string
	}{
		"nonce of another login": {claims: claim("nonce", "another"), says: notProved},
		"no nonce":               {claims: func(c map[string]any) { delete(c, "nonce") }, says: notProved},
		"another audience":       {claims: claim("aud", "another-app"), says: notProved},
		"another issuer":         {claims: claim("iss", "https://evil.example"), says: notProved},
		"expired":                {claims: claim("exp", time.Now().Add(-time.Minute).Unix()), says: notProved},
		"another key":            {signer: forger, says: notProved},
		"another code":           {query: "code=other&state=STATE", says: notProved},
		"another state":          {query: "code=the-code&state=other", says: "belongs to another login"},
		"no state":               {query: "code=the-code", says: "belongs to another login"},
		"unknown group":          {claims: claim("groups", []string{"guests"}), says: "oidc:anna@example.com is in none of the groups"},
		"no group":               {claims: func(c map[string]any) { delete(c, "groups") }, says: "in none of the groups"},
		"group of another type":  {claims: claim("groups", 7), says: "in none of the groups"},
		"refused there":          {query: "error=access_denied&error_description=%3Cscript%3Ex&state=STATE", says: "access_denied &lt;script&gt;x"},
	} {
		w := oidcWorld(t, i, nil)
		cookie, state := i.begin(w, "/")
		i.mu.Lock()
		i.claims, i.signer = c.claims, i.key
		if c.signer != nil {
			i.signer = c.signer
		}
		i.mu.Unlock()
		if c.query == "" {
			c.query = "code=the-code&state=STATE"
		}
		rec := i.back(w, cookie, strings.ReplaceAll(c.query, "STATE", state))
		if rec.Code != 403 || !strings.Contains(rec.Body.String(), c.says) || !strings.Contains(rec.Body.String(), "<!doctype html>") || strings.Contains(rec.Body.String(), "<script>") {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
		for _, k := range rec.Result().Cookies() {
			if k.Name == cookieName {
				t.Errorf("%s: a session was opened", name)
			}
		}
		if got := w.entries("action=login", 10); len(got) != 1 || got[0].Result != actRefused {
			t.Errorf("%s: audit %+v", name, got)
		}
	}
}

// The cookie of a login on its way is of this process, of this browser, and not for long.
func TestOIDCFlowCookie(t *testing.T) {
	i, now := newIdentity(t), time.Now()
	w := oidcWorld(t, i, func(o *Options) { o.Now = func() time.Time { return now } })
	c, state := i.begin(w, "//evil.example")
	good := "code=the-code&state=" + state
	w.want(w.call("GET", OIDCCallback+"?"+good, "", ""), 403, "has begun no login")
	forged := *c
	forged.Value = "A" + c.Value[1:]
	w.want(i.back(w, &forged, good), 403, "not begun here")
	w.want(i.back(oidcWorld(t, i, nil), c, good), 403, "not begun here")
	now = now.Add(flowAge + time.Second)
	w.want(i.back(w, c, good), 403, "took too long")
	now = now.Add(-flowAge)
	if i.trades != 0 {
		t.Fatalf("%d codes were traded for logins that were refused", i.trades)
	}
	rec := i.back(w, c, good)
	w.want(rec, 303)
	if rec.Header().Get("Location") != "/" {
		t.Fatalf("sent to %s", rec.Header().Get("Location"))
	}
}

// With the provider away the gateway starts, tokens work, and a login says what is wrong.
func TestOIDCProviderAway(t *testing.T) {
	i := newIdentity(t)
	away := false
	inner := i.Config.Handler
	var mu sync.Mutex
	i.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		inner.ServeHTTP(w, r)
	})
	w := oidcWorld(t, i, nil)
	mu.Lock()
	away = true
	mu.Unlock()
	w.want(w.call("GET", "/login/oidc", "", ""), 503, "cannot be reached")
	w.want(w.call("GET", "/api/v1/deliveries", operatorToken, ""), 200)
	mu.Lock()
	away = false
	mu.Unlock()
	c, state := i.begin(w, "/")
	w.want(i.back(w, c, "code=the-code&state="+state), 303)
	bare := newWorld(t, nil)
	bare.want(bare.call("GET", "/login/oidc", "", ""), 501)
	bare.want(bare.call("GET", OIDCCallback, "", ""), 501)
}

func TestOIDCRoles(t *testing.T) {
	l := newOIDC(OIDC{Claim: "realm_access.roles", Viewer: []string{"v", "both"}, Operator: []string{"o", "both"}})
	f := func(claims string, name string, role Role) {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal([]byte(claims), &m); err != nil {
			t.Fatal(err)
		}
		if who := l.who(m); who.name != name || who.role != role || !who.oidc {
			t.Errorf("%s: %+v", claims, who)
		}
	}
	f(`{"sub":"s","realm_access":{"roles":["x","v"]}}`, "oidc:s", Viewer)
	f(`{"sub":"s","realm_access":{"roles":"o"}}`, "oidc:s", Operator)
	f(`{"sub":"s","realm_access.roles":["both"]}`, "oidc:s", Operator)
	f(`{"sub":"s","email":"a@x","email_verified":false,"preferred_username":"an\u001b[2Jna","realm_access":[]}`, "oidc:an[2Jna", "")
	f(`{"sub":"`+strings.Repeat("x", 900)+`","roles":["o"]}`, "oidc:"+strings.Repeat("x", maxWhoBytes), "")
}
