package admin

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI is the description of the API, as /openapi.yaml answers it.
func OpenAPI() []byte { return openAPI }

// access says who may call a route.
type access uint8

const (
	public    access = iota // health and metrics: nothing of a delivery
	readers                 // every role
	people                  // viewers and operators: what concerns all sources
	operators               // what changes something
	pages                   // HTML for people; without a session it leads to the login
)

// route is one entry of the API; the table is what openapi.yaml is tested against.
type route struct {
	method, path string
	who          access
	serve        func(w http.ResponseWriter, r *http.Request, who secretToken) *problem
	stream       bool // holds no slot of the concurrency limit and has no time limit
	change       bool // logged in the audit log; from a page it wants the token of a form
}

func (s *Server) table() []route {
	return []route{
		{method: "GET", path: "/healthz", who: public, serve: s.healthz},
		{method: "GET", path: "/readyz", who: public, serve: s.readyz},
		{method: "GET", path: "/metrics", who: public, serve: s.serveMetrics},
		{method: "GET", path: "/openapi.yaml", who: readers, serve: s.openapi},

		{method: "GET", path: "/api/v1/deliveries", who: readers, serve: s.list},
		{method: "GET", path: "/api/v1/deliveries/{id}", who: readers, serve: s.show},
		{method: "GET", path: "/api/v1/deliveries/{id}/body", who: readers, serve: s.body},
		{method: "GET", path: "/api/v1/deliveries/{id}/events", who: readers, serve: s.events},
		{method: "POST", path: "/api/v1/deliveries/{id}/replay", who: operators, serve: s.replayOne, change: true},
		{method: "POST", path: "/api/v1/deliveries/{id}/release", who: operators, serve: s.release, change: true},
		{method: "POST", path: "/api/v1/deliveries/{id}/reverify", who: operators, serve: s.reverifyOne, change: true},
		{method: "GET", path: "/api/v1/deliveries/{id}/explain", who: operators, serve: s.explain},
		{method: "POST", path: "/api/v1/reverify", who: operators, serve: s.reverifyAll, change: true},
		{method: "GET", path: "/api/v1/replays", who: people, serve: s.jobs},
		{method: "POST", path: "/api/v1/replays", who: operators, serve: s.replayAll, change: true},
		{method: "GET", path: "/api/v1/replays/{id}", who: people, serve: s.job},
		{method: "DELETE", path: "/api/v1/replays/{id}", who: operators, serve: s.cancelJob, change: true},
		{method: "GET", path: "/api/v1/stream", who: readers, serve: s.stream, stream: true},
		{method: "GET", path: "/api/v1/counts", who: readers, serve: s.counts},
		{method: "GET", path: "/api/v1/export", who: readers, serve: s.export, stream: true},
		{method: "GET", path: "/api/v1/overview", who: people, serve: s.overview},
		{method: "GET", path: "/api/v1/stats", who: people, serve: s.stats},
		{method: "GET", path: "/api/v1/sources", who: people, serve: s.sources},
		{method: "POST", path: "/api/v1/sources/{name}/pause", who: operators, serve: s.pause, change: true},
		{method: "POST", path: "/api/v1/sources/{name}/resume", who: operators, serve: s.resume, change: true},
		{method: "GET", path: "/api/v1/sources/{name}/setup", who: people, serve: s.setup},
		{method: "POST", path: "/api/v1/sources/{name}/test", who: operators, serve: s.sendTest, change: true},
		{method: "GET", path: "/api/v1/sources/{name}/tenants", who: people, serve: s.tenants},
		{method: "PUT", path: "/api/v1/sources/{name}/tenants/{id}", who: operators, serve: s.putTenant, change: true},
		{method: "DELETE", path: "/api/v1/sources/{name}/tenants/{id}", who: operators, serve: s.deleteTenant, change: true},
		{method: "GET", path: "/api/v1/sources/{name}/captured", who: operators, serve: s.captured, change: true},
		{method: "DELETE", path: "/api/v1/sources/{name}/captured", who: operators, serve: s.clearCaptured, change: true},
		{method: "DELETE", path: "/api/v1/sources/{name}/keys/{month}", who: operators, serve: s.eraseKey, change: true},
		{method: "GET", path: "/api/v1/audit", who: operators, serve: s.auditList},
		{method: "POST", path: "/api/v1/reload", who: operators, serve: s.reload, change: true},

		{method: "GET", path: "/{$}", who: pages, serve: s.pageList},
		{method: "GET", path: "/overview", who: pages, serve: s.pageOverview},
		{method: "GET", path: "/deliveries/{id}", who: pages, serve: s.pageDelivery},
		{method: "POST", path: "/deliveries/{id}/replay", who: pages, serve: s.pageReplay, change: true},
		{method: "POST", path: "/deliveries/{id}/release", who: pages, serve: s.pageRelease, change: true},
		{method: "POST", path: "/deliveries/{id}/reverify", who: pages, serve: s.pageReverify, change: true},
		{method: "GET", path: "/refused", who: pages, serve: s.pageRefused},
		{method: "POST", path: "/refused/reverify", who: pages, serve: s.pageReverifyAll, change: true},
		{method: "GET", path: "/sources", who: pages, serve: s.pageSources},
		{method: "GET", path: "/sources/{name}", who: pages, serve: s.pageSource},
		{method: "POST", path: "/sources/{name}/pause", who: pages, serve: s.pagePause, change: true},
		{method: "POST", path: "/sources/{name}/resume", who: pages, serve: s.pageResume, change: true},
		{method: "POST", path: "/sources/{name}/test", who: pages, serve: s.pageTest, change: true},
		{method: "GET", path: "/replays", who: pages, serve: s.pageJobs},
		{method: "POST", path: "/replays", who: pages, serve: s.pageReplayAll, change: true},
		{method: "POST", path: "/replays/{id}/cancel", who: pages, serve: s.pageCancel, change: true},
		{method: "GET", path: "/audit", who: pages, serve: s.pageAudit},
		{method: "GET", path: "/login", who: public, serve: s.pageLogin},
		{method: "POST", path: "/login", who: public, serve: s.doLogin},
		{method: "GET", path: "/login/oidc", who: public, serve: s.oidcStart},
		{method: "GET", path: OIDCCallback, who: public, serve: s.oidcCallback},
		{method: "POST", path: "/logout", who: public, serve: s.doLogout},
		{method: "GET", path: "/static/style.css", who: public, serve: s.static},
		{method: "GET", path: "/static/page.js", who: public, serve: s.static},
		{method: "GET", path: "/static/icon.svg", who: public, serve: s.static},
	}
}

