// Penstock is a webhook ingestion gateway: signed deliveries come in, are proved, kept on
// stable storage and acked, and go out once, normalized, to Kafka. DESIGN and contract are
// told in docs/architecture.md; this file is the wiring, in the order of the pipeline.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"penstock/cli"
	"penstock/config"
	"penstock/ingest"
	"penstock/provider"
)

// stopWithin is what SIGTERM has for everything: the contract says ten seconds whatever
// Kafka does.
const stopWithin = 9 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	builtin, err := provider.Builtin()
	if err != nil {
		fmt.Fprintln(os.Stderr, "penstock: BUG: the built-in providers do not compile:", err)
		os.Exit(2)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	code := cli.Run(ctx, cli.Env{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Color: cli.Terminal(os.Stdout), Hup: hup},
		cli.Wiring{Version: cli.Version, Providers: builtin, Catalogue: catalogue{builtin}, Serve: func(ctx context.Context, conf *config.Config, o cli.ServeOptions) error {
			spread()
			go bound(ctx)
			return serve(ctx, conf, catalogue{builtin}, o)
		}})
	stop()
	os.Exit(code)
}

// cores is how many CPUs the process may use, also in a container that has a share of them.
var cores = runtime.GOMAXPROCS(0)

// fewCores is up to where spread is taken to help: it was measured on two CPUs.
const fewCores = 4

// spareProcs is how many goroutines may run beside those that have a CPU: as many as the
// archive has on lowered threads, which hold one of the runtime's processors also while the
// kernel lets them wait.
const spareProcs = 4

// spread lets more goroutines run at once than there are CPUs, unless GOMAXPROCS is set. Where
// a compaction, a search or a batch computes, the runtime looks for arrived bytes only when
// another of its processors has nothing to do, and on two CPUs none has: answers waited up to
// 10 ms. The kernel shares the CPUs more finely, and knows priorities. Measured on two, 256
// connections: twice as many as CPUs 28,100 to 35,300 acks/s, p99 33 to 22 ms.
func spread() {
	if os.Getenv("GOMAXPROCS") == "" && cores <= fewCores {
		runtime.GOMAXPROCS(cores + spareProcs)
	}
}

// serve runs the gateway until ctx ends. The admin listener opens before the ingest one;
// Redis and Kafka may be away.
func serve(ctx context.Context, conf *config.Config, cat config.Catalogue, o cli.ServeOptions) error {
	log, err := newLogger(conf.Log, o)
	if err != nil {
		return err
	}
	var given sockets
	if !o.Dev {
		if given, err = inheritSockets(); err != nil {
			return err
		}
	}
	p, err := build(conf, log, cat, o.Dev)
	if err != nil {
		given.close()
		return err
	}
	p.sockets, p.listens = given, conf
	err = errors.Join(p.run(ctx, o), p.close())
	if p.next == nil || ctx.Err() != nil {
		return err
	}
	if err != nil {
		log.Error("handing over in spite of it", zap.Error(err))
	}
	return p.next.exec(p.ingest.Left())
}

// run starts the parts in pipeline order, waits for the end of ctx or of a part, and
// stops them: the edge first, so that nothing new comes in, the archive last.
func (p *program) run(ctx context.Context, o cli.ServeOptions) error {
	conf := p.conf.Load()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := p.sockets.open(conf.Admin.Listen, p.ingest); err != nil {
		return err
	}
	adminLn, ingestLn := p.sockets.admin, p.sockets.ingest
	var g group
	g.add("admin", func(ctx context.Context) error { return p.admin.Run(ctx, adminLn) })
	if p.pump != nil {
		g.add("dedupe", p.dedupe.Run)
		g.add("forward", p.pump.Run)
	}
	if p.beside != nil {
		g.add("forward to http", p.beside.Run)
	}
	g.add("keys", p.keys.Run)
	g.add("address lists", p.lists.Run)
	g.add("notify", p.notify.Run)
	g.add("reload", func(ctx context.Context) error { p.watch(ctx, o.Hup); return nil })
	if !o.Dev { // what runs in dev beside the gateway would end with its process
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGUSR2)
		defer signal.Stop(asked)
		g.add("hand-over", func(ctx context.Context) error { p.handOver(ctx, asked, stop); return nil })
	}
	g.add("ingest", func(ctx context.Context) error {
		return p.ingest.RunOn(ctx, ingest.WithConns(ingestLn, p.sockets.idle))
	})
	p.log.Info("penstock is ready", zap.String("ingest", ingestLn.Addr().String()), zap.String("admin", adminLn.Addr().String()),
		zap.Int("taken over", len(p.sockets.idle)), zap.Int("sources", len(conf.Sources)), zap.String("config", config.Digest(conf)))
	if o.Ready != nil {
		o.Ready()
	}
	return g.run(ctx, p.log)
}

// group runs parts side by side. The first that ends, or the end of ctx, stops all, in
// the reverse of the order in which they were added; each gets its time.
type group struct {
	names []string
	parts []func(context.Context) error
}

func (g *group) add(name string, f func(context.Context) error) {
	g.names, g.parts = append(g.names, name), append(g.parts, f)
}

func (g *group) run(ctx context.Context, log *zap.Logger) error {
	cancels := make([]context.CancelFunc, len(g.parts))
	done := make([]chan error, len(g.parts))
	first := make(chan int, len(g.parts))
	for i, f := range g.parts {
		var part context.Context
		part, cancels[i] = context.WithCancel(context.WithoutCancel(ctx))
		done[i] = make(chan error, 1)
		go func() { done[i] <- f(part); first <- i }()
	}
	var errs []error
	select {
	case <-ctx.Done():
	case i := <-first:
		errs = append(errs, fmt.Errorf("%s ended by itself", g.names[i]))
	}
	deadline := time.After(stopWithin)
	for i := len(g.parts) - 1; i >= 0; i-- {
		began := time.Now()
		cancels[i]()
		select {
		case err := <-done[i]:
			if err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, fmt.Errorf("%s: %w", g.names[i], err))
			}
			log.Info("stopped", zap.String("part", g.names[i]), zap.Duration("took", time.Since(began)))
		case <-deadline:
			// What was acked is on disk and what was sent has its intent: leaving now loses nothing.
			log.Warn("left behind", zap.String("part", g.names[i]), zap.Duration("after", stopWithin))
			return errors.Join(errs...)
		}
	}
	return errors.Join(errs...)
}
