package ingest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"penstock/provider"
	"penstock/verify"
)

// capturing is a verifier whose every delivery is a handshake that hands over a secret.
type capturing struct{}

func (capturing) Verify(*provider.Request, time.Time) verify.Result {
	return verify.Result{Verdict: verify.Challenge, Reply: &verify.Reply{Status: 200},
		Capture: &verify.Capture{Credential: "secrets", Secret: "a-secret-of-the-handshake"}}
}

func (capturing) Ack(*provider.Request, time.Time) verify.Reply { return verify.Reply{} }

// TestCaptureBeforeAnswer: a handshake is answered 2xx only when its secret is kept; where
// it is not the sender is told to come again, and where another is kept, no.
func TestCaptureBeforeAnswer(t *testing.T) {
	var kept error
	calls := 0
	src := testSource("s")
	src.Verifier = capturing{}
	src.Capture = func(c *verify.Capture, _ time.Time) error {
		if c.Secret != "a-secret-of-the-handshake" || c.Credential != "secrets" {
			t.Errorf("keeps %+v", c)
		}
		calls++
		return kept
	}
	none := testSource("none")
	none.Verifier = capturing{}
	r := newRig(t, Options{}, src, none)
	for _, c := range []struct {
		err              error
		status           int
		stored, rejected int
	}{
		{errors.New("no space left on device"), 503, 0, 0},
		{fmt.Errorf("%w: by another", ErrKept), 403, 0, 1},
		{nil, 200, 1, 1},
	} {
		kept = c.err
		wantStatus(t, r.send(request("/in/s", "")), c.status)
		if stored, rejected := r.arch.all(); len(stored) != c.stored || len(rejected) != c.rejected {
			t.Errorf("%v: %d stored, %d refused", c.err, len(stored), len(rejected))
		}
	}
	if calls != 3 {
		t.Errorf("%d handshakes were kept", calls)
	}
	wantStatus(t, r.send(request("/in/none", "")), 503)
	r.arch.set(func() { r.arch.err = errors.New("disk is gone") })
	wantStatus(t, r.send(request("/in/s", "")), 503)
}

// stranger refuses with one reason and shows another.
type stranger struct{ capturing }

func (stranger) Verify(*provider.Request, time.Time) verify.Result {
	return verify.Result{Verdict: verify.Rejected, Reason: verify.MerchantMismatch, Shown: verify.SignatureMismatch}
}

// TestShownReason: the quarantine has the truth, the sender what it may know.
func TestShownReason(t *testing.T) {
	src := testSource("s")
	src.Verifier = stranger{}
	r := newRig(t, Options{}, src)
	answer := r.send(request("/in/s", "{}"))
	wantStatus(t, answer, 401)
	if body := bodyOf(answer); body != `{"error":{"code":"signature_mismatch"}}` {
		t.Errorf("answered %s", body)
	}
	if _, rejected := r.arch.all(); len(rejected) != 1 || rejected[0].Reason != verify.MerchantMismatch {
		t.Errorf("kept %+v", rejected)
	}
}
