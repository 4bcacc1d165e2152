package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"penstock/verify"
)

func showCommand() *command {
	return &command{name: "show", args: "ID", short: "one delivery: its row, headers and where it was published", long: `
--case prints it as a case of the vectors' format, for "penstock verify -c FILE --source S
CASE.json": that tells why it was refused. --body writes the exact bytes.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			asCase := fs.Bool("case", false, "print a case for penstock verify")
			body := fs.String("body", "", "write the body to `FILE`, - for standard output")
			asJSON := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("deliveries show", "name one delivery")
				}
				return a.show(ctx, client(), args[0], showFlags{*asCase, *body, *asJSON})
			}
		}}
}

type showFlags struct {
	asCase bool
	body   string
	asJSON bool
}

// detail is one delivery as the API gives it.
type detail struct {
	row
	Provider string      `json:"provider"`
	Method   string      `json:"method"`
	Path     string      `json:"path"`
	Target   string      `json:"target"` // with the query
	URL      string      `json:"url"`    // public, where it is known
	Headers  [][2]string `json:"headers"`
	Masked   bool        `json:"masked"`
	Damaged  string      `json:"damaged"`
	Body     []byte      `json:"body_base64"` // where it was asked for; nil from a gateway that does not know how
}

// whole asks for a delivery and its body at once: together they are one look in the audit log.
func (c *adminClient) whole(ctx context.Context, id string) (*detail, error) {
	path := "/api/v1/deliveries/" + url.PathEscape(id)
	b, err := c.ask(ctx, path, url.Values{"body": {"true"}})
	if err != nil {
		return nil, err
	}
	var d detail
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%s: is no admin API: %w", c.base, err)
	}
	if d.Damaged != "" {
		return nil, &apiError{status: http.StatusGone, text: d.Damaged}
	}
	if d.Body == nil {
		d.Body, err = c.ask(ctx, path+"/body", nil)
	}
	return &d, err
}

func (a *app) show(ctx context.Context, c *adminClient, id string, f showFlags) int {
	path := "/api/v1/deliveries/" + url.PathEscape(id)
	if f.body != "" {
		b, err := c.get(ctx, http.MethodGet, path+"/body", nil)
		if err == nil {
			err = a.writeFile(f.body, b)
		}
		if err != nil {
			return a.fail(exitFound, "%v", err)
		}
		return exitOK
	}
	if f.asCase {
		return a.printCase(ctx, c, id)
	}
	b, err := c.get(ctx, http.MethodGet, path, nil)
	if err != nil {
		return a.fail(exitFound, "%v", err)
	}
	if f.asJSON {
		return a.printJSON(json.RawMessage(b))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return a.fail(exitFound, "%s: is no admin API: %v", c.base, err)
	}
	a.printFields(fields)
	return exitOK
}

func (a *app) printCase(ctx context.Context, c *adminClient, id string) int {
	d, err := c.whole(ctx, id)
	if err != nil {
		return a.fail(exitFound, "%v", err)
	}
	where := d.URL
	if where == "" {
		where = d.Target
	}
	if where == "" {
		where = d.Path
	}
	if d.Headers == nil {
		d.Headers = [][2]string{}
	}
	return a.printJSON(struct {
		Provider string             `json:"provider"`
		Name     string             `json:"name"`
		Now      int64              `json:"now"`
		Request  verify.CaseRequest `json:"request"`
	}{d.Provider, "delivery " + d.ID, d.ReceivedAt.Unix(), verify.CaseRequest{
		Method: d.Method, URL: where, Headers: d.Headers, BodyB64: base64.StdEncoding.EncodeToString(d.Body),
	}})
}

// wordColor is the colour of a verdict or an outcome.
func wordColor(field, word string) string {
	switch {
	case field == "reason" || word == "rejected" && field == "verdict" || word == "dead" && field == "outcome":
		return red
	case word == "published" && field == "outcome":
		return green
	case word == "held" && field == "outcome":
		return yellow
	}
	return ""
}

// printFields prints whatever the API knows of a delivery: plain fields first in the
// order of the reference, then headers, then what has parts.
func (a *app) printFields(fields map[string]json.RawMessage) {
	order := []string{"id", "seq", "received_at", "source", "provider", "verdict", "reason", "outcome", "duplicate_of", "event_id", "event_type", "type",
		"order_id", "payment_id", "tenant", "status", "amount_minor", "currency", "livemode", "request_id", "idempotency_key", "remote_ip", "method", "path", "size"}
	seen := map[string]bool{"headers": true}
	var steps []timelineStep
	if json.Unmarshal(fields["timeline"], &steps) == nil { // a gateway without one, or with another kind, shows it as it is
		seen["timeline"] = true
	}
	print := func(k string) {
		v := strings.TrimSpace(string(fields[k]))
		seen[k] = true
		if v == "" || v == "null" || v == `""` || v == "[]" {
			return
		}
		var s string
		if json.Unmarshal(fields[k], &s) == nil {
			v = s
		}
		fmt.Fprintf(a.Stdout, "%s %s\n", a.paint(bold, fmt.Sprintf("%-16s", k)), a.paint(wordColor(k, v), printable(v)))
	}
	for _, k := range order {
		print(k)
	}
	var rest []string
	for k := range fields {
		if !seen[k] {
			rest = append(rest, k)
		}
	}
	sort.Strings(rest)
	for _, k := range rest {
		print(k)
	}
	var headers [][2]string
	if json.Unmarshal(fields["headers"], &headers) == nil && len(headers) > 0 {
		fmt.Fprintln(a.Stdout, "headers")
		for _, h := range headers {
			fmt.Fprintf(a.Stdout, "  %s: %s\n", printable(h[0]), printable(h[1]))
		}
	}
	a.printTimeline(steps)
}

// timelineStep is one line of what happened to a delivery.
type timelineStep struct {
	Step string    `json:"step"`
	At   time.Time `json:"at"` // zero: not on record
	Text string    `json:"text"`
	Of   string    `json:"of"`
}

func (a *app) printTimeline(steps []timelineStep) {
	if len(steps) == 0 {
		return
	}
	fmt.Fprintln(a.Stdout, "timeline")
	for _, s := range steps {
		at, after := "time not on record", ""
		if !s.At.IsZero() {
			at = s.At.UTC().Format("2006-01-02 15:04:05.000000")
			if d := s.At.Sub(steps[0].At); d > 0 && !steps[0].At.IsZero() {
				after = "+" + d.Round(time.Microsecond).String()
			}
		}
		fmt.Fprintf(a.Stdout, "  %-26s %14s  %-12s %s\n", at, after, printable(s.Step), strings.TrimRight(printable(s.Text)+" "+printable(s.Of), " "))
	}
}

func replayCommand() *command {
	return &command{name: "replay", args: "[ID]", short: "publish again on purpose: one delivery, or all that a filter finds", long: `
A replay publishes the same event id and key to the same topic, marked with the job's id;
consumers that dedupe on ce_id and ce_replay take it once. A dead letter is driven again when
it is named, or asked for by --outcome dead: once its cause is cured it counts as published.
Without an ID at least one filter must be given. With Kafka and HTTP targets, one of them gets
it again: Kafka, unless --sink says http.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client, query := adminFlags(a, fs), filters(fs)
			wait := fs.Bool("wait", false, "wait until the job is done")
			sink := fs.String("sink", "", "`SINK` that gets it again: kafka or http (default kafka; http where that is the only one)")
			rate := fs.Float64("rate", 0, "`EVENTS` per second at most, for filters (default 500)")
			asJSON := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				q, to := query(), url.Values{}
				if *rate > 0 && len(args) == 0 {
					to.Set("rate", strconv.FormatFloat(*rate, 'f', -1, 64))
				}
				if *sink != "" {
					to.Set("sink", *sink)
				}
				switch {
				case *sink != "" && *sink != "kafka" && *sink != "http":
					return a.usageError("deliveries replay", "--sink is kafka or http")
				case *rate < 0 || *rate > 0 && len(args) > 0:
					return a.usageError("deliveries replay", "--rate is a number of events per second, and goes with filters")
				case len(args) > 1 || len(args) == 1 && len(q) > 0:
					return a.usageError("deliveries replay", "name one delivery, or give filters")
				case len(args) == 0 && len(q) == 0:
					return a.usageError("deliveries replay", "without an ID a filter must be given")
				case len(args) == 1:
					return a.replay(ctx, client(), "/api/v1/deliveries/"+url.PathEscape(args[0])+"/replay", to, *wait, *asJSON)
				}
				maps.Copy(q, to)
				return a.replay(ctx, client(), "/api/v1/replays", q, *wait, *asJSON)
			}
		}}
}

