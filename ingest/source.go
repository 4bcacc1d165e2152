package ingest

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"penstock/provider"
	"penstock/verify"
)

// Verifier decides about a request. *verify.Verifier is one.
type Verifier interface {
	// Verify must be safe for concurrent use and must not keep the request's bytes.
	Verify(r *provider.Request, now time.Time) verify.Result
	// Ack is the provider's own answer to a delivery that is stored.
	Ack(r *provider.Request, now time.Time) verify.Reply
}

// ErrKept is a handshake that would replace a secret which an earlier one delivered.
var ErrKept = errors.New("a secret is kept already")

// errNoCapture is a handshake whose secret has no place.
var errNoCapture = errors.New("nothing keeps what this handshake delivers: archive.encryption.key is missing")

// Allower says whether a client address may deliver. *verify.Allowlist is one.
type Allower interface {
	Contains(addr netip.Addr) bool
}

// Source is one configured endpoint. It is a value: SetSources compiles it, and later
// changes to it have no effect.
type Source struct {
	Name      string
	Provider  string   // name of its definition
	Path      string   // raw path; "" = Options.Path with the name in it
	Methods   []string // methods the provider uses; none = POST
	Verifier  Verifier // required
	Allow     Allower  // nil = every address
	AllowTry  bool     // Allow refuses nobody: what it would have refused is counted and logged
	MaxBody   int64    // bytes; 0 = Options.MaxBodyBytes
	Rate      float64  // deliveries a second; 0 = no limit
	Burst     int      // of Rate; 0 = one second's worth, at least 1
	Epoch     uint64   // id of its definition and routing in the archive
	PublicURL string   // as Options.PublicURL, or the whole URL of this source
	// Capture keeps what a handshake delivers and returns when it is on stable storage, or
	// ErrKept where something is kept already. nil = nothing can be kept.
	Capture  func(c *verify.Capture, now time.Time) error
	ClientCA *x509.CertPool // set = a client certificate of one of these is demanded (mTLS)
	Later    *Later         // nil = a delivery is answered as soon as it is archived
}

// source is a compiled Source. It never changes; its limiter and counters are shared
// with its successor of the same name.
type source struct {
	Source
	methods map[string]string // interned: a look-up by bytes gives a string without a copy
	allow   string            // value of the Allow header
	limiter *rate.Limiter
	public  string // origin and prefix before the request target; "" = none
	full    string // public URL of the bare path, so that most requests need no new string
	count   *sourceCounters
}

// table is the set of sources in force. Requests in flight keep the one they began with.
type table struct {
	byPath   map[string]*source
	byName   map[string]*source
	methods  map[string]bool // what any source takes; every other method is 405
	clientCA bool            // some source demands a client certificate
}

// SetSources puts the sources in force, all or none: an error changes nothing. Requests
// in flight are finished under the old ones. A source whose rate is unchanged keeps what
// is left of its burst.
func (s *Server) SetSources(list []Source) error {
	s.swap.Lock()
	defer s.swap.Unlock()
	old := s.table.Load()
	t := &table{
		byPath:  make(map[string]*source, len(list)),
		byName:  make(map[string]*source, len(list)),
		methods: map[string]bool{"POST": true, "GET": true},
	}
	for i := range list {
		c, err := s.compile(list[i], old)
		if err != nil {
			return fmt.Errorf("source %q: %w", list[i].Name, err)
		}
		if t.byName[c.Name] != nil {
			return fmt.Errorf("source %q: there are two of this name", c.Name)
		}
		if other := t.byPath[c.Path]; other != nil {
			return fmt.Errorf("source %q: path %s is the path of source %q", c.Name, c.Path, other.Name)
		}
		t.byName[c.Name], t.byPath[c.Path] = c, c
		t.clientCA = t.clientCA || c.ClientCA != nil
		for m := range c.methods {
			t.methods[m] = true
		}
	}
	s.table.Store(t)
	return nil
}

