package verify

import (
	"bytes"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/provider"
)

// TestEveryProviderSignsAndVerifies: made-up credentials of every built-in provider sign a
// delivery that verifies, and no changed copy of it does.
func TestEveryProviderSignsAndVerifies(t *testing.T) {
	for _, name := range builtin(t).Names() {
		t.Run(name, func(t *testing.T) {
			v, _ := devVerifier(t, get(t, name))
			r := signed(t, v, name)
			before := clone(r)
			res := v.Verify(r, testNow)
			wantReason(t, "signed", res, "")
			if v.kind != primNone && !strings.Contains(res.VerifiedBy, ":") {
				t.Errorf("verified by %q", res.VerifiedBy)
			}
			if !bytes.Equal(before.Body, r.Body) || !bytes.Equal(before.Header, r.Header) || !bytes.Equal(before.Target, r.Target) {
				t.Error("Verify wrote into the request")
			}
			other, _ := devVerifier(t, get(t, name))
			if v.kind != primNone {
				wantReason(t, "another source's credentials", other.Verify(r, testNow), "*")
				wantReason(t, "unsigned", v.Verify(delivery(name), testNow), "*")
			}
			if (v.ts != nil || v.kind == primStandard) && v.tolerance > 0 {
				off, future := max(time.Hour, 2*v.tolerance), TimestampOutsideTolerance
				if v.ts != nil && v.ts.t.PastOnly {
					future = ""
				}
				wantReason(t, "stale", v.Verify(r, testNow.Add(off)), TimestampOutsideTolerance)
				wantReason(t, "future", v.Verify(r, testNow.Add(-off)), future)
			}
			flips(t, v, r)
		})
	}
}

// flips changes one bit in every byte of the body, one at a time. For schemes that sign
// the raw body not one may pass; for field schemes none may change a signed field.
func flips(t *testing.T, v *Verifier, r *provider.Request) {
	whole := strings.Contains(v.s.Signed, "{body}") || v.kind == primStandard
	for i := range r.Body {
		c := clone(r)
		c.Body[i] ^= 1
		res := v.Verify(c, testNow)
		if res.Verdict == Accepted && whole {
			t.Fatalf("a body changed at byte %d verifies", i)
		}
		if res.Verdict == Accepted && v.kind != primNone && v.kind != primToken && v.kind != primBasic {
			if a, b := fieldsOf(v, r), fieldsOf(v, c); a != b {
				t.Fatalf("signed fields changed from %q to %q and verify", a, b)
			}
		}
	}
}

// fieldsOf is what the scheme signs of r, in one text.
func fieldsOf(v *Verifier, r *provider.Request) string {
	sc := &scratch{}
	v.readSignature(r, sc)
	v.readTimestamp(r, sc)
	if reason := v.message(r, sc, 0); reason != "" {
		return "?" + reason
	}
	return string(bytes.Join(sc.parts, []byte{0}))
}

// TestConcurrent: one verifier, many deliveries at once; a mixed-up state would refuse a
// good one or accept a bad one. Meant for -race.
func TestConcurrent(t *testing.T) {
	for _, name := range []string{"stripe", "liqpay", "wayforpay", "payu_eu", "standard_webhooks", "paddle_classic"} {
		v, _ := devVerifier(t, get(t, name))
		stranger, _ := devVerifier(t, get(t, name))
		var wg sync.WaitGroup
		for g := range 8 {
			r := delivery(name)
			if name != "liqpay" {
				r.Body = bytes.ReplaceAll(r.Body, []byte("o1"), bytes.Repeat([]byte{'a' + byte(g)}, 1+g*50))
			}
			if err := v.Sign(r, testNow); err != nil {
				t.Fatal(err)
			}
			bad := delivery(name)
			if err := stranger.Sign(bad, testNow); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for range 50 {
					if res := v.Verify(r, testNow); res.Verdict != Accepted {
						t.Errorf("%s: good one refused: %s", name, res.Reason)
						return
					}
					if res := v.Verify(bad, testNow); res.Verdict != Rejected {
						t.Errorf("%s: bad one accepted", name)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestNoAllocation: schemes with a MAC in a header verify without allocating.
func TestNoAllocation(t *testing.T) {
	if raceOn {
		t.Skip("the race detector empties pools at random")
	}
	for _, name := range []string{"stripe", "github", "slack", "shopify", "meta", "paddle_billing", "standard_webhooks"} {
		v, _ := devVerifier(t, get(t, name))
		r := signed(t, v, name)
		if n := testing.AllocsPerRun(200, func() {
			if v.Verify(r, testNow).Verdict != Accepted {
				t.Fatal("refused")
			}
		}); n > 0 {
			t.Errorf("%s: %.1f allocations per verification", name, n)
		}
		bad := clone(r)
		bad.Body = append(bad.Body, ' ')
		if n := testing.AllocsPerRun(200, func() { v.Verify(bad, testNow) }); n > 0 {
			t.Errorf("%s: %.1f allocations per refusal", name, n)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, name := range builtin(b).Names() {
		b.Run(name, func(b *testing.B) {
			creds, err := DevCredentials(get(b, name), rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			v := mustNew(b, get(b, name), creds, Options{})
			r := signed(b, v, name)
			b.SetBytes(int64(len(r.Body)))
			b.ReportAllocs()
			for b.Loop() {
				if v.Verify(r, testNow).Verdict != Accepted {
					b.Fatal("refused")
				}
			}
		})
	}
}
