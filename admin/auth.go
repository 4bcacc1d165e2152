package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Role says what a token may do.
type Role string

// The roles. A viewer sees rows, headers with credentials masked and bodies masked; an
// operator sees and does everything; a consumer (a program that follows a claim check)
// reads deliveries and bodies of its own sources.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Consumer Role = "consumer"
)

// Token is one bearer token as the config gives it.
type Token struct {
	Name    string // stands in the audit log
	Role    Role
	Token   string
	Sources []string // of a consumer
}

// minTokenBytes is CONTRACT's bound for secrets.
const minTokenBytes = 8

type secretToken struct {
	hash    [sha256.Size]byte
	name    string
	role    Role
	sources []string
	oidc    bool // a person of the identity provider: has no token
}

func hashTokens(tokens []Token) ([]secretToken, error) {
	hashed := make([]secretToken, 0, len(tokens))
	for _, t := range tokens {
		if t.Role != Viewer && t.Role != Operator && t.Role != Consumer {
			return nil, fmt.Errorf("admin token %q: role %q is none of viewer, operator, consumer", t.Name, t.Role)
		}
		if len(t.Token) < minTokenBytes {
			return nil, fmt.Errorf("admin token %q is shorter than %d bytes", t.Name, minTokenBytes)
		}
		if t.Role == Consumer && len(t.Sources) == 0 {
			return nil, fmt.Errorf("admin token %q: a consumer needs its sources", t.Name)
		}
		s := secretToken{hash: sha256.Sum256([]byte(t.Token)), name: t.Name, role: t.Role, sources: slices.Clone(t.Sources)}
		for _, have := range hashed {
			if have.hash == s.hash {
				return nil, fmt.Errorf("admin tokens %q and %q are the same token", have.name, t.Name)
			}
		}
		hashed = append(hashed, s)
	}
	return hashed, nil
}

// find looks a token up. All are compared, over hashes, so that the time tells nothing.
func (s *Server) find(token string) (who secretToken, ok bool) {
	hash := sha256.Sum256([]byte(token))
	for _, t := range *s.tokens.Load() {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			who, ok = t, true
		}
	}
	return who, ok
}

// may reports whether the caller may see deliveries of the source.
func (t *secretToken) may(source string) bool {
	return t.role != Consumer || slices.Contains(t.sources, source)
}

const (
	cookieName = "penstock_session"
	sessionAge = 12 * time.Hour
	// maxSessions: beyond it the oldest ends; a login is rate limited and needs a token.
	maxSessions = 1000
)

type session struct {
	who     secretToken // as it was when the session was opened; a token may be gone since
	csrf    string
	expires time.Time
}

// sessions are the page's logins, by the hash of their cookie. In memory: a restart
// logs everyone out. mu guards all.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]session
}

func newSessions() *sessions { return &sessions{all: map[[sha256.Size]byte]session{}} }

func (s *sessions) open(t secretToken, now time.Time) string {
	id := rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest [sha256.Size]byte
	var first time.Time
	for k, v := range s.all {
		if now.After(v.expires) {
			delete(s.all, k)
		} else if first.IsZero() || v.expires.Before(first) {
			oldest, first = k, v.expires
		}
	}
	if len(s.all) >= maxSessions {
		delete(s.all, oldest)
	}
	s.all[sha256.Sum256([]byte(id))] = session{who: t, csrf: rand.Text(), expires: now.Add(sessionAge)}
	return id
}

func (s *sessions) get(id string, now time.Time) (v session, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok = s.all[sha256.Sum256([]byte(id))]
	return v, ok && !now.After(v.expires)
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(id)))
}

// keep ends the sessions of tokens that are not in the list. Whom the identity provider
// named stays for the length of the session.
func (s *sessions) keep(tokens []secretToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.all {
		if !v.who.oidc && !slices.ContainsFunc(tokens, func(t secretToken) bool { return t.hash == v.who.hash }) {
			delete(s.all, k)
		}
	}
}

const (
	// 20 wrong tokens at once, then one a second: nothing for a person, and too few for
	// a program that guesses.
	failureBurst = 20
	failureRate  = rate.Limit(1)
	// maxFailing addresses are told apart; the rest share one limit.
	maxFailing = 4096
	// All addresses together: many that guess a little are one that guesses much. Those
	// that have shown a token within goodFor are not concerned.
	overallBurst = 1000
	overallRate  = rate.Limit(20)
	goodFor      = 24 * time.Hour
)

type failing struct {
	limit *rate.Limiter
	last  [sha256.Size]byte
	seen  time.Time
}

// failures limits wrong tokens by address. The same wrong token again (a script with an
// old one) is not guessing and costs nothing, so that it does not lock others out.
type failures struct {
	mu      sync.Mutex
	all     map[string]*failing
	shared  failing
	overall *rate.Limiter
	good    map[string]time.Time // addresses that have shown a token, and when
}

