package forward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Another cluster is a new home: nothing is sent until an operator says so.
func TestProducerOtherCluster(t *testing.T) {
	s := newMemState()
	one := fakeBroker(t, kfake.ClusterID("one"))
	topic := topicName(t)
	one.create(t, topic, 1)
	p := one.start(t, s, nil, nil)
	p.send(events(topic, 0, 5)...)
	p.waitAcked(5)
	s = s.after()
	p.kill()
	two := fakeBroker(t, kfake.ClusterID("two"))
	two.create(t, topic, 1)
	q, err := newProducer(KafkaOptions{Brokers: two.addrs}, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id, err := q.Open(ctx)
	if !errors.Is(err, ErrNewHome) || id != "two" {
		t.Fatalf("open of another cluster says %q, %v", id, err)
	}
	q.AcceptHome("")
	if _, err := q.Open(ctx); err != nil {
		t.Fatal(err)
	}
	acks, err := q.Recover(ctx, rebuildFrom(topic))
	if err != nil || len(acks) != 5 {
		t.Fatalf("recover gives %d acks, %v", len(acks), err)
	}
	for _, a := range acks { // the old cluster may have them, this one has not
		if !errors.Is(a.Err, ErrNotSent) {
			t.Errorf("delivery %d: %v", a.Message.Delivery, a.Err)
		}
	}
	_ = q.Close(ctx)
	r := two.start(t, s.after(), nil, nil) // and it stays accepted
	r.send(events(topic, 0, 5)...)
	r.waitAcked(5)
	two.wantOnce(t, topic, 1, 0, 5)
}

// A topic that was deleted and made again is a new home too, seen at the start and
// while it is published to.
func TestProducerReplacedTopic(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		p := b.start(t, newMemState(), nil, nil)
		p.send(events(topic, 0, 5)...)
		p.waitAcked(5)
		b.remove(t, topic)
		p.topics[topic].doubt()
		eventually(t, "the deletion is seen", func() bool { _, why := p.TopicState(topic); return why == ReasonMissing })
		b.create(t, topic, 1)
		eventually(t, "the new topic is seen", func() bool { _, why := p.TopicState(topic); return why == ReasonReplaced })
		if err := p.Send(context.Background(), event(topic, 5)); !errors.Is(err, ErrTopicBlocked) {
			t.Errorf("send to the replaced topic says %v", err)
		}
		p.AcceptHome(topic)
		eventually(t, "the new topic is open", func() bool { is, _ := p.TopicState(topic); return !is })
		p.send(events(topic, 0, 20)...)
		if acks := p.waitAcked(20); acks[0].Offset != 0 {
			t.Errorf("first offset in the new topic is %d", acks[0].Offset)
		}
		if n := countOf(t, p.metrics.regressed.WithLabelValues(topic)); n != 0 {
			t.Errorf("a replaced topic was reported as lost data %v times", n)
		}
		b.wantOnce(t, topic, 1, 0, 20)
	})
}

func countOf(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// Kafka ends below what it acknowledged: reported before anything is sent, again after
// each start until the report was taken, and not any more after that.
func TestProducerRegressedAtStart(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		s := newMemState()
		p := b.start(t, s, nil, nil)
		p.send(events(topic, 0, 5)...)
		if err := p.Done(p.waitAcked(5)); err != nil {
			t.Fatal(err)
		}
		if err := p.shut(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		s.kv[ackedKey(topic, 0)] = encodeOffset(9) // so it had acknowledged 9
		var got []Regression
		var mu sync.Mutex
		take := func(err error) tweak {
			return func(o *KafkaOptions) {
				o.Regressed = func(r Regression) error {
					mu.Lock()
					defer mu.Unlock()
					if len(got) == 0 || got[len(got)-1] != r {
						got = append(got, r)
					}
					return err
				}
			}
		}
		q := b.start(t, s, nil, nil, take(nil))
		want := Regression{Topic: topic, Partition: 0, Acked: 9, End: 5}
		if len(got) != 1 || got[0] != want {
			t.Fatalf("reported %+v, want %+v", got, want)
		}
		q.send(events(topic, 5, 10)...)
		_ = q.Done(q.waitAcked(5))
		_ = q.shut(5 * time.Second)
		r := b.start(t, s, nil, nil, take(nil))
		if len(got) != 1 {
			t.Errorf("reported again: %+v", got)
		}
		_ = r.shut(5 * time.Second)
		b.wantOnce(t, topic, 1, 0, 10)
	})
}

// An answer whose base offset is not above our last is not believed: the partition is
// read. Here the batch is there (the answer lied), and Kafka is reported.
func TestProducerAnswerBelowOurLast(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		px := newProxy(t)
		p := b.start(t, newMemState(), px, nil)
		p.send(events(topic, 0, 10)...)
		p.waitAcked(10)
		var hit atomic.Int32
		px.set(nil, func(key int16, answer []byte) proxyDo {
			if key == keyProduce && hit.Add(1) == 1 {
				_, base := answerAt(answer)
				binary.BigEndian.PutUint64(base, 3)
			}
			return pass
		})
		p.send(event(topic, 10))
		if a := p.waitAcked(1)[0]; a.Offset != 10 {
			t.Errorf("the event is acked at offset %d, it stands at 10", a.Offset)
		}
		b.wantOnce(t, topic, 1, 0, 11)
	})
}

