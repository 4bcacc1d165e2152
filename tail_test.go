package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/cli"
	"penstock/provider"
	"penstock/verify"
)

const payShop = "  - {name: pay, provider: liqpay, credentials: {public_key: i1, private_key: the private key of i1}}\n"

// TestTailForwardAcrossRestarts: what is sent on to a developer's machine has no gap and no
// repeat, whether its stream is cut or the gateway is started again.
func TestTailForwardAcrossRestarts(t *testing.T) {
	builtin, err := provider.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	def, _ := builtin.Get("liqpay")
	signer, err := verify.New(def, provider.Credentials{"public_key": {"i1"}, "private_key": {"the private key of i1"}}, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got, want [][]byte
	machine := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, b)
		if r.Method != http.MethodPost || r.URL.RequestURI() != "/hook" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("sent %s %s with %v", r.Method, r.URL, r.Header)
		}
	}))
	defer machine.Close()
	arrived := func() int { mu.Lock(); defer mu.Unlock(); return len(got) }
	wait := func(n int) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); arrived() < n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d deliveries were sent on", arrived(), n)
			}
		}
	}

	// The admin API at an address that outlives the gateway behind it.
	var admin atomic.Pointer[http.Handler]
	var streams atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := admin.Load()
		if h == nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/api/v1/stream" {
			streams.Add(1)
		}
		(*h).ServeHTTP(w, r)
	}))
	defer front.Close()
	defer front.CloseClientConnections()

	dir, n := t.TempDir(), 0
	var e *edge
	deliver := func(count int) {
		t.Helper()
		for range count {
			n++
			r, err := def.Sample("", provider.SampleParams{Now: time.Now(), OrderID: fmt.Sprint("order-", n)})
			if err == nil {
				err = signer.Sign(r, time.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
			if status, body, _ := e.post("pay", r); status != http.StatusOK {
				t.Fatalf("delivery %d: %d %s", n, status, body)
			}
			want = append(want, slices.Clone(r.Body))
		}
	}
	start := func() {
		t.Helper()
		e = newEdge(t, dir, false, payShop)
	}
	serve := func() { h := e.p.admin.Handler(); admin.Store(&h) }
	start()
	deliver(3)
	want = nil // before the tail: not its matter
	for end := time.Now().Add(time.Minute); e.p.archive.IndexLag() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the index does not follow")
		}
	}
	serve()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, cli.Env{Args: []string{"deliveries", "tail", "--admin", front.URL, "--forward-to", machine.URL + "/hook"}, Stdout: &out, Stderr: &errs,
			Getenv: func(string) string { return "" }}, cli.Wiring{Providers: builtin, Catalogue: catalogue{builtin}})
	}()
	for end := time.Now().Add(time.Minute); streams.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no stream was opened")
		}
	}
	for round := range 3 {
		deliver(4)
		if round > 0 {
			wait(len(want))
		}
		front.CloseClientConnections() // in the middle of it, in the first round
		deliver(3)
		admin.Store(nil)
		front.CloseClientConnections()
		deliver(2) // nobody listens
		e.stop()
		start()
		deliver(2) // nor now
		serve()
		deliver(2)
	}
	wait(len(want))
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%d were sent on, want %d; order, number or bytes differ\n%s%s", len(got), len(want), out.String(), errs.String())
	}
}