// metrics of the listener itself; the routes are known, so their number is.
type metrics struct {
	requests         map[string]map[int]prometheus.Counter // by path, by status class
	refused, limited prometheus.Counter
	streams          prometheus.Gauge
	streamDropped    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, routes []route) metrics {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_admin_requests_total",
		Help: "Requests to the admin listener by route and status class."}, []string{"route", "status"})
	m := metrics{
		requests: map[string]map[int]prometheus.Counter{},
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_admin_wrong_tokens_total",
			Help: "Requests with a token that is not known."}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_admin_limited_total",
			Help: "Requests refused because their address sent too many wrong tokens."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_admin_streams", Help: "Open live streams."}),
		streamDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_admin_stream_dropped_total",
			Help: "Rows that a slow live stream missed."}),
	}
	reg.MustRegister(vec, m.refused, m.limited, m.streams, m.streamDropped)
	paths := []string{otherRoute}
	for _, r := range routes {
		paths = append(paths, r.path)
	}
	for _, p := range paths {
		m.requests[p] = map[int]prometheus.Counter{}
		for class := 1; class <= 5; class++ {
			m.requests[p][class] = vec.WithLabelValues(p, strconv.Itoa(class)+"xx")
		}
	}
	return m
}

// otherRoute counts what no route matches: paths are chosen by whoever asks.
const otherRoute = "other"

func (m *metrics) count(path string, status int) {
	if c := m.requests[path][status/100]; c != nil {
		c.Inc()
	}
}

// build makes the handler: routes by method and path, everything else 404 or 405 as a
// problem, in the frame that all answers share.
func (s *Server) build() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, r := range s.routes {
		mux.HandleFunc(r.method+" "+r.path, s.wrap(r))
		methods[r.path] = append(methods[r.path], r.method)
	}
	for path, have := range methods {
		allow := strings.Join(have, ", ")
		mux.HandleFunc(path, s.wrap(route{path: path, who: public, serve: func(w http.ResponseWriter, _ *http.Request, _ secretToken) *problem {
			w.Header().Set("Allow", allow)
			return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "allowed: "+allow)
		}}))
	}
	mux.HandleFunc("/", s.wrap(route{path: otherRoute, who: public, serve: func(http.ResponseWriter, *http.Request, secretToken) *problem {
		return refuse(http.StatusNotFound, "not_found", "there is no such page; the API is described at /openapi.yaml")
	}}))
	// A browser that was lured elsewhere must not act here, with a session or without.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(s.wrap(route{path: otherRoute, who: public, serve: func(http.ResponseWriter, *http.Request, secretToken) *problem {
		return refuse(http.StatusForbidden, "cross_origin", "the request comes from a page of another origin")
	}}))
	return guard.Handler(mux)
}

