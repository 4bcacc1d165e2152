package faults

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// answer is what the client was told about one request.
type answer struct {
	status int // 0 = nothing came back
	id     string
}

// told is the client's log of one delivery: all requests that carried it.
type told struct {
	d     delivery
	sum   [32]byte // of the body
	sent  int
	acked []string // delivery ids of the 2xx answers
}

// entity is one payment, repository or customer, whose changes come one after the other:
// the provider tells the next when this one was taken.
type entity struct {
	sender int
	n      int
	step   int
}

// load sends deliveries at a fixed rate whatever the answers are: open loop. A share of
// them are repeats, some at the very same moment.
type load struct {
	g       *gateway
	senders []sender
	client  *http.Client
	room    chan struct{} // bounds what is in flight

	mu       sync.Mutex // protects what follows
	rng      *rand.Rand
	log      map[string]*told
	recent   []*told // acked lately: to be repeated
	open     []*told // not acked: the provider tries again
	idle     []*entity
	entities int
	forged   int
	requests int
	acks     int
	shed     int // no room: not sent
	slowest  time.Duration
	wrong    []string
	timing   bool
	took     []time.Duration // of 2xx answers, while timing
}

const (
	steps     = 4 // changes of one entity
	answerBy  = 3 * time.Second
	flightMax = 1500
)

func newLoad(g *gateway, rng *rand.Rand) *load {
	return &load{g: g, senders: senders(), rng: rng, log: map[string]*told{}, room: make(chan struct{}, flightMax),
		client: &http.Client{Timeout: answerBy, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

// run sends until stop, then waits for what is in flight.
func (l *load) run(stop <-chan struct{}, rate int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	began, sent := time.Now(), 0
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		select {
		case <-stop:
			tick.Stop()
			return
		case now := <-tick.C:
			for due := int(now.Sub(began).Seconds() * float64(rate)); sent < due; sent++ {
				for _, job := range l.next() {
					select {
					case l.room <- struct{}{}:
						wg.Go(func() {
							job()
							<-l.room
						})
					default:
						l.mu.Lock()
						l.shed++
						l.mu.Unlock()
					}
				}
			}
		}
	}
}

// next decides what the next arrival is.
func (l *load) next() []func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	dice := l.rng.IntN(100)
	switch {
	case dice < 25 && len(l.recent) > 0: // a repeat of what was taken
		t := l.recent[l.rng.IntN(len(l.recent))]
		return []func(){func() { l.send(t) }}
	case dice < 35 && len(l.open) > 0: // another attempt at what was not
		i := l.rng.IntN(len(l.open))
		t := l.open[i]
		l.open[i] = l.open[len(l.open)-1]
		l.open = l.open[:len(l.open)-1]
		return []func(){func() { l.send(t) }}
	case dice < 37:
		s := l.senders[l.rng.IntN(len(l.senders))]
		l.forged++
		n := l.forged
		return []func(){func() { l.forge(s.make(9_000_000+n, 0)) }}
	}
	e := l.entity()
	t := l.fresh(e)
	jobs := []func(){func() { l.send(t) }}
	if dice > 92 { // twins: the provider's retry overtakes the first
		jobs = append(jobs, func() { l.send(t) })
	}
	return jobs
}

func (l *load) entity() *entity {
	if n := len(l.idle); n > 0 && l.rng.IntN(3) > 0 {
		i := l.rng.IntN(n)
		e := l.idle[i]
		l.idle[i] = l.idle[n-1]
		l.idle = l.idle[:n-1]
		return e
	}
	l.entities++
	return &entity{sender: l.entities % len(l.senders), n: l.entities}
}

func (l *load) fresh(e *entity) *told {
	d := l.senders[e.sender].make(e.n, e.step)
	t := &told{d: d, sum: sha256.Sum256(d.body)}
	t.d.e = e
	if l.log[d.token] != nil {
		panic("BUG: token made twice: " + d.token)
	}
	l.log[d.token] = t
	return t
}

// send makes one request and writes down what became of it. The entity goes on with its
// next change at the first 2xx of this one.
func (l *load) send(t *told) {
	l.mu.Lock()
	t.sent++
	l.requests++
	l.mu.Unlock()
	began := time.Now()
	a := l.post(t.d)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.status != 0 {
		l.slowest = max(l.slowest, took)
	}
	if a.status/100 == 2 {
		if l.timing {
			l.took = append(l.took, took)
		}
		l.taken(t, a)
		return
	}
	if a.status != 0 && a.status/100 != 5 {
		l.wrong = append(l.wrong, fmt.Sprintf("%s: well signed and answered %d", t.d.token, a.status))
	}
	if len(t.acked) == 0 {
		l.open = append(l.open, t)
	}
}

// taken notes a 2xx. The caller holds mu.
func (l *load) taken(t *told, a answer) {
	l.acks++
	if a.id == "" {
		l.wrong = append(l.wrong, t.d.token+": 2xx without a Penstock-Delivery-Id")
	}
	if t.acked = append(t.acked, a.id); len(t.acked) > 1 {
		return
	}
	if l.recent = append(l.recent, t); len(l.recent) > 400 {
		l.recent = l.recent[1:]
	}
	if e := t.d.e; e.step < steps-1 {
		e.step++
		l.idle = append(l.idle, e)
	}
}

// forge sends what nobody signed: no 2xx may come of it, and nothing in Kafka.
func (l *load) forge(d delivery) {
	d.header = d.forged
	if a := l.post(d); a.status/100 != 5 && a.status != 0 && a.status != http.StatusUnauthorized {
		l.mu.Lock()
		l.wrong = append(l.wrong, fmt.Sprintf("%s: badly signed and answered %d", d.token, a.status))
		l.mu.Unlock()
	}
}

func (l *load) post(d delivery) answer {
	req, err := http.NewRequest(http.MethodPost, "http://"+l.g.ingest+"/in/"+d.source, bytes.NewReader(d.body))
	if err != nil {
		return answer{}
	}
	for _, h := range d.header() {
		req.Header.Set(h[0], h[1])
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return answer{} // half an answer is none
	}
	return answer{resp.StatusCode, resp.Header.Get("Penstock-Delivery-Id")}
}

// settle sends again what was never taken, until all of it is.
func (l *load) settle(limit time.Duration) error {
	return eventually(limit, "every delivery is taken in the end", func() error {
		l.mu.Lock()
		open := l.open
		l.open = nil
		l.mu.Unlock()
		var wg sync.WaitGroup
		few := make(chan struct{}, 16)
		for _, t := range open {
			wg.Go(func() {
				few <- struct{}{}
				defer func() { <-few }()
				l.send(t)
			})
		}
		wg.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.open) > 0 {
			return fmt.Errorf("%d are still refused", len(l.open))
		}
		return nil
	})
}

