package verify

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// trustly signs method, uuid and the data of a JSON-RPC call, the data as its sorted names
// and values without anything between them, and wants an answer signed the same way with
// the merchant's key. Because nothing parts name from value, one text has several
// readings: the names of what was read must be those of the method, money and numbers
// must look like some.
// Source: trustly/trustly-client-php Trustly/Api/api.php, trustly-client-java Serializer.
type trustly struct {
	v      *Verifier
	answer *rsa.PrivateKey
}

func newTrustly(v *Verifier) (ownScheme, error) {
	p := &trustly{v: v}
	if v.answer != nil {
		p.answer, _ = v.answer.signer.(*rsa.PrivateKey)
	}
	if p.answer == nil {
		return nil, v.fail("private_key", errors.New("is no RSA key, which the answers are signed with"))
	}
	return p, nil
}

func (p *trustly) authenticate(r *provider.Request, _ time.Time, sc *scratch) (by, reason string) {
	if !p.v.load(r, sc) {
		return "", SignatureMissing
	}
	params, f := walk(sc.doc, "params")
	if f != foundText || params.Type() != fastjson.TypeObject {
		return "", SignatureMissing
	}
	method, f := sc.lookup("method")
	if f != foundText {
		return "", SignatureMalformed
	}
	method = slices.Clone(method)
	by, reason = p.proved(string(method), params, sc)
	if reason != "" {
		return "", reason
	}
	return by, p.checkData(string(method), sc)
}

// proved checks the signature in o, which holds uuid and data too.
func (p *trustly) proved(method string, o *fastjson.Value, sc *scratch) (by, reason string) {
	sent, f := sc.lookupJSON(o, "signature")
	switch f {
	case foundAbsent, foundNull:
		return "", SignatureMissing
	case foundText:
	default:
		return "", SignatureMalformed
	}
	sig, err := p.v.b64.DecodeString(string(sent))
	if err != nil || strings.ContainsAny(string(sent), "\r\n") {
		return "", SignatureMalformed
	}
	text, ok := trustlyText(method, o, sc)
	if !ok {
		return "", SignatureMalformed
	}
	sum := sha1.Sum(text)
	for i := range p.v.keys {
		if k := &p.v.keys[i]; k.rsa != nil && rsa.VerifyPKCS1v15(k.rsa, crypto.SHA1, sum[:], sig) == nil {
			return k.by, ""
		}
	}
	return "", SignatureMismatch
}

func trustlyText(method string, o *fastjson.Value, sc *scratch) ([]byte, bool) {
	uuid, f := sc.lookupJSON(o, "uuid")
	if f != foundText {
		return nil, false
	}
	data, f := walk(o, "data")
	if f == foundDuplicate {
		return nil, false
	}
	text := append([]byte(method), uuid...)
	if data == nil {
		return text, true
	}
	return appendTrustly(text, data)
}

// appendTrustly writes a value as it is signed: null is nothing, elements of a list stand
// in their order, members by their sorted names, each name in front of its value.
func appendTrustly(dst []byte, v *fastjson.Value) ([]byte, bool) {
	switch v.Type() {
	case fastjson.TypeNull:
		return dst, true
	case fastjson.TypeString:
		s, err := v.StringBytes()
		return append(dst, s...), err == nil
	case fastjson.TypeArray:
		list, err := v.Array()
		ok := err == nil
		for _, e := range list {
			if dst, ok = appendTrustly(dst, e); !ok {
				break
			}
		}
		return dst, ok
	case fastjson.TypeObject:
		o, err := v.Object()
		if err != nil {
			return dst, false
		}
		list := make([]member, 0, o.Len())
		o.Visit(func(k []byte, v *fastjson.Value) { list = append(list, member{k, v}) })
		slices.SortFunc(list, func(a, b member) int { return strings.Compare(string(a.name), string(b.name)) })
		for i, m := range list {
			if i > 0 && strings.EqualFold(string(m.name), string(list[i-1].name)) {
				return dst, false
			}
			var ok bool
			if dst, ok = appendTrustly(append(dst, m.name...), m.value); !ok {
				return dst, false
			}
		}
		return dst, true
	}
	return v.MarshalTo(dst), true
}

