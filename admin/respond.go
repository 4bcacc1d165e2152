package admin

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"penstock/archive"
)

// problem is an error answer of RFC 9457. Code is what a program branches on.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
	// Instance is the path that was asked for; the frame of all answers fills it.
	Instance string `json:"instance,omitempty"`

	retryAfter string
}

func refuse(status int, code, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// failure maps an error to its answer. What is not known is ours: logged, not shown.
func (s *Server) failure(err error) *problem {
	switch {
	case errors.Is(err, archive.ErrNotFound), errors.Is(err, ErrNotFound):
		return refuse(http.StatusNotFound, "not_found", err.Error())
	case errors.Is(err, archive.ErrCorrupt):
		return refuse(http.StatusGone, "damaged", err.Error())
	case errors.Is(err, archive.ErrCursor):
		return refuse(http.StatusBadRequest, "invalid_parameter", "cursor: "+err.Error())
	case errors.Is(err, ErrInvalid), errors.Is(err, archive.ErrCountRange):
		return refuse(http.StatusBadRequest, "invalid_parameter", err.Error())
	case errors.Is(err, ErrConflict):
		return refuse(http.StatusConflict, "conflict", err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return busy("query_too_slow", "the search took too long; narrow it by a time range or an id")
	case errors.Is(err, archive.ErrIndex):
		return busy("index_unavailable", err.Error())
	case errors.Is(err, ErrUnavailable):
		return busy("unavailable", err.Error())
	}
	s.log.Error("admin request failed", zap.Error(err))
	return refuse(http.StatusInternalServerError, "internal", "see the log")
}

// jsonBody refuses a body that says it is something else than JSON. One that does not say,
// and what curl -d calls every body, is read.
func jsonBody(r *http.Request) *problem {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Encoding") != "":
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body is encoded ("+r.Header.Get("Content-Encoding")+"); send it as it is")
	case r.Header.Get("Content-Type") == "", err == nil && (media == "application/json" || strings.HasSuffix(media, "+json") || media == "application/x-www-form-urlencoded"):
		return nil
	}
	return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "want a body of application/json")
}

func busy(code, detail string) *problem {
	p := refuse(http.StatusServiceUnavailable, code, detail)
	p.retryAfter = "1"
	return p
}

func writeProblem(w http.ResponseWriter, p *problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="penstock"`)
	}
	if p.retryAfter != "" {
		h.Set("Retry-After", p.retryAfter)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone: nothing to do
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeProblem(w, refuse(http.StatusInternalServerError, "internal", "the answer could not be rendered"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client is gone: nothing to do
}

// unchanged answers 304 where the client has what it asks for already.
func unchanged(w http.ResponseWriter, r *http.Request, etag string) bool {
	w.Header().Set("ETag", etag)
	for _, list := range r.Header.Values("If-None-Match") {
		for have := range strings.SplitSeq(list, ",") {
			if have = strings.TrimPrefix(strings.TrimSpace(have), "W/"); have == etag || have == "*" {
				w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}

// writeTagged is writeJSON for what is asked for again and again. before is done unless the
// client has it already.
func writeTagged(w http.ResponseWriter, r *http.Request, v any, before func() *problem) *problem {
	b, err := json.Marshal(v)
	if err != nil {
		return refuse(http.StatusInternalServerError, "internal", "the answer could not be rendered")
	}
	if unchanged(w, r, `"`+fingerprint(b)+`"`) {
		return nil
	}
	if p := before(); p != nil {
		return p
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client is gone: nothing to do
	return nil
}
