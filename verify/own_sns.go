package verify

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"time"

	"penstock/provider"
)

// ownSNS is AWS SNS: RSA over "Key\nValue\n" of fixed members of the body, by a certificate
// that the body names; only SNS's own hosts may be named. A subscription is confirmed by
// calling SubscribeURL once the message that carries it was verified.
type ownSNS struct {
	v     *Verifier
	certs *certificates
}

func newSNS(v *Verifier) (ownScheme, error) { return &ownSNS{v: v, certs: &certificates{v: v}}, nil }

// snsHost is SNS in a region. A region's name begins with two letters and a dash, which
// the host of a bucket called sns (sns.s3-us-west-2.amazonaws.com) does not.
var snsHost = regexp.MustCompile(`^sns\.[a-z]{2}(-gov|-iso[a-z]?)?-(central|north|south|east|west|northeast|northwest|southeast|southwest)-[0-9]\.amazonaws\.com(\.cn)?$`)

var snsCertPath = regexp.MustCompile(`^/[A-Za-z0-9_-]{1,128}\.pem$`)

var (
	snsNotification = []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	snsConfirmation = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
)

func (o *ownSNS) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	if !o.v.load(r, sc) || sc.source != sourceJSON {
		return "", SignatureMissing
	}
	sigText, reason := o.member(sc, "Signature")
	if reason != "" {
		return "", reason
	}
	at := len(sc.arena)
	var ok bool
	if sc.arena, ok = o.v.appendDecoded(sc.arena, sigText, "base64"); !ok {
		return "", SignatureMalformed
	}
	sig := sc.arena[at:]
	version, reason := o.member(sc, "SignatureVersion")
	if reason != "" {
		return "", reason
	}
	alg, ok := map[string]algorithm{"1": algSHA1, "2": algSHA256}[string(version)]
	if !ok {
		return "", SignatureMalformed
	}
	text, reason := o.text(sc)
	if reason != "" {
		return "", reason
	}
	if by, reason = o.prove(now, alg, text, sig, sc); reason != "" {
		return "", reason
	}
	stamp, _ := o.member(sc, "Timestamp")
	sent, ok := parseTime(stamp, "rfc3339")
	if !ok {
		return "", SignatureMalformed
	}
	if o.v.tolerance > 0 {
		return by, within(sent, now, o.v.tolerance)
	}
	return by, ""
}

// prove checks the signature by the certificate that the message names, or by those of the
// credentials; the address must be SNS's own either way.
func (o *ownSNS) prove(now time.Time, alg algorithm, text, sig []byte, sc *scratch) (by, reason string) {
	named, reason := o.member(sc, "SigningCertURL")
	if reason != "" {
		return "", reason
	}
	u := plainURL(named)
	if u == nil || !snsHost.MatchString(u.Hostname()) || !snsCertPath.MatchString(u.EscapedPath()) || u.RawQuery != "" || u.ForceQuery {
		return "", SignatureMismatch
	}
	if len(o.v.keys) > 0 {
		if k := ownRSA(o.v.keys, alg, text, sig); k != nil {
			return k.by, ""
		}
		return "", SignatureMismatch
	}
	cert, reason := o.certs.at(u.String())
	if reason != "" {
		return "", reason
	}
	if !cert.valid(now) || ownRSA([]key{cert.key}, alg, text, sig) == nil {
		return "", SignatureMismatch
	}
	return cert.key.by, ""
}

// text is what is signed. Only Message may hold a line break: elsewhere one would let a
// member end where the next begins.
func (o *ownSNS) text(sc *scratch) ([]byte, string) {
	kind, reason := o.member(sc, "Type")
	if reason != "" {
		return nil, reason
	}
	names := snsNotification
	switch string(kind) {
	case "Notification":
	case "SubscriptionConfirmation", "UnsubscribeConfirmation":
		names = snsConfirmation
	default:
		return nil, SignatureMalformed
	}
	var b []byte
	for _, name := range names {
		value, f := sc.lookup(name)
		switch {
		case name == "Subject" && (f == foundAbsent || f == foundNull):
			continue
		case f != foundText, name != "Message" && bytes.IndexByte(value, '\n') >= 0:
			return nil, SignatureMalformed
		}
		b = append(append(append(append(b, name...), '\n'), value...), '\n')
	}
	return b, ""
}