// checkData refuses the other readings of a signed text.
func (p *trustly) checkData(method string, sc *scratch) string {
	data, f := walk(sc.doc, "params.data")
	if f != foundText || !trustlyNames(data) {
		return Policy
	}
	required := []string{"notificationid", "messageid", "orderid"}
	switch method {
	case "credit", "debit", "payoutconfirmation":
		required = append(required, "amount", "currency")
	case "account", "pending", "cancel":
	default: // kinds that we do not know name what they like
		required = required[:1]
	}
	for _, name := range []string{"notificationid", "messageid", "orderid", "amount", "currency"} {
		value, f := sc.lookupJSON(data, name)
		switch {
		case f == foundDuplicate || f == foundOther:
			return Policy
		case f != foundText || len(value) == 0:
			if slices.Contains(required, name) {
				return Policy
			}
			continue
		}
		ok := true
		switch name {
		case "notificationid", "orderid":
			ok = hasSyntax(value, "digits")
		case "amount":
			ok = isAmount(value)
		case "currency":
			ok = provider.KnownCurrency(string(value))
		}
		if !ok {
			return Policy
		}
	}
	return ""
}

// trustlyNames: every name is a word, as all of Trustly's are.
func trustlyNames(v *fastjson.Value) bool {
	ok := true
	if list, err := v.Array(); err == nil {
		for _, e := range list {
			ok = ok && trustlyNames(e)
		}
		return ok
	}
	if o, err := v.Object(); err == nil {
		o.Visit(func(k []byte, v *fastjson.Value) {
			ok = ok && len(k) > 0 && len(k) <= 40 && hasSyntax(k, "word") && !strings.ContainsAny(string(k), ".-") && trustlyNames(v)
		})
	}
	return ok
}

// ack is the answer that Trustly waits for, signed with the merchant's key over what it
// sent itself; without it the notification is repeated.
func (p *trustly) ack(r *provider.Request, _ time.Time, sc *scratch) Reply {
	if !p.v.load(r, sc) {
		return Reply{Status: 200}
	}
	method, f1 := sc.lookup("method")
	uuid, f2 := sc.lookup("params.uuid")
	if f1 != foundText || f2 != foundText {
		return Reply{Status: 200}
	}
	sig, err := trustlySign(p.answer, trustlyAckText(string(method), string(uuid)))
	if err != nil {
		return Reply{Status: 200}
	}
	body := append([]byte(`{"result":{"signature":"`+sig+`","uuid":`), jsonText(string(uuid))...)
	body = append(append(body, `,"method":`...), jsonText(string(method))...)
	body = append(body, `,"data":{"status":"OK"}},"version":"1.1"}`...)
	return Reply{Status: 200, ContentType: "application/json", Body: body}
}

func trustlyAckText(method, uuid string) []byte { return []byte(method + uuid + "statusOK") }

func trustlySign(k crypto.Signer, text []byte) (string, error) {
	sum := sha1.Sum(text)
	sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA1)
	return base64.StdEncoding.EncodeToString(sig), err
}

func (p *trustly) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	if p.v.signing == nil {
		return errNoSigningKey(p.v.name)
	}
	if !p.v.load(r, sc) {
		return errSign(p.v.name, SignatureMalformed)
	}
	method, f := sc.lookup("method")
	params, f2 := walk(sc.doc, "params")
	if f != foundText || f2 != foundText {
		return errSign(p.v.name, SignatureMissing)
	}
	text, ok := trustlyText(string(method), params, sc)
	if !ok {
		return errSign(p.v.name, SignatureMalformed)
	}
	sig, err := trustlySign(p.v.signing.signer, text)
	if err != nil {
		return fmt.Errorf("%s: sign: %w", p.v.name, err)
	}
	return setField(r, "json", "params.signature", sig)
}

// primitive checks the signature of an answer, which is made as that of a call.
func (p *trustly) primitive(r *provider.Request, sc *scratch) bool {
	if !p.v.load(r, sc) {
		return false
	}
	result, f := walk(sc.doc, "result")
	method, f2 := sc.lookup("result.method")
	if f != foundText || f2 != foundText {
		return false
	}
	_, reason := p.proved(string(method), result, sc)
	return reason == ""
}
