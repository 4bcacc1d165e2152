package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// resendTimeout is for the developer's program to answer: it may stand in a debugger.
const resendTimeout = 5 * time.Minute

// resender sends deliveries again to a developer's machine.
type resender struct {
	a      *app
	c      *adminClient
	to     *url.URL
	http   *http.Client
	asJSON bool
	left   int // 0 = no end
}

// forwardTarget reads --forward-to.
func forwardTarget(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--forward-to: %q is no http or https URL; write http://localhost:3000/webhooks", text)
	}
	return u, nil
}

// tailForward re-sends what arrives until ctx ends.
func (a *app) tailForward(ctx context.Context, c *adminClient, query url.Values, to *url.URL, asJSON bool, count int) int {
	for _, name := range []string{"outcome", "from", "to"} {
		if query.Has(name) {
			return a.usageError("deliveries tail", "--%s does not go with --forward-to: deliveries are sent on as they arrive", name)
		}
	}
	if !query.Has("verdict") {
		query.Set("verdict", "accepted")
	}
	client := localClient(to.String())
	client.Timeout = resendTimeout
	// A redirect is an answer like another.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if t, ok := client.Transport.(*http.Transport); ok {
		t.DisableCompression = true // or it would ask for what the provider did not
	}
	defer client.CloseIdleConnections()
	defer c.http.CloseIdleConnections()
	s := &resender{a: a, c: c, to: to, http: client, asJSON: asJSON, left: count}
	f := &follower{c: c, query: query, handle: s.handle, say: a.say}
	fmt.Fprintf(a.Stderr, "penstock: deliveries that arrive now go to %s; Ctrl-C ends it\n", to)
	if err := f.run(ctx); err != nil {
		return a.fail(exitFound, "%v", err)
	}
	return exitOK
}

// handle sends one delivery on. An error is one of the gateway's: it is asked again later.
// What the developer's program answers, or that it does not, is printed and was that.
func (s *resender) handle(ctx context.Context, r *row, raw json.RawMessage) error {
	req, err := s.request(ctx, r.ID)
	var refused *apiError
	var status string
	began := time.Now()
	switch {
	case errors.As(err, &refused) && (refused.status == http.StatusNotFound || refused.status == http.StatusGone):
		status = "not sent: " + refused.text // it is gone, or damaged
	case err != nil:
		return err
	default:
		resp, err := s.http.Do(req)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			status = "not answered: " + errText(err)
			break
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is used again
		_ = resp.Body.Close()
		status = resp.Status
	}
	s.print(r, raw, status, time.Since(began))
	if s.left > 0 {
		if s.left--; s.left == 0 {
			return errStop
		}
	}
	return nil
}

// errText is an error without the method and address around it.
func errText(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// request makes the delivery's request again: method, query, headers and bytes as they
// came, to another address.
func (s *resender) request(ctx context.Context, id string) (*http.Request, error) {
	d, err := s.c.whole(ctx, id)
	if err != nil {
		return nil, err
	}
	if d.Masked {
		return nil, &apiError{status: http.StatusForbidden, text: "this token sees headers masked; sending deliveries on wants an operator's"}
	}
	body := d.Body
	to := *s.to
	if _, query, ok := strings.Cut(d.Target, "?"); ok {
		if to.RawQuery != "" {
			to.RawQuery += "&"
		}
		to.RawQuery += query
	}
	req, err := http.NewRequestWithContext(ctx, d.Method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = forwardedHeaders(d.Headers)
	return req, nil
}

// hopHeaders concern the connection that they came by, not what was said.
var hopHeaders = map[string]bool{"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true,
	"proxy-authorization": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "content-length": true, "expect": true}

// forwardedHeaders are the delivery's own, with names written as they came. The host is
// the developer's; the provider's stands in X-Forwarded-Host.
func forwardedHeaders(headers [][2]string) http.Header {
	drop := map[string]bool{}
	for _, h := range headers {
		if strings.EqualFold(h[0], "connection") {
			for name := range strings.SplitSeq(h[1], ",") {
				drop[strings.ToLower(strings.TrimSpace(name))] = true
			}
		}
	}
	out := http.Header{"User-Agent": nil} // nil: none is made up
	for _, h := range headers {
		name := h[0]
		switch lower := strings.ToLower(name); {
		case hopHeaders[lower] || drop[lower]:
			continue
		case lower == "host":
			name = "X-Forwarded-Host"
		case lower == "user-agent":
			name = "User-Agent"
		}
		out[name] = append(out[name], h[1])
	}
	return out
}

func (s *resender) print(r *row, raw json.RawMessage, status string, took time.Duration) {
	if s.asJSON {
		b, err := json.Marshal(map[string]any{"delivery": raw, "answer": status, "milliseconds": took.Milliseconds()})
		if err == nil {
			fmt.Fprintln(s.a.Stdout, string(b))
		}
		return
	}
	color := red
	if strings.HasPrefix(status, "2") {
		color = green
	}
	subject := r.OrderID
	if subject == "" {
		subject = r.EventID
	}
	fmt.Fprintf(s.a.Stdout, "%s  %s  %-14s %-24s %s  %s\n", r.ID, r.ReceivedAt.UTC().Format("15:04:05.000"), printable(r.Source),
		printable(r.typeText()), printable(subject), s.a.paint(color, fmt.Sprintf("%s in %d ms", printable(status), took.Milliseconds())))
}
