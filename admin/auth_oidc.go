package admin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

// OIDC is the login by an identity provider, the way for teams.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret string   // "" = a public client; PKCE is used either way
	RedirectURL  string   // as registered at the provider; ends in OIDCCallback
	Scopes       []string // beside openid; nil = profile, email
	Claim        string   // of the ID token; steps of a nested one are divided by dots
	Viewer       []string // its values that make a viewer
	Operator     []string // and an operator, who counts where both fit
}

// OIDCCallback is the path that the identity provider sends people back to.
const OIDCCallback = "/login/oidc/callback"

const (
	flowCookie = "penstock_oidc"
	flowAge    = 10 * time.Minute
	// oidcTimeout is for one question to the identity provider.
	oidcTimeout = 10 * time.Second
	maxWhoBytes = 200
)

// oidcLogin is OIDC at work. What it finds out about the provider is asked for at the
// first login, so that the gateway starts without it.
type oidcLogin struct {
	o      OIDC
	client *http.Client
	key    [sha256.Size]byte // signs the cookie of a login on its way

	mu       sync.Mutex // guards provider
	provider *oidc.Provider
}

func newOIDC(o OIDC) *oidcLogin {
	l := &oidcLogin{o: o, client: &http.Client{Timeout: oidcTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}}
	_, _ = rand.Read(l.key[:]) // never fails
	if l.o.Scopes == nil {
		l.o.Scopes = []string{"profile", "email"}
	}
	return l
}

func (l *oidcLogin) discover() (*oidc.Provider, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.provider == nil {
		// Its keys are fetched again with this context long after the request is over.
		p, err := oidc.NewProvider(oidc.ClientContext(context.Background(), l.client), l.o.Issuer)
		if err != nil {
			return nil, err
		}
		l.provider = p
	}
	return l.provider, nil
}

func (l *oidcLogin) config(p *oidc.Provider) *oauth2.Config {
	scopes := []string{oidc.ScopeOpenID}
	for _, s := range l.o.Scopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return &oauth2.Config{ClientID: l.o.ClientID, ClientSecret: l.o.ClientSecret, RedirectURL: l.o.RedirectURL, Endpoint: p.Endpoint(), Scopes: scopes}
}

// flow is one login on its way. It travels in a signed cookie: what is kept for logins
// that nobody finishes could be filled by anybody.
type flow struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Next     string    `json:"to"`
	Expires  time.Time `json:"x"`
}

func (l *oidcLogin) seal(f flow) string {
	b, err := json.Marshal(f)
	if err != nil {
		panic("BUG: a login has no JSON: " + err.Error())
	}
	text := base64.RawURLEncoding.EncodeToString(b)
	return text + "." + l.sign(text)
}

func (l *oidcLogin) sign(text string) string {
	mac := hmac.New(sha256.New, l.key[:])
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (l *oidcLogin) unseal(value string, now time.Time) (f flow, err error) {
	text, sign, _ := strings.Cut(value, ".")
	if subtle.ConstantTimeCompare([]byte(sign), []byte(l.sign(text))) != 1 {
		return f, errors.New("the login was not begun here, or before a restart")
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && now.After(f.Expires) {
		err = errors.New("the login took too long")
	}
	return f, err
}

// oidcStart sends somebody to the identity provider.
func (s *Server) oidcStart(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	l := s.oidc
	if l == nil {
		return notHere("single sign-on")
	}
	next := local(r.URL.Query().Get("next"))
	p, err := l.discover()
	if err != nil {
		s.log.Error("the identity provider cannot be asked", zap.String("issuer", l.o.Issuer), zap.Error(err))
		return s.loginProblem(w, next, busy("identity_provider_unavailable", "the identity provider cannot be reached; try again, or log in with a token"))
	}
	now := s.o.Now()
	f := flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Expires: now.Add(flowAge)}
	s.setFlow(w, r, l.seal(f), int(flowAge.Seconds()))
	http.Redirect(w, r, l.config(p).AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), http.StatusFound)
	return nil
}

// setFlow: the way back begins at another site, so that Strict would keep it away.
func (s *Server) setFlow(w http.ResponseWriter, r *http.Request, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{Name: flowCookie, Value: value, Path: "/login/oidc", MaxAge: seconds, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, Secure: s.secure(r)})
}