// contentPolicy lets the page load its own files and nothing else, and run no script that
// stands in the page: nothing in a payload can run even where escaping were wrong.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// recorder remembers the status for the metrics and the audit log.
type recorder struct {
	http.ResponseWriter
	status int
	csrf   string    // what forms of the answer carry
	began  time.Time // zero: how long it takes is nobody's business
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		// What a browser's tools and the benchmark show: from the request to the answer's beginning.
		if !w.began.IsZero() {
			took := float64(time.Since(w.began).Microseconds()) / 1000
			w.Header().Set("Server-Timing", "total;dur="+strconv.FormatFloat(took, 'f', 3, 64))
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController the connection, for streams.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// wrap is the frame of every answer: headers, limits, who asks, panics, metrics, audit.
func (s *Server) wrap(rt route) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := &recorder{ResponseWriter: rw}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store")
		r, a := withAsking(r)
		defer func() {
			p := recover()
			aborted := p == http.ErrAbortHandler //nolint:errorlint // the value that net/http panics with
			if p != nil && !aborted {
				s.log.Error("BUG: admin handler panicked", zap.String("route", rt.path), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
				if w.status == 0 {
					p := refuse(http.StatusInternalServerError, "internal", "see the log")
					p.Instance = r.URL.EscapedPath()
					writeProblem(w, p)
				}
			}
			s.metrics.count(rt.path, w.status)
			if rt.change {
				s.finish(rt, r, a, w.status)
			}
			if aborted {
				panic(http.ErrAbortHandler) // or the client would see a proper end
			}
		}()
		if p := s.enter(rt, w, r, a); p != nil {
			if p != answered {
				p.Instance = r.URL.EscapedPath()
				writeProblem(w, p)
			}
		}
	}
}

// answered is what a step returns that has written the answer itself.
var answered = &problem{}

func (s *Server) enter(rt route, w *recorder, r *http.Request, a *asking) *problem {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequestBytes)
	if rt.who != public {
		t, p := s.authenticate(r)
		if p != nil {
			if rt.who == pages && r.Method == http.MethodGet && p.Status == http.StatusUnauthorized {
				http.Redirect(w, r, loginURL(r), http.StatusSeeOther)
				return answered
			}
			return p
		}
		a.who = t
		if t.role != Consumer { // whom it would tell what other sources have
			w.began = time.Now()
		}
		if a.csrf != "" {
			w.csrf = a.csrf
			if p := checkForm(r, rt.who == pages, a.csrf); p != nil {
				return p
			}
		}
	}
	if p := allowed(rt, a.who); p != nil {
		return p
	}
	if p := readableQuery(rt, r); p != nil {
		return p
	}
	if rt.stream {
		return rt.serve(w, r, a.who)
	}
	// Health is answered however busy the rest is.
	if rt.who != public {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			return busy("too_busy", "too many requests at once")
		}
	}
	if rt.change {
		if p := s.begin(rt, r, a); p != nil {
			return p
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	return rt.serve(w, r.WithContext(ctx), a.who)
}

// readableQuery refuses a query of which net/http would leave out what it cannot read: of a
// filter that would be a wider one, and a replay by it would take more than was asked for.
func readableQuery(rt route, r *http.Request) *problem {
	if rt.who == public {
		return nil // health and the like read none
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return refuse(http.StatusBadRequest, "invalid_parameter", "query: "+err.Error()+"; want NAME=VALUE, percent-encoded, with & between them")
	}
	return nil
}

func allowed(rt route, who secretToken) *problem {
	ok := true
	switch rt.who {
	case people:
		ok = who.role != Consumer
	case operators:
		ok = who.role == Operator
	case pages:
		ok = who.role == Operator || who.role == Viewer && !rt.change
	}
	if !ok {
		return refuse(http.StatusForbidden, "forbidden", "the role "+string(who.role)+" may not do this")
	}
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request, _ secretToken) *problem {
	writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "version": s.o.Version})
	return nil
}

// readyz is 503 only when a delivery could not be taken now: what is merely away must
// not make a load balancer turn deliveries away.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request, _ secretToken) *problem {
	h := Health{}
	if s.o.Health != nil {
		h = s.o.Health()
	}
	if h.Degraded == nil {
		h.Degraded = []string{}
	}
	if h.Unready != nil {
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reason": h.Unready.Error(), "degraded": h.Degraded})
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]any{"ready": true, "degraded": h.Degraded})
	return nil
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Gatherer == nil {
		return notHere("metrics")
	}
	select {
	case s.scrapes <- struct{}{}:
		defer func() { <-s.scrapes }()
	default:
		return busy("too_busy", "too many scrapes at once")
	}
	promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
	return nil
}

func (s *Server) openapi(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if unchanged(w, r, `"`+fingerprint(openAPI)+`"`) {
		return nil
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI) // the client is gone: nothing to do
	return nil
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Reload == nil {
		return notHere("reload")
	}
	if err := s.o.Reload(r.Context()); err != nil {
		return s.failure(fmt.Errorf("%w: the config was not taken over: %w", ErrInvalid, err))
	}
	writeJSON(w, http.StatusOK, map[string]any{"reloaded": true})
	return nil
}

func notHere(what string) *problem {
	return refuse(http.StatusNotImplemented, "not_configured", what+" is not available in this process")
}

// tooLarge reports whether reading a request ended at maxRequestBytes.
func tooLarge(err error) bool {
	var e *http.MaxBytesError
	return errors.As(err, &e)
}
