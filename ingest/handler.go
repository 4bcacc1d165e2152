package ingest

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"penstock/archive"
	"penstock/verify"
)

// handle is the hot path: one request of a connection, with its body. It is the only
// place where bytes of fasthttp are handed on, and nobody keeps them: Append copies.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	c := connOf(ctx.Conn())
	c.phase.Store(handling)
	// fasthttp's own default is 200: whoever forgets to answer has not stored anything.
	ctx.Response.SetStatusCode(fasthttp.StatusServiceUnavailable)
	defer s.recover(ctx, c)
	if c.refusal != 0 {
		s.refuse(ctx, c, c.refusal)
		return
	}
	body := ctx.PostBody()
	s.budget.keep(c, int64(len(body)))
	s.fill(c, ctx, body)
	s.decide(ctx, c)
	ctx.Request.ReleaseBody(keepBodyBytes)
}

// fill makes the delivery and the verifier's request of what fasthttp read.
func (s *Server) fill(c *conn, ctx *fasthttp.RequestCtx, body []byte) {
	h := &ctx.Request.Header
	header := headerLines(h.RawHeaders())
	target := h.RequestURI()
	method := c.src.methods[string(h.Method())]
	if c.first.IsZero() {
		c.first = s.clock.now() // pipelined: it came with the request before
	}
	s.setPeer(c)
	addr := clientAddr(c.peer, header, s.opts.TrustedProxies)
	c.del = archive.Delivery{
		ReceivedAt: c.first,
		Source:     c.src.Name,
		Provider:   c.src.Provider,
		RemoteIP:   addr,
		Method:     method,
		Target:     target,
		Header:     header,
		Body:       body,
		Epoch:      c.src.Epoch,
	}
	c.req.Method = method
	c.req.Target = target
	c.req.PublicURL = c.src.publicURL(target)
	c.req.Header = header
	c.req.Body = body
	c.req.ReceivedAt = c.first
	c.req.RemoteIP = addr
}

// wouldRefuse tells what an allowlist on trial would have refused: one line a second and
// source, all of them counted.
func (s *Server) wouldRefuse(c *conn, now time.Time) {
	count := c.src.count
	count.shadow.Inc()
	sec := now.Unix()
	if last := count.shadowAt.Load(); last != sec && count.shadowAt.CompareAndSwap(last, sec) {
		s.log.Warn("the address is not on the source's list; it would be refused if allow_ips_mode were enforce",
			zap.String("source", c.src.Name), zap.Stringer("address", c.del.RemoteIP))
	}
}

// decide runs the steps in their order: certificate and address, rate, verification,
// archive, answer.
func (s *Server) decide(ctx *fasthttp.RequestCtx, c *conn) {
	src := c.src
	if src.ClientCA != nil && !c.clientCert(src) {
		s.quarantine(c, reasonPolicy)
		s.reject(ctx, c, reasonPolicy, nil)
		ctx.SetConnectionClose() // the next handshake may bring one; this connection cannot
		return
	}
	now := s.clock.now()
	if src.Allow != nil && !src.Allow.Contains(c.del.RemoteIP) {
		if !src.AllowTry {
			s.quarantine(c, reasonAddress)
			s.reject(ctx, c, reasonAddress, nil)
			return
		}
		s.wouldRefuse(c, now)
	}
	if src.limiter != nil && !src.limiter.AllowN(now, 1) {
		s.quarantine(c, reasonPolicy)
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, "1")
		s.refuse(ctx, c, refusedRate)
		return
	}
	res := src.Verifier.Verify(&c.req, now)
	c.del.Verdict, c.del.Tenant, c.del.VerifiedBy = archive.Verdict(res.Verdict), res.Tenant, res.VerifiedBy
	switch c.del.Verdict {
	case archive.Accepted:
		s.accept(ctx, c, now)
	case archive.Challenge:
		s.handshake(ctx, c, &res, now)
	default:
		s.quarantine(c, res.Reason)
		shown := res.Reason
		if res.Shown != "" {
			shown = res.Shown
		}
		s.reject(ctx, c, shown, res.Reply)
	}
}

func (s *Server) accept(ctx *fasthttp.RequestCtx, c *conn, now time.Time) {
	r, err := s.store(&c.del)
	if err != nil {
		s.refuseStorage(ctx, c, err)
		return
	}
	c.src.count.accepted.Inc()
	reply := c.src.Verifier.Ack(&c.req, now)
	if c.src.Later != nil && !s.later(ctx, c, &reply) {
		return
	}
	s.ack(ctx, c, r, &reply)
}

func (s *Server) handshake(ctx *fasthttp.RequestCtx, c *conn, res *verify.Result, now time.Time) {
	if res.Reply == nil {
		panic("BUG: a challenge without a reply")
	}
	// Before the archive: one that comes second must not stand there as answered, and a
	// secret that is kept and not answered for is given again by the provider.
	switch err := c.src.capture(res.Capture, now); {
	case errors.Is(err, ErrKept):
		s.quarantine(c, reasonPolicy)
		s.reject(ctx, c, reasonPolicy, nil)
		return
	case err != nil:
		s.refuseStorage(ctx, c, err)
		return
	}
	r, err := s.store(&c.del)
	if err != nil {
		s.refuseStorage(ctx, c, err)
		return
	}
	c.src.count.challenge.Inc()
	s.challenge(ctx, c, r, res.Reply)
}

func (c *source) capture(what *verify.Capture, now time.Time) error {
	switch {
	case what == nil:
		return nil
	case c.Capture == nil:
		return errNoCapture
	}
	return c.Capture(what, now)
}

// quarantine keeps a refused delivery with its reason. Its answer does not depend on it:
// a storm of junk or a full quarantine changes nothing for the sender.
func (s *Server) quarantine(c *conn, reason string) {
	c.del.Verdict, c.del.Reason = archive.Rejected, reason
	c.src.count.reject(reason)
	s.metrics.refused[refusedVerdict].Inc()
	_, err := s.archive.Reject(&c.del)
	now := s.clock.now()
	if !s.refused.due(refusedVerdict, now) {
		return
	}
	s.refused.line(refusedVerdict, now, append(s.fields(c), zap.String("reason", reason), zap.Error(err))...)
}

// refuseStorage answers what the archive did not take, whatever its error says.
func (s *Server) refuseStorage(ctx *fasthttp.RequestCtx, c *conn, err error) {
	s.metrics.refused[refusedStorage].Inc()
	s.answer(ctx, c, fasthttp.StatusServiceUnavailable, jsonErrors[refusedStorage])
	if now := s.clock.now(); s.refused.due(refusedStorage, now) {
		s.refused.line(refusedStorage, now, append(s.fields(c), zap.Error(err))...)
	}
}

// recover turns a panic into a 503: fasthttp would let it end the process. The line says
// where it happened and never what the request held, for a panic's text may quote it.
func (s *Server) recover(ctx *fasthttp.RequestCtx, c *conn) {
	p := recover()
	if p == nil {
		return
	}
	s.metrics.panics.Inc()
	ctx.Response.Reset()
	c.del.ID = ""
	s.refuse(ctx, c, refusedBug)
	ctx.SetConnectionClose()
	s.log.Error("BUG: panic while handling a delivery, answered 503",
		append(s.fields(c), zap.String("panic", panicWord(p)), zap.ByteString("stack", debug.Stack()))...)
}

// panicWord says what kind of panic it was, without words that may come from outside.
func panicWord(p any) string {
	var rt interface {
		error
		RuntimeError()
	}
	if err, ok := p.(error); ok && errors.As(err, &rt) {
		return rt.Error()
	}
	return fmt.Sprintf("%T", p)
}
