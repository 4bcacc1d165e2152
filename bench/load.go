package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// loadResult is what the client saw of one run.
type loadResult struct {
	OK, Refused    int // refused: answered 4xx as its wrong signature wants
	Wrong          int // any other answer
	Elapsed        time.Duration
	P50, P99, P999 time.Duration
}

// rate is the answers a second that were as they should be, good traffic only.
func (r *loadResult) rate() float64 { return float64(r.OK) / r.Elapsed.Seconds() }

// client is one connection.
type client struct {
	conn net.Conn
	br   *bufio.Reader
	reqs *requests
	lat  []time.Duration
	res  loadResult
}

// load sends requests over conns connections until the time is up, or each was sent
// once; with again it begins anew with the first. A perSecond of 0 is a closed loop:
// the next request follows the answer. Otherwise requests have their times, and a
// latency counts from when its request should have gone out, so that a server that
// stalls is not spared the requests that waited meanwhile.
func load(addr string, reqs *requests, conns int, d time.Duration, perSecond float64, again bool) (loadResult, error) {
	clients := make([]*client, conns)
	for i := range clients {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return loadResult{}, err
		}
		defer c.Close()
		clients[i] = &client{conn: c, br: bufio.NewReaderSize(c, 4096), reqs: reqs}
	}
	var next atomic.Int64
	take := func() (int, bool) {
		i := int(next.Add(1) - 1)
		return i % reqs.len(), again || i < reqs.len()
	}
	var wg sync.WaitGroup
	errs := make([]error, conns)
	start := time.Now()
	for i, c := range clients {
		wg.Go(func() {
			if perSecond == 0 {
				errs[i] = c.closedLoop(start.Add(d), take)
				return
			}
			every := time.Duration(float64(conns) / perSecond * float64(time.Second))
			errs[i] = c.openLoop(start.Add(every*time.Duration(i)/time.Duration(conns)), start.Add(d), every, take)
		})
	}
	wg.Wait()
	res := loadResult{Elapsed: time.Since(start)}
	var all []time.Duration
	for i, c := range clients {
		if errs[i] != nil {
			return res, fmt.Errorf("connection %d to %s: %w", i, addr, errs[i])
		}
		all = append(all, c.lat...)
		res.OK, res.Refused, res.Wrong = res.OK+c.res.OK, res.Refused+c.res.Refused, res.Wrong+c.res.Wrong
	}
	slices.Sort(all)
	if n := len(all); n > 0 {
		res.P50, res.P99, res.P999 = all[n/2], all[n*99/100], all[n*999/1000]
	}
	return res, nil
}

func (c *client) closedLoop(until time.Time, take func() (int, bool)) error {
	for {
		i, ok := take()
		begin := time.Now()
		if !ok || begin.After(until) {
			return nil
		}
		if err := c.one(i, begin); err != nil {
			return err
		}
	}
}

func (c *client) openLoop(at, until time.Time, every time.Duration, take func() (int, bool)) error {
	for ; at.Before(until); at = at.Add(every) {
		i, ok := take()
		if !ok {
			return nil
		}
		time.Sleep(time.Until(at))
		if err := c.one(i, at); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) one(i int, begin time.Time) error {
	if _, err := c.conn.Write(c.reqs.at(i)); err != nil {
		return fmt.Errorf("send request %d: %w", i, err)
	}
	status, err := readAnswer(c.br)
	if err != nil {
		return fmt.Errorf("read answer %d: %w", i, err)
	}
	switch bad := c.reqs.bad[c.reqs.order[i]]; {
	case bad && status/100 == 4:
		c.res.Refused++
	case !bad && status/100 == 2:
		c.res.OK++
		c.lat = append(c.lat, time.Since(begin))
	default:
		c.res.Wrong++
	}
	return nil
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
