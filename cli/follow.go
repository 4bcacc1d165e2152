package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// followOverlap is how far deliveries may reach the lists out of the order in which
	// they were received: what is asked for again after a break, and known by its id.
	followOverlap = time.Minute
	// followSilence is longer than the gateway's own sign of life on a quiet stream: beyond
	// it the connection is dead.
	followSilence = time.Minute
	followPause   = 5 * time.Second // longest between two tries
)

// errStop ends a follower because enough was seen.
var errStop = errors.New("enough")

// follower gives every delivery that arrives from now on to handle, once and in order of
// arrival, whatever becomes of the connection and the gateway: it opens the stream, then
// lists what came since the last it knows, then follows the stream, and begins again when
// that ends.
type follower struct {
	c      *adminClient
	query  url.Values
	handle func(ctx context.Context, r *row, raw json.RawMessage) error
	say    func(format string, args ...any)
	// outcomes gives a delivery again, once, with each outcome that it gets. Of what changed
	// during a break, those that were received within the overlap before it.
	outcomes bool

	seen  map[string]time.Time // keys within the overlap, and when they were received
	since time.Time            // the latest known time of receipt
	first time.Duration        // between two tries; doubles
}

// run follows until ctx ends, handle returns errStop, or the gateway refuses.
func (f *follower) run(ctx context.Context) error {
	f.seen = map[string]time.Time{}
	if f.first == 0 {
		f.first = 200 * time.Millisecond
	}
	if err := f.prime(ctx); err != nil {
		return err // at the start somebody looks on: a wrong address is told at once
	}
	pause, told := f.first, false
	for {
		err := f.connection(ctx, func() {
			if told {
				f.say("connected again")
			}
			pause, told = f.first, false
		})
		var refused *apiError
		switch {
		case ctx.Err() != nil || errors.Is(err, errStop):
			return nil
		case errors.As(err, &refused) && refused.final():
			return err
		}
		if !told {
			f.say("the connection is lost (%v); trying again until it is back", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, followPause)
	}
}

// askTimeout is for one answer of the gateway, where nobody looks on.
const askTimeout = 30 * time.Second

// ask is get with a time limit.
func (c *adminClient) ask(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.get(ctx, http.MethodGet, path, query)
}

// final reports whether asking again would be answered alike.
func (e *apiError) final() bool {
	return e.status/100 == 4 && e.status != http.StatusTooManyRequests
}

// prime notes what is there already: it is not live. The gateway's clock counts.
func (f *follower) prime(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	query := maps.Clone(f.query) // a consumer's token reads nothing without it
	query.Set("limit", "1")
	resp, err := f.c.do(asking, http.MethodGet, "/api/v1/deliveries", query)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if f.since, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		f.since = time.Now()
	}
	return f.list(ctx, func(r *row, _ json.RawMessage) error { f.note(r); return nil })
}

// connection is one stream, from its begin to its end.
func (f *follower) connection(ctx context.Context, up func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := f.c.do(ctx, http.MethodGet, "/api/v1/stream", f.query)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	// What arrived before the stream was open is listed; what arrives meanwhile waits in it.
	if err := f.list(ctx, f.take(ctx)); err != nil {
		return err
	}
	up()
	silence := time.AfterFunc(followSilence, cancel)
	defer silence.Stop()
	lines, event := bufio.NewScanner(resp.Body), ""
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		silence.Stop()
		line := lines.Bytes()
		if name, ok := bytes.CutPrefix(line, []byte("event:")); ok {
			event = string(bytes.TrimSpace(name))
		} else if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if err := f.event(ctx, event, bytes.TrimSpace(data)); err != nil {
				return err
			}
		}
		silence.Reset(followSilence)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the stream has ended")
}

func (f *follower) event(ctx context.Context, event string, data []byte) error {
	if event == "dropped" { // the stream could not wait for us: the list knows what it was
		return f.list(ctx, f.take(ctx))
	}
	var r row
	if err := json.Unmarshal(data, &r); err != nil || r.ID == "" {
		return nil //nolint:nilerr // an event that is not for us
	}
	return f.take(ctx)(&r, bytes.Clone(data))
}

// key is what is given once.
func (f *follower) key(r *row) string {
	if f.outcomes {
		return r.ID + " " + r.Outcome
	}
	return r.ID
}

// take hands a delivery on that was not seen yet.
func (f *follower) take(ctx context.Context) func(*row, json.RawMessage) error {
	return func(r *row, raw json.RawMessage) error {
		// An old one again: its outcome has changed.
		if _, ok := f.seen[f.key(r)]; ok || !f.outcomes && r.ReceivedAt.Before(f.since.Add(-followOverlap)) {
			return nil
		}
		err := f.handle(ctx, r, raw)
		if err == nil || errors.Is(err, errStop) {
			f.note(r)
		}
		return err
	}
}

func (f *follower) note(r *row) {
	f.seen[f.key(r)] = r.ReceivedAt
	if r.ReceivedAt.After(f.since) {
		f.since = r.ReceivedAt
	}
	if len(f.seen)%1024 == 0 {
		maps.DeleteFunc(f.seen, func(_ string, at time.Time) bool { return at.Before(f.since.Add(-2 * followOverlap)) })
	}
}

// list gives what was received since the overlap, oldest first.
func (f *follower) list(ctx context.Context, visit func(*row, json.RawMessage) error) error {
	query := maps.Clone(f.query)
	query.Set("from", f.since.Add(-followOverlap).UTC().Format(time.RFC3339Nano))
	query.Set("limit", strconv.Itoa(pageLimit))
	type found struct {
		row row
		raw json.RawMessage
	}
	var all []found
	for {
		b, err := f.c.ask(ctx, "/api/v1/deliveries", query)
		if err != nil {
			return err
		}
		var page struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			Next       string            `json:"next"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return fmt.Errorf("%s: is no admin API: %w", f.c.base, err)
		}
		for _, raw := range page.Deliveries {
			e := found{raw: raw}
			if err := json.Unmarshal(raw, &e.row); err != nil {
				return fmt.Errorf("%s: a row cannot be read: %w", f.c.base, err)
			}
			if _, ok := f.seen[f.key(&e.row)]; !ok {
				all = append(all, e)
			}
		}
		if page.Next == "" {
			break
		}
		query.Set("cursor", page.Next)
	}
	slices.SortStableFunc(all, func(a, b found) int {
		if c := a.row.ReceivedAt.Compare(b.row.ReceivedAt); c != 0 {
			return c
		}
		return strings.Compare(a.row.ID, b.row.ID)
	})
	for i := range all {
		if err := visit(&all[i].row, all[i].raw); err != nil {
			return err
		}
	}
	return nil
}
