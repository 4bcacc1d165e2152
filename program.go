package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"penstock/admin"
	"penstock/archive"
	"penstock/cli"
	"penstock/config"
	"penstock/dedupe"
	"penstock/fetch"
	"penstock/forward"
	"penstock/ingest"
	"penstock/iplist"
	"penstock/notify"
	"penstock/provider"
	"penstock/trace"
	"penstock/vault"
	"penstock/verify"
)

// reloadWithin is how long an operator's reload waits for its turn: a look at files that
// never rest gives up within it.
const reloadWithin = 12 * time.Second

// program is one running gateway. pump and dedupe are nil while no sink is configured.
type program struct {
	conf    atomic.Pointer[config.Config]
	failed  atomic.Pointer[string] // why the changed file is not in force; nil = it is
	asked   chan chan<- error      // reloads that an operator waits for; watch answers
	log     *zap.Logger
	archive *archive.Archive
	keys    *fetch.Fetcher
	epochs  *epochs
	dedupe  *dedupe.Deduper
	pump    *forward.Pump // to Kafka, where there is one, else to HTTP targets
	beside  *forward.Pump // to HTTP targets, where pump goes to Kafka
	lists   *iplist.Keeper
	ingest  *ingest.Server
	admin   *admin.Server
	notify  *notify.Engine
	tracer  *trace.Tracer // nil: nobody traces
	audit   *admin.Audit
	cat     config.Catalogue
	dev     bool

	sockets   sockets        // listeners, and connections from the process before
	listens   *config.Config // what was in force when they were opened
	next      *successor     // goes on after this process; nil = nobody
	releasing releases

	vault *vault.Vault // nil: no key is configured
	// changing is held while sources are replaced, and while one of them gets a tenant or a
	// captured secret: what was kept is in force when somebody is told so.
	changing sync.Mutex
	live     map[string]*live // by source
}

// build makes the parts in the order of the pipeline; nothing listens yet.
func build(conf *config.Config, log *zap.Logger, cat config.Catalogue, dev bool) (*program, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_build_info", Help: "Always 1; the labels say what runs."}, []string{"version"})
	reg.MustRegister(info)
	info.WithLabelValues(cli.Version).Set(1)

	p := &program{log: log, cat: cat, dev: dev, asked: make(chan chan<- error), epochs: &epochs{opened: make(chan struct{}), known: map[uint64]*forward.SourceInfo{}}}
	p.conf.Store(conf)
	sealing, err := cli.ArchiveEncryption(conf)
	if err != nil {
		return nil, err
	}
	stage, err := p.openTracer(conf)
	if err != nil {
		return nil, err
	}
	var known func(uint64) (archive.Fields, bool)
	if conf.Forward != nil {
		known = p.epochs.knows
	}
	if p.archive, err = archive.Open(conf.Archive.Dir, archive.Options{
		SegmentBytes: int64(conf.Archive.SegmentSize), MaxInFlight: int64(conf.Ingest.MaxInFlight),
		Retention:  archive.Retention{Age: conf.Archive.Retention.Age, Size: int64(conf.Archive.Retention.Size)},
		Quarantine: archive.Quarantine{Size: int64(conf.Archive.Quarantine.Size)}, ReservePercent: reserve(conf.Archive.Reserve),
		Encryption: sealing, Logger: log.Named("archive"), Registerer: reg, Extract: p.epochs.fields, Known: known, Cores: cores, PendingSink: func() bool { return conf.Forward != nil }, Trace: stage,
	}); err != nil {
		return nil, err
	}
	p.epochs.open(p.archive, conf)
	if p.vault, err = openVault(conf, log); err != nil {
		return nil, errors.Join(err, p.archive.Close())
	}
	if p.keys, err = fetch.New(fetch.Options{
		Dir: filepath.Join(conf.Archive.Dir, "keys"), Check: verify.PublishedDocument, Logger: log.Named("keys"), Registerer: reg,
	}); err != nil {
		return nil, errors.Join(err, p.archive.Close())
	}
	if err := p.buildRest(conf, reg); err != nil {
		p.keys.Close()
		return nil, errors.Join(err, p.archive.Close())
	}
	return p, nil
}

func (p *program) buildRest(conf *config.Config, reg *prometheus.Registry) error {
	if err := p.buildForward(conf, reg); err != nil {
		return err
	}
	if err := p.buildIngest(conf, reg); err != nil {
		return err
	}
	if err := p.buildNotify(conf, reg); err != nil {
		return err
	}
	return p.buildAdmin(conf, reg)
}

func (p *program) buildForward(conf *config.Config, reg *prometheus.Registry) error {
	if conf.Forward == nil {
		return nil
	}
	redis, err := redisOptions(conf.Dedupe.Redis)
	if err != nil {
		return fmt.Errorf("dedupe.redis: %w", err)
	}
	node := nodeName(p.archive)
	opts := dedupe.Options{Node: node, Redis: redis, Local: p.archive, Window: conf.Dedupe.Window, Logger: p.log.Named("dedupe"), Registerer: reg,
		Outcomes: func(ctx context.Context, from uint64, f func(dedupe.Claim) bool) error {
			return p.pump.Confirms(ctx, from, f)
		}}
	if r := conf.Dedupe.Redis; r != nil {
		opts.BatchTimeout = r.Timeout
	}
	if p.dedupe, err = dedupe.New(opts); err != nil {
		return err
	}
	if err := p.buildPumps(conf, node, reg); err != nil {
		return err
	}
	p.archive.SetKeep(p.keep)
	p.archive.SetWaiting(p.waiting)
	return p.applyPaused(nil, conf)
}

