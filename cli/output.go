package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printJSON writes v for programs.
func (a *app) printJSON(v any) int {
	e := json.NewEncoder(a.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return a.fail(exitUsage, "write: %v", err)
	}
	return exitOK
}

// Colours of a terminal.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

func (a *app) paint(color, s string) string {
	if !a.Color || color == "" {
		return s
	}
	return color + s + plain
}

// table prints aligned columns. Cells are what strangers sent: control characters in
// them would let a delivery draw on the operator's terminal, so they are replaced.
func (a *app) table(w io.Writer, header []string, rows [][]string, color func(row, col int) string) {
	width := make([]int, len(header))
	for i, h := range header {
		width[i] = len(h)
	}
	for _, r := range rows {
		for i := range r {
			r[i] = printable(r[i])
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
		}
	}
	line := func(cells []string, paint func(col int) string) {
		var b strings.Builder
		for i, c := range cells {
			pad := width[i] - utf8.RuneCountInString(c)
			if i == len(cells)-1 {
				pad = 0
			}
			b.WriteString(a.paint(paint(i), c) + strings.Repeat(" ", max(0, pad)))
			if i < len(cells)-1 {
				b.WriteString("  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(header, func(int) string { return bold })
	for n, r := range rows {
		line(r, func(col int) string {
			if color == nil {
				return ""
			}
			return color(n, col)
		})
	}
}

// printable replaces what a terminal would act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}

// printableLines keeps line ends and tabs.
func printableLines(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, string(b))
}
