package verify

import (
	"net/netip"
	"testing"
)

// TestAllowlist: mapped addresses are the IPv4 ones they are, on both sides. (class 23)
func TestAllowlist(t *testing.T) {
	a := NewAllowlist([]netip.Prefix{
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.51.100.7/32"),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"), netip.MustParsePrefix("2001:db8::1/32"),
	})
	for ip, want := range map[string]bool{
		"203.0.113.1": true, "203.0.114.1": false, "::ffff:203.0.113.1": true, "198.51.100.7": true, "198.51.100.8": false,
		"192.0.2.200": true, "::ffff:192.0.2.200": true, "192.0.3.1": false, "2001:db8:1::": true, "2001:db9::": false,
		"::cb00:7101": false, "fe80::1%eth0": false, "2001:db8::1%eth0": false,
	} {
		if got := a.Contains(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	var none *Allowlist
	if none.Contains(netip.MustParseAddr("127.0.0.1")) || NewAllowlist(nil).Contains(netip.MustParseAddr("127.0.0.1")) || a.Contains(netip.Addr{}) {
		t.Error("an empty list or address lets in")
	}
}
