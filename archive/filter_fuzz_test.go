package archive

import (
	"net/url"
	"testing"
	"time"
)

// FuzzFilter: the parameters of a list, the cursor among them; and public ids.
func FuzzFilter(f *testing.F) {
	now := time.Unix(1780000000, 0)
	page := Filter{Source: "a"}
	for _, s := range []string{"source=a&cursor=" + page.cursor(order{1, 2}), "from=-2h&to=2026-11-22T00:00:00Z", "limit=501", "verdict=x", "from=-9999999999h", "cursor=AA", "livemode=maybe&q=%00", "a=b", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		refOf(query)
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := ParseFilter(v, now)
		if err != nil {
			return
		}
		if got.Limit < 0 || got.Limit > 500 || !got.From.IsZero() && !got.To.IsZero() && got.To.Before(got.From) {
			t.Fatalf("%q gives %+v", query, got)
		}
		o, ok, err := got.after()
		if err != nil || !ok {
			return
		}
		got.Cursor = got.cursor(o)
		if again, ok, err := got.after(); err != nil || !ok || again != o {
			t.Fatalf("%q: the cursor is read as %v and then as %v, %v", query, o, again, err)
		}
	})
}
