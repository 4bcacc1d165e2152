package verify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

// tenantsOf makes a set of merchants with credentials of their own.
func tenantsOf(t testing.TB, name string, ids ...string) (*Tenants, map[string]provider.Credentials) {
	t.Helper()
	def, all := get(t, name), map[string]provider.Credentials{}
	for _, id := range ids {
		creds, err := DevCredentials(def, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range def.EffectiveCredentials() {
			if c.Role == "merchant" {
				delete(creds, c.Name)
			}
		}
		all[id] = creds
	}
	set, err := NewTenants(def, nil, all, Options{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return set, all
}

func signedFor(t testing.TB, set *Tenants, id, name string) *provider.Request {
	t.Helper()
	r := deliveryOf(t, set, name)
	if err := set.Sign(id, r, testNow); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

// keysOf signs with a merchant's keys what names whomever it names.
func keysOf(set *Tenants, id string) *Verifier {
	v := *set.Verifier(id)
	v.naming = nil
	return &v
}

// deliveryOf is a delivery with the list that names the merchant, where it is one.
func deliveryOf(t testing.TB, set *Tenants, name string) *provider.Request {
	if set.places.List == "" || get(t, name).Each != "" {
		return delivery(name)
	}
	r, err := get(t, name).Sample("", provider.SampleParams{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// payments that name their merchant must be selectable, whatever else changes.
var selectable = []string{"liqpay", "wayforpay", "payu_eu", "stripe", "shopify", "adyen", "fondy", "fondy_v2", "tbank", "momo",
	"vnpay", "payu_india", "comgate", "square", "razorpay", "xendit", "airwallex", "btcpay", "midtrans", "iyzico", "gocardless",
	"lemonsqueezy", "paymob", "recurly", "generic_hash_concat"}

// TestTenantsOfEveryProvider: the name only selects, the key proves, for every definition
// that names its merchant.
func TestTenantsOfEveryProvider(t *testing.T) {
	can := map[string]bool{}
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		if _, err := def.TenantPlaces(); err != nil {
			continue
		}
		if def.Scheme.Scheme == "none" {
			continue
		}
		can[name] = true
		t.Run(name, func(t *testing.T) { tenantsProve(t, name) })
	}
	for _, name := range selectable {
		if !can[name] {
			_, err := get(t, name).TenantPlaces()
			t.Errorf("%s: its merchants cannot be told apart: %v", name, err)
		}
	}
	t.Logf("%d providers", len(can))
}

func tenantsProve(t *testing.T, name string) {
	set, all := tenantsOf(t, name, "1001", "1002", "1003")
	r := signedFor(t, set, "1001", name)
	res := set.Verify(r, testNow)
	wantReason(t, "its own merchant", res, "")
	if res.Tenant != "1001" {
		t.Errorf("tenant %q, want 1001", res.Tenant)
	}
	// The same names, another merchant's keys: what 1002 can make that says 1001.
	swapped, err := NewTenants(get(t, name), nil, map[string]provider.Credentials{"1001": all["1002"]}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	forged := signedFor(t, swapped, "1001", name)
	known := set.Verify(forged, testNow)
	wantReason(t, "signed by another merchant", known, "*")
	if known.Tenant != "1001" {
		t.Errorf("refused for tenant %q, want the one that it names", known.Tenant)
	}
	// A merchant that we do not know, well signed by itself or by one of ours.
	for _, key := range []string{"1001", "1003"} {
		other, err := NewTenants(get(t, name), nil, map[string]provider.Credentials{"9999": all[key]}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		res := set.Verify(signedFor(t, other, "9999", name), testNow)
		wantReason(t, "unknown merchant", res, MerchantMismatch)
		if res.Shown != known.Reason {
			t.Errorf("who names an unknown merchant is told %q, a known one %q", res.Shown, known.Reason)
		}
		if fmt.Sprint(res.Reply) != fmt.Sprint(known.Reply) {
			t.Errorf("the prescribed refusals differ: %v, %v", res.Reply, known.Reply)
		}
	}
	// Without any signature both are told the same, too.
	bare, stray := deliveryOf(t, set, name), deliveryOf(t, set, name)
	if set.nameIn("1001", bare) == nil && set.nameIn("9999", stray) == nil && set.places.Credential == nil {
		a, b := set.Verify(bare, testNow), set.Verify(stray, testNow)
		if a.Verdict != Rejected || b.Verdict != Rejected || b.Shown != a.Reason || b.Reason != MerchantMismatch {
			t.Errorf("unsigned: known %s, unknown %s (shown %s)", a.Reason, b.Reason, b.Shown)
		}
	}
	if e := set.Explain(signedFor(t, swapped, "1001", name), testNow); e.Verdict != Rejected {
		t.Errorf("explained as %s", e.Verdict)
	}
}

// TestTenantsNameNobody: without a name nothing is verified, unless the source has
// credentials of its own for that.
func TestTenantsNameNobody(t *testing.T) {
	set, all := tenantsOf(t, "stripe", "acct_1")
	r := delivery("stripe")
	if err := keysOf(set, "acct_1").Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "no account", set.Verify(r, testNow), MerchantMismatch)

	own := provider.Credentials{"secrets": {"whsec_of_the_platform_itself_0001"}}
	both, err := NewTenants(get(t, "stripe"), own, all, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a tenant's key for the platform", both.Verify(r, testNow), SignatureMismatch)
	r = delivery("stripe")
	if err := mustNew(t, get(t, "stripe"), own, Options{}).Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	res := both.Verify(r, testNow)
	wantReason(t, "the platform's own", res, "")
	if res.Tenant != "" {
		t.Errorf("tenant %q", res.Tenant)
	}
	twice := delivery("stripe")
	twice.Body = []byte(`{"id":"evt_1","account":"acct_1","account":"acct_2"}`)
	if err := keysOf(set, "acct_1").Sign(twice, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "two names", both.Verify(twice, testNow), MerchantMismatch)
}

// TestTenantsBatch: one signature proves all items, so all must name one merchant.
func TestTenantsBatch(t *testing.T) {
	set, _ := tenantsOf(t, "gocardless", "OR1", "OR2")
	r := delivery("gocardless")
	for body, reason := range map[string]string{
		`{"events":[{"id":"E1","links":{"organisation":"OR1"}},{"id":"E2","links":{"organisation":"OR1"}}]}`: "",
		`{"events":[{"id":"E1","links":{"organisation":"OR1"}},{"id":"E2","links":{"organisation":"OR2"}}]}`: MerchantMismatch,
		`{"events":[{"id":"E1","links":{"organisation":"OR1"}},{"id":"E2","links":{}}]}`:                     MerchantMismatch,
		`{"events":[]}`: MerchantMismatch,
	} {
		r.Body = []byte(body)
		if err := keysOf(set, "OR1").Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		wantReason(t, body, set.Verify(r, testNow), reason)
	}
}

// TestTenantsShareNoSecret: whoever holds one key proves one merchant.
func TestTenantsShareNoSecret(t *testing.T) {
	set, all := tenantsOf(t, "stripe", "acct_1", "acct_2")
	_, err := set.With("acct_3", provider.Credentials{"secrets": {"whsec_some_other_secret_of_acct_3", all["acct_1"]["secrets"][0]}})
	if !errors.Is(err, ErrSharedSecret) {
		t.Errorf("a shared secret: %v", err)
	}
	var te *TenantError
	if !errors.As(err, &te) || te.Tenant != "acct_3" || strings.Contains(err.Error(), all["acct_1"]["secrets"][0]) {
		t.Errorf("the error names not the tenant, or the secret: %v", err)
	}
	next, err := set.With("acct_1", all["acct_1"]) // its own again is no sharing
	if err != nil {
		t.Fatal(err)
	}
	if next, err = next.Without("acct_2").With("acct_9", all["acct_2"]); err != nil {
		t.Fatal("a key that is free again:", err)
	}
	if set.Len() != 2 || next.Len() != 2 || next.Verifier("acct_2") != nil || set.Verifier("acct_9") != nil {
		t.Error("With and Without changed the set that they began with")
	}
	for _, id := range []string{"", " ", strings.Repeat("x", 201), "a\nb"} {
		if _, err := set.With(id, provider.Credentials{"secrets": {"whsec_some_other_secret_of_acct_4"}}); err == nil {
			t.Errorf("tenant %q is taken", id)
		}
	}
	lq, _ := tenantsOf(t, "liqpay", "i1")
	if _, err := lq.With("i2", provider.Credentials{"public_key": {"i3"}, "private_key": {"a private key of i2"}}); err == nil {
		t.Error("a merchant credential of another name is taken")
	}
}

// TestTenantsAck: an answer that is signed is signed with the merchant's own key.
func TestTenantsAck(t *testing.T) {
	set, _ := tenantsOf(t, "wayforpay", "shop_1", "shop_2")
	r := signedFor(t, set, "shop_2", "wayforpay")
	got, want := set.Ack(r, testNow), set.Verifier("shop_2").Ack(r, testNow)
	if string(got.Body) != string(want.Body) || len(got.Body) == 0 {
		t.Errorf("ack %s, want %s", got.Body, want.Body)
	}
}

// TestTenantsCannotSelect: a provider whose deliveries name nobody says so.
func TestTenantsCannotSelect(t *testing.T) {
	for _, name := range []string{"robokassa", "meta"} {
		_, err := NewTenants(get(t, name), nil, nil, Options{})
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Setting != "tenants" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTenantsCostOneLookup: neither allocations nor, by an order of magnitude, time grow
// with the number of merchants.
func TestTenantsCostOneLookup(t *testing.T) {
	if raceOn {
		t.Skip("the race detector allocates")
	}
	for _, name := range []string{"liqpay", "wayforpay", "stripe", "shopify"} {
		few, many := manyTenants(t, name, 1), manyTenants(t, name, 10_000)
		for _, set := range []*Tenants{few, many} {
			rs := spread(t, set, name)
			for _, r := range rs { // fill the pools
				wantReason(t, name, set.Verify(r, testNow), "")
			}
			i := 0
			if n := testing.AllocsPerRun(200, func() { set.Verify(rs[i%len(rs)], testNow); i++ }); n > 0 {
				t.Errorf("%s: %d tenants: %v allocations a delivery", name, set.Len(), n)
			}
		}
	}
}

func manyTenants(t testing.TB, name string, n int) *Tenants {
	t.Helper()
	def, all := get(t, name), map[string]provider.Credentials{}
	for i := range n {
		creds := provider.Credentials{}
		for _, c := range def.EffectiveCredentials() {
			if c.Role == "key" {
				creds[c.Name] = []string{fmt.Sprintf("a secret of merchant %06d", i)}
			}
		}
		all[fmt.Sprintf("merchant_%06d", i)] = creds
	}
	set, err := NewTenants(def, nil, all, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// spread are deliveries of merchants from all over the set.
func spread(t testing.TB, set *Tenants, name string) (out []*provider.Request) {
	for i := range min(set.Len(), 256) {
		out = append(out, signedFor(t, set, fmt.Sprintf("merchant_%06d", i*(set.Len()/min(set.Len(), 256))), name))
	}
	return out
}

// BenchmarkTenants: one merchant and ten thousand, known and unknown.
func BenchmarkTenants(b *testing.B) {
	for _, name := range []string{"liqpay", "wayforpay", "stripe", "shopify"} {
		for _, n := range []int{1, 10_000} {
			set := manyTenants(b, name, n)
			rs := spread(b, set, name)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if set.Verify(rs[i%len(rs)], testNow).Verdict != Accepted {
						b.Fatal("refused")
					}
				}
			})
		}
		set := manyTenants(b, name, 10_000)
		stray := signedFor(b, manyTenants(b, name, 1), "merchant_000000", name)
		set = set.Without("merchant_000000")
		b.Run(name+"/unknown", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if set.Verify(stray, testNow).Verdict == Accepted {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// BenchmarkNewTenants is what a reload of ten thousand merchants costs.
func BenchmarkNewTenants(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		manyTenants(b, "liqpay", 10_000)
	}
}

// TestCapture: the first handshake's secret counts, no later one replaces it.
func TestCapture(t *testing.T) {
	for name, first := range map[string]func(secret string) *provider.Request{
		"asana": func(s string) *provider.Request {
			r := delivery("asana")
			r.Header, r.Body = setHeader(r.Header, "X-Hook-Secret", s), nil
			return r
		},
		"notion": func(s string) *provider.Request {
			r := delivery("notion")
			r.Body = []byte(`{"verification_token":"` + s + `"}`)
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			const secret = "secret_of_the_first_handshake"
			empty := mustNew(t, get(t, name), nil, Options{})
			res := empty.Verify(first(secret), testNow)
			if res.Verdict != Challenge || res.Capture == nil || res.Capture.Secret != secret || res.Capture.Credential != "secrets" {
				t.Fatalf("first handshake: %+v", res)
			}
			for _, bad := range []string{"", "short", strings.Repeat("x", 600), "with blank in it", `<b>markup</b>`} {
				if res := empty.Verify(first(bad), testNow); res.Verdict == Challenge || res.Capture != nil {
					t.Errorf("a secret of %q is kept", bad)
				}
			}
			kept := mustNew(t, get(t, name), provider.Credentials{"secrets": {secret}}, Options{})
			if res := kept.Verify(first(secret), testNow); res.Verdict != Challenge || res.Capture != nil {
				t.Errorf("the provider asks again: %+v", res)
			}
			if res := kept.Verify(first("chosen-by-somebody-else"), testNow); res.Verdict != Rejected || res.Capture != nil {
				t.Errorf("another handshake: %+v", res)
			}
			r := delivery(name)
			if err := kept.Sign(r, testNow); err != nil {
				t.Fatal(err)
			}
			wantReason(t, "under the kept secret", kept.Verify(r, testNow), "")
			wantReason(t, "before the handshake", empty.Verify(r, testNow.Add(time.Second)), KeyUnavailable)
			wantReason(t, "unsigned, before the handshake", empty.Verify(delivery(name), testNow), SignatureMissing)
		})
	}
}

// FuzzTenants: whatever a body names, nothing unsigned is taken, and who is not known is
// told what who is known is told.
func FuzzTenants(f *testing.F) {
	for _, body := range []string{`{"account":"acct_1"}`, `{"account":"acct_2"}`, `{"account":null}`, `{"account":["acct_1"]}`,
		`{"account":"acct_1","account":"acct_2"}`, `{"Account":"acct_1","account":"acct_1"}`, `account=acct_1`, ``, `{`} {
		f.Add([]byte(body), "t=1780000000,v1=00")
	}
	set, _ := tenantsOf(f, "stripe", "acct_1")
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		r := delivery("stripe")
		r.Body = body
		r.Header = setHeader(r.Header, "Stripe-Signature", strings.NewReplacer("\r", "", "\n", "").Replace(signature))
		res := set.Verify(r, testNow)
		if res.Verdict != Rejected || res.Reason == Policy {
			t.Fatalf("%s %s", res.Verdict, res.Reason)
		}
		if res.Tenant == "" && (res.Reason != MerchantMismatch || res.Shown == "" || res.Shown == MerchantMismatch) {
			t.Fatalf("nobody of ours: %s, shown %s", res.Reason, res.Shown)
		}
	})
}
