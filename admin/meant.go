package admin

import "strings"

// maxTypos is how many typing errors "did you mean" forgives; with more, scanners' paths
// would look like a source's.
const maxTypos = 3

// meant finds the source whose path was probably meant, -1 for none: another case, a
// missing or doubled slash, a few typing errors, or the source's name at another place.
func meant(path string, sources []SourceInfo) int {
	best, at := maxTypos+1, -1
	plain := tidy(path)
	last := plain[strings.LastIndexByte(plain, '/')+1:]
	for i := range sources {
		if sources[i].Path == "" {
			continue
		}
		d := distance(plain, tidy(sources[i].Path), maxTypos)
		// A short path is within three errors of anything.
		if d > len(sources[i].Name)/2 {
			d = maxTypos + 1
		}
		if d > 1 && len(last) > 2 && last == strings.ToLower(sources[i].Name) {
			d = 1
		}
		if d < best {
			best, at = d, i
		}
	}
	return at
}

// tidy is a path in lower case without what people add and leave out.
func tidy(path string) string {
	path = strings.ToLower(path)
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.Trim(path, "/")
}

// distance is the number of letters to insert, delete or change from a to b; above most it
// is not counted on.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
