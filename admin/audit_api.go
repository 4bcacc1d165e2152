package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"go.uber.org/zap"

	"penstock/archive"
)

// actionOf names what a route does, in the audit log's words. A route that changes
// something and is not named here stands there by its method and path.
var actionOf = map[string]string{
	"POST /api/v1/deliveries/{id}/replay":        "replay",
	"POST /deliveries/{id}/replay":               "replay",
	"POST /api/v1/replays":                       "replay",
	"DELETE /api/v1/replays/{id}":                "replay.cancel",
	"POST /api/v1/deliveries/{id}/reverify":      "reverify",
	"POST /api/v1/reverify":                      "reverify",
	"POST /api/v1/sources/{name}/pause":          "source.pause",
	"POST /api/v1/sources/{name}/resume":         "source.resume",
	"PUT /api/v1/sources/{name}/tenants/{id}":    "tenant.put",
	"DELETE /api/v1/sources/{name}/tenants/{id}": "tenant.delete",
	"GET /api/v1/sources/{name}/captured":        "captured.read",
	"DELETE /api/v1/sources/{name}/captured":     "captured.clear",
	"DELETE /api/v1/sources/{name}/keys/{month}": "key.erase",
	"POST /api/v1/reload":                        "reload",
	"POST /api/v1/deliveries/{id}/release":       "release",
	"POST /deliveries/{id}/release":              "release",
	"POST /deliveries/{id}/reverify":             "reverify",
	"POST /refused/reverify":                     "reverify",
	"POST /replays":                              "replay",
	"POST /replays/{id}/cancel":                  "replay.cancel",
	"POST /sources/{name}/pause":                 "source.pause",
	"POST /sources/{name}/resume":                "source.resume",
	"POST /api/v1/sources/{name}/test":           "source.test",
	"POST /sources/{name}/test":                  "source.test",
}

// Actions that are none of a route.
const (
	actLogin    = "login"
	actLogout   = "logout"
	actReadBody = "body.read"
	// Who is given headers with the body has looked once, and that is body.read.
	actReadHeaders = "headers.read"
	actSearchBody  = "body.search"
)

// The kinds of entries: what was done, and what was only looked at.
const (
	kindActs  = "acts"
	kindLooks = "looks"
)

// looks are the actions that only look.
var looks = map[string]bool{actReadBody: true, actReadHeaders: true, actSearchBody: true}

// asking is what is known of a request on its way: who asks, and what is to be said of it.
type asking struct {
	who    secretToken
	csrf   string // of the session, where one asks
	begun  uint64
	detail string
}

type askingKey struct{}

// note says more of what a request does than its path and query, for the audit log. No
// secret and nothing of a body goes in.
func note(r *http.Request, detail string) {
	if a, ok := r.Context().Value(askingKey{}).(*asking); ok {
		a.detail = detail
	}
}

// audit records an act that is no route's own, such as a look at what is masked. It is on
// record when this returns nil; a problem is to be answered in place of what was asked.
func (s *Server) audit(r *http.Request, action, subject, detail string) *problem {
	var who secretToken
	if a, ok := r.Context().Value(askingKey{}).(*asking); ok {
		who = a.who
	}
	_, p := s.record(r, who, Act{Action: action, Subject: subject, Detail: detail, Result: actDone})
	return p
}

// record writes an entry. Without a log there is the process log alone.
func (s *Server) record(r *http.Request, who secretToken, e Act) (uint64, *problem) {
	if s.o.Audit == nil {
		return 0, nil
	}
	e.At, e.Who, e.Role, e.From = s.o.Now().UTC(), who.name, string(who.role), peer(r)
	seq, err := s.o.Audit.append(e, looks[e.Action])
	if err != nil {
		s.log.Error("the audit log cannot be written", zap.String("action", e.Action), zap.String("by", who.name), zap.Error(err))
		return 0, busy("audit_unavailable", "the audit log cannot be written, and nothing is done that is not on record; see the log of the process")
	}
	return seq, nil
}

