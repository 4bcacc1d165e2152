package ingest

import (
	"errors"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// headerOffset is where a RequestCtx holds its request header.
const headerOffset = unsafe.Offsetof(fasthttp.RequestCtx{}.Request) + unsafe.Offsetof(fasthttp.Request{}.Header)

// ownerOf gives the context whose request header h is.
//
// fasthttp hands HeaderReceived nothing but the header, and that hook is the only place
// that may refuse a body before it is read and a buffer of the declared length is made.
// Without the connection it could neither say why it refused nor give back what it
// reserved. fasthttp passes &ctx.Request.Header there (server.go, serveConnCounted), so
// the context is a fixed distance before it. checkOwner and TestOwnerOf hold this to be
// true on the pinned version. This is the only use of unsafe in the package.
func ownerOf(h *fasthttp.RequestHeader) *fasthttp.RequestCtx {
	return (*fasthttp.RequestCtx)(unsafe.Add(unsafe.Pointer(h), -int(headerOffset)))
}

func checkOwner() error {
	ctx := new(fasthttp.RequestCtx)
	if ownerOf(&ctx.Request.Header) != ctx {
		return errors.New("BUG: a request header does not lead to its context")
	}
	return nil
}
