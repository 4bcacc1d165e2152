// Package iplist keeps the published address lists of providers current: the list that was
// shipped is in force from the start, the provider's own is fetched from time to time, and
// the last good one is kept on disk. What cannot be right is refused, and the one in force
// stays: a list that lets nobody in stops deliveries, one that lets everybody in is none.
package iplist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"penstock/provider"
	"penstock/verify"
)

// Fetcher gets a document. Implementations bound size and time.
type Fetcher interface {
	Fetch(ctx context.Context, url string) ([]byte, error)
}

// Bounds of one exchange: the largest list that we know of (GitHub's) is 200 KiB.
const (
	maxDocument  = 2 << 20
	fetchTimeout = 20 * time.Second
)

// HTTP is a Fetcher for https addresses that stays on the host that it was sent to.
type HTTP struct{ client *http.Client }

// NewHTTP makes one. transport may be nil.
func NewHTTP(transport http.RoundTripper) *HTTP {
	return &HTTP{client: &http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" || r.URL.Host != via[0].URL.Host || len(via) > 3 {
			return fmt.Errorf("it redirects to %s", r.URL.Host)
		}
		return nil
	}}}
}

// Fetch gets the document at url.
func (h *HTTP) Fetch(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("fetch %s: only https is fetched", address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "penstock") // GitHub answers nobody without one
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch %s: status %d", address, resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("fetch %s: above %d bytes", address, maxDocument)
	}
	return b, err
}

