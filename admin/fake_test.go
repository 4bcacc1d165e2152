package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"penstock/archive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	operatorToken = "operator-token-1"
	viewerToken   = "viewer-token-22"
	consumerToken = "consumer-token-3"
)

// fakeArchive holds deliveries in memory; what it finds is the archive package's matter.
type fakeArchive struct {
	mu         sync.Mutex
	deliveries map[string]*archive.Delivery
	rows       map[string]archive.Row
	outcomes   map[string][]archive.Outcome
	steps      map[string]archive.Steps
	order      []string
	asked      archive.Filter
	err        error
	getErr     error
	tail       chan archive.TailRow
	canceled   chan struct{}
	pages      int  // Query's answers that are left, the last without a next; 0: every one has a next
	whole      bool // none of them has a next
	held       []archive.Row
	counted    map[string]archive.CountRow
	failAt     int // which of them fails, counted from the end
}

func newFakeArchive() *fakeArchive {
	return &fakeArchive{deliveries: map[string]*archive.Delivery{}, rows: map[string]archive.Row{},
		outcomes: map[string][]archive.Outcome{}, counted: map[string]archive.CountRow{}, tail: make(chan archive.TailRow, 16), canceled: make(chan struct{}, 16)}
}

func (a *fakeArchive) add(row archive.Row, d *archive.Delivery, os ...archive.Outcome) {
	d.ID, d.Source = row.ID, row.Source
	a.order = append([]string{row.ID}, a.order...)
	a.rows[row.ID], a.deliveries[row.ID], a.outcomes[row.ID] = row, d, os
}

func (a *fakeArchive) Query(ctx context.Context, f archive.Filter) (archive.Page, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = f
	if a.err != nil {
		return archive.Page{}, a.err
	}
	p := archive.Page{Next: "next-page"}
	if a.pages > 0 {
		if a.pages == a.failAt {
			return archive.Page{}, archive.ErrIndex
		}
		if a.pages--; a.pages == 0 {
			p.Next = ""
		}
	}
	if a.whole {
		p.Next = ""
	}
	if f.Outcome == archive.Held.String() {
		return archive.Page{Rows: a.held}, ctx.Err()
	}
	for _, id := range a.order {
		r := a.rows[id]
		fits := func(want, have string) bool { return want == "" || want == have }
		if fits(f.Source, r.Source) && fits(f.OrderID, r.OrderID) && fits(f.PaymentID, r.PaymentID) {
			p.Rows = append(p.Rows, r)
		}
	}
	return p, ctx.Err()
}

func (a *fakeArchive) Counts(_ context.Context, from, to time.Time, step time.Duration, source string) (archive.Counts, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = archive.Filter{From: from, To: to, Source: source}
	if a.err != nil {
		return archive.Counts{}, a.err
	}
	return archive.Counts{From: from, To: to, Step: int64(step / time.Second), Sources: a.counted, Buckets: []archive.CountBucket{}}, nil
}

func (a *fakeArchive) Row(id string) (archive.Row, error) {
	if r, ok := a.rows[id]; ok {
		return r, nil
	}
	return archive.Row{}, fmt.Errorf("delivery %s: %w", id, archive.ErrNotFound)
}

func (a *fakeArchive) Get(id string) (*archive.Delivery, error) {
	if a.getErr != nil {
		return nil, a.getErr
	}
	if d, ok := a.deliveries[id]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("delivery %s: %w", id, archive.ErrNotFound)
}

func (a *fakeArchive) OutcomesOf(id string) ([]archive.Outcome, error) { return a.outcomes[id], nil }

func (a *fakeArchive) FirstOutcomes(ids []string, fits func(*archive.Outcome) bool) ([]archive.Outcome, error) {
	out := make([]archive.Outcome, len(ids))
	for i, id := range ids {
		if n := slices.IndexFunc(a.outcomes[id], func(o archive.Outcome) bool { return fits(&o) }); n >= 0 {
			out[i] = a.outcomes[id][n]
		}
	}
	return out, nil
}

