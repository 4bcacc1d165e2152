package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"penstock/archive"
	"penstock/provider"
)

// exportFlags are what `archive export` takes out, and how.
type exportFlags struct {
	format             string
	out                string
	rejected, outcomes bool
	limit              int
	quiet              bool
	filter             archive.Filter
	keys               *archive.Keys
}

func exportCommand() *command {
	return &command{name: "export", args: "DIR", short: "take deliveries or their rows out, oldest first", long: `
ndjson: a line is a delivery with its headers in order and its body in base64, exactly as
it was received; with --outcomes also what became of each event ("kind":"outcome").
csv, parquet: a line is the delivery's row, which is what a reconciliation wants: order,
payment, status, amount in minor units, currency, ids and times. A csv value that a
spreadsheet would run begins with an apostrophe.

The filters are those of deliveries list. The directory is only read, and not locked: a
copy will do, and so will that of a running gateway. Fields come from the outcomes, so a
delivery that has none yet has no order. Damaged records are named on standard error and
skipped; the exit code is then 1.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			f, query := &exportFlags{}, filters(fs)
			fs.StringVar(&f.format, "format", "ndjson", "`ndjson`, csv or parquet")
			fs.StringVar(&f.out, "out", "-", "`FILE` to write; - is standard output")
			fs.BoolVar(&f.rejected, "rejected", false, "the refused ones, in place of the accepted")
			fs.BoolVar(&f.outcomes, "outcomes", false, "outcomes too (ndjson, with --source, --from and --to alone)")
			fs.IntVar(&f.limit, "limit", 0, "`NUMBER` of deliveries; 0 = all")
			fs.BoolVar(&f.quiet, "quiet", false, "no progress on standard error")
			text, conf := fs.String("text", "", "`TEXT` in bodies and headers"), keyFlag(fs)
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("archive export", "name one directory")
				}
				v := query()
				if *text != "" {
					v.Set("text", *text)
				}
				if err := f.read(v); err != nil {
					return a.usageError("archive export", "%v", err)
				}
				keys, err := a.archiveKeys(args[0], *conf)
				if err == nil && keys == nil && archive.Encrypted(args[0]) {
					err = errNoArchiveKey
				}
				if err != nil {
					return a.fail(exitUsage, "%v", err)
				}
				f.keys = keys
				return a.export(ctx, args[0], f)
			}
		}}
}

// read turns the flags into a filter.
func (f *exportFlags) read(v url.Values) (err error) {
	if f.format != "ndjson" && f.format != "csv" && f.format != "parquet" {
		return fmt.Errorf("--format %q is none of ndjson, csv, parquet", f.format)
	}
	if f.limit < 0 {
		return errors.New("--limit is at least 1, or 0 for all")
	}
	plain := len(v)
	for _, name := range []string{"source", "from", "to"} {
		if v.Has(name) {
			plain--
		}
	}
	if f.outcomes && (f.format != "ndjson" || plain > 0 || f.limit > 0) {
		return errors.New("--outcomes goes with --format ndjson and the filters --source, --from and --to alone")
	}
	if f.filter, err = archive.ParseFilter(v, time.Now()); err != nil {
		return err
	}
	f.filter.Limit = f.limit
	f.rejected = f.rejected || f.filter.Verdict == archive.Rejected.String()
	return nil
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
	file, done, err := a.exportFile(f.out)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	out := bufio.NewWriterSize(file, 1<<20)
	damaged := 0
	e := &archive.Export{Dir: dir, Keys: f.keys, Rejected: f.rejected, Filter: f.filter, Damaged: func(err error) {
		damaged++
		fmt.Fprintf(a.Stderr, "damage: %v\n", err)
	}}
	n := 0
	if !f.quiet {
		e.Progress = a.exportProgress(&n)
	}
	switch {
	case f.outcomes:
		err = a.exportLog(ctx, e, out)
	case f.format == "ndjson":
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		err = e.Deliveries(ctx, func(d *archive.Delivery) error { n++; return enc.Encode(exportDelivery(d)) })
	default:
		w := newRowFile(f.format, out)
		err = e.Rows(ctx, func(r archive.Row) error { n++; return w.add(&r) })
		err = errors.Join(err, w.close())
	}
	if err = errors.Join(err, out.Flush(), done()); err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	if !f.quiet && !f.outcomes {
		fmt.Fprintf(a.Stderr, "%d deliveries\n", n)
	}
	if damaged > 0 {
		return exitFound
	}
	return exitOK
}

// exportFile opens what is written to, and gives what ends it.
func (a *app) exportFile(name string) (io.Writer, func() error, error) {
	if name == "-" {
		return a.Stdout, func() error { return nil }, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// exportProgress says once a second how far it is.
func (a *app) exportProgress(n *int) func(pass string, seq, last uint64) {
	said := time.Now()
	return func(pass string, seq, last uint64) {
		if time.Since(said) < time.Second {
			return
		}
		said = time.Now()
		of := ""
		if last >= seq {
			of = fmt.Sprintf(" of %d", last)
		}
		fmt.Fprintf(a.Stderr, "%s: record %d%s, %d deliveries so far\n", pass, seq, of, *n)
	}
}

// exportLog writes deliveries and outcomes as they stand in the log.
func (a *app) exportLog(ctx context.Context, e *archive.Export, out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	f := &e.Filter
	return archive.WalkWith(e.Dir, e.Keys, e.Rejected, func(r archive.Record) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case r.Corrupt != nil:
			e.Damaged(r.Corrupt)
		case r.Delivery != nil && (f.Source == "" || r.Delivery.Source == f.Source) &&
			(f.From.IsZero() || !r.Delivery.ReceivedAt.Before(f.From)) && (f.To.IsZero() || r.Delivery.ReceivedAt.Before(f.To)):
			return enc.Encode(exportDelivery(r.Delivery))
		case r.Outcome != nil:
			return enc.Encode(exportOutcome(r.Outcome))
		}
		return nil
	})
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
