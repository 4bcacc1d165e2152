package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	dto "github.com/prometheus/client_model/go"

	"penstock/archive"
	"penstock/provider"
	"penstock/verify"
)

// TestNothingBeforeAppend is the promise: while the archive has not said that the
// delivery is on stable storage, not one byte of an answer leaves.
func TestNothingBeforeAppend(t *testing.T) {
	r := newRig(t, Options{})
	r.arch.hold, r.arch.entered = make(chan struct{}), make(chan struct{}, 1)
	for _, word := range []string{"ok", "challenge"} {
		c := r.dial()
		_, _ = io.WriteString(c, request("/in/s", "{}", "X-Test: "+word))
		<-r.arch.entered
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
			t.Fatalf("%s: %d bytes of an answer before Append returned (%v)", word, n, err)
		}
		r.arch.hold <- struct{}{}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, _ := io.ReadAll(c)
		wantStatus(t, string(answer), 200)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestOnePlaceForSuccess reads the package: statuses are written in respond.go, and a
// 2xx only in ack, which wants a receipt.
func TestOnePlaceForSuccess(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	success := regexp.MustCompile(`StatusOK|StatusAccepted|StatusCreated|StatusNoContent|\.Success\(|SetStatusCode\(2|HTTP/1\.1 2`)
	raw := regexp.MustCompile(`SetStatusCode|\.Error\([^)]*Status|SetStatusLine|Redirect\(`)
	receipts := regexp.MustCompile(`receipt\{stored: true\}`)
	found := map[string]int{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for fn, body := range functions(string(text)) {
			if raw.MatchString(body) {
				found[name+" "+fn+" status"]++
			}
			if success.MatchString(body) {
				found[name+" "+fn+" success"]++
			}
			if receipts.MatchString(body) {
				found[name+" "+fn+" receipt"]++
			}
		}
	}
	want := map[string]int{
		"respond.go store receipt": 1, // after Append returned nil
		"respond.go ack status":    1,
		"respond.go ack success":   1,
		"respond.go reject status": 1, // held to 400 and above
		"respond.go answer status": 1, // held to 400 and above
		"handler.go handle status": 1, // 503 to begin with
	}
	if fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("statuses are written in\n%v\nwant\n%v", found, want)
	}
}

