package forward

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/archive"
)

// TestHTTPRequest: what the target gets is what was received, with ours on it.
func TestHTTPRequest(t *testing.T) {
	h := newTargetServer(t)
	to := targetOf(h.URL + "/hooks?fixed=1")
	to.Secrets = []string{"whsec_" + base64.StdEncoding.EncodeToString([]byte("the new secret")), "the old secret"}
	r := httpRig(t, map[string]HTTPTarget{"s": to})
	r.start()
	d := &archive.Delivery{ReceivedAt: time.Now(), Source: "s", Provider: "prov", Verdict: archive.Accepted, VerifiedBy: "hmac:abc", Method: "PUT",
		Target: []byte("/in/s?a=1&b=%20"), RemoteIP: netip.MustParseAddr("203.0.113.9"), Epoch: r.epochOf("s"),
		Header: []byte("Host: hooks.example.com\r\nContent-Type: application/json; charset=x\r\nX-Sig: t=1,v1=ab\r\nx-sig:  second \r\n" +
			"Connection: keep-alive, X-Hop\r\nX-Hop: gone\r\nKeep-Alive: 5\r\nTE: trailers\r\nAccept-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n" +
			"X-Forwarded-For: 1.2.3.4\r\nPenstock-Event-Id: forged\r\nWebhook-Id: theirs\r\nContent-Length: 3\r\n"),
		Body: []byte(`{"id":"e0","key":"k"}`)}
	if err := r.a.Append(d); err != nil {
		t.Fatal(err)
	}
	r.last = d.Seq
	r.drained()
	_, taken := h.all()
	if len(taken) != 1 {
		t.Fatalf("%d requests, want 1", len(taken))
	}
	g := taken[0]
	f := func(what, have, want string) {
		t.Helper()
		if have != want {
			t.Errorf("%s is %q, want %q", what, have, want)
		}
	}
	f("method", g.method, "PUT")
	f("target", g.uri, "/hooks?fixed=1&a=1&b=%20")
	f("body", g.body, string(d.Body))
	f("host", g.host, strings.TrimPrefix(h.URL, "http://"))
	f("X-Sig", fmt.Sprint(g.header["X-Sig"]), "[t=1,v1=ab second]")
	for name, want := range map[string]string{"Content-Type": "application/json; charset=x", "X-Hop": "", "Keep-Alive": "", "Te": "", "Expect": "", "Accept-Encoding": "",
		"User-Agent": "", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "hooks.example.com", "Penstock-Delivery-Id": d.ID,
		"Penstock-Event-Id": "e0", "Penstock-Source": "s", "Penstock-Replay": "", "Webhook-Id": d.ID, "Penstock-Received-Webhook-Id": "theirs"} {
		f(name, g.header.Get(name), want)
	}
	stamp := g.header.Get("Webhook-Timestamp")
	if at, err := strconv.ParseInt(stamp, 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Hour {
		t.Errorf("timestamp %q", stamp)
	}
	var want []string
	for _, key := range []string{"the new secret", "the old secret"} {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(d.ID + "." + stamp + "." + g.body))
		want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	f("signature", g.header.Get("Webhook-Signature"), strings.Join(want, " "))
	os := r.outcomes(d)
	if len(os) != 1 || os[0].Kind != archive.Published || os[0].Sink != "http:s" || os[0].Topic != "s" || os[0].Fields.CEID != "e0" {
		t.Errorf("outcomes %+v", os)
	}
	if n := counterOf(t, r.reg, "penstock_published_total", "sink", "http", "source", "s"); n != 1 {
		t.Errorf("published_total is %v", n)
	}
}

// TestHTTPUnsigned: without a secret of ours the provider's own signature is left alone.
func TestHTTPUnsigned(t *testing.T) {
	c, err := newCourier(targetOf("http://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := c.request(t.Context(), &Message{request: &httpRequest{method: "POST", target: []byte("/in/s"), header: []byte("webhook-id: theirs\r\n")}}, time.Now())
	if err != nil || req.Header.Get("Webhook-Id") != "theirs" || req.Header.Get("Webhook-Signature") != "" || req.URL.RawQuery != "" {
		t.Errorf("%v, headers %v", err, req.Header)
	}
}

// TestHTTPOnce: repeats are dropped, restarts and kills send nothing again that has its
// outcome, and what no definition reads goes too.
func TestHTTPOnce(t *testing.T) {
	h := newTargetServer(t)
	r := httpRig(t, map[string]HTTPTarget{"all": targetOf(h.URL)})
	n := 0
	for life := range 4 {
		r.start()
		for range 50 {
			r.put("s", body{ID: fmt.Sprintf("e%d", n), Key: strconv.Itoa(n % 7)})
			r.put("s", body{ID: fmt.Sprintf("e%d", n/2), Key: strconv.Itoa(n / 2 % 7)})
			n++
		}
		r.drained()
		if life%2 == 0 {
			r.crash()
		} else {
			r.stop()
			r.reopen()
		}
	}
	r.start()
	other := r.put("s", body{ID: "e0", Key: "0", Note: "other content"})
	several := r.put("t", body{ID: "m", Key: "k", Items: 3})
	r.put("t", body{ID: "m", Key: "k", Items: 3})
	odd := r.putRaw("t", []byte("no json"))
	none := r.put("t", body{ID: "n", Note: "none"})
	r.drained()
	events := h.events()
	for i := range n {
		if c := events[fmt.Sprintf("e%d", i)]; c != 1 && i > 0 || c != 2 && i == 0 {
			t.Errorf("e%d was taken %d times", i, c)
		}
	}
	_, taken := h.all()
	for _, g := range taken {
		if mark := g.header.Get("Penstock-Conflict"); (mark != "") != (g.header.Get("Penstock-Delivery-Id") == other.ID) {
			t.Errorf("delivery %s is marked as a conflict with %q", g.header.Get("Penstock-Delivery-Id"), mark)
		}
	}
	if events["m, m#1, m#2"] != 1 {
		t.Errorf("a delivery of three events: %v", events["m, m#1, m#2"])
	}
	if events[""] != 2 {
		t.Errorf("%d requests without an event, want the two that no definition reads", events[""])
	}
	for _, d := range []*archive.Delivery{several, odd, none} {
		if os := r.outcomes(d); len(os) != 1 || os[0].Kind != archive.Published {
			t.Errorf("outcomes %+v", os)
		}
	}
}

// TestHTTPFailures: a server that fails in all ways; everything arrives once it does not,
// and nothing that was answered 2xx comes twice.
func TestHTTPFailures(t *testing.T) {
	for name, do := range map[string]func(n int, g got, w http.ResponseWriter){
		"300": answering(http.StatusMultipleChoices),
		"302": func(_ int, _ got, w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(http.StatusFound)
		},
		"400":  answering(400),
		"404":  answering(404),
		"500":  answering(500),
		"503":  answering(503),
		"hang": func(int, got, http.ResponseWriter) { time.Sleep(150 * time.Millisecond) },
		"reset": func(_ int, _ got, w http.ResponseWriter) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		},
		"half": func(_ int, _ got, w http.ResponseWriter) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = rw.WriteString("HTTP/1.1 2")
				_ = rw.Flush()
				_ = c.Close()
			}
		},
		"huge header": func(_ int, _ got, w http.ResponseWriter) {
			w.Header().Set("X-Huge", strings.Repeat("x", 200<<10))
			w.WriteHeader(http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTargetServer(t)
			to := targetOf(h.URL)
			bad := true
			h.set(func(n int, g got, w http.ResponseWriter) {
				h.mu.Lock()
				fails := bad && n < 40
				h.mu.Unlock()
				if fails {
					do(n, g, w)
					if sw := w.(*statusWriter); sw.status == http.StatusOK {
						sw.status = 0 // nobody saw a 2xx
					}
				}
			})
			if name == "hang" {
				to.Timeout = 50 * time.Millisecond
			}
			r := httpRig(t, map[string]HTTPTarget{"all": to})
			r.start()
			for i := range 20 {
				r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i % 5)})
			}
			r.until("some attempts failed", func() bool { seen, _ := h.all(); return len(seen) > 10 })
			to.Timeout = 0
			if err := r.p.SetTargets(map[string]HTTPTarget{"all": to}); err != nil {
				t.Fatal(err)
			}
			h.mu.Lock()
			bad = false
			h.mu.Unlock()
			r.drained()
			if name == "hang" {
				return // the server cannot tell whether its answer was in time
			}
			h.wantOnce(t, 20)
			order := map[string]int{}
			_, taken := h.all()
			for _, g := range taken {
				i, _ := strconv.Atoi(g.header.Get("Penstock-Event-Id")[1:])
				if last, ok := order[strconv.Itoa(i%5)]; ok && last > i {
					t.Errorf("e%d came after e%d of the same key", i, last)
				}
				order[strconv.Itoa(i%5)] = i
			}
		})
	}
}

