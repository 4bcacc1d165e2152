package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// question is one thing that people ask of the admin side.
type question struct{ name, path string }

// answer is how long a question took, in milliseconds: the server's own time, from the
// request's end to the answer's beginning, and the client's, which waits for a CPU too.
type answer struct {
	Name    string  `json:"name"`
	Path    string  `json:"path"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	Client  float64 `json:"client_p99_ms"`
	Bytes   int     `json:"bytes"`
	Partial bool    `json:"partial,omitempty"` // answered as far as the time went
}

// goal is what a list must be answered within.
const goal = 100

// questionsOf an archive of n deliveries that fillForAdmins made.
func questionsOf(id string, n int) []question {
	mid := n / 2
	filters := []struct{ name, query string }{
		{"no filter", ""},
		{"source", "source=stripe-0"}, {"source, none of it", "source=nobody"},
		{"provider", "provider=github"},
		{"verdict, common", "verdict=accepted"}, {"verdict, rare", "verdict=challenge"}, {"verdict rejected", "verdict=rejected"},
		{"reason", "reason=ip_not_allowed"},
		{"outcome, common", "outcome=published"}, {"outcome, rare", "outcome=held"}, {"outcome pending", "outcome=pending"},
		{"type (provider's)", "event_type=charge.refunded"}, {"type (canonical)", "type=payment.captured"},
		{"event_id", "event_id=evt_1Nv2Kx2eZvKYlo2C" + fmt.Sprintf("%08d", mid)}, {"event_id, absent", "event_id=evt_none"},
		{"order_id", fmt.Sprintf("order_id=ORD-%d", mid/3)}, {"order_id, absent", "order_id=ORD-none"},
		{"payment_id", fmt.Sprintf("payment_id=pi_3Nv2Kx2eZvKYlo2C%08d", mid/3)},
		{"tenant", "tenant=merchant-3"},
		{"request_id", fmt.Sprintf("request_id=req_%012d", mid)},
		{"idempotency_key", fmt.Sprintf("idempotency_key=7d1c9a52-%04x-4e0b-9f6e-%012d", mid&0xffff, mid)},
		{"livemode", "livemode=false"}, {"status", "status=failed"},
		{"from, to: a day long ago", "from=-40d&to=-39d"}, {"500 rows", "limit=500"},
		{"source + outcome", "source=stripe-0&outcome=published"}, {"source + outcome, rare", "source=github-1&outcome=dead"},
		{"source + verdict", "source=stripe-0&verdict=rejected"}, {"source + provider, no hit", "source=stripe-0&provider=github"},
		{"status + livemode", "status=failed&livemode=false"}, {"type + outcome", "type=payment.captured&outcome=duplicate"},
		{"type + status, no hit", "type=payment.pending&status=succeeded"}, {"outcome + verdict, no hit", "outcome=published&verdict=rejected"},
		{"source + reason", "source=stripe-0&reason=signature_missing"},
		{"free text, an id", "q=evt_1Nv2Kx2eZvKYlo2C" + fmt.Sprintf("%08d", mid)}, {"free text, common", "q=succeeded"}, {"free text, no hit", "q=no+such+thing"},
	}
	var out []question
	for _, f := range filters {
		out = append(out, question{"API: " + f.name, "/api/v1/deliveries?" + f.query})
	}
	for _, f := range filters {
		out = append(out, question{"page: " + f.name, "/?" + f.query})
	}
	return append(out, question{"one delivery", "/deliveries/" + id}, question{"API: one delivery", "/api/v1/deliveries/" + id},
		question{"overview", "/overview"}, question{"sources", "/sources"}, question{"one source", "/sources/stripe-0"}, question{"refused", "/refused"},
		question{"API: histogram of a day", "/api/v1/counts?from=-24h"}, question{"API: histogram of 90 days", "/api/v1/counts?from=-90d"},
		question{"API: stats", "/api/v1/stats"}, question{"API: sources", "/api/v1/sources"})
}

// questions asks each several times while the load goes on, and prints what it took.
func (o *adminOptions) questions(s *server, id string, rate float64) ([]answer, error) {
	reqs := makeRequests(pool, traffic{Size: 1024, Mixed: true}, "q", time.Now())
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			_, err := load(s.addr, reqs, o.conns, time.Second, rate, true)
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	list := questionsOf(id, o.n)
	server, client := make([][]float64, len(list)), make([][]float64, len(list))
	out := make([]answer, len(list))
	for range o.each {
		for i, q := range list {
			began := time.Now()
			r, err := ask("http://" + s.admin + q.path)
			if err != nil {
				close(stop)
				return nil, fmt.Errorf("%s: %w", q.name, err)
			}
			client[i] = append(client[i], ms(time.Since(began)))
			server[i] = append(server[i], r.took)
			out[i].Bytes, out[i].Partial = len(r.body), out[i].Partial || r.partial()
		}
	}
	close(stop)
	if err := <-done; err != nil {
		return nil, err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nQUESTION\tP50 MS\tP99\tMAX\tCLIENT P99\tKIB\t")
	for i, q := range list {
		a := &out[i]
		a.Name, a.Path = q.name, q.path
		a.P50, a.P99, a.Max = spread(server[i])
		_, a.Client, _ = spread(client[i])
		note := ""
		if a.Partial {
			note = "partial "
		}
		if a.P99 > goal {
			note += fmt.Sprintf("over %d ms", goal)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%s\n", a.Name, a.P50, a.P99, a.Max, a.Client, a.Bytes>>10, note)
	}
	return out, w.Flush()
}

func spread(v []float64) (p50, p99, most float64) {
	if len(v) == 0 {
		return 0, 0, 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2], v[min(len(v)-1, len(v)*99/100)], v[len(v)-1]
}

type reply struct {
	body   []byte
	took   float64 // the server's own time
	status int
}

// partial reports whether a list was answered as far as its time went.
func (r *reply) partial() bool { return strings.Contains(string(r.body), `"searched_to"`) }

func ask(address string) (reply, error) {
	resp, err := http.Get(address)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode}
	_, dur, _ := strings.Cut(resp.Header.Get("Server-Timing"), "dur=")
	r.took, _ = strconv.ParseFloat(dur, 64) // an older binary does not say it: 0
	r.body, err = readAll(resp)
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("%s answered %d: %.200s", address, r.status, r.body)
	}
	return r, err
}

func readAll(resp *http.Response) ([]byte, error) {
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	return b, err
}

// asked is what a crowd of admins got.
type asked struct {
	Pages   int     `json:"pages"`
	Busy    int     `json:"busy"`  // 429 or 503 with Retry-After
	Wrong   int     `json:"wrong"` // any other answer
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Streams int     `json:"streams"`
	Changes int     `json:"stream_changes"`
	Live    int     `json:"live_pages"` // those that live tables fetched
}

// crowd is so many people: half of them have the live table open, all of them go through
// pages, and rest between two.
func crowd(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("bench admins: want ADDR ID DELIVERIES ADMINS THINK TIME, got %q", args)
	}
	n, err1 := strconv.Atoi(args[2])
	admins, err2 := strconv.Atoi(args[3])
	think, err3 := time.ParseDuration(args[4])
	d, err4 := time.ParseDuration(args[5])
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return err
		}
	}
	if err := yield(); err != nil {
		return err
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 2 * admins
	list := questionsOf(args[1], n)
	until := time.Now().Add(d)
	var mu sync.Mutex
	var a asked
	var took []float64
	var wg sync.WaitGroup
	for i := range admins {
		if i%2 == 0 {
			wg.Go(func() {
				view := []string{"", "source=" + url.QueryEscape("stripe-0"), "verdict=rejected"}[i/2%3]
				changes, pages := watch("http://"+args[0], view, d)
				mu.Lock()
				defer mu.Unlock()
				a.Streams, a.Changes, a.Live = a.Streams+1, a.Changes+changes, a.Live+pages
			})
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i))) //nolint:gosec // not negative
			time.Sleep(time.Duration(rng.Float64() * float64(think)))
			for time.Now().Before(until) {
				began := time.Now()
				r, err := ask("http://" + args[0] + list[rng.IntN(len(list))].path)
				mu.Lock()
				switch {
				case err == nil:
					a.Pages++
					took = append(took, ms(time.Since(began)))
				case r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable:
					a.Busy++
				default:
					a.Wrong++
					fmt.Fprintln(os.Stderr, "admin:", err)
				}
				mu.Unlock()
				time.Sleep(time.Duration((0.5 + rng.Float64()) * float64(think)))
			}
		})
	}
	wg.Wait()
	a.P50, a.P99, _ = spread(took)
	return json.NewEncoder(os.Stdout).Encode(a)
}

// watch is a live table: it listens for changes and fetches itself again at the pace of
// page.js, which is at most every liveEvery.
func watch(address, view string, d time.Duration) (changes, pages int) {
	resp, err := http.Get(address + "/api/v1/stream?brief=true&" + view)
	if err != nil {
		return 0, 0
	}
	end := time.AfterFunc(d, func() { _ = resp.Body.Close() })
	defer end.Stop()
	changed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range changed {
			began := time.Now()
			if r, err := ask(address + "/?" + view); err == nil && r.status == http.StatusOK {
				pages++
			}
			time.Sleep(max(liveEvery, 5*time.Since(began)))
		}
	})
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "event: changed") {
			continue
		}
		changes++
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	close(changed)
	wg.Wait()
	return changes, pages
}

const liveEvery = 2 * time.Second

// reportRounds prints the rounds and gives the ratio of the medians of p99.
func reportRounds(rounds []ingesting) float64 {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nADMINS\tINGEST/S\tP50 MS\tP99\tP99.9\tSERVER US\tCPUS: GATEWAY\tLOAD\tADMINS\tRSS MIB\tPAGES\tPAGE P50 MS\tP99\tBUSY\tWRONG\tCHANGES\tLIVE PAGES")
	var without, with []float64
	for _, r := range rounds {
		if r.Admins == 0 {
			without = append(without, r.P99)
		} else {
			with = append(with, r.P99)
		}
		fmt.Fprintf(w, "%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%d\t%.1f\t%.1f\t%d\t%d\t%d\t%d\n", r.Admins, r.PerSec, r.P50, r.P99, r.P999, r.ServerUS, r.CPU.Gateway, r.CPU.Load, r.CPU.Admins, r.RSSMiB,
			r.Asked.Pages, r.Asked.P50, r.Asked.P99, r.Asked.Busy, r.Asked.Wrong+r.Wrong, r.Asked.Changes, r.Asked.Live)
	}
	w.Flush()
	if len(with) == 0 || len(without) == 0 {
		return 0
	}
	ratio := middle(with) / middle(without)
	fmt.Printf("ingest p99, medians: %.2f ms without, %.2f ms with admins: %.2f times\n", middle(without), middle(with), ratio)
	return ratio
}
