package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"penstock/provider"
)

const (
	snsTopic = "arn:aws:sns:us-east-1:123456789012:orders"
	snsCert  = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-penstock.pem"
)

func privatePEM(t testing.TB, k any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// snsSource is a source of one topic, whose certificate is published on source.
func snsSource(t testing.TB, source KeySource) *Verifier {
	t.Helper()
	k, _ := testCertificate(t, "sns.amazonaws.com", testNow)
	return mustNew(t, get(t, "sns"), provider.Credentials{"topic_arns": {snsTopic}, "signing_key": {privatePEM(t, k)}}, Options{Keys: source})
}

func snsSigned(t testing.TB, body string) *provider.Request {
	t.Helper()
	r := delivery("x")
	r.Body = []byte(body)
	if err := snsSource(t, nil).Sign(r, testNow); err != nil {
		t.Fatal(err)
	}
	return r
}

func confirmation(host, token string) string {
	return "https://" + host + "/?" + url.Values{"Action": {"ConfirmSubscription"}, "TopicArn": {snsTopic}, "Token": {token}}.Encode()
}

func snsSubscribe(address string) string {
	return fmt.Sprintf(`{"Type":"SubscriptionConfirmation","Message":"m","Token":"tok","SubscribeURL":%q}`, address)
}

func published(t testing.TB, more ...string) *shelf {
	t.Helper()
	_, cert := testCertificate(t, "sns.amazonaws.com", testNow)
	s := &shelf{docs: map[string]string{snsCert: cert}}
	for _, m := range more {
		s.docs[m] = "ok"
	}
	return s
}

func TestSNS(t *testing.T) {
	good := snsSigned(t, `{"Type":"Notification","Message":"hello\nworld","MessageId":"m1"}`)
	wantReason(t, "good", snsSource(t, published(t)).Verify(good, testNow), "")
	wantReason(t, "nothing to be had", snsSource(t, &shelf{}).Verify(good, testNow), KeyUnavailable)
	wantReason(t, "an hour late", snsSource(t, published(t)).Verify(good, testNow.Add(61*time.Minute)), TimestampOutsideTolerance)
	if d := 366 * 24 * time.Hour; true {
		v := snsSource(t, published(t))
		v.tolerance = 0
		wantReason(t, "certificate out of its time", v.Verify(good, testNow.Add(d)), SignatureMismatch)
	}
	other := mustNew(t, get(t, "sns"), provider.Credentials{"topic_arns": {"arn:aws:sns:us-east-1:1:x"}}, Options{Keys: published(t)})
	wantReason(t, "another topic", other.Verify(good, testNow), MerchantMismatch)
	for _, bad := range []string{
		"https://sns.us-east-1.amazonaws.com.evil.example/x.pem", "http://sns.us-east-1.amazonaws.com/x.pem", "https://sns.s3-us-west-2.amazonaws.com/x.pem",
		"https://evil@sns.us-east-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com:8443/x.pem", "https://sns.us-east-1.amazonaws.com/x.pem?y", "https://sns.us-east-1.amazonaws.com/x.pem#y",
		"https://sns.us-east-1.amazonaws.com/x", "https://sns.us-east-1.amazonaws.com/../x.pem", "https://sns.us-east-1.amazonaws.com/%2e%2e/x.pem", "https://evil.example/x.pem",
		"https://s3.us-east-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com\\@evil.example/x.pem", "//sns.us-east-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com\n.evil/x.pem",
	} {
		source := published(t)
		source.docs[bad] = source.docs[snsCert]
		r := clone(good)
		if err := setField(r, "json", "SigningCertURL", bad); err != nil {
			t.Fatal(err)
		}
		wantReason(t, bad, snsSource(t, source).Verify(r, testNow), SignatureMismatch)
		if len(source.fetched) > 0 {
			t.Errorf("%s was fetched", bad)
		}
	}
	for _, region := range []string{"us-east-1", "ap-southeast-2", "us-gov-west-1", "eu-central-2", "cn-north-1", "me-south-1", "us-iso-east-1", "us-isob-east-1"} {
		if !snsHost.MatchString("sns." + region + ".amazonaws.com") {
			t.Errorf("region %s is not taken", region)
		}
	}
}

// A member must not end where the next begins: a message that a stranger published to the
// topic must not read as another message under the same signature.
func TestSNSMembersCannotSlide(t *testing.T) {
	good := snsSigned(t, `{"Type":"Notification","Message":"a\nMessageId\nb","MessageId":"c"}`)
	wantReason(t, "good", snsSource(t, published(t)).Verify(good, testNow), "")
	for name, value := range map[string]string{"MessageId": "b\nMessageId\nc", "Message": "a"} {
		if err := setField(good, "json", name, value); err != nil {
			t.Fatal(err)
		}
	}
	wantReason(t, "slid", snsSource(t, published(t)).Verify(good, testNow), SignatureMalformed)
}

// The call goes out only after everything held, and only to SNS, to confirm this topic.
func TestSNSConfirmation(t *testing.T) {
	address := confirmation("sns.us-east-1.amazonaws.com", "tok")
	good := snsSigned(t, snsSubscribe(address))
	source := published(t, address)
	res := snsSource(t, source).Verify(good, testNow)
	if res.Verdict != Challenge || res.Reply == nil || res.Reply.Status != 200 || len(source.visited) != 1 || source.visited[0] != address {
		t.Errorf("%+v, visited %q", res, source.visited)
	}
	wantReason(t, "SNS cannot be reached", snsSource(t, published(t)).Verify(good, testNow), KeyUnavailable)
	refused := func(what, reason string, v *Verifier, source *shelf, r *provider.Request) {
		t.Helper()
		wantReason(t, what, v.Verify(r, testNow), reason)
		if len(source.visited) > 0 {
			t.Errorf("%s: visited %q", what, source.visited)
		}
	}
	source = published(t, address)
	changed := clone(good)
	changed.Body = bytes.Replace(changed.Body, []byte(`"m"`), []byte(`"n"`), 1)
	refused("not signed", SignatureMismatch, snsSource(t, source), source, changed)
	stranger := mustNew(t, get(t, "sns"), provider.Credentials{"topic_arns": {"arn:aws:sns:us-east-1:1:x"}}, Options{Keys: source})
	refused("another topic", MerchantMismatch, stranger, source, good)
	wantReason(t, "stale", snsSource(t, source).Verify(good, testNow.Add(2*time.Hour)), TimestampOutsideTolerance)
	if len(source.visited) > 0 {
		t.Errorf("stale: visited %q", source.visited)
	}
	for _, bad := range []string{
		confirmation("evil.example", "tok"), confirmation("sns.us-east-1.amazonaws.com.evil.example", "tok"), confirmation("sns.us-east-1.amazonaws.com", "other"),
		strings.Replace(address, "https", "http", 1), strings.Replace(address, "ConfirmSubscription", "Unsubscribe", 1), strings.Replace(address, "123456789012", "999999999999", 1),
		"https://sns.us-east-1.amazonaws.com/x?" + strings.SplitN(address, "?", 2)[1],
	} {
		source := published(t, bad)
		refused(bad, Policy, snsSource(t, source), source, snsSigned(t, snsSubscribe(bad)))
	}
	source = published(t, address)
	end := snsSigned(t, strings.Replace(snsSubscribe(address), "SubscriptionConfirmation", "UnsubscribeConfirmation", 1))
	wantReason(t, "the end of a subscription is an event", snsSource(t, source).Verify(end, testNow), "")
	if len(source.visited) > 0 {
		t.Error("an unsubscription was answered by subscribing again")
	}
}

// chainFor makes a root, an intermediate and a leaf for name.
func chainFor(t *testing.T, name string) (leafKey *rsa.PrivateKey, chain string, roots *x509.CertPool) {
	t.Helper()
	leafKey, _ = testCertificate(t, name, testNow)
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(serial int64, cn string, ca bool, parent *x509.Certificate, pub any) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, NotBefore: testNow.AddDate(0, -1, 0), NotAfter: testNow.AddDate(0, 1, 0), IsCA: ca, BasicConstraintsValid: true}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, caKey)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	root := mk(1, "root", true, nil, &caKey.PublicKey)
	middle := mk(2, "middle", true, root, &caKey.PublicKey)
	leaf := mk(3, name, false, middle, &leafKey.PublicKey)
	for _, c := range []*x509.Certificate{leaf, middle} {
		chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	roots = x509.NewCertPool()
	roots.AddCert(root)
	return leafKey, chain, roots
}

