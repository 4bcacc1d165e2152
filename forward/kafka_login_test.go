package forward

import (
	"sync/atomic"
	"testing"
	"time"
)

// A broker that ends each login after two seconds (connections.max.reauth.ms): we log in
// again before, and nobody notices. Where we come too late it hangs up on a request; that
// batch is looked for and sent again, once.
func TestProducerLoginExpires(t *testing.T) {
	b := startOwnBroker(t, "KAFKA_MORE=connections.max.reauth.ms=2000")
	direct := b.testBroker
	b.addrs = []string{b.at("kafka-sasl")}
	f := func(name, mechanism string, late bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			topic := topicName(t)
			direct.create(t, topic, 3)
			const keySaslHandshake = 17
			px := newProxy(t)
			var logins atomic.Int64
			px.set(func(key int16, _ []byte) proxyDo {
				if key == keySaslHandshake {
					logins.Add(1)
				}
				return pass
			}, nil)
			p := b.start(t, newMemState(), px, nil, func(o *KafkaOptions) {
				o.SASL = &SASLOptions{Mechanism: mechanism, Username: "penstock", Password: "penstock-test-password"}
			})
			first, n, ends := logins.Load(), 0, 0
			for limit := time.Now().Add(3 * time.Minute); logins.Load() < first+4; n++ {
				p.wire.mu.Lock()
				for c := range p.wire.all {
					if !c.expires.IsZero() {
						ends++
					}
					if late { // as if the broker had not said when
						c.expires = time.Time{}
					}
				}
				p.wire.mu.Unlock()
				p.pumpAll(topic, n, n+1, func(int) {})
				time.Sleep(20 * time.Millisecond)
				if time.Now().After(limit) {
					t.Fatalf("%d logins after %d events", logins.Load(), n)
				}
			}
			if ends == 0 {
				t.Error("the broker's logins do not end: the test proves nothing")
			}
			direct.wantOnce(t, topic, 3, 0, n)
			cut := countOf(t, p.metrics.ambiguous)
			if late && cut == 0 {
				t.Error("the broker hung up on no batch: the test proves nothing")
			}
			t.Logf("%d events over %d logins, %v batches without an answer", n, logins.Load(), cut)
		})
	}
	f("in time", "PLAIN", false)
	f("too late", "SCRAM-SHA-512", true)
}
