package faults

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// twins are two gateways with an archive each, one Redis and the same topics. Every
// delivery is sent to both at the same moment.
type twins struct {
	*run
	nodes [2]*node

	mu   sync.Mutex // protects what follows
	sent map[string]*twin
	bad  []string
}

type node struct {
	*load // posts, and its gateway
	kills []time.Time
}

// twin is a delivery and what it is called in each archive.
type twin struct {
	d   delivery
	ids [2][]string
}

// TestTwins sends the same deliveries to two gateways at the same moment, retries crossing
// over, and kills one of them at random: each is published once. A repeat is allowed for
// two causes, and printed with its own: the gateway that had sent it died before it could
// confirm, or Redis did not answer one of them within two seconds. PENSTOCK_TWINS is how many deliveries (default 400), PENSTOCK_KILLS how many
// kills (default 2), PENSTOCK_SEED repeats their moments.
func TestTwins(t *testing.T) {
	required(t)
	seed, total, kills := env("PENSTOCK_SEED", 1), int(env("PENSTOCK_TWINS", 400)), int(env("PENSTOCK_KILLS", 2))
	t.Run("both alive", func(t *testing.T) { newTwins(t, seed).play(total, 0, seed) })
	t.Run("one killed", func(t *testing.T) { newTwins(t, seed).play(total, kills, seed) })
}

func newTwins(t *testing.T, seed uint64) *twins {
	t.Helper()
	now := uint64(time.Now().UnixNano())
	r := &run{t: t, prefix: fmt.Sprintf("twin%d", now), counts: map[string]*count{}, skipped: map[string]bool{}}
	r.sv = sharedServices(t)
	r.redis = newProxy(t, r.sv.redis, rand.New(rand.NewPCG(seed, 2)), speakRedis)
	r.kafka = newProxy(t, r.sv.kafka, rand.New(rand.NewPCG(seed, 3)), speakKafka)
	tw := &twins{run: r, sent: map[string]*twin{}}
	for i := range tw.nodes {
		g := newGateway(t, t.TempDir()+"/archive")
		n := &node{load: newLoad(g, rand.New(rand.NewPCG(seed, 4)))}
		n.client.Timeout = 30 * time.Second
		t.Cleanup(n.client.CloseIdleConnections)
		r.g, r.load = g, n.load
		// A machine that has much else to do is no reason to ask nobody.
		conf := strings.Replace(r.config("", ""), "], prefix:", "], timeout: 2s, prefix:", 1)
		if err := g.configure(conf); err != nil {
			t.Fatal(err)
		}
		if err := g.launch(); err != nil {
			t.Fatal(err)
		}
		tw.nodes[i] = n
	}
	for _, n := range tw.nodes {
		if err := eventually(2*time.Minute, "a gateway is ready", n.g.ready); err != nil {
			t.Fatal(err)
		}
	}
	return tw
}