// Options of New.
type Options struct {
	Dir        string        // where the last good lists are kept; "" = nowhere
	Interval   time.Duration // between two looks; 0 = the shipped lists alone
	Fetcher    Fetcher
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Keeper keeps the lists of the providers that are asked for.
type Keeper struct {
	o       Options
	metrics metrics
	wake    chan struct{} // a list was added

	mu    sync.Mutex // guards lists
	lists map[string]*List
}

// List is one provider's list in force. It is read without a lock.
type List struct {
	name    string
	def     *provider.Definition
	inForce atomic.Pointer[set]
	due     time.Time // of Run alone, but for the first
}

// set is a list as it stands; it never changes.
type set struct {
	prefixes []netip.Prefix
	allow    *verify.Allowlist
	date     string // of the shipped list, or the day of the fetched one
}

// Contains says whether the address is on the list. It is meant for the hot path.
func (l *List) Contains(ip netip.Addr) bool { return l.inForce.Load().allow.Contains(ip) }

// Prefixes are what is in force, and the day that they are of.
func (l *List) Prefixes() ([]netip.Prefix, string) {
	s := l.inForce.Load()
	return s.prefixes, s.date
}

// New makes a keeper.
func New(o Options) *Keeper {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Keeper{o: o, metrics: newMetrics(o.Registerer), wake: make(chan struct{}, 1), lists: map[string]*List{}}
}

// List gives the list of a provider; the first call reads what was kept on disk.
func (k *Keeper) List(def *provider.Definition) *List {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.lists[def.Name]; l != nil && reflect.DeepEqual(l.def.Addresses, def.Addresses) {
		return l // another list only where a definition of the configuration was changed
	}
	l := &List{name: def.Name, def: def, due: k.o.Now()}
	shipped, date := def.IPRanges()
	k.put(l, shipped, date)
	if kept, day, err := k.load(def.Name); err != nil {
		k.o.Logger.Warn("a kept address list is passed over; the shipped one is in force", zap.String("provider", def.Name), zap.Error(err))
	} else if day > date { // a newer release brings a newer list
		if err := sane(kept, shipped); err != nil {
			k.o.Logger.Warn("a kept address list is passed over; the shipped one is in force", zap.String("provider", def.Name), zap.Error(err))
		} else {
			k.put(l, kept, day)
		}
	}
	k.lists[def.Name] = l
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return l
}

func (k *Keeper) put(l *List, prefixes []netip.Prefix, date string) {
	l.inForce.Store(&set{prefixes: prefixes, allow: verify.NewAllowlist(prefixes), date: date})
	k.metrics.size.WithLabelValues(l.name).Set(float64(len(prefixes)))
	shipped, _ := l.def.IPRanges()
	added, removed := drift(shipped, prefixes)
	k.metrics.drift.WithLabelValues(l.name, "added").Set(float64(len(added)))
	k.metrics.drift.WithLabelValues(l.name, "removed").Set(float64(len(removed)))
}

// Run refreshes the lists until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if k.o.Interval <= 0 || k.o.Fetcher == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		next := k.refreshDue(ctx)
		timer := time.NewTimer(max(time.Second, next.Sub(k.o.Now())))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-k.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// failedAgain is how soon a list that could not be had is asked for again, at most.
const failedAgain = time.Hour

// refreshDue refreshes what is due, and says when the next is.
func (k *Keeper) refreshDue(ctx context.Context) time.Time {
	k.mu.Lock()
	lists := make([]*List, 0, len(k.lists))
	for _, l := range k.lists {
		lists = append(lists, l)
	}
	k.mu.Unlock()
	now := k.o.Now()
	next := now.Add(k.o.Interval)
	for _, l := range lists {
		if !l.due.After(now) && len(l.def.Addresses.Refresh) > 0 && ctx.Err() == nil {
			wait := k.o.Interval
			if k.Refresh(ctx, l) != nil {
				wait = min(wait, failedAgain)
			}
			// Some spread, so that many gateways do not ask at the same moment.
			l.due = now.Add(wait - time.Duration(rand.Int64N(int64(wait/10)+1)))
		}
		if l.due.After(now) && l.due.Before(next) {
			next = l.due
		}
	}
	return next
}

// Refresh fetches one list and puts it in force if it can be right. Run does so by itself.
func (k *Keeper) Refresh(ctx context.Context, l *List) error {
	result, err := k.refresh(ctx, l)
	k.metrics.refreshes.WithLabelValues(l.name, result).Inc()
	switch {
	case result == "refused":
		k.o.Logger.Error("a published address list cannot be right; the one in force stays", zap.String("provider", l.name), zap.Error(err))
	case err != nil:
		k.o.Logger.Warn("a published address list could not be had; the one in force stays", zap.String("provider", l.name), zap.Error(err))
	}
	if err == nil {
		k.metrics.checked.WithLabelValues(l.name).Set(float64(k.o.Now().Unix()))
	}
	return err
}

func (k *Keeper) refresh(ctx context.Context, l *List) (result string, err error) {
	var fresh []netip.Prefix
	for _, from := range l.def.Addresses.Refresh {
		part, cancel := context.WithTimeout(ctx, fetchTimeout)
		doc, err := k.o.Fetcher.Fetch(part, from.URL)
		cancel()
		if err != nil {
			return "failed", err
		}
		list, err := from.Read(doc)
		if err != nil {
			return "refused", fmt.Errorf("%s: %w", from.URL, err)
		}
		fresh = append(fresh, list...)
	}
	fresh = compact(fresh)
	old := l.inForce.Load()
	measure := old.prefixes
	if old.date < k.o.Now().Add(-maxMeasure).UTC().Format(time.DateOnly) {
		measure = nil
	}
	if err := sane(fresh, measure); err != nil {
		return "refused", err
	}
	day := k.o.Now().UTC().Format(time.DateOnly)
	if err := k.save(l.name, fresh, day); err != nil {
		k.o.Logger.Warn("an address list could not be kept; it is in force until a restart", zap.String("provider", l.name), zap.Error(err))
	}
	k.put(l, fresh, day)
	added, removed := drift(old.prefixes, fresh)
	if len(added)+len(removed) == 0 {
		return "unchanged", nil
	}
	k.o.Logger.Warn("the provider's published addresses changed", zap.String("provider", l.name),
		zap.Stringers("added", clip(added)), zap.Stringers("removed", clip(removed)), zap.Int("in_force", len(fresh)))
	return "changed", nil
}

// clip keeps a log line readable.
func clip(list []netip.Prefix) []netip.Prefix { return list[:min(len(list), 50)] }

// compact sorts and drops what is there twice.
func compact(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(list)
}

// drift is what of b is not covered by a, and what of a is not covered by b.
func drift(a, b []netip.Prefix) (added, removed []netip.Prefix) {
	return uncovered(b, a), uncovered(a, b)
}

func uncovered(list, by []netip.Prefix) (out []netip.Prefix) {
	for _, p := range list {
		if !slices.ContainsFunc(by, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}

// The bounds of what a list may hold. Wider networks than these nobody sends webhooks from:
// GitHub's widest are a /20 and a /29.
const (
	maxPrefixes = 5000
	widest4     = 12
	widest6     = 24
)

// maxMeasure is how old a list may be to say of a newer one that it differs too much: of
// one that was shipped long ago half may well have changed.
const maxMeasure = 365 * 24 * time.Hour

// special are networks that no provider sends from over the internet, beside the private,
// loopback, link-local and multicast ones.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("::/16"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// sane says why a list cannot be right, measured by an older one; nil = there is none.
func sane(fresh, old []netip.Prefix) error {
	switch {
	case len(fresh) == 0:
		return errors.New("it is empty: nobody could deliver any more")
	case len(fresh) > maxPrefixes:
		return fmt.Errorf("it has %d networks; at most %d are believed", len(fresh), maxPrefixes)
	}
	for _, p := range fresh {
		widest := widest6
		if p.Addr().Is4() {
			widest = widest4
		}
		if p.Bits() < widest {
			return fmt.Errorf("%s is too wide a network to be a provider's", p)
		}
		for _, s := range special {
			if s.Overlaps(p) {
				return fmt.Errorf("%s is no public address", p)
			}
		}
	}
	if gone := uncovered(old, fresh); 2*len(gone) > len(old) {
		return fmt.Errorf("%d of the %d networks in force are not in it: more than half at once is not believed; write the networks out in allow_ips if it is true", len(gone), len(old))
	}
	if len(old) > 0 && len(fresh) > 20*len(old)+200 {
		return fmt.Errorf("it has %d networks where %d are in force: that is not believed", len(fresh), len(old))
	}
	return nil
}
