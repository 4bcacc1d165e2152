package ingest

import (
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddr(t *testing.T) {
	trusted := plainPrefixes([]netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::ffff:127.0.0.0/104"), netip.MustParsePrefix("2001:db8:1::/48"),
	})
	f := func(peer, want string, headers ...string) {
		t.Helper()
		p := netip.MustParseAddr(peer).Unmap()
		if got := clientAddr(p, []byte(lines(headers)), trusted); got.String() != want {
			t.Errorf("peer %s, headers %.80q: %s, want %s", peer, headers, got, want)
		}
	}
	const xff = "X-Forwarded-For: "
	f("198.51.100.1", "198.51.100.1")
	f("198.51.100.1", "198.51.100.1", xff+"203.0.113.1") // no trusted proxy: not believed
	f("10.0.0.1", "10.0.0.1")
	f("10.0.0.1", "203.0.113.1", xff+"203.0.113.1")
	f("::ffff:10.0.0.1", "203.0.113.1", xff+"203.0.113.1")
	f("10.0.0.1", "203.0.113.1", "x-forwarded-FOR:203.0.113.1  ")
	f("10.0.0.1", "198.51.100.7", xff+"203.0.113.1, 198.51.100.7") // the left one is the client's claim
	f("10.0.0.1", "198.51.100.7", xff+"203.0.113.1,198.51.100.7, 10.9.9.9 ,127.0.0.1")
	f("10.0.0.1", "198.51.100.7", xff+"203.0.113.1", xff+"198.51.100.7", xff+"10.2.2.2")
	f("10.0.0.1", "198.51.100.7", xff+"203.0.113.1, 198.51.100.7", "X-Other: 1", xff+"")
	f("10.0.0.1", "10.3.3.3", xff+"10.3.3.3, 10.2.2.2") // all trusted: the farthest
	f("10.0.0.1", "203.0.113.1", xff+"::ffff:203.0.113.1")
	f("10.0.0.1", "10.5.5.5", xff+"::ffff:10.5.5.5")
	f("10.0.0.1", "203.0.113.1", xff+"203.0.113.1:443")
	f("10.0.0.1", "2001:db8::7", xff+"2001:db8::7")
	f("10.0.0.1", "2001:db8::7", xff+"[2001:db8::7]")
	f("10.0.0.1", "2001:db8::7", xff+"[2001:db8::7]:8443")
	f("10.0.0.1", "fe80::1", xff+"fe80::1%eth0")
	f("10.0.0.1", "203.0.113.9", xff+"203.0.113.9, 2001:db8:1::5, [2001:db8:1::6]:1")
	// What is no address ends the walk at the last known proxy.
	for _, junk := range []string{"unknown", "_hidden", "203.0.113", "203.0.113.1.1", "203.0.113.256", "0203.0.113.1", "1.2.3.4 5",
		"1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[2001:db8::7", "[2001:db8::7]x", "[1.2.3.4]", "::g", "''", "\x00", strings.Repeat("1", 100)} {
		if junk == "1.2.3.4:" {
			continue // a port left empty still names the address
		}
		f("10.0.0.1", "10.0.0.1", xff+"203.0.113.1, "+junk)
		f("10.0.0.1", "10.2.2.2", xff+"203.0.113.1, "+junk+", 10.2.2.2")
	}
	f("10.0.0.1", "10.0.0.1", xff+"203.0.113.1, , ")
	f("10.0.0.1", "198.51.100.7", "Connection: X-Forwarded-For", xff+"198.51.100.7")
	f("10.0.0.1", "10.0.0.1", "X-Forwarded-For-Not: 1.2.3.4", "Not-X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4")
	// A thousand hops: only so many are looked at.
	f("10.0.0.1", "10.1.1.1", xff+"203.0.113.1"+strings.Repeat(", 10.1.1.1", 1000))
	f("10.0.0.1", "203.0.113.1", xff+strings.Repeat("10.1.1.1, ", 1000)+"203.0.113.1")
}

func FuzzClientAddr(f *testing.F) {
	f.Add("X-Forwarded-For: 1.2.3.4, [::1]:80\r\n")
	f.Add("X-Forwarded-For:\r\nx-forwarded-for: ,\n\n")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, header string) {
		if got := clientAddr(netip.MustParseAddr("10.0.0.1"), []byte(header), trusted); !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("address %v of %q", got, header)
		}
		_ = scanFrame([]byte(header))
		_ = badPath(splitPath([]byte(header)))
	})
}

func TestParse4(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "255.255.255.255", "1.20.30.4", "256.1.1.1", "1.1.1", "1..1.1", ".1.1.1", "1.1.1.", "01.1.1.1", "1.1.1.1a", "", "1.1.1.1.1", "999999999999.1.1.1"} {
		want, err := netip.ParseAddr(s)
		got, ok := parse4([]byte(s))
		if ok != (err == nil) || ok && got != want {
			t.Errorf("%q: %v %v, netip says %v %v", s, got, ok, want, err)
		}
	}
}
