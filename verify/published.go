package verify

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/valyala/fastjson"

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
	if json.Valid(doc) && bytes.Contains(doc, []byte("-----BEGIN ")) { // Travis CI: a key inside a configuration
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

// keySet is what a provider publishes at one address, parsed once for every version of the
// document.
type keySet struct {
	v            *Verifier
	url          string
	format, path string // of provider.Published; "" = a JSON Web Key Set
	last         atomic.Pointer[parsedSet]
}

type parsedSet struct {
	doc  []byte
	keys []key
}

func newKeySet(v *Verifier, url string) *keySet { return &keySet{v: v, url: url} }

// compilePublished readies the published keys of the schemes that need no code of their
// own. The source's own public keys count before them: then nothing is fetched.
func (v *Verifier) compilePublished() {
	p := v.s.Published
	if p == nil || p.URL == "" || len(v.keys) > 0 {
		return
	}
	switch v.kind {
	case primRSA, primECDSA, primEd25519:
		v.published = &keySet{v: v, url: p.URL, format: p.Format, path: p.Path}
	}
}

// kept is the set as it is had. None at all is no verdict: the sender must come again.
func (s *keySet) kept() ([]key, string) {
	if s.v.source == nil {
		return nil, KeyUnavailable
	}
	doc, err := s.v.source.Fetch(s.url)
	if err != nil {
		return nil, KeyUnavailable
	}
	return s.parse(doc)
}

// newer asks for the set again. known is false where nobody can say what it is by now.
func (s *keySet) newer() (keys []key, known bool) {
	source, ok := s.v.source.(keyRefresher)
	if !ok {
		return nil, true
	}
	doc, err := source.Refresh(s.url)
	if err != nil {
		return nil, false
	}
	keys, reason := s.parse(doc)
	return keys, reason == ""
}

// prove finds the published key that made t. A key id that the kept set lacks asks for a
// newer one; while that cannot be had nobody knows, and the sender must come again.
func (s *keySet) prove(t *jws) (*key, string) {
	keys, reason := s.kept()
	if reason != "" {
		return nil, reason
	}
	if k := signer(keys, t); k != nil {
		return k, ""
	}
	if t.kid == "" || named(keys, t.kid) {
		return nil, SignatureMismatch
	}
	keys, known := s.newer()
	if !known {
		return nil, KeyUnavailable
	}
	if k := signer(keys, t); k != nil {
		return k, ""
	}
	return nil, SignatureMismatch
}

// match is Verifier.match with the published keys. A signature that none of the kept keys
// made may be of a newer one: it is asked for (at most every half minute, and never from
// an address of the request's). Where the request names its key and no newer set can be
// had, nobody knows; where it names none, the kept keys are believed.
func (s *keySet) match(v *Verifier, r *provider.Request, sc *scratch) (*key, string) {
	keys, reason := s.kept()
	if reason != "" {
		return nil, reason
	}
	k, reason := v.matchAmong(keys, r, sc)
	byID := v.s.KeyID != nil
	if reason != SignatureMismatch || byID && named(keys, string(sc.keyID)) {
		return k, reason
	}
	fresh, known := s.newer()
	switch {
	case !known && byID:
		return nil, KeyUnavailable
	case len(fresh) == 0:
		return nil, SignatureMismatch
	}
	return v.matchAmong(fresh, r, sc)
}

func named(keys []key, kid string) bool {
	for i := range keys {
		if keys[i].id == kid {
			return true
		}
	}
	return false
}

// parse reads the document. One that cannot be read does not take the place of one that
// could.
func (s *keySet) parse(doc []byte) ([]key, string) {
	last := s.last.Load()
	if last != nil && sameDocument(last.doc, doc) {
		return last.keys, ""
	}
	keys, err := s.read(doc)
	switch {
	case err == nil:
		s.last.Store(&parsedSet{doc, keys})
		return keys, ""
	case last != nil:
		return last.keys, ""
	}
	return nil, KeyUnavailable
}

func (s *keySet) read(doc []byte) ([]key, error) {
	const name = "published key"
	switch s.format {
	case "pem":
		return readPEMKeys(name, doc, s.v)
	case "json":
		if !json.Valid(doc) {
			return nil, errors.New("is no JSON")
		}
		text := fastjson.GetString(doc, strings.Split(s.path, ".")...)
		return readPEMKeys(name, []byte(text), s.v)
	}
	return newJWKS(name, string(doc), s.v.kind, s.v.s.Scheme)
}

// readPEMKeys reads one key, or several one after another.
func readPEMKeys(name string, doc []byte, v *Verifier) (out []key, err error) {
	for {
		block, rest := pem.Decode(doc)
		if block == nil {
			break
		}
		if len(out) == maxKeys {
			return nil, fmt.Errorf("holds more than %d keys", maxKeys)
		}
		k, err := newPublicKey(name, string(pem.EncodeToMemory(block)), "pem", v.kind, v.s.Scheme)
		if err != nil {
			return nil, err
		}
		out, doc = append(out, k), rest
	}
	if len(out) == 0 {
		return nil, errors.New("holds no key in PEM")
	}
	return out, nil
}

// sameDocument compares two public documents, mostly by being the same memory.
func sameDocument(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}