// TestHTTPRefused: nobody listens, and then somebody does.
func TestHTTPRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	to := targetOf("http://" + addr)
	to.MaxPause = time.Hour
	r := httpRig(t, map[string]HTTPTarget{"all": to})
	r.start()
	for i := range 30 {
		r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
	}
	r.until("the breaker is open", func() bool { return r.p.Stats().Blocked["http:all"] == ReasonTargetDown })
	r.until("they are held, with the reason", func() bool { return r.p.Stats().Held == 30 })
	h := newTargetServer(t)
	if err := r.p.SetTargets(map[string]HTTPTarget{"all": targetOf(h.URL)}); err != nil {
		t.Fatal(err)
	}
	r.drained()
	h.wantOnce(t, 30)
}

// TestCountAtStart: what waits is counted from the first moment on; a gateway that has just
// started does not say that nothing does.
func TestCountAtStart(t *testing.T) {
	h := newTargetServer(t)
	h.set(answering(http.StatusInternalServerError))
	r := httpRig(t, map[string]HTTPTarget{"all": targetOf(h.URL)})
	for i := range 20 {
		r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
	}
	for range 5 {
		r.start()
		if n := r.metric("penstock_unpublished_deliveries"); n != 20 {
			t.Errorf("%v deliveries are counted, want 20", n)
		}
		r.crash()
	}
}

