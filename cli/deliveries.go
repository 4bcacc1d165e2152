package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"penstock/config"
)

const defaultAdmin = "http://127.0.0.1:8081"

// filterNames are the API's filters, each a flag of list, replay and tail.
var filterNames = []struct{ name, about string }{
	{"source", "`NAME` of the source"}, {"provider", "`NAME` of the provider"},
	{"verdict", "`accepted`, rejected or challenge"}, {"reason", "reason `CODE` of a refusal"},
	{"outcome", "`published`, duplicate, held, dead, filtered or pending"},
	{"type", "canonical `TYPE`, payment.captured"}, {"event-type", "the provider's own `TYPE`"},
	{"event-id", "the provider's event `ID`"}, {"order-id", "order `ID`"}, {"payment-id", "payment `ID`"},
	{"tenant", "merchant `NAME` behind the source"}, {"request-id", "`ID` of the provider's request"},
	{"idempotency-key", "idempotency `KEY`"}, {"livemode", "`true` or false"}, {"status", "the provider's own `STATUS`"},
	{"from", "received at or after `TIME`: RFC 3339, 2026-05-28 20:00 (UTC), or -2h"}, {"to", "received before `TIME`"}, {"q", "`TEXT` in ids and paths"},
}

// filters declares the filter flags and gives a function that collects them.
func filters(fs *flag.FlagSet) func() url.Values {
	values := map[string]*string{}
	for _, f := range filterNames {
		values[f.name] = fs.String(f.name, "", f.about)
	}
	return func() url.Values {
		out := url.Values{}
		for name, v := range values {
			if *v != "" {
				out.Set(strings.ReplaceAll(name, "-", "_"), *v)
			}
		}
		return out
	}
}

// adminFlags declares how the admin API is reached.
func adminFlags(a *app, fs *flag.FlagSet) func() *adminClient {
	base := fs.String("admin", "", "admin `URL` (default "+defaultAdmin+")")
	token := fs.String("token", "", "bearer `TOKEN` (default $PENSTOCK_ADMIN_TOKEN, else that of --dir)")
	dir := fs.String("dir", "", "`DIR` of penstock dev (default "+devDir+")")
	return func() *adminClient { return a.adminClient(*base, *token, *dir) }
}

// adminClient asks the admin API.
type adminClient struct {
	base  string
	token string
	http  *http.Client
}

func (a *app) adminClient(base, token, dir string) *adminClient {
	if token == "" {
		token = a.Getenv("PENSTOCK_ADMIN_TOKEN")
	}
	named := dir != ""
	if !named {
		dir = devDir
	}
	if token == "" || base == "" && named {
		if c, err := config.Load(devConfig(dir), a.w.Catalogue); err == nil {
			if token == "" && len(c.Admin.Tokens) > 0 {
				token = c.Admin.Tokens[0].Token.Reveal()
			}
			if base == "" && named {
				base = baseURL(c.Admin.Listen, c.Admin.TLS != nil)
			}
		}
	}
	if base == "" {
		base = defaultAdmin
	}
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	base = strings.TrimSuffix(base, "/")
	return &adminClient{base: base, token: token, http: localClient(base)}
}

// do asks and gives the answer of a 2xx; everything else is an error in words.
func (c *adminClient) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return nil, c.refusal(resp, b)
}

// refusal says in words what a problem answer says.
func (c *adminClient) refusal(resp *http.Response, body []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Title  string `json:"title"`
		Error  struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &p)
	text := p.Detail
	for _, t := range []string{p.Error.Message, p.Error.Code, p.Title} {
		if text == "" {
			text = t
		}
	}
	if resp.StatusCode == http.StatusUnauthorized {
		text = "the token is not known here: give --token, or set PENSTOCK_ADMIN_TOKEN"
	}
	return &apiError{status: resp.StatusCode, text: fmt.Sprintf("%s answers %s: %s", c.base, resp.Status, printable(text))}
}

// apiError is what the gateway refuses.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// maxJSON bounds an answer of the API; 500 rows are below 1 MiB.
const maxJSON = 64 << 20

func (c *adminClient) get(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(io.LimitReader(resp.Body, maxJSON))
}

