package provider

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/valyala/fastjson"
)

// This file walks a JSON text along the paths that a definition reads: to find members
// that stand twice, where the bytes of an item are, and what has to be hidden. On the
// way it holds the text to RFC 8259 to the letter, as json.Valid does (a test compares
// them), because fastjson lets a good deal pass, and what goes into an event unchanged
// must be JSON for everybody. One walk costs a third of json.Valid's time.

// trie holds the paths of interest.
type trie struct {
	kids   []trieKid
	any    *trie // "*": every element or member
	secret bool
	leaf   bool
	slot   int // see capture.go; 0 = none
}

type trieKid struct {
	key   string
	t     *trie
	quiet bool // of interest to capture alone
}

// maxKids is how many members of one object are watched for standing twice.
const maxKids = 64

func (t *trie) add(steps []step, secret bool) {
	for _, s := range steps {
		if s.star || s.isIndex || s.selector != "" {
			// What index or selector hits is not known before; the like of all elements is.
			if t.any == nil {
				t.any = &trie{}
			}
			t = t.any
			continue
		}
		t = t.kid(s.key)
	}
	t.leaf = true
	t.secret = t.secret || secret
}

func (t *trie) kid(key string) *trie {
	for _, k := range t.kids {
		if k.key == key {
			return k.t
		}
	}
	n := &trie{}
	t.kids = append(t.kids, trieKid{key: key, t: n})
	return n
}

// join adds the paths of o.
func (t *trie) join(o *trie) {
	t.leaf, t.secret = t.leaf || o.leaf, t.secret || o.secret
	for _, k := range o.kids {
		t.kid(k.key).join(k.t)
	}
	if o.any != nil {
		if t.any == nil {
			t.any = &trie{}
		}
		t.any.join(o.any)
	}
}

// find gives the node below a member and its number among the kids.
func (t *trie) find(key []byte) (*trie, int) {
	for i := range t.kids {
		if t.kids[i].key == string(key) {
			return t.kids[i].t, i
		}
	}
	return t.any, -1
}

var errScan = errors.New("no JSON text")

const (
	maxDepth   = fastjson.MaxDepth
	maxDoubled = 8
)

// scanner walks one text. An error says that the text is no JSON; it ends the walk.
type scanner struct {
	b       []byte
	i       int
	depth   int
	path    []byte
	doubled []string                        // paths of members that stand twice
	slots   []slot                          // where the places stand; nil = not wanted
	twice   bool                            // a quiet member stands twice
	secret  func(from, to int, path []byte) // called for what trie marks secret
	scalar  func(from, to int, path []byte) // called for every string and number; nil = not
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// plainTo skips eight bytes at a time as long as none of them is a quote, a backslash or
// below a blank.
func plainTo(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		if ((w-ones*' ')&^w|(quote-ones)&^quote|(slash-ones)&^slash)&highs != 0 {
			break
		}
	}
	return i
}

// str steps over a string and returns its inside, raw.
func (s *scanner) str() ([]byte, error) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, errScan
	}
	from := s.i + 1
	for i := plainTo(s.b, from); i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return s.b[from:i], nil
		case c < ' ':
			return nil, errScan
		case c == '\\':
			i++
			if i >= len(s.b) {
				return nil, errScan
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(s.b) || unhex(s.b[i+1])|unhex(s.b[i+2])|unhex(s.b[i+3])|unhex(s.b[i+4]) < 0 {
					return nil, errScan
				}
				i += 4
			default:
				return nil, errScan
			}
		}
	}
	return nil, errScan
}

// number steps over -?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number() error {
	if s.b[s.i] == '-' {
		s.i++
	}
	from := s.i
	n := s.digits()
	if n == 0 || n > 1 && s.b[from] == '0' {
		return errScan
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		if s.i++; s.digits() == 0 {
			return errScan
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if s.digits() == 0 {
			return errScan
		}
	}
	return nil
}

func (s *scanner) digits() int {
	from := s.i
	for s.i < len(s.b) && digit(s.b[s.i]) {
		s.i++
	}
	return s.i - from
}

func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return errScan
	}
	s.i += len(word)
	return nil
}

// whole walks a text from its first byte to its last.
func (s *scanner) whole(t *trie) error {
	if err := s.value(t); err != nil {
		return err
	}
	if s.space(); s.i != len(s.b) {
		return errScan
	}
	return nil
}

// value walks one value; t is nil where nothing below is of interest.
func (s *scanner) value(t *trie) error {
	s.space()
	if s.i >= len(s.b) {
		return errScan
	}
	from := s.i
	if t != nil && t.secret && s.secret != nil {
		if err := s.skip(); err != nil {
			return err
		}
		s.secret(from, s.i, s.path)
		return nil
	}
	switch s.b[s.i] {
	case '{':
		return s.object(t)
	case '[':
		return s.array(t)
	}
	return s.single()
}

// single walks a string, a number or one of the three words.
func (s *scanner) single() error {
	from := s.i
	var err error
	switch s.b[s.i] {
	case '"':
		_, err = s.str()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		err = s.number()
	}
	if err == nil && s.scalar != nil {
		s.scalar(from, s.i, s.path)
	}
	return err
}

