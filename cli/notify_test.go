package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotifyTest: every channel says what came of its test, and no address is printed.
func TestNotifyTest(t *testing.T) {
	got := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got++; strings.HasPrefix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer srv.Close()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "p.yaml")
	text := "archive: {dir: ./data}\nnotify:\n  channels:\n" +
		"    - {name: good, type: slack, url: '" + srv.URL + "/good/the-secret', allow_private: [127.0.0.0/8]}\n" +
		"    - {name: bad, type: slack, url: '" + srv.URL + "/bad/the-secret', allow_private: [127.0.0.0/8]}\n" +
		"    - {name: inside, type: slack, url: 'https://127.0.0.1:9/the-secret'}\n" +
		"  rules:\n    - {name: lag, when: lag, channels: [good]}\n" +
		"sources:\n  - name: pay\n    provider: stripe\n    credentials: {secrets: [whsec_0123456789abcdef]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want(exitFound, "good: sent\nbad: not sent: answered 403 Forbidden\ninside: not sent: dial tcp 127.0.0.1:9: dial 127.0.0.1: not an address of the public internet\n", "notify", "test", "-c", file)
	w.want(exitOK, "good: sent", "notify", "test", "-c", file, "--rule", "lag")
	w.want(exitOK, `[{"channel":"good","sent":true}]`, "notify", "test", "-c", file, "--rule", "lag", "--json")
	w.want(exitUsage, "", "notify", "test", "-c", file, "--rule", "none")
	if got != 4 || strings.Contains(w.out.String()+w.err.String(), "the-secret") {
		t.Errorf("%d messages; said %s%s", got, w.out.String(), w.err.String())
	}
	if err := os.WriteFile(file, []byte(strings.Replace(text, "when: lag,", "when: event, match: {pan: '4'},", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want(exitFound, "", "check", "-c", file)
	if !strings.Contains(w.err.String(), `rule lag: match: an event has no field "pan"`) {
		t.Errorf("said %s", w.err.String())
	}
}
