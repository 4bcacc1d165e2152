package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"penstock/config"
	"penstock/provider"
)

// ErrCannotSign says that a test event of this source cannot be made from what is configured, as
// where only the provider has the private key.
var ErrCannotSign = errors.New("no test event can be made for this source")

// TestAnswer is what a test event was answered.
type TestAnswer struct {
	Status   int
	Delivery string // its id
}

// SendTest sends one sample to the configured listener, signed as the provider signs. It
// says that it is a test wherever the provider's events can say so.
func SendTest(ctx context.Context, c *config.Config, s *config.Source, typ string) (TestAnswer, error) {
	def := s.Definition.(*provider.Definition)
	l := &load{flags: &sendFlags{count: 1, concurrency: 1}}
	cannot := func(err error) (TestAnswer, error) { return TestAnswer{}, fmt.Errorf("%w: %w", ErrCannotSign, err) }
	var err error
	if l.verifier, err = signerOf(s); err != nil {
		return cannot(err)
	}
	if l.events, err = newSampler(def, typ, "", false); err != nil {
		return cannot(err)
	}
	if l.to, err = targetURL(c, s, ""); err != nil {
		return TestAnswer{}, err
	}
	l.signURL = signedURL(s, l.to)
	l.client = sendClient(l.to, 1)
	defer l.client.CloseIdleConnections()
	r, _, err := l.next(0)
	if err != nil {
		return cannot(err)
	}
	r.ReceivedAt = time.Now()
	if err := l.verifier.Sign(r, r.ReceivedAt); err != nil {
		return cannot(err)
	}
	status, _, id, err := l.post(ctx, r)
	return TestAnswer{Status: status, Delivery: id}, err
}
