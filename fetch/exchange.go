package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Transport is the guarded way out for another client of what providers publish: it
// connects to addresses of the public internet only, and never through a proxy.
func Transport() http.RoundTripper { return newTransport(Options{}) }

// Dialer is the same guard for other protocols and other clients. private are networks that
// are not public and may be reached all the same, because somebody wrote them down.
func Dialer(private ...netip.Prefix) *net.Dialer {
	return &net.Dialer{Timeout: exchangeTimeout, Control: func(network, address string, c syscall.RawConn) error {
		if ap, err := netip.ParseAddrPort(address); err == nil {
			for _, p := range private {
				if p.Contains(ap.Addr().Unmap()) {
					return nil
				}
			}
		}
		return guard(network, address, c)
	}}
}

// newTransport never goes through a proxy of the environment: behind one the address that
// is dialled would not be the one that is checked.
func newTransport(o Options) *http.Transport {
	dial := o.Dial
	if dial == nil {
		d := &net.Dialer{Timeout: exchangeTimeout, Control: guard}
		dial = d.DialContext
	}
	return &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true, TLSHandshakeTimeout: exchangeTimeout, ResponseHeaderTimeout: exchangeTimeout,
		MaxResponseHeaderBytes: 32 << 10, MaxConnsPerHost: maxExchanges, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
	}
}

// guard looks at the address that a name led to, after the look-up and before the
// connection: a name that points inside is refused whatever it was a moment ago.
func guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %s: no address", address)
	}
	if !public(ap.Addr()) {
		return fmt.Errorf("dial %s: not an address of the public internet", ap.Addr())
	}
	return nil
}

// inside are the blocks that IsGlobalUnicast lets through and that lead nowhere public:
// this network, shared address space, protocol assignments, documentation, benchmarks,
// reserved, and the IPv6 forms that carry an IPv4 address.
var inside = func() (out []netip.Prefix) {
	for _, s := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10", "::/96"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || a.Zone() != "" {
		return false
	}
	for _, p := range inside {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// exchange asks for a document and counts how it went.
func (f *Fetcher) exchange(q question) (doc []byte, life time.Duration, err error) {
	select {
	case f.room <- struct{}{}:
		defer func() { <-f.room }()
	case <-f.ctx.Done():
		return nil, 0, errors.New("stopping")
	}
	doc, life, err = f.call(q)
	result := "ok"
	if err != nil {
		result = "failed"
	} else if f.o.Check != nil {
		if err = f.o.Check(doc); err != nil {
			result, err = "bad_document", fmt.Errorf("the answer is no document of keys: %w", err)
		}
	}
	f.asked.WithLabelValues(q.host, result).Inc()
	return doc, life, err
}

func (f *Fetcher) call(q question) (doc []byte, life time.Duration, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, exchangeTimeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if q.post != nil {
		method, body = http.MethodPost, bytes.NewReader(q.post)
	}
	req, err := http.NewRequestWithContext(ctx, method, q.url, body)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("User-Agent", "penstock")
	req.Header.Set("Accept", "*/*")
	if q.post != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: f.transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > 2 || q.post != nil {
			return errors.New("redirected too often, or a POST was")
		}
		_, err := q.hosts.allow(next.URL)
		return err
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("answered %s", res.Status)
	}
	if doc, err = io.ReadAll(io.LimitReader(res.Body, maxDocument+1)); err != nil {
		return nil, 0, fmt.Errorf("read the answer: %w", err)
	}
	if len(doc) > maxDocument {
		return nil, 0, fmt.Errorf("the answer is longer than %d bytes", maxDocument)
	}
	return doc, lifeOf(res.Header.Get("Cache-Control")), nil
}

// lifeOf reads Cache-Control within our bounds.
func lifeOf(cacheControl string) time.Duration {
	life := defaultLife
	for _, part := range strings.Split(strings.ToLower(cacheControl), ",") {
		part = strings.TrimSpace(part)
		switch {
		case part == "no-store", part == "no-cache":
			return minLife
		case strings.HasPrefix(part, "max-age="):
			s, err := strconv.ParseInt(strings.Trim(part[len("max-age="):], `"`), 10, 32)
			if err == nil {
				life = time.Duration(s) * time.Second
			}
		}
	}
	return min(max(life, minLife), maxLife)
}
