package cli

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

func (a *app) groupHelp(w io.Writer, c *command, path []string) {
	fmt.Fprintf(w, "%s: %s\n\nUsage: %s COMMAND [flags]\n\nCommands:\n", strings.Join(path, " "), c.short, strings.Join(path, " "))
	width := 0
	for _, s := range c.sub {
		width = max(width, len(s.name))
	}
	for _, s := range c.sub {
		fmt.Fprintf(w, "  %-*s  %s\n", width, s.name, s.short)
	}
	if c.setup != nil {
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setup(a, fs)
		fmt.Fprint(w, "\nFlags:\n")
		fs.VisitAll(func(f *flag.Flag) { flagHelp(w, f) })
	}
	if c.long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.long))
	}
	fmt.Fprintf(w, "\n%s COMMAND --help tells more about one.\n", strings.Join(path, " "))
}

func (a *app) commandHelp(w io.Writer, c *command, path []string, fs *flag.FlagSet) {
	usage := strings.Join(path, " ")
	if c.args != "" {
		usage += " " + c.args
	}
	n := 0
	fs.VisitAll(func(*flag.Flag) { n++ })
	if n > 0 {
		usage += " [flags]"
	}
	fmt.Fprintf(w, "%s\n\nUsage: %s\n", c.short, usage)
	if n > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		fs.VisitAll(func(f *flag.Flag) { flagHelp(w, f) })
	}
	if c.long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.long))
	}
}

func flagHelp(w io.Writer, f *flag.Flag) {
	kind, usage := flag.UnquoteUsage(f)
	name := "--" + f.Name
	if len(f.Name) == 1 {
		name = "-" + f.Name
	}
	if kind != "" {
		name += " " + kind
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
		usage += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	fmt.Fprintf(w, "  %-22s %s\n", name, usage)
}