// TestHTTPAnswers: what a target says beside its status is bounded, and nobody waits for it.
func TestHTTPAnswers(t *testing.T) {
	h := newTargetServer(t)
	endless := make(chan struct{})
	defer close(endless)
	h.set(func(n int, _ got, w http.ResponseWriter) {
		w.WriteHeader(http.StatusOK)
		if n%2 == 0 {
			_, _ = io.WriteString(w, strings.Repeat("x", 4<<20))
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-endless
	})
	r := httpRig(t, map[string]HTTPTarget{"all": targetOf(h.URL)})
	r.start()
	for i := range 10 {
		r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
	}
	r.drained()
	if n := counterOf(t, r.reg, "penstock_http_attempts_total", "result", "2xx"); n != 10 {
		t.Errorf("%v attempts were answered 2xx, want 10", n)
	}
	if seen, _ := h.all(); len(seen) != 10 {
		t.Errorf("%d attempts, want one each", len(seen))
	}
}

// TestHTTPPoison: one delivery that is never taken holds up its own key alone, and becomes
// a dead letter when its time is over.
func TestHTTPPoison(t *testing.T) {
	for _, status := range []int{400, 500, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			h := newTargetServer(t)
			h.set(func(_ int, g got, w http.ResponseWriter) {
				if strings.Contains(g.body, "poison") {
					w.WriteHeader(status)
				}
			})
			to := targetOf(h.URL)
			to.RetryFor = 2 * time.Hour
			r := httpRig(t, map[string]HTTPTarget{"all": to})
			r.start()
			poison := r.put("s", body{ID: "poison", Key: "k0"})
			behind := r.put("s", body{ID: "behind", Key: "k0"})
			for i := range 40 {
				r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: "x" + strconv.Itoa(i)})
			}
			r.until("the others arrived", func() bool { return len(h.events()) >= 40 })
			if h.events()["behind"] != 0 {
				t.Error("what is behind it in its key went before it")
			}
			to.RetryFor = time.Nanosecond
			if err := r.p.SetTargets(map[string]HTTPTarget{"all": to}); err != nil {
				t.Fatal(err)
			}
			r.drained()
			os := r.outcomes(poison)
			if last := os[len(os)-1]; last.Kind != archive.Dead || last.Reason != reasonGivenUp || last.Sink != "http:all" {
				t.Errorf("the poison's outcomes: %+v", os)
			}
			if os := r.outcomes(behind); os[len(os)-1].Kind != archive.Published {
				t.Errorf("behind it: %+v", os)
			}
			// The log shows an outcome a moment before the core counts it.
			r.until("one dead letter is counted", func() bool {
				return counterOf(t, r.reg, "penstock_dead_letters_total", "reason", reasonGivenUp) == 1
			})
			// The dead letter can be sent again when it is cured.
			h.set(nil)
			var j Job
			var err error
			r.until("the index knows its outcome", func() bool {
				j, err = r.p.Replay(t.Context(), ReplayRequest{IDs: []string{poison.ID}})
				return err == nil
			})
			r.until("the replay is done", func() bool { j, err = r.p.ReplayJob(j.ID); return err == nil && j.State == JobDone })
			_, taken := h.all()
			last := taken[len(taken)-1]
			if last.header.Get("Penstock-Event-Id") != "poison" || last.header.Get("Penstock-Replay") != j.ID {
				t.Errorf("replayed as %v", last.header)
			}
		})
	}
}

