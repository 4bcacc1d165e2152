package ingest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestOwnerOf(t *testing.T) {
	var got *fasthttp.RequestCtx
	srv := &fasthttp.Server{
		HeaderReceived: func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
			got = ownerOf(h)
			return fasthttp.RequestConfig{}
		},
		Handler: func(ctx *fasthttp.RequestCtx) {
			if got != ctx {
				t.Error("the header that HeaderReceived got is not the context's own")
			}
		},
		Logger: quietNothing{},
	}
	a, b := net.Pipe()
	go func() {
		_, _ = io.WriteString(a, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, a)
		_ = a.Close()
	}()
	if err := srv.ServeConn(b); err != nil {
		t.Fatal(err)
	}
	if got == nil {
		t.Fatal("HeaderReceived was not called")
	}
}

type quietNothing struct{}

func (quietNothing) Printf(string, ...any) {}

// TestFraming holds every input on which HTTP readers are known to disagree to its
// answer. A second request that is hidden in the first must never run.
func TestFraming(t *testing.T) {
	r := newRig(t, Options{MaxBodyBytes: 1000})
	const smuggled = "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 8\r\n\r\nsmuggled"
	f := func(name, raw string, want ...int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r.arch.set(func() { r.arch.stored = nil })
			r.t = t
			wantStatus(t, r.send(raw), want...)
			stored, _ := r.arch.all()
			for _, d := range stored {
				if string(d.Body) == "smuggled" {
					t.Errorf("the hidden request ran")
				}
			}
			if accepted := slices.Contains(want, 200); accepted != (len(stored) == 1) {
				t.Errorf("%d deliveries stored for %v", len(stored), want)
			}
		})
	}
	post := func(headers, body string) string {
		return "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\n" + headers + "\r\n" + body
	}
	closing := func(headers, body string) string { return post("Connection: close\r\n"+headers, body) }

	f("plain", closing("Content-Length: 2\r\n", "{}"), 200)
	f("chunked closes the connection", post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")+smuggled, 200)
	f("content-length and chunked", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")+smuggled, 400)
	f("chunked and content-length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n")+smuggled, 400)
	f("transfer-encoding identity", post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("transfer-encoding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")+smuggled, 400)
	f("transfer-encoding gzip", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")+smuggled, 400)
	f("transfer-encoding xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")+smuggled, 400)
	f("transfer-encoding on 1.0", "POST /in/s HTTP/1.0\r\nX-Test: ok\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+smuggled, 400)
	f("content-length twice", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("content-length twice, other", post("Content-Length: 2\r\nContent-Length: 90\r\n", "{}")+smuggled, 400)
	f("content-length list", post("Content-Length: 2, 2\r\n", "{}")+smuggled, 400)
	f("content-length signed", post("Content-Length: +2\r\n", "{}")+smuggled, 400)
	f("content-length negative", post("Content-Length: -2\r\n", "{}")+smuggled, 400)
	f("content-length beyond 64 bits", post("Content-Length: 18446744073709551621\r\n", "{}")+smuggled, 400)
	f("space before colon", post("Content-Length : 2\r\n", "{}")+smuggled, 400)
	f("no host", "POST /in/s HTTP/1.1\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}"+smuggled, 400)
	f("two hosts", post("Host: i\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("nul in a header", post("X-A: a\x00b\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("folded header", post("X-A: a\r\n b\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("folded line with a colon", post("X-A: a\r\n X-B: b\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("folded by tab", post("X-A: a\r\n\tb\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("first header folded", "POST /in/s HTTP/1.1\r\n Host: h\r\nContent-Length: 2\r\n\r\n{}"+smuggled, 400)
	f("bare lf between headers", "POST /in/s HTTP/1.1\r\nHost: h\r\nX-A: b\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}"+smuggled, 400)
	f("bare lf ends the block", "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\n\nContent-Length: 2\r\n\r\n{}"+smuggled, 400)
	f("no colon", post("nothing\r\nContent-Length: 2\r\n", "{}")+smuggled, 400)
	f("bad chunk size", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")+smuggled, 400)
	f("chunk size beyond 64 bits", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n")+smuggled, 400)
	f("lf in a chunk extension", post("Transfer-Encoding: chunked\r\n", "2;a\nb\r\n{}\r\n0\r\n\r\n")+smuggled, 400)
	f("chunk without its end", post("Transfer-Encoding: chunked\r\n", "2\r\n{}xx0\r\n\r\n")+smuggled, 400)
	f("trailer that would frame", post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n")+smuggled, 400)
	f("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+smuggled, 405)
	f("http/2 on the request line", "POST /in/s HTTP/2.0\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}"+smuggled, 400)
	f("garbage", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400)
	f("method of nobody", strings.Replace(post("Content-Length: 2\r\n", "{}"), "POST", "BREW", 1)+smuggled, 405)
	f("larger than the source takes", post("Content-Length: 1001\r\n", strings.Repeat("x", 1001))+smuggled, 413)
	f("larger in chunks", post("Transfer-Encoding: chunked\r\n", "3e9\r\n"+strings.Repeat("x", 1001)+"\r\n0\r\n\r\n")+smuggled, 413)
	f("larger in many chunks", post("Transfer-Encoding: chunked\r\n", strings.Repeat("64\r\n"+strings.Repeat("x", 100)+"\r\n", 11)+"0\r\n\r\n")+smuggled, 413)
	f("headers over the limit", post("X-A: "+strings.Repeat("a", 17<<10)+"\r\nContent-Length: 2\r\n", "{}")+smuggled, 431)
	f("expect of another kind", post("Expect: coffee\r\nContent-Length: 2\r\n", "{}")+smuggled, 417)
	f("expect", closing("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"), 100, 200)
	f("expect in other letters", closing("Expect: 100-Continue\r\nContent-Length: 2\r\n", "{}"), 200)
	f("pipelined, the second refused", post("Content-Length: 2\r\n", "ab")+request("/in/s", "cd", "X-Test: signature_mismatch"), 200, 401)
}

// TestEarlyRefusal: what the header decides is answered before a byte of the body came,
// and an Expect is not answered 100 first.
func TestEarlyRefusal(t *testing.T) {
	r := newRig(t, Options{MaxBodyBytes: 1000, ReadTimeout: time.Minute})
	f := func(raw string, want int) {
		t.Helper()
		wantStatus(t, r.send(raw), want)
	}
	f("POST /in/s HTTP/1.1\r\nHost: h\r\nContent-Length: 1099511627776\r\n\r\n", 413)
	f("POST /in/s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 413)
	f("POST /in/s HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 10\r\n\r\n", 417)
	f("POST /in/none HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", 404)
	f("POST /in/none HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n", 404)
	f("GET /in/s HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", 405)
	_, rejected := r.arch.all()
	if len(rejected) != 3 {
		t.Fatalf("%d refusals of a known source kept, want 3 (two too large, one method)", len(rejected))
	}
	for _, d := range rejected {
		if d.Reason != "policy" || d.Source != "s" || d.Body != nil {
			t.Errorf("kept as %+v", d)
		}
	}
	answer := r.send("POST /in/s HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n")
	if headerOf(answer, idHeader) == "" || bodyOf(answer) != `{"error":{"code":"body_too_large"}}` {
		t.Errorf("answer without id or code: %q", answer)
	}
	if used := r.srv.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes still reserved", used)
	}
}

// TestTargets: routes are raw and exact; what is no plain path is 400 or 404 and no
// answer redirects.
func TestTargets(t *testing.T) {
	r := newRig(t, Options{}, testSource("s"), Source{Name: "other", Path: "/hooks/x.y", Verifier: &wordVerifier{}})
	f := func(target string, want int) {
		t.Helper()
		got := r.send(request(target, "{}", "X-Test: ok"))
		wantStatus(t, got, want)
		if headerOf(got, "Location") != "" {
			t.Errorf("%s: redirected", target)
		}
	}
	f("/in/s", 200)
	f("/in/s?a=b&c=%2F..//", 200)
	f("/in/s?", 200)
	f("/hooks/x.y", 200)
	f("/in/s/", 404)
	f("/in/S", 404)
	f("/in/", 404)
	f("/", 404)
	f("/in/ss", 404)
	f("/in/other", 404)
	f("/in/%73", 400)
	f("/in%2Fs", 400)
	f("/in/s%00", 400)
	f("/in/../in/s", 400)
	f("/in/./s", 400)
	f("/in/s/..", 400)
	f("/in/s/.", 400)
	f("//in/s", 400)
	f("/in//s", 400)
	f("/in\\s", 400)
	f("/in/s#f", 400)
	f("/in/s;a=b", 404)
	f("*", 400)
	f("http://h/in/s", 400)
	f("https://evil/in/s", 400)
	f("in/s", 400)
	f("/in/s\x01", 400)
	f("/in/s\xff", 404)
	f("/in/s extra", 400)
	wantStatus(t, r.send("CONNECT h:80 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), 405)
	wantStatus(t, r.send("OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), 405)
	wantStatus(t, r.send("TRACE /in/s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), 405)
}

// TestBytes: what is archived and verified is what was sent, byte for byte.
func TestBytes(t *testing.T) {
	src := testSource("s")
	src.Methods = []string{"POST", "PUT"}
	r := newRig(t, Options{HeaderBytes: 64 << 10}, src)
	random := make([]byte, 100_000)
	_, _ = rand.Read(random)
	f := func(name, headers, body string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r.arch.set(func() { r.arch.stored = nil })
			head := "hOsT: h\r\nx-TEST: ok\r\nX-A:  two  \r\nx-a: again\r\nconnection: close\r\n" + headers
			raw := "POST /in/s?Q=%41&q HTTP/1.1\r\n" + head
			wire := body
			if !strings.Contains(headers, "chunked") {
				raw += fmt.Sprintf("content-LENGTH: %d\r\n", len(body))
				head += fmt.Sprintf("content-LENGTH: %d\r\n", len(body))
			} else {
				wire = chunked(body, 1000)
			}
			r.t = t
			wantStatus(t, r.send(raw+"\r\n"+wire), 200)
			stored, _ := r.arch.all()
			d := stored[0]
			if string(d.Body) != body {
				t.Errorf("body: %d bytes stored, %d sent, or others", len(d.Body), len(body))
			}
			if string(d.Header) != head {
				t.Errorf("header stored\n%q\nsent\n%q", d.Header, head)
			}
			if string(d.Target) != "/in/s?Q=%41&q" || d.Method != "POST" {
				t.Errorf("stored %s %q", d.Method, d.Target)
			}
		})
	}
	f("empty", "", "")
	f("json", "Content-Type: application/json\r\n", `{"a": 1.0, "é":"\u00e9"}`+"\r\n")
	f("binary", "Content-Type: application/octet-stream\r\n", string(random))
	f("gzip is not unpacked", "Content-Encoding: gzip\r\nContent-Type: application/json\r\n", "\x1f\x8b\x08\x00junk")
	f("multipart is not rewritten", "Content-Type: multipart/form-data; boundary=B\r\n",
		"preamble\r\n--B\r\nContent-Disposition: form-data; name=\"a\"\r\nX-Odd:  1\r\n\r\nv\r\n--B--\r\nepilogue")
	f("form", "Content-Type: application/x-www-form-urlencoded\r\n", "data=a%20b&data=c&;;=")
	f("chunked", "Transfer-Encoding: chunked\r\n", string(random[:50_000]))
	f("chunked and empty", "Transfer-Encoding: chunked\r\n", "")
	f("many headers", strings.Repeat("x-LONG-header-Name: value\r\n", 1500), "{}")
	f("high bytes in a header", "X-Raw: \xe9\xff caf\xc3\xa9\r\n", "{}")
	f("empty header", "X-Empty:\r\nX-Empty2: \r\n", "{}")
}

func chunked(body string, size int) string {
	var b bytes.Buffer
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}

// TestNoBodyHeader: a request without Content-Length has no body, and what follows it is
// the next request.
func TestNoBodyHeader(t *testing.T) {
	r := newRig(t, Options{})
	wantStatus(t, r.send("POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\n\r\n"+request("/in/s", "{}", "X-Test: ok")), 200, 200)
	stored, _ := r.arch.all()
	if len(stored) != 2 || len(stored[0].Body) != 0 || string(stored[1].Body) != "{}" {
		t.Fatalf("stored %+v", stored)
	}
}

// TestErrorAfterGoodRequest: a broken request is not answered with the id or the source
// of the one before it on the same connection.
func TestErrorAfterGoodRequest(t *testing.T) {
	r := newRig(t, Options{})
	c := r.dial()
	answer := make([]byte, 4096)
	_, _ = io.WriteString(c, "POST /in/s HTTP/1.1\r\nHost: h\r\nX-Test: ok\r\nContent-Length: 2\r\n\r\n{}")
	n, err := c.Read(answer)
	if err != nil || headerOf(string(answer[:n]), idHeader) != "D1" {
		t.Fatalf("first answer %q, %v", answer[:n], err)
	}
	_, _ = io.WriteString(c, "BROKEN\r\n\r\n")
	rest, _ := io.ReadAll(c)
	wantStatus(t, string(rest), 400)
	if id := headerOf(string(rest), idHeader); id != "" {
		t.Errorf("the error carries id %s of the request before it", id)
	}
}