func (p *program) buildIngest(conf *config.Config, reg *prometheus.Registry) error {
	in := &conf.Ingest
	o := ingest.Options{Listen: in.Listen, Path: in.Path, PublicURL: in.PublicURL, MaxBodyBytes: int64(in.MaxBody), InFlightBytes: int64(in.MaxInFlight),
		MaxConns: in.MaxConnections, MaxConnsPerIP: in.MaxConnsPerIP, ReadTimeout: in.ReadTimeout, IdleTimeout: in.IdleTimeout, WriteTimeout: in.WriteTimeout,
		DrainTimeout: in.DrainTimeout, Logger: p.log.Named("ingest"), Registerer: reg}
	if o.MaxConnsPerIP == 0 {
		o.MaxConnsPerIP = o.MaxConns // the configuration's "no bound of its own"
	}
	var err error
	if o.TrustedProxies, err = parsePrefixes(in.TrustedProxies); err != nil {
		return err
	}
	if in.ProxyProtocol != nil {
		if o.ProxyProtocol, err = parsePrefixes(in.ProxyProtocol.Trusted); err != nil {
			return err
		}
	}
	if in.TLS != nil {
		o.TLS = &ingest.TLS{CertFile: strings.TrimPrefix(in.TLS.Cert, "file:"), KeyFile: strings.TrimPrefix(in.TLS.Key, "file:")}
	}
	p.lists = iplist.New(iplist.Options{Dir: filepath.Join(conf.Archive.Dir, "iplists"), Interval: in.IPListRefresh, Fetcher: iplist.NewHTTP(fetch.Transport()),
		Logger: p.log.Named("iplist"), Registerer: reg})
	if p.ingest, err = ingest.New(o, p.archive); err != nil {
		return err
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	list, warnings, err := endpoints(conf, p.vault, p.keysOf, p.lists, p.archive.RegisterEpoch)
	if err != nil {
		return err
	}
	p.warn(warnings)
	lives := p.captures(list)
	p.later(conf, list)
	if err := p.ingest.SetSources(list); err != nil {
		return err
	}
	p.live = lives
	p.noteAges(conf)
	return nil
}

func (p *program) buildAdmin(conf *config.Config, reg *prometheus.Registry) error {
	var err error
	if p.audit, err = admin.OpenAudit(filepath.Join(conf.Archive.Dir, "audit"), int64(conf.Admin.AuditSize)); err != nil {
		return err
	}
	o := admin.Options{Cores: cores, Audit: p.audit, OIDC: oidcOptions(conf.Admin.OIDC), PublicURL: conf.Admin.PublicURL, Listen: conf.Admin.Listen, Tokens: tokens(conf), Archive: p.archive, Sources: operator{p}, Tenants: operator{p}, Eraser: p.archive, Reverifier: operator{p}, Explainer: operator{p},
		Reader: operator{p}, Helper: operator{p}, State: p.state, Decimals: provider.Decimals, MaskCards: provider.MaskCards, Health: p.health, Stats: p.stats, Reload: p.askReload,
		Logger: p.log.Named("admin"), Gatherer: reg, Registerer: reg, Version: cli.Version}
	if p.pump != nil {
		o.Replayer = operator{p}
	}
	if t := conf.Admin.TLS; t != nil {
		cert, err := tls.LoadX509KeyPair(strings.TrimPrefix(t.Cert, "file:"), strings.TrimPrefix(t.Key, "file:"))
		if err != nil {
			return fmt.Errorf("admin.tls: %w", err)
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	if p.admin, err = admin.New(o); err != nil {
		return errors.Join(err, p.audit.Close())
	}
	return nil
}

func tokens(conf *config.Config) (out []admin.Token) {
	for _, t := range conf.Admin.Tokens {
		out = append(out, admin.Token{Name: t.Name, Role: admin.Role(t.Role), Token: t.Token.Reveal(), Sources: t.Sources})
	}
	return out
}

func oidcOptions(o *config.OIDC) *admin.OIDC {
	if o == nil {
		return nil
	}
	return &admin.OIDC{Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), RedirectURL: o.RedirectURL, Scopes: o.Scopes,
		Claim: o.Roles.Claim, Viewer: o.Roles.Viewer, Operator: o.Roles.Operator}
}

// close lets go of the archive, last: until here everything may still write to it.
func (p *program) close() error {
	p.keys.Close()
	err := errors.Join(p.audit.Close(), p.archive.Close())
	p.closeTracer()
	_ = p.log.Sync() // a terminal cannot be synced and says so
	return err
}

// watch reloads on SIGHUP and when the file or a secret changes.
func (p *program) watch(ctx context.Context, hup <-chan os.Signal) {
	config.Watch(ctx, config.WatchOptions{Config: p.conf.Load(), Catalogue: p.cat, Hup: hup, Asked: p.asked, Apply: p.reload,
		Failed: func(err error) {
			if err == nil {
				p.failed.Store(nil)
				return
			}
			text := err.Error()
			p.failed.Store(&text)
			p.log.Error("the changed configuration is not in force; the old one stays", zap.Error(err))
		}})
}

// askReload is SIGHUP over the API: it waits for what comes of it.
func (p *program) askReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case p.asked <- answer:
		return <-answer
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(reloadWithin):
		return errors.New("the files are being written, or the gateway is stopping; ask again")
	}
}

