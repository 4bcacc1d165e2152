package cli

import (
	"net/http"
	"strings"
	"testing"

	"penstock/config"
)

// TestSendStale: a delivery signed long ago is refused as such wherever the scheme signs
// the time, and where it signs none that is said.
func TestSendStale(t *testing.T) {
	w := newWorld(t)
	file, c := everyProvider(t, w)
	g := newFakeGateway(t, c)
	for name, want := range map[string]string{"stripe": "401", "slack": "401", "standard_webhooks": "401", "paddle_billing": "401"} {
		w.want(exitOK, want, "send", name, "-c", file, "--to", g.URL, "--stale")
	}
	w.want(exitFound, "this scheme signs no time", "send", "github", "-c", file, "--to", g.URL, "--stale")
	w.want(exitUsage, "not both", "send", "stripe", "-c", file, "--to", g.URL, "--stale", "--tamper")
	g.spoil = func(http.ResponseWriter) bool { return true }
	w.want(exitFound, "a stale delivery was not refused", "send", "stripe", "-c", file, "--to", g.URL, "--stale")
}

// TestSendAgain: a whole number of duplicates repeats the very same delivery.
func TestSendAgain(t *testing.T) {
	w := newWorld(t)
	file, c := everyProvider(t, w)
	g := newFakeGateway(t, c)
	w.want(exitOK, "8 sent", "send", "github", "-c", file, "--to", g.URL, "--count", "2", "--duplicates", "3")
	if !strings.Contains(w.out.String(), "6 of them repeats") || len(g.bodies) != 2 || g.seen != 8 {
		t.Errorf("%d seen, %d different bodies: %s", g.seen, len(g.bodies), w.out.String())
	}
}

// TestSendFreely: a secret and a URL are enough to test any server.
func TestSendFreely(t *testing.T) {
	w := newWorld(t)
	c, err := config.Parse("c.yaml", []byte(`archive: {dir: d}
sources:
  - {name: mine, provider: stripe, path: /webhook, credentials: {secrets: whsec_0123456789abcdef}}
  - {name: pay, provider: liqpay, path: /liqpay, credentials: {private_key: 0123456789abcdef}}
`), w.wiring.Catalogue)
	if err != nil {
		t.Fatal(err)
	}
	g := newFakeGateway(t, c)
	t.Setenv("OF_THE_TEST", "whsec_0123456789abcdef")
	w.want(exitOK, "1 sent", "send", "stripe", "--secret", "env:OF_THE_TEST", "--to", g.URL+"/webhook", "--type", "refund.succeeded")
	w.want(exitOK, "1 sent", "send", "stripe", "--secret", "file:"+w.file("s", "whsec_0123456789abcdef\n"), "--to", g.URL+"/webhook")
	w.want(exitOK, "1 sent", "send", "liqpay", "--secret", "0123456789abcdef", "--to", g.URL+"/liqpay")
	w.want(exitFound, "status 401", "send", "stripe", "--secret", "whsec_another_one_of_them", "--to", g.URL+"/webhook")
	w.want(exitOK, "401", "send", "stripe", "--secret", "env:OF_THE_TEST", "--to", g.URL+"/webhook", "--tamper")
	w.want(exitOK, "401", "send", "stripe", "--secret", "env:OF_THE_TEST", "--to", g.URL+"/webhook", "--stale")
	// The secret is put in the place of the configuration's.
	file := w.file("c.yaml", "archive: {dir: d}\nsources:\n  - {name: mine, provider: stripe, path: /webhook, credentials: {secrets: whsec_not_this_one_at_all}}\n")
	w.want(exitOK, "1 sent", "send", "stripe", "-c", file, "--secret", "env:OF_THE_TEST", "--to", g.URL)
	// Other people's servers answer as they like.
	g.spoil = func(rw http.ResponseWriter) bool { rw.WriteHeader(http.StatusNoContent); return true }
	w.want(exitOK, "204", "send", "stripe", "--secret", "env:OF_THE_TEST", "--to", g.URL+"/webhook")
	w.want(exitUsage, "wants --to URL", "send", "stripe", "--secret", "x")
	w.want(exitUsage, "NOT_SET_AT_ALL is not set", "send", "stripe", "--secret", "env:NOT_SET_AT_ALL", "--to", g.URL)
	w.want(exitUsage, "did you mean stripe?", "send", "strpie", "--secret", "x", "--to", g.URL)
	w.want(exitUsage, "not signed with a shared secret", "send", "wise", "--secret", "0123456789abcdef", "--to", g.URL)
}

// TestSendList: what can be sent, by both its names.
func TestSendList(t *testing.T) {
	w := newWorld(t)
	w.want(exitOK, "payment.captured", "send", "stripe", "--list")
	w.want(exitOK, `"becomes": "refund.succeeded"`, "send", "stripe", "--list", "--json")
	w.want(exitUsage, "did you mean github?", "send", "gihtub", "--list")
}
