package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func openAudit(t testing.TB, dir string, size int64) *Audit {
	t.Helper()
	a, err := OpenAudit(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// auditWorld is a world with an audit log on disk.
func auditWorld(t *testing.T, change func(o *Options)) (*world, string) {
	dir := t.TempDir()
	a := openAudit(t, dir, 1<<20)
	return newWorld(t, func(o *Options) {
		o.Audit = a
		if change != nil {
			change(o)
		}
	}), dir
}

// entries asks the API page by page.
func (w *world) entries(query string, limit int) (all []Act) {
	w.t.Helper()
	cursor := ""
	for {
		rec := w.call("GET", fmt.Sprintf("/api/v1/audit?limit=%d&cursor=%s&%s", limit, cursor, query), operatorToken, "")
		w.want(rec, 200)
		var page struct {
			Entries []Act
			Next    string
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, page.Entries...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

func lines(acts []Act) (out []string) {
	for _, e := range acts {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s %s %s", e.Who, e.Role, e.Action, e.Subject, e.Result, e.Detail)))
	}
	return out
}

func TestAuditTells(t *testing.T) {
	w, dir := auditWorld(t, nil)
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	w.want(w.call("POST", "/api/v1/deliveries/"+publishedID+"/replay", operatorToken, ""), 202)
	w.want(w.call("POST", "/api/v1/deliveries/"+rejectedID+"/reverify?force=true", operatorToken, ""), 200)
	w.want(w.call("POST", "/api/v1/replays", operatorToken, `{"filter":{"source":"stripe"}}`), 202)
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", viewerToken, ""), 403)
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 200)
	w.want(w.call("DELETE", "/api/v1/replays/job-1", operatorToken, ""), 200)
	w.want(w.call("POST", "/api/v1/reload", operatorToken, ""), 200)
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", operatorToken, ""), 200)
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", consumerToken, ""), 200) // a program: not a look
	w.want(w.call("PUT", "/api/v1/sources/stripe/tenants/shop", operatorToken, `{"credentials":{"secrets":"a-secret-of-a-shop"}}`), 501)
	w.want(w.call("POST", "/login", "", url.Values{"token": {"wrong-token-1"}}.Encode(), form...), 401)
	w.want(w.call("POST", "/login", "", url.Values{"token": {viewerToken}}.Encode(), form...), 303)
	want := []string{
		"ops/operator replay " + publishedID + " done",
		"ops/operator reverify " + rejectedID + " done force=true",
		"ops/operator replay  done source=stripe",
		"eyes/viewer source.pause stripe refused",
		"ops/operator source.pause stripe done",
		"ops/operator replay.cancel job-1 done",
		"ops/operator reload  done",
		"ops/operator body.read " + publishedID + " done",
		"ops/operator tenant.put stripe/shop failed",
		"/ login  refused token: the token is not known",
		"eyes/viewer login  done token",
	}
	slices.Reverse(want)
	for _, limit := range []int{1, 2, 3, 500} {
		if got := lines(w.entries("", limit)); !slices.Equal(got, want) {
			t.Fatalf("by %d:\n%s\nwant\n%s", limit, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if got := w.entries("action=source.pause&who=ops&subject=stripe&from=-1h", 500); len(got) != 1 || got[0].From != "192.0.2.1" || got[0].Status != 200 {
		t.Fatalf("one entry: %+v", got)
	}
	if got := w.entries("to=-1h", 500); len(got) != 0 {
		t.Fatalf("an hour ago: %+v", got)
	}
	for _, bad := range []string{"limit=0", "limit=x", "cursor=x", "cursor=0", "from=x", "nonsense=1"} {
		w.want(w.call("GET", "/api/v1/audit?"+bad, operatorToken, ""), 400, strings.Split(bad, "=")[0]+": ")
	}
	for role, token := range map[string]string{"viewer": viewerToken, "consumer": consumerToken} {
		w.want(w.call("GET", "/api/v1/audit", token, ""), 403, role)
	}
	all := readAll(t, dir)
	for _, secret := range []string{operatorToken, viewerToken, "wrong-token", "a-secret-of-a-shop", "alert(1)"} {
		if strings.Contains(all, secret) {
			t.Fatalf("the audit log holds %q", secret)
		}
	}
	bare := newWorld(t, nil)
	bare.want(bare.call("GET", "/api/v1/audit", operatorToken, ""), 501, "not_configured")
}

func readAll(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// What cannot be put on record is not done.
func TestAuditFailsClosed(t *testing.T) {
	w, _ := auditWorld(t, nil)
	if err := w.server.o.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 503, "audit_unavailable")
	if did := w.work.last(); did != "" {
		t.Fatalf("%q was done without a record", did)
	}
	w.want(w.call("GET", "/api/v1/deliveries/"+publishedID+"/body", operatorToken, ""), 503, "audit_unavailable")
	w.want(w.call("GET", "/api/v1/deliveries", operatorToken, ""), 200)
}

// What cannot be made durable is not done either; it goes on when the disk is cured.
func TestAuditIsSynced(t *testing.T) {
	w, _ := auditWorld(t, nil)
	a := w.server.o.Audit
	a.mu.Lock()
	a.acts.sync = func(*os.File) error { return errors.New("the disk is ill") }
	a.mu.Unlock()
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 503, "audit_unavailable")
	if did := w.work.last(); did != "" {
		t.Fatalf("%q was done without a durable record", did)
	}
	a.mu.Lock()
	a.acts.sync = (*os.File).Sync
	a.mu.Unlock()
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 200)
}

// An act is on disk before it is done, and stays there when the process dies in it.
func TestAuditSurvivesKill(t *testing.T) {
	if dir := os.Getenv("PENSTOCK_TEST_AUDIT"); dir != "" {
		a, err := OpenAudit(dir, 1<<20)
		if err != nil {
			panic(err)
		}
		w := newWorld(t, func(o *Options) {
			o.Audit = a
			o.Reload = func(context.Context) error {
				p, _ := os.FindProcess(os.Getpid())
				_ = p.Kill()
				select {}
			}
		})
		w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, "")
		w.call("POST", "/api/v1/reload", operatorToken, "")
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAuditSurvivesKill$")
	cmd.Env = append(os.Environ(), "PENSTOCK_TEST_AUDIT="+dir)
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the process was not killed: %v\n%s", err, out)
	}
	a := openAudit(t, dir, 1<<20)
	w := newWorld(t, func(o *Options) { o.Audit = a })
	want := []string{"ops/operator reload  begun", "ops/operator source.pause stripe done"}
	if got := lines(w.entries("", 500)); !slices.Equal(got, want) {
		t.Fatalf("after the kill %q, want %q", got, want)
	}
	if _, err := a.append(Act{At: time.Now(), Action: "x", Result: actDone}, false); err != nil {
		t.Fatal(err)
	}
	if got := w.entries("", 500); len(got) != 3 || got[0].Seq != 4 {
		t.Fatalf("numbers do not go on: %+v", got)
	}
}

// A line that a crash cut off is none; what comes after it is whole.
func TestAuditTornLine(t *testing.T) {
	dir := t.TempDir()
	a := openAudit(t, dir, 1<<20)
	for i := range 3 {
		if _, err := a.append(Act{At: time.Now(), Action: fmt.Sprint("a", i), Result: actDone}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	path := a.acts.files[0].path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	third := strings.LastIndexByte(strings.TrimSuffix(string(whole), "\n"), '\n') + 1
	for cut := third; cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := OpenAudit(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.append(Act{At: time.Now(), Action: "after", Result: actDone}, false); err != nil {
			t.Fatal(err)
		}
		got, _, err := b.list(t.Context(), auditFilter{limit: 10})
		if err != nil || len(got) != 3 || got[0].Action != "after" || got[1].Action != "a1" {
			t.Fatalf("cut at %d: %v %v", cut, lines(got), err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The log is bounded, looks do not push out acts, and noise does neither.
func TestAuditIsBounded(t *testing.T) {
	dir, size, now := t.TempDir(), int64(1<<20), time.Unix(1e9, 0)
	a := openAudit(t, dir, size)
	put := func(e Act, look bool) {
		t.Helper()
		e.At = now
		if _, err := a.append(e, look); err != nil {
			t.Fatal(err)
		}
	}
	put(Act{Action: "release", Result: actDone}, false)
	for i := range 20_000 {
		put(Act{Action: actReadBody, Subject: fmt.Sprint(i), Result: actDone}, true)
		put(Act{Action: actLogin, Result: actRefused, Detail: strings.Repeat("x", 2*maxActText)}, false)
	}
	used := func() (n int64) {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			n += info.Size()
		}
		return n
	}
	if n := used(); n > size+2*maxActText {
		t.Fatalf("%d bytes are kept, the bound is %d", n, size)
	}
	got, _, err := a.list(t.Context(), auditFilter{action: "release", limit: 10})
	if err != nil || len(got) != 1 {
		t.Fatalf("the release was pushed out: %v %v", got, err)
	}
	put(Act{Action: "pause", Result: actDone}, false)
	got, _, err = a.list(t.Context(), auditFilter{action: "pause", limit: 10})
	if err != nil || len(got) != 1 || got[0].Missed == 0 {
		t.Fatalf("what was not recorded is not counted: %+v %v", got, err)
	}
	for range 5000 {
		put(Act{Action: "pause", Result: actDone, Detail: strings.Repeat("y", 200)}, false)
	}
	if n := used(); n > size+2*maxActText {
		t.Fatalf("%d bytes are kept, the bound is %d", n, size)
	}
	if got, more, err := a.list(t.Context(), auditFilter{limit: 10}); err != nil || len(got) != 10 || !more {
		t.Fatalf("%d entries, more %t, %v", len(got), more, err)
	}
}
