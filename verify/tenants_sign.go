package verify

import (
	"fmt"
	"strings"
	"time"

	"penstock/provider"
)

// Sign makes r a delivery of that merchant as the provider would send it at now: it names
// the merchant where the definition looks for it, and signs with its credentials.
func (t *Tenants) Sign(id string, r *provider.Request, now time.Time) error {
	one := t.set[id]
	if one == nil {
		return fmt.Errorf("%s: there is no tenant %q to sign for", t.def.Name, id)
	}
	return one.v.Sign(r, now)
}

// nameIn writes the merchant's name into r, unless the verifier's Sign does.
func (t *Tenants) nameIn(id string, r *provider.Request) error {
	if t.places.Credential != nil {
		return nil
	}
	path := t.places.Paths[0]
	if name, ok := strings.CutPrefix(path, "header:"); ok {
		r.Header = setHeader(r.Header, name, id)
		return nil
	}
	if t.places.List != "" {
		return setEach(r, t.places.List, path, id)
	}
	return setField(r, t.def.Body, path, id)
}
