package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/cli"
	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// block is one fenced part of a page.
type block struct{ kind, text string }

func blocks(page string) (out []block) {
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// TestOwnProviderGuide: the examples of docs/own-provider.md load, take the deliveries that
// stand beside them, make of them what the page says, and sign samples that verify.
func TestOwnProviderGuide(t *testing.T) {
	page := read(t, "docs/own-provider.md")
	for _, m := range regexp.MustCompile(`export (\w+)=([\w-]+)`).FindAllStringSubmatch(page, -1) {
		t.Setenv(m[1], m[2])
	}
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	var s *config.Source
	var failed error
	var came *provider.Request
	sources, deliveries, results := 0, 0, 0
	for _, b := range blocks(page) {
		switch b.kind {
		case "yaml":
			c, err := config.Parse("penstock.yaml", []byte(b.text), catalogue{builtin})
			s, failed, came = nil, err, nil
			if err == nil {
				s = &c.Sources[0]
				sources++
				signsSamples(t, s)
			}
		case "http":
			if s == nil {
				t.Fatalf("a delivery stands beside a configuration that does not load: %v", failed)
			}
			came = deliveryOf(t, b.text)
			deliveries++
		case "text":
			results++
			if came == nil {
				if failed == nil || !sameMistakes(b.text, failed.Error()) {
					t.Errorf("the page says\n%sand it is\n%v", b.text, failed)
				}
				continue
			}
			if got := outcome(t, s, came); got != b.text {
				t.Errorf("the page says\n%sand it is\n%s", b.text, got)
			}
		}
	}
	if sources != 3 || deliveries != 4 || results != 5 {
		t.Errorf("%d sources, %d deliveries, %d results: the page lost some", sources, deliveries, results)
	}
}

// sameMistakes: every line that the page shows is said.
func sameMistakes(page, said string) bool {
	for line := range strings.Lines(page) {
		if !strings.Contains(said+"\n", line) {
			return false
		}
	}
	return true
}

var guideNow = time.Unix(1780000000, 0)

func deliveryOf(t *testing.T, text string) *provider.Request {
	t.Helper()
	head, body, ok := strings.Cut(text, "\n\n")
	if !ok {
		t.Fatalf("no blank line between headers and body in\n%s", text)
	}
	lines := strings.Split(head, "\n")
	first := strings.Fields(lines[0])
	return &provider.Request{Method: first[0], Target: []byte(first[1]), Header: provider.Header(strings.Join(lines[1:], "\r\n") + "\r\n"),
		Body: []byte(strings.TrimSuffix(body, "\n")), ReceivedAt: guideNow}
}

// outcome writes what becomes of a delivery as the page does.
func outcome(t *testing.T, s *config.Source, r *provider.Request) string {
	t.Helper()
	v, err := cli.NewVerifier(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	res := v.Verify(r, guideNow)
	if res.Verdict == verify.Challenge {
		return "challenge: " + string(res.Reply.Body) + "\n"
	}
	if res.Verdict != verify.Accepted {
		return fmt.Sprintf("%s: %s\n", res.Verdict, res.Reason)
	}
	bad := *r
	bad.Body = bytes.Replace(r.Body, []byte("30"), []byte("31"), 1)
	if bytes.Equal(bad.Body, r.Body) {
		bad.Body = bytes.Replace(r.Body, []byte("5"), []byte("6"), 1)
	}
	if res := v.Verify(&bad, guideNow); res.Verdict != verify.Rejected {
		t.Errorf("source %s takes a changed body", s.Name)
	}
	evs, err := s.Definition.(*provider.Definition).Events(r)
	if err != nil || len(evs) != 1 {
		t.Fatalf("%d events, %v", len(evs), err)
	}
	e := evs[0]
	out := "type: " + e.Canonical + "\nid: " + e.ID + "\norder_id: " + e.OrderID + "\n"
	if e.PaymentID != "" && s.Name == "kassabot" {
		out += "payment_id: " + e.PaymentID + "\n"
	}
	if e.Amount != nil {
		out += fmt.Sprintf("amount: %d %s\n", e.Amount.Minor, e.Amount.Currency)
	}
	if e.Livemode != nil {
		out += "livemode: " + strconv.FormatBool(*e.Livemode) + "\n"
	}
	return out
}

// signsSamples: what `penstock send` would send is taken.
func signsSamples(t *testing.T, s *config.Source) {
	t.Helper()
	def := s.Definition.(*provider.Definition)
	made, err := cli.NewVerifier(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := made.(*verify.Verifier)
	for _, info := range def.SampleTypes() {
		r, err := def.Sample(info.Type, provider.SampleParams{Now: guideNow})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Sign(r, guideNow); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		if res := v.Verify(r, guideNow); res.Verdict != verify.Accepted {
			t.Errorf("%s: the sample %s is refused: %s", s.Name, info.Type, res.Reason)
		}
		evs, err := def.Events(r)
		if err != nil || info.Canonical != "" && evs[0].Canonical != info.Canonical {
			t.Errorf("%s: the sample %s becomes %+v, %v", s.Name, info.Type, evs, err)
		}
	}
}
