package forward

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxReply is how much of an answer's body is read.
	maxReply = 64 << 10
	// drainFor is how long the rest of an answer that nobody wants is waited for, so that
	// its connection can be used again.
	drainFor = 500 * time.Millisecond
	// maxRetryAfter bounds what a target may ask for.
	maxRetryAfter = 24 * time.Hour
	// maxEventIDs bounds the header that names the events of a delivery.
	maxEventIDs = 2 << 10
)

// courier carries messages to one target under one setting. It is immutable.
type courier struct {
	HTTPTarget
	url       *url.URL
	keys      [][]byte
	first     time.Duration // pause after the first failure, at most
	transport *http.Transport
}

// attemptResult is what came of one attempt.
type attemptResult struct {
	delivered bool
	down      bool // it says something about the target, not about this delivery
	status    int  // 0 = no answer
	after     time.Duration
	reply     *Reply
	label     string
}

func newCourier(o HTTPTarget) (*courier, error) {
	u, err := checkTarget(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Dial == nil {
		return nil, errors.New("it has no way out")
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 8
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 5 * 24 * time.Hour
	}
	if o.MaxPause <= 0 {
		o.MaxPause = 15 * time.Minute
	}
	c := &courier{HTTPTarget: o, url: u, first: firstPause}
	for _, s := range o.Secrets {
		key, err := signingKey(s)
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, key)
	}
	// No proxy of the environment: behind one the address that is dialled would not be the
	// one that is checked.
	c.transport = &http.Transport{
		DialContext: o.Dial, TLSClientConfig: o.TLS, ForceAttemptHTTP2: true, DisableCompression: true, TLSHandshakeTimeout: o.Timeout,
		MaxConnsPerHost: o.Concurrency, MaxIdleConnsPerHost: o.Concurrency, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return c, nil
}

// signingKey reads a secret of Standard Webhooks: whsec_ and base64, or any text.
func signingKey(s string) ([]byte, error) {
	rest, ok := strings.CutPrefix(s, "whsec_")
	if !ok {
		return []byte(s), nil
	}
	key, err := base64.StdEncoding.DecodeString(rest)
	if err != nil || len(key) == 0 {
		return nil, errors.New("a secret begins with whsec_ and is not base64 behind it")
	}
	return key, nil
}

// attempt sends a message once.
func (c *courier) attempt(ctx context.Context, m *Message, wanted bool) attemptResult {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := c.request(ctx, m, time.Now())
	if err != nil {
		return attemptResult{label: "not_sendable"}
	}
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		label := "failed"
		if ctx.Err() != nil {
			label = "timeout"
		}
		return attemptResult{down: true, label: label}
	}
	defer res.Body.Close()
	r := attemptResult{status: res.StatusCode, delivered: res.StatusCode/100 == 2, down: res.StatusCode >= 500,
		label: strconv.Itoa(res.StatusCode/100) + "xx", after: retryAfterOf(res.Header.Get("Retry-After"), time.Now())}
	if !wanted {
		stop := time.AfterFunc(drainFor, cancel)
		defer stop.Stop()
		_, _ = io.CopyN(io.Discard, res.Body, maxReply)
		return r
	}
	// The status is what counts. A body that breaks off says nothing to anybody.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		body = nil
	}
	r.reply = &Reply{Status: res.StatusCode, ContentType: res.Header.Get("Content-Type"), Body: body}
	return r
}

func retryAfterOf(v string, now time.Time) time.Duration {
	d := time.Duration(0)
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		d = time.Duration(s) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// hopByHop are the headers of one connection; those that Connection names come to them.
// Host and length are those of our request. What the target is to believe of us nobody
// else may say.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Expect": true, "Content-Length": true, "Host": true,
	"X-Forwarded-For": true, "X-Forwarded-Host": true,
	"Accept-Encoding": true, // an answer that goes back to the provider goes without its encoding
}

// receivedPrefix stands before headers of the provider's that ours would hide.
const receivedPrefix = "Penstock-Received-"

// request makes the request: method, query, headers and body as they were received.
func (c *courier) request(ctx context.Context, m *Message, now time.Time) (*http.Request, error) {
	r := m.request
	u := *c.url
	if i := bytes.IndexByte(r.target, '?'); i >= 0 && i+1 < len(r.target) {
		query := string(r.target[i+1:])
		if u.RawQuery != "" {
			query = u.RawQuery + "&" + query
		}
		u.RawQuery = query
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(m.Value))
	if err != nil {
		return nil, err
	}
	req.Header = c.received(r.header)
	set := func(name, value string) {
		if value != "" {
			req.Header[name] = []string{value}
		}
	}
	set("X-Forwarded-For", r.address)
	set("Penstock-Delivery-Id", r.id)
	set("Penstock-Event-Id", joinIDs(r.events))
	set("Penstock-Source", r.source)
	set("Penstock-Replay", m.Replay)
	for _, h := range m.Headers {
		if h.Key == headerConflict {
			set("Penstock-Conflict", string(h.Value))
		}
	}
	if len(c.keys) > 0 {
		stamp := strconv.FormatInt(now.Unix(), 10)
		set("Webhook-Id", r.id)
		set("Webhook-Timestamp", stamp)
		set("Webhook-Signature", c.sign(r.id, stamp, m.Value))
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // else Go names itself
	}
	return req, nil
}

// received gives the headers that go on.
func (c *courier) received(lines []byte) http.Header {
	h := http.Header{}
	for line := range bytes.Lines(lines) {
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		key := textproto.CanonicalMIMEHeaderKey(string(name))
		value = bytes.Trim(value, " \t")
		if !ok || !isToken(key) || bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			continue
		}
		h[key] = append(h[key], string(value))
	}
	host := h.Get("Host")
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	for _, name := range slices.Collect(maps.Keys(h)) {
		switch {
		case hopByHop[name], strings.HasPrefix(name, "Penstock-"):
			delete(h, name)
		case len(c.keys) > 0 && strings.HasPrefix(name, "Webhook-"):
			h[receivedPrefix+name] = h[name]
			delete(h, name)
		}
	}
	if host != "" {
		h["X-Forwarded-Host"] = []string{host}
	}
	return h
}

func isToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; b <= ' ' || b >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, b) >= 0 {
			return false
		}
	}
	return s != ""
}

// joinIDs lists the events of a delivery, as far as a header may go.
func joinIDs(ids []string) string {
	var b strings.Builder
	for i, id := range ids {
		if b.Len()+len(id) > maxEventIDs || !plainText(id) {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(id)
	}
	return b.String()
}

// plainText says whether a value may stand in a header: ids come from outside.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// sign is the signature of Standard Webhooks, one for each secret: the receiver takes any.
func (c *courier) sign(id, stamp string, body []byte) string {
	out := make([]string, len(c.keys))
	for i, key := range c.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		out[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(out, " ")
}
