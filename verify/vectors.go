package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock/provider"
)

// VectorResult counts a run over test vectors; a case is counted in one of the three.
type VectorResult struct {
	Passed, Failed, Disputed int
	Providers                int
	Missing                  []string // providers that the catalogue does not hold; their cases are not counted
	Failures                 []VectorFailure
}

// VectorFailure is one case that did not come out as it says.
type VectorFailure struct{ File, Provider, Case, What string }

// disputes are vectors that we believe to be wrong, each with the source that says so.
// Nobody loosens a verifier to please one.
var disputes = map[string]string{
	"xero/valid INVOICE.CREATE":   "the body's events are empty (Xero's intent to receive), so no INVOICE.CREATE stands in it; vectors/xero.json itself",
	"ably/valid channel.presence": `an empty batch ({"items":[]}) names no source: Ably's type stands in items[].source (ably/docs integrations/webhooks)`,
}

// RunVectors checks every vector file under paths (files, or directories walked whole)
// against the catalogue and writes what does not fit to w; the last lines are one per
// provider with a mismatch and the counts. A case that stands in several files, equal in
// everything, is counted once. The error is of reading files, not of mismatches.
func RunVectors(paths []string, cat *provider.Catalogue, w io.Writer) (VectorResult, error) {
	files, err := vectorFiles(paths)
	if err != nil {
		return VectorResult{}, err
	}
	run := &vectorRun{cat: cat, seen: map[string]bool{}, providers: map[string]bool{}, missing: map[string]bool{}}
	for _, f := range files {
		if err := run.file(f); err != nil {
			return run.res, err
		}
	}
	run.res.Providers = len(run.providers)
	run.res.Missing = slices.Sorted(maps.Keys(run.missing))
	return run.res, run.print(w)
}

func vectorFiles(paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ".json") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("find vectors: %w", err)
		}
	}
	return files, nil
}

type vectorRun struct {
	cat       *provider.Catalogue
	seen      map[string]bool
	providers map[string]bool
	missing   map[string]bool
	res       VectorResult
}

func (run *vectorRun) file(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read vectors: %w", err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return fmt.Errorf("read vectors: %s: %w", path, err)
	}
	for _, text := range raw {
		if run.seen[string(text)] {
			continue
		}
		run.seen[string(text)] = true
		c, err := ParseCase(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		c.file = path
		run.one(c)
	}
	return nil
}

func (run *vectorRun) one(c *Case) {
	def, ok := variant(run.cat, c)
	if !ok {
		run.missing[c.Provider] = true
		return
	}
	run.providers[c.Provider] = true
	what := CheckCase(def, c)
	_, disputed := disputes[c.Provider+"/"+c.Name]
	switch {
	case what == "":
		run.res.Passed++
	case disputed:
		run.res.Disputed++
	default:
		run.res.Failed++
		run.res.Failures = append(run.res.Failures, VectorFailure{c.file, c.Provider, c.Name, what})
	}
}

// variant finds the definition that a case is about: of a provider with several schemes
// each has a definition of its own, named in the case or told by its material.
func variant(cat *provider.Catalogue, c *Case) (*provider.Definition, bool) {
	base, ok := cat.Get(c.Provider)
	names := []string{c.Variant}
	if mode, ok := c.Secrets["mode"].(string); ok {
		names = append(names, c.Provider+"_"+mode)
	}
	if scheme, ok := c.Secrets["scheme"].(string); ok && strings.HasPrefix(scheme, c.Provider+"-") {
		names = append(names, strings.ReplaceAll(scheme, "-", "_"))
	}
	if _, ok := c.Secrets["signing_token"]; ok {
		names = append(names, c.Provider+"_signed")
	}
	for _, n := range names {
		if d, found := cat.Get(n); ok && n != "" && found && d.Family == c.Provider {
			return d, true
		}
	}
	return base, ok
}

func (run *vectorRun) print(w io.Writer) error {
	var b strings.Builder
	if len(run.res.Missing) > 0 {
		fmt.Fprintf(&b, "not in the catalogue: %s\n", strings.Join(run.res.Missing, ", "))
	}
	byProvider := map[string]int{}
	for _, f := range run.res.Failures {
		fmt.Fprintf(&b, "  %s: %s: %s (%s)\n", f.Provider, f.Case, f.What, f.File)
		byProvider[f.Provider]++
	}
	for _, p := range slices.Sorted(maps.Keys(byProvider)) {
		fmt.Fprintf(&b, "%s: %d failed\n", p, byProvider[p])
	}
	fmt.Fprintf(&b, "vectors: %d passed, %d failed, %d providers, %d disputed\n", run.res.Passed, run.res.Failed, run.res.Providers, run.res.Disputed)
	_, err := io.WriteString(w, b.String())
	return err
}

// CheckCase runs one case and says what does not fit; "" = everything does.
func CheckCase(def *provider.Definition, c *Case) string {
	now, err := c.At()
	if err != nil {
		return err.Error()
	}
	req, err := c.Delivery(now)
	if err != nil {
		return err.Error()
	}
	m, err := mapSecrets(def, c)
	if err != nil {
		return err.Error()
	}
	if m.url != "" {
		req.PublicURL = m.url
	}
	v, err := New(def, m.creds, m.opts)
	if err != nil {
		if c.Expect == "reject" && refusedAtLoad(err, m.creds) {
			return ""
		}
		return "cannot be configured: " + err.Error()
	}
	req.Secrets = m.creds
	return checkCase(def, v, c, req, now)
}

