package ingest

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	unknownKept  = 64  // paths remembered
	unknownChars = 200 // of a path or user agent
)

// UnknownPath is a path that was called and belongs to no source: a provider that was
// set up with a typing error, a removed source, or a scanner.
type UnknownPath struct {
	Path      string     `json:"path"`
	Method    string     `json:"method"`
	Count     uint64     `json:"count"`
	Address   netip.Addr `json:"address"` // of the last one
	UserAgent string     `json:"user_agent"`
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
}

// unknownRing remembers the last paths. A storm costs a look at 64 strings under a lock
// that nobody waits for: who does not get it is not remembered.
type unknownRing struct {
	mu   sync.Mutex
	list []UnknownPath
	next int
}

func (r *unknownRing) add(path, method, agent []byte, addr netip.Addr, now time.Time) {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	path, agent, method = clip(path), clip(agent), clip(method)
	for i := range r.list {
		e := &r.list[i]
		if e.Path == string(path) {
			e.Count++
			e.Last, e.Address = now, addr
			if e.UserAgent != string(agent) {
				e.UserAgent = printable(agent)
			}
			return
		}
	}
	e := UnknownPath{
		Path: printable(path), Method: printable(method), UserAgent: printable(agent),
		Count: 1, Address: addr, First: now, Last: now,
	}
	if len(r.list) < unknownKept {
		r.list = append(r.list, e)
		return
	}
	r.list[r.next] = e
	r.next = (r.next + 1) % unknownKept
}

// UnknownPaths gives the last paths that belong to no source, newest first. The list is
// bounded; a path that fell out of it begins at 1 again.
func (s *Server) UnknownPaths() []UnknownPath {
	s.unknown.mu.Lock()
	list := append([]UnknownPath{}, s.unknown.list...)
	s.unknown.mu.Unlock()
	slices.SortFunc(list, func(a, b UnknownPath) int { return b.Last.Compare(a.Last) })
	return list
}

func clip(b []byte) []byte { return b[:min(len(b), unknownChars)] }

// printable makes bytes of a stranger harmless in a terminal and in a page's source.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, string(b))
}
