package verify

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"penstock/provider"
)

// compileAnswers readies challenges, ack and refusal.
func (v *Verifier) compileAnswers() {
	for _, c := range v.s.Challenge {
		v.challenges = append(v.challenges, newChallenge(c))
		if c.Capture != nil {
			v.captures = c.Capture.Credential
		}
		if c.Reply.MAC != nil && !c.Signed {
			v.bodyRule = notAnswered
		}
	}
	if v.s.StrictJSON {
		v.bodyRule = jsonOrNothing
	}
	v.ack = Reply{Status: 200}
	if a := v.s.Ack; a != nil {
		v.ackBuilder = ackBuilders[a.Builder]
		v.ack = fixedReply(a, 200)
		if a.Fields {
			v.ackFields, _ = provider.ParseTemplate(ackTemplate(a.Body)) // Validate has read it
		}
	}
	if a := v.s.Refusal; a != nil {
		r := fixedReply(a, 401)
		v.refusal = &r
	}
}

// notAnswered: what a stranger can have signed in an unsigned handshake is no delivery.
func notAnswered(body []byte) bool { return !echoable(body, provider.ReplyFormat{}) }

// jsonOrNothing: what else follows a right hash was continued without the key.
func jsonOrNothing(body []byte) bool { return len(body) == 0 || json.Valid(body) }

func fixedReply(a *provider.Answer, status int) Reply {
	r := Reply{Status: a.Status, ContentType: a.ContentType}
	if r.Status == 0 {
		r.Status = status
	}
	if a.Body != "" {
		r.Body = []byte(a.Body)
		if r.ContentType == "" {
			r.ContentType = "text/plain"
		}
	}
	return r
}

// Ack is the provider's own answer to a delivery that was accepted and stored: fixed, or
// computed from it with the credential that verified it. now is the receiver's clock.
// The caller must not write to the reply's body.
func (v *Verifier) Ack(r *provider.Request, now time.Time) (reply Reply) {
	if v.ackBuilder == nil && v.ackFields == nil && v.ownAck == nil {
		return v.ack
	}
	defer func() {
		if recover() != nil {
			reply = Reply{Status: 200}
		}
	}()
	sc := v.get()
	defer v.put(sc)
	if v.ackFields != nil {
		return v.ackWithFields(r, sc)
	}
	if v.ownAck != nil {
		return v.ownAck.ack(r, now, sc)
	}
	return v.ackBuilder(v, r, now, sc)
}

// ackWayForPay: {"orderReference","status":"accept","time","signature"}, the signature
// HMAC-MD5 of orderReference;accept;time. Without it the callback is repeated for days.
// Source: wayforpay/php-sdk src/Handler/ServiceUrlHandler.php, getSuccessResponse.
func (v *Verifier) ackWayForPay(r *provider.Request, now time.Time, sc *scratch) Reply {
	k := v.ackKey(r, sc)
	if k == nil || !v.load(r, sc) {
		return Reply{Status: 200}
	}
	order, _ := sc.lookup("orderReference")
	at := strconv.FormatInt(now.Unix(), 10)
	text := string(order)
	sc.parts = append(sc.parts[:0], sc.keep(text+";accept;"+at))
	sig := hex.EncodeToString(v.sumWith(k, v.alg, sc))
	body := append([]byte(`{"orderReference":`), jsonText(text)...)
	body = append(body, `,"status":"accept","time":`...)
	body = append(body, at...)
	body = append(body, `,"signature":"`...)
	body = append(append(body, sig...), `"}`...)
	return Reply{Status: 200, ContentType: "application/json", Body: body}
}

// ackAdobeSign gives the client id back, in the header and in the body: a notification
// that is answered without it comes again. The id is the one that was verified.
// Source: Adobe Acrobat Sign webhook reference, verification of intent.
func (v *Verifier) ackAdobeSign(r *provider.Request, _ time.Time, _ *scratch) Reply {
	const name = "X-AdobeSign-ClientId"
	id, _ := r.Header.Get(name)
	if equalToken(v.keys, id) == nil {
		return Reply{Status: 200}
	}
	reply := Reply{Status: 200}
	setEcho(&reply, provider.ReplyFormat{Header: name, JSON: "xAdobeSignClientId"}, id)
	return reply
}

// ackKey is the secret that signed r: while two are valid, the answer must be signed with
// the one that the sender uses.
func (v *Verifier) ackKey(r *provider.Request, sc *scratch) *key {
	if v.readSignature(r, sc) == "" {
		if k, reason := v.match(r, sc); reason == "" {
			return k
		}
	}
	return nil
}