func TestPayPal(t *testing.T) {
	const cert = "https://api.paypal.com/v1/notifications/certs/CERT-penstock"
	key, chain, roots := chainFor(t, payPalNames[0])
	source := func(doc string) (*Verifier, *shelf) {
		s := &shelf{docs: map[string]string{cert: doc}}
		v := mustNew(t, get(t, "paypal"), provider.Credentials{"webhook_id": {"WH-1"}, "signing_key": {privatePEM(t, key)}}, Options{Keys: s})
		v.own.(*ownPayPal).roots = roots
		return v, s
	}
	v, _ := source(chain)
	good := delivery("paypal")
	if err := v.Sign(good, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "good", v.Verify(good, testNow), "")
	wantReason(t, "chain out of its time", v.Verify(good, testNow.AddDate(0, 2, 0)), SignatureMismatch)
	_, selfSigned := testCertificate(t, payPalNames[0], testNow)
	_, _, otherRoots := chainFor(t, payPalNames[0])
	_, otherName, nameRoots := chainFor(t, "www.paypal.com.evil.example")
	for what, c := range map[string]struct {
		doc    string
		roots  *x509.CertPool
		reason string
	}{
		"self-signed under PayPal's name": {selfSigned, roots, SignatureMismatch},
		"a root that is not trusted":      {chain, otherRoots, SignatureMismatch},
		"a good chain for another name":   {otherName, nameRoots, SignatureMismatch},
		"no certificate":                  {pemOf(t, &key.PublicKey), roots, KeyUnavailable},
		"a page":                          {"<html>", roots, KeyUnavailable},
	} {
		v, _ := source(c.doc)
		v.own.(*ownPayPal).roots = c.roots
		wantReason(t, what, v.Verify(good, testNow), c.reason)
	}
	v, _ = source(chain)
	v.source = &shelf{}
	wantReason(t, "nothing to be had", v.Verify(good, testNow), KeyUnavailable)
	for _, bad := range []string{
		"https://api.paypal.com.evil.example/v1/notifications/certs/CERT-penstock", "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-penstock", "http" + cert[5:],
		cert + "?x", cert + "/../../x", "https://api.paypal.com/v1/oauth2", "https://api.paypal.com:444/v1/notifications/certs/CERT-penstock", "https://www.paypal.com/v1/notifications/certs/CERT-penstock",
	} {
		v, s := source(chain)
		s.docs[bad] = chain
		wantReason(t, bad, v.Verify(with(good, "PAYPAL-CERT-URL", bad), testNow), SignatureMismatch)
		if len(s.fetched) > 0 {
			t.Errorf("%s was fetched", bad)
		}
	}
	for _, name := range payPalHeaders {
		wantReason(t, "without "+name, v.Verify(without(good, name), testNow), "*")
		wantReason(t, name+" twice", v.Verify(added(good, name, "x"), testNow), DuplicateHeader)
	}
	if _, err := New(get(t, "paypal"), provider.Credentials{"webhook_id": {"WH-1"}}, Options{Settings: map[string]string{"allowed_cert_hosts": "evil.example"}}); err == nil {
		t.Error("any host may be allowed")
	}
	sample, err := get(t, "paypal").Sample("", provider.SampleParams{Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	events, err := get(t, "paypal").Events(sample)
	if err != nil || !events[0].NeedsFetch || len(events[0].UnverifiedFields) == 0 {
		t.Errorf("an event that a checksum proves is to be booked unasked: %+v, %v", events, err)
	}
}

func TestTrueLayer(t *testing.T) {
	def := get(t, "truelayer")
	v, creds := devVerifier(t, def)
	good := delivery("truelayer")
	good.Body = []byte(`{"event_id":"1","type":"payment_executed"}`)
	if err := v.Sign(good, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "good", v.Verify(good, testNow), "")
	slash := clone(good)
	slash.Target, slash.PublicURL = []byte("/in/truelayer/"), "https://hooks.example.com/in/truelayer/"
	wantReason(t, "one slash more", v.Verify(slash, testNow), "")
	behind := clone(good)
	behind.Target = []byte("/truelayer")
	wantReason(t, "behind a proxy that strips a prefix", v.Verify(behind, testNow), "")
	slash.PublicURL += "/"
	wantReason(t, "two slashes more", v.Verify(slash, testNow), SignatureMismatch)
	put := clone(good)
	put.Method = "PUT"
	wantReason(t, "another method", v.Verify(put, testNow), SignatureMismatch)
	wantReason(t, "header changed", v.Verify(with(good, trueLayerTimestamp, testNow.UTC().Add(time.Second).Format(time.RFC3339)), testNow), SignatureMismatch)
	wantReason(t, "header gone", v.Verify(without(good, trueLayerTimestamp), testNow), SignatureMismatch)
	wantReason(t, "header twice", v.Verify(added(good, trueLayerTimestamp, "x"), testNow), DuplicateHeader)
	wantReason(t, "stale", v.Verify(good, testNow.Add(301*time.Second)), TimestampOutsideTolerance)

	// The same keys, published: of the sandbox only where the source says so.
	production, sandbox := trueLayerSets[0], trueLayerSets[1]
	signingOnly := provider.Credentials{"signing_key": creds["signing_key"]}
	open := func(settings map[string]string, s *shelf) *Verifier {
		return mustNew(t, def, signingOnly, Options{Settings: settings, Keys: s})
	}
	s := &shelf{docs: map[string]string{production: creds["jwks"][0], sandbox: creds["jwks"][0]}}
	wantReason(t, "published", open(nil, s).Verify(good, testNow), "")
	inSandbox := map[string]string{"allowed_jku": sandbox}
	sand := clone(good)
	if err := open(inSandbox, s).Sign(sand, testNow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "the sandbox's", open(inSandbox, s).Verify(sand, testNow), "")
	s.fetched = nil
	wantReason(t, "the sandbox's key at a live source", open(nil, s).Verify(sand, testNow), SignatureMismatch)
	if len(s.fetched) > 0 {
		t.Errorf("fetched %q", s.fetched)
	}
	wantReason(t, "nothing to be had", open(nil, &shelf{}).Verify(good, testNow), KeyUnavailable)
	if _, err := New(def, nil, Options{Settings: map[string]string{"allowed_jku": "https://evil.example/jwks"}}); err == nil {
		t.Error("any key set may be allowed")
	}
}

// A coordinate with its leading zeros left out is the same key.
func TestShortCoordinates(t *testing.T) {
	for range 2000 {
		v, creds := devVerifier(t, get(t, "plaid"))
		k := v.signing.signer.(*ecdsa.PrivateKey)
		raw, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if raw[1] != 0 {
			continue
		}
		var set map[string][]jwk
		unmarshal(t, creds["jwks"][0], &set)
		j := set["keys"][0]
		j.X = enc64(j.bytes(j.X)[1:])
		got, ok, err := j.key(primOwn)
		if err != nil || !ok || !got.ec.Equal(&k.PublicKey) {
			t.Errorf("%v, %v", ok, err)
		}
		return
	}
	t.Fatal("no key of 2000 has a short coordinate, and every second one should")
}
