package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"penstock/provider"
)

// signingKey is a private key that signs test deliveries; it verifies nothing.
type signingKey struct{ signer crypto.Signer }

// fits says whether the key is of the kind that a JOSE algorithm wants.
func (s *signingKey) fits(alg string) bool {
	switch k := s.signer.(type) {
	case *rsa.PrivateKey:
		return jwas[alg].family == "RS" || jwas[alg].family == "PS"
	case *ecdsa.PrivateKey:
		return jwas[alg].family == "ES" && jwas[alg].bits == k.Params().BitSize
	case ed25519.PrivateKey:
		return jwas[alg].family == "Ed"
	}
	return false
}

func newSigningKey(value string) (*signingKey, error) {
	value = strings.TrimSpace(value)
	if rest, ok := strings.CutPrefix(value, "whsk_"); ok {
		raw, err := base64Key(rest)
		switch {
		case err != nil:
			return nil, err
		case len(raw) == ed25519.PrivateKeySize:
			return &signingKey{ed25519.PrivateKey(raw)}, nil
		case len(raw) == ed25519.SeedSize:
			return &signingKey{ed25519.NewKeyFromSeed(raw)}, nil
		}
		return nil, errors.New("is not an Ed25519 private key (whsk_ and base64 of 32 or 64 bytes)")
	}
	block, _ := pem.Decode([]byte(value))
	if block == nil {
		return nil, errors.New("is not PEM (-----BEGIN PRIVATE KEY-----)")
	}
	if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return &signingKey{s}, nil
		}
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return &signingKey{k}, nil
	}
	if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return &signingKey{k}, nil
	}
	return nil, errors.New("is no private key that can sign")
}

// Sign makes r a request as the provider would send it at now: it names the configured
// merchant, sets timestamp, id and required headers, and signs with the first secret or
// with signing_key. It replaces r's slices and never writes into them. A JSON document
// given for a form that carries one (LiqPay) is wrapped.
func (v *Verifier) Sign(r *provider.Request, now time.Time) error {
	if v.naming != nil {
		if err := v.naming(r); err != nil {
			return err
		}
	}
	for _, q := range v.require {
		if _, n := r.Header.Get(q.name); n == 0 || q.value != "" {
			r.Header = setHeader(r.Header, q.name, q.value)
		}
	}
	if v.s.Each != "" {
		return v.signItems(r)
	}
	if err := v.prepareBody(r); err != nil {
		return err
	}
	if name := v.s.JSONField; name != "" {
		text, ok := provider.FormField(r, name)
		if !ok {
			return fmt.Errorf("%s: sign: the body has no field %s", v.name, name)
		}
		r.Body = bytes.Clone(text)
		defer func() {
			body, kind := provider.MultipartForm(name, r.Body)
			r.Body, r.Header = body, setHeader(r.Header, "Content-Type", kind)
		}()
	}
	sc := &scratch{}
	switch v.kind {
	case primNone:
		return nil
	case primToken:
		return v.placeToken(r)
	case primBasic:
		return v.placeBasic(r)
	case primStandard:
		return v.signStandard(r, now, sc)
	case primOwn:
		return v.own.sign(r, now, sc)
	}
	v.placeID(r, sc)
	if v.s.KeyID != nil && len(v.keys) > 0 {
		r.Header = setHeader(r.Header, v.s.KeyID.Header, v.keys[0].id)
	}
	if err := v.placeTimestamp(r, now, sc); err != nil {
		return err
	}
	sc.alg = v.alg
	word := ""
	for _, w := range v.words {
		if w.alg >= v.minAlg && (word == "" || w.alg == algSHA256) {
			word, sc.alg = w.word, w.alg
		}
	}
	if reason := v.message(r, sc, 0); reason != "" {
		return fmt.Errorf("%s: cannot sign this request (%s): the signed fields are not all there", v.name, reason)
	}
	sig, err := v.signature(sc)
	if err != nil {
		return err
	}
	return v.placeSignature(r, v.compose(encode(sig, v.s.Signature.Encoding), word, sc))
}

// signature computes what the provider would put there.
func (v *Verifier) signature(sc *scratch) ([]byte, error) {
	for i := range v.keys {
		if !v.keys[i].public {
			return bytes.Clone(v.sumWith(&v.keys[i], sc.alg, sc)), nil
		}
	}
	if v.signing == nil {
		return nil, fmt.Errorf("%s: signing needs the private key: give credential signing_key", v.name)
	}
	switch k := v.signing.signer.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(k, sc.join()), nil
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
		return k.Sign(rand.Reader, v.digest(sc), cryptoHash(sc.alg))
	}
	return nil, fmt.Errorf("%s: a %T cannot sign for scheme %s", v.name, v.signing.signer, v.s.Scheme)
}