// TestHTTPRetryAfter: a target that names a time is left alone until then, and so is one
// that says it wants no more.
func TestHTTPRetryAfter(t *testing.T) {
	for status, reason := range map[int]string{429: ReasonTargetBusy, 503: ReasonTargetBusy, 410: ReasonTargetGone} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			h := newTargetServer(t)
			h.set(func(_ int, _ got, w http.ResponseWriter) {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(status)
			})
			to := targetOf(h.URL)
			to.Concurrency = 1
			r := httpRig(t, map[string]HTTPTarget{"all": to})
			r.start()
			for i := range 20 {
				r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
			}
			r.until("the target is left alone", func() bool { return r.p.Stats().Blocked["http:all"] == reason })
			r.until("what waits is held", func() bool { return r.p.Stats().Held == 20 })
			if seen, _ := h.all(); len(seen) != 1 {
				t.Errorf("%d attempts, want the first alone", len(seen))
			}
			h.set(nil)
			if err := r.p.SetTargets(map[string]HTTPTarget{"all": to}); err != nil { // an operator's word
				t.Fatal(err)
			}
			r.drained()
			h.wantOnce(t, 20)
		})
	}
}

// TestHTTPTwoTargets: one that hangs, or is not there, costs the other nothing.
func TestHTTPTwoTargets(t *testing.T) {
	dead, alive := newTargetServer(t), newTargetServer(t)
	hold := make(chan struct{})
	dead.set(func(int, got, http.ResponseWriter) { <-hold })
	to := targetOf(dead.URL)
	to.Timeout = time.Hour
	r := httpRig(t, map[string]HTTPTarget{"dead": to, "alive": targetOf(alive.URL)})
	r.start()
	const n = 2 * targetQueue
	for i := range n {
		r.put("dead", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)})
		if i%10 == 0 {
			r.put("alive", body{ID: fmt.Sprintf("e%d", i/10), Key: strconv.Itoa(i)})
		}
		r.put("nowhere", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i)}) // no target: not ours
	}
	r.until("the living one has all", func() bool { return len(alive.events()) == (n+9)/10 })
	if _, taken := dead.all(); len(taken) != 0 {
		t.Error("the dead one took something")
	}
	if q := counterOf(t, r.reg, "penstock_http_queue", "sink", "http:dead"); q > targetQueue {
		t.Errorf("%v of the dead one are in memory", q)
	}
	close(hold)
	dead.set(nil)
	r.drained()
	dead.wantOnce(t, n)
	alive.wantOnce(t, (n+9)/10)
}

