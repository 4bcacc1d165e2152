package ingest

import (
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"penstock/archive"
	"penstock/verify"
)

// idHeader names the delivery on every answer of a known source.
const idHeader = "Penstock-Delivery-Id"

// receipt proves that the archive has a delivery on stable storage. Only store makes
// one, and ack, the only function that answers 2xx, wants one.
type receipt struct{ stored bool }

// store appends the delivery and returns when it is on stable storage.
func (s *Server) store(d *archive.Delivery) (receipt, error) {
	verified := time.Since(d.ReceivedAt)
	if err := s.archive.Append(d); err != nil {
		return receipt{}, err
	}
	s.archive.NoteStored(d.Seq, verified, time.Since(d.ReceivedAt))
	return receipt{stored: true}, nil
}

// ack answers a delivery that is stored: with the provider's own words, or a plain 200.
// It is the only place that writes a 2xx.
func (s *Server) ack(ctx *fasthttp.RequestCtx, c *conn, r receipt, reply *verify.Reply) {
	if !r.stored {
		panic("BUG: an ack without a receipt")
	}
	status := reply.Status
	if status == 0 {
		status = fasthttp.StatusOK
	}
	ctx.Response.SetStatusCode(status)
	s.writeReply(ctx, c, reply)
	c.acks = append(c.acks, acked{c.del.ReceivedAt, c.del.Seq, c.src.count.ack})
}

// challenge answers a handshake. Its words come from the request, so a browser must not
// take them for a page.
func (s *Server) challenge(ctx *fasthttp.RequestCtx, c *conn, r receipt, reply *verify.Reply) {
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
	ctx.Response.Header.Set("Content-Security-Policy", "default-src 'none'")
	s.ack(ctx, c, r, reply)
}

// writeReply writes what a definition prescribes, without the status.
func (s *Server) writeReply(ctx *fasthttp.RequestCtx, c *conn, reply *verify.Reply) {
	h := &ctx.Response.Header
	for _, kv := range reply.Header {
		h.Add(kv[0], kv[1])
	}
	if reply.ContentType != "" {
		h.SetContentType(reply.ContentType)
	}
	ctx.Response.SetBody(reply.Body)
	s.finish(ctx, c)
}

// reject answers what verification refused: as the provider prescribes, else by the
// reason. A prescribed 2xx or 3xx is not given: it would say that we keep what we do not.
func (s *Server) reject(ctx *fasthttp.RequestCtx, c *conn, reason string, reply *verify.Reply) {
	if reply != nil && reply.Status >= fasthttp.StatusBadRequest {
		if len(reply.Body) == 0 && reply.ContentType == "" { // a status alone: the words are ours
			s.answer(ctx, c, reply.Status, s.metrics.reasonBody(reason))
			return
		}
		ctx.Response.SetStatusCode(reply.Status)
		s.writeReply(ctx, c, reply)
		return
	}
	status := reasonStatus(reason)
	if reason == reasonStale && s.clock.inDoubt() {
		status = fasthttp.StatusServiceUnavailable
	}
	s.answer(ctx, c, status, s.metrics.reasonBody(reason))
}

// refuse answers a class of refusals, counts it and logs it.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, c *conn, r refusal) {
	s.metrics.refused[r].Inc()
	info := &refusalInfo[r]
	if r == refusedMethod && c.src != nil {
		ctx.Response.Header.Set("Allow", c.src.allow)
	}
	s.answer(ctx, c, info.status, jsonErrors[r])
	if now := s.clock.now(); s.refused.due(r, now) {
		s.refused.line(r, now, s.fields(c)...)
	}
}

// answer writes a refusal. It cannot write a 2xx.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *conn, status int, body []byte) {
	if status < 400 {
		status = fasthttp.StatusServiceUnavailable
	}
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(body)
	if status == fasthttp.StatusServiceUnavailable {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, randomRetryAfter())
		ctx.SetConnectionClose()
	}
	s.finish(ctx, c)
}

// finish is the end of every answer: the delivery's id, and whether the connection may
// carry another request.
func (s *Server) finish(ctx *fasthttp.RequestCtx, c *conn) {
	if c.src != nil && c.del.ID != "" {
		ctx.Response.Header.Set(idHeader, c.del.ID)
	}
	// What is framed by chunks is where two readers of one connection disagree; the next
	// request gets a connection of its own.
	if c.chunked || s.draining.Load() {
		ctx.SetConnectionClose()
	}
}

// fields are what a log line may say about a request: never a header's value or a body.
func (s *Server) fields(c *conn) []zap.Field {
	list := make([]zap.Field, 0, 6)
	if c.src != nil {
		list = append(list, zap.String("source", c.src.Name))
	}
	addr := c.peer
	if c.del.RemoteIP.IsValid() {
		addr = c.del.RemoteIP
	}
	if addr.IsValid() {
		list = append(list, zap.Stringer("address", addr))
	}
	if c.del.ID != "" {
		list = append(list, zap.String("delivery", c.del.ID))
	}
	return list
}

// refuseConn counts and logs a connection that was turned away.
func (s *Server) refuseConn(r refusal) {
	s.metrics.refused[r].Inc()
	if now := time.Now(); s.refused.due(r, now) {
		s.refused.line(r, now)
	}
}
