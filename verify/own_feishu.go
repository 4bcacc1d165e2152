package verify

import "penstock/provider"

// answerFeishu answers the handshake of an app with an encrypt key: the body is
// {"encrypt": ...}, and inside stands what an app without one gets in the clear. The
// verification token in it must be ours; whatever else is inside is a delivery, which its
// signature proves.
// Source: larksuite/oapi-sdk-go event/event.go (EventDecrypt) and event/dispatcher.
func (v *Verifier) answerFeishu(r *provider.Request, sc *scratch) (res Result, handled bool) {
	text, f := sc.lookupJSON(sc.doc, "encrypt")
	if f != foundText {
		return Result{}, false
	}
	for i := range v.keys {
		plain, ok := provider.OpenCBC(v.keys[i].secret, text)
		if !ok {
			continue
		}
		inner := *r
		inner.Body = plain
		own := &scratch{}
		for n := range v.challenges {
			if plain := &v.challenges[n]; plain.c.Builder == "" && v.matches(plain, &inner, own) {
				return v.answerChallenge(plain, &inner, "", own), true
			}
		}
	}
	return Result{}, false
}
