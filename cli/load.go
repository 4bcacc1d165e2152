package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/provider"
	"penstock/verify"
)

var randomReader = rand.Reader

// load sends what one `send` asks for.
type load struct {
	flags    *sendFlags
	share    float64
	times    int           // how often each is sent again
	staleBy  time.Duration // signed this long ago; 0 = now
	free     bool          // the server is not ours: any 2xx is an ack, any 4xx a refusal
	to       *url.URL
	signURL  string
	verifier *verify.Verifier
	stranger *verify.Verifier // signs wrongly; nil unless tampering
	events   *sampler
	client   *http.Client

	mu  sync.Mutex
	old []*provider.Request // earlier deliveries, unsigned, to be repeated
	res results
}

// maxOld bounds what is kept for repeats.
const maxOld = 1000

func sendClient(to *url.URL, concurrency int) *http.Client {
	t := &http.Transport{
		MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency, MaxConnsPerHost: concurrency,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableCompression: true,
	}
	if ip := net.ParseIP(to.Hostname()); ip != nil && ip.IsLoopback() {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // loopback: nobody is between
	}
	return &http.Client{Transport: t, Timeout: sendTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// run sends them all, or until ctx ends.
func (l *load) run(ctx context.Context) *results {
	l.res.start = time.Now()
	l.res.statuses = map[string]int{}
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range min(l.flags.concurrency, l.flags.count) {
		wg.Go(func() {
			for i := range jobs {
				for r := l.one(ctx, i); r != nil && l.times > 0 && ctx.Err() == nil; r = nil {
					for range l.times {
						again := *r
						l.deliver(ctx, &again, true)
					}
				}
			}
		})
	}
	l.feed(ctx, jobs)
	close(jobs)
	wg.Wait()
	l.client.CloseIdleConnections()
	l.res.took = time.Since(l.res.start)
	return &l.res
}

// feed hands out the numbers at the rate that was asked for. The times are fixed from the
// start, so that a slow answer does not lower the rate.
func (l *load) feed(ctx context.Context, jobs chan<- int) {
	for i := range l.flags.count {
		if l.flags.rate > 0 {
			due := l.res.start.Add(time.Duration(float64(i) / l.flags.rate * float64(time.Second)))
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(due)):
			}
		}
		select {
		case <-ctx.Done():
			return
		case jobs <- i:
		}
	}
}

// one makes and sends the i-th delivery, and gives it back unsigned.
func (l *load) one(ctx context.Context, i int) *provider.Request {
	r, repeat, err := l.next(i)
	if err != nil {
		l.res.broken(err)
		return nil
	}
	unsigned := *r
	l.deliver(ctx, r, repeat)
	return &unsigned
}

// deliver signs, sends and judges one delivery.
func (l *load) deliver(ctx context.Context, r *provider.Request, repeat bool) {
	want, err := l.sign(r)
	if err != nil {
		l.res.broken(err)
		return
	}
	sent := time.Now()
	status, body, id, err := l.post(ctx, r)
	took := time.Since(sent)
	if err != nil {
		if ctx.Err() == nil {
			l.res.failed(err)
		}
		return
	}
	why := want.judge(status, body, sent)
	l.res.answered(status, took, repeat, why, id)
}

// next is a new event, or one that was sent before.
func (l *load) next(i int) (*provider.Request, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.old) > 0 && mrand.Float64() < l.share {
		r := *l.old[mrand.IntN(len(l.old))]
		return &r, true, nil
	}
	r, query, err := l.events.next(i)
	if err != nil {
		return nil, false, err
	}
	r.Target = []byte(l.to.EscapedPath())
	if q := joinQuery(l.to.RawQuery, query); q != "" {
		r.Target = append(append(r.Target, '?'), q...)
	}
	r.PublicURL = l.signURL
	if i := bytes.IndexByte(r.Target, '?'); i >= 0 && !strings.Contains(l.signURL, "?") {
		r.PublicURL += string(r.Target[i:])
	}
	if l.share > 0 {
		kept := *r
		if len(l.old) < maxOld {
			l.old = append(l.old, &kept)
		} else {
			l.old[mrand.IntN(maxOld)] = &kept
		}
	}
	return r, false, nil
}

func joinQuery(a, b string) string {
	if a != "" && b != "" {
		return a + "&" + b
	}
	return a + b
}

// expected is what a right answer looks like.
type expected struct {
	refused  string // how it was made to be refused; "" = it is good
	free     bool
	status   int
	verifier *verify.Verifier
	request  *provider.Request
}