// functions splits Go text into its top-level functions, by name.
func functions(text string) map[string]string {
	list := map[string]string{}
	heads := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)`).FindAllStringSubmatchIndex(text, -1)
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		list[text[h[2]:h[3]]] += text[h[0]:end]
	}
	return list
}

func TestVerdicts(t *testing.T) {
	src := testSource("s")
	v := src.Verifier.(*wordVerifier)
	r := newRig(t, Options{}, src)
	f := func(word string, status int, code string) {
		t.Helper()
		got := r.send(request("/in/s", `{"a":1}`, "X-Test: "+word))
		wantStatus(t, got, status)
		_, rejected := r.arch.all()
		last := rejected[len(rejected)-1]
		if last.Reason != word || last.Verdict != archive.Rejected || string(last.Body) != `{"a":1}` {
			t.Errorf("%s: kept as %s %q with body %q", word, last.Verdict, last.Reason, last.Body)
		}
		if want := `{"error":{"code":"` + code + `"}}`; bodyOf(got) != want {
			t.Errorf("%s: body %q, want %q", word, bodyOf(got), want)
		}
		if id := headerOf(got, idHeader); id != last.ID || id == "" {
			t.Errorf("%s: id %q in the answer, %q in the archive", word, id, last.ID)
		}
		if n := valueOf(t, r.srv.metrics.deliveries.WithLabelValues("s", "rejected", word)); n != 1 {
			t.Errorf("%s: counted %v times", word, n)
		}
	}
	for _, word := range []string{"signature_missing", "signature_malformed", "signature_mismatch",
		"timestamp_missing", "timestamp_outside_tolerance", "duplicate_header", "merchant_mismatch"} {
		f(word, 401, word)
	}
	f("ip_not_allowed", 403, "ip_not_allowed")
	f("policy", 403, "policy")
	f("key_unavailable", 503, "key_unavailable")
	if got := r.send(request("/in/s", "{}", "X-Test: key_unavailable")); headerOf(got, "Retry-After") == "" {
		t.Errorf("a key that cannot be had is no reason to stay away: %q", got)
	}

	got := r.send(request("/in/s", "", "X-Test: words of a stranger"))
	wantStatus(t, got, 401)
	if strings.Contains(got, "stranger") {
		t.Errorf("the answer repeats %q", got)
	}

	v.reply = &verify.Reply{Status: 498, ContentType: "text/plain", Header: [][2]string{{"X-Why", "bad"}}, Body: []byte("[refused]")}
	got = r.send(request("/in/s", "{}", "X-Test: signature_mismatch"))
	wantStatus(t, got, 498)
	if bodyOf(got) != "[refused]" || headerOf(got, "X-Why") != "bad" || headerOf(got, "Content-Type") != "text/plain" {
		t.Errorf("prescribed refusal came out as %q", got)
	}
	v.reply = &verify.Reply{Status: 403}
	got = r.send(request("/in/s", "{}", "X-Test: signature_mismatch"))
	wantStatus(t, got, 403)
	if bodyOf(got) != `{"error":{"code":"signature_mismatch"}}` {
		t.Errorf("a prescribed status alone came out as %q", got)
	}
	for _, status := range []int{0, 200, 204, 302} {
		v.reply = &verify.Reply{Status: status, Body: []byte("fine")}
		wantStatus(t, r.send(request("/in/s", "{}", "X-Test: signature_mismatch")), 401)
	}
}

func TestAcks(t *testing.T) {
	src := testSource("s")
	src.Methods = []string{"POST", "GET", "HEAD"}
	v := src.Verifier.(*wordVerifier)
	r := newRig(t, Options{}, src)

	got := r.send(request("/in/s", "{}", "X-Test: ok"))
	wantStatus(t, got, 200)
	if headerOf(got, idHeader) != "D1" || bodyOf(got) != "" || headerOf(got, "Content-Type") != "" || headerOf(got, "Server") != "" {
		t.Errorf("plain ack is %q", got)
	}
	v.ack = verify.Reply{Status: 202, ContentType: "application/json", Header: [][2]string{{"X-A", "1"}, {"X-A", "2"}}, Body: []byte(`{"status":"accept"}`)}
	got = r.send(request("/in/s", "{}", "X-Test: ok"))
	wantStatus(t, got, 202)
	if bodyOf(got) != `{"status":"accept"}` || strings.Count(got, "X-A: ") != 2 || headerOf(got, "Content-Type") != "application/json" {
		t.Errorf("computed ack is %q", got)
	}
	got = r.send("GET /in/s?hub.challenge=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Test: challenge\r\nContent-Length: 4\r\n\r\necho")
	wantStatus(t, got, 200)
	if bodyOf(got) != "echo" || headerOf(got, "X-Content-Type-Options") != "nosniff" || strings.Count(got, "\r\nContent-Security-Policy: ") != 1 || headerOf(got, "Content-Type") != "text/plain" {
		t.Errorf("challenge is answered %q", got)
	}
	got = r.send("HEAD /in/s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Test: ok\r\n\r\n")
	wantStatus(t, got, 202)
	if bodyOf(got) != "" {
		t.Errorf("HEAD is answered with a body: %q", got)
	}
	stored, _ := r.arch.all()
	if len(stored) != 4 || stored[2].Verdict != archive.Challenge || stored[0].Verdict != archive.Accepted ||
		stored[0].VerifiedBy != "test:1" || stored[0].Tenant != "t1" || stored[0].Provider != "test" || stored[0].ReceivedAt.IsZero() {
		t.Errorf("stored %+v", stored)
	}
	if n := valueOf(t, r.srv.metrics.deliveries.WithLabelValues("s", "accepted", "")); n != 3 {
		t.Errorf("%v accepted counted, want 3", n)
	}
	if n := valueOf(t, r.srv.metrics.deliveries.WithLabelValues("s", "challenge", "")); n != 1 {
		t.Errorf("%v challenges counted, want 1", n)
	}
	if n := int(valueOf(t, r.srv.metrics.ack)); n != 4 {
		t.Errorf("%d acks timed, want 4", n)
	}
	if n := int(valueOf(t, r.srv.metrics.sourceAck)); n != 4 { // one series: its own
		t.Errorf("%d acks of the source timed, want 4", n)
	}
}

// TestStorageErrors: whatever the archive says, the sender is told to come back.
func TestStorageErrors(t *testing.T) {
	r := newRig(t, Options{})
	seen := map[string]bool{}
	for i := range 60 {
		r.arch.set(func() { r.arch.err = fmt.Errorf("archive full %d", i) })
		got := r.send(strings.Replace(request("/in/s", "{}", "X-Test: "+[]string{"ok", "challenge"}[i%2]), "Connection: close\r\n", "", 1))
		wantStatus(t, got, 503)
		after, err := strconv.Atoi(headerOf(got, "Retry-After"))
		if err != nil || after < 1 || after > 30 || headerOf(got, "Connection") != "close" {
			t.Fatalf("answer %q", got)
		}
		if strings.Contains(got, "full") {
			t.Errorf("the answer tells why: %q", got)
		}
		seen[headerOf(got, "Retry-After")] = true
	}
	if len(seen) < 5 {
		t.Errorf("Retry-After is hardly random: %v", seen)
	}
	r.arch.set(func() { r.arch.err, r.arch.rejErr = nil, errors.New("quarantine full") })
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: signature_mismatch")), 401)
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
}

// TestPanics: a panic anywhere in a request is a 503, the server goes on, and neither
// the log nor the answer has a word of the request.
func TestPanics(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	r := newRig(t, Options{Logger: zap.New(core)})
	const secret = "secret of the body"
	for _, f := range []func() string{
		func() string { return request("/in/s", secret, "X-Test: panic", "Authorization: "+secret) },
		func() string {
			r.arch.set(func() { r.arch.panics = true })
			return request("/in/s", secret, "X-Test: ok", "Authorization: "+secret)
		},
	} {
		got := r.send(f())
		wantStatus(t, got, 503)
		if headerOf(got, "Retry-After") == "" || strings.Contains(got, "secret") || headerOf(got, idHeader) != "" {
			t.Errorf("answer %q", got)
		}
	}
	r.arch.set(func() { r.arch.panics = false })
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
	bugs := 0
	for _, e := range logs.All() {
		if strings.HasPrefix(e.Message, "BUG:") {
			bugs++
		}
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "secret") {
			t.Errorf("logged: %s", text)
		}
	}
	if bugs != 2 {
		t.Errorf("%d lines begin with BUG:, want 2", bugs)
	}
	if n := valueOf(t, r.srv.metrics.panics); n != 2 {
		t.Errorf("%v panics counted, want 2", n)
	}
}

// TestQuietLog: a canary in every part of every kind of request never reaches the log,
// and a class writes one line a second.
func TestQuietLog(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	r := newRig(t, Options{Logger: zap.New(core), ReadTimeout: 300 * time.Millisecond})
	const canary = "CANARY\x1b[31m"
	for range 30 {
		for _, raw := range []string{
			request("/in/s?"+"CANARY", canary, "X-Test: signature_mismatch", "Authorization: CANARY"),
			request("/in/s", canary, "X-Test: ok", "Cookie: CANARY"),
			request("/in/none-CANARY", canary, "User-Agent: CANARY"),
			"POST /in/s HTTP/1.1\r\nHost: h\r\nCANARY\r\n\r\n",
			"POST /in/s HTTP/1.1\r\nHost: h\r\nX-A: CANARY\x00\r\n\r\n",
			"CANARY /in/s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
			"POST CANARY HTTP/1.1\r\nHost: h\r\n\r\n",
			"POST /in/s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nCANARY",
		} {
			r.send(raw)
		}
	}
	perClassSecond := map[string]int{}
	for _, e := range logs.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "CANARY") {
			t.Errorf("logged: %s", text)
		}
		if class, ok := e.ContextMap()["class"].(string); ok {
			perClassSecond[class+e.Time.Format(" 15:04:05")]++
		}
	}
	if len(perClassSecond) == 0 {
		t.Error("no refusal was logged at all")
	}
	for k, n := range perClassSecond {
		if n > 2 { // the log's second and the class's may differ by one
			t.Errorf("%d lines for %s", n, k)
		}
	}
}

func TestRate(t *testing.T) {
	src := testSource("s")
	src.Rate, src.Burst = 0.001, 3
	r := newRig(t, Options{}, src, testSource("free"))
	var got []int
	for range 5 {
		got = append(got, statuses(r.send(request("/in/s", "{}", "X-Test: ok")))...)
		wantStatus(t, r.send(request("/in/free", "{}", "X-Test: ok")), 200)
	}
	if fmt.Sprint(got) != "[200 200 200 429 429]" {
		t.Fatalf("statuses %v", got)
	}
	if err := r.srv.SetSources([]Source{src}); err != nil {
		t.Fatal(err)
	}
	answer := r.send(request("/in/s", "{}", "X-Test: ok"))
	wantStatus(t, answer, 429) // a reload does not refill the burst
	_, rejected := r.arch.all()
	if last := rejected[len(rejected)-1]; last.Reason != "policy" || headerOf(answer, idHeader) != last.ID || headerOf(answer, "Retry-After") == "" {
		t.Errorf("429 kept as %+v, answered %q", last, answer)
	}
	src.Burst = 10
	if err := r.srv.SetSources([]Source{src}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok")), 200)
}

type prefixAllow []netip.Prefix

func (p prefixAllow) Contains(a netip.Addr) bool { return contains(p, a) }

// TestAllowlist: a foreign address is refused before verification and kept.
func TestAllowlist(t *testing.T) {
	src := testSource("s")
	src.Verifier.(*wordVerifier).seen = func(*provider.Request) { t.Error("a foreign address reached verification") }
	src.Allow = prefixAllow{netip.MustParsePrefix("203.0.113.0/24")}
	trusted := testSource("t")
	trusted.Allow = src.Allow
	r := newRig(t, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")}}, src, trusted)
	got := r.send(request("/in/s", "{}", "X-Test: ok", "X-Forwarded-For: 203.0.113.9, 198.51.100.1"))
	wantStatus(t, got, 403)
	_, rejected := r.arch.all()
	if d := rejected[0]; d.Reason != "ip_not_allowed" || d.RemoteIP != netip.MustParseAddr("198.51.100.1") || string(d.Body) != "{}" {
		t.Errorf("kept as %+v", d)
	}
	if bodyOf(got) != `{"error":{"code":"ip_not_allowed"}}` || headerOf(got, idHeader) != rejected[0].ID {
		t.Errorf("answered %q", got)
	}
	wantStatus(t, r.send(request("/in/t", "{}", "X-Test: ok", "X-Forwarded-For: 198.51.100.1, 203.0.113.9")), 200)
}

// TestAllowlistOnTrial: nobody is refused, and what would have been is counted.
func TestAllowlistOnTrial(t *testing.T) {
	src := testSource("s")
	src.Allow, src.AllowTry = prefixAllow{netip.MustParsePrefix("203.0.113.0/24")}, true
	r := newRig(t, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, src)
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok", "X-Forwarded-For: 198.51.100.1")), 200)
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: ok", "X-Forwarded-For: 203.0.113.9")), 200)
	var m dto.Metric
	if err := r.srv.metrics.shadow.WithLabelValues("s").Write(&m); err != nil || m.GetCounter().GetValue() != 1 {
		t.Errorf("%v counted, %v", m.GetCounter().GetValue(), err)
	}
}

// TestClockInDoubt: after the wall clock was set, a stale timestamp is answered 503.
func TestClockInDoubt(t *testing.T) {
	r := newRig(t, Options{})
	start := time.Now()
	var mu sync.Mutex
	var wall, mono time.Duration
	move := func(w, m time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		wall, mono = wall+w, mono+m
	}
	r.srv.clock.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return start.Add(wall) }
	r.srv.clock.mono = func() time.Duration { mu.Lock(); defer mu.Unlock(); return mono }
	r.srv.clock.wall, r.srv.clock.at = start.Round(0), 0
	f := func(word string, want int) {
		t.Helper()
		wantStatus(t, r.send(request("/in/s", "{}", "X-Test: "+word)), want)
	}
	f(reasonStale, 401)
	move(29*time.Second, 0)
	f(reasonStale, 401)
	move(2*time.Minute, 2*time.Minute)
	f(reasonStale, 401)
	move(-time.Hour, time.Second)
	f(reasonStale, 503)
	f("signature_mismatch", 401)
	move(5*time.Minute, 5*time.Minute)
	f(reasonStale, 503)
	move(6*time.Minute, 6*time.Minute)
	f(reasonStale, 401)
	move(40*time.Second, time.Second)
	f(reasonStale, 503)
}

// TestBufferReuse: fasthttp uses its buffers again; what was archived stays what was
// sent, for many connections at once and for several requests on each.
func TestBufferReuse(t *testing.T) {
	r := newRig(t, Options{})
	var mu sync.Mutex
	sent := map[string]int{}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			var in bytes.Buffer
			for range 40 {
				size := rnd.IntN(3000)
				if rnd.IntN(8) == 0 {
					size = rnd.IntN(120_000)
				}
				body := make([]byte, size)
				for i := range body {
					body[i] = byte(rnd.Uint32())
				}
				sum := hash(body)
				mu.Lock()
				sent[sum]++
				mu.Unlock()
				fmt.Fprintf(&in, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nX-Sum: %s\r\nContent-Length: %d\r\n\r\n", sum, size)
				in.Write(body)
			}
			in.WriteString(request("/in/s", "", "X-Test: ok", "X-Sum: "+hash(nil)))
			mu.Lock()
			sent[hash(nil)]++
			mu.Unlock()
			go func() { _, _ = in.WriteTo(c) }()
			answer, _ := io.ReadAll(c)
			if n := len(statuses(string(answer))); n != 41 {
				t.Errorf("%d answers, want 41", n)
			}
		})
	}
	wg.Wait()
	stored, _ := r.arch.all()
	if len(stored) != 16*41 {
		t.Errorf("%d stored, want %d", len(stored), 16*41)
	}
	for _, d := range stored {
		want, _ := provider.Header(d.Header).Get("x-sum")
		if hash(d.Body) != string(want) {
			t.Fatalf("the body stored under %s is another one", want)
		}
		sent[string(want)]--
	}
	for sum, n := range sent {
		if n != 0 {
			t.Errorf("%s: sent %d times more than stored", sum, n)
		}
	}
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestUnknownPaths(t *testing.T) {
	r := newRig(t, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	for i := range 300 {
		wantStatus(t, r.send(request(fmt.Sprintf("/in/random%d?q", i), "", "User-Agent: scanner", "X-Forwarded-For: 198.51.100.7")), 404)
	}
	for range 3 {
		wantStatus(t, r.send(request("/in/strpe", "", "User-Agent: Stripe/1.0")), 404)
	}
	list := r.srv.UnknownPaths()
	if len(list) != unknownKept {
		t.Fatalf("%d kept, want %d", len(list), unknownKept)
	}
	if e := list[0]; e.Path != "/in/strpe" || e.Count != 3 || e.UserAgent != "Stripe/1.0" || e.Method != "POST" {
		t.Errorf("newest is %+v", e)
	}
	if list[1].Address != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("address %s", list[1].Address)
	}
	n := len(gather(t, r.srv.metrics.deliveries))
	if n > 20 {
		t.Errorf("%d series after random paths", n)
	}
	long := r.send(request("/in/"+strings.Repeat("x", 5000), ""))
	wantStatus(t, long, 404)
	if got := len(r.srv.UnknownPaths()[0].Path); got != unknownChars {
		t.Errorf("path of %d letters kept, want %d", got, unknownChars)
	}
}

// TestTimesOfTheWay: of each delivery that is stored it is noted when it was verified, stored
// and answered, in that order; pipelined ones too, and of a refused one nothing.
func TestTimesOfTheWay(t *testing.T) {
	r := newRig(t, Options{})
	first := strings.Replace(request("/in/s", "{}", "X-Test: ok"), "Connection: close\r\n", "", 1)
	wantStatus(t, r.send(first+request("/in/s", "{}", "X-Test: challenge")), 200, 200)
	wantStatus(t, r.send(request("/in/s", "{}", "X-Test: signature_mismatch")), 401)
	stored, _ := r.arch.all()
	r.arch.set(func() {
		if len(stored) != 2 || len(r.arch.noted) != 2 {
			t.Fatalf("%d stored, of %d it is noted", len(stored), len(r.arch.noted))
		}
		for seq, s := range r.arch.noted {
			if s.Verified <= 0 || s.Archived < s.Verified || s.Acked < s.Archived {
				t.Errorf("seq=%d: %+v", seq, s)
			}
		}
	})
}
