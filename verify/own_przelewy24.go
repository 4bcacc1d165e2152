package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"penstock/provider"
)

// przelewy24 hashes a JSON object written anew: the named members in this order, compact,
// slashes and letters unescaped, and the CRC key as the last. A refund has other members
// than a transaction; which one it is, refundsUuid says.
// Source: mnastalski/przelewy24-php src/Api/Responses, developers.przelewy24.pl.
type przelewy24 struct{ v *Verifier }

var (
	p24Transaction = []string{"merchantId", "posId", "sessionId", "amount", "originAmount", "currency", "orderId", "methodId", "statement"}
	p24Refund      = []string{"orderId", "sessionId", "refundsUuid", "merchantId", "amount", "currency", "status"}
)

func newPrzelewy24(v *Verifier) (ownScheme, error) { return &przelewy24{v}, nil }

func (p *przelewy24) authenticate(r *provider.Request, _ time.Time, sc *scratch) (by, reason string) {
	if reason := p.v.readSignature(r, sc); reason != "" {
		return "", reason
	}
	text, reason := p.signed(r, sc)
	if reason != "" {
		return "", reason
	}
	for i := range p.v.keys {
		want := p.sum(text, &p.v.keys[i])
		for _, sig := range sc.sigs[:sc.nsig] {
			if hmac.Equal(want, sig) {
				return p.v.keys[i].by, ""
			}
		}
	}
	return "", SignatureMismatch
}

// signed is the object up to the CRC key's value.
func (p *przelewy24) signed(r *provider.Request, sc *scratch) ([]byte, string) {
	if !p.v.load(r, sc) {
		return nil, SignatureMalformed
	}
	names := p24Transaction
	switch _, f := walk(sc.doc, "refundsUuid"); f {
	case foundText:
		names = p24Refund
	case foundAbsent:
	default:
		return nil, SignatureMalformed
	}
	text := []byte{'{'}
	for _, name := range names {
		value, f := walk(sc.doc, name)
		if f != foundText {
			return nil, SignatureMalformed
		}
		text = append(append(append(text, '"'), name...), '"', ':')
		switch value.Type() {
		case fastjson.TypeString:
			s, err := value.StringBytes()
			if err != nil {
				return nil, SignatureMalformed
			}
			text = appendPHPJSON(text, s)
		case fastjson.TypeNumber, fastjson.TypeNull, fastjson.TypeTrue, fastjson.TypeFalse:
			text = value.MarshalTo(text)
		default:
			return nil, SignatureMalformed
		}
		text = append(text, ',')
	}
	return append(text, `"crc":`...), ""
}

// appendPHPJSON quotes as json_encode does with slashes and letters unescaped: as
// JavaScript, but for the two line ends of Unicode.
func appendPHPJSON(dst, s []byte) []byte {
	n := len(dst)
	dst = appendJSString(dst, s)
	if !bytes.Contains(s, []byte("\xe2\x80")) {
		return dst
	}
	with := strings.NewReplacer("\u2028", `\u2028`, "\u2029", `\u2029`).Replace(string(dst[n:]))
	return append(dst[:n], with...)
}

func (p *przelewy24) sum(text []byte, k *key) []byte {
	h := sha512.New384()
	h.Write(text)
	h.Write(append(appendPHPJSON(nil, k.secret), '}'))
	return h.Sum(nil)
}

func (p *przelewy24) sign(r *provider.Request, _ time.Time, sc *scratch) error {
	text, reason := p.signed(r, sc)
	if reason != "" {
		return errSign(p.v.name, reason)
	}
	return setField(r, "json", "sign", hex.EncodeToString(p.sum(text, &p.v.keys[0])))
}
