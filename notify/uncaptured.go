package notify

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	scanEvery  = 5 * time.Minute
	maxPerScan = 10_000              // authorizations of one look
	forgetAuth = 45 * 24 * time.Hour // no provider keeps an authorization for longer
)

// scan looks for authorizations whose time is up, and for those that were told and are
// concluded by now. It reads the index without holding mu.
func (e *Engine) scan(ctx context.Context, now time.Time) {
	e.scanning.Lock()
	defer e.scanning.Unlock()
	type job struct {
		r     *rule
		from  time.Time
		known map[string]Payment
	}
	var jobs []job
	e.mu.Lock()
	for _, r := range e.rules {
		if r.When != WhenUncaptured {
			continue
		}
		if r.state.Scanned.IsZero() {
			// What was too old before anybody asked is history.
			r.state.Scanned, e.dirty = now, true
			continue
		}
		if now.Sub(r.state.Scanned) < scanEvery {
			continue
		}
		j := job{r: r, from: r.state.Scanned, known: map[string]Payment{}}
		for k, a := range r.state.Alerts {
			if a.Payment != nil {
				j.known[k] = *a.Payment
			}
		}
		jobs = append(jobs, j)
	}
	e.mu.Unlock()
	for _, j := range jobs {
		found, upto, err := e.overdue(ctx, j.r, j.from, now)
		over := map[string]bool{}
		for k, p := range j.known {
			done, cerr := e.o.Payments.Concluded(ctx, p)
			if cerr != nil {
				err = cerr
				break
			}
			over[k] = done || now.Sub(p.At) > forgetAuth
		}
		e.mu.Lock()
		for k, p := range found {
			e.set(j.r, k, now, true, false, 1, func() string { return paymentLine(p, now) })
			if a := j.r.state.Alerts[k]; a != nil {
				a.Payment, a.Delivery = &p, p.Delivery
			}
		}
		for k, done := range over {
			if done {
				e.set(j.r, k, now, false, true, 0, nil)
			}
		}
		j.r.state.Scanned, e.dirty = upto, true
		e.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			e.log.Warn("authorizations cannot be looked up now, will try again", zap.String("rule", j.r.Name), zap.Error(err))
		}
	}
}

// overdue gives the authorizations whose time ran out between from and now, and up to when
// it looked.
func (e *Engine) overdue(ctx context.Context, r *rule, from, now time.Time) (map[string]Payment, time.Time, error) {
	var list []Payment
	more := false
	err := e.o.Payments.Authorized(ctx, from.Add(-r.After), now.Add(-r.After), func(p Payment) {
		if !r.about(p.Source) || p.PaymentID == "" && p.OrderID == "" {
			return
		}
		if len(list) >= maxPerScan {
			more = true
			return
		}
		list = append(list, p)
	})
	out := map[string]Payment{}
	if err != nil {
		return out, from, err
	}
	for _, p := range list {
		done, err := e.o.Payments.Concluded(ctx, p)
		if err != nil {
			return map[string]Payment{}, from, err
		}
		if !done {
			out[p.Source+"|"+p.PaymentID+"|"+p.OrderID] = p
		}
	}
	if more {
		e.log.Warn("more authorizations than one look takes; the rest is not watched", zap.String("rule", r.Name), zap.Int("looked_at", len(list)))
	}
	return out, now, nil
}

func paymentLine(p Payment, now time.Time) string {
	line := p.Source + ":"
	if p.OrderID != "" {
		line += " order " + clean(p.OrderID, 80) + ","
	}
	if p.PaymentID != "" {
		line += " payment " + clean(p.PaymentID, 80) + ","
	}
	return line + fmt.Sprintf(" authorized %s ago, neither captured nor canceled", human(now.Sub(p.At)))
}
