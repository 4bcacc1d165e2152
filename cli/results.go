package cli

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"
)

// results are what came of a run of send. The mutex guards everything below it.
type results struct {
	start time.Time
	took  time.Duration

	mu         sync.Mutex
	sent       int
	repeats    int
	unexpected int
	statuses   map[string]int
	latencies  []time.Duration
	reasons    []string // why answers were unexpected, the first few
	lastID     string
}

// maxReasons is how many unexpected answers are explained.
const maxReasons = 5

// broken: the delivery could not even be made.
func (r *results) broken(err error) { r.note("not sent", err.Error()) }

// failed: there was no answer.
func (r *results) failed(err error) { r.note("no answer", err.Error()) }

func (r *results) note(status, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses[status]++
	r.sent++
	r.unexpected++
	r.explain(why)
}

func (r *results) explain(why string) {
	if len(r.reasons) < maxReasons && !slices.Contains(r.reasons, why) {
		r.reasons = append(r.reasons, why)
	}
}

func (r *results) answered(status int, took time.Duration, repeat bool, why, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	r.statuses[strconv.Itoa(status)]++
	r.latencies = append(r.latencies, took)
	r.lastID = id
	if repeat {
		r.repeats++
	}
	if why != "" {
		r.unexpected++
		r.explain(why)
	}
}

// percentile of sorted latencies by the nearest rank.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(p/100*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

type sentJSON struct {
	Sent       int                `json:"sent"`
	Repeats    int                `json:"repeats"`
	Unexpected int                `json:"unexpected"`
	Seconds    float64            `json:"seconds"`
	PerSecond  float64            `json:"per_second"`
	Statuses   map[string]int     `json:"statuses"`
	LatencyMS  map[string]float64 `json:"latency_ms"`
	Reasons    []string           `json:"reasons,omitempty"`
	DeliveryID string             `json:"delivery_id,omitempty"` // of the last one
}

func (r *results) json() sentJSON {
	slices.Sort(r.latencies)
	ms := func(p float64) float64 {
		return float64(percentile(r.latencies, p).Microseconds()) / 1000
	}
	return sentJSON{
		Sent: r.sent, Repeats: r.repeats, Unexpected: r.unexpected, Seconds: r.took.Seconds(),
		PerSecond: float64(len(r.latencies)) / max(r.took.Seconds(), 1e-9), Statuses: r.statuses,
		LatencyMS: map[string]float64{"p50": ms(50), "p90": ms(90), "p99": ms(99), "max": ms(100)},
		Reasons:   r.reasons, DeliveryID: r.lastID,
	}
}

func (a *app) printSent(r *results) {
	j := r.json()
	var keys []string
	for k := range r.statuses {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	fmt.Fprintf(a.Stdout, "%d sent in %.2f s (%.0f/s)", j.Sent, j.Seconds, j.PerSecond)
	if r.repeats > 0 {
		fmt.Fprintf(a.Stdout, ", %d of them repeats", r.repeats)
	}
	fmt.Fprintln(a.Stdout)
	for _, k := range keys {
		fmt.Fprintf(a.Stdout, "  %-9s %d\n", k, r.statuses[k])
	}
	if len(r.latencies) > 0 {
		fmt.Fprintf(a.Stdout, "latency ms: p50 %.2f  p90 %.2f  p99 %.2f  max %.2f\n", j.LatencyMS["p50"], j.LatencyMS["p90"], j.LatencyMS["p99"], j.LatencyMS["max"])
	}
	if r.lastID != "" {
		fmt.Fprintf(a.Stdout, "last delivery: %s\n", printable(r.lastID))
	}
	if r.unexpected > 0 {
		fmt.Fprintln(a.Stdout, a.paint(red, fmt.Sprintf("%d unexpected:", r.unexpected)))
		for _, why := range r.reasons {
			fmt.Fprintf(a.Stdout, "  %s\n", printable(why))
		}
	}
}
