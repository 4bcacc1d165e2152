package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// printed collects a command's output line by line, while it runs.
type printed struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// rows are the ids and outcomes of what tail --json has printed.
func (p *printed) rows(t *testing.T) (got []string) {
	t.Helper()
	text := p.String()
	for line := range strings.SplitSeq(text[:strings.LastIndexByte(text, '\n')+1], "\n") {
		var r row
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		got = append(got, strings.TrimSpace(r.ID+" "+r.Outcome))
	}
	return got
}

// tailing runs deliveries tail beside the test.
func tailing(t *testing.T, g *liveGateway, args ...string) (out, errs *printed, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, errs = new(printed), new(printed)
	done := make(chan int, 1)
	e := Env{Args: append([]string{"deliveries", "tail", "--admin", g.URL}, args...), Stdout: out, Stderr: errs, Getenv: func(string) string { return "" }}
	go func() { done <- Run(ctx, e, Wiring{}) }()
	t.Cleanup(cancel)
	until(t, "the stream is open", func() bool { return g.streams() > 0 })
	return out, errs, func() int { cancel(); return <-done }
}

// becomes gives a delivery that is there another outcome.
func (g *liveGateway) becomes(id, outcome string, quiet bool) {
	g.mu.Lock()
	raw := ""
	for i, old := range g.rows {
		if strings.Contains(old, fmt.Sprintf(`"id":%q`, id)) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(old), &fields); err != nil {
				g.t.Error(err)
			}
			fields["outcome"] = outcome
			b, _ := json.Marshal(fields)
			raw = string(b)
			g.rows[i] = raw
		}
	}
	g.mu.Unlock()
	if !quiet {
		g.send("event: delivery\ndata: " + raw + "\n\n")
	}
}

// TestTailAcrossBreaks: whatever cuts the stream, each delivery is printed when it arrives and
// with each outcome, once.
func TestTailAcrossBreaks(t *testing.T) {
	g := newLiveGateway(t)
	begin := time.Now()
	for i := range 5 {
		g.arrive(fmt.Sprint("before", i), begin.Add(-time.Duration(5-i)*time.Second), true)
	}
	out, errs, stop := tailing(t, g, "--json")
	var want []string
	n := 0
	arrive := func(quiet bool) string {
		id := fmt.Sprintf("d%04d", n)
		g.arrive(id, begin.Add(time.Duration(n)*10*time.Second), quiet)
		want = append(want, id)
		n++
		return id
	}
	becomes := func(id, outcome string, quiet bool) {
		g.becomes(id, outcome, quiet)
		want = append(want, id+" "+outcome)
	}
	all := func() bool { return len(out.rows(t)) >= len(want) }
	for round := range 8 {
		id := arrive(false)
		switch round % 4 {
		case 0: // in the middle of it
			g.cut()
		case 1: // away for a while, and meanwhile one arrives and the last is published
			until(t, "it is printed", all)
			g.set(func() { g.deny = http.StatusServiceUnavailable })
			g.cut()
			becomes(id, "published", true)
			arrive(true)
			g.set(func() { g.deny = 0 })
		case 2: // the stream could not wait
			until(t, "it is printed", all)
			arrive(true)
			g.send("event: dropped\ndata: {\"dropped\":1}\n\n")
		case 3: // an outcome on the way, also of one that is older than any list goes back
			until(t, "it is printed", all)
			becomes(id, "held", false)
			until(t, "it is printed", all)
			becomes(id, "published", false)
			becomes("before0", fmt.Sprint("outcome", round), false)
		}
		until(t, "all were printed", all)
		until(t, "the stream is open", func() bool { return g.streams() > 0 })
		g.mu.Lock()
		again := []string{g.rows[len(g.rows)-1], g.rows[len(g.rows)-2]}
		g.mu.Unlock()
		for _, raw := range again { // the same once more
			g.send("event: delivery\ndata: " + raw + "\n\n")
		}
	}
	g.cut()
	arrive(false)
	until(t, "the last was printed", all)
	if code := stop(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	got := out.rows(t)
	slices.Sort(got) // of what came in a break, an outcome may stand before an arrival
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("printed\n%q, want\n%q\n%s", got, want, errs.String())
	}
	if !strings.Contains(errs.String(), "the connection is lost") || !strings.Contains(errs.String(), "connected again") {
		t.Errorf("breaks are not told of: %s", errs.String())
	}
}

// TestTailEnds: after so many rows, and when the gateway refuses.
func TestTailEnds(t *testing.T) {
	g, w := newLiveGateway(t), newWorld(t)
	out, _, stop := tailing(t, g, "--count", "2", "--source", "shop", "--from=-2h")
	for n := range 3 {
		g.arrive(fmt.Sprint("d", n), time.Now(), false)
	}
	until(t, "two are printed", func() bool { return strings.Count(out.String(), "\n") >= 2 })
	if code := stop(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "shop") || !strings.Contains(text, "accepted") {
		t.Errorf("printed %q", text)
	}
	for _, q := range g.listed {
		if !strings.Contains(q, "source=shop") {
			t.Errorf("listed %s", q)
		}
	}
	w.want(exitFound, "connect", "deliveries", "tail", "--admin", "127.0.0.1:1")
	g.deny = http.StatusUnauthorized
	w.want(exitFound, "give --token", "deliveries", "tail", "--admin", g.URL)
}