func deliveriesCommand() *command {
	return &command{name: "deliveries", short: "look up, replay and watch deliveries, over the admin API",
		sub: []*command{listCommand(), showCommand(), replayCommand(), releaseCommand(), tailCommand()}}
}

func listCommand() *command {
	return &command{name: "list", short: "list deliveries, newest first", setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
		client, query := adminFlags(a, fs), filters(fs)
		text := fs.String("text", "", "`TEXT` in bodies and headers; give --from too, for the log itself is read")
		limit := fs.Int("limit", 50, "`NUMBER` of rows; more than 500 are fetched page by page")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, args []string) int {
			if len(args) > 0 {
				return a.usageError("deliveries list", "unexpected argument %q", args[0])
			}
			v := query()
			if *text != "" {
				v.Set("text", *text)
			}
			return a.listDeliveries(ctx, client(), v, *limit, *asJSON)
		}
	}}
}

// row is what the table shows of a delivery; the JSON output passes on what the API said.
type row struct {
	ID          string    `json:"id"`
	ReceivedAt  time.Time `json:"received_at"`
	Source      string    `json:"source"`
	Verdict     string    `json:"verdict"`
	Reason      string    `json:"reason"`
	Outcome     string    `json:"outcome"`
	EventType   string    `json:"event_type"`
	Type        string    `json:"type"`
	OrderID     string    `json:"order_id"`
	EventID     string    `json:"event_id"`
	AmountMinor *int64    `json:"amount_minor"`
	Currency    string    `json:"currency"`
	RemoteIP    string    `json:"remote_ip"`
}

const pageLimit = 500

// progress is how far a search of full text has come.
type progress struct {
	Scanned int64  `json:"scanned"`
	Damaged int64  `json:"damaged"`
	Total   int64  `json:"total"`
	Left    int64  `json:"left"`
	Reached string `json:"reached_at"`
}

func (p *progress) add(page *progress) {
	if page == nil {
		return
	}
	page.Scanned += p.Scanned
	page.Damaged += p.Damaged
	if page.Reached == "" {
		page.Reached = p.Reached
	}
	*p = *page
}

func (p *progress) text(found int) string {
	s := fmt.Sprintf("%d found, %d read, %d of %d left", found, p.Scanned, p.Left, p.Total)
	if p.Reached != "" {
		s += ", back to " + printable(p.Reached)
	}
	if p.Damaged > 0 {
		s += fmt.Sprintf("; %d are damaged and could not be read", p.Damaged)
	}
	return s
}

