package archive

import (
	"fmt"
	"strings"
	"sync"
)

// maxMet bounds the places of damage that are kept by name; beyond it they are counted.
const maxMet = 1000

// damageLog is all damage that is known: what the start found and what was met since. A
// place that is read a thousand times is one damage. Its mutex guards all fields.
type damageLog struct {
	mu    sync.Mutex
	start []finding
	lines []string // met since, in order
	known map[damagePlace]struct{}
	more  int // met beyond maxMet
}

type damagePlace struct {
	file string
	off  int64
	last uint64 // missing files have no offset
}

// met notes a place that could not be read, and says whether it was not known before.
func (l *damageLog) met(log string, e *CorruptError) bool {
	file := log + "/" + e.Segment
	place := damagePlace{file: file, off: e.Offset, last: e.LastSeq}
	if e.Offset > 0 {
		place.last = 0 // one reader knows better than another where it ends
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[place]; ok {
		return false
	}
	if len(l.known) >= maxMet {
		l.more++
		return true
	}
	if l.known == nil {
		l.known = map[damagePlace]struct{}{}
	}
	l.known[place] = struct{}{}
	for _, f := range l.start {
		if f.damage && f.file == file && (e.Offset == 0 || strings.Contains(f.text, fmt.Sprintf("at offset %d are damaged", e.Offset))) {
			return false
		}
	}
	l.lines = append(l.lines, file+" "+e.text())
	return true
}

// text is Error without the file's name.
func (e *CorruptError) text() string {
	if e.Offset == 0 {
		return fmt.Sprintf("seqs %d to %d cannot be read: %s", e.FirstSeq, e.LastSeq, e.Reason)
	}
	if e.FirstSeq == e.LastSeq {
		return fmt.Sprintf("record seq=%d at offset %d is damaged: %s", e.LastSeq, e.Offset, e.Reason)
	}
	return fmt.Sprintf("%d bytes at offset %d are damaged (seqs %d to %d were there, or were never given): %s",
		e.Size, e.Offset, e.FirstSeq, e.LastSeq, e.Reason)
}

func (l *damageLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.lines) + l.more
	for _, f := range l.start {
		if f.damage {
			n++
		}
	}
	return n
}

func (l *damageLog) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, f := range l.start {
		if f.damage {
			lines = append(lines, f.file+" "+f.text)
		}
	}
	lines = append(lines, l.lines...)
	if l.more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more places", l.more))
	}
	return lines
}

// Damage lists what is damaged or missing, one line each: what Open found, and what was
// met since by whoever read it. Check reads all of it.
func (a *Archive) Damage() []string { return a.damage.list() }
