package archive

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"penstock/provider"
)

// corpus makes deliveries as providers send them: their samples with ids, orders, sums and
// times of their own, a signature that no compressor can shorten, a proxy's headers; and
// the outcomes that publishing them leaves.
type corpus struct {
	tb    testing.TB
	rng   *rand.Rand
	names []string
	defs  []*provider.Definition
	at    time.Time
}

// payments are the providers of a shop that sells in several countries.
var payments = []string{"stripe", "liqpay", "wayforpay", "monobank", "adyen", "github", "shopify"}

func newCorpus(tb testing.TB, names ...string) *corpus {
	tb.Helper()
	cat, err := provider.Builtin()
	if err != nil {
		tb.Fatal(err)
	}
	c := &corpus{tb: tb, rng: rand.New(rand.NewPCG(1, 2)), names: names, at: time.Date(2026, 5, 28, 20, 26, 0, 0, time.UTC)}
	for _, name := range names {
		d, ok := cat.Get(name)
		if !ok || len(d.SampleTypes()) == 0 {
			tb.Fatalf("provider %s has no samples", name)
		}
		c.defs = append(c.defs, d)
	}
	return c
}

func (c *corpus) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	return hex.EncodeToString(b)
}

func (c *corpus) word(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[c.rng.IntN(len(letters))]
	}
	return string(b)
}

// next gives a delivery.
func (c *corpus) next() *Delivery {
	c.tb.Helper()
	i := c.rng.IntN(len(c.defs))
	def := c.defs[i]
	types := def.SampleTypes()
	c.at = c.at.Add(time.Duration(c.rng.IntN(2_000_000)) * time.Microsecond)
	r, err := def.Sample(types[c.rng.IntN(len(types))].Type, provider.SampleParams{
		OrderID: "order-" + c.word(10), EventID: "evt_" + c.word(24), Now: c.at, AmountMinor: int64(100 + c.rng.IntN(1_000_000)), Currency: "EUR", Livemode: true,
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	header := append(append([]byte(nil), r.Header...), fmt.Sprintf(
		"X-Signature: t=%d,v1=%s\r\nX-Request-Id: %s\r\nX-Forwarded-For: 203.0.113.%d\r\nUser-Agent: %s/1.0 (+https://example.com/docs/webhooks)\r\nAccept: */*\r\n",
		c.at.Unix(), c.hex(32), c.hex(16), c.rng.IntN(256), c.names[i])...)
	return &Delivery{ReceivedAt: c.at, Source: c.names[i], Provider: c.names[i], Verdict: Accepted, VerifiedBy: "hmac-sha256:ab12",
		RemoteIP: netip.AddrFrom4([4]byte{203, 0, 113, byte(c.rng.Uint32())}), Method: "POST", Target: r.Target, Header: header, Body: r.Body}
}

// outcome gives what publishing d leaves.
func (c *corpus) outcome(d *Delivery) Outcome {
	sum := int64(c.rng.IntN(1_000_000))
	o := Outcome{Delivery: d.Seq, Items: 1, Kind: Published, At: d.ReceivedAt.Add(30 * time.Millisecond), Source: d.Source, Sink: "kafka:5L6g3nShT-eMCtK--X86sw",
		Topic: "webhooks." + d.Source, Partition: int32(c.rng.IntN(6)), Offset: int64(d.Seq),
		Fields: Fields{EventID: "evt_" + c.word(24), EventType: "payment_intent.succeeded", Type: "payment.captured", CEID: c.hex(16),
			OrderID: "order-" + c.word(10), PaymentID: "pi_" + c.word(24), Status: "succeeded", AmountMinor: &sum, Currency: "EUR"}}
	for i := range o.Identity {
		o.Identity[i], o.Content[i] = byte(c.rng.Uint32()), byte(c.rng.Uint32())
	}
	return o
}
