package config

import (
	"fmt"
	"sort"
	"strings"
)

// Errors is everything that is wrong with a file, in the file's order.
type Errors struct {
	List  []Error
	Files []string // what was read or missed on the way; a watcher looks at them too
}

// Error is one mistake.
type Error struct {
	File      string
	Line, Col int    // from 1; 0 where there is no place to point at
	Path      string // "sources[1].credentials.secrets"
	Message   string // never holds the value of a secret
	Cure      string // what to do about it
}

// Error gives the mistake as "file:line:col: path: message; cure".
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	b.WriteString(": " + e.Message)
	if e.Cure != "" {
		b.WriteString("; " + e.Cure)
	}
	return b.String()
}

// Error gives one line for each mistake.
func (e *Errors) Error() string {
	lines := make([]string, len(e.List))
	for i, m := range e.List {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// maxErrors bounds the list: past that many mistakes nobody reads on.
const maxErrors = 200

func sortErrors(list []Error) {
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}

// suggest gives `did you mean "x"?` for the nearest of names, or "".
func suggest(word string, names []string) string {
	best, at := "", 3
	if len(word) < 4 {
		at = 2
	}
	for _, n := range names {
		if d := distance(strings.ToLower(word), n); d < at {
			best, at = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is Levenshtein's, with words too long to be a slip cut short.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