func releaseCommand() *command {
	return &command{name: "release", args: "ID", short: "publish one delivery that a paused source holds", long: `
The others of the source stay held. What was refused is not released by this but by a
re-verify.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("deliveries release", "name one delivery")
				}
				if _, err := client().get(ctx, http.MethodPost, "/api/v1/deliveries/"+url.PathEscape(args[0])+"/release", nil); err != nil {
					return a.fail(exitFound, "%v", err)
				}
				fmt.Fprintf(a.Stdout, "%s is released\n", args[0])
				return exitOK
			}
		}}
}

// job is what the API tells of a replay.
type job struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Total   int64  `json:"total"`
	Done    int64  `json:"done"`
	Skipped int64  `json:"skipped"`
	Failed  int64  `json:"failed"`
	Error   string `json:"error"`
}

// jobPoll is the time between two looks at a job.
const jobPoll = 200 * time.Millisecond

func (a *app) replay(ctx context.Context, c *adminClient, path string, query url.Values, wait, asJSON bool) int {
	b, err := c.get(ctx, http.MethodPost, path, query)
	var j job
	for {
		if err != nil {
			return a.fail(exitFound, "%v", err)
		}
		if err := json.Unmarshal(b, &j); err != nil || j.ID == "" {
			return a.fail(exitFound, "%s: answers no job", c.base)
		}
		if !wait || j.State == "done" || j.State == "failed" || j.State == "canceled" {
			break
		}
		select {
		case <-ctx.Done():
			return a.fail(exitFound, "stopped waiting; the job %s goes on", j.ID)
		case <-time.After(jobPoll):
		}
		b, err = c.get(ctx, http.MethodGet, "/api/v1/replays/"+url.PathEscape(j.ID), nil)
	}
	if asJSON {
		if code := a.printJSON(json.RawMessage(b)); code != exitOK {
			return code
		}
	} else {
		fmt.Fprintf(a.Stdout, "job %s: %s, %d done, %d skipped, %d failed\n", j.ID, j.State, j.Done, j.Skipped, j.Failed)
		if j.Error != "" {
			fmt.Fprintln(a.Stdout, printable(j.Error))
		}
	}
	if j.State == "failed" || j.Failed > 0 {
		return exitFound
	}
	return exitOK
}
