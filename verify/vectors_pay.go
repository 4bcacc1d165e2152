package verify

import (
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
	case "vipps": // the host is a part of the URL that the provider calls
		host, _ := c.Secrets["host"].(string)
		used["host"] = strings.HasPrefix(c.Request.URL, "https://"+host+"/")
	}
}