func (a *fakeArchive) Times(id string, _ []archive.Outcome) archive.Steps { return a.steps[id] }

func (a *fakeArchive) Subscribe() (<-chan archive.TailRow, func()) {
	return a.tail, func() { a.canceled <- struct{}{} }
}

// fakeWork is replayer, re-verifier and sources in one; it remembers what it was asked.
type fakeWork struct {
	mu     sync.Mutex
	asked  []string
	filter *archive.Filter
	ids    []string
	rate   float64
	paused bool
	jobs   []Job // beside the one that there always is
	err    error
}

func (f *fakeWork) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeWork) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return ""
	}
	return f.asked[len(f.asked)-1]
}

func (f *fakeWork) job(state string) Job {
	return Job{ID: "job-1", Kind: "replay", State: state, Total: -1, CreatedAt: time.Unix(1e9, 0).UTC()}
}

func (f *fakeWork) Replay(_ context.Context, s Selection, by string) (Job, error) {
	f.filter, f.ids, f.rate = s.Filter, s.IDs, s.Rate
	return f.job("queued"), f.note("replay %v by %s", s.IDs, by)
}

func (f *fakeWork) Jobs(context.Context) ([]Job, error) {
	return append([]Job{f.job("done")}, f.jobs...), f.err
}

func (f *fakeWork) Job(_ context.Context, id string) (Job, error) {
	if id != "job-1" {
		return Job{}, fmt.Errorf("job %s: %w", id, ErrNotFound)
	}
	return f.job("running"), f.err
}

func (f *fakeWork) Cancel(_ context.Context, id, by string) (Job, error) {
	return f.job("canceled"), f.note("cancel %s by %s", id, by)
}

func (f *fakeWork) Reverify(_ context.Context, id string, force bool, by string) (Verification, error) {
	return Verification{ID: id, Verdict: "accepted", Released: true, Forced: force}, f.note("reverify %s force=%t by %s", id, force, by)
}

func (f *fakeWork) Explain(_ context.Context, id string) (Explained, error) {
	return Explained{ID: id, Verdict: "rejected", Reason: "signature_mismatch", Hints: []string{"it verifies with a newline <at> the end"}}, f.note("explain %s", id)
}

func (f *fakeWork) ReverifyAll(_ context.Context, filter archive.Filter, force bool, by string) (Job, error) {
	f.filter = &filter
	return f.job("queued"), f.note("reverify all force=%t by %s", force, by)
}

func (f *fakeWork) List(context.Context) ([]SourceInfo, error) {
	return []SourceInfo{{Name: "stripe", Provider: "stripe", Path: "/in/stripe", Paused: f.paused}}, f.err
}

func (f *fakeWork) Pause(_ context.Context, name, by string) error {
	return f.note("pause %s by %s", name, by)
}

func (f *fakeWork) Release(_ context.Context, id, by string) error {
	return f.note("release %s by %s", id, by)
}

func (f *fakeWork) Resume(_ context.Context, name, by string) error {
	return f.note("resume %s by %s", name, by)
}

func (f *fakeWork) Setup(_ context.Context, name string) (Setup, error) {
	if name != "stripe" {
		return Setup{}, fmt.Errorf("%w: no source is called %q", ErrNotFound, name)
	}
	return Setup{URL: "https://hooks.example/in/stripe", Help: "Developers > Webhooks"}, f.err
}

func (f *fakeWork) SendTest(_ context.Context, name, typ, by string) (Sent, error) {
	if typ == "nothing" {
		return Sent{Status: 503}, f.note("test %s by %s", name, by)
	}
	return Sent{Delivery: publishedID, Status: 200}, f.note("test %s %s by %s", name, typ, by)
}

// world is a server with everything behind it.
type world struct {
	t       testing.TB
	archive *fakeArchive
	work    *fakeWork
	server  *Server
	reg     *prometheus.Registry
	logs    *observer.ObservedLogs
	health  Health
}

