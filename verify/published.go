package verify

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"sync/atomic"

	"penstock/provider"
)

// keyRefresher is a KeySource that can be asked for a newer document than the kept one.
// An error says that nobody knows whether a newer one has the key.
type keyRefresher interface {
	Refresh(url string) ([]byte, error)
}

// keyPoster is a KeySource for documents that are asked for by POST with a JSON body.
type keyPoster interface {
	Post(url string, body []byte) ([]byte, error)
}

// keyVisitor is a KeySource that can call an address once: a confirmation that a verified
// handshake asks for.
type keyVisitor interface {
	Visit(url string) error
}

// PublishedHosts are the hosts that a source of def may fetch keys from, and the addresses
// that are the same for every delivery, to be fetched ahead.
func PublishedHosts(def *provider.Definition, creds provider.Credentials, settings map[string]string) (hosts, ahead []string) {
	if p := def.Published; p != nil {
		hosts = append(hosts, p.Hosts...)
		if p.URL != "" && !hasPublicKey(def, creds) {
			ahead = append(ahead, p.URL)
		}
	}
	if u, err := url.Parse(settings["jwks_url"]); err == nil && u.Hostname() != "" {
		hosts, ahead = append(hosts, u.Hostname()), append(ahead, settings["jwks_url"])
	}
	return hosts, ahead
}

func hasPublicKey(def *provider.Definition, creds provider.Credentials) bool {
	for _, c := range def.EffectiveCredentials() {
		if (c.Role == "public_key" || c.Role == "key") && len(creds[c.Name]) > 0 {
			return true
		}
	}
	return false
}

// PublishedDocument says why doc is nothing that keys stand in; nil = it may be kept. It
// keeps an error page from taking the place of good keys.
func PublishedDocument(doc []byte) error {
	if block, _ := pem.Decode(doc); block != nil {
		return nil
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
		Key  json.RawMessage   `json:"key"`
		Kty  string            `json:"kty"`
	}
	if err := json.Unmarshal(doc, &set); err != nil {
		return errors.New("neither PEM nor a JSON Web Key Set")
	}
	if len(set.Keys) == 0 && len(set.Key) == 0 && set.Kty == "" {
		return errors.New("a JSON document without keys")
	}
	return nil
}

// keySet is a published key set, parsed once for every version of the document.
type keySet struct {
	v    *Verifier
	url  string
	last atomic.Pointer[parsedSet]
}

type parsedSet struct {
	doc  []byte
	keys []key
}

func newKeySet(v *Verifier, url string) *keySet { return &keySet{v: v, url: url} }

// prove finds the published key that made t. A key id that the kept set lacks asks for a
// newer one; while that cannot be had nobody knows, and the sender must come again.
func (s *keySet) prove(t *jws) (*key, string) {
	if s.v.source == nil {
		return nil, KeyUnavailable
	}
	doc, err := s.v.source.Fetch(s.url)
	if err != nil {
		return nil, KeyUnavailable
	}
	keys, err := s.parse(doc)
	if err != nil {
		return nil, KeyUnavailable
	}
	if k := signer(keys, t); k != nil {
		return k, ""
	}
	if t.kid == "" || named(keys, t.kid) {
		return nil, SignatureMismatch
	}
	newer, ok := s.v.source.(keyRefresher)
	if !ok {
		return nil, SignatureMismatch
	}
	if doc, err = newer.Refresh(s.url); err != nil {
		return nil, KeyUnavailable
	}
	if keys, err = s.parse(doc); err != nil {
		return nil, KeyUnavailable
	}
	if k := signer(keys, t); k != nil {
		return k, ""
	}
	return nil, SignatureMismatch
}

func named(keys []key, kid string) bool {
	for i := range keys {
		if keys[i].id == kid {
			return true
		}
	}
	return false
}

func (s *keySet) parse(doc []byte) ([]key, error) {
	if last := s.last.Load(); last != nil && sameDocument(last.doc, doc) {
		return last.keys, nil
	}
	keys, err := newJWKS("published key", string(doc), primOwn, s.v.s.Scheme)
	if err != nil {
		return nil, err
	}
	s.last.Store(&parsedSet{doc, keys})
	return keys, nil
}

// sameDocument compares two public documents, mostly by being the same memory.
func sameDocument(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}