func (a *app) listDeliveries(ctx context.Context, c *adminClient, query url.Values, limit int, asJSON bool) int {
	if limit < 1 {
		return a.usageError("deliveries list", "--limit is at least 1")
	}
	raw, next := []json.RawMessage{}, ""
	var read progress
	for len(raw) < limit {
		query.Set("limit", strconv.Itoa(min(limit-len(raw), pageLimit)))
		b, err := c.get(ctx, http.MethodGet, "/api/v1/deliveries", query)
		if err != nil {
			return a.fail(exitFound, "%v", err)
		}
		var page struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			Next       string            `json:"next"`
			Progress   *progress         `json:"progress"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return a.fail(exitFound, "%s: is no admin API: %v", c.base, err)
		}
		raw = append(raw, page.Deliveries...)
		read.add(page.Progress)
		if read.Total > 0 {
			fmt.Fprintf(a.Stderr, "%s\n", read.text(len(raw)))
		}
		if next = page.Next; next == "" || len(page.Deliveries) == 0 && page.Progress == nil {
			break
		}
		query.Set("cursor", next)
	}
	if asJSON {
		return a.printJSON(map[string]any{"deliveries": raw, "next": next})
	}
	rows := make([]row, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &rows[i]); err != nil {
			return a.fail(exitFound, "%s: row %d: %v", c.base, i, err)
		}
	}
	a.printRows(rows, true)
	if next != "" {
		fmt.Fprintln(a.Stdout, "... and more; --limit shows them")
	}
	return exitOK
}

func (r *row) verdictText() string {
	if r.Reason != "" {
		return r.Verdict + ": " + r.Reason
	}
	return r.Verdict
}

func (r *row) typeText() string {
	if r.Type != "" && r.Type != r.EventType {
		return r.Type
	}
	return r.EventType
}

func (r *row) color(col int) string {
	if col != 3 && col != 4 {
		return ""
	}
	switch {
	case r.Verdict == "rejected" || r.Outcome == "dead":
		return red
	case r.Outcome == "published":
		return green
	case r.Outcome == "held":
		return yellow
	}
	return ""
}

func (a *app) printRows(rows []row, header bool) {
	var cells [][]string
	for i := range rows {
		r := &rows[i]
		subject := r.OrderID
		if subject == "" {
			subject = r.EventID
		}
		amount := ""
		if r.AmountMinor != nil {
			amount = fmt.Sprintf("%d %s", *r.AmountMinor, r.Currency)
		}
		cells = append(cells, []string{r.ID, r.ReceivedAt.UTC().Format("2006-01-02T15:04:05.000Z"), r.Source, r.verdictText(), r.Outcome, r.typeText(), subject, strings.TrimSpace(amount), r.RemoteIP})
	}
	titles := []string{"ID", "RECEIVED", "SOURCE", "VERDICT", "OUTCOME", "TYPE", "ORDER/EVENT", "MINOR", "FROM"}
	if !header {
		for i := range titles {
			titles[i] = ""
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.Stdout, "no deliveries")
		return
	}
	a.table(a.Stdout, titles, cells, func(n, col int) string { return rows[n].color(col) })
}

func tailCommand() *command {
	return &command{name: "tail", short: "watch deliveries as they come, or send them on to your own machine", long: `
Prints each delivery that arrives from now on, and again when it gets another outcome.
Connections that break and a gateway that restarts are waited for; what arrived meanwhile
follows, nothing twice.

--forward-to sends each accepted delivery that arrives (or those of --verdict) to a program
of yours: with its method, query, headers and exact bytes, so that its signature holds. The
path is the URL's. Wants an operator's token, for headers are not masked.`, setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
		client, query := adminFlags(a, fs), filters(fs)
		asJSON := fs.Bool("json", false, "print one JSON object a line")
		count := fs.Int("count", 0, "end after `NUMBER` rows; 0 = never")
		forwardTo := fs.String("forward-to", "", "send deliveries on to `URL`, http://localhost:3000/webhooks")
		return func(ctx context.Context, args []string) int {
			if len(args) > 0 {
				return a.usageError("deliveries tail", "unexpected argument %q", args[0])
			}
			if *forwardTo != "" {
				to, err := forwardTarget(*forwardTo)
				if err != nil {
					return a.usageError("deliveries tail", "%v", err)
				}
				return a.tailForward(ctx, client(), query(), to, *asJSON, *count)
			}
			return a.tail(ctx, client(), query(), *asJSON, *count)
		}
	}}
}

// tail prints what arrives, and what becomes of it, until ctx ends, across breaks.
func (a *app) tail(ctx context.Context, c *adminClient, query url.Values, asJSON bool, count int) int {
	defer c.http.CloseIdleConnections()
	shown := 0
	f := &follower{c: c, query: query, outcomes: true, handle: func(_ context.Context, r *row, raw json.RawMessage) error {
		a.tailRow(r, raw, asJSON)
		if shown++; shown == count {
			return errStop
		}
		return nil
	}, say: a.say}
	if err := f.run(ctx); err != nil {
		return a.fail(exitFound, "%v", err)
	}
	return exitOK
}

// say tells whoever looks on what is no part of the output.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "penstock: "+format+"\n", args...)
}

func (a *app) tailRow(r *row, raw json.RawMessage, asJSON bool) {
	if asJSON {
		fmt.Fprintln(a.Stdout, string(raw))
		return
	}
	subject := r.OrderID
	if subject == "" {
		subject = r.EventID
	}
	line := fmt.Sprintf("%s  %-14s %-28s %-10s %-24s %s", r.ReceivedAt.UTC().Format("15:04:05.000"), printable(r.Source),
		printable(r.verdictText()), printable(r.Outcome), printable(r.typeText()), printable(subject))
	fmt.Fprintln(a.Stdout, r.ID+"  "+a.paint(r.color(3), strings.TrimRight(line, " ")))
}

// writeFile writes to a file, or to standard output for "-".
func (a *app) writeFile(path string, b []byte) error {
	if path == "-" {
		_, err := a.Stdout.Write(b)
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
