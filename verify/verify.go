// Package verify proves who sent a delivery: it compiles the scheme of a provider
// definition with a source's credentials, and answers handshakes and acks.
package verify

import (
	"encoding/base64"
	"slices"
	"sync"
	"time"

	"penstock/provider"
)

// Verdict is what verification says of a delivery; the numbers are archive.Verdict's.
type Verdict uint8

// The verdicts.
const (
	Accepted  Verdict = 1
	Challenge Verdict = 2
	Rejected  Verdict = 3
)

// String is the verdict's word in rows and metrics.
func (v Verdict) String() string {
	switch v {
	case Accepted:
		return "accepted"
	case Challenge:
		return "challenge"
	case Rejected:
		return "rejected"
	}
	return "unknown"
}

// The reasons of a refusal, as CONTRACT.md lists them.
const (
	SignatureMissing          = "signature_missing"
	SignatureMalformed        = "signature_malformed"
	SignatureMismatch         = "signature_mismatch"
	TimestampMissing          = "timestamp_missing"
	TimestampOutsideTolerance = "timestamp_outside_tolerance"
	DuplicateHeader           = "duplicate_header"
	IPNotAllowed              = "ip_not_allowed"
	MerchantMismatch          = "merchant_mismatch"
	KeyUnavailable            = "key_unavailable"
	Policy                    = "policy"
)

// Result is the outcome of one verification.
type Result struct {
	Verdict    Verdict
	Reason     string // set when rejected
	Tenant     string // the merchant of ours that the delivery names; proved where it is accepted
	VerifiedBy string // scheme and fingerprint of the credential: "hmac:1f2e3d4c"
	Reply      *Reply // of a challenge, or the refusal that the provider prescribes

	// Shown is the reason that the sender is told where it is not Reason: who names a
	// merchant that we do not know must not learn that from the answer.
	Shown string
	// Capture is what a handshake delivers for keeping. Nothing may be answered before it
	// is on stable storage, and nothing may replace what is kept already.
	Capture *Capture

	handshake bool // the refusal is of a challenge, which no merchant's key has a part in
}

// Capture is a credential that a provider delivers in a handshake.
type Capture struct {
	Credential string // its name in the source's credentials
	Secret     string
}

// Reply is an answer as it goes out.
type Reply struct {
	Status      int
	ContentType string // "" = none prescribed
	Header      [][2]string
	Body        []byte
}

// Options are what a source may say beside its credentials.
type Options struct {
	Tolerance *time.Duration    // nil = the scheme's own; 0 = no clock check
	Settings  map[string]string // of the definition's settings, e.g. algorithm: sha3-256
	Keys      KeySource         // nil = published keys are never fetched, those of the credentials count
}

// Verifier verifies deliveries of one source. It is immutable and safe for concurrent use.
type Verifier struct {
	name   string
	s      *provider.Scheme
	kind   primitive
	alg    algorithm
	minAlg algorithm
	words  []algorithmWord // that a request may choose by

	keys      []key
	usernames []key
	passwords []key
	merchants []merchant
	tokens    []key // verify tokens of challenges
	signing   *signingKey
	named     map[string][]byte // credentials that are parts of the signed bytes
	url       string            // what is signed in the place of {url}, where the source says
	keyInside bool              // the secret stands within the signed bytes

	pieces    []piece
	fields    []field
	variants  int
	separator []byte

	sig       sigReader
	ts        *tsReader
	tolerance time.Duration
	require   []requirement
	bodyRule  func(body []byte) bool // what a signed body must be; nil = anything
	trios     []trio
	token     *tokenReader

	sealed     *provider.Decrypt // what of a delivery is sealed (Sign)
	readingKey string
	answer     *signingKey // signs answers

	plainField bool // a form's field holds the document as it is, not in base64 (Sign)

	challenges []challenge
	asks       []string // methods that handshakes come with, and no delivery
	ack        Reply
	ackBuilder func(v *Verifier, r *provider.Request, now time.Time, sc *scratch) Reply
	ackFields  []provider.TemplatePiece
	refusal    *Reply
	legacy     *Verifier
	older      []*Verifier

	own          ownScheme
	ownHandshake ownHandshake
	ownAck       ownAck
	source       KeySource
	published    *keySet // of a scheme without own code; nil = the source's keys count
	settings     map[string]string

	naming   func(r *provider.Request) error // names the merchant of test deliveries
	nobody   bool                            // its keys stand for merchants that we do not know
	captures string                          // the credential that a handshake delivers, "" = none

	b64, b64url *base64.Encoding
	pools       *pools
}

