package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"slices"
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

// allocates names the providers of the plain kinds whose text cannot be built without memory
// of its own: sorted fields, URLs of several spellings, documents written anew.
var allocates = []string{"mandrill", "robokassa", "contentful", "nowpayments", "dropbox_sign", "plivo", "vnpay", "twilio", "tbank", "fondy", "salesforce"}

// TestNoAllocation: what a MAC, a hash, a token or Ed25519 proves is verified, and refused,
// without an allocation of ours; RSA and ECDSA cost what crypto/rsa and crypto/ecdsa take.
func TestNoAllocation(t *testing.T) {
	if raceOn {
		t.Skip("the race detector empties pools at random")
	}
	plain := map[primitive]bool{primHMAC: true, primHash: true, primStandard: true, primToken: true, primBasic: true, primEd25519: true}
	n := 0
	for _, name := range builtin(t).Names() {
		v, _ := devVerifier(t, get(t, name))
		r := signed(t, v, name)
		limit := 0.0
		switch {
		case slices.Contains(allocates, name):
			continue
		case plain[v.kind]:
		case (v.kind == primRSA || v.kind == primECDSA) && v.template() != "{all}":
			limit = cryptoAllocates(t, v, r)
		default:
			continue
		}
		n++
		if got := testing.AllocsPerRun(100, func() {
			if v.Verify(r, testNow).Verdict != Accepted {
				t.Fatal("refused")
			}
		}); got > limit {
			t.Errorf("%s: %.1f allocations per verification, at most %.0f", name, got, limit)
		}
		if bad := tampered(r); plain[v.kind] && v.kind != primEd25519 { // crypto/ed25519 makes an error then
			if got := testing.AllocsPerRun(100, func() { v.Verify(bad, testNow) }); got > 0 {
				t.Errorf("%s: %.1f allocations per refusal", name, got)
			}
		}
	}
	if n < 150 {
		t.Errorf("%d providers were looked at", n)
	}
}

func tampered(r *provider.Request) *provider.Request {
	bad := clone(r)
	bad.Body = append(bad.Body, ' ')
	return bad
}

// cryptoAllocates is what the standard library takes for the one verification of r.
func cryptoAllocates(t *testing.T, v *Verifier, r *provider.Request) float64 {
	t.Helper()
	sc := v.get()
	defer v.put(sc)
	if reason := v.readSignature(r, sc); reason != "" {
		t.Fatal(reason)
	}
	if reason := v.readTimestamp(r, sc); reason != "" {
		t.Fatal(reason)
	}
	if reason := v.message(r, sc, 0); reason != "" {
		t.Fatal(reason)
	}
	sum, sig, k := bytes.Clone(v.digest(sc)), bytes.Clone(sc.sigs[0]), &v.keys[0]
	alg := cryptoHash(sc.alg)
	return testing.AllocsPerRun(100, func() {
		if k.rsa != nil && rsa.VerifyPKCS1v15(k.rsa, alg, sum, sig) != nil || k.ec != nil && !ecdsa.VerifyASN1(k.ec, sum, sig) {
			t.Fatal("the library refuses it")
		}
	})
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
