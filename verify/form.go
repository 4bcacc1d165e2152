package verify

import (
	"bytes"
	"errors"
)

// maxPairs bounds the fields of a form or a query that are read.
const maxPairs = 1024

var errForm = errors.New("form: not readable without guessing")

// pair is one decoded name and value of a form or a query.
type pair struct{ name, value []byte }

// parseForm decodes an application/x-www-form-urlencoded text, appending to pairs and
// to arena (where decoded text is put). It guesses nothing: a bad escape, a raw ';'
// (which some read as a separator) or too many fields are errors.
func parseForm(text []byte, pairs []pair, arena []byte) ([]pair, []byte, error) {
	if bytes.IndexByte(text, ';') >= 0 {
		return pairs, arena, errForm
	}
	for len(text) > 0 {
		item := text
		if i := bytes.IndexByte(text, '&'); i >= 0 {
			item, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		if len(item) == 0 {
			continue
		}
		if len(pairs) >= maxPairs {
			return pairs, arena, errForm
		}
		name, value, _ := bytes.Cut(item, []byte{'='})
		var p pair
		var ok1, ok2 bool
		p.name, arena, ok1 = unescape(name, arena)
		p.value, arena, ok2 = unescape(value, arena)
		if !ok1 || !ok2 {
			return pairs, arena, errForm
		}
		pairs = append(pairs, p)
	}
	return pairs, arena, nil
}

// unescape decodes %XX and '+'. Text without either is returned as it stands.
func unescape(s, arena []byte) (text, grown []byte, ok bool) {
	if bytes.IndexByte(s, '%') < 0 && bytes.IndexByte(s, '+') < 0 {
		return s, arena, true
	}
	start := len(arena)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			arena = append(arena, ' ')
		case '%':
			if i+2 >= len(s) {
				return nil, arena, false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return nil, arena, false
			}
			arena = append(arena, byte(hi<<4|lo))
			i += 2
		default:
			arena = append(arena, c)
		}
	}
	return arena[start:len(arena):len(arena)], arena, true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// find returns the one value called name and how many there are.
func find(pairs []pair, name string) (value []byte, n int) {
	for i := range pairs {
		if string(pairs[i].name) == name {
			if n == 0 {
				value = pairs[i].value
			}
			n++
		}
	}
	return value, n
}
