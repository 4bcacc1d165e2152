package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// parcelhub is a provider that is defined in the configuration; its type and its order are
// where the definition says.
func parcelhub(typ, order string) sender {
	const secret = "ph_e2e_0123456789abcdef"
	return sender{source: "parcelhub", conf: fmt.Sprintf(`
    name: parcelhub
    provider:
      name: parcelhub
      scheme: hmac
      algorithm: sha256
      signed: "{body}"
      signature: {header: X-Parcelhub-Signature, prefix: "sha256=", encoding: hex}
      event: {id: event_id, type: %s, order_id: %s}
    credentials: {secrets: [%s]}`, typ, order, secret),
		make: func(n int, _ time.Time) delivery {
			tok := token("parcelhub", n)
			body := fmt.Appendf(nil, `{"event_id":"%s","event":"delivered","kind":"arrived","parcel":{"id":"P-%d","order":"O-%d"}}`, tok, n%50, n%50)
			return delivery{source: "parcelhub", token: tok, ceid: tok, body: body, payload: string(body),
				header: jsonType([2]string{"X-Parcelhub-Signature", "sha256=" + hex.EncodeToString(mac(sha256.New, []byte(secret), body))})}
		}}
}

// TestChangedAtKill: the gateway is killed under load again and again, and each time comes
// back with another definition of the provider and another topic. What was accepted under
// one goes out by that one, once, repeats under the other included.
func TestChangedAtKill(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("changed%d", time.Now().UnixNano())
	versions := []struct {
		s               sender
		topic, typ, key string
	}{
		{parcelhub("event", "parcel.order"), prefix + "-a", "parcelhub.delivered", "O-"},
		{parcelhub("kind", "parcel.id"), prefix + "-b", "parcelhub.arrived", "P-"},
	}
	conf := func(i int) string {
		return gatewayConfig + strings.Replace(forwardConfig(redis, kafka, prefix), prefix+".{source}", versions[i].topic, 1) +
			sourcesConfig([]sender{versions[i].s})
	}
	g := newGateway(t, conf(0))
	g.start()
	l := &loader{g: g, s: versions[0].s, acked: map[string]delivery{}, sent: map[string]bool{}} // what is sent is the same
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() { l.run(stop, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	for i := range 6 {
		time.Sleep(400 * time.Millisecond)
		g.kill()
		g.configure(conf((i + 1) % 2))
		g.start()
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	wg.Wait()
	g.drain(2 * time.Minute)
	var all []record
	for _, v := range versions {
		rs := consume(t, kafka, v.topic)
		if len(rs) == 0 {
			t.Errorf("topic %s has no records: that configuration was never at work", v.topic)
		}
		for _, r := range rs {
			if typ := r.header("ce_type"); typ != v.typ {
				t.Fatalf("topic %s has an event of type %s, want %s: it went out by another definition than by that under which it came", v.topic, typ, v.typ)
			}
			if !strings.HasPrefix(r.Key, v.key) {
				t.Fatalf("topic %s has an event with the other definition's key %q", v.topic, r.Key)
			}
		}
		all = append(all, rs...)
	}
	lost, repeats := checkOnce(t, l, all)
	t.Logf("%d sent, %d answered 2xx, %d lost, %d published again", len(l.sent), len(l.acked), lost, repeats)
	if len(l.acked) < 100 {
		t.Errorf("only %d deliveries were answered 2xx: the load was too small to prove anything", len(l.acked))
	}
	g.stop()
}

// TestPausedWithAckPublished: where an answer means that Kafka has it, a paused source
// answers 503; what it was sent is kept, and published when it is resumed.
func TestPausedWithAckPublished(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("paused%d", time.Now().UnixNano())
	s := stripeSender()
	g := newGateway(t, gatewayConfig+forwardConfig(redis, kafka, prefix)+
		"sources:\n  - "+strings.TrimSuffix(s.conf, "}")+", ack: {after: published, deadline: 60s}}\n")
	g.start()
	if resp := postRaw(t, g, s.make(1, time.Now())); resp.StatusCode != http.StatusOK {
		t.Fatalf("before the pause: %d", resp.StatusCode)
	}
	g.say("/api/v1/sources/stripe/pause")
	began := time.Now()
	resp := postRaw(t, g, s.make(2, time.Now()))
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("paused: answer %d, Retry-After %q, after %v", resp.StatusCode, resp.Header.Get("Retry-After"), time.Since(began))
	}
	g.say("/api/v1/sources/stripe/resume")
	g.drain(time.Minute)
	if got := eventsOf(consume(t, kafka, prefix+".stripe")); len(got) != 2 || got[s.make(2, time.Now()).ceid] != 1 {
		t.Errorf("after resuming kafka has %v, want both once", got)
	}
	g.stop()
}
