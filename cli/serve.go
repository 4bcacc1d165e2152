package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"penstock/config"
)

const defaultConfig = "penstock.yaml"

func configFlag(fs *flag.FlagSet) *string {
	return fs.String("c", defaultConfig, "configuration `FILE`")
}

// load reads a configuration and prints its warnings, or every mistake in it.
func (a *app) load(path string) (*config.Config, bool) {
	c, err := config.Load(path, a.w.Catalogue)
	if err != nil {
		var es *config.Errors
		if !errors.As(err, &es) {
			fmt.Fprintln(a.Stderr, err)
			return nil, false
		}
		for _, e := range es.List {
			fmt.Fprintln(a.Stderr, printable(e.Error()))
		}
		return nil, false
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(a.Stderr, printable("warning: "+w))
	}
	return c, true
}

func serveCommand() *command {
	return &command{name: "serve", short: "run the gateway", long: `
A bad configuration ends it with 1 and file:line:column of every mistake, before a port
is taken. SIGTERM and SIGINT drain: what is in flight is answered, committed and flushed,
then it ends with 0. SIGHUP, or a changed file, reloads; a bad file changes nothing.
SIGUSR2 drains and starts the program again in the same process, with the listening
sockets open all the time: a new binary without a refused connection. Sockets of systemd
are taken too (docs/restarts.md).`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			file := configFlag(fs)
			return func(ctx context.Context, args []string) int {
				if len(args) > 0 {
					return a.usageError("serve", "unexpected argument %q", args[0])
				}
				c, ok := a.load(*file)
				if !ok {
					return exitFound
				}
				if err := a.w.Serve(ctx, c, ServeOptions{Hup: a.Hup, Log: a.Stderr}); err != nil {
					return a.fail(exitFound, "%v", err)
				}
				return exitOK
			}
		}}
}

func checkCommand() *command {
	return &command{name: "check", short: "check a configuration; every mistake by line and column", long: `
Exit code 0: it would be served. 1: every mistake is printed, one a line, as
file:line:column: key: what is wrong; what to do. Secrets behind env: and file: are read,
so run it where the gateway runs.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			file := configFlag(fs)
			asJSON := fs.Bool("json", false, "print JSON")
			return func(_ context.Context, args []string) int {
				if len(args) > 0 {
					return a.usageError("check", "unexpected argument %q", args[0])
				}
				if *asJSON {
					return a.checkJSON(*file)
				}
				c, ok := a.load(*file)
				if !ok {
					return exitFound
				}
				weak, err := compileSources(c)
				if err != nil {
					return a.fail(exitFound, "%v", err)
				}
				for _, w := range weak {
					fmt.Fprintln(a.Stderr, printable("warning: "+w))
				}
				fmt.Fprintf(a.Stdout, "%s is good: %d sources, digest %s\n", *file, len(c.Sources), config.Digest(c))
				return exitOK
			}
		}}
}

// compileSources builds every verifier, as serve would: a key that cannot be read is a
// mistake of the configuration too. What a verifier warns of, serve logs.
func compileSources(c *config.Config) (warnings []string, err error) {
	kept, err := readVault(c)
	if err != nil {
		return nil, err
	}
	if kept != nil {
		warnings = append(warnings, kept.Damaged()...)
	}
	var errs []error
	for i := range c.Sources {
		s := &c.Sources[i]
		place := fmt.Sprintf("%s:%d:%d: source %s", c.Path, s.Line, s.Col, s.Name)
		v, err := NewVerifier(s, kept, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		for _, w := range v.Warnings() {
			warnings = append(warnings, place+": "+w)
		}
	}
	if _, err := NotifyConfig(c); err != nil {
		errs = append(errs, err)
	}
	return warnings, errors.Join(errs...)
}

func (a *app) checkJSON(file string) int {
	type mistake struct {
		File    string `json:"file"`
		Line    int    `json:"line"`
		Col     int    `json:"col"`
		Path    string `json:"path"`
		Message string `json:"message"`
		Cure    string `json:"cure,omitempty"`
	}
	out := struct {
		OK       bool      `json:"ok"`
		Digest   string    `json:"digest,omitempty"`
		Sources  int       `json:"sources"`
		Errors   []mistake `json:"errors"`
		Warnings []string  `json:"warnings"`
	}{Errors: []mistake{}, Warnings: []string{}}
	c, err := config.Load(file, a.w.Catalogue)
	if err == nil {
		out.Sources, out.Digest, out.Warnings = len(c.Sources), config.Digest(c), append(out.Warnings, c.Warnings...)
		var weak []string
		weak, err = compileSources(c)
		out.Warnings = append(out.Warnings, weak...)
	}
	var es *config.Errors
	switch {
	case errors.As(err, &es):
		for _, e := range es.List {
			out.Errors = append(out.Errors, mistake{e.File, e.Line, e.Col, e.Path, e.Message, e.Cure})
		}
	case err != nil:
		out.Errors = append(out.Errors, mistake{File: file, Message: err.Error()})
	}
	out.OK = err == nil
	if code := a.printJSON(out); code != exitOK || out.OK {
		return code
	}
	return exitFound
}

func schemaCommand() *command {
	return &command{name: "schema", short: "print the JSON Schema of the configuration",
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			markdown := fs.Bool("markdown", false, "print every key with its default as a table instead")
			return func(context.Context, []string) int {
				out := config.Schema()
				if *markdown {
					out = config.Reference()
				}
				if _, err := a.Stdout.Write(out); err != nil {
					return a.fail(exitUsage, "write: %v", err)
				}
				return exitOK
			}
		}}
}

func versionCommand() *command {
	return &command{name: "version", short: "print the version",
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			asJSON := fs.Bool("json", false, "print JSON")
			return func(context.Context, []string) int {
				v := a.w.Version
				if v == "" {
					v = "devel"
				}
				if *asJSON {
					return a.printJSON(map[string]string{"version": v, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
				}
				fmt.Fprintf(a.Stdout, "penstock %s %s %s/%s\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return exitOK
			}
		}}
}

// healthcheckTimeout is below the 3 s that the image's HEALTHCHECK gives.
const healthcheckTimeout = 2 * time.Second

func healthcheckCommand() *command {
	return &command{name: "healthcheck", short: "ask a running gateway whether it takes deliveries; exit code 0 or 1", long: `
It asks /readyz of the admin listener that the configuration names. Kafka or Redis away is
still 0: deliveries are taken and kept.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			file := configFlag(fs)
			admin := fs.String("admin", "", "admin `URL`; then no configuration is read")
			return func(ctx context.Context, _ []string) int {
				base := *admin
				if base == "" {
					listen, tls, ok := config.AdminListen(*file)
					if !ok {
						return a.fail(exitFound, "%s cannot be read", *file)
					}
					base = baseURL(listen, tls)
				}
				ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
				defer cancel()
				if err := ready(ctx, base); err != nil {
					return a.fail(exitFound, "%v", err)
				}
				return exitOK
			}
		}}
}

func ready(ctx context.Context, base string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := localClient(base).Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/readyz answers %s", base, resp.Status)
	}
	return nil
}

// baseURL is how this machine reaches a listen address.
func baseURL(listen string, tls bool) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
