package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sort"
	"strings"
)

func completionCommand() *command {
	return &command{name: "completion", args: "bash|zsh|fish", short: "print a shell's completion script", long: `
bash: penstock completion bash > /etc/bash_completion.d/penstock
zsh:  penstock completion zsh > "${fpath[1]}/_penstock"
fish: penstock completion fish > ~/.config/fish/completions/penstock.fish`,
		setup: func(a *app, _ *flag.FlagSet) func(context.Context, []string) int {
			return func(_ context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("completion", "name a shell: bash, zsh or fish")
				}
				entries := a.completions()
				switch args[0] {
				case "bash":
					writeBash(a.Stdout, entries)
				case "zsh":
					fmt.Fprint(a.Stdout, "#compdef penstock\nautoload -U +X bashcompinit && bashcompinit\n")
					writeBash(a.Stdout, entries)
				case "fish":
					writeFish(a.Stdout, entries)
				default:
					return a.usageError("completion", "no completion for %q; bash, zsh or fish", args[0])
				}
				return exitOK
			}
		}}
}

// completion is what may follow one command.
type completion struct {
	path  string // "deliveries list"; "" = penstock itself
	words []string
	flags []string
}

func (a *app) completions() []completion {
	var out []completion
	var walk func(c *command, path string)
	walk = func(c *command, path string) {
		e := completion{path: path}
		for _, s := range c.sub {
			e.words = append(e.words, s.name)
		}
		if c.setup != nil {
			fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
			c.setup(a, fs)
			fs.VisitAll(func(f *flag.Flag) {
				if len(f.Name) == 1 {
					e.flags = append(e.flags, "-"+f.Name)
				} else {
					e.flags = append(e.flags, "--"+f.Name)
				}
			})
			e.flags = append(e.flags, "--help")
		}
		switch path {
		case "send", "providers show":
			e.words = append(e.words, a.w.Providers.Names()...)
		case "completion":
			e.words = append(e.words, "bash", "zsh", "fish")
		}
		sort.Strings(e.flags)
		out = append(out, e)
		for _, s := range c.sub {
			walk(s, strings.TrimSpace(path+" "+s.name))
		}
	}
	walk(a.root, "")
	return out
}

func writeBash(w io.Writer, entries []completion) {
	fmt.Fprint(w, `_penstock() {
  local cur="${COMP_WORDS[COMP_CWORD]}" path="" words="" w
  for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $w" in
`)
	for _, e := range entries[1:] {
		parent, last := "", e.path
		if i := strings.LastIndexByte(e.path, ' '); i >= 0 {
			parent, last = e.path[:i], e.path[i+1:]
		}
		fmt.Fprintf(w, "      \"%s %s\") path=\"%s\" ;;\n", parent, last, e.path)
	}
	fmt.Fprint(w, "    esac\n  done\n  case \"$path\" in\n")
	for _, e := range entries {
		fmt.Fprintf(w, "    \"%s\") words=\"%s\" ;;\n", e.path, strings.Join(append(append([]string{}, e.words...), e.flags...), " "))
	}
	fmt.Fprint(w, `  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$cur"))
}
complete -F _penstock penstock
`)
}

func writeFish(w io.Writer, entries []completion) {
	for _, e := range entries {
		when := "__fish_use_subcommand"
		if e.path != "" {
			when = "__fish_seen_subcommand_from " + e.path[strings.LastIndexByte(e.path, ' ')+1:]
		}
		if len(e.words) > 0 {
			fmt.Fprintf(w, "complete -c penstock -f -n '%s' -a '%s'\n", when, strings.Join(e.words, " "))
		}
		for _, f := range e.flags {
			if name, long := strings.CutPrefix(f, "--"); long {
				fmt.Fprintf(w, "complete -c penstock -n '%s' -l %s\n", when, name)
			} else {
				fmt.Fprintf(w, "complete -c penstock -n '%s' -s %s -r\n", when, strings.TrimPrefix(f, "-"))
			}
		}
	}
}