// peer is the address that asks, without its port.
func peer(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// actOf is the entry of a route that changes something.
func actOf(rt route, r *http.Request) Act {
	e := Act{Action: actionOf[rt.method+" "+rt.path], Subject: r.PathValue("name"), Detail: r.URL.RawQuery}
	if e.Action == "" {
		e.Action = rt.method + " " + rt.path
	}
	if id := r.PathValue("id"); id != "" {
		if e.Subject != "" {
			e.Subject += "/"
		}
		e.Subject += id
	}
	return e
}

// begin puts an act on record before it is done: a kill on the way leaves it there.
func (s *Server) begin(rt route, r *http.Request, a *asking) (p *problem) {
	e := actOf(rt, r)
	e.Result = actBegun
	a.begun, p = s.record(r, a.who, e)
	return p
}

// finish says what came of a route that changes something, refused attempts too.
func (s *Server) finish(rt route, r *http.Request, a *asking, status int) {
	e := actOf(rt, r)
	s.log.Info("audit", zap.String("act", rt.method+" "+rt.path), zap.String("target", e.Subject), zap.String("query", e.Detail),
		zap.String("by", a.who.name), zap.String("role", string(a.who.role)), zap.String("from", address(r)), zap.Int("status", status))
	if a.detail != "" {
		e.Detail = a.detail
	}
	e.Status, e.Begun, e.Result = status, a.begun, resultOf(status)
	_, _ = s.record(r, a.who, e) // it was logged; the announcement stays on record
}

func resultOf(status int) string {
	switch {
	case status >= http.StatusInternalServerError || status == 0:
		return actFailed
	case status >= http.StatusBadRequest:
		return actRefused
	}
	return actDone
}

// Bounds of the list.
const (
	auditLimit    = 50
	maxAuditLimit = 500
)

func (s *Server) auditList(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Audit == nil {
		return notHere("the audit log")
	}
	f, err := s.auditFilter(r.URL.Query())
	if err != nil {
		return refuse(http.StatusBadRequest, "invalid_parameter", err.Error())
	}
	entries, more, err := s.o.Audit.list(r.Context(), f)
	if err != nil {
		return s.failure(err)
	}
	next := ""
	if more {
		next = strconv.FormatUint(entries[len(entries)-1].Seq, 10)
	}
	if entries == nil {
		entries = []Act{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"entries": entries, "next": next})
	return nil
}

// auditFilter reads the parameters. Times are read as those of deliveries are.
func (s *Server) auditFilter(v url.Values) (f auditFilter, err error) {
	f.limit = auditLimit
	times := url.Values{}
	for name, values := range v {
		value := values[0]
		switch name {
		case "action":
			f.action = value
		case "who":
			f.who = value
		case "subject":
			f.subject = value
		case "kind":
			if f.kind = value; value != "" && value != kindActs && value != kindLooks {
				return f, fmt.Errorf("kind: %q is neither acts nor looks", short(value))
			}
		case "from", "to":
			times[name] = values
		case "limit":
			if f.limit, err = strconv.Atoi(value); err != nil || f.limit < 1 || f.limit > maxAuditLimit {
				return f, fmt.Errorf("limit: %q is not within 1..%d", value, maxAuditLimit)
			}
		case "cursor":
			if f.before, err = strconv.ParseUint(value, 10, 64); value != "" && (err != nil || f.before == 0) {
				return f, fmt.Errorf("cursor: %q is none of this list", short(value))
			}
		default:
			return f, fmt.Errorf("%s: there is no such parameter", name)
		}
	}
	between, err := archive.ParseFilter(times, s.o.Now())
	f.from, f.to = between.From, between.To
	return f, err
}

// withAsking lets what is called with the request know who asks.
func withAsking(r *http.Request) (*http.Request, *asking) {
	a := &asking{}
	return r.WithContext(context.WithValue(r.Context(), askingKey{}, a)), a
}

// loggedIn records a login to the page, or why there was none.
func (s *Server) loggedIn(r *http.Request, who secretToken, how string, p *problem) {
	s.log.Info("audit", zap.String("act", actLogin), zap.String("by", who.name), zap.String("how", how), zap.String("from", address(r)), zap.Bool("ok", p == nil))
	e := Act{Action: actLogin, Detail: how, Result: actDone, Status: http.StatusSeeOther}
	if p != nil {
		e.Result, e.Status, e.Detail = resultOf(p.Status), p.Status, how+": "+p.Detail
	}
	_, _ = s.record(r, who, e) // it was logged; what the session does is refused without a record
}

// logOut ends the session that asks for it.
func (s *Server) logOut(r *http.Request) *problem {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	if who, ok := s.session(r); ok {
		a, _ := r.Context().Value(askingKey{}).(*asking)
		if p := checkForm(r, true, a.csrf); p != nil {
			return p
		}
		_, _ = s.record(r, who, Act{Action: actLogout, Result: actDone, Status: http.StatusSeeOther}) // its end matters more
	}
	s.sessions.end(c.Value)
	return nil
}
