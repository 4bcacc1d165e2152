package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"penstock/archive"
)

// fill makes an archive that has deliveries of the last 90 days, and its index.
func fill(dir string, t traffic) error {
	a, err := archive.Open(dir, archive.Options{MaxWait: time.Hour})
	if err != nil {
		return err
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now().Add(-90 * 24 * time.Hour)
	step := 90 * 24 * time.Hour / time.Duration(t.Records)
	for range 256 {
		wg.Go(func() {
			var body []byte
			for k := next.Add(1); k <= int64(t.Records); k = next.Add(1) {
				body = stripeBody(body[:0], fmt.Sprintf("kept%09d", k), t.Size)
				if err := a.Append(&archive.Delivery{ReceivedAt: begin.Add(time.Duration(k) * step), Source: providers[0], Provider: providers[0],
					Verdict: archive.Accepted, RemoteIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Method: "POST", Target: []byte("/in/stripe"),
					Header: []byte("Content-Type: application/json\r\n"), Body: body}); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	for failed.Load() == nil && a.Indexed() < a.Synced() {
		time.Sleep(10 * time.Millisecond)
	}
	if e := failed.Load(); e != nil {
		return errors.Join(*e, a.Close())
	}
	return a.Close()
}
