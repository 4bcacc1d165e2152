package verify

import (
	"errors"

	"penstock/provider"
)

// vectorKeys is what a vector says that the provider publishes, by address. PayPal's
// vectors give keys in the place of certificates.
type vectorKeys map[string]string

// Fetch gives what the vector has.
func (k vectorKeys) Fetch(url string) ([]byte, error) {
	if doc, ok := k[url]; ok {
		return []byte(doc), nil
	}
	return nil, errors.New("the vector publishes nothing there")
}

// Visit stands for the call: a vector has no network.
func (k vectorKeys) Visit(string) error { return nil }

func (k vectorKeys) keysAt(url string) []key {
	pub, err := newPublicKey("published key", k[url], "pem", primRSA, "paypal")
	if err != nil {
		return nil
	}
	return []key{pub}
}

// published: documents that a vector gives by their address.
func (m *mapped) published(_ *provider.Definition, c *Case, used map[string]bool) {
	for _, word := range []string{"certs", "cert_public_keys"} {
		docs, ok := c.Secrets[word].(map[string]any)
		if !ok {
			continue
		}
		keys := vectorKeys{}
		for url, doc := range docs {
			if text, isText := doc.(string); isText {
				keys[url] = text
			}
		}
		m.opts.Keys, used[word] = keys, len(keys) == len(docs)
	}
}
