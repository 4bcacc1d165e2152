package verify

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Allowlist is a set of address prefixes. The nil list allows nobody.
type Allowlist struct{ t bart.Lite }

// NewAllowlist makes a list; IPv4-mapped IPv6 prefixes count as the IPv4 ones they are.
func NewAllowlist(prefixes []netip.Prefix) *Allowlist {
	a := &Allowlist{}
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		a.t.Insert(p.Masked())
	}
	return a
}

// Contains says whether ip is allowed. A mapped address is looked up as IPv4; an address
// with a zone, or none at all, is never allowed.
func (a *Allowlist) Contains(ip netip.Addr) bool {
	if a == nil || !ip.IsValid() || ip.Zone() != "" {
		return false
	}
	return a.t.Lookup(ip.Unmap())
}
