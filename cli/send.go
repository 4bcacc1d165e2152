package cli

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/config"
	"penstock/provider"
	"penstock/verify"
)

// sendFlags are what `send` was asked.
type sendFlags struct {
	provider, typ, source, file, dir, to, body, secret string

	count, concurrency int
	rate               float64
	duplicates         string

	tamper, stale, live, list, json bool
}

func sendCommand() *command {
	return &command{name: "send", args: "PROVIDER", short: "send deliveries, signed as the provider signs them", long: `
The credentials are those of the source in -c FILE, or of "penstock dev" in --dir. Each
delivery is an event of its own; --duplicates 0.3 makes three of ten repeats of an earlier
one, signed anew; --duplicates 3 sends each three times more. --tamper changes each after
it was signed, --stale signs it as of long ago; both then expect a refusal. --list shows
the events that there are, by the provider's word and by the canonical type; --type takes
either. With --secret no configuration is needed: any server that takes the provider's
webhooks can be tested, as in
  penstock send stripe --secret env:WHSEC --to http://localhost:3000/webhook
Exit code 1 when an answer was not the expected one: status, and body where the provider
prescribes one.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			f := &sendFlags{}
			fs.StringVar(&f.typ, "type", "", "event `TYPE`, the provider's word or a canonical type; --list shows them")
			fs.BoolVar(&f.list, "list", false, "list the events that can be sent, and send none")
			fs.StringVar(&f.secret, "secret", "", "sign with `SECRET` (or env:NAME, file:PATH) in place of the configuration's")
			fs.StringVar(&f.source, "source", "", "source `NAME`, where the provider has several")
			fs.StringVar(&f.file, "c", "", "configuration `FILE`")
			fs.StringVar(&f.dir, "dir", "", "`DIR` of penstock dev (default "+devDir+")")
			fs.StringVar(&f.to, "to", "", "`URL`: an origin, or with a path the whole address (default: the configuration's)")
			fs.IntVar(&f.count, "count", 1, "`NUMBER` of deliveries")
			fs.Float64Var(&f.rate, "rate", 0, "deliveries per `SECOND`; 0 = as fast as answered")
			fs.StringVar(&f.duplicates, "duplicates", "0", "`SHARE` that repeats an earlier one: 0.3 or 30%; a whole number sends each so often again")
			fs.IntVar(&f.concurrency, "concurrency", 1, "`NUMBER` in flight")
			fs.BoolVar(&f.tamper, "tamper", false, "change each after it was signed")
			fs.BoolVar(&f.stale, "stale", false, "sign each with a time that is no longer allowed")
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
	if f.tamper && f.stale {
		return a.usageError("send", "give --tamper or --stale, not both: each asks for a refusal of its own")
	}
	if f.list {
		return a.listSamples(f)
	}
	l := &load{flags: f}
	var err error
	if l.share, l.times, err = parseDuplicates(f.duplicates); err != nil {
		return a.usageError("send", "--duplicates: %v", err)
	}
	def, code := a.aim(f, l)
	if def == nil {
		return code
	}
	if l.events, err = newSampler(def, f.typ, f.body, f.live); err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	l.client = sendClient(l.to, f.concurrency)
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

// aim finds what signs and where it goes: the source of a configuration, or with --secret
// alone a provider of the catalogue and any URL.
func (a *app) aim(f *sendFlags, l *load) (*provider.Definition, int) {
	if f.secret != "" && f.file == "" && f.dir == "" && f.source == "" {
		return a.aimFreely(f, l)
	}
	cfg, code := a.sendConfig(f)
	if cfg == nil {
		return nil, code
	}
	s, err := findSource(cfg, f.source, f.provider)
	if err != nil {
		return nil, a.fail(exitUsage, "%v", err)
	}
	def := s.Definition.(*provider.Definition)
	creds := revealed(s.Credentials)
	for _, id := range slices.Sorted(maps.Keys(s.Tenants)) {
		creds = revealed(s.Tenants[id]) // signerOf signs for the first merchant
		break
	}
	opts := verify.Options{Tolerance: s.Tolerance, Settings: s.Settings}
	if f.secret == "" {
		l.verifier, err = signerOf(s)
	} else {
		if err := putSecret(def, creds, f.secret); err != nil {
			return nil, a.usageError("send", "--secret: %v", err)
		}
		l.verifier, err = verify.New(def, creds, opts)
	}
	if err != nil {
		return nil, a.fail(exitUsage, "source %s: %v", s.Name, err)
	}
	if l.to, err = targetURL(cfg, s, f.to); err != nil {
		return nil, a.usageError("send", "--to: %v", err)
	}
	l.signURL = signedURL(s, l.to)
	return def, a.arm(l, def, creds, opts)
}

// arm readies what --tamper and --stale want.
func (a *app) arm(l *load, def *provider.Definition, creds provider.Credentials, opts verify.Options) int {
	if l.flags.tamper {
		var err error
		if l.stranger, err = strangerOf(def, creds, opts); err != nil {
			return a.fail(exitUsage, "%s: %v", def.Name, err)
		}
	}
	if l.flags.stale {
		l.staleBy = 2 * max(time.Hour, def.Tolerance)
		if opts.Tolerance != nil {
			l.staleBy = 2 * max(time.Hour, *opts.Tolerance)
		}
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

// parseDuplicates reads a share ("0.3", "30%") or how often each is sent again ("3").
func parseDuplicates(s string) (share float64, times int, err error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 1 && n <= maxTimes {
		return 0, n, nil
	}
	scale := 1.0
	cut, percent := strings.CutSuffix(s, "%")
	if percent {
		scale = 100
	}
	v, err := strconv.ParseFloat(cut, 64)
	if err != nil || !(v/scale >= 0 && v/scale < 1) {
		return 0, 0, fmt.Errorf("%q is no share and no number of repeats; write 0.3, 30%% or 3", s)
	}
	return v / scale, 0, nil
}

// maxTimes is how often one delivery may be sent again.
const maxTimes = 1000

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
func strangerOf(def *provider.Definition, own provider.Credentials, opts verify.Options) (*verify.Verifier, error) {
	creds, err := verify.DevCredentials(def, randomReader)
	if err != nil {
		return nil, err
	}
	// The merchant stays: only who signed is another.
	for _, c := range def.EffectiveCredentials() {
		if c.Role == "merchant" || c.Role == "username" {
			delete(creds, c.Name)
			if len(own[c.Name]) > 0 {
				creds[c.Name] = own[c.Name]
			}
		}
	}
	return verify.New(def, creds, opts)
}

// sendTimeout is more than any provider waits; an answer after it is a failure.
const sendTimeout = 30 * time.Second