// play sends total deliveries in pairs, each to both gateways, while one dies kills times,
// and checks the topics.
func (tw *twins) play(total, kills int, seed uint64) {
	t := tw.t
	jobs := make(chan delivery)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for d := range jobs {
				tw.both(d)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 6))
	at := map[int]bool{} // after which delivery a gateway dies
	for len(at) < kills {
		at[total/10+rng.IntN(total*8/10)] = true
	}
	all := senders()
	for n := range total {
		if at[n] {
			if err := tw.kill(tw.nodes[rng.IntN(2)], time.Duration(rng.IntN(200))*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		jobs <- all[n%len(all)].make(n+1, 0)
	}
	close(jobs)
	wg.Wait()
	for i, n := range tw.nodes {
		if err := eventually(3*time.Minute, fmt.Sprintf("gateway %d has an outcome for everything", i), func() error {
			v, err := n.g.metric("penstock_unpublished_deliveries")
			if err == nil && v != 0 {
				err = fmt.Errorf("%v deliveries are unpublished", v)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if err := n.g.stop(); err != nil {
			t.Error(err)
		}
	}
	tw.judge(kills)
}

// kill is kill -9 and a start, while the other goes on.
func (tw *twins) kill(n *node, wait time.Duration) error {
	if err := n.g.kill(); err != nil {
		return err
	}
	tw.mu.Lock()
	n.kills = append(n.kills, time.Now())
	tw.mu.Unlock()
	time.Sleep(wait)
	if err := n.g.launch(); err != nil {
		return err
	}
	return eventually(2*time.Minute, "it is ready again", n.g.ready)
}

// both sends one delivery to both at once. Whatever is not answered 2xx is sent again, to
// the other first: providers' retries take another way through the balancer.
func (tw *twins) both(d delivery) {
	w := &twin{d: d}
	tw.mu.Lock()
	tw.sent[d.token] = w
	tw.mu.Unlock()
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range tw.nodes {
		wg.Go(func() {
			<-start
			for to, tries := i, 0; ; to, tries = 1-to, tries+1 {
				if tw.deliver(w, to) && to == i {
					return
				}
				if tries > 4000 {
					tw.mu.Lock()
					tw.bad = append(tw.bad, d.token+" is never taken")
					tw.mu.Unlock()
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	close(start)
	wg.Wait()
}

func (tw *twins) deliver(w *twin, to int) bool {
	a := tw.nodes[to].post(w.d)
	tw.mu.Lock()
	defer tw.mu.Unlock()
	switch {
	case a.status/100 == 2:
		w.ids[to] = append(w.ids[to], a.id)
		return true
	case a.status != 0 && a.status/100 != 5:
		tw.bad = append(tw.bad, fmt.Sprintf("%s: well signed and answered %d", w.d.token, a.status))
	}
	return false
}

// judge compares what was answered with the topics and both archives.
func (tw *twins) judge(kills int) {
	t := tw.t
	for _, b := range tw.bad {
		t.Error(b)
	}
	known, bodies := map[string]*kept{}, map[string][32]byte{} // by delivery id
	for i, n := range tw.nodes {
		rows, err := export(n.g)
		if err != nil {
			t.Fatal(err)
		}
		bySeq := map[uint64]*kept{}
		for j := range rows {
			if a := &rows[j]; a.Kind == "delivery" {
				k := &kept{node: i, received: a.Received}
				known[a.ID], bySeq[a.Seq], bodies[a.ID] = k, k, sha256.Sum256(a.Body)
			}
		}
		for j := range rows {
			if a := &rows[j]; a.Kind == "outcome" && a.Outcome == "published" && bySeq[a.Delivery] != nil {
				bySeq[a.Delivery].published = a.At
			}
		}
	}
	events := map[string][]record{}
	records, err := consume(tw.run)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		tok := tokens.FindString(rec.Payload)
		if w := tw.sent[tok]; w == nil || !strings.Contains(rec.Payload, w.d.payload) {
			t.Errorf("stranger or altered: %s/%d/%d: %.200s", rec.Topic, rec.Partition, rec.Offset, rec.Payload)
			continue
		}
		events[tok] = append(events[tok], rec)
	}
	lost, explained, unexplained := 0, 0, 0
	for tok, w := range tw.sent {
		for i := range tw.nodes {
			for _, id := range w.ids[i] {
				if k := known[id]; k == nil || k.node != i || bodies[id] != sha256.Sum256(w.d.body) {
					lost++
					t.Errorf("lost: %s was answered 2xx as %s by gateway %d and is not in its archive", tok, id, i)
				}
			}
		}
		recs := events[tok]
		if len(recs) == 0 {
			lost++
			t.Errorf("lost: %s was answered 2xx and is not in Kafka", tok)
			continue
		}
		slices.SortFunc(recs, func(a, b record) int { return int(a.Offset - b.Offset) })
		for i := 1; i < len(recs); i++ {
			cause, ok := tw.cause(known, &recs[i-1], &recs[i])
			t.Logf("repeat: %s at %s/%d/%d and %d: %s", tok, recs[i].Topic, recs[i].Partition, recs[i-1].Offset, recs[i].Offset, cause)
			if ok {
				explained++
				continue
			}
			unexplained++
			t.Errorf("repeat: %s at %s/%d/%d and %d: %s", tok, recs[i].Topic, recs[i].Partition, recs[i-1].Offset, recs[i].Offset, cause)
		}
	}
	died := len(tw.nodes[0].kills) + len(tw.nodes[1].kills)
	if died != kills || len(tw.sent) == 0 {
		t.Errorf("%d of %d kills, %d deliveries", died, kills, len(tw.sent))
	}
	t.Logf("\n| gateways | kills | deliveries, each to both | events | lost | repeats with a cause | other repeats |\n|---|---|---|---|---|---|---|\n| 2 | %d | %d | %d | %d | %d | %d |",
		died, len(tw.sent), len(events), lost, explained, unexplained)
}

// kept is a delivery in one of the archives.
type kept struct {
	node                int
	received, published time.Time
}

// confirmBy is how long before its gateway's death a delivery may have come in that was
// sent and not confirmed any more, on a machine that has much else to do.
const confirmBy = 30 * time.Second

// cause says why a second record of a delivery stands in Kafka, and whether that may be.
func (tw *twins) cause(known map[string]*kept, first, second *record) (string, bool) {
	idA, idB := first.header("ce_deliveryid"), second.header("ce_deliveryid")
	a, b := known[idA], known[idB]
	switch {
	case a == nil || b == nil:
		return fmt.Sprintf("delivery %s or %s is in no archive", idA, idB), false
	case first.header("ce_id") != second.header("ce_id") || first.Key != second.Key || first.Partition != second.Partition:
		return "another id, key or partition", false
	case a.node == b.node:
		return fmt.Sprintf("gateway %d published it twice (%s, %s)", a.node, idA, idB), false
	}
	for _, n := range []*kept{a, b} {
		if tw.redisAway(n.node) {
			return fmt.Sprintf("Redis did not answer gateway %d in time, which says so in its log", n.node), true
		}
	}
	for _, died := range tw.nodes[a.node].kills {
		if died.After(a.received) && died.Sub(a.received) < confirmBy && b.published.After(died) {
			return fmt.Sprintf("claim taken over: gateway %d was killed %v after it had received it; gateway %d published it %v after the kill", a.node,
				died.Sub(a.received).Round(time.Millisecond), b.node, b.published.Sub(died).Round(time.Millisecond)), true
		}
	}
	return fmt.Sprintf("gateways %d and %d both published it, and %d had not died in between (%s, %s)", a.node, b.node, a.node, idA, idB), false
}

func (tw *twins) redisAway(node int) bool {
	b, err := os.ReadFile(tw.nodes[node].g.log.Name())
	return err == nil && strings.Contains(string(b), "redis does not answer")
}
