package archive

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

// BenchmarkAppend measures durable records a second on the disk of the test directory.
func BenchmarkAppend(b *testing.B) {
	for _, waiters := range []int{1, 64, 256, 1024} {
		b.Run(fmt.Sprintf("waiters=%d", waiters), func(b *testing.B) {
			a := mustOpen(b, b.TempDir(), Options{NoIndex: true, MaxWait: time.Hour})
			body := bytes.Repeat([]byte("x"), 1024)
			header := bytes.Repeat([]byte("h"), 200)
			target := []byte("/in/stripe")
			b.SetBytes(1300)
			b.ReportAllocs()
			work := make(chan int)
			done := make(chan error)
			for range waiters {
				go func() {
					var d Delivery
					for n := range work {
						for range n {
							d = Delivery{ReceivedAt: time.Unix(1, 0), Source: "stripe", Provider: "stripe", Verdict: Accepted,
								Method: "POST", Target: target, Header: header, Body: body}
							if err := a.Append(&d); err != nil {
								done <- err
								return
							}
						}
					}
					done <- nil
				}()
			}
			b.ResetTimer()
			for left := b.N; left > 0; {
				n := min(left, 16)
				work <- n
				left -= n
			}
			close(work)
			var errs []error
			for range waiters {
				errs = append(errs, <-done)
			}
			b.StopTimer()
			if err := errors.Join(errs...); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkRead measures how fast a reader follows.
func BenchmarkRead(b *testing.B) {
	a := mustOpen(b, b.TempDir(), Options{NoIndex: true, MaxWait: time.Hour})
	d := testDelivery(1)
	d.Body = bytes.Repeat([]byte("x"), 1024)
	work := make(chan struct{}, 256)
	const stored = 100_000
	for range stored {
		work <- struct{}{}
		go func() {
			c := *d
			if err := a.Append(&c); err != nil {
				b.Error(err)
			}
			<-work
		}()
	}
	for range cap(work) {
		work <- struct{}{}
	}
	b.ReportAllocs()
	b.ResetTimer()
	var r *Reader
	for n := range b.N {
		if n%stored == 0 {
			if r != nil {
				r.Close()
			}
			r = a.NewReader(0)
		}
		if rec, ok, err := r.TryNext(); err != nil || !ok || rec.Delivery == nil {
			b.Fatal(n, ok, err)
		}
	}
	r.Close()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
