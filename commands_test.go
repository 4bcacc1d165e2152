package main

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"penstock/archive"
	"penstock/cli"
)

// TestCommandsInText: every command that an alert, the dashboard or a page of docs tells
// people to type is one that there is, with flags that it has and filters that can be read.
// Nobody has time at night to find out what was meant.
func TestCommandsInText(t *testing.T) {
	paths := []string{"README.md", "deploy/prometheus/alerts.yaml", "deploy/grafana/penstock.json"}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range append(paths, pages...) {
		for _, line := range commandsIn(read(t, path)) {
			found++
			if wrong := wrongCommand(t, line); wrong != "" {
				t.Errorf("%s: %q: %s", path, line, wrong)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d commands found", found)
	}
}

var (
	commandText = regexp.MustCompile("\\bpenstock ((?:archive|audit|bench|check|completion|deliveries|dev|healthcheck|notify|providers|schema|send|serve|tenants|verify)\\b[^\\n`;|#]*)")
	wordText    = regexp.MustCompile(`^[a-z]+$`)
	flagText    = regexp.MustCompile(`(^|\s)(--?[a-z][a-z-]*)(?:[ =]("[^"]*"|\{\{[^}]*\}\}|[^\s",.]+))?`)
)

func commandsIn(text string) (out []string) {
	for _, m := range commandText.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.TrimSpace(m[1]))
	}
	return out
}

func wrongCommand(t *testing.T, line string) string {
	t.Helper()
	var name []string
	help := ""
	for _, word := range strings.Fields(line) {
		word = strings.Trim(word, `".,:`)
		if !wordText.MatchString(word) {
			break
		}
		if text := helpOf(t, append(name, word)); text != "" {
			name, help = append(name, word), text
			continue
		}
		break
	}
	if help == "" {
		return "there is no such command"
	}
	for _, m := range flagText.FindAllStringSubmatch(line, -1) {
		flag, value := m[2], strings.Trim(m[3], `"`)
		if flag == "--help" {
			continue
		}
		if !regexp.MustCompile(`(?m)^  ` + flag + `\b`).MatchString(help) {
			return strings.Join(name, " ") + " has no " + flag
		}
		filter := strings.ReplaceAll(strings.TrimPrefix(flag, "--"), "-", "_")
		if value == "" || name[0] != "deliveries" || strings.Contains(value, "{{") || value == strings.ToUpper(value) {
			continue // a flag alone, or a word in place of a value
		}
		switch filter {
		case "verdict", "outcome", "from", "to", "livemode", "source", "order_id":
			if _, err := archive.ParseFilter(url.Values{filter: {value}}, time.Now()); err != nil {
				return err.Error()
			}
		}
	}
	return ""
}

var helps = map[string]string{}

// helpOf gives what a command says to --help, "" where there is none of that name.
func helpOf(t *testing.T, name []string) string {
	t.Helper()
	key := strings.Join(name, " ")
	if text, ok := helps[key]; ok {
		return text
	}
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), cli.Env{Args: append(append([]string{}, name...), "--help"), Stdout: &out, Stderr: &errs, Getenv: os.Getenv}, cli.Wiring{})
	text := out.String()
	// A command without others beneath it takes what follows for its arguments.
	if code != 0 || !strings.Contains(text, "Usage: penstock "+key) && !strings.HasPrefix(text, "penstock "+key+":") {
		text = ""
	}
	helps[key] = text
	return text
}
