package ingest

import (
	"bytes"
	"net"
	"net/netip"
)

// hopsRead bounds how many X-Forwarded-For hops are looked at. Real chains have two or
// three; a longer one of trusted addresses was made up.
const hopsRead = 32

// clientAddr gives the address a delivery comes from: the peer's, or, if the peer is a
// trusted proxy, the rightmost X-Forwarded-For hop that is not one. What stands left of
// it is the client's own claim and is not looked at. A hop that is no address ends the
// walk: the last proxy that is known to be one stands for what is behind it, which no
// allowlist should name.
func clientAddr(peer netip.Addr, header []byte, trusted []netip.Prefix) netip.Addr {
	if len(trusted) == 0 || !contains(trusted, peer) {
		return peer
	}
	addr, hops := peer, 0
	for end := len(header); end > 0; {
		start := bytes.LastIndexByte(header[:end-1], '\n') + 1
		line := header[start:end]
		end = start
		value, ok := forwardedFor(line)
		if !ok {
			continue
		}
		for more := true; more; {
			var hop []byte
			hop, value, more = lastHop(value)
			if len(hop) == 0 && !more {
				break // an empty header line says nothing
			}
			next, ok := parseHop(hop)
			if hops++; !ok || hops > hopsRead {
				return addr
			}
			addr = next
			if !contains(trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// forwardedFor gives the value of a line if it is an X-Forwarded-For header.
func forwardedFor(line []byte) ([]byte, bool) {
	const name = "x-forwarded-for"
	if len(line) <= len(name) || line[len(name)] != ':' || !equalFold(line[:len(name)], name) {
		return nil, false
	}
	return bytes.Trim(line[len(name)+1:], " \t\r\n"), true
}

// lastHop cuts the last hop off a list.
func lastHop(list []byte) (hop, rest []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	if i < 0 {
		return bytes.Trim(list, " \t"), nil, false
	}
	return bytes.Trim(list[i+1:], " \t"), list[:i], true
}

// parseHop reads "1.2.3.4", "1.2.3.4:80", "2001:db8::1", "[2001:db8::1]:443". The zone of
// an address is dropped: it means nothing on another machine.
func parseHop(b []byte) (netip.Addr, bool) {
	if len(b) == 0 || len(b) > 64 {
		return netip.Addr{}, false
	}
	if a, ok := parse4(b); ok {
		return a, true
	}
	if b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		if i < 0 || (i+1 < len(b) && b[i+1] != ':') {
			return netip.Addr{}, false
		}
		b = b[1:i]
	}
	a, err := netip.ParseAddr(string(b))
	if err != nil || a.Is4() { // an IPv4 address that parse4 refuses is no address
		return netip.Addr{}, false
	}
	return a.WithZone("").Unmap(), true
}

// parse4 reads a dotted quad with an optional port without making a string of it.
func parse4(b []byte) (netip.Addr, bool) {
	if i := bytes.IndexByte(b, ':'); i > 0 {
		if len(b)-i > len(":65535") {
			return netip.Addr{}, false
		}
		for _, d := range b[i+1:] {
			if d < '0' || d > '9' {
				return netip.Addr{}, false
			}
		}
		b = b[:i]
	}
	var quad [4]byte
	part, value, digits := 0, 0, 0
	for _, ch := range b {
		switch {
		case ch == '.' && digits > 0 && part < 3:
			quad[part] = byte(value)
			part, value, digits = part+1, 0, 0
		case '0' <= ch && ch <= '9' && !(digits > 0 && value == 0): // no leading zeros: some read octal
			value = value*10 + int(ch-'0')
			if digits++; value > 255 {
				return netip.Addr{}, false
			}
		default:
			return netip.Addr{}, false
		}
	}
	if part != 3 || digits == 0 {
		return netip.Addr{}, false
	}
	quad[3] = byte(value)
	return netip.AddrFrom4(quad), true
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// addrOf gives the address of a network peer: unmapped and without zone; the zero Addr
// where it has none (a Unix socket, a pipe).
func addrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().WithZone("").Unmap()
}

// plainPrefixes writes IPv4 prefixes that stand in IPv6 form as IPv4: addresses are
// compared unmapped.
func plainPrefixes(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out
}
