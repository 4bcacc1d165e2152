package admin

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

func heard(t *testing.T, l *listener) chunk {
	t.Helper()
	select {
	case c, open := <-l.chunks:
		if !open {
			t.Fatal("the stream was ended")
		}
		return c
	case <-time.After(time.Minute):
		t.Fatal("nothing came within a minute")
		return chunk{}
	}
}

// One subscription feeds all; each gets what its filter lets through, or how many that are.
func TestHub(t *testing.T) {
	a := newFakeArchive()
	h := newHub(a)
	stripe := archive.Filter{Source: "stripe"}
	one, leaveOne := h.join(stripe, false)
	two, leaveTwo := h.join(stripe, false)
	brief, leaveBrief := h.join(stripe, true)
	other, leaveOther := h.join(archive.Filter{Source: "liqpay"}, false)
	if len(h.groups) != 3 {
		t.Fatalf("%d groups, want 3", len(h.groups))
	}
	a.tail <- archive.TailRow{Row: archive.Row{ID: publishedID, Source: "stripe"}, Dropped: 2}
	for _, l := range []*listener{one, two} {
		if c := heard(t, l); c.rows != 1 || c.dropped != 2 || !strings.HasPrefix(string(c.text), "event: delivery\nid: "+publishedID+"\ndata: {") {
			t.Errorf("a stream of its source got %d rows, %d dropped: %q", c.rows, c.dropped, c.text)
		}
	}
	if c := heard(t, brief); c.rows != 1 || c.text != nil {
		t.Errorf("a brief stream got %d rows: %q", c.rows, c.text)
	}
	if c := heard(t, other); c.rows != 0 || c.text != nil || c.dropped != 2 {
		t.Errorf("a stream of another source got %d rows: %q", c.rows, c.text)
	}
	leaveOne()
	leaveBrief()
	leaveOther()
	a.tail <- archive.TailRow{Row: archive.Row{ID: otherID, Source: "stripe"}}
	if c := heard(t, two); c.rows != 1 || c.dropped != 0 {
		t.Errorf("after others left: %d rows, %d dropped", c.rows, c.dropped)
	}
	leaveTwo()
	<-a.canceled
	three, leaveThree := h.join(archive.Filter{}, false)
	close(a.tail) // as the archive does when it closes
	if _, open := <-three.chunks; open {
		t.Error("a stream goes on after the archive's end")
	}
	leaveThree()
	<-a.canceled
}

// A stream that does not read loses rows, is told how many, and holds up nobody.
func TestHubSlowStream(t *testing.T) {
	a := newFakeArchive()
	h := newHub(a)
	slow, leave := h.join(archive.Filter{}, false)
	defer func() { leave(); <-a.canceled }()
	const n = 4 * hubChunks
	for i := range n {
		h.send([]archive.TailRow{{Row: archive.Row{ID: fmt.Sprint("row ", i)}}})
	}
	for range hubChunks {
		if c := heard(t, slow); c.rows != 1 || c.dropped != 0 {
			t.Fatalf("%d rows, %d dropped", c.rows, c.dropped)
		}
	}
	h.send([]archive.TailRow{{Row: archive.Row{ID: "the last"}}})
	if c := heard(t, slow); c.dropped != n-hubChunks {
		t.Errorf("%d dropped, want %d", c.dropped, n-hubChunks)
	}
}

// lines opens a stream and gives its lines that say something, one by one.
func (w *world) lines(t *testing.T, address string) func() string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+viewerToken)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func() string {
		for lines.Scan() {
			if l := lines.Text(); l != "" && !strings.HasPrefix(l, ":") {
				return l
			}
		}
		t.Fatalf("stream ended: %v", lines.Err())
		return ""
	}
}

// A brief stream says how many, and not which.
func TestBriefStream(t *testing.T) {
	w := newWorld(t, nil)
	base, stop := serve(t, w)
	defer func() { stop(); <-w.archive.canceled }()
	lines := w.lines(t, base+"/api/v1/stream?brief=true&source=stripe")
	w.archive.tail <- archive.TailRow{Row: archive.Row{ID: otherID, Source: "liqpay"}}
	w.archive.tail <- archive.TailRow{Row: archive.Row{ID: publishedID, Source: "stripe"}}
	for _, want := range []string{"event: changed", `data: {"rows":1}`} {
		if got := lines(); got != want {
			t.Fatalf("stream gave %q, want %q", got, want)
		}
	}
	w.want(w.call("GET", "/api/v1/stream?brief=maybe", viewerToken, ""), 400, "brief")
}
