package verify

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// TestEverySample: every event of every provider that `penstock send` can make is signed,
// taken by its verifier, and becomes the canonical type that it claims; with a byte of its
// signed part changed it is refused, and so it is when it is old and the scheme has a clock.
func TestEverySample(t *testing.T) {
	for _, name := range builtin(t).Names() {
		t.Run(name, func(t *testing.T) {
			def := get(t, name)
			v, creds := devVerifier(t, def)
			for _, info := range def.SampleTypes() {
				r, err := def.Sample(info.Type, provider.SampleParams{Now: testNow, OrderID: "ORD-5"})
				if err != nil {
					t.Fatal(err)
				}
				r.PublicURL = "https://hooks.example.com" + string(r.Target)
				if err := v.Sign(r, testNow); err != nil {
					t.Fatalf("%s: sign: %v", info.Type, err)
				}
				res := v.Verify(r, testNow)
				if res.Verdict != Accepted {
					t.Errorf("%s: %s %s", info.Type, res.Verdict, res.Reason)
					continue
				}
				r.Secrets = creds // of what stands sealed
				evs, err := def.Events(r)
				if err != nil || len(evs) == 0 {
					t.Errorf("%s: no event: %v", info.Type, err)
					continue
				}
				if want := info.Canonical; want != "provider" && evs[0].Canonical != want || want == "provider" && !strings.HasSuffix(evs[0].Canonical, "."+evs[0].Type) {
					t.Errorf("%s becomes %s, want %s", info.Type, evs[0].Canonical, want)
				}
				refusedWhenBad(t, v, r, info.Type)
			}
		})
	}
}

// refusedWhenBad changes what was signed, and ages it.
func refusedWhenBad(t *testing.T, v *Verifier, r *provider.Request, typ string) {
	t.Helper()
	if v.kind != primNone && !tamperedOnce(v, r) {
		t.Errorf("%s: no change of the delivery is refused", typ)
	}
	clock := v.ts != nil || v.kind == primStandard
	if !clock || v.tolerance == 0 {
		return
	}
	for _, by := range []time.Duration{v.tolerance + 2*time.Second, -v.tolerance - 2*time.Second} {
		if by < 0 && v.ts != nil && v.ts.t.PastOnly {
			continue
		}
		if res := v.Verify(r, testNow.Add(by)); res.Verdict != Rejected || res.Reason != TimestampOutsideTolerance {
			t.Errorf("%s: %s off the clock: %s %s", typ, by, res.Verdict, res.Reason)
		}
	}
	if res := v.Verify(r, testNow.Add(v.tolerance-2*time.Second)); res.Verdict != Accepted {
		t.Errorf("%s: refused within the tolerance: %s", typ, res.Reason)
	}
}

// tamperedOnce says whether some one letter, of the body or of a header, cannot be changed
// without a refusal. A scheme that signs single fields leaves the others open, and a token
// stands in a header.
func tamperedOnce(v *Verifier, r *provider.Request) bool {
	for i := len(r.Body) - 1; i >= 0; i-- {
		if c := clone(r); isWord(c.Body[i]) {
			c.Body[i] = otherLetter(c.Body[i])
			if v.Verify(c, testNow).Verdict == Rejected {
				return true
			}
		}
	}
	for _, part := range [][]byte{[]byte(r.Header), r.Target} {
		for i := range part {
			c := clone(r)
			at := c.Target
			if !bytes.Equal(part, r.Target) {
				at = []byte(c.Header)
			}
			if isWord(at[i]) {
				at[i] = otherLetter(at[i])
				if v.Verify(c, testNow).Verdict == Rejected {
					return true
				}
			}
		}
	}
	return false
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func otherLetter(c byte) byte {
	if c == '9' || c == 'z' || c == 'Z' {
		return c - 1
	}
	return c + 1
}
