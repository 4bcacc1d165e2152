package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// secret signs the benchmark's deliveries; it protects nothing.
const secret = "whsec_benchmark_0123456789abcdef"

// requests holds n ready-made requests, signed as Stripe signs, each with an event id of
// its own. They are made before the clock starts, so that the client costs what wrk costs.
type requests struct {
	buf  []byte
	ends []int
}

func (r *requests) at(i int) []byte {
	if i == 0 {
		return r.buf[:r.ends[0]]
	}
	return r.buf[r.ends[i-1]:r.ends[i]]
}

// makeRequests renders n requests with bodies of about size bytes. run makes the event
// ids of one run differ from those of every other.
func makeRequests(n, size int, run string, now time.Time) *requests {
	r := &requests{buf: make([]byte, 0, n*(size+320)), ends: make([]int, n)}
	mac := hmac.New(sha256.New, []byte(secret))
	ts := strconv.FormatInt(now.Unix(), 10)
	var body []byte
	for i := range n {
		body = stripeBody(body[:0], fmt.Sprintf("%s%07d", run, i), size)
		mac.Reset()
		mac.Write([]byte(ts))
		mac.Write([]byte{'.'})
		mac.Write(body)
		r.buf = fmt.Appendf(r.buf, "POST /in/stripe HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nContent-Type: application/json; charset=utf-8\r\nStripe-Signature: t=%s,v1=%s\r\nContent-Length: %d\r\n\r\n",
			ts, hex.EncodeToString(mac.Sum(nil)), len(body))
		r.buf = append(r.buf, body...)
		r.ends[i] = len(r.buf)
	}
	return r
}

func stripeBody(b []byte, id string, size int) []byte {
	b = fmt.Appendf(b, `{"id":"evt_%s","object":"event","api_version":"2026-04-22.dahlia","created":1779999998,"data":{"object":{"id":"pi_%s","object":"payment_intent","amount":129900,"amount_received":129900,"currency":"eur","status":"succeeded","metadata":{"order_id":"ORD-%s"},"description":"`, id, id, id)
	const tail = `"}},"livemode":true,"pending_webhooks":1,"type":"payment_intent.succeeded"}`
	for len(b)+len(tail) < size {
		b = append(b, "Payment for a subscription, one month. "[:min(39, size-len(b)-len(tail))]...)
	}
	return append(b, tail...)
}

// loadResult is what the client saw of one run.
type loadResult struct {
	OK, Other int
	Elapsed   time.Duration
	P50, P99  time.Duration
}

// load sends every request once over conns connections, closed loop, and reads each answer.
func load(addr string, reqs *requests, conns int) (loadResult, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	lat := make([][]time.Duration, conns)
	other := make([]int, conns)
	errs := make([]error, conns)
	start := time.Now()
	for c := range conns {
		wg.Go(func() { lat[c], other[c], errs[c] = drive(addr, reqs, &next) })
	}
	wg.Wait()
	res := loadResult{Elapsed: time.Since(start)}
	var all []time.Duration
	for c := range conns {
		if errs[c] != nil {
			return res, fmt.Errorf("connection %d to %s: %w", c, addr, errs[c])
		}
		all = append(all, lat[c]...)
		res.Other += other[c]
	}
	slices.Sort(all)
	res.OK = len(all) - res.Other
	if len(all) > 0 {
		res.P50, res.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	return res, nil
}

func drive(addr string, reqs *requests, next *atomic.Int64) (lat []time.Duration, other int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 4096)
	for {
		i := int(next.Add(1) - 1)
		if i >= len(reqs.ends) {
			return lat, other, nil
		}
		begin := time.Now()
		if _, err := conn.Write(reqs.at(i)); err != nil {
			return lat, other, fmt.Errorf("send request %d: %w", i, err)
		}
		status, err := readAnswer(br)
		if err != nil {
			return lat, other, fmt.Errorf("read answer %d: %w", i, err)
		}
		lat = append(lat, time.Since(begin))
		if status/100 != 2 {
			other++
		}
	}
}

// readAnswer reads one response with a Content-Length; that is all the servers here send.
func readAnswer(br *bufio.Reader) (status int, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := 0
	for {
		if line, err = br.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return 0, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, br, int64(length))
	return status, err
}
