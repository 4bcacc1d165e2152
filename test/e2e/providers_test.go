package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const gatewayConfig = `ingest: {listen: "%INGEST%"}
admin:
  listen: "%ADMIN%"
  tokens: [{name: e2e, role: operator, token: "%TOKEN%"}]
archive: {dir: "%DIR%/archive"}
`

func forwardConfig(redis, kafka, prefix string) string {
	return fmt.Sprintf(`dedupe: {window: 8d, redis: {addresses: ["%s"], prefix: "%s"}}
forward:
  kafka: {brokers: ["%s"], topic: "%s.{source}", dead_letter_topic: "%s.dead", create_topics: {partitions: 3, replication: 1}, compression: zstd}
`, redis, prefix, kafka, prefix, prefix)
}

func sourcesConfig(ss []sender) string {
	b := "sources:\n"
	for _, s := range ss {
		b += "  - " + strings.TrimPrefix(s.conf, "\n    ") + "\n"
	}
	return b
}

// post sends one delivery; the answer's status is 0 when there was none.
func post(c *http.Client, addr string, d delivery) (status int, body []byte, id string) {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/in/"+d.source, bytes.NewReader(d.body))
	if err != nil {
		return 0, nil, ""
	}
	for _, h := range d.header {
		req.Header.Set(h[0], h[1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, ""
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, ""
	}
	return resp.StatusCode, body, resp.Header.Get("Penstock-Delivery-Id")
}

// tally is what the test sent of one source.
type tally struct {
	good            map[string]delivery // by token
	repeats         int
	tampered, stale int
	rejectedID      []string
}

// TestEveryProvider sends signed deliveries of every provider, 30 % of them again, some
// tampered with, some stale, all mixed and concurrent. Each accepted one must be in Kafka
// exactly once with the right fields; each rejected one in the archive with its reason.
func TestEveryProvider(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("e2e%d", time.Now().UnixNano())
	ss := senders(t)
	g := newGateway(t, gatewayConfig+forwardConfig(redis, kafka, prefix)+sourcesConfig(ss))
	g.start()

	const each = 60
	tallies := make([]*tally, len(ss))
	var wg sync.WaitGroup
	for i, s := range ss {
		tallies[i] = &tally{good: map[string]delivery{}}
		wg.Go(func() { sendSource(t, g, s, tallies[i], each) })
	}
	wg.Wait()
	g.drain(60 * time.Second)

	for i, s := range ss {
		t.Run(s.source, func(t *testing.T) {
			checkKafka(t, s, tallies[i], consume(t, kafka, prefix+"."+s.source))
			checkArchive(t, g, s, tallies[i])
		})
	}
	g.stop()
}

func sendSource(t *testing.T, g *gateway, s sender, ta *tally, each int) {
	rng := rand.New(rand.NewPCG(7, uint64(len(s.source))))
	client := &http.Client{Timeout: 20 * time.Second}
	send := func(d delivery, want int, what string) string {
		status, body, id := post(client, g.ingest, d)
		if status != want {
			t.Errorf("%s %s: answer %d %.200s; want %d", s.source, what, status, body, want)
		}
		if id == "" {
			t.Errorf("%s %s: no Penstock-Delivery-Id", s.source, what)
		}
		if want == 200 && d.ack != nil {
			d.ack(t, body)
		}
		return id
	}
	var sent []delivery
	for n := range each {
		d := s.make(n, time.Now())
		send(d, 200, "good")
		ta.good[d.token] = d
		sent = append(sent, d)
		switch {
		case rng.IntN(10) < 3: // the provider repeats itself, newly signed or byte for byte
			again := sent[rng.IntN(len(sent))]
			send(again, 200, "repeat")
			ta.repeats++
		case n%10 == 4:
			bad := s.make(n+5000, time.Now())
			if s.tamper != nil {
				s.tamper(&bad)
			} else {
				bad.body = bytes.Replace(bad.body, []byte(bad.token), []byte(strings.Replace(bad.token, "e2e-", "evl-", 1)), 1)
			}
			ta.rejectedID = append(ta.rejectedID, send(bad, 401, "tampered"))
			ta.tampered++
		case n%10 == 8 && s.stale:
			old := s.make(n+7000, time.Now().Add(-time.Hour))
			ta.rejectedID = append(ta.rejectedID, send(old, 401, "stale"))
			ta.stale++
		}
	}
}

var tokens = regexp.MustCompile(`(e2e|evl)-[a-z0-9_]+-\d{6}`)

func checkKafka(t *testing.T, s sender, ta *tally, records []record) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range records {
		tok := tokens.FindString(r.Payload + " " + strings.Join(r.Headers, " "))
		d, ok := ta.good[tok]
		if !ok {
			t.Errorf("a record that nobody sent, token %q: %.300s", tok, r.Payload)
			continue
		}
		if seen[tok]++; seen[tok] == 1 {
			checkEvent(t, s, d, r)
		}
	}
	for tok := range ta.good {
		if seen[tok] != 1 {
			t.Errorf("%s is %d times in Kafka; want once", tok, seen[tok])
		}
	}
	if len(ta.good) == 0 {
		t.Error("nothing was sent")
	}
}

func checkEvent(t *testing.T, s sender, d delivery, r record) {
	t.Helper()
	for _, name := range []string{"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_deliveryid", "ce_provider", "ce_providertype", "ce_archiveseq", "ce_bodysha256", "ce_verifiedby", "content-type"} {
		if r.header(name) == "" {
			t.Errorf("%s: no header %s in %v", d.token, name, r.Headers)
		}
	}
	if r.header("ce_source") != "/penstock/"+d.source || r.Key == "" {
		t.Errorf("%s: ce_source %q, key %q", d.token, r.header("ce_source"), r.Key)
	}
	if d.ceid != "" && r.header("ce_id") != d.ceid {
		t.Errorf("%s: ce_id %q, want %q", d.token, r.header("ce_id"), d.ceid)
	}
	if d.typ != "" && r.header("ce_type") != d.typ {
		t.Errorf("%s: ce_type %q, want %q", d.token, r.header("ce_type"), d.typ)
	}
	var v struct {
		Provider, Source, Type string
		Payment                *struct {
			OrderID string `json:"order_id"`
			Amount  struct {
				Minor    int64
				Currency string
				Exponent int
			}
		}
		Payload json.RawMessage
	}
	if err := json.Unmarshal([]byte(r.Payload), &v); err != nil {
		t.Errorf("%s: the value is no JSON: %v", d.token, err)
		return
	}
	if v.Source != d.source || v.Type != r.header("ce_type") || v.Provider != r.header("ce_provider") {
		t.Errorf("%s: value says provider %q source %q type %q", d.token, v.Provider, v.Source, v.Type)
	}
	if d.payload != "" && !bytes.Contains([]byte(r.Payload), []byte(d.payload)) {
		t.Errorf("%s: the payload is not the provider's document byte for byte:\n got %.400s\nwant %.400s", d.token, v.Payload, d.payload)
	}
	if d.minor == 0 {
		return
	}
	switch {
	case v.Payment == nil:
		t.Errorf("%s: no payment block in %.400s", d.token, r.Payload)
	case v.Payment.Amount.Minor != d.minor || v.Payment.Amount.Currency != d.currency || v.Payment.Amount.Exponent != 2:
		t.Errorf("%s: amount %+v, want %d %s", d.token, v.Payment.Amount, d.minor, d.currency)
	case d.order != "" && v.Payment.OrderID != d.order:
		t.Errorf("%s: order %q, want %q", d.token, v.Payment.OrderID, d.order)
	}
}

func checkArchive(t *testing.T, g *gateway, s sender, ta *tally) {
	t.Helper()
	var rejected []row
	eventually(t, 10*time.Second, "the index has the rejected deliveries", func() error {
		rejected = g.list("verdict=rejected&source=" + s.source)
		if len(rejected) != ta.tampered+ta.stale {
			return fmt.Errorf("%d rejected deliveries, want %d tampered and %d stale", len(rejected), ta.tampered, ta.stale)
		}
		return nil
	})
	reasons := map[string]int{}
	for _, r := range rejected {
		reasons[r.Reason]++
	}
	if reasons["signature_mismatch"] != ta.tampered || reasons["timestamp_outside_tolerance"] != ta.stale {
		t.Errorf("reasons %v; want %d signature_mismatch, %d timestamp_outside_tolerance", reasons, ta.tampered, ta.stale)
	}
	for _, id := range ta.rejectedID {
		if len(g.getRaw("/api/v1/deliveries/"+id+"/body")) == 0 {
			t.Errorf("the rejected delivery %s has no body", id)
		}
	}
	if dup := g.list("outcome=duplicate&source=" + s.source); len(dup) != ta.repeats {
		t.Errorf("%d duplicates in the archive, want %d", len(dup), ta.repeats)
	} else if len(dup) > 0 && dup[0].DuplicateOf == "" {
		t.Errorf("the duplicate %s does not name its twin", dup[0].ID)
	}
	if pub := g.list("outcome=published&source=" + s.source); len(pub) != len(ta.good) {
		t.Errorf("%d published in the archive, want %d", len(pub), len(ta.good))
	}
}