func (o *ownSNS) member(sc *scratch, name string) ([]byte, string) {
	value, f := sc.lookup(name)
	switch {
	case f == foundAbsent, f == foundNull, f == foundText && len(value) == 0:
		return nil, SignatureMissing
	case f != foundText:
		return nil, SignatureMalformed
	}
	return value, ""
}

// handshake confirms a subscription to a topic of ours: the call goes out when everything
// held, and what cannot be confirmed now is asked of SNS again. An UnsubscribeConfirmation
// is no handshake: calling its URL would subscribe again, so it goes on as an event.
func (o *ownSNS) handshake(r *provider.Request, now time.Time, sc *scratch) (Result, bool) {
	if len(r.Body) > maxChallengeBody || !bytes.Contains(r.Body, []byte("SubscriptionConfirmation")) || !o.v.load(r, sc) || sc.source != sourceJSON {
		return Result{}, false
	}
	if kind, _ := o.member(sc, "Type"); string(kind) != "SubscriptionConfirmation" {
		return Result{}, false
	}
	by, reason := o.authenticate(r, now, sc)
	if reason == "" {
		reason = o.v.checkMerchants(r, sc)
	}
	if reason != "" {
		return o.v.reject(reason), true
	}
	address := o.confirmation(sc)
	if address == "" {
		return o.v.reject(Policy), true
	}
	visitor, ok := o.v.source.(keyVisitor)
	if !ok || visitor.Visit(address) != nil {
		return o.v.reject(KeyUnavailable), true
	}
	return Result{Verdict: Challenge, Tenant: sc.tenant, VerifiedBy: by, Reply: &Reply{Status: 200}}, true
}

// confirmation is the address to call: SNS itself, asked to confirm this token of this
// topic and nothing else. It is written anew from its parts.
func (o *ownSNS) confirmation(sc *scratch) string {
	text, _ := o.member(sc, "SubscribeURL")
	topic, _ := o.member(sc, "TopicArn")
	token, _ := o.member(sc, "Token")
	u := plainURL(text)
	if u == nil || !snsHost.MatchString(u.Hostname()) || u.Path != "/" {
		return ""
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil || q.Get("Action") != "ConfirmSubscription" || q.Get("TopicArn") != string(topic) || q.Get("Token") != string(token) {
		return ""
	}
	ask := url.Values{"Action": {"ConfirmSubscription"}, "TopicArn": {string(topic)}, "Token": {string(token)}}
	return "https://" + strings.ToLower(u.Hostname()) + "/?" + ask.Encode()
}

// sign fills in what SNS would, with signature version 2.
func (o *ownSNS) sign(r *provider.Request, now time.Time, sc *scratch) error {
	members := [][2]string{{"SignatureVersion", "2"}, {"Timestamp", now.UTC().Format("2006-01-02T15:04:05.000Z")}}
	for i := range o.v.merchants {
		if m := &o.v.merchants[i]; m.c.Field == "TopicArn" {
			members = append(members, [2]string{"TopicArn", m.values[0]})
		}
	}
	if !o.v.load(r, sc) || sc.source != sourceJSON {
		return errNotJSON(o.v.name)
	}
	for name, value := range map[string]string{
		"Type": "Notification", "MessageId": strings.TrimPrefix(string(madeUpID()), "msg_"), "Message": "{}",
		"SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-penstock.pem",
	} {
		if _, f := sc.lookup(name); f != foundText {
			members = append(members, [2]string{name, value})
		}
	}
	for _, m := range members {
		if err := setField(r, "json", m[0], m[1]); err != nil {
			return err
		}
	}
	*sc = scratch{}
	o.v.load(r, sc)
	text, reason := o.text(sc)
	if reason != "" {
		return errSign(o.v.name, reason)
	}
	sig, err := o.v.signRSA(text)
	if err != nil {
		return err
	}
	return setField(r, "json", "Signature", base64.StdEncoding.EncodeToString(sig))
}

// signRSA signs with SHA-256, for `penstock send` and tests.
func (v *Verifier) signRSA(text []byte) ([]byte, error) {
	if v.signing == nil {
		return nil, errNoSigningKey(v.name)
	}
	return v.signing.signer.Sign(rand.Reader, digestOf(cryptoHash(algSHA256), text), cryptoHash(algSHA256))
}
