package admin

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

//go:embed templates static
var files embed.FS

// The templates are parsed with the program: a mistake in them is found by any test. The
// functions that need a server are put in by New.
func parsePages(s *Server) (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"money": s.money,
		"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
		"short": func(t time.Time) string { return t.UTC().Format(shortTime) },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"ago":   func(t time.Time) string { return ago(s.o.Now().Sub(t)) },
		"age":   func(t time.Time) string { return took(s.o.Now().Sub(t)) },
		"took":  took,
		"size":  func(n any) string { return size(whole(n)) },
		"count": func(n any) string { return count(whole(n)) },
		"share": share,
		"path":  url.PathEscape,
		"list":  func(v ...any) []any { return v },
		"rows":  s.drawRows,
		"bars":  drawBars,

		"groups": s.drawGroups,
		"dead":   drawDead,
	}).ParseFS(files, "templates/*.html")
}

// shortTime is a moment in a table; the year is that of its neighbours.
const shortTime = "01-02 15:04:05"

// money writes minor units as people do where the currency's decimals are known. Else they
// stay what they are: a wrong decimal point is worse than none.
func (s *Server) money(minor *int64, currency string) string {
	if minor == nil {
		return ""
	}
	text := strconv.FormatInt(*minor, 10)
	if s.o.Decimals != nil {
		if n, ok := s.o.Decimals(currency); ok {
			sign := ""
			if text[0] == '-' {
				sign, text = "-", text[1:]
			}
			if n > 0 {
				text = strings.Repeat("0", max(0, n+1-len(text))) + text
				text = text[:len(text)-n] + "." + text[len(text)-n:]
			}
			return sign + text + " " + currency
		}
	}
	return strings.TrimSpace(text + " " + currency + " (minor units)")
}

// ago says how long something is past, as people do.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h ago"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days ago"
}

// took writes a length of time with what matters of it.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}

// whole takes the numbers that pages show.
func whole(n any) int64 {
	switch n := n.(type) {
	case int:
		return int64(n)
	case int64:
		return n
	case uint64:
		return int64(min(n, math.MaxInt64)) //nolint:gosec // bounded
	}
	return 0
}

func size(n int64) string {
	f, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for f >= 1024 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	if units[0] == "B" || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[0])
	}
	return fmt.Sprintf("%.1f %s", f, units[0])
}

