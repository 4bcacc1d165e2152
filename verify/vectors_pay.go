package verify

import (
	"fmt"
	"strings"

	"penstock/provider"
)

// payments places what single payment providers' vectors say in words of their own.
func (m *mapped) payments(def *provider.Definition, c *Case, used map[string]bool) {
	switch def.Name {
	case "payfast":
		if c.Secrets["passphrase"] == "" { // an account that has none
			delete(m.creds, "passphrase")
			m.opts.Settings["without_passphrase"] = "true"
		}
	case "tpay": // what stands at Tpay's host is in the vector
		at, ok := c.Secrets["x5u_public_keys"].(map[string]any)
		m.opts.Keys = keysAt(at)
		used["x5u_public_keys"], used["x5u_prefix"] = ok, c.Secrets["x5u_prefix"] == tpayLive
	case "vipps": // the host is a part of the URL that the provider calls
		host, _ := c.Secrets["host"].(string)
		used["host"] = strings.HasPrefix(c.Request.URL, "https://"+host+"/")
	}
}

// ownPrimitive is a scheme whose comparison can be tested without the rest around it.
type ownPrimitive interface {
	primitive(r *provider.Request, sc *scratch) bool
}

// keysAt serves published keys out of a vector.
type keysAt map[string]any

// Fetch gives what the vector says that stands at url.
func (k keysAt) Fetch(url string) ([]byte, error) {
	text, ok := k[url].(string)
	if !ok {
		return nil, fmt.Errorf("the vector has nothing at %s", url)
	}
	return []byte(text), nil
}
