package provider

import (
	"bytes"
	"net/netip"
	"time"
)

// Request is a delivery as it came off the wire. Nobody writes to its bytes: what is
// verified, what is archived and what is parsed are the same bytes.
type Request struct {
	Method     string
	Target     []byte // raw request target as on the request line: "/in/stripe?x=1"
	PublicURL  string // what the provider calls, origin and target; for schemes that sign the URL
	Header     Header
	Body       []byte
	ReceivedAt time.Time
	RemoteIP   netip.Addr
	// Secrets are the source's values of Definition.ReadingCredentials, for deliveries
	// that are sealed. They never become a part of an event.
	Secrets Credentials
}

// Header is a raw header block: lines "Name: value", each ended by CRLF (a bare LF is
// read too). Look-ups scan it, so that reading one header of a small block costs no
// allocation and keeps the order and the duplicates.
type Header []byte

// Get returns the value of the first header called name (ASCII case ignored, blanks
// around the value cut off) and how many headers of that name there are. A caller that
// reads a signature refuses n > 1.
func (h Header) Get(name string) (value []byte, n int) {
	for rest := []byte(h); len(rest) > 0; {
		var k, v []byte
		k, v, rest = nextLine(rest)
		if len(k) == len(name) && equalFold(k, name) {
			if n == 0 {
				value = v
			}
			n++
		}
	}
	return value, n
}

// Each calls f for every header in order, until f returns false.
func (h Header) Each(f func(name, value []byte) bool) {
	for rest := []byte(h); len(rest) > 0; {
		var k, v []byte
		k, v, rest = nextLine(rest)
		if len(k) > 0 && !f(k, v) {
			return
		}
	}
}

// MakeHeader renders ordered pairs as a raw block, as a test or a sender has them.
func MakeHeader(pairs [][2]string) Header {
	var b []byte
	for _, p := range pairs {
		b = append(b, p[0]...)
		b = append(b, ": "...)
		b = append(b, p[1]...)
		b = append(b, "\r\n"...)
	}
	return b
}

func nextLine(b []byte) (name, value, rest []byte) {
	line := b
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		line, rest = b[:i], b[i+1:]
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, nil, rest
	}
	return line[:i], bytes.Trim(line[i+1:], " \t"), rest
}

func equalFold(a []byte, b string) bool {
	for i := range a {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if 'A' <= y && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}
