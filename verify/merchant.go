package verify

import (
	"strings"

	"penstock/provider"
)

// merchant is a configured merchant and the field that must name it.
type merchant struct {
	c      provider.Credential
	values []string
}

// checkMerchants refuses what is well signed but speaks of another merchant. The tenant
// is the configured text, not the request's.
func (v *Verifier) checkMerchants(r *provider.Request, sc *scratch) string {
	for i := range v.merchants {
		m := &v.merchants[i]
		name, f := v.merchantName(m, r, sc)
		if f == foundAbsent && m.c.Absent == "allow" {
			continue
		}
		tenant := ""
		for _, want := range m.values {
			if f == foundText && string(name) == want {
				tenant = want
			}
		}
		if tenant == "" {
			return MerchantMismatch
		}
		sc.tenant = tenant
	}
	return ""
}

func headerText(name string, r *provider.Request) ([]byte, found) {
	switch text, n := r.Header.Get(name); n {
	case 0:
		return nil, foundAbsent
	case 1:
		return text, foundText
	}
	return nil, foundDuplicate
}

func (v *Verifier) merchantName(m *merchant, r *provider.Request, sc *scratch) ([]byte, found) {
	if name, ok := strings.CutPrefix(m.c.Field, "header:"); ok {
		return headerText(name, r)
	}
	if name, ok := strings.CutPrefix(m.c.Field, "claim:"); ok {
		return sc.claim(name)
	}
	if !v.load(r, sc) {
		return nil, foundAbsent
	}
	if m.c.Inside == "" {
		return sc.lookup(m.c.Field)
	}
	outer, f := sc.lookup(m.c.Inside)
	if f != foundText {
		return nil, f
	}
	n := len(sc.arena)
	var ok bool
	if sc.arena, ok = v.appendDecoded(sc.arena, outer, "base64"); !ok {
		return nil, foundAbsent
	}
	sc.parsed = max(sc.parsed, len(sc.arena)-n)
	doc, err := sc.inner.ParseBytes(sc.arena[n:])
	if err != nil {
		return nil, foundAbsent
	}
	return sc.lookupJSON(doc, m.c.Field)
}