// refusedAtLoad: what a source could not even be loaded with is refused for good. Only an
// empty or absent credential and a field list that does not prove what it must count.
func refusedAtLoad(err error, creds provider.Credentials) bool {
	var ce *ConfigError
	if !errors.As(err, &ce) {
		return false
	}
	if ce.Setting == "required_signed" {
		return true
	}
	for _, v := range creds[ce.Credential] {
		if strings.TrimSpace(v) != "" {
			return false
		}
	}
	return ce.Credential != ""
}

func checkCase(def *provider.Definition, v *Verifier, c *Case, req *provider.Request, now time.Time) string {
	if p, ok := v.own.(ownPrimitive); ok && (c.Level == "primitive" || c.Secrets["direction"] == "ack") {
		if got := p.primitive(req, &scratch{}); got != (c.Expect == "accept") {
			return fmt.Sprintf("primitive: wants %s, got %v (%s)", c.Expect, got, c.Why)
		}
		return ""
	}
	res := v.Verify(req, now)
	got := map[Verdict]string{Accepted: "accept", Challenge: "challenge", Rejected: "reject"}[res.Verdict]
	want := c.Expect
	if c.Level == "challenge" && want == "accept" {
		want = "challenge"
	}
	if got != want {
		return fmt.Sprintf("wants %s, got %s %s (%s)", want, got, res.Reason, c.Why)
	}
	if what := checkCapture(c, &res); what != "" {
		return what
	}
	wantReply := c.Response
	if wantReply == nil {
		wantReply = c.Ack
	}
	switch {
	case got == "accept":
		if wantReply != nil {
			reply := v.Ack(req, now)
			if what := compareAck(v, wantReply, &reply); what != "" {
				return "ack: " + what
			}
		}
		if c.Level == "" {
			return checkEvent(def, c, req)
		}
	case wantReply != nil:
		if res.Reply == nil {
			return "no reply, one is prescribed"
		}
		if what := compareReply(wantReply, res.Reply); what != "" {
			return "reply: " + what
		}
	}
	return ""
}

// checkCapture: what a handshake hands over is kept, and nothing else is.
func checkCapture(c *Case, res *Result) string {
	if len(c.Captures) == 0 {
		if res.Capture != nil {
			return "captures a credential that the vector does not hand over"
		}
		return ""
	}
	if res.Capture == nil {
		return "captures nothing"
	}
	for word, secret := range c.Captures {
		known := word == res.Capture.Credential || slices.Contains(vectorNames[res.Capture.Credential], word)
		if !known || secret != res.Capture.Secret {
			return fmt.Sprintf("captures another %s than the vector's %s", res.Capture.Credential, word)
		}
	}
	return ""
}

func compareReply(want *CaseReply, got *Reply) string {
	switch {
	case want.Status != got.Status:
		return fmt.Sprintf("status %d, want %d", got.Status, want.Status)
	case want.ContentType != "" && want.ContentType != got.ContentType:
		return fmt.Sprintf("content type %q, want %q", got.ContentType, want.ContentType)
	case want.Body != string(got.Body):
		return fmt.Sprintf("body %q, want %q", got.Body, want.Body)
	}
	for _, h := range want.Headers {
		if !slices.ContainsFunc(got.Header, func(g [2]string) bool { return strings.EqualFold(g[0], h[0]) && g[1] == h[1] }) {
			return fmt.Sprintf("header %s: %s is missing", h[0], h[1])
		}
	}
	return ""
}

// checkEvent compares what the vector states with the first event of the delivery.
func checkEvent(def *provider.Definition, c *Case, req *provider.Request) string {
	stated := c.EventID != nil || c.EventType != nil || c.OrderID != nil || c.Status != nil || c.AmountMinor != nil ||
		c.CanonicalType != nil || c.FailureReason != nil || c.Livemode != nil
	if !stated {
		return ""
	}
	events, err := def.Events(req)
	if err != nil {
		return "events: " + err.Error()
	}
	if len(events) == 0 {
		return "events: none"
	}
	e := &events[0]
	for _, f := range []struct {
		name string
		want *string
		got  string
	}{
		{"event_id", c.EventID, e.ID}, {"event_type", c.EventType, e.Type}, {"order_id", c.OrderID, e.OrderID},
		{"status", c.Status, e.Status}, {"canonical_type", c.CanonicalType, e.Canonical}, {"failure_reason", c.FailureReason, e.FailureReason},
	} {
		if f.want != nil && *f.want != f.got {
			return fmt.Sprintf("%s %q, want %q", f.name, f.got, *f.want)
		}
	}
	if c.AmountMinor != nil {
		minor, currency := "none", ""
		if e.Amount != nil {
			minor, currency = fmt.Sprint(e.Amount.Minor), e.Amount.Currency
		}
		if minor != c.AmountMinor.String() {
			return fmt.Sprintf("amount_minor %s, want %s", minor, *c.AmountMinor)
		}
		if c.Currency != nil && *c.Currency != currency {
			return fmt.Sprintf("currency %q, want %q", currency, *c.Currency)
		}
	}
	if c.Livemode != nil && (e.Livemode == nil || *e.Livemode != *c.Livemode) {
		return fmt.Sprintf("livemode %v, want %v", boolText(e.Livemode), *c.Livemode)
	}
	return ""
}

func boolText(b *bool) string {
	if b == nil {
		return "unknown"
	}
	return fmt.Sprint(*b)
}
