package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client of the load: its own connections, and no waiting for a dead gateway.
func loadClient(conns int) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns}}
}

// loader keeps sending deliveries with fresh ids until stop, and remembers which were answered 2xx.
type loader struct {
	g     *gateway
	s     sender
	next  atomic.Int64
	mu    sync.Mutex
	acked map[string]delivery
	sent  map[string]bool
}

func (l *loader) run(stop <-chan struct{}, rng *rand.Rand) {
	client := loadClient(1)
	defer client.CloseIdleConnections()
	var last []delivery
	for {
		select {
		case <-stop:
			return
		default:
		}
		d := l.s.make(int(l.next.Add(1)), time.Now())
		if len(last) > 0 && rng.IntN(10) < 3 {
			d = last[rng.IntN(len(last))]
		}
		l.mu.Lock()
		l.sent[d.token] = true
		l.mu.Unlock()
		status, _, _ := post(client, l.g.ingest, d)
		if status == 0 {
			time.Sleep(10 * time.Millisecond) // it is down; a provider would wait longer
		}
		if status/100 == 2 {
			l.mu.Lock()
			l.acked[d.token] = d
			l.mu.Unlock()
			if last = append(last, d); len(last) > 50 {
				last = last[1:]
			}
		}
	}
}

// TestKill kills the gateway with SIGKILL at random moments under load, restarts it each
// time, and then wants every delivery that was answered 2xx in Kafka. PENSTOCK_KILLS sets
// how often (default 20), PENSTOCK_SEED repeats a run.
func TestKill(t *testing.T) {
	redis, kafka := services(t)
	kills, seed := 20, uint64(time.Now().UnixNano())
	if v, err := strconv.Atoi(os.Getenv("PENSTOCK_KILLS")); err == nil {
		kills = v
	}
	if v, err := strconv.ParseUint(os.Getenv("PENSTOCK_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("PENSTOCK_SEED=%d PENSTOCK_KILLS=%d", seed, kills)
	rng := rand.New(rand.NewPCG(seed, 1))
	prefix := fmt.Sprintf("kill%d", time.Now().UnixNano())
	s := stripeSender()
	g := newGateway(t, gatewayConfig+forwardConfig(redis, kafka, prefix)+sourcesConfig([]sender{s}))
	g.start()

	l := &loader{g: g, s: s, acked: map[string]delivery{}, sent: map[string]bool{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { l.run(stop, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	for range kills {
		time.Sleep(time.Duration(50+rng.IntN(700)) * time.Millisecond)
		g.kill()
		g.start()
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	wg.Wait()
	g.drain(2 * time.Minute)

	lost, repeats := checkOnce(t, l, consume(t, kafka, prefix+".stripe"))
	t.Logf("%d kills, %d deliveries sent, %d answered 2xx, %d lost, %d published again", kills, len(l.sent), len(l.acked), lost, repeats)
	if len(l.acked) < 20*kills {
		t.Errorf("only %d deliveries were answered 2xx: the load was too small to prove anything", len(l.acked))
	}
	g.stop()
}

// checkOnce counts acked deliveries that Kafka lacks, and events that it has more than once.
func checkOnce(t *testing.T, l *loader, records []record) (lost, repeats int) {
	t.Helper()
	seen := map[string]record{}
	for _, r := range records {
		tok := tokens.FindString(r.Payload)
		if !l.sent[tok] {
			t.Errorf("a record that nobody sent: %.200s", r.Payload)
		}
		first, again := seen[tok]
		if !again {
			seen[tok] = r
			continue
		}
		repeats++
		if first.header("ce_id") != r.header("ce_id") || first.Key != r.Key || first.Partition != r.Partition {
			t.Errorf("%s was published again with another id, key or partition", tok)
		}
	}
	for tok := range l.acked {
		if _, ok := seen[tok]; !ok {
			if lost++; lost <= 10 {
				t.Errorf("%s was answered 2xx and is not in Kafka", tok)
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acked deliveries are lost", lost, len(l.acked))
	}
	if repeats > 0 {
		t.Errorf("%d events were published again; the kept intents should have prevented that", repeats)
	}
	return lost, repeats
}

// TestAckedBeforeKafka acks with Kafka and Redis away, is killed, and publishes everything
// once both can be reached.
func TestAckedBeforeKafka(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("away%d", time.Now().UnixNano())
	s := stripeSender()
	g := newGateway(t, gatewayConfig+forwardConfig(freeAddr(t), freeAddr(t), prefix)+sourcesConfig([]sender{s}))
	g.start()
	l := &loader{g: g, s: s, acked: map[string]delivery{}, sent: map[string]bool{}}
	client := loadClient(1)
	for n := range 500 {
		d := s.make(n, time.Now())
		l.sent[d.token] = true
		if status, body, _ := post(client, g.ingest, d); status != 200 {
			t.Fatalf("with Kafka and Redis away: answer %d %s", status, body)
		}
		l.acked[d.token] = d
	}
	g.kill()
	g.configure(gatewayConfig + forwardConfig(redis, kafka, prefix) + sourcesConfig([]sender{s}))
	g.start()
	g.drain(time.Minute)
	checkOnce(t, l, consume(t, kafka, prefix+".stripe"))
	g.stop()
}

// TestSourceRemovedWhileWaiting: what was accepted under a definition is published by it,
// even when the source has gone from the configuration meanwhile.
func TestSourceRemovedWhileWaiting(t *testing.T) {
	redis, kafka := services(t)
	prefix := fmt.Sprintf("gone%d", time.Now().UnixNano())
	gone, stays := skyrimSender(), githubSender()
	g := newGateway(t, gatewayConfig+forwardConfig(redis, freeAddr(t), prefix)+sourcesConfig([]sender{gone, stays}))
	g.start()
	client := loadClient(1)
	d := gone.make(1, time.Now())
	if status, body, _ := post(client, g.ingest, d); status != 200 {
		t.Fatalf("answer %d %s", status, body)
	}
	g.stop()
	g.configure(gatewayConfig + forwardConfig(redis, kafka, prefix) + sourcesConfig([]sender{stays}))
	g.start()
	g.drain(time.Minute)
	rs := consume(t, kafka, prefix+".skyrimpay")
	if len(rs) != 1 || rs[0].header("ce_type") != "payment.captured" {
		t.Fatalf("%d records of the removed source, want its one event: %v", len(rs), rs)
	}
	if status, _, _ := post(client, g.ingest, d); status != 404 {
		t.Errorf("the removed source answers %d, want 404", status)
	}
	g.stop()
}
