package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"penstock/bench/profile"
)

// serveBare answers 200 and does nothing: what the HTTP library alone costs.
func serveBare(addr string) error {
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusOK)
	}}
	return s.ListenAndServe(addr)
}

// serveHMAC checks Stripe's signature and keeps nothing: the least an honest receiver does.
func serveHMAC(addr string) error {
	pool := sync.Pool{New: func() any { return hmac.New(sha256.New, []byte(secret)) }}
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(ctx *fasthttp.RequestCtx) {
		t, sig, ok := bytes.Cut(ctx.Request.Header.Peek("Stripe-Signature"), []byte(",v1="))
		t, isT := bytes.CutPrefix(t, []byte("t="))
		unix, err := strconv.ParseInt(string(t), 10, 64)
		if !ok || !isT || err != nil || time.Since(time.Unix(unix, 0)).Abs() > 5*time.Minute {
			ctx.SetStatusCode(fasthttp.StatusUnauthorized)
			return
		}
		mac := pool.Get().(hash.Hash) // whose Write never fails
		mac.Reset()
		mac.Write(t)
		mac.Write([]byte{'.'})
		mac.Write(ctx.PostBody())
		var sum, want [sha256.Size]byte
		n, err := hex.Decode(want[:], sig)
		good := err == nil && n == sha256.Size && hmac.Equal(mac.Sum(sum[:0]), want[:])
		pool.Put(mac)
		if !good {
			ctx.SetStatusCode(fasthttp.StatusUnauthorized)
			return
		}
		ctx.SetStatusCode(fasthttp.StatusOK)
	}}
	return s.ListenAndServe(addr)
}

func serve(kind, addr, admin, dir string) error {
	profile.OnSignal()
	switch kind {
	case bare:
		return serveBare(addr)
	case mac:
		return serveHMAC(addr)
	case edge:
		return serveEdge(addr, admin, dir)
	}
	return fmt.Errorf("no server is called %q", kind)
}
