package fetch

import (
	"fmt"
	"net/url"
	"strings"
)

// View is the fetcher for one source: it reaches the hosts that its definition names and
// no other. It implements verify.KeySource.
type View struct {
	f     *Fetcher
	hosts hosts
}

// hosts are names, or patterns with "*" for one whole label.
type hosts []string

// For is the fetcher within hosts: "api.paypal.com", or "sns.*.amazonaws.com" where "*" is
// one label.
func (f *Fetcher) For(allowed ...string) *View { return &View{f: f, hosts: allowed} }

// Fetch returns the document at address: the kept one, however old up to a week, while a
// newer one is fetched in the background.
func (v *View) Fetch(address string) ([]byte, error) { return v.get(address, nil, false) }

// Refresh is Fetch for a document that lacks something: it is asked for again, at most
// every half minute. An error says that nobody knows whether a newer one has it.
func (v *View) Refresh(address string) ([]byte, error) { return v.get(address, nil, true) }

// Post is Fetch for documents that are asked for by POST with a JSON body.
func (v *View) Post(address string, body []byte) ([]byte, error) { return v.get(address, body, false) }

// Visit calls address once and keeps nothing: a confirmation that the provider asked for
// in a delivery that was verified.
func (v *View) Visit(address string) error {
	q, err := v.question(address, nil)
	if err != nil {
		return err
	}
	_, _, err = v.f.call(q)
	return err
}

// Prefetch asks for address now and keeps it fresh from here on, used or not.
func (v *View) Prefetch(address string) error {
	q, err := v.question(address, nil)
	if err != nil {
		return err
	}
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	now := v.f.o.Now()
	e := v.f.entry(q, now)
	e.pinned = true
	v.f.freshen(e, now)
	return nil
}

func (v *View) get(address string, post []byte, newer bool) ([]byte, error) {
	q, err := v.question(address, post)
	if err != nil {
		return nil, err
	}
	doc, err := v.f.get(q, newer)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", address, err)
	}
	return doc, nil
}

func (v *View) question(address string, post []byte) (question, error) {
	u, err := url.Parse(address)
	if err != nil {
		return question{}, fmt.Errorf("fetch: the address cannot be read: %w", err)
	}
	pattern, err := v.hosts.allow(u)
	if err != nil {
		return question{}, err
	}
	return question{key: keyOf(address, post), url: address, post: post, hosts: v.hosts, host: pattern}, nil
}

// allow holds an address against the list: https on its own port, a name that is listed,
// nothing in front of it.
func (h hosts) allow(u *url.URL) (pattern string, err error) {
	switch {
	case u.Scheme != "https":
		return "", fmt.Errorf("fetch %s: only https is fetched", u.Redacted())
	case u.User != nil || u.Host != u.Hostname() || u.Opaque != "" || u.Fragment != "":
		return "", fmt.Errorf("fetch %s: an address with user, port or fragment is not fetched", u.Redacted())
	}
	for _, p := range h {
		if fits(p, u.Hostname()) {
			return p, nil
		}
	}
	return "", fmt.Errorf("fetch %s: the host is none of %s", u.Redacted(), strings.Join(h, ", "))
}

func fits(pattern, host string) bool {
	want, got := strings.Split(pattern, "."), strings.Split(strings.ToLower(host), ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && (want[i] != "*" || got[i] == "") {
			return false
		}
	}
	return true
}
