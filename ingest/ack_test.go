package ingest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"penstock/archive"
	"penstock/provider"
	"penstock/verify"
)

// TestNoAllocationsToDisk: the whole way of an ack, with a provider's own scheme and an
// archive that syncs, leaves nothing to the collector.
func TestNoAllocationsToDisk(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	s, raw := ackServer(t)
	const n = 400
	perConn := testing.AllocsPerRun(2, func() { serveLoop(t, s, raw, 1) })
	many := testing.AllocsPerRun(2, func() { serveLoop(t, s, raw, n) })
	// The texts of 64 ids share one allocation, marks of a segment a few: that is 0.02.
	if per := (many - perConn) / (n - 1); per >= 0.1 {
		t.Errorf("%.2f allocations per ack", per)
	}
	if got := valueOf(t, s.metrics.source("github").accepted); got < n {
		t.Errorf("%v accepted, want more than %d: the path measured is not the accepted one", got, n)
	}
}

// ackServer has a source with GitHub's scheme over an archive on the test's disk, and
// gives a request that it accepts.
func ackServer(tb testing.TB) (*Server, []byte) {
	tb.Helper()
	a, err := archive.Open(tb.TempDir(), archive.Options{NoIndex: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = a.Close() })
	cat, err := provider.Builtin()
	if err != nil {
		tb.Fatal(err)
	}
	d, _ := cat.Get("github")
	const secret = "a secret of this test alone"
	v, err := verify.New(d, provider.Credentials{"secrets": {secret}}, verify.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := New(Options{}, a)
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.SetSources([]Source{{Name: "github", Provider: "github", Verifier: v}}); err != nil {
		tb.Fatal(err)
	}
	body := fmt.Appendf(nil, `{"zen":"%01000d"}`, 1)
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(body)
	return s, fmt.Appendf(nil, "POST /in/github HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Type: application/json\r\nX-GitHub-Event: ping\r\n"+
		"X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\nX-Hub-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n%s",
		hex.EncodeToString(mac.Sum(nil)), len(body), body)
}

// BenchmarkAckToDisk is one connection's ack with its sync.
func BenchmarkAckToDisk(b *testing.B) {
	s, raw := ackServer(b)
	b.ReportAllocs()
	b.ResetTimer()
	serveLoop(b, s, raw, b.N+1)
}
