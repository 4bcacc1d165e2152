package verify

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

const testSecret = "whsec_0123456789abcdef0123456789abcdef"

func hexMAC(secret, text string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

func stripe(t testing.TB) (*Verifier, *provider.Request) {
	v := mustNew(t, get(t, "stripe"), provider.Credentials{"secrets": {testSecret}}, Options{})
	return v, signed(t, v, "stripe")
}

// TestRefusalReasons: every way a header can be wrong has its own reason, and none passes.
// (reliability.md 2.1: classes 1, 6, 11, 13, 15)
func TestRefusalReasons(t *testing.T) {
	v, good := stripe(t)
	sig, _ := good.Header.Get("Stripe-Signature")
	body := string(good.Body)
	mac := func(ts string) string { return hexMAC(testSecret, ts+"."+body) }
	ok := mac("1780000000")
	for _, c := range []struct{ name, header, reason string }{
		{"as sent", string(sig), ""},
		{"empty", "", SignatureMissing},
		{"blank", "   ", SignatureMissing},
		{"pair without =", "v1,t=1", SignatureMalformed},
		{"only v0", "t=1780000000,v0=" + ok, SignatureMissing},
		{"unknown label", "t=1780000000,v2=" + ok, SignatureMissing},
		{"v1 in upper-case label", "t=1780000000,V1=" + ok, SignatureMissing},
		{"not hex", "t=1780000000,v1=zz" + ok[2:], SignatureMalformed},
		{"odd hex", "t=1780000000,v1=" + ok[1:], SignatureMalformed},
		{"truncated", "t=1780000000,v1=" + ok[:62], SignatureMismatch},
		{"prefix of it twice as long", "t=1780000000,v1=" + ok + ok, SignatureMismatch},
		{"no t", "v1=" + ok, TimestampMissing},
		{"empty t", "t=,v1=" + ok, TimestampMissing},
		{"two t", "t=1780000000,t=1780000000,v1=" + ok, SignatureMalformed},
		{"empty item", "t=1780000000,,v1=" + ok, SignatureMalformed},
		{"trailing comma", "t=1780000000,v1=" + ok + ",", ""},
		{"bad v1 beside a good one", "t=1780000000,v1=nonsense,v1=" + ok, ""},
		{"8 signatures, the last right", "t=1780000000," + strings.Repeat("v1="+strings.Repeat("00", 32)+",", 7) + "v1=" + ok, ""},
		{"9 signatures", "t=1780000000," + strings.Repeat("v1="+strings.Repeat("00", 32)+",", 8) + "v1=" + ok, SignatureMalformed},
		{"10,000 signatures", "t=1780000000," + strings.Repeat("v1="+strings.Repeat("00", 32)+",", 10000) + "v1=" + ok, SignatureMalformed},
		{"t with +", "t=+1780000000,v1=" + mac("+1780000000"), SignatureMalformed},
		{"t with a blank", "t= 1780000000,v1=" + mac(" 1780000000"), SignatureMalformed},
		{"negative t", "t=-1780000000,v1=" + mac("-1780000000"), SignatureMalformed},
		{"t as a float", "t=1780000000.0,v1=" + mac("1780000000.0"), SignatureMalformed},
		{"t with an exponent", "t=178e7,v1=" + mac("178e7"), SignatureMalformed},
		{"t in hex", "t=0x6a18a100,v1=" + mac("0x6a18a100"), SignatureMalformed},
		{"t in Arabic digits", "t=١٧٨٠٠٠٠٠٠٠,v1=" + mac("١٧٨٠٠٠٠٠٠٠"), SignatureMalformed},
		{"t 2^63", "t=9223372036854775808,v1=" + mac("9223372036854775808"), SignatureMalformed},
		{"t 15 nines", "t=999999999999999,v1=" + mac("999999999999999"), TimestampOutsideTolerance},
		{"t in ms", "t=1780000000000,v1=" + mac("1780000000000"), TimestampOutsideTolerance},
		{"t zero", "t=0,v1=" + mac("0"), TimestampOutsideTolerance},
		{"-300 s", "t=1779999700,v1=" + mac("1779999700"), ""},
		{"-301 s", "t=1779999699,v1=" + mac("1779999699"), TimestampOutsideTolerance},
		{"+300 s", "t=1780000300,v1=" + mac("1780000300"), ""},
		{"+301 s", "t=1780000301,v1=" + mac("1780000301"), TimestampOutsideTolerance},
		{"t not the signed one", "t=1780000001,v1=" + ok, SignatureMismatch},
	} {
		wantReason(t, c.name, v.Verify(with(good, "Stripe-Signature", c.header), testNow), c.reason)
	}
	wantReason(t, "no header", v.Verify(without(good, "Stripe-Signature"), testNow), SignatureMissing)
	wantReason(t, "header twice, equal", v.Verify(added(good, "stripe-signature", string(sig)), testNow), DuplicateHeader)
	wantReason(t, "header twice, first empty", v.Verify(added(with(good, "Stripe-Signature", ""), "Stripe-Signature", string(sig)), testNow), DuplicateHeader)
}

// TestBodyAsReceived: the bytes on the wire and nothing else. (classes 8 and 9)
func TestBodyAsReceived(t *testing.T) {
	v, _ := stripe(t)
	for _, body := range []string{
		"{\"a\":1.0,\"a\":1}\n", "\xef\xbb\xbf{}", "{\"x\":\"\\u00e9\\/\"}", "\x1f\x8b\x08\x00gzip", "\r\n", "", "\x00\xff", strings.Repeat("x", 1<<20),
	} {
		r := delivery("stripe")
		r.Body = []byte(body)
		r.Header = setHeader(r.Header, "Content-Encoding", "gzip")
		r.Header = setHeader(r.Header, "Content-Type", "application/x-www-form-urlencoded")
		if err := v.Sign(r, testNow); err != nil {
			t.Fatal(err)
		}
		wantReason(t, "as signed", v.Verify(r, testNow), "")
		for _, other := range []string{body + "\n", " " + body, strings.ReplaceAll(body, "1.0", "1"), strings.TrimSuffix(body, "\n")} {
			if other != body {
				c := clone(r)
				c.Body = []byte(other)
				wantReason(t, fmt.Sprintf("%.20q for %.20q", other, body), v.Verify(c, testNow), SignatureMismatch)
			}
		}
	}
}

// TestEmptySecretNeverVerifies: HMAC("", body) is computable by anyone. (classes 2 and 4)
func TestEmptySecretNeverVerifies(t *testing.T) {
	for _, name := range builtin(t).Names() {
		def := get(t, name)
		good, err := DevCredentials(def, strings.NewReader(strings.Repeat("seed of some length and more", 20)))
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range def.CredentialSpecs() {
			if _, given := good[spec.Name]; !given || spec.Role == "info" {
				continue
			}
			for _, empty := range []string{"", " ", "\t\n"} {
				creds := provider.Credentials{}
				for k, vs := range good {
					creds[k] = vs
				}
				creds[spec.Name] = []string{good[spec.Name][0], empty}
				_, err := New(def, creds, Options{})
				var ce *ConfigError
				if !errors.As(err, &ce) || ce.Credential != spec.Name {
					t.Errorf("%s: credential %s = %q: error %v", name, spec.Name, empty, err)
				}
				if err != nil && strings.Contains(err.Error(), good[spec.Name][0]) {
					t.Errorf("%s: the error shows the secret", name)
				}
			}
			creds := provider.Credentials{}
			for k, vs := range good {
				if k != spec.Name {
					creds[k] = vs
				}
			}
			if _, err := New(def, creds, Options{}); err == nil && (spec.Required || spec.AnyOf != "") {
				t.Errorf("%s: loads without its credential %s", name, spec.Name)
			}
		}
		if _, err := New(def, provider.Credentials{"nonsense": {"x"}}, Options{}); err == nil {
			t.Errorf("%s: an unknown credential is taken", name)
		}
	}
	v := mustNew(t, get(t, "github"), provider.Credentials{"secrets": {"some-secret-or-other"}}, Options{})
	r := with(delivery("github"), "X-Hub-Signature-256", "sha256="+hexMAC("", string(delivery("github").Body)))
	wantReason(t, "signed with the empty key", v.Verify(r, testNow), SignatureMismatch)
}

// TestRotation: old and new are both good in the overlap; each alone refuses the other's;
// VerifiedBy tells them apart. (class 16)
func TestRotation(t *testing.T) {
	for _, name := range []string{"stripe", "github", "liqpay", "wayforpay", "payu_eu", "generic_hash_concat", "shopify", "slack", "standard_webhooks", "paddle_classic"} {
		def := get(t, name)
		a, credsA := devVerifier(t, def)
		_, credsB := devVerifier(t, def)
		both := provider.Credentials{}
		for k := range credsA {
			both[k] = append(append([]string{}, credsA[k]...), credsB[k]...)
		}
		for k := range both {
			if k == "signing_key" {
				both[k] = both[k][:1]
			}
		}
		v := mustNew(t, def, both, Options{})
		b := mustNew(t, def, credsB, Options{})
		ra, rb := signed(t, a, name), signed(t, b, name)
		wantReason(t, name+": A under both", v.Verify(ra, testNow), "")
		wantReason(t, name+": B under both", v.Verify(rb, testNow), "")
		wantReason(t, name+": A under B", b.Verify(ra, testNow), "*")
		wantReason(t, name+": B under A", a.Verify(rb, testNow), "*")
		if x, y := v.Verify(ra, testNow).VerifiedBy, v.Verify(rb, testNow).VerifiedBy; x == y || x == "" {
			t.Errorf("%s: fingerprints %q and %q", name, x, y)
		}
	}
}

// TestNoDowngrade: no weaker or older sibling of the scheme is ever enough. (class 6)
func TestNoDowngrade(t *testing.T) {
	creds := provider.Credentials{"secrets": {"a-secret-of-some-length"}}
	strict := mustNew(t, get(t, "github"), creds, Options{})
	lax := mustNew(t, get(t, "github"), creds, Options{Settings: map[string]string{"legacy_sha1": "true"}})
	r := delivery("github")
	if err := lax.legacy.Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "sha1 alone", strict.Verify(r, testNow), SignatureMissing)
	wantReason(t, "sha1 alone, allowed", lax.Verify(r, testNow), "")
	wantReason(t, "sha1 right, sha256 wrong", lax.Verify(with(r, "X-Hub-Signature-256", "sha256="+strings.Repeat("00", 32)), testNow), SignatureMismatch)
	wantReason(t, "sha1 right, sha256 empty", lax.Verify(with(r, "X-Hub-Signature-256", ""), testNow), SignatureMissing)
	wantReason(t, "sha1 right, sha256 unreadable", lax.Verify(with(r, "X-Hub-Signature-256", "sha256=x"), testNow), SignatureMalformed)
	wantReason(t, "sha1 wrong", lax.Verify(with(r, "X-Hub-Signature", "sha1="+strings.Repeat("00", 20)), testNow), SignatureMismatch)

	payu := provider.Credentials{"second_key": {"13a980d4f851f3d9a1cfc792fb1f5e50"}}
	v := mustNew(t, get(t, "payu_eu"), payu, Options{Settings: map[string]string{"min_algorithm": "sha256"}})
	sum := func(alg string) *provider.Request {
		d := delivery("payu_eu")
		h := md5.Sum([]byte(string(d.Body) + payu["second_key"][0]))
		s := sha256.Sum256([]byte(string(d.Body) + payu["second_key"][0]))
		text := hex.EncodeToString(h[:])
		if alg != "MD5" {
			text = hex.EncodeToString(s[:])
		}
		return with(d, "OpenPayu-Signature", "signature="+text+";algorithm="+alg)
	}
	wantReason(t, "md5 below the minimum", v.Verify(sum("MD5"), testNow), Policy)
	wantReason(t, "sha-256", v.Verify(sum("SHA-256"), testNow), "")
	wantReason(t, "unknown algorithm", v.Verify(sum("CRC32"), testNow), SignatureMalformed)
	wantReason(t, "both headers, unequal", v.Verify(with(sum("SHA-256"), "X-OpenPayU-Signature", "signature=00;algorithm=MD5"), testNow), DuplicateHeader)

	if _, err := New(get(t, "standard_webhooks"), provider.Credentials{"secrets": {"whpk_rnQClszmRO3wNvdcDde3dQZUe83IltMzdcguomL1UxU="}}, Options{}); err == nil {
		t.Error("a public key is taken for a shared secret")
	}
}

