package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/archive"
	"penstock/forward"
)

// What waits in one of two sinks is not for retention to remove, whatever the other has.
func TestWaitingInAny(t *testing.T) {
	lists := func(ok bool, seqs ...uint64) func(from, to uint64) ([]uint64, bool) {
		return func(from, to uint64) ([]uint64, bool) {
			if from != 1 || to != 9 {
				t.Errorf("asked for %d..%d", from, to)
			}
			return seqs, ok
		}
	}
	type fs = []func(from, to uint64) ([]uint64, bool)
	if got, ok := inAny(fs{lists(true, 1, 5), lists(true, 3, 5, 9)}, 1, 9); !ok || !slices.Equal(got, []uint64{1, 3, 5, 9}) {
		t.Errorf("%v %v", got, ok)
	}
	for _, two := range []fs{{lists(true, 1), lists(false)}, {lists(false), lists(true, 1)}} {
		if _, ok := inAny(two, 1, 9); ok {
			t.Error("one of them cannot tell, and all was taken for told")
		}
	}
}

// What waits in any of two sinks is seen by the overview, and by whoever is told of a lag.
func TestTwoSinksAreSeen(t *testing.T) {
	const two = "ingest: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\narchive: {dir: %s}\n" +
		"forward: {kafka: {brokers: ['127.0.0.1:1']}, http: {url: 'http://127.0.0.1:1/', secrets: [whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz], allow_addresses: [127.0.0.0/8]}}\nsources:\n"
	r := newRigWith(t, two, stripe)
	if r.p.beside == nil {
		t.Fatal("there is one sink")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	r.p.eachPump(func(pump *forward.Pump) {
		running.Go(func() {
			if err := pump.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	})
	defer func() { cancel(); running.Wait() }()
	doc, err := epochOf(operator{r.p}.source("shop"), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &archive.Delivery{Source: "shop", Provider: "stripe", Verdict: archive.Accepted, ReceivedAt: time.Now().Add(-time.Hour), Epoch: r.p.archive.RegisterEpoch("shop", doc),
		Method: "POST", Target: []byte("/in/shop"), Body: []byte(`{"id":"evt_1","type":"payment_intent.succeeded"}`)}
	if err := r.p.archive.Append(d); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		st, told := r.p.state(t.Context()), r.p.notifyStats(prometheus.NewRegistry())
		if st.SinkName == "Kafka and HTTP targets" && st.Unpublished == 2 && st.OldestFor > time.Minute && told.Oldest > time.Minute {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the overview says %+v, and a rule sees %v", st, told.Oldest)
		}
	}
}