func (s *Server) compile(in Source, old *table) (*source, error) {
	c := &source{Source: in, methods: map[string]string{}}
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if c.Verifier == nil {
		return nil, fmt.Errorf("it has nothing to verify with")
	}
	if c.Path == "" {
		c.Path = s.opts.Path
	}
	c.Path = strings.ReplaceAll(c.Path, "{source}", c.Name)
	if err := checkPath(c.Path); err != nil {
		return nil, err
	}
	if c.ClientCA != nil && s.opts.TLS == nil {
		return nil, fmt.Errorf("it demands client certificates, but ingest has no TLS")
	}
	if c.MaxBody <= 0 {
		c.MaxBody = s.opts.MaxBodyBytes
	}
	if c.MaxBody > s.opts.InFlightBytes {
		return nil, fmt.Errorf("max_body %d is above the %d bytes that may be in flight", c.MaxBody, s.opts.InFlightBytes)
	}
	if len(c.Methods) == 0 {
		c.Methods = []string{"POST"}
	}
	for _, m := range c.Methods {
		c.methods[m] = m
	}
	c.allow = strings.Join(c.Methods, ", ")
	if err := c.setPublicURL(s.opts.PublicURL); err != nil {
		return nil, err
	}
	c.setRate(old.byName[c.Name])
	c.count = s.metrics.source(c.Name)
	return c, nil
}

// setPublicURL splits what providers call into the part before the request target and
// the rest. A URL that ends with the source's own path names the source whole.
func (c *source) setPublicURL(common string) error {
	raw := c.PublicURL
	if raw == "" {
		raw = common
	}
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("public_url %q is not an http or https URL without query", raw)
	}
	base := strings.TrimSuffix(raw, "/")
	c.public = strings.TrimSuffix(base, c.Path)
	c.full = c.public + c.Path
	return nil
}

// publicURL is the URL as the provider called it: for schemes that sign it.
func (c *source) publicURL(target []byte) string {
	switch {
	case c.public == "":
		return ""
	case len(target) == len(c.Path):
		return c.full
	}
	return c.public + string(target)
}

func (c *source) setRate(before *source) {
	if c.Rate <= 0 {
		return
	}
	if c.Burst <= 0 {
		c.Burst = max(1, int(c.Rate))
	}
	if before != nil && before.limiter != nil && before.Rate == c.Rate && before.Burst == c.Burst {
		c.limiter = before.limiter
		return
	}
	c.limiter = rate.NewLimiter(rate.Limit(c.Rate), c.Burst)
}

// checkName holds source names to what is safe in a path, a label and a file name.
func checkName(name string) error {
	for i := range len(name) {
		b := name[i]
		ok := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || i > 0 && (b == '-' || b == '_' || b == '.')
		if !ok {
			return fmt.Errorf("a name has letters, digits, and - _ . after the first; byte %d is %q", i, b)
		}
	}
	if name == "" || len(name) > 63 {
		return fmt.Errorf("a name has 1 to 63 letters, not %d", len(name))
	}
	return nil
}

// checkPath refuses a path that a request could not match byte for byte, because the
// edge refuses such targets (badPath) or because proxies rewrite them.
func checkPath(p string) error {
	if p == "" || p[0] != '/' {
		return fmt.Errorf("path %q does not begin with /", p)
	}
	if badPath([]byte(p)) || strings.ContainsAny(p, "?#\\ \"<>{}") {
		return fmt.Errorf("path %q has empty, dotted or escaped parts, or letters that do not belong into a path", p)
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] >= 0x7f {
			return fmt.Errorf("path %q is not plain ASCII", p)
		}
	}
	return nil
}

func checkPattern(p string) error {
	if strings.Count(p, "{source}") != 1 {
		return fmt.Errorf("ingest path %q needs {source} once", p)
	}
	return checkPath(strings.Replace(p, "{source}", "source", 1))
}