// reload puts sources and tokens of a new configuration in force, all or nothing.
func (p *program) reload(next *config.Config, restart []string) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	list, warnings, err := endpoints(next, p.vault, p.keysOf, p.lists, p.archive.RegisterEpoch)
	if err != nil {
		return err
	}
	rules, err := cli.NotifyConfig(next)
	if err != nil {
		return err
	}
	lives := p.captures(list)
	p.later(next, list)
	if err := p.admin.SetTokens(tokens(next)); err != nil {
		return err
	}
	p.epochs.setURLs(next)
	if err := p.ingest.SetSources(list); err != nil {
		return errors.Join(err, p.admin.SetTokens(tokens(p.conf.Load())))
	}
	p.live = lives
	was := p.conf.Swap(next)
	p.warn(warnings)
	if err := p.reloadNotify(was, next, rules); err != nil {
		return err
	}
	p.noteAges(next)
	if p.pump != nil {
		if err := p.reloadTargets(next); err != nil {
			return err
		}
		p.eachPump((*forward.Pump).Reload)
		if err := p.applyPaused(was, next); err != nil {
			return err
		}
	}
	p.log.Info("configuration reloaded", zap.Int("sources", len(next.Sources)), zap.String("digest", config.Digest(next)))
	if len(restart) > 0 {
		p.log.Warn("some changes want a restart and are not in force", zap.Strings("keys", restart))
	}
	return nil
}

// noteAges remembers since when credentials are there; without, their ages are not known.
func (p *program) noteAges(conf *config.Config) {
	if err := p.noteSecrets(conf, time.Now()); err != nil {
		p.log.Warn("the age of new credentials could not be noted", zap.Error(err))
	}
}

// warn logs what is worth a look in the configuration. In dev that is of our own making, a
// source of every provider: what one of their schemes lacks is nothing to begin with.
func (p *program) warn(warnings []string) {
	if p.dev {
		return
	}
	for _, w := range warnings {
		p.log.Warn("configuration", zap.String("warning", w))
	}
}

// pinnedFor is how long a claim-check may be fetched where retention goes by size alone:
// a weekend and some days more.
const pinnedFor = 7 * 24 * time.Hour

func keepFor(conf *config.Config) time.Duration {
	if r := conf.Archive.Retention; r.Age > 0 || r.Size == 0 {
		return r.Age
	}
	return pinnedFor
}

// adminURL is where a claim-check points to: what people open the page by, else the
// listener itself, which is right for one machine; "" where that is no address that
// anybody could fetch from.
func adminURL(conf *config.Config) string {
	if conf.Admin.PublicURL != "" {
		return conf.Admin.PublicURL
	}
	host, _, err := net.SplitHostPort(conf.Admin.Listen)
	if ip, perr := netip.ParseAddr(host); err != nil || host == "" || perr == nil && ip.IsUnspecified() {
		return ""
	}
	if conf.Admin.TLS != nil {
		return "https://" + conf.Admin.Listen
	}
	return "http://" + conf.Admin.Listen
}

// applyPaused pauses what the configuration pauses, and resumes what it paused before a
// reload and no longer does. A source that an operator paused by hand stays so until
// somebody resumes it. was is nil at the start.
func (p *program) applyPaused(was, conf *config.Config) error {
	before := map[string]bool{}
	if was != nil {
		for i := range was.Sources {
			before[was.Sources[i].Name] = was.Sources[i].Paused
		}
	}
	for i := range conf.Sources {
		s, err := &conf.Sources[i], error(nil)
		switch {
		case s.Paused:
			err = p.pause(s.Name, true)
		case before[s.Name]:
			err = p.pause(s.Name, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reserve turns "0 percent" into what the archive calls none.
func reserve(percent int) int {
	if percent == 0 {
		return -1
	}
	return percent
}

func newLogger(c config.Log, o cli.ServeOptions) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	if o.Dev || c.Format == "console" {
		enc.EncodeTime = zapcore.TimeEncoderOfLayout(time.TimeOnly)
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	if o.Dev {
		level = max(level, zapcore.WarnLevel)
	}
	// One line per second and message is enough to know; the rest is counted in metrics.
	core := zapcore.NewSamplerWithOptions(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(o.Log)), level), time.Second, 20, 0)
	return zap.New(core), nil
}