// rude behaves as the worst clients do: headers byte by byte, half a body, a reset in
// the middle, or a whole request and no wish to hear the answer.
func (l *load) rude(rng *rand.Rand) {
	conn, err := net.DialTimeout("tcp", l.g.ingest, time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	l.mu.Lock()
	t := l.fresh(l.entity())
	t.sent++
	l.requests++
	l.open = append(l.open, t) // the provider has heard nothing and comes again
	l.mu.Unlock()
	req, _ := http.NewRequest(http.MethodPost, "http://"+l.g.ingest+"/in/"+t.d.source, bytes.NewReader(t.d.body))
	for _, h := range t.d.header() {
		req.Header.Set(h[0], h[1])
	}
	var raw bytes.Buffer
	_ = req.Write(&raw)
	b := raw.Bytes()
	switch rng.IntN(4) {
	case 0:
		for _, c := range b[:rng.IntN(60)] {
			_, _ = conn.Write([]byte{c})
			time.Sleep(10 * time.Millisecond)
		}
	case 1:
		_, _ = conn.Write(b[:len(b)-1-rng.IntN(len(t.d.body)-1)])
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
	case 2:
		_, _ = conn.Write(b[:rng.IntN(len(b))])
		_ = conn.(*net.TCPConn).SetLinger(0)
	case 3:
		_, _ = conn.Write(b)
		time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
}
