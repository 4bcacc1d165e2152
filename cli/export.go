package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"penstock/archive"
	"penstock/provider"
)

// exportFlags are what `archive export` takes out.
type exportFlags struct {
	source    string
	rejected  bool
	outcomes  bool
	from, to  string
	fromT, tT time.Time
}

func exportCommand() *command {
	return &command{name: "export", args: "DIR", short: "write deliveries as NDJSON, one object a line, oldest first", long: `
A line is a delivery with its headers in order and its body in base64, exactly as it was
received; with --outcomes also what became of each event ("kind":"outcome"). Damaged
records are named on standard error and skipped; the exit code is then 1.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			f := &exportFlags{}
			fs.StringVar(&f.source, "source", "", "only this source's `NAME`")
			fs.BoolVar(&f.rejected, "rejected", false, "the refused ones, in place of the accepted")
			fs.BoolVar(&f.outcomes, "outcomes", false, "outcomes too")
			fs.StringVar(&f.from, "from", "", "received at or after `TIME`, RFC 3339")
			fs.StringVar(&f.to, "to", "", "received before `TIME`, RFC 3339")
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("archive export", "name one directory")
				}
				for _, t := range []struct {
					text string
					at   *time.Time
				}{{f.from, &f.fromT}, {f.to, &f.tT}} {
					var err error
					if t.text == "" {
						continue
					}
					if *t.at, err = time.Parse(time.RFC3339, t.text); err != nil {
						return a.usageError("archive export", "%q is no RFC 3339 time", t.text)
					}
				}
				return a.export(ctx, args[0], f)
			}
		}}
}

// exported is one line.
type exported struct {
	Kind       string      `json:"kind"` // delivery or outcome
	Seq        uint64      `json:"seq"`
	ID         string      `json:"id,omitempty"`
	ReceivedAt string      `json:"received_at,omitempty"`
	Source     string      `json:"source,omitempty"`
	Provider   string      `json:"provider,omitempty"`
	Tenant     string      `json:"tenant,omitempty"`
	Verdict    string      `json:"verdict,omitempty"`
	Reason     string      `json:"reason,omitempty"`
	VerifiedBy string      `json:"verified_by,omitempty"`
	RemoteIP   string      `json:"remote_ip,omitempty"`
	Method     string      `json:"method,omitempty"`
	Target     string      `json:"target,omitempty"`
	Headers    [][2]string `json:"headers,omitempty"`
	BodyB64    *string     `json:"body_b64,omitempty"`

	Delivery  uint64          `json:"delivery_seq,omitempty"`
	Event     *int            `json:"event,omitempty"`
	Outcome   string          `json:"outcome,omitempty"`
	Of        string          `json:"of,omitempty"`
	At        string          `json:"at,omitempty"`
	Sink      string          `json:"sink,omitempty"`
	Topic     string          `json:"topic,omitempty"`
	Partition *int32          `json:"partition,omitempty"`
	Offset    *int64          `json:"offset,omitempty"`
	Replay    string          `json:"replay,omitempty"`
	Fields    *archive.Fields `json:"fields,omitempty"`
}

func (a *app) export(ctx context.Context, dir string, f *exportFlags) int {
	out := bufio.NewWriterSize(a.Stdout, 1<<20)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	damaged := 0
	err := archive.Walk(dir, f.rejected, func(r archive.Record) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case r.Corrupt != nil:
			damaged++
			fmt.Fprintf(a.Stderr, "damage: %v\n", r.Corrupt)
		case r.Delivery != nil && f.wants(r.Delivery):
			return enc.Encode(exportDelivery(r.Delivery))
		case r.Outcome != nil && f.outcomes:
			return enc.Encode(exportOutcome(r.Outcome))
		}
		return nil
	})
	if err = errors.Join(err, out.Flush()); err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	if damaged > 0 {
		return exitFound
	}
	return exitOK
}

func (f *exportFlags) wants(d *archive.Delivery) bool {
	return (f.source == "" || d.Source == f.source) &&
		(f.fromT.IsZero() || !d.ReceivedAt.Before(f.fromT)) && (f.tT.IsZero() || d.ReceivedAt.Before(f.tT))
}

func exportDelivery(d *archive.Delivery) exported {
	body := base64.StdEncoding.EncodeToString(d.Body)
	e := exported{Kind: "delivery", Seq: d.Seq, ID: d.ID, ReceivedAt: d.ReceivedAt.UTC().Format(time.RFC3339Nano), Source: d.Source,
		Provider: d.Provider, Tenant: d.Tenant, Verdict: d.Verdict.String(), Reason: d.Reason, VerifiedBy: d.VerifiedBy,
		Method: d.Method, Target: string(d.Target), Headers: [][2]string{}, BodyB64: &body}
	if d.RemoteIP.IsValid() {
		e.RemoteIP = d.RemoteIP.String()
	}
	provider.Header(d.Header).Each(func(k, v []byte) bool {
		e.Headers = append(e.Headers, [2]string{string(k), string(v)})
		return true
	})
	return e
}

func exportOutcome(o *archive.Outcome) exported {
	e := exported{Kind: "outcome", Seq: o.Seq, Delivery: o.Delivery, Event: &o.Item, Outcome: o.Kind.String(), Reason: o.Reason, Of: o.Of,
		At: o.At.UTC().Format(time.RFC3339Nano), Sink: o.Sink, Topic: o.Topic, Replay: o.Replay, Fields: &o.Fields}
	if o.Kind == archive.Published {
		e.Partition, e.Offset = &o.Partition, &o.Offset
	}
	return e
}
