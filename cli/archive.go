package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"penstock/archive"
)

func archiveCommand() *command {
	return &command{name: "archive", short: "look at an archive directory, beside a running gateway or at a copy", sub: []*command{
		{name: "check", args: "DIR", short: "is it sound? 0 sound, 1 damage (each named), 2 could not look",
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				asJSON := fs.Bool("json", false, "print JSON")
				return func(_ context.Context, args []string) int {
					if len(args) != 1 {
						return a.usageError("archive check", "name one directory")
					}
					return a.archiveCheck(args[0], *asJSON)
				}
			}},
		{name: "stat", args: "DIR", short: "what is in it",
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				asJSON := fs.Bool("json", false, "print JSON")
				return func(_ context.Context, args []string) int {
					if len(args) != 1 {
						return a.usageError("archive stat", "name one directory")
					}
					return a.archiveStat(args[0], *asJSON)
				}
			}},
		exportCommand(),
	}}
}

// archiveCheck: 0 sound, 1 damage, 2 could not look.
func (a *app) archiveCheck(dir string, asJSON bool) int {
	lines := a.Stdout
	if asJSON {
		lines = io.Discard
	}
	res, err := archive.Check(dir, lines)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	if asJSON {
		out := map[string]any{"sound": res.Sound(), "damage": list(res.Damage), "notes": list(res.Notes), "stat": statJSON(res.Stat)}
		if code := a.printJSON(out); code != exitOK {
			return code
		}
	}
	if !res.Sound() {
		return exitFound
	}
	return exitOK
}

// list is never null in JSON.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

func statJSON(s archive.Stat) map[string]any {
	return map[string]any{
		"segments": s.Segments, "bytes": s.Bytes, "raw_bytes": s.RawBytes, "first_seq": s.FirstSeq, "last_seq": s.LastSeq,
		"deliveries": s.Deliveries, "outcomes": s.Outcomes, "markers": s.Markers, "oldest": instant(s.Oldest), "newest": instant(s.Newest),
		"quarantine_segments": s.QuarantineSegments, "quarantine_bytes": s.QuarantineBytes, "quarantine_raw_bytes": s.QuarantineRawBytes, "rejected": s.Rejected,
	}
}

// instant is a time as JSON has it, null where there is none.
func instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func (a *app) archiveStat(dir string, asJSON bool) int {
	s, err := archive.ReadStat(dir)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	if asJSON {
		return a.printJSON(statJSON(s))
	}
	day := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	size := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	// How many times smaller it is than what arrived, framed; spare files are not counted.
	ratio := func(raw, stored int64) string {
		if stored == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", float64(raw)/float64(stored))
	}
	a.table(a.Stdout, []string{"LOG", "SEGMENTS", "SIZE", "RATIO", "DELIVERIES", "OUTCOMES", "MARKERS", "SEQ", "OLDEST", "NEWEST"}, [][]string{
		{"accepted", fmt.Sprint(s.Segments), size(s.Bytes), ratio(s.RawBytes, s.Bytes), fmt.Sprint(s.Deliveries), fmt.Sprint(s.Outcomes), fmt.Sprint(s.Markers),
			fmt.Sprintf("%d..%d", s.FirstSeq, s.LastSeq), day(s.Oldest), day(s.Newest)},
		{"rejected", fmt.Sprint(s.QuarantineSegments), size(s.QuarantineBytes), ratio(s.QuarantineRawBytes, s.QuarantineBytes), fmt.Sprint(s.Rejected), "", "", "", "", ""},
	}, nil)
	return exitOK
}
