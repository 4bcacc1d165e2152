package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

func auditCommand() *command {
	return &command{name: "audit", short: "who did what, newest first, over the admin API", long: `
Wants an operator's token. A result "begun" that stays is of a process that was killed
before the end of it was known.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			query := url.Values{}
			for _, f := range []struct{ name, about string }{
				{"action", "`ACTION`: replay, reverify, source.pause, tenant.put, reload, login, body.read, headers.read, body.search ..."},
				{"kind", "`KIND`: acts (what was done) or looks (what was only looked at)"},
				{"who", "`NAME` of the token or person"}, {"subject", "`ID` of a delivery or job, or name of a source"},
				{"from", "at or after `TIME`: RFC 3339, 2026-05-28 20:00 (UTC), or -2h"}, {"to", "before `TIME`"},
			} {
				fs.Func(f.name, f.about, func(v string) error { query.Set(f.name, v); return nil })
			}
			limit := fs.Int("limit", 50, "`NUMBER` of entries; more than 500 are fetched page by page")
			asJSON := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) > 0 || *limit < 1 {
					return a.usageError("audit", "want flags alone, and --limit at least 1")
				}
				return a.auditLog(ctx, client(), query, *limit, *asJSON)
			}
		}}
}

// auditRow is what the table shows of an entry.
type auditRow struct {
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
	Who     string    `json:"who"`
	Role    string    `json:"role"`
	From    string    `json:"from"`
	Result  string    `json:"result"`
	Missed  uint64    `json:"missed"`
}

func (a *app) auditLog(ctx context.Context, c *adminClient, query url.Values, limit int, asJSON bool) int {
	entries, next := []json.RawMessage{}, ""
	for len(entries) < limit {
		query.Set("limit", strconv.Itoa(min(limit-len(entries), pageLimit)))
		b, err := c.get(ctx, http.MethodGet, "/api/v1/audit", query)
		if err != nil {
			return a.fail(exitFound, "%v", err)
		}
		var page struct {
			Entries []json.RawMessage `json:"entries"`
			Next    string            `json:"next"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return a.fail(exitFound, "%s: is no admin API: %v", c.base, err)
		}
		entries, next = append(entries, page.Entries...), page.Next
		if next == "" {
			break
		}
		query.Set("cursor", next)
	}
	if asJSON {
		return a.printJSON(map[string]any{"entries": entries, "next": next})
	}
	rows, cells := make([]auditRow, len(entries)), [][]string{}
	for i := range entries {
		r := &rows[i]
		if err := json.Unmarshal(entries[i], r); err != nil {
			return a.fail(exitFound, "%s: entry %d: %v", c.base, i, err)
		}
		detail := r.Detail
		if r.Missed > 0 {
			detail += fmt.Sprintf(" (%d refused attempts before it are not recorded)", r.Missed)
		}
		cells = append(cells, []string{r.At.UTC().Format("2006-01-02T15:04:05.000Z"), r.Who, r.Role, r.From, r.Action, r.Result, r.Subject, detail})
	}
	if len(cells) == 0 {
		fmt.Fprintln(a.Stdout, "no entries")
		return exitOK
	}
	a.table(a.Stdout, []string{"AT", "WHO", "ROLE", "FROM", "ACTION", "RESULT", "SUBJECT", "DETAIL"}, cells, func(n, col int) string {
		switch {
		case col == 5 && rows[n].Result == "done":
			return green
		case col == 5:
			return red
		}
		return ""
	})
	if next != "" {
		fmt.Fprintln(a.Stdout, "... and more; --limit shows them")
	}
	return exitOK
}
