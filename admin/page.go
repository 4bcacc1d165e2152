package admin

import (
	"bytes"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"penstock/archive"
)

//go:embed templates
var files embed.FS

// maxShownBody is how much of a body the page shows; all of it is a download away.
const maxShownBody = 64 << 10

// The templates are parsed with the program: a mistake in them is found by any test.
var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"money": money,
	"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
	"short": func(t time.Time) string { return t.UTC().Format("01-02 15:04:05") },
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"path":  url.PathEscape,
}).ParseFS(files, "templates/*.html"))

// money shows minor units as they are: the row does not keep the currency's exponent, and
// a wrong decimal point is worse than none.
func money(minor *int64, currency string) string {
	if minor == nil {
		return ""
	}
	return strings.TrimSpace(strconv.FormatInt(*minor, 10) + " " + currency)
}

// frame is what every page needs.
type frame struct {
	Title    string
	Who      string
	Role     Role
	LoggedIn bool // by the page's login, so that it can be left
	Notice   string
	Error    string
}

func (s *Server) frame(r *http.Request, title string, who secretToken) frame {
	_, err := r.Cookie(cookieName)
	return frame{Title: title, Who: who.name, Role: who.role, LoggedIn: err == nil && !s.unguarded()}
}

func (s *Server) render(w http.ResponseWriter, status int, name string, data any) *problem {
	var b bytes.Buffer // whole before it is sent: half a page would look like no deliveries
	if err := pageTemplates.ExecuteTemplate(&b, name, data); err != nil {
		s.log.Error("page could not be rendered", zap.String("page", name), zap.Error(err))
		return refuse(http.StatusInternalServerError, "internal", "the page could not be rendered")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(guarded(w, b.Bytes())) // the client is gone: nothing to do
	return nil
}

// field is one input of the filter form.
type field struct {
	Name, Label, Value, Hint string
	Choices                  []string
}

type listPage struct {
	frame
	Fields   []field
	More     []field // the rarer ones, folded unless one is set
	Open     bool
	Rows     []archive.Row
	Next     string
	Newest   string // the same view without a cursor, when this is not its first page
	Filtered bool
}

func formFields(v url.Values) (main, more []field) {
	get := func(f field) field { f.Value = v.Get(f.Name); return f }
	for _, f := range []field{
		{Name: "q", Label: "Search", Hint: "any id, type, status, address"},
		{Name: "source", Label: "Source"},
		{Name: "verdict", Label: "Verdict", Choices: []string{"accepted", "rejected", "challenge"}},
		{Name: "outcome", Label: "Outcome", Choices: []string{"published", "duplicate", "held", "dead", "filtered", archive.Pending}},
		{Name: "order_id", Label: "Order id"},
		{Name: "payment_id", Label: "Payment id"},
		{Name: "from", Label: "From", Hint: "-2h or 2026-05-28T20:00:00Z"},
		{Name: "to", Label: "To"},
	} {
		main = append(main, get(f))
	}
	for _, f := range []field{
		{Name: "event_id", Label: "Event id"}, {Name: "event_type", Label: "Provider's type"}, {Name: "type", Label: "Type"},
		{Name: "status", Label: "Status"}, {Name: "provider", Label: "Provider"}, {Name: "reason", Label: "Reason"},
		{Name: "tenant", Label: "Tenant"}, {Name: "request_id", Label: "Request id"},
		{Name: "idempotency_key", Label: "Idempotency key"},
		{Name: "livemode", Label: "Live", Choices: []string{"true", "false"}},
		{Name: "limit", Label: "Rows", Choices: []string{"50", "100", "200", "500"}},
	} {
		more = append(more, get(f))
	}
	return main, more
}

func (s *Server) pageList(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	v := r.URL.Query()
	p := listPage{frame: s.frame(r, "Deliveries", who)}
	p.Fields, p.More = formFields(v)
	p.Open = slices.ContainsFunc(p.More, func(f field) bool { return f.Value != "" })
	for name, values := range v {
		p.Filtered = p.Filtered || name != "limit" && name != "cursor" && values[0] != ""
	}
	f, bad := s.filter(v, who)
	if bad == nil {
		page, err := s.o.Archive.Query(r.Context(), f)
		if err != nil {
			bad = s.failure(err)
		}
		p.Rows, p.Next = page.Rows, link(v, page.Next)
	}
	if v.Get("cursor") != "" {
		p.Newest = link(v, "")
		if p.Newest == "" {
			p.Newest = "/"
		}
	}
	status := http.StatusOK
	if bad != nil {
		p.Error, status, p.Next = bad.Detail, bad.Status, ""
	}
	return s.render(w, status, "list.html", p)
}

// link is the view with another cursor; "" when there is nothing to link to.
func link(v url.Values, cursor string) string {
	next := url.Values{}
	for name, values := range v {
		if name != "cursor" && values[0] != "" {
			next[name] = values
		}
	}
	if cursor != "" {
		next.Set("cursor", cursor)
	}
	if len(next) == 0 {
		return ""
	}
	return "/?" + next.Encode()
}

type deliveryPage struct {
	frame
	D         *detail
	Body      string
	BodyNote  string
	Why       string
	Hints     []string
	CanReplay bool
}

func (s *Server) pageDelivery(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	d, p := s.load(r.PathValue("id"), who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	page := deliveryPage{frame: s.frame(r, "Delivery "+d.ID, who), D: d, Why: reasonWords[d.Reason]}
	page.CanReplay = who.role == Operator && len(d.Published) > 0 && s.o.Replayer != nil
	if d.Verdict == archive.Rejected.String() && d.Damaged == "" && who.role == Operator && s.o.Explainer != nil {
		// The page is worth having without: a source that is gone cannot be asked.
		if e, err := s.o.Explainer.Explain(r.Context(), d.ID); err == nil {
			page.Hints = e.Hints
			if e.Verdict == archive.Accepted.String() {
				page.Hints = append(page.Hints, "With today's credentials it verifies: re-verify it to release it.")
			}
		}
	}
	if job := r.URL.Query().Get("job"); job != "" {
		page.Notice = "Replay started: job " + job
	}
	switch {
	case d.Damaged != "":
		page.BodyNote = "The stored record is damaged: " + d.Damaged
	case who.role != Operator:
		page.BodyNote = "Bodies are not shown to the role " + string(who.role) + "."
	default:
		page.Body, page.BodyNote = readable(d.body)
	}
	return s.render(w, http.StatusOK, "delivery.html", page)
}

// readable gives a body as text: JSON indented, other text as it is, bytes not at all.
func readable(body []byte) (text, note string) {
	if len(body) == 0 {
		return "", "The body is empty."
	}
	if len(body) > maxShownBody {
		body = bytes.ToValidUTF8(body[:maxShownBody], nil)
		note = "Only the first 64 KiB are shown."
	} else if json.Valid(body) {
		var b bytes.Buffer
		// Deep nesting grows with the square of its depth when indented.
		if json.Indent(&b, body, "", "  ") == nil && b.Len() <= 4*maxShownBody {
			return b.String(), ""
		}
	}
	if !utf8.Valid(body) {
		return "", "The body is not text; download it to see its bytes."
	}
	return string(body), note
}

// reasonWords say what a refusal means and what to do about it.
var reasonWords = map[string]string{
	"signature_missing":           "No signature came with it. Either it is not from the provider, or signing is switched off there.",
	"signature_malformed":         "The signature cannot be read. A proxy may have changed the header.",
	"signature_mismatch":          "The signature does not fit the bytes. Compare the secret here with the provider's; a proxy that rewrites bodies has the same effect.",
	"timestamp_missing":           "The scheme signs a time, and none came.",
	"timestamp_outside_tolerance": "It was signed too long ago or in the future: a replayed request, or a clock that is wrong.",
	"duplicate_header":            "A header that must come once came more often.",
	"ip_not_allowed":              "Its address is not on the source's list.",
	"merchant_mismatch":           "It is signed for another merchant than this source is configured for.",
	"key_unavailable":             "The key to verify it with could not be had at that moment; the provider was asked to come again.",
	"policy":                      "The source's own rules refuse it.",
}

func (s *Server) pageProblem(w http.ResponseWriter, r *http.Request, who secretToken, p *problem) *problem {
	f := s.frame(r, p.Title, who)
	f.Error = p.Detail
	return s.render(w, p.Status, "problem.html", f)
}

func (s *Server) pageReplay(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	job, p := s.startReplay(r, who)
	if p != nil {
		return s.pageProblem(w, r, who, p)
	}
	http.Redirect(w, r, "/deliveries/"+url.PathEscape(r.PathValue("id"))+"?job="+url.QueryEscape(job.ID), http.StatusSeeOther)
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

func (s *Server) style(w http.ResponseWriter, _ *http.Request, _ secretToken) *problem {
	b, err := files.ReadFile("templates/style.css")
	if err != nil {
		return s.failure(err)
	}
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(b) // the client is gone: nothing to do
	return nil
}
