package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"penstock/archive"
	"penstock/config"
)

func archiveCommand() *command {
	return &command{name: "archive", short: "look at an archive directory, beside a running gateway or at a copy", sub: []*command{
		{name: "check", args: "DIR", short: "is it sound? 0 sound, 1 damage (each named), 2 could not look",
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				asJSON, conf := fs.Bool("json", false, "print JSON"), keyFlag(fs)
				return func(_ context.Context, args []string) int {
					if len(args) != 1 {
						return a.usageError("archive check", "name one directory")
					}
					return a.archiveCheck(args[0], *conf, *asJSON)
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
		{name: "rekey", args: "DIR", short: "wrap the keyring of a stopped gateway by the key now in the configuration", long: `
The key in force is archive.encryption.key of the configuration, the ones before it stand in
archive.encryption.previous. Bodies are not touched: their keys are wrapped anew. serve does
the same when it starts.`,
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				conf := keyFlag(fs)
				return func(_ context.Context, args []string) int {
					if len(args) != 1 {
						return a.usageError("archive rekey", "name one directory")
					}
					e, err := a.encryption(*conf)
					if err == nil && e == nil {
						err = errNoArchiveKey
					}
					if err == nil {
						err = archive.Rekey(args[0], e.Key, e.Previous...)
					}
					if err != nil {
						return a.fail(exitUsage, "%v", err)
					}
					return exitOK
				}
			}},
		{name: "erase", args: "[DIR]", short: "destroy the key of what a source sent in a month", long: `
Without DIR a running gateway does it, over its admin API; with DIR it must be stopped.

What that key sealed can then be read by nobody, in no copy of the archive that has the new
keyring: bodies, headers, ids. The rows stay and say so; their bodies answer 410. The index
is built anew with the next start. Copies of the keyring elsewhere (backups) hold
the key still: replace them.`,
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				conf, client := keyFlag(fs), adminFlags(a, fs)
				source, month := fs.String("source", "", "`NAME` of the source"), fs.String("month", "", "`YYYY-MM`, UTC, by the time of receipt; it must be over")
				return func(ctx context.Context, args []string) int {
					if len(args) > 1 || *source == "" || *month == "" {
						return a.usageError("archive erase", "name --source and --month, and one directory where the gateway is stopped")
					}
					if len(args) == 0 {
						return a.eraseRunning(ctx, client(), *source, *month)
					}
					return a.archiveErase(args[0], *conf, *source, *month)
				}
			}},
	}}
}

// errNoArchiveKey says where a key is taken from.
var errNoArchiveKey = errors.New("the archive is encrypted: name the configuration with -c, or put its key into PENSTOCK_ARCHIVE_KEY")

func keyFlag(fs *flag.FlagSet) *string {
	return fs.String("c", "", "configuration `FILE` whose archive.encryption holds the key; without it PENSTOCK_ARCHIVE_KEY is taken")
}

// encryption gives the keys of a configuration or of the environment; nil where there are none.
func (a *app) encryption(file string) (*archive.Encryption, error) {
	if file == "" {
		text := os.Getenv("PENSTOCK_ARCHIVE_KEY")
		if text == "" {
			return nil, nil
		}
		key, err := config.Secret(text).Key()
		if err != nil {
			return nil, fmt.Errorf("PENSTOCK_ARCHIVE_KEY: %w", err)
		}
		return &archive.Encryption{Key: key}, nil
	}
	conf, err := config.Load(file, a.w.Catalogue)
	if err != nil {
		return nil, err
	}
	return ArchiveEncryption(conf)
}

// ArchiveEncryption is what the configuration encrypts the archive with; nil: nothing.
func ArchiveEncryption(conf *config.Config) (*archive.Encryption, error) {
	key, previous, err := VaultKeys(conf)
	if key == nil {
		return nil, err
	}
	return &archive.Encryption{Key: key, Previous: previous}, nil
}

// archiveKeys opens the keyring of an archive; nil where there is none, or no key.
func (a *app) archiveKeys(dir, file string) (*archive.Keys, error) {
	e, err := a.encryption(file)
	if err != nil || e == nil {
		return nil, err
	}
	return archive.OpenKeys(dir, *e)
}

func (a *app) archiveErase(dir, file, source, month string) int {
	e, err := a.encryption(file)
	if err == nil && e == nil {
		err = errNoArchiveKey
	}
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	before, err := archive.EraseKey(dir, *e, source, month)
	if errors.Is(err, archive.ErrLocked) {
		err = fmt.Errorf("%w; or leave the directory out, and the running gateway is asked", err)
	}
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	return a.tellErased(source, month, before)
}

// eraseRunning asks a running gateway.
func (a *app) eraseRunning(ctx context.Context, c *adminClient, source, month string) int {
	b, err := c.get(ctx, http.MethodDelete, "/api/v1/sources/"+url.PathEscape(source)+"/keys/"+url.PathEscape(month), nil)
	var answer struct {
		Before time.Time `json:"before"`
	}
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	return a.tellErased(printable(source), printable(month), answer.Before)
}

func (a *app) tellErased(source, month string, before time.Time) int {
	if !before.IsZero() {
		fmt.Fprintf(a.Stdout, "the key of %s for %s was destroyed on %s already\n", source, month, before.Format(time.DateOnly))
		return exitOK
	}
	fmt.Fprintf(a.Stdout, "the key of %s for %s is destroyed; the index is built anew with the next start\n", source, month)
	return exitOK
}

// archiveCheck: 0 sound, 1 damage, 2 could not look.
func (a *app) archiveCheck(dir, conf string, asJSON bool) int {
	keys, err := a.archiveKeys(dir, conf)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	lines := a.Stdout
	if asJSON {
		lines = io.Discard
	}
	res, err := archive.CheckWith(dir, keys, lines)
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
