// Package cli holds the subcommands. Each is a plain function over an Env, so that a test
// runs it as a user does; what starts the gateway itself is handed in by main (Wiring).
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"penstock/config"
	"penstock/provider"
)

// Exit codes. A command that looked and found something wrong gives 1; one that was
// asked wrongly, or could not look, gives 2.
const (
	exitOK    = 0
	exitFound = 1
	exitUsage = 2
)

// Env is the outside world of one run.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string // nil = os.Getenv
	Color  bool                // Stdout is a terminal and NO_COLOR is not set
	Hup    <-chan os.Signal    // reload; nil = never
}

// Wiring is what main gives.
type Wiring struct {
	Version   string
	Providers *provider.Catalogue
	Catalogue config.Catalogue // the same, as config asks for it

	// Serve runs the gateway until ctx ends, drains and returns nil; an error is why it
	// could not start or had to stop. It gets the configuration already checked.
	Serve func(ctx context.Context, cfg *config.Config, o ServeOptions) error
}

// ServeOptions are the differences between `serve` and `dev`.
type ServeOptions struct {
	Hup   <-chan os.Signal // reload; nil = only when the file changes
	Log   io.Writer        // where the process log goes
	Dev   bool             // people look at the log: console format, warnings and up
	Ready func()           // called once, when both listeners are open; may be nil
}

// command is one subcommand.
type command struct {
	name  string
	args  string // "PROVIDER [flags]"
	short string
	long  string // printed by --help after the flags
	sub   []*command
	// setup declares the flags and gives what runs with the positional arguments.
	setup func(a *app, fs *flag.FlagSet) func(ctx context.Context, args []string) int
}

type app struct {
	Env
	w    Wiring
	root *command
}

// Run runs one command line and gives the exit code.
func Run(ctx context.Context, env Env, w Wiring) int {
	a := &app{Env: env, w: w}
	if a.Getenv == nil {
		a.Getenv = os.Getenv
	}
	a.root = commands()
	return a.dispatch(ctx, a.root, nil, env.Args)
}

func commands() *command {
	return &command{name: "penstock", args: "COMMAND", short: "webhook ingestion gateway", sub: []*command{
		devCommand(), serveCommand(), checkCommand(), sendCommand(), benchCommand(), verifyCommand(), providersCommand(),
		deliveriesCommand(), tenantsCommand(), auditCommand(), notifyCommand(), archiveCommand(), schemaCommand(), healthcheckCommand(), completionCommand(), versionCommand(),
	}}
}

// dispatch finds the command that args name and runs it.
func (a *app) dispatch(ctx context.Context, c *command, path, args []string) int {
	path = append(path, c.name)
	if len(c.sub) > 0 {
		name := ""
		if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
			name = args[0]
		}
		for _, s := range c.sub {
			if s.name == name {
				return a.dispatch(ctx, s, path, args[1:])
			}
		}
		switch {
		case len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help" || args[0] == "help"):
			a.groupHelp(a.Stdout, c, path)
			return exitOK
		case len(args) > 0 && len(path) == 1 && (args[0] == "--version" || args[0] == "-v"):
			return a.dispatch(ctx, versionCommand(), path, nil)
		case c.setup == nil && len(args) > 0:
			fmt.Fprintf(a.Stderr, "%s: unknown command %q\n\n", strings.Join(path, " "), args[0])
			a.groupHelp(a.Stderr, c, path)
			return exitUsage
		case c.setup == nil:
			a.groupHelp(a.Stderr, c, path)
			return exitUsage
		}
	}
	return a.run(ctx, c, path, args)
}

func (a *app) run(ctx context.Context, c *command, path, args []string) int {
	fs := flag.NewFlagSet(strings.Join(path, " "), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	run := c.setup(a, fs)
	rest, err := parseMixed(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		a.commandHelp(a.Stdout, c, path, fs)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(a.Stderr, "%s: %v\nsee %s --help\n", strings.Join(path, " "), err, strings.Join(path, " "))
		return exitUsage
	}
	return run(ctx, rest)
}

// parseMixed parses flags wherever they stand, as people write them: `send stripe
// --count 3`. After "--" everything is an argument.
func parseMixed(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		before := len(args)
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if len(left) == 0 {
			return rest, nil
		}
		if used := before - len(left); used > 0 && args[used-1] == "--" {
			return append(rest, left...), nil
		}
		rest = append(rest, left[0])
		args = left[1:]
	}
}

// usageError prints what was asked wrongly.
func (a *app) usageError(cmd, format string, args ...any) int {
	fmt.Fprintf(a.Stderr, "penstock %s: %s\nsee penstock %s --help\n", cmd, fmt.Sprintf(format, args...), cmd)
	return exitUsage
}

// fail prints why a command could not do its work.
func (a *app) fail(code int, format string, args ...any) int {
	fmt.Fprintf(a.Stderr, "penstock: %s\n", fmt.Sprintf(format, args...))
	return code
}
