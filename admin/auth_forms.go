package admin

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"regexp"
	"strings"
)

const (
	// csrfField is the hidden field of every form that changes something, csrfHeader the
	// same for scripts.
	csrfField  = "csrf"
	csrfHeader = "Penstock-Csrf"
	// formCookie guards the form of the login, before there is a session.
	formCookie = "penstock_form"
)

var postForm = regexp.MustCompile(`<form\b[^>]*\bmethod="post"[^>]*>`)

// guarded puts the session's token into every form of a page that changes something. It
// is done here and not in the templates so that none can be forgotten. What a payload says
// is escaped by then and is no form.
func guarded(w http.ResponseWriter, page []byte) []byte {
	rec, ok := w.(*recorder)
	if !ok || rec.csrf == "" {
		return page
	}
	field := []byte(`<input type="hidden" name="` + csrfField + `" value="` + rec.csrf + `">`)
	return postForm.ReplaceAllFunc(page, func(form []byte) []byte { return append(append([]byte{}, form...), field...) })
}

func same(a, b string) bool { return b != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// checkForm refuses what a page of another site had the browser send along with the
// session: the token stands in our own pages alone. For the API it is enough that the
// browser itself says where the request comes from, which no page can forge.
func checkForm(r *http.Request, page bool, csrf string) *problem {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || same(r.Header.Get(csrfHeader), csrf) {
		return nil
	}
	if page && same(r.PostFormValue(csrfField), csrf) || !page && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return nil
	}
	return refuse(http.StatusForbidden, "csrf", "the form was not made by this page, or its session is over; load it again")
}

// guardLogin gives the login form a token of its own.
func (s *Server) guardLogin(w http.ResponseWriter, r *http.Request) {
	rec, ok := w.(*recorder)
	if !ok {
		return
	}
	if c, err := r.Cookie(formCookie); err == nil && len(c.Value) == len(rand.Text()) && !strings.ContainsAny(c.Value, `"<>&'`) {
		rec.csrf = c.Value // another tab waits with it
		return
	}
	rec.csrf = rand.Text()
	http.SetCookie(w, &http.Cookie{Name: formCookie, Value: rec.csrf, Path: "/login", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: s.secure(r)})
}

// checkLogin compares the login form's token with its cookie. A program that logs in has
// neither, and no browser behind it that could be led astray.
func checkLogin(r *http.Request) *problem {
	c, err := r.Cookie(formCookie)
	if err != nil && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		return nil
	}
	if err != nil || !same(r.PostFormValue(csrfField), c.Value) {
		return refuse(http.StatusForbidden, "csrf", "the form is too old; try again")
	}
	return nil
}

// secure reports whether browsers reach this by TLS: here, or at a proxy in front.
func (s *Server) secure(r *http.Request) bool {
	return r.TLS != nil || strings.HasPrefix(s.o.PublicURL, "https://")
}

// loginProblem shows the login again, and why.
func (s *Server) loginProblem(w http.ResponseWriter, next string, p *problem) *problem {
	if p.retryAfter != "" {
		w.Header().Set("Retry-After", p.retryAfter)
	}
	return s.render(w, p.Status, "login.html", loginPage{frame: frame{Title: "Log in", Error: p.Detail}, Next: next, Token: s.byToken(), OIDC: s.oidc != nil})
}

// byToken reports whether anybody can log in with a token.
func (s *Server) byToken() bool { return len(*s.tokens.Load()) > 0 }

// unguarded reports whether nobody is configured who could log in: then whoever is on
// this machine may ask.
func (s *Server) unguarded() bool { return !s.byToken() && s.oidc == nil }