func newFailures() *failures {
	return &failures{all: map[string]*failing{}, good: map[string]time.Time{}, overall: rate.NewLimiter(overallRate, overallBurst), shared: failing{limit: rate.NewLimiter(failureRate, failureBurst)}}
}

func (f *failures) of(addr string, now time.Time) *failing {
	if e := f.all[addr]; e != nil {
		e.seen = now
		return e
	}
	if len(f.all) >= maxFailing {
		for k, e := range f.all {
			if now.Sub(e.seen) > time.Minute {
				delete(f.all, k)
			}
		}
	}
	if len(f.all) >= maxFailing {
		return &f.shared
	}
	e := &failing{limit: rate.NewLimiter(failureRate, failureBurst), seen: now}
	f.all[addr] = e
	return e
}

// blocked reports whether the address must wait before another token is looked at.
func (f *failures) blocked(addr, token string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.all[addr]
	if f.overall.TokensAt(now) < 1 && now.Sub(f.good[addr]) > goodFor {
		return true
	}
	if e == nil {
		if len(f.all) < maxFailing {
			return false
		}
		e = &f.shared
	}
	return e.last != sha256.Sum256([]byte(token)) && e.limit.TokensAt(now) < 1
}

func (f *failures) add(addr, token string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.of(addr, now)
	hash := sha256.Sum256([]byte(token))
	if e.last != hash {
		e.last = hash
		e.limit.AllowN(now, 1)
		f.overall.AllowN(now, 1)
	}
}

// succeeded remembers an address that has shown a token.
func (f *failures) succeeded(addr string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.good[addr]; !known && len(f.good) >= maxFailing {
		for k, at := range f.good {
			if now.Sub(at) > goodFor {
				delete(f.good, k)
			}
		}
		if len(f.good) >= maxFailing {
			return
		}
	}
	f.good[addr] = now
}

// address is the peer without its port; IPv6 by its /64, which one host can have whole.
func address(r *http.Request) string {
	host := peer(r)
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}

// authenticate says who asks: by bearer token, by the page's session, or, where no token
// is configured, anyone on this machine.
func (s *Server) authenticate(r *http.Request) (secretToken, *problem) {
	if s.unguarded() {
		// A page elsewhere can point a name at 127.0.0.1; its browser sends that name.
		if !loopback(r.Host) {
			return secretToken{}, refuse(http.StatusForbidden, "host_not_allowed", "without tokens only localhost is answered, not "+r.Host)
		}
		return secretToken{name: "local", role: Operator}, nil
	}
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, token, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "bearer") {
			return secretToken{}, refuse(http.StatusUnauthorized, "unauthorized", "want Authorization: Bearer TOKEN")
		}
		return s.login(r, strings.TrimSpace(token))
	}
	if who, ok := s.session(r); ok {
		return who, nil
	}
	return secretToken{}, refuse(http.StatusUnauthorized, "unauthorized", "want Authorization: Bearer TOKEN")
}

// session says who is logged in to the page, and lets the answer's forms carry its token.
func (s *Server) session(r *http.Request) (who secretToken, ok bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return who, false
	}
	v, ok := s.sessions.get(c.Value, s.o.Now())
	if !ok {
		return who, false
	}
	if !v.who.oidc && !slices.ContainsFunc(*s.tokens.Load(), func(t secretToken) bool { return t.hash == v.who.hash }) {
		return who, false
	}
	if a, ok := r.Context().Value(askingKey{}).(*asking); ok {
		a.csrf = v.csrf
	}
	return v.who, true
}

// login looks a token up, unless its sender has guessed too much.
func (s *Server) login(r *http.Request, token string) (secretToken, *problem) {
	now, addr := s.o.Now(), address(r)
	if p := s.throttle(addr, token); p != nil {
		return secretToken{}, p
	}
	who, ok := s.find(token)
	if !ok {
		s.failures.add(addr, token, now)
		s.metrics.refused.Inc()
		return secretToken{}, refuse(http.StatusUnauthorized, "unauthorized", "the token is not known")
	}
	s.failures.succeeded(addr, now)
	return who, nil
}

// throttle refuses whoever has guessed too much.
func (s *Server) throttle(addr, token string) *problem {
	if !s.failures.blocked(addr, token, s.o.Now()) {
		return nil
	}
	s.metrics.limited.Inc()
	p := refuse(http.StatusTooManyRequests, "too_many_failures", "too many wrong tokens; wait a second")
	p.retryAfter = "1"
	return p
}

// setCookie: Lax, so that a link to a delivery in a chat opens it; whatever changes
// something asks for the session's token beside.
func (s *Server) setCookie(w http.ResponseWriter, r *http.Request, value string, age time.Duration) {
	seconds := int(age.Seconds())
	if value == "" {
		seconds = -1
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: value, Path: "/", MaxAge: seconds, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, Secure: s.secure(r)})
}

// fingerprint is how a body is named in headers and pages.
func fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