const (
	publishedID = "01JCQ0000000000000PVB00001"
	rejectedID  = "01JCQ0000000000000REJ00002"
	duplicateID = "01JCQ0000000000000DVP00003"
	pendingID   = "01JCQ0000000000000PEN00004"
	otherID     = "01JCQ0000000000000ZZZ00005"
	noID        = "01JCQ0000000000000ZZZ00099" // of no delivery
)

var exactBody = []byte("\x00\xff{\"a\": 1 }\r\n\n<script>alert(1)</script>\xf0\x28")

func newWorld(t testing.TB, change func(o *Options)) *world {
	t.Helper()
	w := &world{t: t, archive: newFakeArchive(), work: &fakeWork{}, reg: prometheus.NewRegistry()}
	core, logs := observer.New(zapcore.DebugLevel)
	w.logs = logs
	header := []byte("Host: x\r\nAuthorization: Basic c2VjcmV0\r\nX-Gitlab-Token: hush\r\nStripe-Signature: t=1,v1=ab\r\n" +
		"X-Token-Signature: sig\r\nCookie: sid=1\r\nContent-Type: application/json\r\nX-Api-Key: k\r\nX-Twice: 1\r\nX-Twice: 2\r\n")
	add := func(id, source, verdict, reason, outcome string, os ...archive.Outcome) {
		row := archive.Row{ID: id, Source: source, Provider: source, Verdict: verdict, Reason: reason, Outcome: outcome,
			ReceivedAt: time.Date(2026, 5, 28, 20, 26, 40, 0, time.UTC), OrderID: "order:672626", Method: "POST", Path: "/in/" + source, Size: int64(len(exactBody))}
		if outcome == "duplicate" {
			row.DuplicateOf = publishedID
		}
		w.archive.add(row, &archive.Delivery{Body: exactBody, Header: header, Target: []byte("/in/" + source + "?token=hush"),
			Method: "POST", RemoteIP: netip.MustParseAddr("192.0.2.1"), VerifiedBy: "hmac"}, os...)
	}
	published := archive.Outcome{Kind: archive.Published, Topic: "webhooks.stripe", Partition: 2, Offset: 77, Sink: "kafka:c", Items: 1}
	add(otherID, "liqpay", "accepted", "", "published", published)
	add(pendingID, "stripe", "accepted", "", "")
	add(duplicateID, "stripe", "accepted", "", "duplicate", archive.Outcome{Kind: archive.Duplicate, Of: publishedID})
	add(rejectedID, "stripe", "rejected", "signature_mismatch", "")
	add(publishedID, "stripe", "accepted", "", "published", published)
	o := Options{Listen: "127.0.0.1:0", Archive: w.archive, Replayer: w.work, Reverifier: w.work, Explainer: w.work, Sources: w.work,
		Health: func() Health { return w.health }, Stats: func(context.Context) map[string]any { return map[string]any{"archive": map[string]any{"index_lag": 5}} },
		Reload: func(context.Context) error { return w.work.note("reload") }, Logger: zap.New(core), Gatherer: w.reg, Registerer: w.reg,
		Tokens: []Token{{Name: "ops", Role: Operator, Token: operatorToken}, {Name: "eyes", Role: Viewer, Token: viewerToken},
			{Name: "app", Role: Consumer, Token: consumerToken, Sources: []string{"stripe"}}}}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.server = s
	return w
}

// call makes one request; token "" sends none.
func (w *world) call(method, target, token, body string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8081"
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, r)
	w.checkContract(r, rec)
	return rec
}

func (w *world) want(rec *httptest.ResponseRecorder, status int, contains ...string) {
	w.t.Helper()
	if rec.Code != status {
		w.t.Fatalf("status = %d, want %d; body %s", rec.Code, status, rec.Body)
	}
	for _, c := range contains {
		if !strings.Contains(rec.Body.String(), c) {
			w.t.Fatalf("body does not contain %q:\n%s", c, rec.Body)
		}
	}
	if status >= 400 && strings.HasPrefix(rec.Header().Get("Content-Type"), "application/json") && status != http.StatusServiceUnavailable {
		w.t.Fatalf("error answered as %s", rec.Header().Get("Content-Type"))
	}
}
