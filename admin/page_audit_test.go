package admin

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// The page shows the audit log to operators alone, newest first and page by page, and leads to
// what was acted on.
func TestAuditPage(t *testing.T) {
	w, _ := auditWorld(t, nil)
	w.want(w.call("GET", "/audit", operatorToken, ""), 200, "Nothing is on record yet")
	w.want(w.call("POST", "/sources/stripe/pause", operatorToken, ""), 303)
	w.want(w.call("POST", "/deliveries/"+publishedID+"/replay", operatorToken, ""), 303)
	w.want(w.call("POST", "/replays", operatorToken, "filter=order_id%3D%253Cb%253E", "Content-Type", "application/x-www-form-urlencoded"), 303)
	w.want(w.call("POST", "/replays", viewerToken, "filter=source%3Dx", "Content-Type", "application/x-www-form-urlencoded"), 403)
	w.call("GET", "/deliveries/"+publishedID, operatorToken, "")
	rec := w.call("GET", "/audit", operatorToken, "")
	w.want(rec, 200, `<a href="/sources/stripe"><code>stripe</code></a>`, `<a href="/deliveries/`+publishedID+`"><code>`, "source.pause", "body.read", `ops <span class="sub">operator`, `<span class="tag rejected">refused</span>`, "order_id=%3Cb%3E")
	page := rec.Body.String()
	if strings.Index(page, ">body.read<") > strings.Index(page, ">source.pause<") {
		t.Error("the oldest comes first")
	}
	w.want(w.call("GET", "/audit?action=source.pause&from=-1h", operatorToken, ""), 200, "source.pause", ">clear<")
	if page := w.call("GET", "/audit?subject="+publishedID, operatorToken, "").Body.String(); strings.Contains(page, ">source.pause<") || !strings.Contains(page, ">replay<") {
		t.Error("the filter is not followed")
	}
	for kind, want := range map[string][2]bool{"": {true, true}, "acts": {true, false}, "looks": {false, true}} {
		page := w.call("GET", "/audit?kind="+kind, operatorToken, "").Body.String()
		if got := [2]bool{strings.Contains(page, ">source.pause<"), strings.Contains(page, ">body.read<")}; got != want {
			t.Errorf("kind %q shows acts and looks: %v, want %v", kind, got, want)
		}
	}
	w.want(w.call("GET", "/audit?kind=all", operatorToken, ""), 400, "neither acts nor looks")
	w.want(w.call("GET", "/audit?who=nobody", operatorToken, ""), 200, "Nothing on record fits")
	w.want(w.call("GET", "/audit?from=yesterday", operatorToken, ""), 400, "neither RFC 3339")
	w.want(w.call("GET", "/audit?nonsense=1", operatorToken, ""), 400, "there is no such parameter")
	for _, token := range []string{viewerToken, consumerToken} {
		if rec := w.call("GET", "/audit", token, ""); rec.Code != 403 || strings.Contains(rec.Body.String(), ">source.pause<") {
			t.Errorf("others are answered %d", rec.Code)
		}
	}
	if page := w.call("GET", "/", viewerToken, "").Body.String(); strings.Contains(page, `href="/audit"`) {
		t.Error("a viewer is led there")
	}
	w.want(w.call("GET", "/deliveries/"+publishedID, operatorToken, ""), 200, `href="/audit?subject=`+publishedID+`"`)
	w.want(w.call("GET", "/sources/stripe", operatorToken, ""), 200, `href="/audit?subject=stripe"`)

	// Page by page: each entry once, and back to the beginning.
	var seen []string
	at := "/audit?limit=2"
	for range 10 {
		page := w.call("GET", at, operatorToken, "").Body.String()
		seen = append(seen, regexp.MustCompile(`<td data-label="Action">([^<]*)`).FindAllString(page, -1)...)
		next := regexp.MustCompile(`href="(/audit\?[^"]*)" rel="next"`).FindStringSubmatch(page)
		if at != "/audit?limit=2" && !strings.Contains(page, `<a href="/audit?limit=2">Back to the newest`) {
			t.Errorf("%s does not lead back", at)
		}
		if next == nil {
			break
		}
		at = strings.ReplaceAll(next[1], "&amp;", "&")
	}
	if all := w.entries("", 500); len(seen) != len(all) {
		t.Errorf("%d entries page by page, %d in the log: %v", len(seen), len(all), seen)
	}
}

func TestAuditPageWithoutALog(t *testing.T) {
	w := newWorld(t, nil)
	w.want(w.call("GET", "/audit", operatorToken, ""), 501, "<!doctype html>")
}

// A program that reads deliveries with an operator's token does not push out who released what,
// whether it reads bodies or rows with headers.
func TestLooksAtHeadersPushNothingOut(t *testing.T) {
	a := openAudit(t, t.TempDir(), 64<<10)
	w := newWorld(t, func(o *Options) { o.Audit = a })
	w.want(w.call("POST", "/api/v1/sources/stripe/pause", operatorToken, ""), 200)
	for i := range 1000 {
		w.want(w.call("GET", fmt.Sprintf("/api/v1/deliveries/%s?%d", publishedID, i), operatorToken, ""), 200)
	}
	if got := w.entries("action=source.pause", 500); len(got) != 1 {
		t.Errorf("the pause is not on record any more: %v", got)
	}
}