// A sequence that was used for other bytes is answered with success and an old offset:
// an event that is lost if the answer is believed.
func TestProducerSequenceUsedForOtherBytes(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *testBroker) {
		topic := topicName(t)
		b.create(t, topic, 1)
		p := b.start(t, newMemState(), nil, nil)
		p.send(event(topic, 0))
		p.waitAcked(1)
		pt := p.topics[topic].parts[0]
		pt.seq = 0 // as a careless restart would
		p.send(event(topic, 1))
		p.waitAcked(1)
		b.wantOnce(t, topic, 1, 0, 2)
	})
}

// A topic that is away when the process starts: its open batch waits for it, other
// topics flow, and the batch is resolved when it is back.
func TestProducerRecoversLate(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic, other := topicName(t)+"-late", topicName(t)+"-other"
	b.create(t, topic, 1)
	b.create(t, other, 1)
	px := newProxy(t)
	s := newMemState()
	p := b.start(t, s, px, nil)
	p.send(event(topic, 0))
	p.waitAcked(1)
	px.set(nil, func(key int16, _ []byte) proxyDo {
		if key == keyProduce {
			return stall
		}
		return pass
	})
	p.send(event(topic, 1))
	eventually(t, "the batch is there", func() bool { return b.end(t, topic, 0) == 2 })
	s2 := s.after()
	p.kill()
	var away atomic.Bool
	away.Store(true)
	px.set(func(key int16, request []byte) proxyDo {
		if (key == 1 || key == 2) && away.Load() && strings.Contains(string(request), topic) {
			return cut // nobody answers for this topic
		}
		return pass
	}, nil)
	q := b.start(t, s2, px, rebuildFrom(topic))
	if len(q.early) != 0 || len(q.Unresolved()) != 2 {
		t.Fatalf("recover gives %d acks and leaves %v", len(q.early), q.Unresolved())
	}
	if err := q.Send(context.Background(), event(topic, 2)); !errors.Is(err, ErrTopicBlocked) {
		t.Errorf("send behind an unresolved batch says %v", err)
	}
	q.send(event(other, 0))
	q.waitAcked(1)
	away.Store(false)
	q.waitAcked(2)
	eventually(t, "the partition is open", func() bool { is, _ := q.TopicState(topic); return !is })
	q.send(event(topic, 2))
	q.waitAcked(1)
	b.wantOnce(t, topic, 1, 0, 3)
	if len(q.Unresolved()) != 0 {
		t.Errorf("still unresolved: %v", q.Unresolved())
	}
}

// A damaged intent is an error at the start: to skip it could lose its events.
func TestProducerDamagedIntent(t *testing.T) {
	s := newMemState()
	s.kv[intentKey(1)] = []byte{intentFormat, 3, 'a'}
	if _, err := newProducer(KafkaOptions{Brokers: []string{"127.0.0.1:1"}}, s); !errors.Is(err, errIntent) {
		t.Fatalf("got %v, want a damaged intent", err)
	}
}

func TestProducerLogsIn(t *testing.T) {
	addr := os.Getenv("PENSTOCK_KAFKA_SASL")
	b := realBroker(t)
	if addr == "" {
		t.Skip("PENSTOCK_KAFKA_SASL is not set")
	}
	topic := topicName(t)
	b.create(t, topic, 1)
	b.addrs = []string{addr}
	for i, mech := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mech, func(t *testing.T) {
			p := b.start(t, newMemState(), nil, nil, func(o *KafkaOptions) {
				o.SASL = &SASLOptions{Mechanism: mech, Username: "penstock", Password: "penstock-test-password"}
			})
			p.send(event(topic, i))
			p.waitAcked(1)
			_ = p.shut(5 * time.Second)
			q, err := newProducer(KafkaOptions{Brokers: b.addrs,
				SASL: &SASLOptions{Mechanism: mech, Username: "penstock", Password: "wrong"}}, newMemState())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := q.Open(ctx); err == nil {
				t.Error("a wrong password opens the cluster")
			}
			_ = q.Close(ctx)
		})
	}
	(&testBroker{addrs: []string{os.Getenv("PENSTOCK_KAFKA")}}).wantOnce(t, topic, 1, 0, 3)
	if _, err := newProducer(KafkaOptions{Brokers: b.addrs, SASL: &SASLOptions{Mechanism: "GSSAPI"}}, newMemState()); err == nil {
		t.Error("an unknown mechanism is taken")
	}
}

func TestProducerTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	b := fakeBroker(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}), kfake.SeedTopics(1, "sealed"))
	p := b.start(t, newMemState(), nil, nil, func(o *KafkaOptions) { o.TLS = &tls.Config{RootCAs: pool} })
	p.send(events("sealed", 0, 20)...)
	p.waitAcked(20)
	q, err := newProducer(KafkaOptions{Brokers: b.addrs, TLS: &tls.Config{RootCAs: x509.NewCertPool()}}, newMemState())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := q.Open(ctx); err == nil {
		t.Error("a broker with an unknown certificate is taken")
	}
	_ = q.Close(ctx)
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kfake"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