func encode(sig []byte, encoding string) string {
	switch encoding {
	case "base64":
		return base64.StdEncoding.EncodeToString(sig)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(sig)
	case "HEX":
		return strings.ToUpper(hex.EncodeToString(sig))
	}
	return hex.EncodeToString(sig)
}

// compose writes the signature as its header or field has it.
func (v *Verifier) compose(sig, word string, sc *scratch) string {
	g := &v.sig.s
	switch g.Format {
	case "list":
		sep := string(v.sig.listSep)
		var b strings.Builder
		if v.ts != nil && v.ts.t.Key != "" {
			b.WriteString(v.ts.t.Key + "=" + string(sc.ts) + sep)
		}
		b.WriteString(g.Key + "=" + g.Prefix + sig)
		if word != "" {
			b.WriteString(sep + g.AlgorithmKey + "=" + word)
		}
		return b.String()
	case "words":
		return g.Key + "," + g.Prefix + sig
	case "tagged":
		return word + "=" + sig
	case "csv":
		if v.ts != nil && v.ts.t.First {
			return string(sc.ts) + "," + g.Prefix + sig
		}
	}
	return g.Prefix + sig
}

func (v *Verifier) placeSignature(r *provider.Request, text string) error {
	switch {
	case v.sig.s.Field != "":
		return setField(r, v.s.Body, v.sig.s.Field, text)
	case v.sig.s.Query != "":
		r.Target = setQuery(r.Target, v.sig.s.Query, text)
		return nil
	}
	name := v.sig.headers[0]
	r.Header = setHeader(r.Header, name, text)
	return nil
}

func (v *Verifier) placeID(r *provider.Request, sc *scratch) {
	if v.s.ID == nil {
		return
	}
	sc.id = ensureID(r, v.s.ID.Header)
}

// ensureID keeps a message id that is there, or makes one up.
func ensureID(r *provider.Request, header string) []byte {
	id, n := r.Header.Get(header)
	if n != 1 || len(id) == 0 {
		id = madeUpID()
		r.Header = setHeader(r.Header, header, string(id))
	}
	return bytes.Clone(id)
}

func madeUpID() []byte {
	var b [12]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return []byte("msg_" + hex.EncodeToString(b[:]))
}

func (v *Verifier) placeTimestamp(r *provider.Request, now time.Time, sc *scratch) error {
	if v.ts == nil {
		return nil
	}
	t := &v.ts.t
	text := formatTime(now, t.Unit)
	sc.ts = []byte(text)
	switch {
	case t.Header != "":
		r.Header = setHeader(r.Header, t.Header, text)
	case t.Query != "":
		r.Target = setQuery(r.Target, t.Query, text)
	case t.JSON != "":
		return setField(r, "json", t.JSON, text)
	case t.Form != "":
		return setField(r, "form", t.Form, text)
	}
	return nil
}

func formatTime(now time.Time, unit string) string {
	switch unit {
	case "ms":
		return strconv.FormatInt(now.UnixMilli(), 10)
	case "rfc3339":
		return now.UTC().Format(time.RFC3339)
	case "http_date":
		return now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	}
	return strconv.FormatInt(now.Unix(), 10)
}

func (v *Verifier) signStandard(r *provider.Request, now time.Time, sc *scratch) error {
	t := v.trios[0]
	sc.alg = algSHA256
	id := ensureID(r, t.id)
	ts := []byte(formatTime(now, "s"))
	r.Header = setHeader(r.Header, t.ts, string(ts))
	sc.parts = [][]byte{id, dot, ts, dot, r.Body}
	sig, err := v.signature(sc)
	if err != nil {
		return err
	}
	tag := "v1,"
	if len(sig) == ed25519.SignatureSize {
		tag = "v1a,"
	}
	r.Header = setHeader(r.Header, t.sig, tag+encode(sig, "base64"))
	return nil
}

func (v *Verifier) placeToken(r *provider.Request) error {
	t := &v.token.t
	secret := string(v.keys[0].secret)
	switch {
	case t.Header != "":
		r.Header = setHeader(r.Header, t.Header, t.Prefix+secret)
	case t.Query != "":
		r.Target = setQuery(r.Target, t.Query, secret)
	case v.token.each != "":
		return setEach(r, v.token.each, v.token.leaf, secret)
	case t.Number:
		body, err := jsonWithRaw(r.Body, t.Field, []byte(secret))
		if err == nil {
			r.Body = body
		}
		return err
	default:
		return setField(r, v.s.Body, t.Field, secret)
	}
	return nil
}

func (v *Verifier) placeBasic(r *provider.Request) error {
	var user, pass string
	if len(v.usernames) > 0 {
		user = string(v.usernames[0].secret)
	}
	if len(v.passwords) > 0 {
		pass = string(v.passwords[0].secret)
	}
	r.Header = setHeader(r.Header, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+pass)))
	return nil
}
