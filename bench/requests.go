package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"strconv"
	"time"
)

// secret signs the benchmark's deliveries; it protects nothing.
const secret = "whsec_benchmark_0123456789abcdef"

// traffic is what a run sends.
type traffic struct {
	Size       int     `json:"body_bytes"`
	Mixed      bool    `json:"mixed_providers,omitempty"` // Stripe, GitHub and Shopify in turn
	Duplicates float64 `json:"duplicates,omitempty"`      // share that repeats an earlier delivery
	Bad        float64 `json:"bad_signatures,omitempty"`  // share whose signature is wrong
	Sources    int     `json:"sources,omitempty"`         // over how many sources it is spread in turn; 0 = one
	Secrets    int     `json:"secrets,omitempty"`         // how many each source accepts, the last of which signs; 0 = one
	Records    int     `json:"records,omitempty"`         // how many deliveries the archive has before
}

// secretOf is the n-th of the secrets that a source accepts.
func secretOf(n int) string {
	if n == 0 {
		return secret
	}
	return fmt.Sprintf("%s%d", secret, n)
}

// requests holds ready-made requests, each with an event id of its own. They are made
// before the clock starts, so that the client costs what wrk costs.
type requests struct {
	buf   []byte
	ends  []int
	order []int32 // what is sent: duplicates name an earlier one
	bad   []bool  // of what was made
}

func (r *requests) len() int { return len(r.order) }

func (r *requests) at(i int) []byte {
	n := r.order[i]
	if n == 0 {
		return r.buf[:r.ends[0]]
	}
	return r.buf[r.ends[n-1]:r.ends[n]]
}

// maxRequestBytes bounds what a run holds ready; a run ends early where it is used up.
const maxRequestBytes = 384 << 20

// makeRequests renders n requests, fewer where they are large. run makes the event ids
// of one run differ from those of every other.
func makeRequests(n int, t traffic, run string, now time.Time) *requests {
	n = max(64, min(n, maxRequestBytes/(t.Size+400)))
	r := &requests{buf: make([]byte, 0, n*(t.Size+400)), order: make([]int32, 0, n)}
	rng := rand.New(rand.NewPCG(1, 2)) // the same mixture in every run
	m := maker{mac: hmac.New(sha256.New, []byte(secretOf(max(t.Secrets, 1)-1))), ts: strconv.FormatInt(now.Unix(), 10)}
	for i := range n {
		if len(r.ends) > 0 && rng.Float64() < t.Duplicates {
			r.order = append(r.order, rng.Int32N(int32(len(r.ends))))
			continue
		}
		bad := rng.Float64() < t.Bad
		provider := 0
		if t.Mixed {
			provider = i % len(providers)
		}
		source := providers[provider]
		if t.Sources > 1 {
			source = sourceName(i % t.Sources)
		}
		r.buf = m.request(r.buf, source, provider, fmt.Sprintf("%s%07d", run, i), t.Size, bad)
		r.order = append(r.order, int32(len(r.ends)))
		r.ends, r.bad = append(r.ends, len(r.buf)), append(r.bad, bad)
	}
	return r
}

// providers that a mixed run sends as, in turn.
var providers = [...]string{"stripe", "github", "shopify"}

// sourceName is the n-th of very many sources.
func sourceName(n int) string { return fmt.Sprintf("stripe-%d", n) }

type maker struct {
	mac  hash.Hash // whose Write never fails
	ts   string
	body []byte
	sum  [sha256.Size]byte
}

func (m *maker) request(b []byte, source string, provider int, id string, size int, bad bool) []byte {
	m.body = stripeBody(m.body[:0], id, size)
	m.mac.Reset()
	if provider == 0 {
		m.mac.Write([]byte(m.ts))
		m.mac.Write([]byte{'.'})
	}
	m.mac.Write(m.body)
	sum := m.mac.Sum(m.sum[:0])
	if bad {
		sum[0] ^= 1
	}
	b = fmt.Appendf(b, "POST /in/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nContent-Type: application/json; charset=utf-8\r\n", source)
	switch providers[provider] {
	case "stripe":
		b = fmt.Appendf(b, "Stripe-Signature: t=%s,v1=%s\r\n", m.ts, hex.EncodeToString(sum))
	case "github":
		b = fmt.Appendf(b, "X-GitHub-Event: ping\r\nX-GitHub-Delivery: %s\r\nX-Hub-Signature-256: sha256=%s\r\n", id, hex.EncodeToString(sum))
	case "shopify":
		b = fmt.Appendf(b, "X-Shopify-Topic: orders/paid\r\nX-Shopify-Shop-Domain: bench.myshopify.com\r\nX-Shopify-Event-Id: %s\r\nX-Shopify-Webhook-Id: %s\r\nX-Shopify-Hmac-Sha256: %s\r\n",
			id, id, base64.StdEncoding.EncodeToString(sum))
	}
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", len(m.body))
	return append(b, m.body...)
}

func stripeBody(b []byte, id string, size int) []byte {
	b = fmt.Appendf(b, `{"id":"evt_%s","object":"event","api_version":"2026-04-22.dahlia","created":1779999998,"data":{"object":{"id":"pi_%s","object":"payment_intent","amount":129900,"amount_received":129900,"currency":"eur","status":"succeeded","metadata":{"order_id":"ORD-%s"},"description":"`, id, id, id)
	const tail = `"}},"livemode":true,"pending_webhooks":1,"type":"payment_intent.succeeded"}`
	for len(b)+len(tail) < size {
		b = append(b, "Payment for a subscription, one month. "[:min(39, size-len(b)-len(tail))]...)
	}
	return append(b, tail...)
}
