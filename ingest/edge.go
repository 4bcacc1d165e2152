package ingest

import (
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"penstock/archive"
)

// refusedBodyTime is how long a request that is refused already may still send: long
// enough for a sender that does not wait, too short to hold a connection.
const refusedBodyTime = time.Second

// headerReceived decides from the header alone whether the body is wanted. fasthttp then
// reads at most what is returned here; one byte where the request is refused, so that
// nothing is buffered, and zero cannot be said.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) (cfg fasthttp.RequestConfig) {
	ctx := ownerOf(h)
	c := connOf(ctx.Conn())
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			c.refusal = refusedBug
		}
		if c.refusal != 0 {
			cfg = fasthttp.RequestConfig{MaxRequestBodySize: 1, ReadTimeout: refusedBodyTime}
		}
	}()
	c.refusal = s.admit(c, h)
	if c.refusal != 0 {
		s.keepRefused(c, h)
		return cfg
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: int(c.src.MaxBody)}
}

// admit routes a request and judges its header. It leaves the source in c.
func (s *Server) admit(c *conn, h *fasthttp.RequestHeader) refusal {
	f := scanFrame(h.RawHeaders())
	c.chunked = f.chunked
	t := s.table.Load()
	method, target := h.Method(), h.RequestURI()
	path := splitPath(target)
	c.src = t.byPath[string(path)]
	if c.src == nil && !t.methods[string(method)] {
		return refusedMethod // the preface of HTTP/2 (PRI) among others
	}
	if v := h.Protocol(); f.bad || f.chunked && f.length || (string(v) != "HTTP/1.1" && string(v) != "HTTP/1.0") {
		return refusedRequest
	}
	if c.src == nil {
		return s.unrouted(c, h, path)
	}
	if _, ok := c.src.methods[string(method)]; !ok {
		return refusedMethod
	}
	if f.expect {
		return refusedExpect
	}
	length := int64(h.ContentLength())
	switch {
	case length > c.src.MaxBody:
		return refusedBody
	case f.chunked:
		c.saved = append(append(c.saved, target...), headerLines(h.RawHeaders())...)
		c.savedAt = len(target)
		if !s.budget.reserveWait(c, c.src.MaxBody) {
			return refusedRoom
		}
	case length > 0 && !s.budget.reserve(c, length):
		return refusedRoom
	}
	return 0
}

// unrouted refuses a target that is no source's path: 400 where it is no plain path at
// all, else 404, remembered for the admin.
func (s *Server) unrouted(c *conn, h *fasthttp.RequestHeader, path []byte) refusal {
	if len(path) == 0 || path[0] != '/' || badPath(path) {
		return refusedRequest
	}
	s.setPeer(c)
	addr := clientAddr(c.peer, headerLines(h.RawHeaders()), s.opts.TrustedProxies)
	s.unknown.add(path, h.Method(), h.UserAgent(), addr, s.clock.now())
	return refusedUnknown
}

// keepRefused puts a delivery of a known source that is refused for its size or method
// into the quarantine, without its body: someone will ask why it never came.
func (s *Server) keepRefused(c *conn, h *fasthttp.RequestHeader) {
	if c.src == nil || (c.refusal != refusedBody && c.refusal != refusedMethod) {
		return
	}
	s.keepBodyless(c, string(h.Method()), h.RequestURI(), headerLines(h.RawHeaders()))
}

func (s *Server) keepBodyless(c *conn, method string, target, header []byte) {
	s.setPeer(c)
	c.del = archive.Delivery{
		ReceivedAt: c.first,
		Source:     c.src.Name,
		Provider:   c.src.Provider,
		RemoteIP:   clientAddr(c.peer, header, s.opts.TrustedProxies),
		Method:     method,
		Target:     target,
		Header:     header,
		Epoch:      c.src.Epoch,
	}
	if c.first.IsZero() {
		c.del.ReceivedAt = s.clock.now()
	}
	s.quarantine(c, reasonPolicy)
}

// setPeer learns the peer's address with the first request: behind a PROXY header it is
// known only now.
func (s *Server) setPeer(c *conn) {
	if !c.peer.IsValid() {
		c.peer = addrOf(c.Conn.RemoteAddr())
	}
}

// expect answers "Expect: 100-continue" before the body is sent: with 100, or with the
// refusal that the header earned.
func (s *Server) expect(ctx *fasthttp.RequestCtx) (status int) {
	c := connOf(ctx.Conn())
	defer s.recoverEdge(ctx, c, &status)
	if c.refusal == 0 {
		return fasthttp.StatusContinue
	}
	c.linger.Store(true)
	s.refuse(ctx, c, c.refusal)
	return ctx.Response.StatusCode()
}

// readError answers a request that could not be read whole. The connection is closed
// after it.
func (s *Server) readError(ctx *fasthttp.RequestCtx, err error) {
	c := connOf(ctx.Conn())
	var status int
	defer s.recoverEdge(ctx, c, &status)
	c.linger.Store(true)
	r := c.refusal
	if r == 0 {
		r = classOf(err, c.readErr)
	}
	if r == refusedBody && c.refusal == 0 && len(c.saved) > 0 {
		// A chunked body outgrew its source; fasthttp has forgotten the header by now.
		s.keepBodyless(c, "POST", c.saved[:c.savedAt], c.saved[c.savedAt:])
	}
	s.refuse(ctx, c, r)
	ctx.Request.ReleaseBody(keepBodyBytes)
	s.budget.release(c) // now, and not after the answer and what lingers
}

// classOf says what kept a request from being read: the parser's error, or the
// connection's own, which a parser's error inside a chunk hides.
func classOf(err, readErr error) refusal {
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(readErr, &timeout) && timeout.Timeout():
		return refusedSlow
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return refusedBody
	case errors.As(err, &small), errors.Is(err, fasthttp.ErrSmallReadBuffer):
		return refusedHeaders
	case errors.As(readErr, &timeout):
		return refusedBroken
	}
	return refusedRequest
}

func (s *Server) recoverEdge(ctx *fasthttp.RequestCtx, c *conn, status *int) {
	if p := recover(); p != nil {
		s.metrics.panics.Inc()
		ctx.Response.Reset()
		s.answer(ctx, c, fasthttp.StatusServiceUnavailable, jsonErrors[refusedBug])
		*status = fasthttp.StatusServiceUnavailable
		s.log.Error("BUG: panic at the edge, answered 503")
	}
}
