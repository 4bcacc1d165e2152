package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

type auditPage struct {
	frame
	Fields   []field
	Acts     []actView
	Filtered bool
	Next     string // address of what is older
	Newest   string // the same view from its beginning, when this is not it
}

// actView is an act with what it concerned as a link.
type actView struct {
	Act
	Href string
	Bad  bool // refused or failed, or begun and never ended
}

// pageAudit shows who did what and who looked at what: for operators, as the API does.
func (s *Server) pageAudit(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if who.role != Operator {
		return s.pageProblem(w, r, who, refuse(http.StatusForbidden, "forbidden", "the role "+string(who.role)+" may not see who did what"))
	}
	if s.o.Audit == nil {
		return s.pageProblem(w, r, who, notHere("the audit log"))
	}
	p := auditPage{frame: s.frame(r, "Audit", "audit", who)}
	v := r.URL.Query()
	for _, f := range []field{{Name: "kind", Label: "Kind", Choices: []string{kindActs, kindLooks}}, {Name: "who", Label: "Who"}, {Name: "action", Label: "Action", Hint: "source.pause …"}, {Name: "subject", Label: "Delivery, source or job"},
		{Name: "from", Label: "From", Hint: "-2h, 2026-05-28 20:00"}, {Name: "to", Label: "To", Hint: "now"}} {
		f.Value = v.Get(f.Name)
		p.Filtered = p.Filtered || f.Value != ""
		p.Fields = append(p.Fields, f)
	}
	view := func(cursor string) string {
		return "/audit?" + strings.TrimPrefix(queryOf(v, "cursor")+"&cursor="+cursor, "&")
	}
	f, err := s.auditFilter(v)
	if err != nil {
		p.Error = err.Error()
		return s.render(w, http.StatusBadRequest, "audit.html", p)
	}
	acts, more, err := s.o.Audit.list(r.Context(), f)
	if err != nil {
		return s.pageProblem(w, r, who, s.failure(err))
	}
	for i := range acts {
		p.Acts = append(p.Acts, viewAct(acts[i]))
	}
	if more {
		p.Next = view(strconv.FormatUint(acts[len(acts)-1].Seq, 10))
	}
	if f.before > 0 {
		p.Newest = strings.TrimSuffix(view(""), "&cursor=")
	}
	return s.render(w, http.StatusOK, "audit.html", p)
}

func viewAct(e Act) actView {
	v := actView{Act: e, Bad: e.Result != actDone}
	name, _, _ := strings.Cut(e.Subject, "/")
	switch {
	case e.Subject == "":
	case strings.HasPrefix(e.Action, "source."), strings.HasPrefix(e.Action, "tenant."), strings.HasPrefix(e.Action, "captured."), strings.HasPrefix(e.Action, "key."), e.Action == actSearchBody:
		v.Href = "/sources/" + url.PathEscape(name)
	case e.Action == "replay.cancel":
		v.Href = "/replays"
	default:
		v.Href = "/deliveries/" + url.PathEscape(e.Subject)
	}
	return v
}
