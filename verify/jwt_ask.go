package verify

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"penstock/provider"
)

// askedKeys are keys that a provider's API hands out one by one, by the id that a delivery
// names. The address is the definition's; of the delivery only the id goes into the body.
type askedKeys struct {
	v    *Verifier
	ask  *provider.AskForKey
	url  string
	last atomic.Pointer[askedKey]
}

type askedKey struct {
	doc []byte
	key key
	end time.Time // zero = none
}

// newAskedKeys is nil where the provider has no such API, or the source brings keys of its
// own.
func newAskedKeys(v *Verifier) (*askedKeys, error) {
	if v.s.Published == nil || v.s.Published.Ask == nil {
		return nil, nil
	}
	a := &askedKeys{v: v, ask: v.s.Published.Ask}
	for _, name := range a.ask.With {
		if len(v.named[name]) == 0 {
			return nil, &ConfigError{Provider: v.name, Credential: name, Err: errors.New("is missing: the keys are asked for with it (or give the keys themselves)")}
		}
	}
	environment := v.settings["environment"]
	if list := v.s.Settings["environment"]; environment == "" && len(list) > 0 {
		environment = list[0]
	}
	a.url = strings.ReplaceAll(a.ask.URL, "{environment}", environment)
	return a, nil
}

func (a *askedKeys) prove(t *jws, now time.Time) (*key, string) {
	if !plainID(t.kid) {
		return nil, SignatureMalformed
	}
	poster, ok := a.v.source.(keyPoster)
	if !ok {
		return nil, KeyUnavailable
	}
	members := map[string]string{a.ask.ID: t.kid}
	for member, name := range a.ask.With {
		members[member] = string(a.v.named[name])
	}
	body, err := json.Marshal(members)
	if err != nil {
		return nil, KeyUnavailable
	}
	doc, err := poster.Post(a.url, body)
	if err != nil {
		return nil, KeyUnavailable
	}
	k, err := a.parse(doc)
	if err != nil {
		return nil, KeyUnavailable
	}
	if !k.end.IsZero() && !now.Before(k.end) {
		return nil, SignatureMismatch
	}
	if signer([]key{k.key}, t) == nil {
		return nil, SignatureMismatch
	}
	return &k.key, ""
}

func (a *askedKeys) parse(doc []byte) (*askedKey, error) {
	if last := a.last.Load(); last != nil && sameDocument(last.doc, doc) {
		return last, nil
	}
	var answer struct {
		Key json.RawMessage `json:"key"`
	}
	if err := json.Unmarshal(doc, &answer); err != nil {
		return nil, err
	}
	var about struct {
		ExpiredAt *int64 `json:"expired_at"`
	}
	if err := json.Unmarshal(answer.Key, &about); err != nil {
		return nil, err
	}
	keys, err := newJWKS("asked key", string(answer.Key), primOwn, a.v.s.Scheme)
	if err != nil {
		return nil, err
	}
	k := &askedKey{doc: slices.Clone(doc), key: keys[0]}
	if about.ExpiredAt != nil {
		k.end = time.Unix(*about.ExpiredAt, 0)
	}
	a.last.Store(k)
	return k, nil
}

// plainID is an id as it may stand in a question to an API: it comes from a request that
// is not verified yet.
func plainID(id string) bool {
	if id == "" || len(id) > 100 {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