func (l *load) sign(r *provider.Request) (*expected, error) {
	now := time.Now()
	r.ReceivedAt = now
	unsigned := *r
	if err := l.verifier.Sign(r, now.Add(-l.staleBy)); err != nil {
		return nil, err
	}
	if l.staleBy > 0 {
		res := l.verifier.Verify(r, now)
		if res.Verdict != verify.Rejected || res.Reason != verify.TimestampOutsideTolerance {
			return nil, errors.New("nothing stale about it: this scheme signs no time, or the source allows any; deduplication stops replays")
		}
		return l.refusal("stale", res), nil
	}
	if l.stranger == nil {
		return &expected{verifier: l.verifier, request: r, free: l.free}, nil
	}
	res := l.tamper(r, now)
	if res.Verdict != verify.Rejected {
		*r = unsigned
		if err := l.stranger.Sign(r, now); err != nil {
			return nil, err
		}
		res = l.verifier.Verify(r, now)
	}
	if res.Verdict != verify.Rejected {
		return nil, errors.New("no change of this delivery makes it invalid: its scheme proves nothing")
	}
	return l.refusal("tampered", res), nil
}

func (l *load) refusal(how string, res verify.Result) *expected {
	e := &expected{refused: how, free: l.free, status: http.StatusUnauthorized}
	if res.Reply != nil && res.Reply.Status >= 400 {
		e.status = res.Reply.Status
	}
	return e
}

// maxTampers bounds how many places are tried; a field that is not signed changes nothing.
const maxTampers = 200

// tamper changes one character of the body so that the signature does not hold.
func (l *load) tamper(r *provider.Request, now time.Time) (res verify.Result) {
	res.Verdict = verify.Accepted
	step := max(1, len(r.Body)/maxTampers)
	for i := len(r.Body) / 2; i < len(r.Body); i += step {
		c := r.Body[i]
		if c < '0' || c > 'z' || c > '9' && c < 'A' || c > 'Z' && c < 'a' {
			continue
		}
		body := bytes.Clone(r.Body)
		body[i] = swap(c)
		changed := *r
		changed.Body = body
		if res = l.verifier.Verify(&changed, now); res.Verdict == verify.Rejected && res.Reason == verify.SignatureMismatch {
			r.Body = body
			return res
		}
	}
	res.Verdict = verify.Accepted
	return res
}

// swap gives another character of the same class.
func swap(c byte) byte {
	switch c {
	case '9':
		return '0'
	case 'z':
		return 'a'
	case 'Z':
		return 'A'
	}
	return c + 1
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

func (l *load) post(ctx context.Context, r *provider.Request) (status int, body []byte, id string, err error) {
	u := *l.to
	u.RawQuery = ""
	if i := bytes.IndexByte(r.Target, '?'); i >= 0 {
		u.RawQuery = string(r.Target[i+1:])
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header["User-Agent"] = nil
	r.Header.Each(func(k, v []byte) bool {
		// Not Add: providers write names that Go would not.
		name := http.CanonicalHeaderKey(string(k))
		req.Header[name] = append(req.Header[name], string(v))
		return true
	})
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, body, resp.Header.Get("Penstock-Delivery-Id"), err
}

// clockSlack is how far the gateway's clock may be from ours when it signs its answer.
const clockSlack = 5 * time.Second

// judge says what is wrong with an answer, "" when it is the expected one.
func (e *expected) judge(status int, body []byte, sent time.Time) string {
	switch {
	case e.refused != "" && (status == e.status || e.free && status >= 400 && status < 500):
		return ""
	case e.refused != "":
		return "status " + strconv.Itoa(status) + ", expected " + strconv.Itoa(e.status) + ": a " + e.refused + " delivery was not refused as such"
	}
	var want verify.Reply
	for at := sent.Add(-clockSlack); !at.After(time.Now().Add(clockSlack)); at = at.Add(time.Second) {
		want = e.verifier.Ack(e.request, at)
		right := status == want.Status || e.free && len(want.Body) == 0 && status >= 200 && status < 300
		if right && (len(want.Body) == 0 || bytes.Equal(body, want.Body)) {
			return ""
		}
	}
	if status != want.Status {
		return fmt.Sprintf("status %d, expected %d: %s", status, want.Status, printable(string(body[:min(len(body), 200)])))
	}
	return "the body of the answer is not what the provider wants: " + printable(string(body[:min(len(body), 200)]))
}