// pools is working memory that verifiers of one definition share.
type pools struct {
	scratch sync.Pool
	hashers [numAlgorithms]sync.Pool
}

// Verify says whether r is what its sender claims. It reads r and nothing else, allocates
// nothing for schemes with a MAC in a header, and never panics: a fault of ours is a
// refusal with the reason policy.
func (v *Verifier) Verify(r *provider.Request, now time.Time) (res Result) {
	defer func() {
		if recover() != nil {
			res = v.reject(Policy)
		}
	}()
	sc := v.get()
	res = v.verify(r, now, sc)
	v.put(sc)
	return res
}

func (v *Verifier) verify(r *provider.Request, now time.Time, sc *scratch) Result {
	if v.ownHandshake != nil {
		if res, handled := v.ownHandshake.handshake(r, now, sc); handled {
			return res
		}
	}
	ch := v.matchChallenge(r, sc)
	if ch != nil && ch.c.Builder != "" {
		if res, handled := challengeBuilders[ch.c.Builder](v, r, sc); handled {
			return res
		}
		ch = nil
	}
	if ch != nil && !ch.c.Signed {
		return v.answerChallenge(ch, r, "", sc)
	}
	by, reason := v.authenticate(r, now, sc)
	if reason != "" {
		return v.reject(reason)
	}
	if ch == nil && slices.Contains(v.asks, r.Method) {
		return v.reject(Policy) // what comes this way is a handshake or nothing
	}
	if ch != nil {
		res := v.answerChallenge(ch, r, by, sc)
		res.VerifiedBy = by
		return res
	}
	return Result{Verdict: Accepted, Tenant: sc.tenant, VerifiedBy: by}
}

func (v *Verifier) reject(reason string) Result {
	return Result{Verdict: Rejected, Reason: reason, Reply: v.refusal}
}

// authenticate returns the credential that proved r, or the reason why none did.
func (v *Verifier) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	for i := range v.require {
		if reason := v.require[i].check(r); reason != "" {
			return "", reason
		}
	}
	switch v.kind {
	case primNone:
		return "none", v.checkMerchants(r, sc)
	case primToken:
		by, reason = v.checkToken(r, sc)
	case primBasic:
		by, reason = v.checkBasic(r, sc)
	case primStandard:
		return v.checkStandard(r, now, sc)
	case primOwn:
		by, reason = v.own.authenticate(r, now, sc)
	default:
		if v.s.Each != "" {
			return v.checkItems(r, now, sc)
		}
		return v.checkSigned(r, now, sc)
	}
	if reason != "" {
		return "", reason
	}
	return by, v.checkMerchants(r, sc)
}

// checkSigned is every scheme that signs bytes: read the signature, rebuild the bytes,
// compare, and only then look at clock, syntax and merchant, so that each reason is true.
func (v *Verifier) checkSigned(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	if reason := v.readSignature(r, sc); reason != "" {
		if v.legacy != nil && reason == SignatureMissing {
			return v.legacy.checkLegacy(r, now, sc, v.sig.headers)
		}
		if reason == SignatureMissing && len(v.older) > 0 {
			return v.checkOlder(r, now, sc)
		}
		return "", reason
	}
	if reason := v.readTimestamp(r, sc); reason != "" {
		return "", reason
	}
	k, reason := v.match(r, sc)
	if reason != "" {
		return "", reason
	}
	if v.ts != nil && v.tolerance > 0 {
		if reason := v.ts.check(sc.ts, now, v.tolerance); reason != "" {
			return "", reason
		}
	}
	if reason := v.checkSyntax(sc); reason != "" {
		return "", reason
	}
	if v.bodyRule != nil && !v.bodyRule(r.Body) {
		return "", Policy
	}
	if reason := v.checkMerchants(r, sc); reason != "" {
		return "", reason
	}
	return k.by, ""
}

// match finds the key that signed r.
func (v *Verifier) match(r *provider.Request, sc *scratch) (*key, string) {
	if len(v.keys) == 0 {
		switch {
		case v.captures != "":
			return nil, KeyUnavailable // the handshake that brings it has not been yet
		case v.published != nil:
			return v.published.match(v, r, sc)
		}
	}
	return v.matchAmong(v.keys, r, sc)
}

// matchAmong tries every spelling of the signed bytes against every key.
func (v *Verifier) matchAmong(keys []key, r *provider.Request, sc *scratch) (*key, string) {
	for n := 0; n < v.variants; n++ {
		reason := v.message(r, sc, n)
		if reason == skipVariant {
			continue
		}
		if reason != "" {
			return nil, reason
		}
		if k := v.check(keys, sc); k != nil {
			return k, ""
		}
	}
	return nil, SignatureMismatch
}