func (s *scanner) object(t *trie) error {
	if s.depth++; s.depth > maxDepth {
		return errScan
	}
	s.i++
	var seen uint64
	for first := true; ; first = false {
		s.space()
		if s.i >= len(s.b) {
			return errScan
		}
		if s.b[s.i] == '}' && first {
			break
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		s.space()
		if s.i >= len(s.b) || s.b[s.i] != ':' {
			return errScan
		}
		s.i++
		kid, n, keep := (*trie)(nil), -1, len(s.path)
		if t != nil || s.scalar != nil {
			if bytes.IndexByte(key, '\\') >= 0 {
				key = unescapeKey(key)
			}
			s.push(key)
		}
		if t != nil {
			kid, n = t.find(key)
		}
		if n >= 0 && n < maxKids {
			switch {
			case seen&(1<<n) == 0:
			case t.kids[n].quiet:
				s.twice = true
			case len(s.doubled) < maxDoubled:
				s.doubled = append(s.doubled, string(s.path))
			}
			seen |= 1 << n
		}
		s.space()
		from := s.i
		if err := s.value(kid); err != nil {
			return err
		}
		if s.slots != nil && kid != nil && kid.slot > 0 {
			s.slots[kid.slot-1] = slot{from, s.i}
		}
		s.path = s.path[:keep]
		if done, err := s.more('}'); err != nil || done {
			s.depth--
			return err
		}
	}
	s.i++
	s.depth--
	return nil
}

func (s *scanner) push(key []byte) {
	if len(s.path) > 0 {
		s.path = append(s.path, '.')
	}
	s.path = append(s.path, key...)
}

func (s *scanner) more(end byte) (done bool, err error) {
	s.space()
	if s.i >= len(s.b) {
		return false, errScan
	}
	c := s.b[s.i]
	s.i++
	if c == end {
		return true, nil
	}
	if c != ',' {
		return false, errScan
	}
	return false, nil
}

func (s *scanner) array(t *trie) error {
	if s.depth++; s.depth > maxDepth {
		return errScan
	}
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		s.depth--
		return nil
	}
	var below *trie
	if t != nil {
		below = t.any
	}
	for n := 0; ; n++ {
		keep := len(s.path)
		if below != nil || s.scalar != nil {
			s.push(strconv.AppendInt(nil, int64(n), 10))
		}
		if err := s.value(below); err != nil {
			return err
		}
		s.path = s.path[:keep]
		if done, err := s.more(']'); err != nil || done {
			s.depth--
			return err
		}
	}
}

// skip steps over one value of any kind, silently.
func (s *scanner) skip() error {
	scalar := s.scalar
	s.scalar = nil
	err := s.value(nil)
	s.scalar = scalar
	return err
}

// unescapeKey decodes a member's name that has a backslash in it.
func unescapeKey(raw []byte) []byte {
	var p fastjson.Parser
	text := make([]byte, 0, len(raw)+2)
	text = append(append(append(text, '"'), raw...), '"')
	v, err := p.ParseBytes(text)
	if err != nil {
		return raw
	}
	b, err := v.StringBytes()
	if err != nil {
		return raw
	}
	return append([]byte(nil), b...)
}

// rawItems gives the bytes of every element that steps name, in the order in which
// collect finds them.
func rawItems(doc []byte, steps []step) [][]byte {
	s := scanner{b: doc}
	var out [][]byte
	if err := s.ranges(steps, &out); err != nil {
		return nil
	}
	return out
}

func (s *scanner) ranges(steps []step, out *[][]byte) error {
	s.space()
	if s.i >= len(s.b) {
		return errScan
	}
	if len(steps) == 0 {
		from := s.i
		if err := s.skip(); err != nil {
			return err
		}
		*out = append(*out, s.b[from:s.i])
		return nil
	}
	switch {
	case s.b[s.i] == '{' && !steps[0].star && steps[0].selector == "":
		return s.rangesOf(steps, out)
	case s.b[s.i] == '[' && (steps[0].star || steps[0].isIndex && steps[0].index >= 0):
		return s.rangesIn(steps, out)
	}
	return s.skip()
}

func (s *scanner) rangesOf(steps []step, out *[][]byte) error {
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == '}' {
		s.i++
		return nil
	}
	for found := false; ; {
		s.space()
		key, err := s.str()
		if err != nil {
			return err
		}
		if bytes.IndexByte(key, '\\') >= 0 {
			key = unescapeKey(key)
		}
		s.space()
		if s.i >= len(s.b) || s.b[s.i] != ':' {
			return errScan
		}
		s.i++
		s.space()
		if !found && string(key) == steps[0].key { // of two, the parser takes the first
			found = true
			err = s.ranges(steps[1:], out)
		} else {
			err = s.skip()
		}
		if err != nil {
			return err
		}
		if done, err := s.more('}'); err != nil || done {
			return err
		}
	}
}

func (s *scanner) rangesIn(steps []step, out *[][]byte) error {
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		return nil
	}
	for n := 0; ; n++ {
		var err error
		if s.space(); steps[0].star || steps[0].index == n {
			err = s.ranges(steps[1:], out)
		} else {
			err = s.skip()
		}
		if err != nil {
			return err
		}
		if done, err := s.more(']'); err != nil || done {
			return err
		}
	}
}
