package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// telegramHost is where Telegram's bots talk.
const telegramHost = "https://api.telegram.org"

// newDelivery makes the function that brings one message to the channel.
func newDelivery(ch Channel, o Options) func(context.Context, *Message) error {
	if ch.Kind == Email {
		return func(ctx context.Context, m *Message) error { return mail(ctx, ch, o, m) }
	}
	client := &http.Client{
		// Never through a proxy of the environment: behind one the address that is dialled
		// would not be the one that is checked. Never to where an answer points.
		Transport: &http.Transport{
			DialContext: o.Dial(ch.Private), ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: 32 << 10, MaxConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, m *Message) error {
		req, err := request(ctx, ch, m, o.Now())
		if err != nil {
			return &failure{err: err, permanent: true}
		}
		return post(client, req)
	}
}

func request(ctx context.Context, ch Channel, m *Message, now time.Time) (*http.Request, error) {
	to, body := ch.URL, any(nil)
	switch ch.Kind {
	case Slack:
		body = map[string]any{"text": slackText(m.text()), "unfurl_links": false, "unfurl_media": false}
	case Discord:
		// A name in an event must not call a whole server to its feet.
		body = map[string]any{"content": m.text(), "allowed_mentions": map[string]any{"parse": []string{}}}
	case Telegram:
		if to == "" {
			to = telegramHost
		}
		to = strings.TrimSuffix(to, "/") + "/bot" + ch.Token + "/sendMessage"
		body = map[string]any{"chat_id": ch.Chat, "text": m.text(), "link_preview_options": map[string]any{"is_disabled": true}}
	default:
		body = payload(m)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return nil, errors.New("the address cannot be read")
	}
	req.Header.Set("User-Agent", "penstock")
	req.Header.Set("Content-Type", "application/json")
	if ch.Kind == Webhook {
		return req, sign(req.Header, ch.Secret, m.ID, now, b)
	}
	return req, nil
}

// payload is the body of a plain webhook; docs/notifications.md tells its fields.
func payload(m *Message) any {
	return map[string]any{
		"type": "penstock." + m.State, "timestamp": m.At.UTC().Format(time.RFC3339Nano),
		"data": map[string]any{"rule": m.Rule, "when": m.When, "state": m.State, "node": m.Node, "since": m.Since.UTC().Format(time.RFC3339Nano),
			"count": m.Count, "lines": m.Lines, "more": m.More, "link": m.Link, "text": m.text()},
	}
}

// slackText takes their meaning from the characters that Slack reads as links and calls.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// sign signs as Standard Webhooks says: id, time and body, by HMAC-SHA256.
func sign(h http.Header, secret, id string, now time.Time, body []byte) error {
	key, err := signingKey(secret)
	if err != nil {
		return err
	}
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(id + "." + at + "."))
	_, _ = mac.Write(body)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", at)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

func signingKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New("the secret is not whsec_ and 24 to 64 bytes in base64")
	}
	return key, nil
}

// post sends and reads no more of the answer than its status: what stands in it is not
// ours and must not reach a log.
func post(client *http.Client, req *http.Request) error {
	res, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address, which is the secret of most channels
		}
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 == 2 {
		return nil
	}
	f := &failure{err: fmt.Errorf("answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))}
	switch c := res.StatusCode; {
	case c == http.StatusTooManyRequests, c == http.StatusRequestTimeout, c == http.StatusTooEarly, c >= 500:
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
			f.after = time.Duration(min(s, int(longestAfter/time.Second))) * time.Second
		}
	default:
		f.permanent = true
	}
	return f
}