// TestStandardWebhooks: id and timestamp must not hold the separator. (class 12)
func TestStandardWebhooks(t *testing.T) {
	raw := []byte("0123456789abcdef0123456789abcdef")
	v := mustNew(t, get(t, "standard_webhooks"), provider.Credentials{"secrets": {"whsec_" + base64.StdEncoding.EncodeToString(raw)}}, Options{})
	build := func(prefix, id, ts, tag string) *provider.Request {
		r := delivery("standard_webhooks")
		m := hmac.New(sha256.New, raw)
		m.Write([]byte(id + "." + ts + "." + string(r.Body)))
		for k, val := range map[string]string{"-id": id, "-timestamp": ts, "-signature": tag + base64.StdEncoding.EncodeToString(m.Sum(nil))} {
			r = with(r, prefix+k, val)
		}
		return r
	}
	good := build("webhook", "msg_1", "1780000000", "v1,")
	wantReason(t, "good", v.Verify(good, testNow), "")
	wantReason(t, "svix headers", v.Verify(build("svix", "msg_1", "1780000000", "v1,"), testNow), "")
	wantReason(t, "dot in the id", v.Verify(build("webhook", "msg.1", "1780000000", "v1,"), testNow), SignatureMalformed)
	wantReason(t, "dot in the time", v.Verify(build("webhook", "msg_1", "1780000000.5", "v1,"), testNow), SignatureMalformed)
	wantReason(t, "a MAC labelled v1a", v.Verify(build("webhook", "msg_1", "1780000000", "v1a,"), testNow), SignatureMismatch)
	wantReason(t, "no label", v.Verify(build("webhook", "msg_1", "1780000000", ""), testNow), SignatureMalformed)
	wantReason(t, "v2 only", v.Verify(build("webhook", "msg_1", "1780000000", "v2,"), testNow), SignatureMalformed)
	wantReason(t, "no id", v.Verify(without(good, "webhook-id"), testNow), SignatureMissing)
	wantReason(t, "no time", v.Verify(without(good, "webhook-timestamp"), testNow), TimestampMissing)
	wantReason(t, "two ids", v.Verify(added(good, "Webhook-Id", "msg_1"), testNow), DuplicateHeader)
	wantReason(t, "two times", v.Verify(added(good, "Webhook-Timestamp", "1780000000"), testNow), DuplicateHeader)
	wantReason(t, "both trios", v.Verify(added(good, "svix-signature", "v1,AAAA"), testNow), DuplicateHeader)
	sig, _ := good.Header.Get("webhook-signature")
	wantReason(t, "9 entries", v.Verify(with(good, "webhook-signature", strings.Repeat("v1,AAAA ", 8)+string(sig)), testNow), SignatureMalformed)
	wantReason(t, "8 entries", v.Verify(with(good, "webhook-signature", strings.Repeat("v1,AAAA ", 7)+string(sig)), testNow), "")
	wantReason(t, "other id", v.Verify(with(good, "webhook-id", "msg_2"), testNow), SignatureMismatch)
	loose := []byte(strings.TrimSuffix(string(sig), "="))
	loose[len(loose)-1]++ // the same bytes but for bits that a lax decoder ignores
	wantReason(t, "loose base64", v.Verify(with(good, "webhook-signature", string(loose)+"="), testNow), "*")
}

// TestToleranceIsAnOption: a source may widen it, or switch the clock off on purpose.
func TestToleranceIsAnOption(t *testing.T) {
	_, good := stripe(t)
	for _, c := range []struct {
		tolerance, age time.Duration
		reason         string
	}{
		{time.Second, time.Second, ""}, {time.Second, 2 * time.Second, TimestampOutsideTolerance},
		{time.Hour, -time.Hour, ""}, {time.Hour, -2 * time.Hour, TimestampOutsideTolerance}, {0, 1000 * time.Hour, ""},
	} {
		v := mustNew(t, get(t, "stripe"), provider.Credentials{"secrets": {testSecret}}, Options{Tolerance: &c.tolerance})
		wantReason(t, fmt.Sprintf("%s at %s", c.tolerance, c.age), v.Verify(good, testNow.Add(c.age)), c.reason)
	}
}
