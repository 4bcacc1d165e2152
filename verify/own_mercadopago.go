package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"penstock/provider"
)

// mercadoPago signs "id:<data.id>;request-id:<x-request-id>;ts:<ts>;" and nothing of the
// body; the part of a value that is not sent is left out. The provider's text says that
// the id is signed in small letters, its SDKs sign it as it is: both are tried.
// Source: mercadopago/sdk-go pkg/webhook/webhook.go.
type mercadoPago struct{ v *Verifier }

func newMercadoPago(v *Verifier) (ownScheme, error) { return &mercadoPago{v}, nil }

func (m *mercadoPago) authenticate(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	v := m.v
	if reason := v.readSignature(r, sc); reason != "" {
		return "", reason
	}
	if reason := v.readTimestamp(r, sc); reason != "" {
		return "", reason
	}
	id, request, reason := m.values(r, sc)
	if reason != "" {
		return "", reason
	}
	k := m.match(id, request, sc)
	if k == nil {
		if small := bytes.ToLower(id); string(small) != string(id) {
			k = m.match(small, request, sc)
		}
	}
	if k == nil {
		return "", SignatureMismatch
	}
	if v.tolerance > 0 {
		if reason := v.ts.check(sc.ts, now, v.tolerance); reason != "" {
			return "", reason
		}
	}
	return k.by, ""
}

// values are the signed id and request id. A ";" or a colon in one of them could pass for
// the part that follows, so neither may hold one.
func (m *mercadoPago) values(r *provider.Request, sc *scratch) (id, request []byte, reason string) {
	pairs, ok := sc.loadQuery(r)
	if !ok {
		return nil, nil, SignatureMalformed
	}
	id, n := find(pairs, "data.id")
	if n > 1 {
		return nil, nil, SignatureMalformed
	}
	request, n = r.Header.Get("x-request-id")
	if n > 1 {
		return nil, nil, DuplicateHeader
	}
	if bytes.ContainsAny(id, ";:") || bytes.ContainsAny(request, ";:") {
		return nil, nil, SignatureMalformed
	}
	return id, request, ""
}

func (m *mercadoPago) match(id, request []byte, sc *scratch) *key {
	for i := range m.v.keys {
		want := m.sum(&m.v.keys[i], id, request, sc.ts)
		for _, sig := range sc.sigs[:sc.nsig] {
			if hmac.Equal(want, sig) {
				return &m.v.keys[i]
			}
		}
	}
	return nil
}

func (m *mercadoPago) sum(k *key, id, request, ts []byte) []byte {
	mac := hmac.New(sha256.New, k.secret)
	mac.Write(mercadoPagoText(id, request, ts))
	return mac.Sum(nil)
}

func mercadoPagoText(id, request, ts []byte) (text []byte) {
	for _, p := range []struct {
		label string
		value []byte
	}{{"id:", id}, {"request-id:", request}, {"ts:", ts}} {
		if len(p.value) > 0 {
			text = append(append(append(text, p.label...), p.value...), ';')
		}
	}
	return text
}

// sign puts the id of the body's data into the query, as the provider does.
func (m *mercadoPago) sign(r *provider.Request, now time.Time, sc *scratch) error {
	if pairs, _ := sc.loadQuery(r); m.v.load(r, sc) {
		if _, n := find(pairs, "data.id"); n == 0 {
			if id, f := sc.lookup("data.id"); f == foundText {
				r.Target = setQuery(r.Target, "data.id", string(id))
			}
			if typ, f := sc.lookup("type"); f == foundText {
				r.Target = setQuery(r.Target, "type", string(typ))
			}
			sc.queried, sc.query = false, sc.query[:0]
		}
	}
	ensureID(r, "x-request-id")
	id, request, _ := m.values(r, sc)
	sc.ts = []byte(formatTime(now, "ms"))
	sig := hex.EncodeToString(m.sum(&m.v.keys[0], id, request, sc.ts))
	r.Header = setHeader(r.Header, "x-signature", "ts="+string(sc.ts)+",v1="+sig)
	return nil
}
