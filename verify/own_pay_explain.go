package verify

import (
	"encoding/base64"
	"encoding/hex"
	"time"

	"penstock/provider"
)

// explainKeysWith lists the keys and what each of them makes of the signed bytes; expected
// is nil, or gives nothing, where a key does not compute a signature.
func (v *Verifier) explainKeysWith(keys []key, e *Explanation, expected func(k *key) string) {
	for i := range keys {
		k := &keys[i]
		x := ExplainKey{Credential: k.name, Fingerprint: k.fp, Match: k.by == e.VerifiedBy}
		if expected != nil && !k.public {
			x.Expected = expected(k)
		}
		e.Keys = append(e.Keys, x)
	}
}

func (m *mercadoPago) explain(r *provider.Request, now time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = "id:{query data.id};request-id:{header x-request-id};ts:{ts};"
	e.Received = m.v.receivedText(r, sc)
	if m.v.readSignature(r, sc) != "" {
		return
	}
	id, request, reason := m.values(r, sc)
	if reason != "" {
		return
	}
	m.v.explainTime(sc, now, e)
	e.Signed = mercadoPagoText(id, request, sc.ts)
	m.v.explainKeysWith(m.v.keys, e, func(k *key) string { return hex.EncodeToString(m.sum(k, id, request, sc.ts)) })
}

func (p *payFast) explain(r *provider.Request, _ time.Time, e *Explanation) {
	e.Template = "the fields in their order up to signature, &passphrase=<passphrase>"
	text, sent, reason := p.signed(r, &scratch{})
	if reason != "" {
		return
	}
	e.Received, e.Signed = []string{hex.EncodeToString(sent)}, text
	if !p.bare {
		e.Signed = append(e.Signed, "&passphrase=<passphrase>"...)
	}
	p.v.explainKeysWith(p.v.keys, e, func(k *key) string { return hex.EncodeToString(p.sum(text, k)) })
}

func (p *vipps) explain(r *provider.Request, now time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = `{method}\n{path and query}\n{x-ms-date};{host};{x-ms-content-sha256}`
	e.Received = p.v.receivedText(r, sc)
	if p.v.readSignature(r, sc) != "" || p.v.readTimestamp(r, sc) != "" {
		return
	}
	host, pathQuery, ok := p.address(r)
	hash, n := r.Header.Get(vippsHash)
	if !ok || n != 1 {
		return
	}
	p.v.explainTime(sc, now, e)
	e.Signed = vippsText(r.Method, pathQuery, host, sc.ts, hash)
	p.v.explainKeysWith(p.v.keys, e, func(k *key) string {
		return base64.StdEncoding.EncodeToString(p.sum(k, r.Method, pathQuery, host, sc.ts, hash))
	})
}

func (p *przelewy24) explain(r *provider.Request, _ time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = "a JSON object of the fields in this order, the CRC key as the last: " + e.Template
	e.Received = p.v.receivedText(r, sc)
	text, reason := p.signed(r, sc)
	if reason != "" {
		return
	}
	e.Signed = append(append([]byte(nil), text...), `"<crc>"}`...)
	p.v.explainKeysWith(p.v.keys, e, func(k *key) string { return hex.EncodeToString(p.sum(text, k)) })
}

func (p *tpay) explain(r *provider.Request, _ time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = "JWS over the body; md5 of id, tr_id, tr_amount, tr_crc, <security code>"
	text, reason := p.md5Text(r, sc)
	if reason == "" {
		sent, _ := sc.lookup("md5sum")
		e.Received = append(e.Received, string(sent))
	}
	e.Received = append(e.Received, p.v.receivedText(r, sc)...)
	e.Signed = append([]byte(nil), r.Body...)
	p.v.explainKeysWith(p.secrets, e, func(k *key) string {
		if reason != "" {
			return ""
		}
		return hex.EncodeToString(md5Of(text, k.secret))
	})
	p.v.explainKeysWith(p.public, e, nil)
}

func (p *paysera) explain(r *provider.Request, _ time.Time, e *Explanation) {
	sc := &scratch{}
	e.Where, e.Template = "query parameters ss3, ss2, ss1", "{query data}"
	pairs, ok := sc.loadQuery(r)
	if !ok {
		return
	}
	data, _ := find(pairs, "data")
	for _, name := range []string{"ss3", "ss2", "ss1"} {
		if text, n := find(pairs, name); n > 0 {
			e.Received = append(e.Received, name+"="+string(text))
		}
	}
	e.Signed = append([]byte(nil), data...)
	p.v.explainKeysWith(p.public, e, nil)
	p.v.explainKeysWith(p.secrets, e, func(k *key) string { return hex.EncodeToString(md5Of(data, k.secret)) })
}

func (p *braintree) explain(r *provider.Request, _ time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = "{form bt_payload}"
	if !p.v.load(r, sc) || sc.source != sourceForm {
		return
	}
	list, _ := find(sc.form, "bt_signature")
	payload, _ := find(sc.form, "bt_payload")
	if len(list) > 0 {
		e.Received = []string{string(list)}
	}
	e.Signed = append([]byte(nil), payload...)
	p.v.explainKeysWith(p.v.keys, e, func(k *key) string { return hex.EncodeToString(braintreeSum(k, payload)) })
}

func (p *trustly) explain(r *provider.Request, _ time.Time, e *Explanation) {
	sc := &scratch{}
	e.Template = "{method}{uuid}{data: sorted names and values}"
	e.Received = p.v.receivedText(r, sc)
	params, f := walk(sc.doc, "params")
	method, f2 := sc.lookup("method")
	if f != foundText || f2 != foundText {
		return
	}
	if text, ok := trustlyText(string(method), params, sc); ok {
		e.Signed = text
	}
	p.v.explainKeysWith(p.v.keys, e, nil)
	if e.Reason == Policy {
		e.Hints = append(e.Hints, "the signature is right, but a field that this kind of notification has is missing or has another form: names and values are signed without anything between them")
	}
}