// count writes a number with blanks between thousands.
func count(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

func share(part, whole int64) string {
	switch {
	case whole == 0:
		return "–"
	case part == 0:
		return "0 %"
	}
	f := 100 * float64(part) / float64(whole)
	if f < 0.1 {
		return "<0.1 %"
	}
	return fmt.Sprintf("%.1f %%", f)
}

// frame is what every page needs.
type frame struct {
	Title    string
	Tab      string // which entry of the navigation is shown as the current one
	Who      string
	Role     Role
	Operator bool
	LoggedIn bool // by the page's login, so that it can be left
	Notice   string
	Error    string
	Alerts   []alert
	Refresh  bool // the page's script brings it up to date now and then
}

// alert is something that wants attention, and where to look.
type alert struct {
	Code  string `json:"code"`     // what it is, for programs
	Level string `json:"severity"` // bad: deliveries are or will be lost or refused; warn: the rest
	Text  string `json:"text"`
	Href  string `json:"link"` // on the page
}

func (s *Server) frame(r *http.Request, title, tab string, who secretToken) frame {
	_, err := r.Cookie(cookieName)
	f := frame{Title: title, Tab: tab, Who: who.name, Role: who.role, Operator: who.role == Operator,
		LoggedIn: err == nil && !s.unguarded(), Notice: notices[r.URL.Query().Get("done")]}
	if who.role == Operator || who.role == Viewer {
		f.Alerts = s.alerts(r.Context())
	}
	return f
}

// notices are what a page says after something was done. The address names them: words in
// the address itself would be whatever somebody writes into a link.
var notices = map[string]string{
	"paused":   "Paused: deliveries are still taken and answered, and published when you resume.",
	"resumed":  "Resumed: what was held is being published, in order.",
	"released": "It verifies with today's credentials and was released: it goes through dedupe and is published like any other.",
	"let":      "Released: it is published now, ahead of what its paused source still holds.",
	"refused":  "It still does not verify with today's credentials; nothing was released.",
	"forced":   "Released by your word: the event says ce_verifiedby: operator.",
	"canceled": "Canceled. What was published by then stays published.",
}

// alerts says what wants attention first.
func (s *Server) alerts(ctx context.Context) (out []alert) {
	add := func(code, level, text, href string) { out = append(out, alert{code, level, text, href}) }
	if s.o.Health != nil {
		h := s.o.Health()
		if h.Unready != nil {
			add("not_ready", "bad", "Deliveries are turned away (503): "+h.Unready.Error(), "/overview")
		}
		if s.o.State == nil {
			for _, d := range h.Degraded {
				add("degraded", "warn", "Away or degraded: "+d, "/overview")
			}
		}
	}
	if s.o.State == nil {
		return out
	}
	st := s.o.State(ctx)
	if n := len(st.Damage); n > 0 {
		add("archive_damaged", "bad", "The archive has "+strconv.Itoa(n)+" damaged places; the rest is served.", "/overview#archive")
	}
	if st.KafkaAway {
		add("kafka_away", "bad", "Kafka does not answer: deliveries are taken and kept, and published when it is back.", "/overview")
	}
	if st.RedisAway {
		add("redis_away", "warn", "Redis does not answer: the local index tells repeats, more slowly.", "/overview")
	}
	for _, topic := range sortedKeys(st.Blocked) {
		add("topic_blocked", "bad", "Topic or target "+topic+" takes nothing: "+st.Blocked[topic], "/?outcome=held")
	}
	if st.OldestFor > lateAfter {
		add("publishing_late", "warn", strconv.Itoa(st.Unpublished)+" accepted deliveries wait to be published, the oldest since "+took(st.OldestFor)+".", "/?outcome=pending")
	}
	if st.ConfigError != "" {
		add("config_not_in_force", "warn", "The changed configuration is not in force: "+st.ConfigError, "/overview")
	}
	return out
}

// lateAfter is when waiting for Kafka is worth a line on every page: publishing takes
// milliseconds when all is well.
const lateAfter = time.Minute

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (s *Server) render(w http.ResponseWriter, status int, name string, data any) *problem {
	b, err := s.draw(name, data)
	if err != nil {
		s.log.Error("page could not be rendered", zap.String("page", name), zap.Error(err))
		return refuse(http.StatusInternalServerError, "internal", "the page could not be rendered")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(guarded(w, b)) // the client is gone: nothing to do
	return nil
}

// draw makes a page.
func (s *Server) draw(name string, data any) ([]byte, error) {
	var b bytes.Buffer // whole before it is sent: half a page would look like no deliveries
	var err error
	late := s.lane.turn(context.Background(), func() { err = s.pages.ExecuteTemplate(&b, name, data) }) // whoever is before us is soon done
	return b.Bytes(), errors.Join(late, err)
}

func (s *Server) pageProblem(w http.ResponseWriter, r *http.Request, who secretToken, p *problem) *problem {
	f := s.frame(r, cmp.Or(p.Title, "Not possible"), "", who)
	f.Error = p.Detail
	return s.render(w, p.Status, "problem.html", f)
}

// done leads back to a page after something was done; a reload does not repeat it.
func done(w http.ResponseWriter, r *http.Request, to, what string) *problem {
	sep := "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	http.Redirect(w, r, to+sep+"done="+what, http.StatusSeeOther)
	return nil
}

type loginPage struct {
	frame
	Next  string
	Token bool // with a token
	OIDC  bool // by the identity provider
}

// loginURL leads to the login and back.
func loginURL(r *http.Request) string {
	return "/login?next=" + url.QueryEscape(r.URL.RequestURI())
}

// local keeps the way back on this site: "//host" and "/\host" are other ones.
func local(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func (s *Server) pageLogin(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	s.guardLogin(w, r)
	return s.render(w, http.StatusOK, "login.html", loginPage{frame: frame{Title: "Log in"}, Next: local(r.URL.Query().Get("next")),
		Token: s.byToken(), OIDC: s.oidc != nil})
}

func (s *Server) doLogin(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if err := r.ParseForm(); err != nil {
		return refuse(http.StatusBadRequest, "invalid_parameter", "the form cannot be read")
	}
	next := local(r.PostForm.Get("next"))
	s.guardLogin(w, r)
	who, p := secretToken{}, checkLogin(r)
	if p == nil {
		who, p = s.login(r, strings.TrimSpace(r.PostForm.Get("token")))
	}
	if p == nil && who.role == Consumer {
		p = refuse(http.StatusForbidden, "forbidden", "a consumer's token is for programs; the page wants a viewer's or operator's")
	}
	s.loggedIn(r, who, "token", p)
	if p != nil {
		return s.loginProblem(w, next, p)
	}
	s.setCookie(w, r, s.sessions.open(who, s.o.Now()), sessionAge)
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

func (s *Server) doLogout(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if p := s.logOut(r); p != nil {
		return p
	}
	s.setCookie(w, r, "", 0)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// staticTypes are the files that pages load. Nothing else is served.
var staticTypes = map[string]string{
	"style.css": "text/css; charset=utf-8",
	"page.js":   "text/javascript; charset=utf-8",
	"icon.svg":  "image/svg+xml",
}

func (s *Server) static(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	name := path.Base(r.URL.Path)
	b, err := files.ReadFile("static/" + name)
	if err != nil || staticTypes[name] == "" {
		return refuse(http.StatusNotFound, "not_found", "there is no such file")
	}
	etag := `"` + fingerprint(b) + `"`
	h := w.Header()
	h.Set("Content-Type", staticTypes[name])
	h.Set("Cache-Control", "no-cache") // asked again each time, and answered 304: never of another version
	h.Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	_, _ = w.Write(b) // the client is gone: nothing to do
	return nil
}