// oidcCallback is where the identity provider sends people back.
func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.oidc == nil {
		return notHere("single sign-on")
	}
	s.setFlow(w, r, "", -1) // once
	f, who, p := s.oidcWho(r)
	s.loggedIn(r, who, "oidc", p)
	if p != nil {
		return s.loginProblem(w, local(f.Next), p)
	}
	s.setCookie(w, r, s.sessions.open(who, s.o.Now()), sessionAge)
	http.Redirect(w, r, local(f.Next), http.StatusSeeOther)
	return nil
}

// oidcWho checks what the identity provider sent.
func (s *Server) oidcWho(r *http.Request) (f flow, who secretToken, p *problem) {
	q := r.URL.Query()
	no := func(code, why string) (flow, secretToken, *problem) {
		return f, who, refuse(http.StatusForbidden, code, why)
	}
	c, err := r.Cookie(flowCookie)
	if err != nil {
		return no("login_expired", "this browser has begun no login, or it took too long; try again")
	}
	if f, err = s.oidc.unseal(c.Value, s.o.Now()); err != nil {
		return no("login_expired", err.Error()+"; try again")
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.State)) != 1 {
		return no("bad_state", "the answer belongs to another login; try again")
	}
	if e := q.Get("error"); e != "" {
		return no("refused_by_provider", "the identity provider says: "+printable(e+" "+q.Get("error_description")))
	}
	addr, code := address(r), q.Get("code")
	if p := s.throttle(addr, code); p != nil {
		return f, who, p
	}
	claims, err := s.oidc.claims(r.Context(), code, f, s.o.Now)
	if err != nil {
		s.failures.add(addr, code, s.o.Now())
		// Its words may quote the provider's answer: for the log, not for strangers.
		s.log.Warn("a login by the identity provider was refused", zap.Error(err))
		return no("bad_id_token", "what the identity provider answered does not prove who you are; try again, or see the log of the process")
	}
	who = s.oidc.who(claims)
	if who.role == "" {
		return no("no_role", fmt.Sprintf("%s is in none of the groups that may look here; ask whoever keeps admin.oidc.roles", who.name))
	}
	return f, who, nil
}

// claims trades the code for an ID token and checks it: signature, issuer, audience,
// expiry, nonce.
func (l *oidcLogin) claims(ctx context.Context, code string, f flow, now func() time.Time) (map[string]any, error) {
	p, err := l.discover()
	if err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, l.client)
	token, err := l.config(p).Exchange(ctx, code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return nil, fmt.Errorf("trade the code for a token: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the answer holds no ID token")
	}
	id, err := p.Verifier(&oidc.Config{ClientID: l.o.ClientID, Now: now}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if f.Nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return nil, errors.New("the ID token's nonce is of another login")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, err
	}
	return claims, nil
}

// who is a person of the identity provider. The prefix keeps it apart from tokens.
func (l *oidcLogin) who(claims map[string]any) secretToken {
	who := secretToken{name: "oidc:", oidc: true}
	for _, c := range []string{"email", "preferred_username", "sub"} {
		// An address that nobody has checked may be another one's.
		if v, ok := claims[c].(string); ok && v != "" && (c != "email" || claims["email_verified"] != false) {
			who.name += printable(v)
			break
		}
	}
	has := texts(find(claims, l.o.Claim))
	one := func(v string) bool { return slices.Contains(has, v) }
	switch {
	case slices.ContainsFunc(l.o.Operator, one):
		who.role = Operator
	case slices.ContainsFunc(l.o.Viewer, one):
		who.role = Viewer
	}
	return who
}

// find looks a claim up: by its whole name, or by steps.
func find(claims map[string]any, path string) any {
	if v, ok := claims[path]; ok {
		return v
	}
	step, rest, ok := strings.Cut(path, ".")
	if inner, isMap := claims[step].(map[string]any); ok && isMap {
		return find(inner, rest)
	}
	return nil
}

func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			if t, ok := e.(string); ok {
				out = append(out, t)
			}
		}
	}
	return out
}

// printable is what a stranger said, short and without what a terminal would act on.
func printable(s string) string {
	if len(s) > maxWhoBytes {
		s = s[:maxWhoBytes]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s))
}