// TestHTTPBodiesAreBounded: large bodies of a slow target wait in the archive.
func TestHTTPBodiesAreBounded(t *testing.T) {
	h := newTargetServer(t)
	hold := make(chan struct{})
	h.set(func(int, got, http.ResponseWriter) { <-hold })
	to := targetOf(h.URL)
	to.Timeout = time.Hour
	r := httpRig(t, map[string]HTTPTarget{"all": to})
	r.start()
	const n = 24
	for i := range n {
		r.put("s", body{ID: fmt.Sprintf("e%d", i), Key: strconv.Itoa(i), Note: strings.Repeat("x", 900<<10)})
	}
	r.until("the rest waits", func() bool { return r.p.Stats().Held > 0 })
	tt := r.p.sink.(*httpSink).target("all")
	tt.mu.Lock()
	bytes := tt.bytes
	tt.mu.Unlock()
	if bytes > targetBytes {
		t.Errorf("%d bytes wait in memory, want at most %d", bytes, targetBytes)
	}
	close(hold)
	r.drained()
	h.wantOnce(t, n)
}

// TestHTTPPause: a paused source is held for this sink too.
func TestHTTPPause(t *testing.T) {
	h := newTargetServer(t)
	r := httpRig(t, map[string]HTTPTarget{"all": targetOf(h.URL)})
	r.start()
	if err := r.p.Pause("s"); err != nil {
		t.Fatal(err)
	}
	r.put("s", body{ID: "e0", Key: "k"})
	r.until("it is held", func() bool { return r.p.Stats().Held == 1 })
	r.crash()
	r.start()
	r.until("it is held after a crash", func() bool { return r.p.Stats().Held == 1 })
	if seen, _ := h.all(); len(seen) != 0 {
		t.Error("a paused source's delivery was sent")
	}
	if err := r.p.Resume("s"); err != nil {
		t.Fatal(err)
	}
	r.drained()
	h.wantOnce(t, 1)
}

// TestHTTPUpstream: who waits gets what the target said, whatever that was; a delivery that
// it did not take is tried again.
func TestHTTPUpstream(t *testing.T) {
	h := newTargetServer(t)
	r := httpRig(t, map[string]HTTPTarget{"all": targetOf(h.URL)})
	r.start()
	r.p.Await(nil)
	h.set(func(n int, g got, w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/x-own")
		if n == 0 {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = bufio.NewReader(strings.NewReader("heard " + g.body)).WriteTo(w)
	})
	d := r.put("s", body{ID: "e0", Key: "k"})
	a, ok := r.p.Delivered(d.Seq, time.Now().Add(time.Minute), nil)
	if !ok || a == nil || a.Status != http.StatusTeapot || a.ContentType != "text/x-own" || string(a.Body) != "heard "+string(d.Body) {
		t.Fatalf("told %+v %v", a, ok)
	}
	r.drained()
	h.wantOnce(t, 1)
	d = r.put("s", body{ID: "e1", Key: "k"})
	if a, ok = r.p.Delivered(d.Seq, time.Now().Add(time.Minute), nil); !ok || a == nil || a.Status != 200 {
		t.Errorf("told %+v %v", a, ok)
	}
	d = r.put("s", body{ID: "e1", Key: "k"})
	if a, ok = r.p.Delivered(d.Seq, time.Now().Add(time.Minute), nil); !ok || a != nil {
		t.Errorf("of a repeat: told %+v %v, want that it is delivered and no answer", a, ok)
	}
	h.set(func(_ int, _ got, w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) })
	d = r.put("s", body{ID: "e2", Key: "k"})
	if a, ok = r.p.Delivered(d.Seq, time.Now().Add(time.Minute), nil); !ok || a == nil || len(a.Body) != maxReply {
		t.Errorf("of a long answer: %v", ok)
	}
	r.drained()
}
