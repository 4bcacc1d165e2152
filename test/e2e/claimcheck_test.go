package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestClaimCheck: a body that is too large for the topic is a dead letter as long as nothing
// says where it could be fetched. Driven again with the command line and over the API once
// that is cured, it is published with a pointer, at which a consumer of its source, and
// nobody else, finds the very bytes.
func TestClaimCheck(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("claim%d", time.Now().UnixNano())
	const key, ours, theirs = "e2e-claim-github-secret-0123456789", "e2e-consumer-of-github-0123456789", "e2e-consumer-of-others-0123456789"
	conf := func(public string) string {
		c := strings.Replace(gatewayConfig, "tokens: [", `tokens: [{name: app, role: consumer, sources: [github], token: "`+ours+
			`"}, {name: others, role: consumer, sources: [another], token: "`+theirs+`"}, `, 1)
		c = strings.Replace(c, `archive"}`, `archive", retention: {age: 30d}}`, 1)
		c = strings.Replace(c, "admin:\n", "admin:\n"+public, 1)
		return c + forwardConfig(redis, kafka, prefix) +
			"sources:\n  - {name: github, provider: github, credentials: {secrets: [" + key + "]}}\n  - {name: another, provider: github, credentials: {secrets: [" + key + "]}}\n"
	}
	g := newGateway(t, "")
	_, port, _ := net.SplitHostPort(g.admin)
	g.configure(strings.Replace(conf(""), "%ADMIN%", "0.0.0.0:"+port, 1)) // from outside that is no address
	g.start()
	large := func(n int) delivery {
		body := fmt.Appendf(nil, `{"action":"opened","issue":{"number":%d,"title":"large","body":"%s"},"repository":{"id":1,"full_name":"octo/r"}}`, n, strings.Repeat("0123456789abcdef", 1<<17))
		m := hmac.New(sha256.New, []byte(key))
		m.Write(body)
		return delivery{source: "github", body: body, header: [][2]string{{"Content-Type", "application/json"}, {"X-GitHub-Event", "issues"},
			{"X-GitHub-Delivery", fmt.Sprintf("b2f4222b-8135-4740-8f25-%012d", n)}, {"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(m.Sum(nil))}}}
	}
	sent := map[string]delivery{}
	var ids []string
	for n := range 3 {
		d := large(n)
		status, answer, id := post(&http.Client{Timeout: time.Minute}, g.ingest, d)
		if status/100 != 2 {
			t.Fatalf("answer %d %s", status, answer)
		}
		sent[id], ids = d, append(ids, id)
	}
	g.drain(time.Minute)
	for _, rec := range consume(t, kafka, prefix+".dead") {
		if rec.header("ce_deadreason") != "too_large" || sent[rec.header("ce_deliveryid")].body == nil {
			t.Errorf("dead letter %v", rec.Headers)
		}
	}
	eventually(t, time.Minute, "the dead letters are listed", func() error {
		if rows := g.list("outcome=dead"); len(rows) != 3 {
			return fmt.Errorf("%d are", len(rows))
		}
		return nil
	})
	g.stop()
	g.configure(conf(`  public_url: "http://%ADMIN%"` + "\n"))
	g.start()
	replay := func(args ...string) {
		t.Helper()
		args = append([]string{"deliveries", "replay", "--wait", "--admin", "http://" + g.admin, "--token", adminToken}, args...)
		if out, err := exec.Command(binary(t), args...).CombinedOutput(); err != nil {
			t.Errorf("penstock %s: %v %s", strings.Join(args, " "), err, out)
		}
	}
	g.say("/api/v1/deliveries/" + ids[0] + "/replay")
	eventually(t, time.Minute, "what was driven by the API is published", func() error {
		if rows := g.list("outcome=dead"); len(rows) != 2 {
			return fmt.Errorf("%d are dead", len(rows))
		}
		return nil
	})
	replay("--outcome", "dead")
	fetched := 0
	for _, rec := range consume(t, kafka, prefix+".github") {
		d := sent[rec.header("ce_deliveryid")]
		var e struct {
			Ref struct {
				URL, Node, SHA256 string
				Size              int
				Expires           time.Time `json:"expires_at"`
			} `json:"payload_ref"`
		}
		if err := json.Unmarshal([]byte(rec.Payload), &e); err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(d.body); e.Ref.Size != len(d.body) || e.Ref.SHA256 != hex.EncodeToString(sum[:]) || e.Ref.Node == "" || e.Ref.Expires.IsZero() {
			t.Errorf("payload_ref %+v of %d bytes", e.Ref, len(d.body))
		}
		for token, want := range map[string]int{ours: 200, theirs: 404, "": 401} {
			req, _ := http.NewRequest(http.MethodGet, e.Ref.URL, nil)
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != want || (want == 200) != (string(b) == string(d.body)) {
				t.Errorf("token %q gets %d and %d bytes, %v; want %d", token, resp.StatusCode, len(b), err, want)
			}
		}
		fetched++
	}
	if fetched != 3 {
		t.Errorf("%d events point to their bodies, want 3", fetched)
	}
	if rows := g.list("outcome=published"); len(rows) != 3 {
		t.Errorf("%d rows say published, want 3", len(rows))
	}
	g.stop()
}
