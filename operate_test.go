package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"penstock/admin"
	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/forward"
	"penstock/provider"
	"penstock/verify"
)

const (
	head   = "ingest: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\narchive: {dir: %s}\nforward: {kafka: {brokers: ['127.0.0.1:1']}}\nsources:\n"
	stripe = "  - {name: shop, provider: stripe, credentials: {secrets: [whsec_0123456789abcdef]}}\n"
	github = "  - {name: hub, provider: github, credentials: {secrets: [0123456789abcdef0123]}}\n"
)

// rig is a gateway that is built and does not run: nothing listens, nothing is sent.
type rig struct {
	t    *testing.T
	p    *program
	path string
	head string
}

func newRig(t *testing.T, sources string) *rig {
	t.Helper()
	return newRigWith(t, head, sources)
}

// newRigWith has another head, with the archive's directory to be filled in.
func newRigWith(t *testing.T, head, sources string) *rig {
	t.Helper()
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &rig{t: t, path: filepath.Join(dir, "p.yaml"), head: fmt.Sprintf(head, filepath.Join(dir, "data"))}
	r.write(sources)
	cat := catalogue{builtin}
	conf, err := config.Load(r.path, cat)
	if err != nil {
		t.Fatal(err)
	}
	if r.p, err = build(conf, zap.NewNop(), cat, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.p.watch(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := r.p.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) write(sources string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(r.head+sources), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// reload is POST /api/v1/reload.
func (r *rig) reload(sources string) error {
	r.t.Helper()
	r.write(sources)
	return r.p.askReload(r.t.Context())
}

func TestReloadAsked(t *testing.T) {
	r := newRig(t, stripe)
	if err := r.reload(stripe + github); err != nil || (operator{r.p}).source("hub") == nil {
		t.Errorf("reload: %v", err)
	}
	err := r.reload(stripe + strings.Replace(github, "github", "githb", 1))
	if err == nil || !strings.Contains(err.Error(), `p.yaml:7:27: sources[1].provider: unknown provider "githb"`) {
		t.Errorf("a bad file is answered %v", err)
	}
	if o := (operator{r.p}); o.source("hub") == nil || !slices.Contains(r.p.health().Degraded, "the changed configuration is not in force") {
		t.Errorf("the old configuration is gone, or readiness does not say so: %q", r.p.health().Degraded)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&program{asked: make(chan chan<- error)}).askReload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever gave up is answered %v", err)
	}
}

// TestResumeRemovedSource: what a removed source left behind must not wait for ever.
func TestResumeRemovedSource(t *testing.T) {
	r := newRig(t, stripe+github)
	o := operator{r.p}
	if err := o.Pause(t.Context(), "hub", "ops"); err != nil {
		t.Fatal(err)
	}
	if err := r.reload("# without hub\n" + stripe); err != nil {
		t.Fatal(err)
	}
	if list, err := o.List(t.Context()); err != nil || len(list) != 2 || list[1].Name != "hub" || !list[1].Paused {
		t.Errorf("sources %+v, %v", list, err)
	}
	if err := o.Resume(t.Context(), "hub", "ops"); err != nil || len(r.p.pump.Paused()) > 0 {
		t.Errorf("resume: %v, paused %q", err, r.p.pump.Paused())
	}
	if err := o.Resume(t.Context(), "hub", "ops"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("a source that nobody knows: %v", err)
	}
}

// TestPausedByConfiguration: what the file paused it also resumes; a pause by hand stays.
func TestPausedByConfiguration(t *testing.T) {
	paused := strings.Replace(github, "name: hub", "name: hub, paused: true", 1)
	r := newRig(t, stripe+paused)
	if err := (operator{r.p}).Pause(t.Context(), "shop", "ops"); err != nil {
		t.Fatal(err)
	}
	if got := r.p.pump.Paused(); len(got) != 2 {
		t.Errorf("paused %q, want both", got)
	}
	if err := r.reload(stripe + github); err != nil {
		t.Fatal(err)
	}
	if got := r.p.pump.Paused(); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("paused %q, want only what was paused by hand", got)
	}
}

// TestReleaseOnce: a second release of a delivery would be a second event.
func TestReleaseOnce(t *testing.T) {
	r := newRig(t, stripe)
	o := operator{r.p}
	d := &archive.Delivery{Source: "shop", Provider: "stripe", Verdict: archive.Rejected, Reason: "signature_mismatch", ReceivedAt: time.Now(),
		Method: "POST", Target: []byte("/in/shop"), Body: []byte(`{"id":"evt_1","type":"payment_intent.succeeded"}`)}
	if _, err := r.p.archive.Reject(d); err != nil {
		t.Fatal(err)
	}
	if v, err := o.Reverify(t.Context(), d.ID, true, "ops"); err != nil || !v.Released || !v.Forced {
		t.Fatalf("release: %+v, %v", v, err)
	}
	if err := r.p.archive.AppendOutcomes([]archive.Outcome{{Delivery: d.Seq, Kind: archive.Published, Sink: "kafka:x", Topic: "t", Items: 1, At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := o.Reverify(t.Context(), d.ID, true, "ops"); errors.Is(err, admin.ErrConflict) && errors.Is(err, errReleased) {
			return
		}
		time.Sleep(20 * time.Millisecond) // the index follows
	}
	t.Error("it was released again")
}

// TestSealedSource: sealed deliveries are read with the keys of the source as configured
// today, and wait while there is none: no epoch holds a key.
func TestSealedSource(t *testing.T) {
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	def, _ := builtin.Get("wechatpay")
	creds, err := verify.DevCredentials(def, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	source := fmt.Sprintf("  - {name: wx, provider: wechatpay, credentials: {platform_keys: [%q], apiv3_key: [%s]}}\n", creds["platform_keys"][0], creds["apiv3_key"][0])
	r := newRig(t, stripe+source)
	conf := r.p.conf.Load()
	doc, err := epochOf(&conf.Sources[1], conf.Forward)
	if err != nil || strings.Contains(string(doc), creds["apiv3_key"][0]) {
		t.Fatalf("the epoch holds the key, or %v", err)
	}
	d := &archive.Delivery{Source: "wx", Provider: "wechatpay", Verdict: archive.Accepted, ReceivedAt: time.Now(), Method: "POST", Target: []byte("/in/wx"), Body: []byte("{}")}
	d.Epoch = r.p.archive.RegisterEpoch("wx", doc)
	if err := r.p.archive.Append(d); err != nil {
		t.Fatal(err)
	}
	info, err := r.p.epochs.source(d.Epoch, d.Seq)
	if err != nil || !slices.Equal(info.Secrets["apiv3_key"], creds["apiv3_key"]) || len(info.Secrets) != 1 {
		t.Fatalf("the source is configured: %v, %d secrets", err, len(info.Secrets))
	}
	if err := r.reload(stripe); err != nil {
		t.Fatal(err)
	}
	if _, err := r.p.epochs.source(d.Epoch, d.Seq); err == nil || !strings.Contains(err.Error(), "apiv3_key") {
		t.Errorf("without the key: %v", err)
	}
	if err := r.reload(stripe + source); err != nil {
		t.Fatal(err)
	}
	if _, err := r.p.epochs.source(d.Epoch, d.Seq); err != nil {
		t.Errorf("the key is back: %v", err)
	}
}

// TestExplainRefused: what the page tells of a refusal is tried against the other sources of
// the configuration, and a URL that was signed with its query verifies again.
func TestExplainRefused(t *testing.T) {
	square := "  - {name: sq, provider: square, public_url: https://hooks.example.com, credentials: {signature_key: 0123456789abcdef0123}}\n"
	r := newRig(t, stripe+github+square+"  - {name: hub2, provider: github, credentials: {secrets: [abcdefabcdefabcdefab]}}\n")
	o := operator{r.p}
	refuse := func(source, as, target string, change func(*provider.Request)) string {
		t.Helper()
		made, err := cli.NewVerifier(o.source(as), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := made.(*verify.Verifier)
		q := provider.Request{Method: "POST", Target: []byte(target), PublicURL: "https://hooks.example.com" + target, Body: []byte(`{"a":1}`)}
		if err := v.Sign(&q, time.Now()); err != nil {
			t.Fatal(err)
		}
		change(&q)
		d := &archive.Delivery{Source: source, Provider: o.source(source).Provider, Verdict: archive.Rejected, Reason: "signature_mismatch", ReceivedAt: time.Now(),
			Method: q.Method, Target: q.Target, Header: q.Header, Body: q.Body}
		if _, err := r.p.archive.Reject(d); err != nil {
			t.Fatal(err)
		}
		return d.ID
	}
	explain := func(id, want string) {
		t.Helper()
		e, err := o.Explain(t.Context(), id)
		if err != nil || !strings.Contains(strings.Join(e.Hints, "\n"), want) {
			t.Errorf("no %q: %+v, %v", want, e, err)
		}
	}
	explain(refuse("hub", "hub2", "/in/hub", func(*provider.Request) {}), "credentials of source hub2")
	explain(refuse("hub", "hub", "/in/hub", func(q *provider.Request) { q.Body = []byte("{\"a\":1}\n") }), "appended a newline")
	id := refuse("sq", "sq", "/in/sq?x=1", func(*provider.Request) {})
	if v, err := o.Reverify(t.Context(), id, false, "ops"); err != nil || v.Verdict != "accepted" {
		t.Errorf("a signed URL with a query: %+v, %v", v, err)
	}
}

// TestStats: what was called and belongs to nobody is there for those who look for a
// provider that was set up with a typing error.
func TestStats(t *testing.T) {
	r := newRig(t, stripe)
	rec := httptest.NewRecorder()
	r.p.admin.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "http://localhost/api/v1/stats", nil))
	if text := rec.Body.String(); !strings.Contains(text, `"ingest":{"unknown_paths":[]}`) {
		t.Errorf("before anything came: %s", text)
	}
}

// A job says to the page what it replays: the one delivery, or the filter.
func TestJobSaysWhat(t *testing.T) {
	if j := adminJob(forward.Job{IDs: []string{"a"}}); j.Delivery != "a" || j.Query != "" {
		t.Errorf("of one delivery: %+v", j)
	}
	if j := adminJob(forward.Job{IDs: []string{"a", "b"}}); j.Delivery != "" || j.Query != "" {
		t.Errorf("of two: %+v", j)
	}
	if j := adminJob(forward.Job{Filter: archive.Filter{Source: "shop", Outcome: "dead"}}); j.Delivery != "" || j.Query != "outcome=dead&source=shop" {
		t.Errorf("of a filter: %+v", j)
	}
}

// TestDefinitionsAreShared: sources of one provider have one compiled definition between them,
// also after a reload, and another provider's has its own.
func TestDefinitionsAreShared(t *testing.T) {
	second := strings.Replace(stripe, "name: shop", "name: outlet", 1)
	r := newRig(t, stripe+second+github)
	of := func(name string) *forward.SourceInfo {
		t.Helper()
		s := operator{r.p}.source(name)
		doc, err := epochOf(s, r.p.conf.Load().Forward)
		if err != nil {
			t.Fatal(err)
		}
		d := &archive.Delivery{Source: name, Provider: s.Provider, Verdict: archive.Accepted, ReceivedAt: time.Now(), Method: "POST", Target: []byte("/in/" + name), Body: []byte("{}")}
		d.Epoch = r.p.archive.RegisterEpoch(name, doc)
		if err := r.p.archive.Append(d); err != nil {
			t.Fatal(err)
		}
		info, err := r.p.epochs.source(d.Epoch, d.Seq)
		if err != nil || info.Name != name {
			t.Fatalf("%+v, %v", info, err)
		}
		return info
	}
	shop, outlet, hub := of("shop"), of("outlet"), of("hub")
	if shop.Definition != outlet.Definition || shop == outlet {
		t.Error("two sources of one provider have two definitions, or are one source")
	}
	if hub.Definition == shop.Definition || hub.Provider != "github" {
		t.Errorf("the definition of %s is %s's", hub.Name, shop.Provider)
	}
	if err := r.reload(stripe + second); err != nil {
		t.Fatal(err)
	}
	if again := of("shop"); again == shop || again.Definition != shop.Definition {
		t.Error("a reload kept the source, or compiled its definition again")
	}
}
