package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// sendFlags are what `send` was asked.
type sendFlags struct {
	provider, typ, source, file, dir, to, body string

	count, concurrency int
	rate               float64
	duplicates         string
	tamper, live, json bool
}

func sendCommand() *command {
	return &command{name: "send", args: "PROVIDER", short: "send deliveries, signed as the provider signs them", long: `
The credentials are those of the source in -c FILE, or of "penstock dev" in --dir. Each
delivery is an event of its own; --duplicates 0.3 makes three of ten repeats of an earlier
one, signed anew. --tamper changes each after it was signed, and then expects a refusal.
Exit code 1 when an answer was not the expected one: status, and body where the provider
prescribes one.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			f := &sendFlags{}
			fs.StringVar(&f.typ, "type", "", "event `TYPE`; `penstock providers show NAME` lists them")
			fs.StringVar(&f.source, "source", "", "source `NAME`, where the provider has several")
			fs.StringVar(&f.file, "c", "", "configuration `FILE`")
			fs.StringVar(&f.dir, "dir", "", "`DIR` of penstock dev (default "+devDir+")")
			fs.StringVar(&f.to, "to", "", "`URL`: an origin, or with a path the whole address (default: the configuration's)")
			fs.IntVar(&f.count, "count", 1, "`NUMBER` of deliveries")
			fs.Float64Var(&f.rate, "rate", 0, "deliveries per `SECOND`; 0 = as fast as answered")
			fs.StringVar(&f.duplicates, "duplicates", "0", "`SHARE` that repeats an earlier one: 0.3 or 30%")
			fs.IntVar(&f.concurrency, "concurrency", 1, "`NUMBER` in flight")
			fs.BoolVar(&f.tamper, "tamper", false, "change each after it was signed")
			fs.StringVar(&f.body, "body", "", "`FILE` to send as the body in place of a sample")
			fs.BoolVar(&f.live, "live", false, "samples say that they are no test events")
			fs.BoolVar(&f.json, "json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("send", "name one provider")
				}
				f.provider = args[0]
				return a.send(ctx, f)
			}
		}}
}

func (a *app) send(ctx context.Context, f *sendFlags) int {
	if f.count < 1 || f.concurrency < 1 || f.concurrency > 10000 || f.rate < 0 {
		return a.usageError("send", "--count and --concurrency are at least 1, --rate is not negative")
	}
	share, err := parseShare(f.duplicates)
	if err != nil {
		return a.usageError("send", "--duplicates: %v", err)
	}
	cfg, code := a.sendConfig(f)
	if cfg == nil {
		return code
	}
	s, err := findSource(cfg, f.source, f.provider)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	v, err := signerOf(s)
	if err != nil {
		return a.fail(exitUsage, "source %s: %v", s.Name, err)
	}
	to, err := targetURL(cfg, s, f.to)
	if err != nil {
		return a.usageError("send", "--to: %v", err)
	}
	def := s.Definition.(*provider.Definition)
	events, err := newSampler(def, f.typ, f.body, f.live)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	l := &load{flags: f, share: share, to: to, signURL: signedURL(s, to), verifier: v, events: events, client: sendClient(to, f.concurrency)}
	if f.tamper {
		if l.stranger, err = strangerOf(s); err != nil {
			return a.fail(exitUsage, "source %s: %v", s.Name, err)
		}
	}
	res := l.run(ctx)
	if f.json {
		if code := a.printJSON(res.json()); code != exitOK {
			return code
		}
	} else {
		a.printSent(res)
	}
	if res.unexpected > 0 || res.sent == 0 {
		return exitFound
	}
	return exitOK
}

// sendConfig reads -c, or the configuration in force of a dev directory.
func (a *app) sendConfig(f *sendFlags) (*config.Config, int) {
	file := f.file
	if file == "" {
		dir := f.dir
		if dir == "" {
			dir = devDir
		}
		file = devConfig(dir)
		if _, err := os.Stat(file); err != nil && f.dir == "" {
			return nil, a.fail(exitUsage, "no -c FILE, and %s is not there: start penstock dev, or name a configuration", file)
		}
	} else if f.dir != "" {
		return nil, a.usageError("send", "give -c or --dir, not both")
	}
	c, ok := a.load(file)
	if !ok {
		return nil, exitUsage
	}
	return c, exitOK
}

func parseShare(s string) (float64, error) {
	scale := 1.0
	if cut, ok := strings.CutSuffix(s, "%"); ok {
		s, scale = cut, 100
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v/scale >= 0 && v/scale < 1) {
		return 0, fmt.Errorf("%q is no share; write 0.3 or 30%%", s)
	}
	return v / scale, nil
}

// targetURL is where deliveries go: --to, or the configured listener, at the source's path.
func targetURL(c *config.Config, s *config.Source, to string) (*url.URL, error) {
	if to == "" {
		to = baseURL(c.Ingest.Listen, c.Ingest.TLS != nil)
	} else if !strings.Contains(to, "://") {
		to = "http://" + to
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL", to)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = s.Path
	}
	return u, nil
}

// signedURL is the address that the provider believes to call: schemes that sign it sign
// the public one.
func signedURL(s *config.Source, to *url.URL) string {
	if u := s.URL(); u != "" {
		return u
	}
	return to.String()
}

// strangerOf signs with made-up credentials of the right shape: for what no change of the
// body breaks, such as a shared token.
func strangerOf(s *config.Source) (*verify.Verifier, error) {
	def := s.Definition.(*provider.Definition)
	creds, err := verify.DevCredentials(def, randomReader)
	if err != nil {
		return nil, err
	}
	// The merchant stays: only who signed is another.
	for _, c := range def.EffectiveCredentials() {
		if c.Role == "merchant" || c.Role == "username" {
			delete(creds, c.Name)
			for _, v := range s.Credentials[c.Name] {
				creds[c.Name] = append(creds[c.Name], v.Reveal())
			}
		}
	}
	return verify.New(def, creds, verify.Options{Tolerance: s.Tolerance, Settings: s.Settings})
}

// sendTimeout is more than any provider waits; an answer after it is a failure.
const sendTimeout = 30 * time.Second
