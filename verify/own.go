package verify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"penstock/provider"
)

// ownScheme is a scheme that stands alone: what a provider signs in a way that no other
// does has code of its own, in one file (own_<name>.go), behind this interface. The data of
// the definition (credentials, tolerance, settings, challenges, fixed answers) serve it as
// they serve every scheme; nobody else's hot path knows that it exists.
//
// More interfaces are asked for where a scheme has them: ownHandshake, ownAck, ownExplain.
type ownScheme interface {
	// authenticate returns the credential that proved r (key.by), or a reason. It reads r
	// and may keep slices of it in sc only. Signature first: clock, syntax and merchant are
	// looked at when it holds, so that each reason is true.
	authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string)
	// sign makes r what the provider would send at now, with the source's first secret or
	// its signing_key. It replaces r's slices and never writes into them.
	sign(r *provider.Request, now time.Time, sc *scratch) error
}

// ownHandshake is a scheme whose handshake no challenge of a definition can say. handled
// is false for a request that is no handshake; it goes on to authenticate.
type ownHandshake interface {
	handshake(r *provider.Request, now time.Time, sc *scratch) (res Result, handled bool)
}

// ownAck is a scheme that computes its answer to an accepted and stored delivery.
type ownAck interface {
	ack(r *provider.Request, now time.Time, sc *scratch) Reply
}

// ownExplain is a scheme that can say what it looked at, and why it refused.
type ownExplain interface {
	explain(r *provider.Request, now time.Time, e *Explanation)
}

// errSign says why a delivery cannot be signed.
func errSign(name, reason string) error {
	return fmt.Errorf("%s: cannot sign this request (%s): the signed fields are not all there", name, reason)
}

func errNoSigningKey(name string) error {
	return fmt.Errorf("%s: signing needs the private key: give credential signing_key", name)
}

// errNoSource: nobody fetches for this source what the provider publishes.
var errNoSource = errors.New("published keys are not fetched here")

// ownSettings is a scheme that reads settings of the source itself. It is asked once, after
// the scheme was made.
type ownSettings interface {
	configure(settings map[string]string) error
}

func errNotJSON(name string) error {
	return fmt.Errorf("%s: cannot sign this request: no JSON object", name)
}

// ownSchemes makes the code of a scheme once per source, after its keys were read. Every
// name of provider.OwnSchemes stands here (TestOwnSchemes).
var ownSchemes = map[string]func(v *Verifier) (ownScheme, error){
	"braintree":   newBraintree,
	"jwt":         newJWT,
	"mercadopago": newMercadoPago,
	"payfast":     newPayFast,
	"paysera":     newPaysera,
	"przelewy24":  newPrzelewy24,
	"tpay":        newTpay,
	"trustly":     newTrustly,
	"vipps":       newVipps,
	"paypal":      newPayPal,
	"sns":         newSNS,
	"truelayer":   newTrueLayer,
	"mailgun":     newMailgun,
	"wechat":      newWeChat,
}

// ownDev makes up the credentials of a scheme whose public half is more than a key (a
// certificate, a key set): what it fills in, DevCredentials leaves alone.
var ownDev = map[string]func(def *provider.Definition, into provider.Credentials) error{
	"paysera":   devRSA,
	"tpay":      devRSA,
	"trustly":   devRSA,
	"paypal":    devCertificate,
	"sns":       devCertificate,
	"truelayer": devTrueLayer,
}

// devRSA makes up the provider's key pair, and ours where answers are signed.
func devRSA(def *provider.Definition, into provider.Credentials) error {
	pair, err := newKeyPair(&provider.Scheme{Scheme: "rsa"}, rand.Reader)
	if err != nil {
		return err
	}
	for _, c := range def.EffectiveCredentials() {
		switch c.Role {
		case "public_key":
			into[c.Name] = []string{pair.public}
		case "signing_key":
			into[c.Name] = []string{pair.private}
		case "answer_key": // ours, so another pair
			own, err := newKeyPair(&provider.Scheme{Scheme: "rsa"}, rand.Reader)
			if err != nil {
				return err
			}
			into[c.Name] = []string{own.private}
		}
	}
	return nil
}

// ackBuilders compute the answer of schemes whose verification is data. Every name of
// provider.AckBuilders stands here.
var ackBuilders = map[string]func(v *Verifier, r *provider.Request, now time.Time, sc *scratch) Reply{
	"wayforpay":  (*Verifier).ackWayForPay,
	"adobe_sign": (*Verifier).ackAdobeSign,
}

// ownPieces append what a piece {own:name} of the signed bytes stands for, in its n-th
// spelling; skipVariant says that there is no such spelling of this request. Every name
// of provider.OwnPieces stands here.
var ownPieces map[string]func(v *Verifier, r *provider.Request, sc *scratch, n int) (reason string)

// init, because the pieces read the document like every other, which refers to them.
func init() {
	ownPieces = map[string]func(v *Verifier, r *provider.Request, sc *scratch, n int) string{
		"contentful_path": contentfulPath, "contentful_headers": contentfulHeaders, "hubspot_url": hubspotURL,
		"plivo_v2": plivoURL, "plivo_v3": plivoRequest, "segment": segmentBody, "twilio": twilioRequest,
	}
}

// ownSpellings is how many spellings a piece has, where it is more than one.
var ownSpellings = map[string]int{"segment": 3, "twilio": 3}

// challengeBuilders answer handshakes that no data can say. handled is false for what is
// none after all; it goes on as a delivery.
var challengeBuilders = map[string]func(v *Verifier, r *provider.Request, sc *scratch) (res Result, handled bool){
	"feishu": (*Verifier).answerFeishu,
}

// compileOwn readies the scheme's own code, if it has some.
func (v *Verifier) compileOwn() error {
	if v.kind != primOwn {
		return nil
	}
	build, ok := ownSchemes[v.s.Scheme]
	if !ok {
		return &ConfigError{Provider: v.name, Setting: "scheme", Err: fmt.Errorf("%q has no code", v.s.Scheme)}
	}
	own, err := build(v)
	if err != nil {
		var ce *ConfigError
		if errors.As(err, &ce) {
			return err
		}
		return &ConfigError{Provider: v.name, Setting: "scheme", Err: err}
	}
	v.own = own
	v.ownHandshake, _ = own.(ownHandshake)
	v.ownAck, _ = own.(ownAck)
	return nil
}

// KeySource brings what a provider publishes at an address of its own: certificates, key
// sets. Implementations bound size, time and hosts, and keep what they once got.
type KeySource interface {
	// Fetch returns the document at url. url comes from a definition, or from a request
	// after the scheme's own rules have pinned its host. An error means that there is
	// nothing kept and nothing to be had: the refusal is KeyUnavailable, never a mismatch.
	Fetch(url string) ([]byte, error)
}
